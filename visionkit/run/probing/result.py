"""The result of probes: scores with their intervals, differences, and the table as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from visionkit.compare.sentences.number_text import percent

__all__ = [
    "ProbeCell",
    "ProbeChoice",
    "ProbeDifference",
    "ProbeResult",
    "ProbeScore",
    "difference_rows",
    "level_rows",
]

Interval = tuple[float, float]


@dataclass(frozen=True)
class ProbeScore:
    """The fraction of images whose class is right.

    Args:
        values: Of each seed.
        mean: Their mean.
        seed_interval: 95% interval for other seeds (Student's t); None with one.
        image_interval: 95% interval for other images like those scored, of the first seed (bootstrap); None
            with one image.
    """

    values: tuple[float, ...]
    mean: float
    seed_interval: Interval | None
    image_interval: Interval | None

    def __str__(self) -> str:
        text = f"{self.mean:.3f}"
        if self.seed_interval is not None:
            text += f" ±{self.seed_interval[1] - self.mean:.3f}"
        if self.image_interval is not None:
            text += f" [{self.image_interval[0]:.3f}, {self.image_interval[1]:.3f}]"
        return text


@dataclass(frozen=True)
class ProbeCell:
    """The probes of one level at one fraction.

    Args:
        backbone: The network; "pixels" for none.
        init: Its weights; empty for pixels.
        level: A reduction, "pooled" or "pixels".
        dim: Number of features.
        fraction: Fraction of the training images.
        images: How many that are.
        linear: Score of the linear classifier.
        neighbors: Score of the nearest neighbours.
        strengths: The strength of regularisation of each seed.
        losses: Cross-entropy of each seed on the held-out folds of the training images.
        at_end: Seeds whose strength is the strongest or the weakest that was tried.
    """

    backbone: str
    init: str
    level: str
    dim: int
    fraction: float
    images: int
    linear: ProbeScore
    neighbors: ProbeScore
    strengths: tuple[float, ...]
    losses: tuple[float, ...]
    at_end: int


@dataclass(frozen=True)
class ProbeDifference:
    """The score of one linear classifier minus that of another, on the same images and seeds.

    Args:
        backbone: The network.
        fraction: Fraction of the training images.
        first: Init and level of the one.
        second: Init and level of the other.
        mean: The difference.
        low: Lower end of its 95% interval for other seeds and images; None with one image.
        high: Upper end.
    """

    backbone: str
    fraction: float
    first: tuple[str, str]
    second: tuple[str, str]
    mean: float
    low: float | None
    high: float | None

    @property
    def shown(self) -> bool:
        """Return whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        ends = "" if self.low is None else f" [{self.low:+.3f}, {self.high:+.3f}]"
        return f"{self.mean:+.3f}{ends}"


@dataclass(frozen=True)
class ProbeChoice:
    """The level that the training images choose: that of the lowest loss on their held-out folds.

    Args:
        backbone: The network.
        init: Its weights.
        fraction: Fraction of the training images.
        levels: The level of each seed.
        linear: Score of the linear classifier of that level.
        minus_pooled: That score minus the pooled vector's; None where that was not probed.
    """

    backbone: str
    init: str
    fraction: float
    levels: tuple[str, ...]
    linear: ProbeScore
    minus_pooled: ProbeDifference | None


@dataclass(frozen=True)
class ProbeResult:
    """What `probe` returns.

    Args:
        data: Where the data set is.
        classes: Number of classes.
        train_images: Images of the training split.
        images: Images that were scored.
        units: Groups of them, or images, that count as independent.
        split: Their split: "test", or "val" where there is no test split.
        largest_class: Fraction of the scored images that are of the largest class.
        image_size: Side of the images that the networks saw.
        group_by: What kept near copies apart; empty: nothing.
        k: Nearest neighbours that vote.
        seeds: Seeds of the choice of images, the folds and the random weights.
        fractions: Fractions of the training images.
        weights: What the weights of each network are, by "backbone init".
        cells: By network, init, level and fraction.
        choices: Of each network with more than one level.
        differences: Trained minus random weights at each level; each level minus the pooled vector.
        notices: What was left out in reading the data set.
        seconds: How long it took.
    """

    data: str
    classes: int
    train_images: int
    images: int
    units: int
    split: str
    largest_class: float
    image_size: int
    group_by: str
    k: int
    seeds: tuple[int, ...]
    fractions: tuple[float, ...]
    weights: dict[str, str]
    cells: tuple[ProbeCell, ...]
    choices: tuple[ProbeChoice, ...]
    differences: tuple[ProbeDifference, ...]
    notices: tuple[str, ...]
    seconds: float

    @property
    def arms(self) -> list[tuple[str, str]]:
        """Network and init of each table, in order."""
        return list(dict.fromkeys((cell.backbone, cell.init) for cell in self.cells))

    @property
    def notes(self) -> list[str]:
        """What the numbers mean, and what they do not say."""
        half = "± half of the 95% t interval over seeds, " if len(self.seeds) > 1 else ""
        units = f"groups of {self.split} images" if self.units < self.images else f"{self.split} images"
        notes = [
            f"top-1 of {self.images:,} {self.split} images: mean of {len(self.seeds)} seeds, {half}"
            f"[95% bootstrap interval over {units}, seed {self.seeds[0]}]"
        ]
        if len(self.seeds) > 1 and 1.0 in self.fractions:
            notes.append(
                "at 100% every seed has the same training images: with trained weights its interval over "
                "seeds is that of the folds alone"
            )
        ends = sum(cell.at_end for cell in self.cells)
        if ends:
            notes.append(
                f"{ends} of {len(self.cells) * len(self.seeds)} fits chose the strongest or the weakest "
                "regularisation that was tried"
            )
        return notes

    def __str__(self) -> str:
        groups = f", grouped by {self.group_by}" if self.group_by else ""
        lines = [
            f"{self.data}: {self.train_images:,} training and {self.images:,} {self.split} images, "
            f"{self.classes} classes, the largest {self.largest_class:.3f} of the {self.split} images"
            f"{groups}",
            *(f"note: {text}" for text in self.notices),
        ]
        for backbone, init in self.arms:
            about = self.weights.get(f"{backbone} {init}", "")
            title = f"{backbone}, {init}: {about}, {self.image_size} pixels" if init else "pixels, 16x16"
            lines += ["", title, *_aligned(level_rows(self, backbone, init))]
        lines += ["", *self.notes, *self.answers, f"took {self.seconds:.0f} s"]
        return "\n".join(lines)

    @property
    def answers(self) -> list[str]:
        """What the levels come to: a line for each network, init and fraction."""
        lines = []
        for choice in self.choices:
            names = ", ".join(dict.fromkeys(choice.levels))
            gap = choice.minus_pooled
            minus = "" if gap is None else f"; minus pooled: {gap}"
            lines.append(
                f"{choice.backbone}, {choice.init}, {percent(choice.fraction)}: the training images choose "
                f"level {names}: {choice.linear.mean:.3f}{minus}"
            )
        return lines


def level_rows(result: ProbeResult, backbone: str, init: str) -> list[list[str]]:
    """Return the table of one network: a header, then a row a level and method, a column a fraction.

    Args:
        result: The result.
        backbone: The network; "pixels" for none.
        init: Its weights.
    """
    cells = [cell for cell in result.cells if (cell.backbone, cell.init) == (backbone, init)]
    images = {cell.fraction: cell.images for cell in cells}
    rows = [["level", *(f"{percent(f)} ({images[f]:,})" for f in result.fractions)]]
    for level in dict.fromkeys(cell.level for cell in cells):
        of = {cell.fraction: cell for cell in cells if cell.level == level}
        name = f"{level} ({of[result.fractions[0]].dim})"
        rows.append([name, *(str(of[f].linear) for f in result.fractions)])
        rows.append([f"  {result.k}-NN", *(str(of[f].neighbors) for f in result.fractions)])
    return rows


def difference_rows(result: ProbeResult) -> list[list[str]]:
    """Return the differences as a table: a header, then a row a pair, a column a fraction.

    Args:
        result: The result.
    """
    by_pair: dict[tuple[str, ...], dict[float, ProbeDifference]] = {}
    for each in result.differences:
        by_pair.setdefault((each.backbone, *each.first, *each.second), {})[each.fraction] = each
    rows = [["difference", *map(percent, result.fractions)]]
    for (backbone, init, level, other_init, other), gaps in by_pair.items():
        name = f"{backbone} {init} {level} minus {other if init == other_init else other_init}"
        rows.append([name, *(str(gaps[fraction]) for fraction in result.fractions)])
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
