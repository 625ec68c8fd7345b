"""`visionkit inspect`: what a network computes, and what it has learnt."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence

from visionkit.commands.inspecting import activations, dream, filters, gradcam, layers, style, visualize
from visionkit.errors import InputError

__all__ = ["main"]

KINDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "layers": (layers.main, "sizes, parameters, multiply-adds and receptive fields, layer by layer"),
    "filters": (filters.main, "the filters of the first convolution, drawn"),
    "activations": (activations.main, "the maps of a layer for an image; the images that excite a channel"),
    "gradcam": (gradcam.main, "which pixels a class, an area, a box or a word comes from"),
    "visualize": (visualize.main, "images from noise to which channels or classes respond strongly"),
    "dream": (dream.main, "DeepDream: an image that a layer responds to more strongly"),
    "style": (style.main, "the content of one image in the style of another"),
}

USAGE = """usage: visionkit inspect KIND NAME|RUN [...]

See what a network computes, and what it has learnt. NAME as in `visionkit ls backbones`, or a run.

{kinds}

`visionkit inspect KIND --help` says more, `visionkit inspect --help=all` that of all kinds.
`visionkit inspect NAME --layers` is `visionkit inspect layers NAME`.

  visionkit inspect layers timm/resnet50"""


def main(argv: Sequence[str]) -> int:
    """Run one kind of inspection, and return its exit status."""
    args = list(argv)
    if args[:1] == ["--help=all"]:
        for each, _ in KINDS.values():
            with contextlib.suppress(SystemExit):
                each(["--help"])
        return 0
    if not args or args[0] in ("-h", "--help"):
        kinds = "\n".join(f"  {name:<13}{text}" for name, (_, text) in KINDS.items())
        sys.stdout.write(USAGE.format(kinds=kinds) + "\n")
        return 0
    if args[0] in KINDS:
        return KINDS[args[0]][0](args[1:])
    if "--layers" in args:
        return layers.main([arg for arg in args if arg != "--layers"])
    raise InputError(
        f"Expected what to inspect ({', '.join(KINDS)}), but got {args[0]!r}. For its layers: "
        f"visionkit inspect layers {args[0]}."
    )
