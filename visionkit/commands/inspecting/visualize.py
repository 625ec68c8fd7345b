"""`visionkit inspect visualize`: what a layer, its channels, or classes look for."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from visionkit.commands.arguments import VerbParser
from visionkit.commands.inspecting.image_arguments import add_network, check_out, opened, write_image
from visionkit.commands.progress import ImageProgress
from visionkit.errors import InputError
from visionkit.printable import for_terminal

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Write an image for each channel or class."""
    args = _parser().parse(argv)
    out = check_out(args.out)
    if args.target and (args.layer or args.channel):
        raise InputError("Expected --layer, perhaps with --channel, or --target, and not both.")
    requests = [{"target": name} for name in args.target] or [
        {"layer": args.layer, "channel": channel} for channel in args.channel or [None]
    ]
    from visionkit.drawing.panels import add_title, join_grid
    from visionkit.interpret.synthesis.visualize import visualize
    from visionkit.run.previews.to_pil import to_pil

    subject, panels = opened(args.name, args), []
    with ImageProgress(args.steps * len(requests), unit="steps") as progress:
        for each in requests:
            made = visualize(
                subject, **each, size=args.size, steps=args.steps, rate=args.rate, space=args.space,
                jitter=args.jitter, scale=args.scale, angle=args.angle, seed=args.seed,
                progress=progress.advance,
            )  # fmt: skip
            first, last = made.responses[0], made.responses[-1]
            sys.stdout.write(for_terminal(f"{made.name}: response {first:.4g} -> {last:.4g}") + "\n")
            panels.append(add_title(to_pil(made.image, side=max(made.image.shape[-2:])), made.name))
    write_image(join_grid(panels), out)
    return 0


def _parser() -> VerbParser:
    parser = VerbParser(
        "inspect visualize",
        "Make an image from noise to which a layer, each of some channels, or each of some classes responds\n"
        "strongly: feature visualization. Frequencies are changed; each step shifts, scales and turns it.",
        epilog="examples:\n"
        "  visionkit inspect visualize packaged/efficientnet_lite0 --layer 16 --channel 0 1 2 3 --out a.png\n"
        "  visionkit inspect visualize runs/pets --target cat dog --out classes.png",
        loads=True,
    )
    add_network(parser)
    parser.add_argument("--layer", default="", help="a layer's name or its end, or a reduction")
    parser.add_argument(
        "--channel", nargs="+", type=int, default=[], metavar="N", help="of the layer (default: all as one)"
    )
    parser.add_argument(
        "--target", nargs="+", default=[], metavar="CLASS", help="classes, by name or number, not a layer"
    )
    parser.add_argument(
        "--size", type=int, default=0, metavar="N", help="side of the image (default: the network's own)"
    )
    parser.add_argument("--steps", type=int, default=256, help="of each image (default 256)")
    parser.add_argument("--rate", type=float, default=0.05, help="learning rate of Adam (default 0.05)")
    parser.add_argument(
        "--space", choices=("frequency", "pixels"), default="frequency", help="what is changed (frequency)"
    )
    parser.add_argument("--jitter", type=int, default=8, help="pixels a step shifts by at most (default 8)")
    parser.add_argument(
        "--scale", type=float, default=0.1, help="fraction a step scales by at most (default 0.1)"
    )
    parser.add_argument(
        "--angle", type=float, default=10.0, help="degrees a step turns by at most (default 10)"
    )
    return parser
