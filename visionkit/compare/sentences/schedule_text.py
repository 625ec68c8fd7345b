"""What schedules showed, in sentences and as a table."""

from __future__ import annotations

from visionkit.compare.comparison import Comparison
from visionkit.compare.schedules import CatchUp, OverSchedules, ScheduleStep
from visionkit.compare.sentences.evidence_text import evidence_on
from visionkit.compare.sentences.number_text import capitalized, format_difference, format_statistics, percent

__all__ = ["schedule_rows", "schedule_sentences"]


def schedule_sentences(comparison: Comparison) -> list[str]:
    """Return what longer training changed, for each arm and fraction; none where runs have one schedule."""
    if len(comparison.schedules) == 1:
        return []
    sentences = []
    for row in reversed(comparison.over_schedules):
        data = "" if row.fraction == 1 else f"With {percent(row.fraction)} of the data "
        if row.catch_up is not None:
            baseline = row.baseline if data else capitalized(row.baseline)
            sentences.append(f"{data}{baseline} {_catch_up(row, row.catch_up)}")
        answers = [
            f"{text} at {step.schedule}x" for step in row.steps if (text := _answer(comparison, row, step))
        ]
        if answers:
            margin = next(step.parity.margin for step in row.steps if step.parity is not None)
            sentences.append(
                f"{data or 'T'}{'t' if data else ''}he scores of {row.arm} and {row.baseline} (margin "
                f"{margin:g}): {', '.join(answers)}."
            )
    return sentences


def schedule_rows(comparison: Comparison, row: OverSchedules) -> list[list[str]]:
    """Return the table of an arm and the baseline: a header, then a row a schedule.

    Args:
        comparison: The runs.
        row: One of `Comparison.over_schedules`.
    """
    rows = [["schedule", "images", row.arm, row.baseline, f"{row.arm} - {row.baseline}", "equal?"]]
    for step in row.steps:
        rows.append(
            [
                f"{step.schedule}x",
                f"{step.images:,.0f}",
                format_statistics(step.arm),
                format_statistics(step.baseline),
                format_difference(step.difference),
                _answer(comparison, row, step) or "-",
            ]
        )
    return rows


def _answer(comparison: Comparison, row: OverSchedules, step: ScheduleStep) -> str:
    """Return whether the arms are equal, differ, or nobody can tell; empty where one of them has no runs.

    Equality is a question to the seeds; a difference is shown as in the verdict, by seeds and images.
    """
    if step.parity is None or step.parity.answer == "equal":
        return "" if step.parity is None else step.parity.text
    evidence = evidence_on(comparison.at(step.schedule), row.arm, row.fraction)
    if evidence is None or evidence.p_value is None:
        return step.parity.text
    return "differs" if evidence.shown else "cannot tell"


def _catch_up(row: OverSchedules, result: CatchUp) -> str:
    after = f"{result.target:.3f} after {result.arm_images:,.0f} images"
    score = f"{row.arm}'s score at {result.schedule}x, {after}"
    if result.images is None or result.times is None:
        return f"does not reach {score}, within {result.max_images:,.0f} images{_interval(result)}."
    if result.bound == "at most":
        return f"has {score}, by the end of its own shortest schedule{_interval(result)}."
    return f"needs {result.times:.1f} times as many images{_interval(result)} to reach {score}."


def _interval(result: CatchUp) -> str:
    """Return the interval of how many times as many images; its ends may lie outside what was run."""
    if result.pairing == "single":
        return " (one seed: no interval)"
    longest = f"{result.max_images / result.arm_images:.3g}"
    if result.low is None:
        return f" (95% interval: all beyond {longest} times)"
    high = f"beyond {longest}" if result.high is None else f"{result.high:.1f}"
    return f" (95% interval {result.low:.1f} to {high} times)"
