"""The verbs for what is trained or being trained, one module each: `main(argv) -> exit status`."""

from __future__ import annotations

__all__: list[str] = []
