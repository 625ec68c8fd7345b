"""What a row of the table of speeds is: two ways to one result, and the goal between them.

A file `tests/bench/row_*.py` or `rows_*.py` offers `ROWS`, a tuple of `Row`. The runner finds it, builds
both sides once, asserts that their results are equal, and then times them in turn. The default suite builds
every row at size "tiny" and asserts equality alone.

    def build(size: Size) -> Sides:
        images = torch.rand(pick(size, tiny=2, quick=16, full=64), 3, 224, 224)
        return Sides(ours=lambda: fast(images), theirs=lambda: slow(images), equal=close())

    ROWS = (Row("flip a batch", peer="torchvision v2", package="torchvision", build=build, goal=2.5,
                limit="one read and one write of the batch"),)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch

__all__ = ["Row", "Sides", "Size", "close", "pick", "same"]

Size = Literal["tiny", "quick", "full"]
"""tiny: for the test of equality, a second at most; quick: under 20 s a row; full: the committed table."""

T = TypeVar("T")


@dataclass(frozen=True)
class Sides:
    """Both sides of a row, ready to run.

    Args:
        ours: Does the work once with the library's own classes, and returns its result.
        theirs: Does the same work as the peer does it.
        equal: Raises `AssertionError` where the two results differ by more than the row allows.
        close: Called at the end (removes files, stops processes).
        facts: What else was measured, by name: bytes held, collectives, peak memory.
    """

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    equal: Callable[[Any, Any], None]
    close: Callable[[], None] = lambda: None
    facts: Callable[[], Mapping[str, float | str]] = dict


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Args:
        name: What is measured, in a few words; unique.
        peer: Whom we are compared with, in a few words.
        build: Makes both sides at a size.
        goal: The least ratio of the peer's time over ours; with `at_most` the most of ours over the peer's.
        limit: What bounds the row, however good our code.
        package: The peer's distribution, whose version is written beside it; "" for our own code.
        at_most: The peer is a bare form of our work, and we may take at most `goal` times as long.
        rounds: How many pairs are timed, at size "full"; fewer when quick.
        quick: Whether `--quick` runs it.
        device: Where it runs.
        clock: "cpu" times this process and its children; "wall" is for a device that works beside the host,
            and for what waits.
        needs: Modules without which the row is left out, and said so.
        note: One sentence for the reader of the table.
        bf16: "products" or "convolutions" where the row is bounded by how much faster these are in the better
            type of numbers than in fp32, which is the peer's; the run measures it. "" where it is not.
    """

    name: str
    peer: str
    build: Callable[[Size], Sides]
    goal: float
    limit: str
    package: str = ""
    at_most: bool = False
    rounds: int = 7
    quick: bool = True
    device: Literal["cpu", "gpu"] = "cpu"
    clock: Literal["cpu", "wall"] = "cpu"
    needs: tuple[str, ...] = field(default=())
    note: str = ""
    bf16: Literal["", "products", "convolutions"] = ""


def pick(size: Size, *, tiny: T, quick: T, full: T) -> T:
    """Return the value for a size."""
    return {"tiny": tiny, "quick": quick, "full": full}[size]


def close(*, atol: float = 1e-6, rtol: float = 0.0) -> Callable[[Any, Any], None]:
    """Return an `equal` for tensors, or nests of them, that may differ by rounding."""

    def equal(ours: Any, theirs: Any) -> None:
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=rtol, check_dtype=False, check_stride=False)

    return equal


def same(ours: Any, theirs: Any) -> None:
    """Assert that plain values, or tensors, are equal to the last bit."""
    torch.testing.assert_close(ours, theirs, atol=0, rtol=0, equal_nan=True, check_stride=False)
