"""`log.txt` of a run: what it prints, its warnings, and how it ended."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from visionkit.errors import InputError, RunError
from visionkit.printable import for_terminal, printable
from visionkit.run.feedback.state import RunState, audience
from visionkit.run.storage.lock import FILE

__all__ = ["RunLog"]


class RunLog:
    """Prints for one run, and keeps what it prints and its warnings in `log.txt`.

    In a run beside others everything that the process prints is in that file anyway. A log that cannot be
    written stops nothing. Where settings are refused before anything else is written, it is removed again.

    Args:
        folder: The run's folder.
        first: Whether this process prints and writes for its run; the others do nothing.
    """

    def __init__(self, folder: str | Path, *, first: bool = True) -> None:
        self.path = Path(folder) / "log.txt"
        self.first = first
        self._file: TextIO | None = None
        self._inside = False  # standard output is the file
        self._new = False  # nothing was there before
        self._show_warning: Any = None

    def __enter__(self) -> Self:
        if not self.first:
            return self
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._inside = _is_stdout(self.path)
            if not self._inside:
                self._new = not self.path.exists()
                self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace")
        self._show_warning, warnings.showwarning = warnings.showwarning, self._warn
        self._keep(f"started {time.strftime('%Y-%m-%d %H:%M:%S')}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.first:
            return
        if error is not None:
            known = isinstance(error, InputError | RunError | KeyboardInterrupt)
            lines = [f"{type(error).__name__}: {error}"] if known else traceback.format_exception(error)
            self._keep("".join(lines).rstrip())
        self._keep(f"{'ended' if error is None else 'stopped'} {time.strftime('%Y-%m-%d %H:%M:%S')}")
        warnings.showwarning = self._show_warning
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
        if self._new and isinstance(error, InputError):
            with contextlib.suppress(OSError):
                if {file.name for file in self.path.parent.iterdir()} <= {self.path.name, FILE}:
                    self.path.unlink()

    def show(self, text: str) -> None:
        """Print a text on the screen of this process, and keep it."""
        if self.first:
            print(for_terminal(text), flush=True)  # noqa: T201
            if not self._inside:
                self._keep(text)

    def line(self, text: str) -> None:
        """Keep a line, and show it to whoever watches the command."""
        if not self.first:
            return
        self._keep(text)
        someone = audience()
        if someone is not None:
            someone.show_line(self.path.parent.name, text)

    def state(self, state: RunState) -> None:
        """Show how far the run is to whoever watches the command."""
        someone = audience()
        if self.first and someone is not None:
            someone.show_state(state)

    def _keep(self, text: str) -> None:
        if self._inside:
            print(for_terminal(text), flush=True)  # noqa: T201
        elif self._file is not None:
            try:
                self._file.write(f"{printable(text)}\n")
                self._file.flush()
            except OSError:  # a full disk is noticed by what matters
                self._file = None

    def _warn(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not self._inside:  # there the screen is the file
            self._keep(f"{category.__name__}: {message}")
        self._show_warning(message, category, filename, lineno, file, line)


def _is_stdout(path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError, AttributeError):  # no such file yet, or an output that is no file
        return False
