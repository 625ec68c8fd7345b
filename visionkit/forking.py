"""Forked processes that are known to have begun: one that hangs in its fork is ended, and forked again."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.popen_fork import Popen
from multiprocessing.process import BaseProcess
from typing import Any

__all__ = ["CheckedForkContext", "worker_context"]

SECONDS = 30.0
"""How long a child may take to its first line of Python; it takes milliseconds."""
ATTEMPTS = 4


@contextmanager
def _frozen_objects() -> Iterator[None]:
    """Within a `with` block, keep every object out of collections; a process forked there keeps them out.

    A collection writes into each object that it walks, so the first full one of a child would copy all
    pages that it shares with its parent. What the caller has frozen itself is left as it is.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()  # the child never comes here: it ends within Popen


class _CheckedProcess(BaseProcess):
    """A forked process that says when it has begun.

    A lock that another thread of the parent holds in the moment of the fork stays locked in the child. Before
    3.11.10 and 3.12 Python waits in the child for such a lock, that of its list of threads, for ever
    (https://github.com/python/cpython/issues/112275): with several processes, whose communication has threads
    of its own, a worker of a loader hung so in one of some thousand starts, and the training with it.
    """

    _start_method = "fork"
    _began: int

    def run(self) -> None:
        os.write(self._began, b"1")
        os.close(self._began)
        super().run()

    @staticmethod
    def _Popen(process_obj: Any) -> Popen:  # noqa: N802 (the name that multiprocessing calls)
        for _ in range(ATTEMPTS):
            reading, process_obj._began = os.pipe()
            with _frozen_objects():
                child = Popen(process_obj)
            os.close(process_obj._began)
            # At its end, too: what a child died of is for the one who started it to see.
            began = wait([reading], SECONDS)  # by poll: select takes no descriptor above 1,023
            os.close(reading)
            if began:
                return child
            child.kill()
            child.wait()
            child.close()
        raise RuntimeError(
            f"Expected a forked process to begin, but {ATTEMPTS} of them hung before their first line, each "
            f"for {SECONDS:g} s. Use no workers, or another start method: "
            "multiprocessing.set_start_method('spawn')."
        )


class CheckedForkContext(BaseContext):
    """The start method "fork", for processes that hang in no lock they inherited.

    Not derived from `ForkContext`, which Windows lacks: the module is imported there, too.
    """

    _name = "fork"
    Process = _CheckedProcess


def worker_context() -> BaseContext | None:
    """Return what the workers of a loader are started with: None where the start method is not "fork"."""
    return CheckedForkContext() if multiprocessing.get_start_method() == "fork" else None
