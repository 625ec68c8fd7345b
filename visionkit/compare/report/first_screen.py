"""The first screen of a report: which arm won, by how much, how surely, on which data, of which weights."""

from __future__ import annotations

from typing import NamedTuple

from visionkit.compare.comparison import ArmDifference, Comparison
from visionkit.compare.evidence import Evidence
from visionkit.compare.run_record import repeat_word, runs_of
from visionkit.compare.sentences.evidence_text import evidence_on, interval_text
from visionkit.compare.sentences.number_text import count_text, format_statistics
from visionkit.compare.statistics import Difference
from visionkit.compare.summary import metric_label

__all__ = ["Tile", "tiles"]

# Names of monitored scores in words; others stand as they are.
_WORDS = {
    "top1": "top-1 accuracy", "map": "mean average precision", "miou": "mean IoU", "cider": "CIDEr",
    "mae": "mean absolute error", "r2": "R squared", "mask_map": "mean average precision of masks",
    "recall_at_1": "recall at 1", "map_at_r": "mean average precision at R",
    "keypoint_map": "mean average precision of keypoints (OKS)",
    "pair_auc": "area below the ROC of pairs", "pck": "fraction of right points (PCK)",
}  # fmt: skip
_SPLITS = {"val": "validation split", "test": "test split", "train": "training split"}
_WEIGHTS = {"last": "weights at the end of training", "best": "weights of the best validation"}


class Tile(NamedTuple):
    """One answer.

    Args:
        title: What it answers.
        value: The answer.
        note: More of it.
        arm: The arm that it is of, if it is of one.
    """

    title: str
    value: str
    note: str
    arm: str = ""


def tiles(comparison: Comparison) -> list[Tile]:
    """Return the answers of the first screen: data, score, that of each arm, differences, certainty."""
    fraction = comparison.contrasts[-1].fraction if comparison.contrasts else comparison.fractions[-1]
    made = [_data_tile(comparison, fraction), _score_tile(comparison)]
    for arm in comparison.arms:
        cell = comparison.cell(arm, fraction)
        if cell is None or comparison.monitor not in cell.metrics:
            continue
        best = cell.best.get(comparison.monitor)
        notes = [count_text(len(cell.seeds), repeat_word(comparison.records))]
        notes += [f"{format_statistics(best)} with the best weights"] if best is not None else []
        runs = runs_of(comparison.records, arm, fraction)
        early = sum(bool(run.stopped_early) for run in runs)
        notes += [f"{early} stopped early"] if early else []
        value = format_statistics(cell.metrics[comparison.monitor])
        made.append(Tile(arm, value, ", ".join(notes), arm))
    for contrast in (each for each in comparison.contrasts if each.fraction == fraction):
        made += _difference_tiles(comparison, contrast)
    return made


def _data_tile(comparison: Comparison, fraction: float) -> Tile:
    sizes = comparison.data.get("sizes") or {}
    train = next((cell.train_size for cell in comparison.cells if cell.fraction == fraction), None)
    counts = {"training": train, "validation": sizes.get("val"), "test": sizes.get("test")}
    known = [f"{count:,} {name}" for name, count in counts.items() if count]
    part = "" if fraction == 1 else f" ({100 * fraction:.3g}% of the training data)"
    classes = comparison.data.get("classes") or ()
    named = [f"{', '.join(known)} images{part}"] if known else []
    named += [f"{len(classes)} classes"] if len(classes) > 1 else []
    return Tile("Data", str(comparison.data.get("name", "data")), "; ".join(named))


def _score_tile(comparison: Comparison) -> Tile:
    split, _, name = comparison.monitor.partition("/")
    weights = " or ".join(_WEIGHTS[each] for each in comparison.weights_of(split).split(" or "))
    better = "higher" if comparison.mode == "max" else "lower"
    where = _SPLITS.get(split, split)
    note = f"{metric_label(comparison, comparison.monitor)}: {where}, {weights}; {better} is better"
    word = _WORDS.get(name, name)
    return Tile("Score", word[:1].upper() + word[1:], note)


def _difference_tiles(comparison: Comparison, contrast: ArmDifference) -> list[Tile]:
    gap = contrast.metrics[comparison.monitor]
    versus = f"{contrast.arm} less {contrast.baseline}"
    title = "Difference" if len(comparison.arms) == 2 else f"Difference, {versus}"
    best = contrast.best.get(comparison.monitor)
    more = "" if best is None else f"; {best.mean:+.3f} with the best weights"
    evidence = evidence_on(comparison, contrast.arm, contrast.fraction)
    value, note = certainty(gap, evidence, repeat=repeat_word(comparison.records))
    return [Tile(title, f"{gap.mean:+.3f}", f"{versus}{more}"), Tile("How sure", value, note)]


def certainty(gap: Difference, evidence: Evidence | None = None, *, repeat: str = "seed") -> tuple[str, str]:
    """Return how sure a difference is: in a word or two, and the reason.

    Args:
        gap: By seeds.
        evidence: By seeds and images, where the scores of images are known.
        repeat: What the runs of an arm are told apart by.
    """
    if evidence is not None and evidence.images:
        return ("Shown" if evidence.shown else "Cannot tell"), interval_text(evidence)
    if gap.low is None or gap.high is None:
        return "Not known", "one seed an arm gives no interval: add seeds"
    how = f"paired over {count_text(gap.n, repeat)}" if gap.pairing == "paired" else "seeds not paired"
    interval = f"95% interval {gap.low:+.3f} to {gap.high:+.3f}, {how}"
    return (
        ("Shown", f"{interval}: zero is outside")
        if gap.shown
        else ("Not shown", f"{interval}: zero is inside")
    )
