"""What every detector asks of the source below it."""

from __future__ import annotations

from visionkit.backbones.level import FeatureSource
from visionkit.errors import InputError

__all__ = ["source_channels"]


def source_channels(source: FeatureSource, *, num_classes: int) -> int:
    """Return the channels that all levels of a source have.

    Args:
        source: Images to maps.
        num_classes: Foreground classes.

    Raises:
        InputError: Levels differ in channels, or `num_classes` is below 1.
    """
    channels = [level.channels for level in source.levels]
    if len(set(channels)) != 1:
        raise InputError(
            f"Expected levels of equal channels, but got {channels}. Put a pyramid on the source: "
            "PyramidSource(source)."
        )
    if num_classes < 1:
        raise InputError(f"Expected num_classes to be at least 1, but got {num_classes}.")
    return channels[0]
