"""Numbers of a comparison as text: scores over seeds, differences, fractions of the data."""

from __future__ import annotations

from visionkit.compare.statistics import Difference, SeedStatistics

__all__ = ["capitalized", "count_text", "format_difference", "format_statistics", "percent", "plural"]


def format_statistics(value: SeedStatistics | None, digits: int = 3) -> str:
    """Return "mean ± sd", the mean alone for one seed, a dash for nothing."""
    if value is None:
        return "-"
    text = f"{value.mean:,.{digits}f}"
    return text if value.sd is None else f"{text} ± {value.sd:,.{digits}f}"


def format_difference(value: Difference | None) -> str:
    """Return the difference and its interval, "+0.318 [+0.250, +0.386]"."""
    if value is None:
        return "-"
    if value.low is None or value.high is None:
        return f"{value.mean:+.3f}"
    return f"{value.mean:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"


def percent(fraction: float) -> str:
    """Return a fraction of the training data as "10%"."""
    return f"{100 * fraction:.3g}%"


def capitalized(arm: str) -> str:
    """Return the name of an arm as a sentence begins with it; the name of a file stays as it is."""
    return arm[:1].upper() + arm[1:] if arm in ("pretrained", "frozen", "scratch") else arm


def count_text(count: int, repeat: str) -> str:
    """Return a number of runs of an arm: "1 seed", "5 folds".

    Args:
        count: How many.
        repeat: What they are told apart by (`visionkit.compare.run_record.repeat_word`).
    """
    return f"{count} {repeat if count == 1 else plural(repeat)}"


def plural(repeat: str) -> str:
    """Return the plural of "seed", "fold" or "pair of seed and fold"."""
    return repeat.replace("pair", "pairs", 1) if repeat.startswith("pair") else f"{repeat}s"
