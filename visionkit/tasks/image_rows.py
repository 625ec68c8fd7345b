"""What each image of an evaluation adds to its scores, collected where a run asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.distributed import all_gather_objects

__all__ = ["ImageRows"]


class ImageRows:
    """Columns with a row for each image of one evaluation.

    Nothing is read back from the device before `gather`.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._parts: list[Mapping[str, Tensor]] = []

    def add(self, ids: Sequence[str] | None, columns: Mapping[str, Tensor]) -> None:
        """Add a batch.

        Args:
            ids: The name of each image; without names nothing is added, as rows could not be told apart.
            columns: By name, with a row an image.
        """
        if ids:
            self.ids += ids
            self._parts.append(columns)

    def gather(self) -> dict[str, NDArray[Any]]:
        """Return "ids" and the columns over all processes, ordered by id, an image once; empty without rows.

        Every process must call it.
        """
        names = self._parts[0] if self._parts else {}
        mine = {name: torch.cat([part[name] for part in self._parts]).cpu().numpy() for name in names}
        parts = [part for part in all_gather_objects((self.ids, mine)) if part[0]]
        if not parts:
            return {}
        ids, first = np.unique([name for names, _ in parts for name in names], return_index=True)
        columns = {name: np.concatenate([each[name] for _, each in parts])[first] for name in parts[0][1]}
        return {"ids": ids, **columns}
