"""`visionkit inspect dream`: DeepDream on any layer of any network."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from visionkit.commands.arguments import VerbParser
from visionkit.commands.inspecting.image_arguments import add_network, check_out, opened, read, write_tensor
from visionkit.commands.progress import image_progress
from visionkit.printable import for_terminal

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Write the dream of one image."""
    parser = VerbParser(
        "inspect dream",
        "Change an image so that a layer, or one of its channels, responds more strongly to it "
        "(DeepDream), from\n"
        "a small size to the whole; or so that it gets what a layer sees in another image (--guide).",
        epilog="examples:\n"
        "  visionkit inspect dream packaged/efficientnet_lite0 --image sky.jpg --layer 16 --out dream.png\n"
        "  visionkit inspect dream timm/resnet50 --image sky.jpg --layer 16 --channel 3 --size 512 --out "
        "dream.png",
        loads=True,
    )
    add_network(parser, image="where it begins")
    parser.add_argument("--layer", required=True, help="a layer's name or its end, or a reduction (required)")
    parser.add_argument("--channel", type=int, default=None, help="of the layer (default: all)")
    parser.add_argument(
        "--guide", default="", metavar="FILE", help="an image whose features are strengthened"
    )
    parser.add_argument("--octaves", type=int, default=4, help="sizes (default 4)")
    parser.add_argument("--octave_scale", type=float, default=1.4, help="ratio of the sizes (default 1.4)")
    parser.add_argument("--steps", type=int, default=10, help="of each size (default 10)")
    parser.add_argument("--rate", type=float, default=0.015, help="mean change of a step (default 0.015)")
    parser.add_argument("--jitter", type=int, default=16, help="pixels a step shifts by at most (default 16)")
    args = parser.parse(argv)
    out = check_out(args.out)
    from visionkit.interpret.synthesis.dream import dream

    subject = opened(args.name, args)
    image = read(subject, args.image, args.size)
    guide = read(subject, args.guide) if args.guide else None
    with image_progress("steps") as progress:
        result = dream(
            subject, image, layer=args.layer, channel=args.channel, guide=guide, octaves=args.octaves,
            octave_scale=args.octave_scale, steps=args.steps, rate=args.rate, jitter=args.jitter,
            seed=args.seed, progress=progress,
        )  # fmt: skip
    if len(result.sizes) < args.octaves:
        sizes, left_out = (
            ", ".join(f"{width}x{height}" for height, width in each)
            for each in (result.sizes, result.left_out)
        )
        text = f"{len(result.sizes)} of {args.octaves} octaves: {sizes}."
        text += f" Too small: {left_out}." if left_out else " The network takes no others."
        sys.stderr.write(for_terminal(text) + "\n")
    write_tensor(result.image, out)
    return 0
