"""A static page on which a browser answers images with an exported model; it works without a server."""

from __future__ import annotations

from visionkit.predict.page.page import Page, write_page
from visionkit.predict.page.runtime import Runtime, download_runtime, find_runtime

__all__ = ["Page", "Runtime", "download_runtime", "find_runtime", "write_page"]
