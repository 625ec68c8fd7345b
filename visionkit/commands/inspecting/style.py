"""`visionkit inspect style`: the content of one image in the style of another."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from visionkit.commands.arguments import VerbParser
from visionkit.commands.inspecting.image_arguments import add_network, check_out, opened, read, write_tensor
from visionkit.commands.progress import ImageProgress

__all__ = ["main"]

COLORS = ("style", "histogram", "luminance")


def main(argv: Sequence[str]) -> int:
    """Write the painted image."""
    args = _parser().parse(argv)
    out = check_out(args.out)
    from visionkit.interpret.synthesis.style import transfer_style

    subject = opened(args.name, args)
    content = read(subject, args.image, args.size)
    style = read(subject, args.style, args.style_size or max(content.shape[-2:]))
    with ImageProgress(args.steps) as progress:
        result = transfer_style(
            subject, content, style, layers=args.layers, layer_weights=args.layer_weights,
            content_layer=args.content_layer, content_weight=args.content_weight,
            style_weight=args.style_weight, smooth_weight=args.smooth_weight, steps=args.steps,
            start=args.start, colors=args.colors, seed=args.seed, progress=progress.advance,
        )  # fmt: skip
    sys.stdout.write(
        f"style loss {result.style[0]:.4g} -> {result.style[-1]:.4g} ({', '.join(result.layers)}), content "
        f"loss {result.content[0]:.4g} -> {result.content[-1]:.4g} ({result.content_layer})\n"
    )
    write_tensor(result.image, out)
    return 0


def _parser() -> VerbParser:
    parser = VerbParser(
        "inspect style",
        "Paint one image in the style of another (Gatys et al. 2016), through any network's layers.\n"
        "--colors keeps the content's colours (Gatys et al. 2017). With --init scratch it is the control "
        "by random weights.",
        epilog="examples:\n"
        "  visionkit inspect style packaged/vgg16 --image house.jpg --style painting.jpg --size 256 --out "
        "a.png\n"
        "  visionkit inspect style timm/resnet50 --image a.jpg --style b.jpg --colors luminance --out a.png",
    )
    add_network(parser, image="the content")
    parser.add_argument("--style", required=True, metavar="FILE", help="the style (required)")
    parser.add_argument(
        "--style_size", type=int, default=0, metavar="N", help="its longer side (default: as the content's)"
    )
    parser.add_argument(
        "--layers", nargs="+", default=[], metavar="LAYER", help="of the style (default: levels to 16)"
    )
    parser.add_argument("--layer_weights", nargs="+", type=float, default=[], metavar="X", help="one a layer")
    parser.add_argument("--content_layer", default="", metavar="LAYER", help="(default: the last but one)")
    parser.add_argument("--content_weight", type=float, default=1.0, metavar="X", help="(default 1)")
    parser.add_argument("--style_weight", type=float, default=1000.0, metavar="X", help="(default 1000)")
    parser.add_argument(
        "--smooth_weight", type=float, default=0.01, metavar="X", help="of total variation (0.01)"
    )
    parser.add_argument("--steps", type=int, default=100, help="of L-BFGS (default 100)")
    parser.add_argument(
        "--start", choices=("content", "noise"), default="content", help="content (default) | noise"
    )
    parser.add_argument(
        "--colors", choices=COLORS, default="style", help=f"{' | '.join(COLORS)} (default style)"
    )
    return parser
