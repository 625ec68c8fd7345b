"""Mean and standard deviation of the regression targets of a training set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import ConcatDataset, TensorDataset
from torch.utils.data import Subset as TorchSubset

__all__ = ["TargetStatistics", "target_statistics"]

_MAX_SAMPLES = 256
_FIELDS = ("label", "labels", "target", "targets")


class TargetStatistics:
    """Mean and standard deviation of each output, and how many targets they are of.

    Args:
        targets: `(N, K)` numbers; rows with NaN or infinity do not count.
        total: How many samples the training set has.
    """

    def __init__(self, targets: Tensor, total: int) -> None:
        finite = targets.double()[targets.isfinite().all(dim=1)]
        self.count, self.total = len(finite), total
        self.mean: list[float] = finite.mean(0).tolist()
        self.std: list[float] = finite.std(0, correction=0).tolist()


def target_statistics(dataset: Any, outputs: int) -> TargetStatistics | None:
    """Return the statistics of a training set's targets, or None where they cannot be found.

    All targets count where the data set offers them without its images: our tables, torch's TensorDataset,
    and whatever has `targets`; chosen or joined by `Subset` and `ConcatDataset`. Else 256 samples, evenly
    spread, are read, with random numbers set aside, so that no draw of the training changes.

    Args:
        dataset: A map-style data set whose samples are `(image, target)` or have "label".
        outputs: Numbers a sample.
    """
    total = len(dataset) if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__") else 0
    if not total:
        return None
    targets = _offered(dataset, outputs)
    if targets is None:
        targets = _read(dataset, total, outputs)
    if targets is None or not bool(targets.isfinite().all(dim=1).any()):
        return None
    return TargetStatistics(targets, total)


def _offered(dataset: Any, outputs: int) -> Tensor | None:
    """Return all targets `(N, K)`, where none of them costs an image."""
    if isinstance(dataset, TensorDataset):
        return _rows(dataset.tensors[1], outputs) if len(dataset.tensors) > 1 else None
    if isinstance(dataset, TorchSubset):
        full = _offered(dataset.dataset, outputs)
        return None if full is None else full[torch.as_tensor(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        parts = [_offered(part, outputs) for part in dataset.datasets]
        tensors = [part for part in parts if part is not None]
        return torch.cat(tensors) if len(tensors) == len(parts) else None
    if (reader := getattr(dataset, "reader", None)) is not None and not hasattr(dataset, "targets"):
        return _offered(reader, outputs) if len(reader) == len(dataset) else None
    values = getattr(dataset, "targets", None)
    return None if values is None or callable(values) else _rows(values, outputs)


def _read(dataset: Any, total: int, outputs: int) -> Tensor | None:
    rows = []
    indices = sorted({index * total // min(total, _MAX_SAMPLES) for index in range(min(total, _MAX_SAMPLES))})
    source = getattr(dataset, "reader", dataset)
    with isolate_rng():
        for index in indices:
            try:
                sample = source[index]
            except Exception:  # named where training reads it
                continue
            row = _rows(_target(sample), outputs)
            if row is not None:
                rows.append(row)
    return torch.cat(rows) if rows else None


def _target(sample: Any) -> Any:
    if isinstance(sample, Mapping):
        return next((sample[name] for name in _FIELDS if name in sample), None)
    return sample[1] if isinstance(sample, tuple | list) and len(sample) > 1 else None


def _rows(values: Any, outputs: int) -> Tensor | None:
    """Return `(N, K)` float64, or None where the values are no such numbers."""
    try:
        rows = torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None
    return rows.reshape(-1, outputs) if rows.numel() and rows.numel() % outputs == 0 else None
