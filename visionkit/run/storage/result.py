"""What a finished run says of itself: `result.json`, complete enough to compare and to reproduce."""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from visionkit.printable import printable
from visionkit.run.storage.checkpoint import write_atomic

__all__ = ["SCHEMA", "TEST_FAILED", "environment", "read_result", "write_result"]

SCHEMA = 1
TEST_FAILED = "The test split could not be evaluated"
PACKAGES = ("torch", "torchvision", "lightning", "timm", "torchmetrics", "numpy", "pillow")


def environment() -> dict[str, Any]:
    """Return versions and hardware: what a result was made with."""
    from visionkit import __version__

    versions: dict[str, str] = {"visionkit": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or platform.machine()
    )
    return {
        "versions": versions,
        "device": device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()}",
    }


def peak_memory_mb() -> float:
    """Return the largest memory so far in MB: of the device on CUDA, of this process on a CPU."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def write_result(folder: str | Path, result: dict[str, Any]) -> Path:
    """Write `result.json` whole or not at all; values that are not finite become null.

    Args:
        folder: The run's folder.
        result: Plain values; `schema` and `status` are added.
    """
    place = Path(folder) / "result.json"
    text = json.dumps(_plain({"schema": SCHEMA, "status": "finished", **result}), indent=1, allow_nan=False)

    def write(part: Path) -> None:
        part.write_text(text + "\n", encoding="utf-8")

    write_atomic(place, write, needed=len(text))
    return place


def read_result(folder: str | Path) -> dict[str, Any] | None:
    """Return what a finished run wrote, or None where the folder holds no finished run."""
    place = Path(folder) / "result.json"
    if not place.is_file():
        return None
    try:
        loaded = json.loads(place.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    return loaded if isinstance(loaded, dict) and loaded.get("status") == "finished" else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {printable(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float | bool | type(None)) else printable(str(value))
