"""`visionkit inspect layers`: the arithmetic of a network, layer by layer."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from visionkit.commands.arguments import VerbParser
from visionkit.errors import InputError, expected
from visionkit.printable import for_terminal

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Print the table of one network."""
    args = _parser().parse(argv)
    if args.size < 0:
        raise InputError(expected("--size", "1 or more", args.size))
    from visionkit.interpret.arithmetic.layer_table import layer_table
    from visionkit.interpret.arithmetic.measured_field import measure_noise
    from visionkit.interpret.arithmetic.table_text import table_lines, table_values
    from visionkit.interpret.subject import whole_network

    network, size, channels = whole_network(args.name)
    size = (args.size, args.size) if args.size else size
    table = layer_table(network, size=size, in_channels=channels, name=args.name)
    measured = (
        measure_noise(args.name, args.measure, size=size, init=args.init, seed=args.seed)
        if args.measure
        else []
    )
    if args.json:
        values = table_values(table)
        values["measured"] = [
            {"layer": m.layer, "pixels": list(m.pixels), "effective_size": m.effective_size} for m in measured
        ]
        sys.stdout.write(json.dumps(values, indent=1) + "\n")
        return 0
    lines = table_lines(table)
    for each in measured:
        top, bottom, left, right = each.pixels
        lines.append(
            f"measured at {each.layer}, in its middle: {bottom - top}x{right - left} pixels have a gradient, "
            f"which is visible in {each.effective_size:.0f}x{each.effective_size:.0f}."
        )
    sys.stdout.write(for_terminal("\n".join(lines)) + "\n")
    return 0


def _parser() -> VerbParser:
    parser = VerbParser(
        "inspect layers",
        "Sizes, parameters, multiply-adds and receptive fields of a network, layer by layer, as built for "
        "an\n"
        "image size. Nothing is downloaded, and no weights are needed.",
        epilog="examples:\n  visionkit inspect layers torchvision/alexnet\n"
        "  visionkit inspect layers timm/resnet50 --size 512\n"
        "  visionkit inspect layers packaged/vgg16 --measure 4 16",
    )
    parser.add_argument("name", help="as in `visionkit ls backbones`; or a run")
    parser.add_argument(
        "--size", type=int, default=0, metavar="N", help="side of the image (default: the network's own)"
    )
    parser.add_argument(
        "--measure", nargs="+", default=[], metavar="LAYER",
        help="layers, or reductions, whose receptive field gradients measure; random weights unless --init",
    )  # fmt: skip
    parser.add_argument(
        "--init", default="scratch", help="weights for --measure: scratch (default), pretrained, a path"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of --measure's noise and random weights (default 0)"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    return parser
