"""Errors in what only shows or records a run become a warning and a line of the result; the run goes on."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

__all__ = ["Careful", "problems_of"]


class Careful:
    """Mixin of callbacks and loggers whose errors stop them alone.

    Attributes:
        problem: What went wrong, in words; empty while nothing did.
    """

    problem = ""

    @contextlib.contextmanager
    def careful(self, what: str = "") -> Iterator[None]:
        """Catch what goes wrong inside: it becomes a warning and `problem`.

        Args:
            what: What stops ("Previews"); the name of the class if not given.
        """
        try:
            yield
        except Exception as error:
            name = what or type(self).__name__.lstrip("_")
            why = f"{type(error).__name__}: {error}"
            if not self.problem:
                self.problem = f"{name} failed: {why}"
                warnings.warn(f"{name} failed, the run goes on: {why}", RuntimeWarning, stacklevel=3)


def problems_of(parts: object) -> list[str]:
    """Return the problems of those of `parts` (callbacks, loggers) that had one."""
    texts = [getattr(part, "problem", "") for part in (parts if isinstance(parts, list | tuple) else [parts])]
    return [text for text in texts if text]
