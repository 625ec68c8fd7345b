"""Notices of the data's reader, printed once a command although every run opens the data again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from visionkit.notices import Notice

__all__ = ["announce", "forward", "notice_lines"]

_SEEN: set[str] = set()
_SEND: list[Callable[[str], None]] = []


def notice_lines(notices: Iterable[Notice]) -> list[str]:
    """Return a line for each notice: the kind, the count, the fraction and the first case."""
    return [" ".join(str(notice).split()) for notice in notices]


def announce(lines: Iterable[str]) -> list[str]:
    """Return those of `lines` that this command has not shown yet, for the caller to print.

    In a child process, whose output goes to a log, they are also sent to the parent, which prints them.
    """
    new = [line for line in dict.fromkeys(lines) if line and line not in _SEEN]
    _SEEN.update(new)
    for send in _SEND:
        for line in new:
            send(line)
    return new


def forward(send: Callable[[str], None]) -> None:
    """Send what this process announces to its parent as well; nothing counts as shown before.

    Args:
        send: Sends a line.
    """
    _SEEN.clear()
    _SEND[:] = [send]
