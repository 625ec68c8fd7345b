"""The formats of data sets on disk: `open.py` tells them apart, each other module reads one."""

__all__: list[str] = []
