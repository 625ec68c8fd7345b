"""Sentences and tables on how sure a comparison is, and on what it would take to be surer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from visionkit.compare.comparison import ArmDifference, Comparison
from visionkit.compare.evidence import Evidence
from visionkit.compare.sentences.number_text import count_text, plural

__all__ = [
    "PAIRS_NOTE",
    "evidence_label",
    "evidence_on",
    "evidence_rows",
    "evidence_sentences",
    "interval_text",
    "needed_text",
    "pair_rows",
    "pair_sentences",
    "source_text",
    "sources_text",
]

PAIRS_NOTE = (
    "p: of no difference, adjusted for the number of pairs (Holm, 1979); pairs differ where it is below "
    "0.05. The intervals are of each pair alone."
)
_SPLITS = {"val": "validation", "test": "test"}


def source_text(evidence: Evidence) -> str:
    """Return what an interval is over: "over 3 seeds and 500 test images"; empty where nothing is known."""
    seeds = count_text(evidence.seeds, evidence.repeat) if evidence.seed_interval else ""
    if not evidence.images:
        return f"over {seeds}" if seeds else ""
    if seeds:
        return f"over {seeds} and {_images(evidence)}"
    return f"over {_images(evidence)}, one {evidence.repeat}"


def interval_text(evidence: Evidence, *, sign: float = 1.0) -> str:
    """Return "95% interval 0.150 to 0.212, over 3 seeds"; empty where nothing is known.

    Args:
        evidence: On a pair of arms.
        sign: -1 turns the difference around.
    """
    if evidence.low is None or evidence.high is None:
        return ""
    low, high = sorted((sign * evidence.low, sign * evidence.high))
    return f"95% interval {low:.3f} to {high:.3f}, {source_text(evidence)}"


def sources_text(evidence: Evidence, *, sign: float = 1.0) -> str:
    """Return a sentence that tells the seeds' part of the error from the images'; empty without images.

    Args:
        evidence: On a pair of arms.
        sign: -1 turns the difference around.
    """
    if evidence.image_interval is None or evidence.image_variance is None:
        return ""
    images = "{:.3f} to {:.3f}".format(*sorted(sign * value for value in evidence.image_interval))
    if evidence.seed_interval is None or evidence.seed_variance is None:
        return "One seed: the interval is for other images and these weights; another seed may move it."
    seeds = "{:.3f} to {:.3f}".format(*sorted(sign * value for value in evidence.seed_interval))
    total = evidence.seed_variance + evidence.image_variance
    percent = 100 * evidence.seed_variance / total if total else 0.0
    words = plural(evidence.repeat)
    part = f" The {words} are {percent:.0f}% of the squared error." if total else ""
    others = "Other seeds on these images" if evidence.repeat == "seed" else f"Other {words}"
    return f"{others}: {seeds}; other images with these weights: {images}.{part}"


def needed_text(evidence: Evidence) -> str:
    """Return what it would take to show a difference of this size; empty where it shows."""
    if evidence.shown:
        return ""
    if evidence.p_value is None:
        return "One seed gives no interval: add seeds."
    if not evidence.mean:
        return ""
    options = []
    if evidence.needed_seeds is not None:
        # Folds cannot be more of the same: their number is the cut itself. More seeds give more pairs.
        words = "seeds" if evidence.repeat == "seed" else "pairs of seed and fold"
        options.append(f"about {evidence.needed_seeds} {words} (now {evidence.seeds})")
    if evidence.needed_images is not None:
        split = _SPLITS.get(evidence.metric.partition("/")[0], "")
        needed = _rounded_up(evidence.needed_images)
        options.append(f"about {needed:,} {split} images (now {evidence.images:,})")
    if evidence.p_value < 0.05:
        return "It would show alone, but not as one of so many pairs."
    if options:
        return f"A difference of this size would take {' or '.join(options)} to show in 4 of 5 comparisons."
    alone = "more seeds alone nor more images alone" if evidence.images else "1,000 seeds nor fewer"
    return f"Neither {alone} would show a difference of this size."


def evidence_on(comparison: Comparison, arm: str, fraction: float, metric: str = "") -> Evidence | None:
    """Return how sure the difference of an arm to the baseline is, or None.

    Args:
        comparison: The runs.
        arm: The arm.
        fraction: Fraction of the training data.
        metric: A score with its split; the monitored one if empty.
    """
    key = (metric or comparison.monitor, arm, comparison.arms[-1], fraction)
    of = {(each.metric, each.first, each.second, each.fraction): each for each in comparison.evidence}
    return of.get(key)


def evidence_sentences(comparison: Comparison, contrast: ArmDifference) -> list[str]:
    """Return where the error comes from, what would show the difference, and the same of the test split.

    Args:
        comparison: The runs.
        contrast: An arm and the baseline, at one fraction.
    """
    evidence = evidence_on(comparison, contrast.arm, contrast.fraction)
    if evidence is None or evidence.p_value is None:
        return []
    # As in the verdict before them, differences have the sign of the arm that is ahead.
    sentences = [sources_text(evidence, sign=1.0 if evidence.mean > 0 else -1.0), needed_text(evidence)]
    sentences += [f"Other images are not in the interval: {evidence.missing}."] if evidence.missing else []
    name = f"test/{comparison.monitor.partition('/')[2]}"
    tested = evidence_on(comparison, contrast.arm, contrast.fraction, name)
    if tested is not None and tested is not evidence and tested.images:
        gap = f"{contrast.arm} - {contrast.baseline} {tested.mean:+.3f} ({interval_text(tested)})"
        answer = "shown" if tested.shown else "cannot tell"
        sentences.append(f"On the test split, {name} ({comparison.weights_of('test')}): {gap}: {answer}.")
    return [sentence for sentence in sentences if sentence]


def evidence_rows(
    comparison: Comparison, contrasts: Sequence[ArmDifference], metric: str, *, blanks: int = 0
) -> list[list[str]]:
    """Return the row of differences whose intervals cover images too, if there is one.

    Args:
        comparison: The runs.
        contrasts: The differences to the baseline, at one fraction.
        metric: The score.
        blanks: Empty cells between the label and the differences.
    """
    known = [evidence_on(comparison, c.arm, c.fraction, metric) for c in contrasts]
    if not any(each is not None and each.images for each in known):
        return []
    texts = [
        "-" if each is None or each.low is None else f"{each.mean:+.3f} [{each.low:+.3f}, {each.high:+.3f}]"
        for each in known
    ]
    return [[evidence_label(comparison, metric), *("" for _ in range(blanks)), *texts]]


def evidence_label(comparison: Comparison, metric: str) -> str:
    """Return the label of the row whose intervals cover images too: "val/top1, seeds and images"."""
    one = all(each.seed_interval is None for each in comparison.evidence if each.metric == metric)
    words = {plural(each.repeat) for each in comparison.evidence if each.metric == metric}
    return f"{metric}, {'images' if one else f'{min(words)} and images'}"


def pair_rows(comparison: Comparison) -> list[list[str]]:
    """Return the table of pairs: a header, then a row for each score, fraction and pair of arms.

    Two arms are one pair, which the other tables have: there is no row then.

    Args:
        comparison: The runs.
    """
    rows = [["pair", "score", "data", "difference", "95% interval", "p (Holm)", "differ"]]
    for each in comparison.evidence if len(comparison.arms) > 2 else ():
        known = each.low is not None and each.high is not None
        rows.append([
            f"{each.first} - {each.second}",
            each.metric,
            f"{100 * each.fraction:.3g}%",
            f"{each.mean:+.3f}",
            f"{each.low:+.3f} to {each.high:+.3f}" if known else "-",
            "-" if each.p_holm is None else "< 0.001" if each.p_holm < 0.001 else f"{each.p_holm:.3f}",
            "yes" if each.shown else "cannot tell",
        ])  # fmt: skip
    return rows


def pair_sentences(comparison: Comparison) -> list[str]:
    """Return which of more than two arms differ in the monitored score, at the largest fraction.

    Args:
        comparison: The runs.
    """
    known = [each for each in comparison.evidence if each.metric == comparison.monitor]
    largest = [each for each in known if each.fraction == max(one.fraction for one in known)]
    if len(comparison.arms) < 3 or not largest:
        return []
    names = [f"{each.first} from {each.second}" for each in largest if not each.shown]
    differ = len(largest) - len(names)
    count = f"{differ} of {len(largest)} pairs of arms differ (Holm's correction, 5%)"
    return [f"{count}; cannot tell {', '.join(names)}." if names else f"{count}."]


def _images(evidence: Evidence) -> str:
    split = _SPLITS.get(evidence.metric.partition("/")[0], "")
    images = f"{evidence.images:,} {split} images".replace("  ", " ")
    return f"{images} in {evidence.units} groups" if evidence.grouped else images


def _rounded_up(number: int) -> int:
    """Return a number with two leading digits, not below it."""
    step: int = 10 ** max(0, len(str(number)) - 2)
    return math.ceil(number / step) * step
