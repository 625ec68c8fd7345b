"""Request to stop this process: made by a signal at any time, acted on after an update. No torch here."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

__all__ = [
    "SIGNALS",
    "asked_by_keyboard",
    "interruptible",
    "listening",
    "request_stop",
    "stop_requested",
    "write_now",
    "write_through",
]

# Windows has no SIGUSR1.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
ONE_PRESS = 2.0  # seconds


class _Request:
    made = False
    keyboard = 0.0  # when Ctrl-C asked, by the monotonic clock
    write: Callable[[str], object] | None = None


def request_stop(requested: bool = True) -> None:
    """Ask this process to stop after an update, as a signal does; for launchers that send none.

    Args:
        requested: False takes the request back.
    """
    _Request.made = requested
    if not requested:
        _Request.keyboard = 0.0


def stop_requested() -> bool:
    """Return whether this process was asked to stop."""
    return _Request.made


def asked_by_keyboard() -> bool:
    """Return whether it was Ctrl-C that asked this process to stop."""
    return _Request.keyboard > 0


def write_through(write: Callable[[str], object] | None) -> None:
    """Have what signals say written by `write`, which keeps it above the bars on a terminal.

    Args:
        write: Takes the text and returns at once; None: written to standard error.
    """
    _Request.write = write


def write_now(text: str) -> None:
    """Write a text on standard error from a signal's handler."""
    if _Request.write is not None:
        _Request.write(text)
    else:
        # The buffered streams may be half way through a write.
        os.write(2, text.encode())


@contextmanager
def listening() -> Iterator[None]:
    """Take SIGTERM and SIGUSR1 as requests, also while nothing trains: importing, loading, testing.

    A request waits for the next update, where all processes agree on it; without a next one the program ends
    as usual.
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


def listen(*, keyboard: bool = False) -> dict[signal.Signals, Any]:
    """Take the signals as requests from now on; return their handlers until now.

    Args:
        keyboard: Take the first Ctrl-C as a request too, where it would end the program; a second one does.
    """
    before: dict[signal.Signals, Any] = {}
    try:
        for number in SIGNALS:
            before[number] = signal.signal(number, _flag)
        # Not where it is ignored (a run beside others: the parent passes it on) or somebody else's.
        if keyboard and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, _flag_keyboard)
    except ValueError:  # not in the main thread (a Ray worker): whoever started it calls `request_stop`
        return {}
    return before


def give_back(before: dict[signal.Signals, Any]) -> None:
    """Set the handlers of signals back to what `listen` returned."""
    for number, handler in before.items():
        signal.signal(number, handler)


def _flag(number: int, frame: FrameType | None) -> None:
    _Request.made = True


def _flag_keyboard(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if asked_by_keyboard():
        # torchrun passes on to its processes what the terminal has sent them already.
        if "TORCHELASTIC_RUN_ID" in os.environ and now - _Request.keyboard < ONE_PRESS:
            return
        signal.default_int_handler(number, frame)
    _Request.made, _Request.keyboard = True, now
    if first_speaks():
        write_now("\nInterrupted: saving after this update. Ctrl-C again ends at once, without saving.\n")


def first_speaks() -> bool:
    """Return whether this process prints for its run: the keyboard interrupts all of them at once."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
