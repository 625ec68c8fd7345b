"""The base of the library's metrics: a `torchmetrics.Metric` that gives named scores."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from visionkit.distributed import all_reduce, gather_rows, widest_float
from visionkit.errors import unknown_name

__all__ = ["ScoreMetric", "bytes_to_tensor"]

_LOWER_IS_BETTER = frozenset({"ece", "eer", "loss", "mae", "nme", "pair_eer", "rmse"})


class ScoreMetric(Metric):
    """A `torchmetrics.Metric` whose `compute` gives a dict of named scores, or the one asked for by name.

    The states are sums (`dist_reduce_fx="sum"`) and lists of rows ("cat"). Over the default process group all
    sums travel in one all-reduce, and rows are gathered in the order of the processes. Another
    `process_group` or a `dist_sync_fn` goes through torchmetrics' own gathering, which gives the same values.
    States keep their types: neither `set_dtype` nor a module that is cast to half precision changes them.

    Args:
        names: The scores that `compute` gives.
        score: The one score that `compute` returns as a scalar, which `self.log(name, metric)` needs; by
            default it returns a dict of all.
        kwargs: As `torchmetrics.Metric` takes them.

    Raises:
        InputError: `score` is not one of `names`.
    """

    full_state_update = False
    is_differentiable = False
    monitor: ClassVar[tuple[str, str]]
    """The score to select models by, and "max" or "min"."""

    def __init__(self, names: Sequence[str], *, score: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._take_names(names, score)
        self._empty_rows: dict[str, Tensor] = {}
        self._floats: dict[str, float] = {}

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]  # torchmetrics: a constant of the class
        """Whether a higher score is the better one: of `score`, or of the one to select models by."""
        return (self.score or self.monitor[0]) not in _LOWER_IS_BETTER

    def compute(self) -> Tensor | dict[str, Tensor]:
        """Return the scores over all processes as float64 scalars on the metric's device (MPS: float32).

        Where no image was seen they are NaN.
        """
        self._floats = values = self._scores()
        values = values or dict.fromkeys(self.names, math.nan)
        if self.score is not None:
            values = {self.score: values.get(self.score, math.nan)}
        # One copy to the device for all scores.
        dtype = widest_float(self.device)
        scalars = torch.tensor(list(values.values()), dtype=dtype, device=self.device).unbind()
        return dict(zip(values, scalars, strict=True)) if self.score is None else scalars[0]

    def compute_floats(self) -> dict[str, float]:
        """Return the scores over all processes as Python numbers; nothing where no image was seen."""
        with warnings.catch_warnings():
            # A process may be without an image.
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            self.compute()
        return dict(self._floats)

    def reset(self) -> None:
        """Forget every image."""
        with torch.inference_mode(False):  # states made in inference mode refuse updates outside of it
            super().reset()

    def _take_names(self, names: Sequence[str], score: str | None) -> None:
        if score is not None and score not in names:
            raise unknown_name("score", score, names)
        self.names = tuple(names)
        self.score = score

    @abstractmethod
    def _scores(self) -> dict[str, float]:
        """Return the scores of the states by name; an empty dict where no image was seen."""

    def _add_sums(self, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype = torch.float64) -> None:
        """Add states of zeros, all of one type, that are summed over processes."""
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def _add_rows(self, name: str, width: int | None, dtype: torch.dtype) -> None:
        """Add a list state of tensors `(n, width)`, or `(n,)` without a width."""
        self.add_state(name, [], dist_reduce_fx="cat")
        self._empty_rows[name] = torch.zeros((0,) if width is None else (0, width), dtype=dtype)

    def _totals(self) -> dict[str, Tensor]:
        """Return the sums on the host: one copy for all of them."""
        sums = self._sums()
        flat = torch.cat([value.reshape(-1) for value in sums.values()]).cpu()
        flat = flat.double() if flat.is_floating_point() else flat
        parts = flat.split([value.numel() for value in sums.values()])
        return {name: part.view(sums[name].shape) for name, part in zip(sums, parts, strict=True)}

    def _rows(self, name: str) -> Tensor:
        """Return the rows of a list state on the host, in one tensor."""
        value: Tensor | list[Tensor] = getattr(self, name)
        if isinstance(value, list):
            value = torch.cat(value) if value else self._empty_rows[name]
        return value.cpu()

    def _sums(self) -> dict[str, Tensor]:
        state = self.metric_state.items()
        return {n: v for n, v in state if n not in self._empty_rows and isinstance(v, Tensor)}

    # torchmetrics has no public hook for these two; tests/test_compat.py fails when it changes them.
    # https://github.com/Lightning-AI/torchmetrics/blob/master/src/torchmetrics/metric.py
    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any | None = None
    ) -> None:
        """Replace the states by those of all processes; `torchmetrics.Metric.sync` calls it."""
        for name, empty in self._empty_rows.items():
            if not getattr(self, name):  # torchmetrics would send a tensor of another rank
                setattr(self, name, [empty.to(self.device)])
        group = process_group or self.process_group
        if dist_sync_fn is not gather_all_tensors or group is not None:
            super()._sync_dist(dist_sync_fn, process_group)
            return
        sums = self._sums()
        if sums:
            flat = torch.cat([value.reshape(-1) for value in sums.values()])
            all_reduce(flat)
            for (name, value), part in zip(
                sums.items(), flat.split([v.numel() for v in sums.values()]), strict=True
            ):
                setattr(self, name, part.view(value.shape))
        for name, empty in self._empty_rows.items():
            rows = torch.cat(getattr(self, name)).to(self.device)
            width = empty.shape[1] if empty.ndim > 1 else 1
            setattr(self, name, [gather_rows(rows.view(-1, width)).view(-1, *empty.shape[1:])])

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        """Move the states, and keep their types."""

        def move(state: Tensor) -> Tensor:
            device = fn(torch.empty(0, device=state.device)).device
            return state.to(device, widest_float(device) if state.dtype == torch.float64 else state.dtype)

        return super()._apply(move, exclude_state)


def bytes_to_tensor(data: bytes) -> Tensor:
    """Return bytes as a uint8 tensor `(n,)`, for a list state that travels between processes."""
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
