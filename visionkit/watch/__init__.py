"""A page on runs as they train: a small server on this machine that reads their folders, and writes nothing.

The server is the standard library's: a few small answers to one browser need no framework, and a dependency
that listens on a port would have to be kept safe. No torch here: the networks are drawn by a process of low
priority (`visionkit.watch.draw`), which runs only while a browser looks.
"""

from __future__ import annotations

from visionkit.watch.server import WatchServer

__all__ = ["WatchServer"]
