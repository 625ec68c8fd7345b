"""`visionkit inspect gradcam`: which pixels a class, a box or a word comes from."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from visionkit.commands.arguments import VerbParser
from visionkit.commands.inspecting.image_arguments import add_network, check_out, opened, read, write_image
from visionkit.printable import for_terminal

if TYPE_CHECKING:
    from visionkit.interpret.attribution.explain import Explanation

__all__ = ["main"]

METHODS = ("gradcam", "saliency", "integrated", "occlusion")


def main(argv: Sequence[str]) -> int:
    """Write the heat maps of one or several networks for one image."""
    parser = VerbParser(
        "inspect gradcam",
        "Lay over an image from which of its pixels a prediction comes: the class of a classifier, the "
        "largest\n"
        "areas of a segmenter, each box of a detector, each word of a captioner. A row for each network.",
        epilog="examples:\n  visionkit inspect gradcam timm/resnet50 --image cat.jpg --out cat.png\n"
        "  visionkit inspect gradcam runs/a/pretrained-f1-s0 runs/a/scratch-f1-s0 --image x.jpg --out a.png",
        loads=True,
    )
    add_network(parser, image="the image", multiple=True)
    parser.add_argument(
        "--method", choices=METHODS, default="gradcam", help=f"{' | '.join(METHODS)} (default gradcam)"
    )
    parser.add_argument(
        "--layer", default="", help="of gradcam: a layer or a reduction (default: the last maps)"
    )
    parser.add_argument(
        "--target", default=None, metavar="CLASS", help="a class (default: what is predicted)"
    )
    parser.add_argument("--limit", type=int, default=4, help="boxes, areas or words at most (default 4)")
    parser.add_argument("--min_score", type=float, default=0.5, help="of boxes (default 0.5)")
    parser.add_argument("--curves", action="store_true", help="print the areas below deletion and insertion")
    args = parser.parse(argv)
    out = check_out(args.out)
    from visionkit.drawing.panels import add_title, join_grid
    from visionkit.interpret.attribution.explain import explain
    from visionkit.interpret.attribution.overlay import overlay
    from visionkit.run.previews.to_pil import to_pil

    panels, columns = [], 1
    for name in args.names:
        subject = opened(name, args)
        image = read(subject, args.image, args.size)
        explained = explain(
            subject, image, method=args.method, layer=args.layer, target=args.target, limit=args.limit,
            min_score=args.min_score, curves=args.curves,
        )  # fmt: skip
        sys.stdout.writelines(for_terminal(line) + "\n" for line in _lines(name, explained))
        row = [add_title(to_pil(image, side=max(image.shape[-2:])), name)]
        for each in explained:
            row.append(add_title(overlay(image, each.heat), f"{each.name} {each.probability:.2f}"))
        columns = max(columns, len(row))
        panels.append(join_grid(row, columns=len(row)))
    write_image(join_grid(panels, columns=1, gap=0), out)
    return 0


def _lines(name: str, explained: Sequence[Explanation]) -> Iterator[str]:
    """Return what is printed of a network: what the limit leaves out, and the areas below the curves."""
    total = explained[0].total
    if total > len(explained):
        yield f"{name}: {len(explained)} of {total} are shown. --limit {total} shows all."
    for each in explained:
        if each.curves is not None:
            yield (
                f"{name}: {each.name} {each.probability:.3f}, area below deletion "
                f"{each.curves.deletion_area:.3f}, insertion {each.curves.insertion_area:.3f}"
            )
