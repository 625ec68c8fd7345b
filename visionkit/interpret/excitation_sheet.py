"""Images that excite a channel, as a sheet with where they do."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from visionkit.drawing.panels import caption_panel, join_grid
from visionkit.interpret.activations import Excitation
from visionkit.run.previews.to_pil import to_pil

__all__ = ["excitation_sheet"]

_SIDE, _REACH, _COLOR = 160, 6, "#ffd33d"


def excitation_sheet(excitations: Sequence[Excitation]) -> Image.Image:
    """Return images side by side, each with a cross where the channel is highest, its value and its name.

    Args:
        excitations: As `top_images` gives them.
    """
    panels = []
    for each in excitations:
        canvas = to_pil(each.image, side=_SIDE)
        draw = ImageDraw.Draw(canvas)
        row, column = each.position[0] * canvas.height, each.position[1] * canvas.width
        draw.line((column - _REACH, row, column + _REACH, row), fill=_COLOR, width=2)
        draw.line((column, row - _REACH, column, row + _REACH), fill=_COLOR, width=2)
        panels.append(caption_panel(canvas, [(f"{each.value:.3g}  {each.id}", None)], side=_SIDE))
    return join_grid(panels)
