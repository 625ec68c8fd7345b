"""Statistics of training masks, and the notices that are made of them before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from visionkit.data.formats.masks.label_map import IGNORE, LabelMap
from visionkit.data.formats.masks.pairs import MaskPair
from visionkit.data.formats.masks.read_mask import RawMask, raw_mask, to_classes
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED, Notice

__all__ = ["MAX_MASKS", "MaskStatistics", "MaskSummaries", "MaskSummary", "mask_notices", "only_0_and_255"]

MAX_MASKS = 500
"""Training masks that are read when a data set is opened, at most: spread evenly, always the same."""

_FIRST = 64  # no more are read where these show every class
_MAX_IGNORED = 0.5
_HINT = "Foreground saved as 255, which is ignored unless it is listed? List it: '255 name'."


@dataclass(frozen=True)
class MaskSummary:
    """What is kept of one decoded mask.

    Args:
        size: `(H, W)`.
        pixels: `(256,)` pixels of each class, the ignored at 255; None where there is an `error`.
        stored: The numbers or colours that the file holds, each once.
        palette: `(N,)` colours of the numbers, for palette files.
        transparent: Pixels that an alpha channel makes transparent.
        ambiguous: Whether it holds only 0 and 255, where 255 may be the foreground.
        error: Values that no class has, or colours without a list.
    """

    size: tuple[int, ...]
    pixels: np.ndarray | None
    stored: np.ndarray
    palette: np.ndarray | None
    transparent: int
    ambiguous: bool
    error: DataError | None = None


class MaskSummaries:
    """Decodes masks, each once, and keeps a summary of it.

    Args:
        root: The folder that holds the masks.
        labels: What the values mean.
    """

    def __init__(self, root: Path, labels: LabelMap) -> None:
        self.root, self.labels = root, labels
        self._known: dict[str, MaskSummary | DataError] = {}

    def of(self, name: str) -> MaskSummary:
        """Return the summary of a mask.

        Args:
            name: The mask, relative to the root.

        Raises:
            DataError: It cannot be decoded.
        """
        if name not in self._known:
            try:
                self._known[name] = self._read(name)
            except DataError as error:
                self._known[name] = error
        summary = self._known[name]
        if isinstance(summary, DataError):
            raise summary
        return summary

    def _read(self, name: str) -> MaskSummary:
        raw = raw_mask(name, root=self.root)
        pixels, error = None, None
        try:
            pixels = np.bincount(to_classes(raw, self.labels, path=name).ravel(), minlength=256)
        except DataError as reason:
            error = reason
        return MaskSummary(
            raw.values.shape,
            pixels,
            np.unique(raw.values),
            raw.palette,
            0 if raw.transparent is None else int(raw.transparent.sum()),
            pixels is not None and only_0_and_255(raw, pixels, self.labels),
            error,
        )


@dataclass
class MaskStatistics:
    """Counts over masks.

    Args:
        pixels: `(256,)` pixels of each class, the ignored at 255.
        masks: How many were read.
        transparent: Pixels that an alpha channel makes transparent.
        ambiguous: Masks of only 0 and 255, where 255 may be the foreground.
        first: The first mask of each of these, by a word.
    """

    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    masks: int = 0
    transparent: int = 0
    ambiguous: int = 0
    first: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, summaries: MaskSummaries) -> None:
        """Count a mask; a file that cannot be read is passed over (its sample says why, as does `check`).

        Args:
            name: The mask, relative to the root.
            summaries: Reads it.
        """
        try:
            summary = summaries.of(name)
        except DataError:
            return
        if summary.pixels is None:
            return
        self.masks += 1
        self.pixels += summary.pixels
        total = int(summary.pixels.sum())
        if summary.pixels[IGNORE]:
            self.first.setdefault("ignored", f"{name}, {summary.pixels[IGNORE] / total:.1%} of it")
        if summary.transparent:
            self.transparent += summary.transparent
            self.first.setdefault("transparent", f"{name}, {summary.transparent / total:.1%} of it")
        if summary.ambiguous:
            self.ambiguous += 1
            self.first.setdefault("ambiguous", name)


def only_0_and_255(raw: RawMask, counts: np.ndarray, labels: LabelMap) -> bool:
    """Return whether a mask of a list of two classes holds 0 and 255, and 255 is ignored by default only.

    Args:
        raw: The decoded mask.
        counts: `(256,)` pixels of each class, the ignored at 255.
        labels: What the values mean.
    """
    unsaid = len(labels.classes) == 2 and IGNORE in labels.assumed
    erased = raw.transparent is not None and raw.transparent.any()
    return unsaid and not erased and bool(counts[0] and counts[IGNORE] and not counts[1])


def mask_notices(
    pairs: Sequence[MaskPair], summaries: MaskSummaries, *, max_dropped: float = MAX_DROPPED
) -> tuple[Notice, ...]:
    """Return the notices of training masks.

    Sixty-four masks are read, and where a class has no pixel in them up to `MAX_MASKS`.

    Args:
        pairs: The training samples.
        summaries: Reads the masks.
        max_dropped: Limit of the fraction of masks that hold 0 and 255 where 255 may be the foreground; of
            the fraction of ignored pixels, if above a half; and of absent classes, where all masks were read
            and show one class only.

    Returns:
        Notices of ignored pixels, of transparent ones, of classes without a pixel, and of such masks.
    """
    chosen, labels = _spread(len(pairs)), summaries.labels
    seen = MaskStatistics()
    for count, index in enumerate(chosen):
        if count >= _FIRST and seen.pixels[: len(labels.classes)].all():
            break
        seen.add(pairs[index].mask, summaries)
    if not seen.masks:
        return ()
    total = int(seen.pixels.sum())
    notices = []
    if seen.ambiguous:
        other = labels.classes[1]
        text = (
            f"{seen.first['ambiguous']}: 255 is ignored unless it is listed. Is it {other!r}? Then list both "
            f"'1 {other}' and '255 {other}' in the label map file, or '255 {other}' alone. Are these pixels "
            "not to count? Then list '255 ignore'."
        )
        what = "training masks that hold only 0 and 255"
        notices.append(Notice(what, seen.ambiguous, seen.masks, text, max_dropped))
    if seen.pixels[IGNORE]:
        limit = max(_MAX_IGNORED, max_dropped)
        what = f"pixels of {seen.masks} training masks ignored"
        notices.append(Notice(what, int(seen.pixels[IGNORE]), total, seen.first["ignored"], limit))
    if seen.transparent:
        what = "transparent pixels of training masks ignored"
        notices.append(Notice(what, seen.transparent, total, seen.first["transparent"]))
    absent = [name for name, pixels in zip(labels.classes, seen.pixels) if not pixels]
    if absent:
        notices.append(_absent(absent, seen, len(pairs), max_dropped))
    return tuple(notices)


def _absent(absent: list[str], seen: MaskStatistics, size: int, max_dropped: float) -> Notice:
    """Return the notice of classes without a pixel; masks that all show one class teach nothing."""
    alone = np.count_nonzero(seen.pixels[:IGNORE]) <= 1
    looked = f"all {size}" if seen.masks == size else f"{seen.masks} of {size}"
    listed = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
    return Notice(
        f"classes without a pixel in the training masks ({looked} were read)",
        len(absent),
        len(absent) + int(np.count_nonzero(seen.pixels[:IGNORE])),
        f"{listed}. {_HINT if alone and seen.pixels[IGNORE] else 'They cannot be learnt.'}",
        max_dropped if alone and seen.masks == size else None,
    )


def _spread(size: int) -> list[int]:
    """Return up to `MAX_MASKS` of `size` places, evenly spread, as are the first `_FIRST` of them."""
    count = min(size, MAX_MASKS)
    indices = [index * size // count for index in range(count)]
    few = min(count, _FIRST)
    first = [indices[index * count // few] for index in range(few)]
    return first + sorted(set(indices) - set(first))
