"""`visionkit describe`: what a backbone, a run or an exported file is, without building it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionkit.commands.arguments import VerbParser
from visionkit.files import to_plain
from visionkit.predict.trained_files import SUFFIXES, check_backbone

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Describe one backbone, run or exported file."""
    parser = VerbParser(
        "describe",
        "Say what a backbone is before building it: levels, parameters, weights, licence, mean and std;\n"
        "what a run or a checkpoint is: task, backbone, init, classes, data, metrics; or what an exported\n"
        "file is: task, inputs, outputs, classes, how it was checked, its weights' licence.",
        epilog="examples:\n  visionkit describe timm/resnet50\n  visionkit describe runs/pets\n"
        "  visionkit describe runs/pets/model.onnx",
    )
    parser.add_argument(
        "name", help="as in `visionkit ls backbones`; or a run, a checkpoint or an exported file"
    )
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
    if Path(name).exists() or Path(name).suffix in (*SUFFIXES.values(), ".ckpt"):
        from visionkit.predict.describe import describe_trained

        return describe_trained(name)
    from visionkit.backbones import describe_backbone

    check_backbone(name)
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
