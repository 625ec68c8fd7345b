"""Read and resize images in threads, ahead of the network, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Condition

import torch
from torch import Tensor

from visionkit.data.transforms.classification import Transform
from visionkit.data.transforms.reduced import transformed
from visionkit.errors import DataError
from visionkit.predict.sources import SourceItem

__all__ = ["MAX_BYTES", "Prepared", "read_ahead"]

MAX_BYTES = 256_000_000
"""Pixels that are held ahead of the network, and in a batch: many small images, or a few large ones."""


@dataclass(frozen=True)
class Prepared:
    """An image that was read and resized.

    Args:
        item: Where it is from.
        original: `(3, H, W)` uint8.
        resized: `(3, h, w)` uint8, as the network takes it.
    """

    item: SourceItem
    original: Tensor
    resized: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Return `(H, W)` of the original."""
        height, width = self.original.shape[-2:]
        return int(height), int(width)

    @property
    def nbytes(self) -> int:
        """Return how much memory the pixels take."""
        return int(self.original.nbytes + self.resized.nbytes)


def read_ahead(
    items: Iterator[SourceItem],
    transform: Transform,
    *,
    count: int,
    threads: int,
    on_error: Callable[[str, DataError], object] | None,
) -> Iterator[Prepared]:
    """Yield images in the order of the source; the next ones are read meanwhile.

    Args:
        items: The images.
        transform: Resizes an image for the network.
        count: Images that are read ahead at most; fewer where they have more than `MAX_BYTES`.
        threads: Threads that read.
        on_error: Called with the name and the error of a file that cannot be read, which is then left out;
            without it the error is raised.

    Raises:
        DataError: A file cannot be read, and there is no `on_error`.
    """
    waiting: deque[tuple[SourceItem, Future[Prepared]]] = deque()
    gate = _Gate()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")

    def prepare(item: SourceItem, number: int) -> Prepared:
        gate.enter(number)
        original = item.read()
        # Where the transform decodes large JPEGs reduced, it reads again, as in evaluation.
        again = getattr(transform, "reduced_jpegs", False) is True
        sample = transformed(
            lambda: {"image": item.read() if again else original, "id": item.id}, transform, torch.Generator
        )
        made = Prepared(item, original, sample["image"])
        gate.hold(made.nbytes)
        return made

    def first() -> Iterator[Prepared]:
        item, future = waiting.popleft()
        try:
            made = future.result()
        except DataError as error:
            gate.release(0)
            if on_error is None:
                raise
            on_error(item.id, error)
            return
        gate.release(made.nbytes)
        yield made

    try:
        for number, item in enumerate(items):
            waiting.append((item, pool.submit(prepare, item, number)))
            if len(waiting) >= count:
                yield from first()
        while waiting:
            yield from first()
    finally:
        gate.open()
        pool.shutdown(cancel_futures=True)


class _Gate:
    """Lets threads read while less than `MAX_BYTES` are held, and always the image that is needed next."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._held = 0
        self._next = 0  # number of the image that is needed next: threads take images in order, so one has it
        self._is_open = False

    def enter(self, number: int) -> None:
        """Wait until image `number` may be read."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_open or self._held < MAX_BYTES or number <= self._next)

    def hold(self, size: int) -> None:
        """Count an image that was read, in bytes."""
        with self._changed:
            self._held += size

    def release(self, size: int) -> None:
        """Count an image that was taken, or could not be read."""
        with self._changed:
            self._held -= size
            self._next += 1
            self._changed.notify_all()

    def open(self) -> None:
        """Let all threads pass: nobody takes their images any more."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()
