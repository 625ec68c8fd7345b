"""The figures of an evaluation: those that a run and its report draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure

from visionkit.compare.report.figures.class_bars import class_bars
from visionkit.compare.report.figures.confusion_matrix import MAX_SIZE, confusion_matrix
from visionkit.compare.report.figures.precision_recall import detection_figures
from visionkit.compare.report.plot_style import to_png
from visionkit.run.previews.callback import Preview, PreviewKind
from visionkit.run.previews.captioning import CaptionPreview
from visionkit.run.previews.classification import ClassPreview
from visionkit.run.previews.detection import BoxPreview, CurveFile
from visionkit.run.previews.embedding import NeighborPreview
from visionkit.run.previews.keypoints import KeypointPreview
from visionkit.run.previews.segmentation import MaskPreview

__all__ = ["draw_scores", "image_callbacks"]


def image_callbacks(
    kind: str, task: Any, classes: Sequence[str], folder: str | Path, *, split: str
) -> list[Callback]:
    """Return the callbacks that write the predictions, and the worst and some random images.

    Args:
        kind: The kind of the task.
        task: The task.
        classes: Names of its classes.
        folder: Where they write.
        split: What is evaluated.
    """
    if kind == "embedding":
        return [NeighborPreview(folder, classes, split=split)]
    if kind == "keypoints":
        return [Preview(folder, KeypointPreview(task.skeleton), split=split)]
    skeleton = getattr(task, "skeleton", None)
    previews: dict[str, PreviewKind] = {
        "classification": ClassPreview(classes),
        "detection": BoxPreview(classes, edges=skeleton.edges if skeleton else ()),
        "segmentation": MaskPreview(classes, ignore_index=getattr(task, "ignore_index", None) or 255),
        "captioning": CaptionPreview(),
    }
    curves: list[Callback] = [CurveFile(folder)] if kind == "detection" else []
    return [Preview(folder, previews[kind], split=split), *curves]


def draw_scores(
    task: Any, metrics: Mapping[str, float], classes: Sequence[str], folder: Path, *, title: str, arm: str
) -> list[Path]:
    """Draw what the task's scores have for each class; return the files.

    Args:
        task: The task, evaluated.
        metrics: Its scores by name.
        classes: Names of its classes.
        folder: Where the files go.
        title: What was scored.
        arm: The run's arm, for the legend.
    """
    charts = _charts(task, metrics, list(classes), title, arm)
    files = []
    for name, figure in charts:
        files.append(folder / f"{name}.png")
        to_png(figure, files[-1])
    return files


def _charts(
    task: Any, metrics: Mapping[str, float], classes: list[str], title: str, arm: str
) -> list[tuple[str, Figure]]:
    scores = getattr(task, "detection_scores", None)
    if scores is not None:
        ap = {name: value for name, value in scores.per_class.items() if value >= 0}
        table = {"curves": scores.curves, "ap": ap}
        return detection_figures({arm: table}, data=title, note="IoU 0.5")
    charts = []
    counts = getattr(task, "confusion", None)
    if counts is not None and len(classes) > 1:
        totals = counts.sum(dim=1).tolist()
        if len(classes) <= MAX_SIZE:
            charts.append(("confusion", confusion_matrix(counts.numpy(), classes, title=title)))
        recall = {name: int(counts[i, i]) / totals[i] for i, name in enumerate(classes) if totals[i]}
        charts += _bars("recall", "recall", recall, title, arm)
    precision = getattr(getattr(task, "scores", None), "average_precision", None)
    if precision is not None:
        known = {name: value for name, value in zip(classes, precision.tolist()) if value == value}
        charts += _bars("average-precision", "average precision", known, title, arm)
    for kind, label, what in (("iou", "IoU", "class"), ("pck", "PCK", "point"), ("pcp", "PCP", "limb")):
        by_name = {
            name.partition(f"/{kind}/")[2]: value
            for name, value in metrics.items()
            if f"/{kind}/" in name and value == value
        }
        charts += _bars(kind, label, by_name, title, arm, what=what)
    return charts


def _bars(
    name: str, label: str, values: Mapping[str, float], title: str, arm: str, *, what: str = "class"
) -> list[tuple[str, Figure]]:
    if not values:
        return []
    heading = f"{label[:1].upper()}{label[1:]} by {what}, {title}"
    return [(name, class_bars({arm: values}, title=heading, label=label))]
