"""`visionkit inspect activations`: the maps of a layer for an image, or the images that excite a channel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from visionkit.commands.arguments import VerbParser
from visionkit.commands.inspecting.image_arguments import add_network, check_out, opened, read, write_image

if TYPE_CHECKING:
    from torch import Tensor

    from visionkit.interpret.subject import Subject

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Write the maps, or the images."""
    parser = VerbParser(
        "inspect activations",
        "Draw the maps of a layer for an image, those with the largest values first; or, with --channel "
        "and a\n"
        "folder as --image, the images of the folder that excite that channel most, where they do.",
        epilog="examples:\n"
        "  visionkit inspect activations timm/resnet50 --image cat.jpg --layer 8 --out maps.png\n"
        "  visionkit inspect activations runs/pets --image photos/ --layer 16 --channel 7 --out top.png",
        loads=True,
    )
    add_network(parser, image="an image, or with --channel a folder of images")
    parser.add_argument("--layer", required=True, help="a layer's name or its end, or a reduction (required)")
    parser.add_argument("--channel", type=int, default=None, help="of the layer: its images")
    parser.add_argument(
        "--limit", type=int, default=0, help="maps (default 64) or images (default 9) at most"
    )
    args = parser.parse(argv)
    out = check_out(args.out)
    from visionkit.interpret.activations import activation_sheet, top_images
    from visionkit.interpret.excitation_sheet import excitation_sheet

    subject = opened(args.name, args)
    if args.channel is None:
        image = read(subject, args.image, args.size)
        write_image(activation_sheet(subject, image, layer=args.layer, limit=args.limit or 64), out)
        return 0
    images = _images(subject, args.image, args.size)
    best = top_images(subject, images, layer=args.layer, channel=args.channel, count=args.limit or 9)
    write_image(excitation_sheet(best), out)
    return 0


def _images(subject: Subject, folder: str, size: int) -> Iterator[tuple[str, Tensor]]:
    from visionkit.predict.sources import source_items

    for item in source_items([folder]):
        yield item.id, read(subject, str(item.path), size)
