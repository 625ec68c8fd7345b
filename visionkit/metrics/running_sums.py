"""Running sums on the device, read back at the end of a window or an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from visionkit.distributed import all_reduce, widest_float

__all__ = ["RunningSums"]


class RunningSums(nn.Module):
    """Named float64 sums in one tensor on the device; one all-reduce and one host copy give their values.

    They are for means that are logged in a training loop: of windows within an epoch, and of an epoch that
    continues after a restart. The scores of an evaluation are metrics (`ScoreMetric`).

    The sums are not a registered buffer: `DistributedDataParallel` broadcasts buffers from the first process
    at every forward, which would overwrite the counts of the others. They follow the module's device. Python
    numbers are summed on the host and added at the reduction, so that a batch's size needs no copy to the
    device.

    Args:
        names: The sums; a mapping gives each a shape (`()` is a scalar, `(K, K)` a matrix).
    """

    sums: Tensor

    def __init__(self, names: Sequence[str] | Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        shapes = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, ())
        self._slices: dict[str, tuple[int, int, tuple[int, ...]]] = {}
        start = 0
        for name, shape in shapes.items():
            length = int(torch.Size(shape).numel())
            self._slices[name] = (start, start + length, shape)
            start += length
        self._numbers = dict.fromkeys(self._slices, 0.0)
        self.sums = torch.zeros(start, dtype=torch.float64)
        self.epoch = self._zeros()

    @torch.no_grad()
    def add(self, **values: Tensor | float) -> None:
        """Add to the sums named by the keywords; tensors must have the sum's number of elements."""
        if not values.keys() <= self._slices.keys():
            raise KeyError(f"Expected sums among {list(self._slices)}, but got {list(values)}.")
        for name, value in values.items():
            if isinstance(value, Tensor):
                start, stop, _ = self._slices[name]
                self.sums[start:stop].add_(value.reshape(-1))
            else:
                self._numbers[name] += value

    def view(self, name: str) -> Tensor:
        """Return the sum as a view `shape` of the one tensor, to be added to in place."""
        start, stop, shape = self._slices[name]
        return self.sums[start:stop].view(shape)

    def totals(self) -> dict[str, Tensor]:
        """Return the sums over all processes as float64 tensors on the host: one all-reduce, one copy."""
        sums = self.sums.clone()
        for name, number in self._numbers.items():
            if number:
                start, stop, _ = self._slices[name]
                sums[start:stop] += number
        host = all_reduce(sums).cpu().double()
        return {name: host[start:stop].view(shape) for name, (start, stop, shape) in self._slices.items()}

    def reduce(self) -> dict[str, float]:
        """Return the scalar sums over all processes."""
        return {name: total.item() for name, total in self.totals().items() if total.ndim == 0}

    def close_window(self) -> dict[str, Tensor]:
        """Return `totals`, add them to those of the epoch (`epoch`), and begin again."""
        totals = self.totals()
        self.reset()
        for name, total in totals.items():
            self.epoch[name] += total
        return totals

    def close_epoch(self) -> dict[str, Tensor]:
        """Return the totals of all windows since the last epoch, and begin again."""
        self.close_window()
        epoch, self.epoch = self.epoch, self._zeros()
        return epoch

    def reset(self) -> None:
        """Set every sum to zero, but for those of the epoch."""
        # In place: a new tensor made in inference mode could not be added to while training.
        self.sums.zero_()
        self._numbers = dict.fromkeys(self._slices, 0.0)

    def restore(
        self,
        totals: Mapping[str, Tensor],
        epoch: Mapping[str, Tensor] | None = None,
        *,
        add_totals: bool = True,
    ) -> None:
        """Continue from the results of `totals` and `epoch`; sums of other names or shapes are left at zero.

        Args:
            totals: Added on one process (`add_totals`); the others begin at zero.
            epoch: The totals of the closed windows, equal on every process.
            add_totals: Whether this process adds the totals.
        """
        self.reset()
        self.epoch = self._zeros()
        sums = {name: self.view(name) for name in self._slices}
        for target, saved in ((self.epoch, epoch or {}), (sums, totals if add_totals else {})):
            for name, total in saved.items():
                if name in target and total.shape == target[name].shape:
                    target[name].copy_(total)

    def _zeros(self) -> dict[str, Tensor]:
        """Return a zero for each sum, on the host."""
        return {name: torch.zeros(shape, dtype=torch.float64) for name, (_, _, shape) in self._slices.items()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RunningSums:
        super()._apply(fn, recurse)
        device = fn(torch.empty(0, device=self.sums.device)).device
        dtype = widest_float(device)
        self.sums = self.sums.to(device=device, dtype=dtype)
        return self
