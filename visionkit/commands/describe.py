"""`visionkit describe`: what a backbone or an exported file is, without building it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from visionkit.commands.arguments import VerbParser
from visionkit.files import to_plain

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Describe one backbone or one exported file."""
    parser = VerbParser(
        "describe",
        "Say what a backbone is before building it: levels, parameters, weights, licence, mean and std; or\n"
        "what an exported file is: task, inputs, outputs, classes, how it was checked, its weights' licence.",
        epilog="examples:\n  visionkit describe timm/resnet50\n  visionkit describe runs/pets/model.onnx",
    )
    parser.add_argument("name", help="as in `visionkit ls backbones`, or a .onnx, .pt2 or .safetensors file")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    args = parser.parse(argv)
    table = _described(args.name)
    if args.json:
        sys.stdout.write(json.dumps(table, indent=1, default=str) + "\n")
        return 0
    width = max(map(len, table)) + 2
    for name, value in table.items():
        for idx, line in enumerate(_lines(value)):
            sys.stdout.write(f"{name if idx == 0 else '':<{width}}{line}\n")
    return 0


def _described(name: str) -> dict[str, Any]:
    if name.endswith((".onnx", ".pt2", ".safetensors")):
        from visionkit.predict.export import describe_file

        return describe_file(name)
    from visionkit.backbones import describe_backbone

    table: dict[str, Any] = to_plain(describe_backbone(name))
    return table


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [", ".join(f"{key} {_text(item)}" for key, item in value.items())]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [line for item in value for line in _lines(item)]
    if isinstance(value, list):
        return [", ".join(map(_text, value)) or "none"]
    return [_text(value)]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "none" if value in (None, "") else f"{value:.6g}" if isinstance(value, float) else str(value)
