"""The figures of a report, in its order: a new one is a module in `figures/` and a row here."""

from __future__ import annotations

from visionkit.compare.report.figures import (
    attention,
    class_scores,
    confusion_matrix,
    data_card,
    embedding,
    filters,
    gap_bars,
    precision_recall,
    reliability,
    roc,
    samples,
)
from visionkit.compare.report.figures.curves import (
    learning_curves,
    loss_curves,
    low_data_curve,
    rate_curves,
    schedule_curves,
)
from visionkit.compare.report.sections import ReportFigure

__all__ = ["FIGURES"]

# Rows of the same title share a section.
FIGURES = (
    ReportFigure("Learning curves", learning_curves.applies, learning_curves.draw),
    ReportFigure("Learning curves", loss_curves.applies, loss_curves.draw),
    ReportFigure("Learning curves", rate_curves.applies, rate_curves.draw),
    ReportFigure("With longer training", schedule_curves.applies, schedule_curves.draw),
    ReportFigure("With less data", low_data_curve.applies, low_data_curve.draw),
    ReportFigure("The learning rates", rate_curves.has_choices, rate_curves.draw_choices),
    ReportFigure("The gap at the end", gap_bars.applies, gap_bars.draw),
    ReportFigure("Nearest neighbours", embedding.has_sheets, embedding.draw_sheets),
    ReportFigure("Are these two the same?", embedding.has_curves, embedding.draw_curves),
    ReportFigure("Are these two the same?", embedding.has_pairs, embedding.draw_pairs),
    ReportFigure("Sample predictions", samples.applies, samples.draw),
    ReportFigure("Where it looked, word by word", attention.applies, attention.draw),
    ReportFigure("The first filters", filters.applies, filters.draw),
    ReportFigure("By class", precision_recall.applies, precision_recall.draw),
    ReportFigure("By class", confusion_matrix.applies, confusion_matrix.draw),
    ReportFigure("By class", class_scores.applies, class_scores.draw),
    ReportFigure("Ranking and reliability of the probabilities", roc.applies, roc.draw),
    ReportFigure("Ranking and reliability of the probabilities", reliability.applies, reliability.draw),
    ReportFigure("The data", data_card.applies, data_card.draw),
)
