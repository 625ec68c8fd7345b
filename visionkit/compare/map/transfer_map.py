"""The transfer map: what the finished comparisons of each cell say, one table over all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from visionkit.compare.sentences.number_text import capitalized, percent
from visionkit.files import finite, to_plain
from visionkit.printable import printable_values

__all__ = ["Gap", "MapCell", "Score", "TransferMap", "relative_gap"]


@dataclass(frozen=True)
class Score:
    """The monitored score of an arm at the longest schedule.

    Args:
        arm: The arm.
        fraction: Fraction of the training data.
        mean: Over seeds.
        sd: Sample standard deviation; None with one seed.
        seeds: How many runs.
        train_size: Training images; None where the runs have no record of it.
    """

    arm: str
    fraction: float
    mean: float
    sd: float | None
    seeds: int
    train_size: int | None


@dataclass(frozen=True)
class Gap:
    """The difference of an arm to the baseline of a cell, as the comparison has it.

    Args:
        arm: The arm.
        baseline: What it is compared with.
        fraction: Fraction of the training data.
        schedule: How many times the base length both trained.
        mean: Arm minus baseline, in points of the cell's own score.
        low: Lower end of the 95% interval; None where there is none.
        high: Its upper end.
        p_value: Of no difference; None without an interval.
        p_map: The same adjusted for all differences of the map (Holm).
        relative: `relative_gap` of the two scores; None where it has no meaning.
        sources: What the interval is over: "2 seeds and 500 images".
        test: The difference on the test split; None without one.
        ahead: The arm with the better score; empty where they are level.
    """

    arm: str
    baseline: str
    fraction: float
    schedule: int
    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    p_map: float | None
    relative: float | None
    sources: str
    test: float | None
    ahead: str

    @property
    def shown(self) -> bool:
        """Return whether the arms differ, at 5% over all differences of the map."""
        return self.p_map is not None and self.p_map < 0.05

    @property
    def answer(self) -> str:
        """Return "pretrained ahead", "cannot tell" or "no interval"."""
        if self.p_map is None:
            return "no interval"
        return f"{self.ahead} ahead" if self.shown and self.ahead else "cannot tell"


@dataclass(frozen=True)
class MapCell:
    """One backbone on one data set.

    Args:
        backbone: Its name.
        data: The name of the data set in the map.
        recipe: The recipe that trains it.
        folder: The folder of the comparison, below that of the map.
        fractions: Fractions of the training data that there are to be.
        planned: How many runs there are to be.
        finished: How many of them are compared.
        problems: Why runs are not, each once.
        failed: Whether one of them failed, or what follows them: a figure, the report.
        task: The task, the monitored score, whether "max" or "min" of it is better, sizes and classes of the
            data, and what was held equal; empty without a comparison.
        scores: Of each arm and fraction.
        gaps: Of each arm and fraction.
    """

    backbone: str
    data: str
    recipe: str
    folder: str
    fractions: tuple[float, ...]
    planned: int
    finished: int
    problems: tuple[str, ...]
    failed: bool
    task: dict[str, Any]
    scores: tuple[Score, ...]
    gaps: tuple[Gap, ...]

    @property
    def name(self) -> str:
        """Return the name of the cell: "cifar10, packaged/vgg16"."""
        return f"{self.data}, {self.backbone}"

    @property
    def status(self) -> str:
        """Return "finished", "failed", "unfinished" or "not started"."""
        if self.failed:
            return "failed"
        if self.finished >= self.planned:
            return "finished"
        return "unfinished" if self.finished or self.problems else "not started"

    @property
    def progress(self) -> str:
        """Return the status, and how many runs are finished: "failed, 6 of 8 runs finished"."""
        if self.status in ("finished", "not started"):
            return self.status
        return f"{self.status}, {self.finished} of {self.planned} runs finished"

    @property
    def state(self) -> str:
        """Return the status with the reasons: "failed, 6 of 8 runs finished: ..."."""
        reasons = f": {'; '.join(self.problems)}" if self.problems else ""
        return f"{self.progress}{reasons}"

    def gap(self, arm: str, baseline: str, fraction: float) -> Gap | None:
        """Return the difference of an arm to a baseline at a fraction, or None."""
        panel = (arm, baseline, fraction)
        return next((g for g in self.gaps if (g.arm, g.baseline, g.fraction) == panel), None)

    def score(self, arm: str, fraction: float) -> Score | None:
        """Return the score of an arm at a fraction, or None."""
        return next((s for s in self.scores if (s.arm, s.fraction) == (arm, fraction)), None)


@dataclass(frozen=True)
class TransferMap:
    """Every cell that a map is to hold, with what is known of it.

    Args:
        cells: In the order of the file.
        cost: Seconds, speed and memory of each arm, fraction and schedule of each cell: what was measured,
            apart from all that is the same in every repetition.
    """

    cells: tuple[MapCell, ...]
    cost: tuple[dict[str, Any], ...]

    @property
    def backbones(self) -> list[str]:
        """Return the backbones, in the order of the file."""
        return list(dict.fromkeys(cell.backbone for cell in self.cells))

    @property
    def data(self) -> list[str]:
        """Return the data sets, in the order of the file."""
        return list(dict.fromkeys(cell.data for cell in self.cells))

    @property
    def panels(self) -> list[tuple[str, str, float]]:
        """Return arm, baseline and fraction of each heat map, small fractions first."""
        keys = {(gap.arm, gap.baseline, gap.fraction) for cell in self.cells for gap in cell.gaps}
        return sorted(keys, key=lambda key: (key[0] != "pretrained", key))

    def cell(self, backbone: str, data: str) -> MapCell | None:
        """Return a cell, or None where the map is not to hold it."""
        return next((c for c in self.cells if (c.backbone, c.data) == (backbone, data)), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `map.json`: the same for the same runs, without anything measured."""
        table = {
            "schema": 1,
            "backbones": self.backbones,
            "data": self.data,
            "cells": [
                {"status": cell.status, **to_plain(cell)}
                | {"gaps": [{**to_plain(gap), "answer": gap.answer} for gap in cell.gaps]}
                for cell in self.cells
            ],
        }
        content: dict[str, Any] = printable_values(to_plain(table, finite))
        return content

    def sentences(self) -> list[str]:
        """Return what the map shows: how many cells are there, and which arm is ahead in how many."""
        done = [cell for cell in self.cells if cell.status == "finished"]
        lines = [f"{len(done)} of {len(self.cells)} cells are finished."]
        for arm, baseline, fraction in self.panels:
            gaps = [gap for cell in self.cells if (gap := cell.gap(arm, baseline, fraction)) is not None]
            counts = {
                f"{arm} is ahead in": sum(g.shown and g.ahead == arm for g in gaps),
                f"{baseline} in": sum(g.shown and g.ahead == baseline for g in gaps),
                "cannot tell in": sum(g.answer == "cannot tell" for g in gaps),
                "no interval in": sum(g.answer == "no interval" for g in gaps),
            }
            known = ", ".join(f"{text} {n}" for text, n in counts.items() if n or " is ahead " in text)
            where = f"of {len(gaps)} cells ({arm} against {baseline})"
            lines.append(f"With {percent(fraction)} of the data: {known} {where}.")
        return lines

    def biggest(self) -> str:
        """Return a sentence on where an arm is furthest ahead, relative to the better score."""
        shown = [(cell, gap) for cell in self.cells for gap in cell.gaps if gap.shown]
        gaps = [(cell, gap) for cell, gap in shown if gap.relative]
        if not shown:
            return "In no cell is a difference shown."
        if not gaps:
            return "Differences are shown, but of scores below zero, which have no fraction to compare."
        cell, gap = max(gaps, key=lambda pair: abs(pair[1].relative or 0.0))
        lead = f"{gap.mean:+.3f}, {100 * abs(gap.relative or 0.0):.0f}% of the better score"
        where = f"on {cell.data} with {percent(gap.fraction)} of the data ({cell.backbone})"
        return f"{capitalized(gap.ahead)} is furthest ahead {where}: {lead}."


def relative_gap(first: float, second: float, mode: str) -> float | None:
    """Return how much of the better score the worse one lacks: above 0 where the first is better, -1 to 1.

    Scores of different tasks have no common unit; this is a fraction of each cell's own score, and turns its
    sign where the arms change places. None where a score is below zero: there a fraction has no meaning.

    Args:
        first: A score.
        second: Another.
        mode: Whether "max" or "min" is better.
    """
    if not (math.isfinite(first) and math.isfinite(second)) or min(first, second) < 0:
        return None
    largest = max(first, second)
    gap = (first - second) / largest if largest else 0.0
    return gap if mode == "max" else -gap
