"""What the data's reader left out is said once a command, on the screen, wherever the run is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from visionkit.notices import Notice

__all__ = ["announce", "forward", "notice_lines"]

_SEEN: set[str] = set()
_SEND: list[Callable[[str], None]] = []


def notice_lines(notices: Iterable[Notice]) -> list[str]:
    """Return a line for each notice: the kind, the count, the share and the first case."""
    return [" ".join(str(notice).split()) for notice in notices]


def announce(lines: Iterable[str]) -> list[str]:
    """Return those of `lines` that this command has not shown yet, for the caller to print.

    In a process of its own, where what is printed goes to a log, they are also sent to the one that shows.
    """
    new = [line for line in dict.fromkeys(lines) if line not in _SEEN]
    _SEEN.update(new)
    for send in _SEND:
        for line in new:
            send(line)
    return new


def forward(send: Callable[[str], None]) -> None:
    """Have this process send what it announces; nothing counts as shown before.

    Args:
        send: Takes a line to the process that has the screen.
    """
    _SEEN.clear()
    _SEND[:] = [send]
