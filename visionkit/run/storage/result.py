"""`result.json` of a finished run: metrics, settings, data, versions and hardware."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from visionkit.files import finite, to_plain
from visionkit.printable import printable_values
from visionkit.run.storage.disk import write_file

__all__ = [
    "SCHEMA",
    "TEST_FAILED",
    "environment",
    "named_scores",
    "read_result",
    "score_text",
    "write_result",
]

SCHEMA = 1
TEST_FAILED = "The test split could not be evaluated"
PACKAGES = ("torch", "torchvision", "lightning", "timm", "torchmetrics", "numpy", "pillow")


def environment() -> dict[str, Any]:
    """Return the versions and the hardware of this process."""
    import torch

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
    """Return the largest memory so far in MB: of the device on CUDA, of this process elsewhere."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        memory = psutil.Process().memory_info()
        return float(getattr(memory, "peak_wset", memory.rss)) / 2**20
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def named_scores(
    metrics: Mapping[str, float], best: Mapping[str, float], metrics_of: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Return scores by the split and the weights that they are of: "val (last)", "val (best)", "test (best)".

    Args:
        metrics: Final metrics by name, "val/top1" and so on.
        best: Validation metrics of the best weights, by such names.
        metrics_of: Which weights `metrics` is of, by split: "last" or "best".
    """
    scores: dict[str, dict[str, float]] = {}
    rows = [(*name.partition("/")[::2], value) for name, value in metrics.items()]
    for split in ("val", "test"):
        label = f"{split} ({metrics_of.get(split, 'last')})"
        scores[label] = {name: value for of, name, value in rows if of == split}
    scores["val (best)"] = {name.partition("/")[2]: value for name, value in best.items()}
    order = ("val (last)", "val (best)", "test (best)", "test (last)")
    return {label: scores[label] for label in order if scores.get(label)}


def score_text(result: Mapping[str, Any]) -> str:
    """Return the monitored score of a run by split and weights: "val/top1 0.431 (last), 0.452 (best), ...".

    Args:
        result: What `result.json` holds.
    """
    monitor = str(result["monitor"][0]).partition("/")[2]
    parts, before = [], ""
    best, weights_of = result.get("best") or {}, result.get("metrics_of") or {"val": "last", "test": "best"}
    known = result.get("scores") or named_scores(result["metrics"], best.get("metrics") or {}, weights_of)
    for label, values in known.items():
        value = values.get(monitor)
        if not isinstance(value, int | float) or not math.isfinite(value):
            continue
        split, weights = label.split(" ", 1)
        parts.append(f"{f'{split}/{monitor} ' if split != before else ''}{value:.4f} {weights}")
        before = split
    return ", ".join(parts) or "nothing to score"


def write_result(folder: str | Path, result: dict[str, Any]) -> Path:
    """Write `result.json` atomically; values that are not finite become null.

    Args:
        folder: The run's folder.
        result: Plain values; `schema` and `status` are added.
    """
    path = Path(folder) / "result.json"
    plain = to_plain({"schema": SCHEMA, "status": "finished", **result}, _json_value)
    text = json.dumps(printable_values(plain), indent=1, allow_nan=False) + "\n"
    write_file(path, lambda part: part.write_text(text, encoding="utf-8"), needed=len(text))
    return path


def read_result(folder: str | Path) -> dict[str, Any] | None:
    """Return the result of a finished run, or None where the folder holds no finished run."""
    path = Path(folder) / "result.json"
    if not path.is_file():
        return None
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    return loaded if isinstance(loaded, dict) and loaded.get("status") == "finished" else None


def _json_value(value: Any) -> Any:
    return finite(value) if isinstance(value, int | float | bool | type(None)) else str(value)
