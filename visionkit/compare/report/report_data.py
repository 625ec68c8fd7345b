"""What the report draws from: the comparison, and the predictions of one run of each arm."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from visionkit.compare.comparison import Comparison, arm_name
from visionkit.compare.data_tables import read_card
from visionkit.compare.report.predictions import read_curves, read_predictions
from visionkit.compare.run_record import RunRecord

__all__ = ["ReportData", "one_run_each"]


class ReportData:
    """A comparison, with the sample predictions of one run of each arm at the arm's largest fraction.

    Args:
        whole: The runs.

    Attributes:
        whole: The runs.
        comparison: Those of the longest schedule that both arms have, which most figures are of.
        name: The name of the data.
        runs: Arm to the run that its sample predictions are of; arms without predictions have none.
        rows: Arm to image id to the row of the predictions file.
        notes: What was left out of the predictions files.
    """

    def __init__(self, whole: Comparison) -> None:
        self.whole = whole
        self.comparison = comparison = whole.at(whole.longest)
        self.name = str(comparison.data.get("name", "data"))
        self.runs = {arm: run for arm, run in one_run_each(comparison) if run.result.get("predictions")}
        self.rows: dict[str, dict[str, dict[str, Any]]] = {}
        self.notes: list[str] = []
        for arm, run in self.runs.items():
            notes: list[str] = []
            rows = read_predictions(run.folder, run.result["predictions"], notes=notes)
            self.rows[arm] = {str(row["id"]): row for row in rows}
            self.notes += [f"{run.folder.name}: {note}" for note in notes]

    @cached_property
    def card(self) -> dict[str, Any]:
        """Return what the data are made of, as the first run that has it wrote it; empty where none has."""
        cards = (read_card(record.folder) for record in self.comparison.records)
        return next((card for card in cards if card), {})

    @property
    def samples_of(self) -> str:
        """Return which runs the sample predictions are of: seed, fraction and weights."""
        run = next(iter(self.runs.values()), None)
        if run is None:
            return ""
        length = "" if run.schedule == 1 else f", schedule {run.schedule}x"
        fold = "" if run.fold is None else f", fold {run.fold}"
        return f"seed {run.seed}{fold}, {100 * run.fraction:.3g}% of the training data{length}, val (last)"

    @property
    def classes(self) -> list[str]:
        """Return the names of the classes."""
        return [str(name) for name in self.comparison.data.get("classes") or ()]

    @cached_property
    def curves(self) -> dict[str, dict[str, Any]]:
        """Return arm to precision-recall curves and AP by class, for arms whose run has them."""
        curves = {arm: read_curves(run.folder) for arm, run in self.runs.items()}
        return {arm: table for arm, table in curves.items() if table}


def one_run_each(comparison: Comparison) -> list[tuple[str, RunRecord]]:
    """Return one run of each arm: the first at the arm's largest fraction."""
    runs = []
    for arm in comparison.arms:
        records = [record for record in comparison.records if arm_name(record.init) == arm]
        largest = max(record.fraction for record in records)
        runs.append((arm, next(record for record in records if record.fraction == largest)))
    return runs
