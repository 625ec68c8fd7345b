"""`visionkit inspect style`: the content of one image in the style of another."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from visionkit.commands.arguments import VerbParser
from visionkit.commands.inspecting.image_arguments import (
    add_network,
    check_out,
    opened,
    read,
    read_mask,
    write_tensor,
)
from visionkit.commands.progress import ImageProgress
from visionkit.errors import InputError, expected

if TYPE_CHECKING:
    from torch import Tensor

    from visionkit.interpret.subject import Subject
    from visionkit.interpret.synthesis.style_losses import Style

__all__ = ["main"]

COLORS = ("style", "histogram", "luminance")


def main(argv: Sequence[str]) -> int:
    """Write the painted image."""
    args = _parser().parse(argv)
    out = check_out(args.out)
    for flag, given in (("--regions", args.regions), ("--style_regions", args.style_regions)):
        if (given or (flag == "--regions" and len(args.style) > 1)) and len(given) != len(args.style):
            raise InputError(expected(flag, f"one mask for each of {len(args.style)} styles", len(given)))
    if args.fine_layers and not args.fine_style:
        raise InputError("Expected --fine_style with --fine_layers, but got no such image. Add --fine_style.")
    from visionkit.interpret.synthesis.style import transfer_style

    subject = opened(args.name, args)
    content = read(subject, args.image, args.size)
    images = [read(subject, path, args.style_size or max(content.shape[-2:])) for path in args.style]
    styles = _styles(args, content, images)
    with ImageProgress(args.steps * (1 + len(styles) * bool(args.fine_style)), unit="steps") as progress:
        if args.fine_style:
            styles = _mixed(subject, args, styles, progress)
        result = transfer_style(
            subject, content, styles, layers=args.layers, layer_weights=args.layer_weights,
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


def _styles(args: argparse.Namespace, content: Tensor, images: Sequence[Tensor]) -> list[Style]:
    import torch

    from visionkit.interpret.synthesis.style_losses import Style

    regions = [read_mask(path, content, "--image") for path in args.regions]
    if regions:
        without = float((torch.stack(regions).sum(0) == 0).float().mean())
        if without:
            sys.stderr.write(f"{without:.1%} of the content is in no region, and gets no style.\n")
    sources = [read_mask(path, image, "--style") for path, image in zip(args.style_regions, images)]
    none = [None] * len(images)
    return [Style(*each) for each in zip(images, regions or none, sources or none)]


def _mixed(
    subject: Subject, args: argparse.Namespace, styles: Sequence[Style], progress: ImageProgress
) -> list[Style]:
    """Return the styles with the strokes of another image."""
    from visionkit.interpret.synthesis.style import mix_styles

    mixed = []
    for style in styles:
        fine = read(subject, args.fine_style, max(style.image.shape[-2:]))
        done = mix_styles(
            subject, style.image, fine, layers=args.fine_layers, steps=args.steps, progress=progress.advance
        )
        mixed.append(replace(style, image=done.image))
    return mixed


def _parser() -> VerbParser:
    parser = VerbParser(
        "inspect style",
        "Paint one image in the style of another (Gatys et al. 2016), through any network's layers.\n"
        "After Gatys et al. 2017, --colors keeps the content's colours, --regions give each style its place, "
        "and\n--fine_style mixes scales. With --init scratch it is the control by random weights.",
        epilog="examples:\n"
        "  visionkit inspect style packaged/vgg16 --image house.jpg --style painting.jpg --size 256 --out "
        "a.png\n"
        "  visionkit inspect style timm/resnet50 --image a.jpg --style b.jpg --colors luminance --out a.png\n"
        "  visionkit inspect style packaged/vgg16 --image a.jpg --style sky.jpg wall.jpg --regions up.png "
        "down.png --out a.png",
        loads=True,
    )
    add_network(parser, image="the content")
    parser.add_argument(
        "--style", required=True, nargs="+", metavar="FILE", help="the style, or one a region (required)"
    )
    parser.add_argument(
        "--regions", nargs="+", default=[], metavar="MASK", help="where each style goes: white in a mask"
    )
    parser.add_argument(
        "--style_regions", nargs="+", default=[], metavar="MASK", help="where each style is taken from"
    )
    parser.add_argument(
        "--fine_style", default="", metavar="FILE", help="its strokes on the shapes of --style"
    )
    parser.add_argument(
        "--fine_layers", nargs="+", default=[], metavar="LAYER", help="of the strokes (default: levels to 4)"
    )
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
