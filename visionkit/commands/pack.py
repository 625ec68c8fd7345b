"""`visionkit pack`: a data set, read and shrunk once, for all runs on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionkit.commands.arguments import VerbParser
from visionkit.errors import InputError

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Pack a data set."""
    parser = VerbParser(
        "pack",
        "Read a data set once and write it for random access: small JPEGs or raw pixels in a few files,\n"
        "checked when read, shared by both arms, all seeds and all processes. Then: --data FOLDER.\n"
        "The same command again continues what was interrupted, and mends what is damaged.",
        epilog="examples:\n  visionkit pack photos/ --out photos.pack\n"
        "  visionkit pack photos/ --out photos.raw --form raw --short 160 --workers 8\n"
        "  python recipes/classify.py --data photos.pack",
    )
    parser.add_argument("data", help="a folder a class, a .csv table, a VOC folder, pictures and masks")
    parser.add_argument("--out", help="where the pack goes (default: DATA.pack)")
    parser.add_argument(
        "--short",
        type=int,
        help="shrink to this short side; 0: not (default 256; with boxes or masks 0)",
    )
    parser.add_argument("--form", default="jpeg", choices=("jpeg", "raw"), help="jpeg | raw (default jpeg)")
    parser.add_argument("--quality", type=int, default=92, help="of JPEGs that are written (default 92)")
    parser.add_argument("--target", default="single", help="tables: single | multi | regression")
    parser.add_argument("--workers", type=int, default=0, help="processes (default 0: this one)")
    args = parser.parse(argv)
    from visionkit.data.pack import pack
    from visionkit.data.pack_layout import PackSettings, read_pack

    splits, placed = _open(args.data, args.target)
    short = args.short if args.short is not None else (0 if placed else 256)
    settings = PackSettings(short=short, form=args.form, quality=args.quality)
    out = Path(args.out or f"{args.data.rstrip('/')}.pack")

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    pack(splits, out, settings=settings, workers=args.workers, say=say)
    described = read_pack(out)
    count, size = sum(described["splits"].values()), sum(shard["bytes"] for shard in described["shards"])
    sys.stdout.write(f"{out}: {count:,} samples, {size / 1e6:,.1f} MB, content {described['content']}\n")
    return 0


def _open(data: str, target: str) -> tuple[Any, bool]:
    """Return the splits of a data set, and whether its samples have boxes or masks."""
    path = Path(data)
    if path.suffix.lower() == ".csv":
        from visionkit.data.table import image_table

        if target not in ("single", "multi", "regression"):
            raise InputError(f"Expected --target to be single, multi or regression, but got {target!r}.")
        return image_table(path, kind=target), False  # type: ignore[arg-type]
    if (path / "Annotations").is_dir():
        from visionkit.data.voc import voc

        return voc(path), True
    if any((path / place).is_dir() for place in ("masks", "train/masks")):
        from visionkit.data.masks import mask_folder

        return mask_folder(path), True
    from visionkit.data.folder import image_folder

    return image_folder(path), False
