"""`visionkit probe`: linear classifiers on the frozen features of each level, by amount of data."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from visionkit.commands.arguments import VerbParser, add_stream, add_table, stream_config, table_config
from visionkit.errors import InputError

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Probe every level, print the table, and write it to --out."""
    args = _parser().parse(argv)
    if args.target not in ("", "single"):
        raise InputError(
            f"Expected one class an image (--target single), but got --target {args.target}: a probe fits a "
            "classifier of one class an image. For others train a linear head: visionkit run classify "
            f"--target {args.target} --transfer.freeze_through all."
        )
    from visionkit.commands.progress import image_progress
    from visionkit.data.formats.options import OpenOptions
    from visionkit.run.probing.page import write_probe
    from visionkit.run.probing.probe import probe

    options = OpenOptions(table=table_config(args), stream=stream_config(args), group_by=args.group_by)
    with image_progress() as progress, image_progress("classifiers") as fit_progress:
        result = probe(
            args.data,
            out=args.out,
            backbones=args.backbone,
            init=args.init,
            levels=args.levels,
            fractions=args.fractions,
            seeds=args.seeds,
            image_size=args.image_size,
            k=args.k,
            options=options,
            progress=progress,
            fit_progress=fit_progress,
        )
    sys.stdout.write(f"{result}\n")
    page = write_probe(result, args.out, command=shlex.join(["visionkit", "probe", *argv]))
    sys.stdout.write(f"page  {page}\n")
    return 0


def _parser() -> VerbParser:
    parser = VerbParser(
        "probe",
        "Fit a linear classifier to the frozen features of each level of a network, for some amounts of\n"
        "data, with trained and with random weights, and score it on the test split: from which level\n"
        "to take features. Strengths of regularisation are chosen on the training images alone. Of\n"
        "images with one class each.",
        epilog="examples:\n  visionkit probe photos/ --out runs/probe\n"
        "  visionkit probe signs/ --group_by '(.*)_' --fractions 0.1 0.3 1 --image_size 64\n"
        "  visionkit probe photos/ --backbone timm/resnet50 packaged/efficientnet_lite0 --levels 16 pooled",
        loads=True,
    )
    parser.add_argument("data", help="a folder or a file of classes, see `visionkit ls data`; or scenes")
    parser.add_argument(
        "--backbone",
        nargs="+",
        default=["packaged/efficientnet_lite0"],
        metavar="NAME",
        help="as in `visionkit ls backbones` (default packaged/efficientnet_lite0)",
    )
    parser.add_argument(
        "--init",
        nargs="+",
        default=["pretrained", "scratch"],
        metavar="INIT",
        help="pretrained, scratch (random weights), or paths of weights (default pretrained scratch)",
    )
    parser.add_argument(
        "--levels",
        nargs="+",
        default=["all"],
        metavar="LEVEL",
        help="reductions, pooled, or all (default all)",
    )
    _add_numbers(parser)
    add_table(parser, "single")
    add_stream(parser)
    return parser


def _add_numbers(parser: VerbParser) -> None:
    parser.add_argument(
        "--fractions",
        nargs="+",
        type=float,
        default=[0.02, 0.1, 1.0],
        metavar="F",
        help="of the training images (default 0.02 0.1 1)",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0, 1, 2],
        metavar="S",
        help="of the choice of images, the folds and the random weights (default 0 1 2)",
    )
    parser.add_argument(
        "--image_size", type=int, default=96, help="side that the networks see (default 96 pixels)"
    )
    parser.add_argument("--k", type=int, default=5, help="nearest neighbours that vote (default 5)")
    parser.add_argument(
        "--group_by",
        default="",
        metavar="PATTERN",
        help="near copies, as for recipes: a column, or a pattern of the file names",
    )
    parser.add_argument(
        "--out",
        default="runs/probe",
        metavar="DIR",
        help="probe.html, probe.json, and features/, which a second call reads (default runs/probe)",
    )
