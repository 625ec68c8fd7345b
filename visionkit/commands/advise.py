"""`visionkit advise`: measure a data set, and say what to train on it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from visionkit.commands.arguments import VerbParser, add_stream, add_table, stream_config, table_config
from visionkit.errors import InputError
from visionkit.files import finite, to_plain

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Measure a data set, and print the advice."""
    args = _parser().parse(argv)
    if args.target not in ("", "single"):
        raise InputError(
            f"Expected one class an image (--target single), but got --target {args.target}: whether the "
            "nearest image has the same targets is measured for classes alone."
        )
    from visionkit.commands.progress import image_progress
    from visionkit.data.formats.options import OpenOptions
    from visionkit.run.advice.advise_data import advise_data

    options = OpenOptions(
        table=table_config(args), stream=stream_config(args), seed=args.seed, group_by=args.group_by
    )
    with image_progress() as progress:
        advice = advise_data(
            args.data,
            backbone=args.backbone,
            init=args.init,
            max_images=args.max_images,
            image_size=args.image_size,
            seed=args.seed,
            options=options,
            progress=progress,
        )
    if args.json:
        table = to_plain(advice, finite) | {"command": advice.command}
        sys.stdout.write(json.dumps(table, indent=1) + "\n")
    else:
        sys.stdout.write(f"{advice}\n")
    return 0


def _parser() -> VerbParser:
    parser = VerbParser(
        "advise",
        "Measure how similar images are to what a backbone's weights were trained on, and say from that and\n"
        "from their number what to freeze, how long to train, and whether scratch is worth a try. Of images\n"
        "with one class each; validation and test are not looked at.",
        epilog="examples:\n  visionkit advise photos/\n"
        "  visionkit advise signs/ --group_by '(.*)_' --max_images 2000 --json\n"
        "  visionkit advise photos/ --backbone timm/resnet50 --init weights.pt --image_size 224",
        loads=True,
    )
    parser.add_argument("data", help="a folder or a file of classes, see `visionkit ls data`; or scenes")
    parser.add_argument(
        "--backbone",
        default="packaged/efficientnet_lite0",
        help="as in `visionkit ls backbones` (default packaged/efficientnet_lite0)",
    )
    parser.add_argument("--init", default="pretrained", help="pretrained (default), or a path of weights")
    parser.add_argument("--max_images", type=int, default=1000, help="images measured (default 1000)")
    parser.add_argument(
        "--image_size", type=int, default=96, help="side that the networks see (default 96 pixels)"
    )
    parser.add_argument(
        "--group_by",
        default="",
        metavar="PATTERN",
        help="near copies, as for recipes: a column, or a pattern of the file names",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the choice of images and the random weights (default 0)"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    add_table(parser, "single")
    add_stream(parser)
    return parser
