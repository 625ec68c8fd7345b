"""The vectors of images with their classes, in an order that no process count and no loader changes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from visionkit.errors import DataError

__all__ = ["ImageRows", "image_keys", "unit_rows"]

_NO_ID = -1


@dataclass(frozen=True)
class ImageRows:
    """Images as vectors.

    Args:
        vectors: `(N, D)` of length 1.
        labels: `(N,)` classes.
        roles: `(N,)` 1: of the gallery, 0: a query, -1: both.
        keys: `(N,)`, see `image_keys`.
    """

    vectors: Tensor
    labels: Tensor
    roles: Tensor
    keys: Tensor

    @classmethod
    def ordered(cls, vectors: Tensor, labels: Tensor, *, keys: Tensor, roles: Tensor) -> ImageRows:
        """Return images in the order of their keys, those of equal keys by class and vector.

        Args:
            vectors: `(N, D)` on the host.
            labels: `(N,)`.
            keys: `(N,)`, see `image_keys`.
            roles: `(N,)`.

        Raises:
            DataError: A vector has a number that is not finite.
        """
        faulty = int((~vectors.isfinite().all(1)).sum())
        if faulty:
            raise DataError(
                f"Expected finite vectors of all {len(vectors)} images, but {faulty} have NaN or infinity. "
                "The training has diverged: take a smaller lr, or full precision (--precision 32-true)."
            )
        numbers = keys.numpy()
        if bool((keys == _NO_ID).any()) or len(np.unique(numbers)) < len(numbers):
            contents = np.array([_digest(row.tobytes()) for row in vectors.numpy()], dtype=np.int64)
            order = np.lexsort((contents, labels.numpy(), np.where(numbers == _NO_ID, contents, numbers)))
        else:
            order = np.argsort(numbers)
        rows = torch.from_numpy(order)
        return cls(vectors[rows], labels[rows], roles[rows], keys[rows])

    @property
    def queries(self) -> ImageRows:
        """Return those that are searched with: all but those that are of the gallery alone."""
        mask = self.roles != 1
        return ImageRows(self.vectors[mask], self.labels[mask], self.roles[mask], self.keys[mask])

    def to(self, device: torch.device) -> ImageRows:
        """Return the same images on a device."""
        parts = (self.vectors, self.labels, self.roles, self.keys)
        return ImageRows(*(part.to(device) for part in parts))


def image_keys(ids: Sequence[object] | None, count: int) -> Tensor:
    """Return a number for each image that its id alone decides, `(count,)` int64; -1 without ids."""
    if ids is None:
        return torch.full((count,), _NO_ID)
    return torch.tensor([_digest(str(name).encode("utf-8", "surrogateescape")) for name in ids])


def unit_rows(vectors: Tensor, ids: Sequence[object] | None = None) -> Tensor:
    """Return vectors `(B, D)` with length 1, in float32.

    Args:
        vectors: Of any length.
        ids: Names of the images.

    Raises:
        DataError: A vector on the host has a number that is not finite; the first is named.
    """
    if vectors.device.type == "cpu" and not bool(vectors.isfinite().all()):
        first = int((~vectors.isfinite().all(1)).nonzero()[0])
        name = repr(ids[first]) if ids is not None else f"image {first} of the batch"
        raise DataError(f"Expected vectors of finite numbers, but that of {name} has NaN or infinity.")
    return F.normalize(vectors.float(), dim=1)


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") >> 1
