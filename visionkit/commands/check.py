"""`visionkit check`: read a data set end to end, name every fault."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from visionkit.commands.arguments import VerbParser
from visionkit.errors import DataError, InputError

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Check a data set; the status is 2 if anything is wrong in it."""
    parser = VerbParser(
        "check",
        "Read every sample of a data set and name what is wrong: file, record, field.",
        epilog="examples:\n  visionkit check photos/\n  visionkit check annotations/instances_val2017.json",
    )
    parser.add_argument(
        "data",
        help="a folder a class, a .csv, a VOC or COCO folder or .json, masks, captions, a pack, or scenes",
    )
    parser.add_argument("--most", type=int, default=20, help="faults that are printed (default 20)")
    args = parser.parse(argv)
    kind, checked, faults = _check(args.data)
    sys.stdout.write(f"{args.data}: {kind}, {checked}, {len(faults):,} faults\n")
    for fault in faults[: args.most]:
        sys.stdout.write(f"  {fault}\n")
    if len(faults) > args.most:
        sys.stdout.write(f"  and {len(faults) - args.most:,} more (--most {len(faults)})\n")
    if faults:
        raise InputError(f"{len(faults):,} faults. Repair or remove what is named, and check again.")
    sys.stdout.write("no faults\n")
    return 0


def _check(data: str) -> tuple[str, str, Sequence[DataError]]:
    """Return what a data set was taken for, how much of it was looked at, and every fault."""
    if data == "scenes":
        from visionkit.data.check import check_reader
        from visionkit.data.scenes import scenes

        splits = scenes("classification", train=100, val=50, test=50)
        readers = [reader for reader in (splits.train, splits.val, splits.test) if reader is not None]
        faults = [fault for reader in readers for fault in check_reader(reader)]
        return "composed scenes", f"{sum(map(len, readers)):,} samples", faults
    path = Path(data)
    captions = _captions(path)
    if captions is not None:
        return captions
    if not path.is_dir() and path.suffix.lower() not in (".csv", ".json"):
        what = "a file of another kind" if path.exists() else "nothing there"
        raise InputError(
            f"Expected a folder of pictures, a .csv table, a .json or 'scenes', but got {data!r}: {what}."
        )
    if (path / "pack.json").is_file():
        from visionkit.data.packed import check_pack

        return "a pack", "every shard and record", check_pack(path)
    from visionkit.data.coco import check_coco, is_coco

    if is_coco(path):
        count, faults = check_coco(path)
        return "COCO boxes", f"{count:,} annotations", faults
    pairs = any((path / place).is_dir() for place in ("masks", "train/masks", "leftImg8bit"))
    boxes, outlines = (path / "Annotations").is_dir(), (path / "ImageSets" / "Segmentation").is_dir()
    if boxes or outlines or pairs:
        return _check_parts(path, boxes=boxes, masks=outlines or pairs)
    from visionkit.data.check import check_data

    report = check_data(path)
    return report.kind, f"{report.checked:,} pictures", report.faults


def _check_parts(path: Path, *, boxes: bool, masks: bool) -> tuple[str, str, Sequence[DataError]]:
    """Check the boxes and the masks of a folder that holds either or both."""
    kinds, looked, faults = [], [], []
    if boxes:
        from visionkit.data.voc import check_voc

        kinds.append("Pascal VOC boxes")
        looked.append(f"{len(list((path / 'Annotations').glob('*.xml'))):,} annotations")
        faults += check_voc(path)
    if masks:
        from visionkit.data.check_masks import check_masks

        kinds.append("pictures and masks")
        looked.append("every pair")
        faults += check_masks(path)
    return " and ".join(kinds), ", ".join(looked), faults


def _captions(path: Path) -> tuple[str, str, Sequence[DataError]] | None:
    from visionkit.data.caption_records import caption_format

    found = caption_format(path)
    if found is None:
        return None
    from visionkit.data.captions import check_captions

    kinds = {"karpathy": "Karpathy's captions", "coco": "COCO captions", "flickr": "Flickr captions"}
    return kinds[found[0]], "every record and picture", check_captions(path)
