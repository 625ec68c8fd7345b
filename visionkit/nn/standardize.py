"""Numbers to regress, in units that a network learns in and back."""

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

    A head begins near 0 and moves by little: years or prices as they are lie beyond its reach. Mean and
    deviation are buffers, so a checkpoint carries them; a checkpoint from before there were any leaves the
    numbers as they are. They stay in float32 whatever precision the network has: bfloat16 would round a year
    to a multiple of 8.

    Args:
        outputs: How many numbers.
        mean: Mean of each (or one for all); with `std` unless both are fitted later.
        std: Standard deviation of each; where targets never change (0), 1 is taken.

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
        """Take mean and standard deviation; the buffers stay the same tensors."""
        for what, values, buffer in (("target_mean", mean, self.mean), ("target_std", std, self.std)):
            plain: Any = values.tolist() if hasattr(values, "tolist") else values
            given = [float(value) for value in plain] if isinstance(plain, Sequence) else [float(plain)]
            given = given * len(buffer) if len(given) == 1 else given
            if len(given) != len(buffer) or not all(math.isfinite(value) for value in given):
                raise InputError(expected(what, f"{len(buffer)} finite numbers", values))
            if what == "target_std" and min(given) < 0:
                raise InputError(expected(what, "0 or more", values))
            if what == "target_std":
                # What never changes is only shifted: there is nothing to divide by.
                given = [value if value > max(1e-30, 1e-7 * abs(m)) else 1.0
                         for value, m in zip(given, self.mean.tolist(), strict=True)]  # fmt: skip
            buffer.copy_(torch.tensor(given))
        self.fitted.fill_(1)

    def forward(self, targets: Tensor) -> Tensor:
        """Return targets `(B, K)` in standard units."""
        return (targets - self.mean) / self.std

    def restore(self, values: Tensor) -> Tensor:
        """Return outputs `(B, K)` in the units of the targets, in float32 or better."""
        return values * self.std + self.mean

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Standardize:
        kept = self.mean, self.std
        super()._apply(fn, recurse)
        if not kept[0].is_meta:
            self.mean, self.std = (value.to(self.mean.device) for value in kept)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if f"{prefix}mean" not in state_dict:
            ones = torch.ones_like(self.std)
            state_dict |= {f"{prefix}mean": torch.zeros_like(ones), f"{prefix}std": ones}
            state_dict[f"{prefix}fitted"] = torch.ones_like(self.fitted)
        super()._load_from_state_dict(state_dict, prefix, *rest)
