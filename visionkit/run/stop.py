"""The wish that this process stop: set by a signal at any time, acted on after an update. No torch here."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

__all__ = ["interruptible", "listening", "request_stop", "stop_requested"]

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class _Request:
    made = False


def request_stop(wished: bool = True) -> None:
    """Ask this process to stop after an update, as a signal does; for launchers that send none.

    Args:
        wished: False takes the wish back.
    """
    _Request.made = wished


def stop_requested() -> bool:
    """Return whether this process was asked to stop."""
    return _Request.made


@contextmanager
def listening() -> Iterator[None]:
    """Take SIGTERM and SIGUSR1 as requests, also while nothing trains: importing, loading, testing.

    A request is kept until the next update, where all processes agree on it; without a next one the program
    just ends, finished.
    """
    before = listen()
    try:
        yield
    finally:
        give_back(before)


@contextmanager
def interruptible() -> Iterator[None]:
    """Pass an interrupt (Ctrl-C) on as `KeyboardInterrupt`, out of a Trainer too.

    Lightning turns it into `sys.exit(1)` and ignores the keyboard from then on.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from None


def listen() -> dict[signal.Signals, Any]:
    """Have the signals set the wish from now on; return what they did before."""
    before: dict[signal.Signals, Any] = {}
    try:
        for number in SIGNALS:
            before[number] = signal.signal(number, _flag)
    except ValueError:  # not in the main thread (a Ray worker): whoever started it calls `request_stop`
        return {}
    return before


def give_back(before: dict[signal.Signals, Any]) -> None:
    """Have the signals do again what they did before."""
    for number, handler in before.items():
        signal.signal(number, handler)


def _flag(number: int, frame: FrameType | None) -> None:
    _Request.made = True
