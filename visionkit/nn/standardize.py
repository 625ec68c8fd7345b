"""`Standardize`: regression targets to zero mean and unit deviation, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.errors import InputError, expected

__all__ = ["Standardize"]


class Standardize(nn.Module):
    """Subtract the mean of the training targets and divide by their deviation, one of each an output.

    The outputs of a new head are near 0 and change by small steps, far from raw years or prices. Mean and
    deviation are buffers, so a checkpoint carries them; an older checkpoint without them leaves the targets
    as they are. They stay in float32 at any precision of the network: bfloat16 would round a year to a
    multiple of 8.

    Args:
        outputs: Number of targets K.
        mean: Mean of each (or one for all); with `std` unless both are fitted later.
        std: Standard deviation of each; 0 (a constant target) is replaced by 1.

    Raises:
        InputError: One of the two is missing, or they are not `outputs` finite numbers.
    """

    mean: Tensor
    std: Tensor
    fitted: Tensor

    def __init__(
        self,
        outputs: int,
        *,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("std", torch.ones(outputs))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.int64))
        if (mean is None) != (std is None):
            raise InputError("Expected target_mean and target_std together, but got one of them. Give both.")
        if mean is not None and std is not None:
            self.fit(mean, std)

    @torch.no_grad()
    def fit(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        """Set mean and standard deviation in place.

        Raises:
            InputError: They are not as many finite numbers as there are outputs, or a deviation is negative.
        """
        for what, values, buffer in (("target_mean", mean, self.mean), ("target_std", std, self.std)):
            plain: Any = values.tolist() if hasattr(values, "tolist") else values
            given = [float(value) for value in plain] if isinstance(plain, Sequence) else [float(plain)]
            given = given * len(buffer) if len(given) == 1 else given
            if len(given) != len(buffer) or not all(math.isfinite(value) for value in given):
                raise InputError(expected(what, f"{len(buffer)} finite numbers", values))
            if what == "target_std" and min(given) < 0:
                raise InputError(expected(what, "0 or more", values))
            if what == "target_std":
                # A constant target is shifted only: its deviation is 0 up to rounding.
                given = [value if value > max(1e-30, 1e-7 * abs(m)) else 1.0
                         for value, m in zip(given, self.mean.tolist(), strict=True)]  # fmt: skip
            buffer.copy_(torch.tensor(given))
        self.fitted.fill_(1)

    def forward(self, targets: Tensor) -> Tensor:
        """Return targets `(B, K)` in standard units."""
        return (targets - self.mean) / self.std

    def restore(self, values: Tensor) -> Tensor:
        """Return outputs `(B, K)` in the units of the targets, in float32 or float64."""
        return values * self.std + self.mean

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Standardize:
        original = self.mean, self.std
        super()._apply(fn, recurse)
        if not original[0].is_meta:
            self.mean, self.std = (value.to(self.mean.device) for value in original)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if f"{prefix}mean" not in state_dict:
            ones = torch.ones_like(self.std)
            state_dict |= {f"{prefix}mean": torch.zeros_like(ones), f"{prefix}std": ones}
            state_dict[f"{prefix}fitted"] = torch.ones_like(self.fitted)
        super()._load_from_state_dict(state_dict, prefix, *rest)
