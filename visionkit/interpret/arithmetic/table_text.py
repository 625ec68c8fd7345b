"""A table of layers as lines of text, or as plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from visionkit.files import to_plain
from visionkit.interpret.arithmetic.layer_table import Layer, LayerTable

__all__ = ["table_lines", "table_values"]

_HEADS = (
    "layer",
    "kind",
    "kernel",
    "stride",
    "pad",
    "output",
    "parameters",
    "multiply-adds",
    "sees",
    "step",
    "centre",
)
_LEFT = 2  # columns that are set to the left


def table_lines(table: LayerTable) -> list[str]:
    """Return a table as lines: a heading, a line a layer, totals and notes.

    Args:
        table: Of a network.
    """
    rows = [_HEADS, *(_row(layer) for layer in table.layers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = [
        "  ".join(
            text.ljust(width) if column < _LEFT else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
    height, width = table.size
    lines += [
        "",
        f"{table.name + ': ' if table.name else ''}{table.parameters:,} parameters, {table.multiply_adds:,} "
        f"multiply-adds for an image of {height}x{width}.",
        "sees, step, centre: pixels of the image that a value sees, pixels from one value to the next, the "
        "middle of the first.",
    ]
    if table.unused:
        lines.append(f"{table.unused:,} of the parameters are not used in evaluation (auxiliary heads).")
    gated = next((each for each in table.layers if each.positions and each.positions.gated), None)
    if gated is not None:
        lines.append(
            f"*: besides, from {gated.name} on, the whole image, through a mean over a map (as in "
            "squeeze-and-excitation or a group norm)."
        )
    if table.mixed[0]:
        lines.append(
            f"-: from {table.mixed[1] or 'the network'} on, positions are mixed otherwise than by a filter "
            f"({table.mixed[0]}): no receptive field by formula. --measure measures one."
        )
    return lines


def table_values(table: LayerTable) -> dict[str, Any]:
    """Return a table as plain dicts, lists and numbers.

    Args:
        table: Of a network.
    """
    layers = []
    for layer in table.layers:
        fields = layer.receptive_field
        seen = None
        if fields is not None:
            seen = {
                "size": [each.size for each in fields],
                "stride": [each.stride for each in fields],
                "center": [each.center for each in fields],
                "whole_image": bool(layer.positions and layer.positions.gated),
            }
        values = to_plain(layer)
        del values["positions"]
        layers.append(values | {"receptive_field": seen})
    totals = {"parameters": table.parameters, "unused": table.unused, "multiply_adds": table.multiply_adds}
    return {
        "name": table.name,
        "size": list(table.size),
        **totals,
        "mixed": list(table.mixed),
        "layers": layers,
    }


def _row(layer: Layer) -> tuple[str, ...]:
    geometry, kind = layer.geometry, layer.kind
    if geometry is not None and geometry.groups > 1:
        kind += " depthwise" if geometry.groups == layer.input[0] else f" {geometry.groups} groups"
    if geometry is not None and geometry.dilation != (1, 1):
        kind += f" dilated {_pair(geometry.dilation)}"
    if geometry is not None and geometry.transposed:
        kind += " transposed"
    return (
        layer.name or "(network)",
        kind,
        "" if geometry is None else _pair(geometry.kernel_size),
        "" if geometry is None else _pair(geometry.stride),
        "" if geometry is None else _padding(geometry.padding),
        "x".join(map(str, layer.output)),
        f"{layer.parameters:,}" if layer.parameters else "",
        f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
        *_sees(layer),
    )


def _sees(layer: Layer) -> tuple[str, str, str]:
    fields = layer.receptive_field
    if fields is None:
        return ("-", "", "")
    gated = "*" if layer.positions is not None and layer.positions.gated else ""
    sizes = _pair([math.ceil(each.size) for each in fields])
    if layer.positions is None or layer.positions.dims is None:
        return (sizes + gated, "", "")
    strides = _pair([_number(each.stride) for each in fields])
    return (sizes + gated, strides, _pair([_number(each.center) for each in fields]))


def _number(value: float) -> str:
    return f"{value:g}"


def _pair(values: Sequence[Any]) -> str:
    return str(values[0]) if values[0] == values[1] else f"{values[0]}x{values[1]}"


def _padding(padding: tuple[int, int, int, int]) -> str:
    top, bottom, left, right = padding
    if top == bottom and left == right:
        return _pair((top, left))
    return f"{top},{bottom}" if (top, bottom) == (left, right) else f"{top},{bottom}x{left},{right}"
