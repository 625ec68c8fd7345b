"""`visionkit inspect filters`: the filters of the first convolution."""

from __future__ import annotations

from collections.abc import Sequence

from visionkit.commands.arguments import VerbParser
from visionkit.commands.inspecting.image_arguments import add_network, check_out, opened, write_image

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Write the filters of one or several networks."""
    parser = VerbParser(
        "inspect filters",
        "Draw the filters of a network's first convolution (at most the first 64), in colours where it\n"
        "takes three channels, each scaled to its own largest weight; grey is zero.",
        epilog="examples:\n  visionkit inspect filters packaged/vgg16 --out filters.png\n"
        "  visionkit inspect filters runs/a/pretrained-f1-s0 runs/a/scratch-f1-s0 --out both.png",
        loads=True,
    )
    add_network(parser, multiple=True)
    args = parser.parse(argv)
    out = check_out(args.out)
    from visionkit.drawing.panels import add_title, join_grid
    from visionkit.interpret.filters import filter_sheet

    sheets = [(name, filter_sheet(opened(name, args))) for name in args.names]
    panels = [add_title(sheet.convert("RGB"), name) for name, sheet in sheets]
    write_image(sheets[0][1] if len(sheets) == 1 else join_grid(panels, columns=1), out)
    return 0
