"""`visionkit pack`: a data set, read and shrunk once, for all runs on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from visionkit.commands.arguments import VerbParser, add_stream, add_table, stream_config, table_config
from visionkit.errors import unknown_name
from visionkit.files import local_path

if TYPE_CHECKING:
    from visionkit.data.formats.options import OpenOptions
    from visionkit.data.splits import Splits

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Pack a data set."""
    args = _parser().parse(argv)
    from visionkit.data.formats.csv.detect import table_reading
    from visionkit.data.formats.options import OpenOptions
    from visionkit.data.pack.layout import PackSettings, read_pack
    from visionkit.data.pack.writer import pack

    options = OpenOptions(
        target=args.target or None,
        table=table_config(args),
        stream=stream_config(args),
        classes=args.classes,
        images=args.images,
        masks=args.masks,
    )
    splits = _open(args.data, args.task, options)
    for notice in splits.notices:
        _write(f"notice: {notice}")
    if reading := table_reading(splits.facts):
        _write(f"notice: {args.data} is {reading}")
    annotated = {"boxes", "mask"} & set(splits.train[0])
    short = args.short if args.short is not None else (0 if annotated else 256)
    settings = PackSettings(short=short, form=args.form, quality=args.quality, records=args.records)
    out = local_path(args.out or f"{args.data.rstrip('/')}.pack", "a folder to write")
    pack(splits, out, settings=settings, workers=args.workers, log=_write)
    described = read_pack(out)
    count, size = sum(described["splits"].values()), sum(each.stat().st_size for each in out.glob("*.tar"))
    sys.stdout.write(f"{out}: {count:,} samples, {size / 1e6:,.1f} MB, content {described['content']}\n")
    return 0


def _parser() -> VerbParser:
    parser = VerbParser(
        "pack",
        "Read a data set once and write it for random access: WebDataset shards of small JPEGs or pixels,\n"
        "checked when read, shared by both arms, all seeds and all processes. Then: --data FOLDER.\n"
        "The same command again continues what was interrupted, and mends what is damaged.",
        epilog="examples:\n  visionkit pack photos/ --out photos.pack\n"
        "  visionkit pack photos/ --out photos.raw --form raw --short 160 --workers 8\n"
        "  python recipes/classify.py --data photos.pack",
    )
    parser.add_argument("data", help="a folder or a file of any format of `visionkit ls data`")
    parser.add_argument("--task", default="", help="read it for this task, where its format serves several")
    parser.add_argument("--out", help="where the pack goes (default: DATA.pack)")
    parser.add_argument(
        "--short",
        type=int,
        help="shrink to this short side; 0: not (default 256; with boxes or masks 0)",
    )
    parser.add_argument("--form", default="jpeg", choices=("jpeg", "raw"), help="jpeg | raw (default jpeg)")
    parser.add_argument(
        "--records",
        type=int,
        default=512,
        help="samples a shard: fewer for a stream of large ones (default 512)",
    )
    parser.add_argument("--quality", type=int, default=92, help="of JPEGs that are written (default 92)")
    add_table(parser, "detected from the cells")
    add_stream(parser)
    parser.add_argument("--classes", default="", help="masks: the label map file of their values")
    parser.add_argument("--images", default="", help="captions: the folder of the images")
    parser.add_argument("--masks", action="store_true", help="boxes: pack the outlines of the objects, too")
    parser.add_argument("--workers", type=int, default=0, help="processes (default 0: this one)")
    return parser


def _write(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _open(data: str, task: str, options: OpenOptions) -> Splits:
    """Return the splits of a data set, for the task named or the first that its format serves."""
    from visionkit.data.formats.open import TASKS, detect_formats, open_dataset

    if task and task not in TASKS:
        raise unknown_name("task", task, TASKS)
    formats = detect_formats(data)
    return open_dataset(data, task or (formats[0].tasks[0] if formats else TASKS[0]), options)
