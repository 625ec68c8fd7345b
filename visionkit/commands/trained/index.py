"""`visionkit index`: the vectors of a data set, written once, to be searched."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from visionkit.commands.arguments import VerbParser, add_stream, add_table, stream_config, table_config
from visionkit.commands.progress import ImageProgress
from visionkit.errors import InputError, expected
from visionkit.printable import for_terminal

if TYPE_CHECKING:
    from visionkit.retrieval.build import IndexReport

__all__ = ["add_device", "main"]

_NAMED = 5  # files that cannot be read and are named at the end


def main(argv: Sequence[str]) -> int:
    """Write an index, and return 0, or 1 if a file could not be read."""
    args = _parser().parse(argv)
    if args.batch_size < 0:
        raise InputError(expected("--batch_size", "0 or more", args.batch_size))
    from visionkit.data.formats.options import OpenOptions
    from visionkit.retrieval.build import build_index

    progress: list[ImageProgress] = []

    def advance(done: int, total: int) -> None:
        if not progress:
            progress.append(ImageProgress(total).__enter__())
        while progress[0].done < done:
            progress[0].advance()

    try:
        report = build_index(
            args.data,
            args.out,
            backbone=args.backbone,
            init=args.init,
            metric=args.metric,
            split=args.split,
            image_size=args.image_size,
            options=OpenOptions(
                target=args.target or None,
                table=table_config(args),
                stream=stream_config(args),
                classes=args.classes,
                images=args.images,
            ),
            batch_size=args.batch_size,
            device=args.device,
            precision=args.precision,
            which=args.which,
            progress=advance,
        )
    finally:
        for each in progress:
            each.__exit__(None, None, None)
    _print(report)
    return 1 if report.unread else 0


def _print(report: IndexReport) -> None:
    for note in report.notes:
        _note(note)
    if report.copies:
        _note(f"{report.copies:,} images have the content of an earlier one:")
        for name, first in report.copy_examples:
            _note(f"  {name} is {first}")
    if report.unread:
        _note(f"{len(report.unread):,} images could not be read and are left out:")
        for _, error in report.unread[:_NAMED]:
            _note(f"  {error}")
    known = f", {report.known:,} were there already" if report.known else ""
    text = (
        f"{report.folder}: {report.count:,} vectors of length {report.dim:,}, {report.added:,} new{known}\n"
    )
    sys.stdout.write(for_terminal(text))


def _note(text: str) -> None:
    sys.stderr.write(f"{for_terminal(text)}\n")


def add_device(parser: VerbParser) -> None:
    """Add the flags of the device and the batch.

    Args:
        parser: The verb's flags.
    """
    parser.add_argument("--batch_size", type=int, default=0, metavar="N", help="images at once (default 32)")
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "gpu", "mps"),
        help="auto | cpu | gpu | mps (default auto)",
    )


def _parser() -> VerbParser:
    parser = VerbParser(
        "index",
        "Give every image of a data set a vector, once, and write them into a folder for visionkit search.\n"
        "The same command again continues what was interrupted; images that are new are added.",
        epilog="examples:\n"
        "  visionkit index photos/ --backbone packaged/efficientnet_lite0 --out photos.index\n"
        "  visionkit index products/ --backbone runs/products --out products.index --split train\n"
        "  visionkit index 'more/**/*.jpg' --backbone runs/products --out products.index",
        loads=True,
    )
    parser.add_argument(
        "data", nargs="+", metavar="DATA", help="a data set of any format, or images, folders, globs"
    )
    parser.add_argument(
        "--backbone",
        required=True,
        metavar="NAME",
        help="a backbone's name, a run, or a checkpoint (required)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where the index is written (required)")
    parser.add_argument(
        "--init", default="pretrained", help="of a backbone: pretrained (default) | scratch | NAME.TAG | FILE"
    )
    parser.add_argument(
        "--split",
        nargs="+",
        default=["all"],
        metavar="NAME",
        help="of a data set: all (default) | train | val | test",
    )
    parser.add_argument("--metric", default="cosine", choices=("cosine", "l2"), help="cosine (default) | l2")
    parser.add_argument(
        "--image_size", type=int, default=0, metavar="PX", help="side of the images (default: as trained)"
    )
    add_device(parser)
    parser.add_argument(
        "--precision", default="32-true", metavar="P", help="32-true (default) | bf16-mixed | 16-mixed"
    )
    parser.add_argument(
        "--which", default="best", choices=("best", "last"), help="checkpoint of a run: best (default) | last"
    )
    add_table(parser, "detected from the cells")
    add_stream(parser)
    parser.add_argument("--classes", default="", help="masks: the label map file of their values")
    parser.add_argument("--images", default="", help="captions: the folder of the images")
    return parser
