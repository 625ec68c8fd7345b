"""The formats of data sets on disk: `open.py` detects and opens them, each other module reads one."""

__all__: list[str] = []
