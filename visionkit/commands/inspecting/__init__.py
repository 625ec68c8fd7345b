"""What `visionkit inspect` shows, one module each: `main(argv) -> exit status`."""

from __future__ import annotations

__all__: list[str] = []
