"""Parts that only show or record a run: an error in them becomes a warning and a note in the result."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

__all__ = ["BestEffort", "problems_of"]


class BestEffort:
    """Mixin of callbacks and loggers whose errors stop only themselves.

    Attributes:
        problem: Text of the first error; empty if there was none.
    """

    problem = ""

    @contextlib.contextmanager
    def best_effort(self, what: str = "") -> Iterator[None]:
        """Turn an exception inside into a warning and `problem`.

        Args:
            what: Name of the part in the warning ("Previews"); the class name if empty.
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
    """Return the problems of `parts` (callbacks, loggers)."""
    problems = [
        getattr(part, "problem", "") for part in (parts if isinstance(parts, list | tuple) else [parts])
    ]
    return [text for text in problems if text]
