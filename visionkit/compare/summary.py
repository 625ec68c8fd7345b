"""The text of a comparison: headline sentences, and tables of scores, differences and costs."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable

from visionkit.compare.comparison import ArmDifference, Cell, Comparison
from visionkit.compare.curves import ImagesToReach
from visionkit.compare.run_record import repeat_word, runs_of
from visionkit.compare.sentences.evidence_text import (
    PAIRS_NOTE,
    evidence_on,
    evidence_rows,
    evidence_sentences,
    interval_text,
    pair_rows,
    pair_sentences,
)
from visionkit.compare.sentences.number_text import capitalized as _name
from visionkit.compare.sentences.number_text import count_text, format_difference, format_statistics
from visionkit.compare.sentences.number_text import percent as _percent
from visionkit.compare.sentences.schedule_text import schedule_rows, schedule_sentences
from visionkit.compare.statistics import Difference, SeedStatistics
from visionkit.printable import printable

__all__ = [
    "WEIGHTS_NOTE",
    "fraction_title",
    "headline",
    "low_data_rows",
    "metric_label",
    "print_summary",
    "summary_rows",
    "summary_text",
]


WEIGHTS_NOTE = (
    "(last): the weights at the end of training; (best): those of the best validation, in best.ckpt"
)
FOLDS_NOTE = (
    "Folds count as seeds do: runs are paired by seed and fold. The folds share training images, so that the "
    "intervals are somewhat too narrow (Nadeau and Bengio, 2003)."
)


def headline(comparison: Comparison) -> list[str]:
    """Return the result in sentences: which arm wins, by how much, how early, with how little data.

    Args:
        comparison: The runs; each arm is compared with the baseline at the longest schedule and the largest
            fraction that both have.
    """
    sentences = []
    whole, comparison = comparison, comparison.at(comparison.longest)
    if all(record.unscored for record in comparison.records):
        where = comparison.data.get("name", "the data")
        return [
            f"Nothing to score on {where}: no run has a {comparison.monitor}.",
            *dict.fromkeys(f"{record.folder.name}: {record.unscored}" for record in comparison.records),
        ]
    for arm in comparison.arms[:-1]:
        contrast = next((c for c in reversed(comparison.contrasts) if c.arm == arm), None)
        if contrast is None:
            sentences.append(f"{_name(arm)} and {comparison.arms[-1]} share no fraction: nothing to compare.")
            continue
        sentences += [_verdict(comparison, contrast), *evidence_sentences(comparison, contrast)]
        sentences += _images_sentences(comparison, contrast)
        sentences += _low_data_sentences(comparison, arm)
    sentences += pair_sentences(comparison)
    sentences += schedule_sentences(whole)
    if len(comparison.arms) == 1:
        cell = comparison.cells[-1]
        score = format_statistics(cell.metrics[comparison.monitor])
        where = f"{comparison.data.get('name', 'the data')} ({_runs(comparison, len(cell.seeds))})"
        label = metric_label(comparison, comparison.monitor)
        sentences.append(f"One arm only: {cell.arm} reads {label} {score} on {where}.")
        sentences.append("Run the other init to compare.")
    if any(record.fold is not None for record in comparison.records):
        sentences.append(FOLDS_NOTE)
    early = [record.folder.name for record in whole.records if record.stopped_early]
    if early:
        count = f"{len(early)} of {len(whole.records)} runs"
        sentences.append(f"Stopped early, before the planned length: {count} ({', '.join(early)}).")
    return sentences


def summary_rows(comparison: Comparison, fraction: float) -> list[list[str]]:
    """Return the table of one fraction: a header, then a row a quantity; columns are arms and differences.

    Of runs of different length it is of the longest that both arms have.

    Args:
        comparison: The runs.
        fraction: One of `comparison.fractions`.
    """
    comparison = comparison.at(comparison.longest)
    arms = [arm for arm in comparison.arms if comparison.cell(arm, fraction)]
    cells = [cell for arm in arms if (cell := comparison.cell(arm, fraction)) is not None]
    contrasts = [c for c in comparison.contrasts if c.fraction == fraction]
    rows = [["", *arms, *(f"{c.arm} - {c.baseline}" for c in contrasts)]]
    names = list(dict.fromkeys(name for cell in cells for name in cell.metrics))
    names.sort(key=lambda name: name != comparison.monitor)
    for name in names:
        values = [format_statistics(cell.metrics.get(name)) for cell in cells]
        label = metric_label(comparison, name)
        rows.append([label, *values, *(format_difference(c.metrics.get(name)) for c in contrasts)])
        if name == comparison.monitor and any(name in cell.best for cell in cells):
            values = [format_statistics(cell.best.get(name)) for cell in cells]
            rows.append(
                [f"{name} (best)", *values, *(format_difference(c.best.get(name)) for c in contrasts)]
            )
        rows += evidence_rows(comparison, contrasts, name, blanks=len(arms))
    for contrast in contrasts:
        rows.append(_images_row(contrast, arms, len(contrasts)))
        if contrast.lead is not None:  # a single evaluation has none
            lead, blank = f"{contrast.lead:+.3f}", ["" for _ in arms]
            rows.append(
                ["mean lead over training", *blank, *(lead if c is contrast else "" for c in contrasts)]
            )
    fill = ["" for _ in contrasts]
    rows.append(["seconds of training", *(_measure(cell.seconds, 0) for cell in cells), *fill])
    rows.append(["images/s", *(_measure(cell.images_per_second, 0) for cell in cells), *fill])
    rows.append(["peak memory, MB", *(_measure(cell.peak_memory_mb, 0) for cell in cells), *fill])
    rows.append(["seeds", *(_each(cell.seeds) for cell in cells), *fill])
    if any(fold is not None for cell in cells for fold in cell.folds):
        rows.append(
            ["folds", *(_each(fold for fold in cell.folds if fold is not None) for cell in cells), *fill]
        )
    early = [_stopped_early(comparison, cell) for cell in cells]
    return [*rows, ["stopped early", *early, *fill]] if any(early) else rows


def _stopped_early(comparison: Comparison, cell: Cell) -> str:
    runs = runs_of(comparison.records, cell.arm, cell.fraction)
    early = [(run, "" if run.fold is None else f", fold {run.fold}") for run in runs if run.stopped_early]
    return "; ".join(f"seed {run.seed}{fold}: {run.stopped_early}" for run, fold in early)


def metric_label(comparison: Comparison, name: str) -> str:
    """Return the label of a metric's row, with the weights that it is of: "val/top1 (last)"."""
    return f"{name} ({comparison.weights_of(name.partition('/')[0])})"


def low_data_rows(comparison: Comparison) -> list[list[str]]:
    """Return the low-data table: a header, then a row a fraction with the monitored metric of every arm."""
    gaps = [f"{arm} - {comparison.arms[-1]}" for arm in comparison.arms[:-1]]
    rows = [["training data", *comparison.arms, *gaps]]
    for fraction in comparison.fractions:
        cells = [comparison.cell(arm, fraction) for arm in comparison.arms]
        sizes = [cell.train_size for cell in cells if cell is not None and cell.train_size]
        contrasts = [comparison.contrast(arm, fraction) for arm in comparison.arms[:-1]]
        rows.append(
            [
                f"{_percent(fraction)}{f' ({sizes[0]:,})' if sizes else ''}",
                *(_score(comparison, cell) for cell in cells),
                *(format_difference(c.metrics[comparison.monitor]) if c else "-" for c in contrasts),
            ]
        )
    return rows


def summary_text(comparison: Comparison, *, width: int = 100, color: bool = False) -> str:
    """Return tables and headline as text.

    Args:
        comparison: The runs.
        width: Columns of the terminal.
        color: Whether to emit terminal colours.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color, highlight=False, emoji=False)
    whole, comparison = comparison, comparison.at(comparison.longest)
    tables = [(fraction_title(comparison, f), summary_rows(comparison, f)) for f in comparison.fractions]
    if len(whole.schedules) > 1:
        tables += [
            (
                f"Score over schedules, {_percent(row.fraction)} of the training data",
                schedule_rows(whole, row),
            )
            for row in whole.over_schedules
        ]
    for title, (header, *rows) in tables:
        table = Table(title=title, title_justify="left", box=box.SIMPLE)
        for idx, name in enumerate(header):
            table.add_column(Text(name), justify="left" if idx == 0 else "right")
        for row in rows:
            style = "bold" if row[0] == metric_label(comparison, comparison.monitor) else ""
            table.add_row(*map(Text, row), style=style)
        console.print(table)
    header, *rows = pair_rows(comparison)
    if rows:
        table = Table(*header, title=f"Pairs of arms. {PAIRS_NOTE}", title_justify="left", box=box.SIMPLE)
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    for sentence in headline(whole):
        console.print(Text(sentence))
    console.print(Text("mean ± sample sd over seeds; [95% interval of the difference]", style="dim"))
    console.print(Text(WEIGHTS_NOTE, style="dim"))
    for item in comparison.skipped:
        console.print(Text(f"left out: {item['folder']}: {item['reason']}"))
    for note in (*(f"not held equal: {text}" for text in comparison.allowed), *comparison.notes):
        console.print(Text(note))
    for notice in comparison.notices():
        console.print(Text(f"data: {notice}"))
    return printable(out.getvalue())


def print_summary(comparison: Comparison) -> None:
    """Print tables and headline on standard output, coloured on a terminal."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else 100
    sys.stdout.write(summary_text(comparison, width=width, color=terminal))


def format_images(reach: ImagesToReach) -> str:
    """Return the number of images at which a score was reached: "1,200", "at most 992" or "not reached"."""
    if reach.images is None:
        return "not reached"
    count = f"{reach.images:,.0f}"
    return f"at most {count}" if reach.bound == "at most" else count


def fraction_title(comparison: Comparison, fraction: float) -> str:
    """Return the title of one fraction's table: data, percentage, images."""
    sizes = [cell.train_size for cell in comparison.cells if cell.fraction == fraction and cell.train_size]
    images = f", {sizes[0]:,} training images" if sizes else ""
    length = "" if comparison.schedules == (1,) else f", schedule {comparison.longest}x"
    return f"{comparison.data.get('name', 'data')}, {_percent(fraction)} of the training data{images}{length}"


def _verdict(comparison: Comparison, contrast: ArmDifference) -> str:
    gap = contrast.metrics[comparison.monitor]
    ahead, behind = _order(comparison, contrast)
    evidence = evidence_on(comparison, contrast.arm, contrast.fraction)
    by_images = evidence is not None and evidence.images > 0
    verdict, caveat = f"{_name(ahead)} is ahead of {behind}", ""
    if gap.mean == 0:
        verdict = f"{_name(ahead)} and {behind} are level"
    elif evidence is not None and by_images:
        verb = "{} beats {}" if evidence.shown else "Cannot tell whether {} beats {}"
        verdict = verb.format(_name(ahead) if evidence.shown else ahead, behind)
    elif gap.shown:
        verdict = f"{_name(ahead)} beats {behind}"
    elif gap.pairing == "single":
        caveat = ", though with too few seeds to tell from chance"
    else:
        caveat = ", though these seeds do not show that it is better"
    where = comparison.data.get("name", "this data")
    where += "" if contrast.fraction == 1 else f" with {_percent(contrast.fraction)} of the training data"
    first, second = (_score(comparison, comparison.cell(arm, contrast.fraction)) for arm in (ahead, behind))
    interval = _interval(comparison, gap)
    if evidence is not None and by_images:
        interval = f" ({interval_text(evidence, sign=1.0 if gap.mean > 0 else -1.0)})"
    size = f" by {abs(gap.mean):.3f}{interval}" if gap.mean else ""
    label = metric_label(comparison, comparison.monitor)
    return f"{verdict} on {where}{caveat}: {label} {first} against {second}{size and ',' + size}."


def _order(comparison: Comparison, contrast: ArmDifference) -> tuple[str, str]:
    sign = 1 if comparison.mode == "max" else -1
    names = (contrast.arm, contrast.baseline)
    return names if sign * contrast.metrics[comparison.monitor].mean >= 0 else names[::-1]


def _interval(comparison: Comparison, gap: Difference) -> str:
    if gap.low is None or gap.high is None:
        return ""
    how = f"paired over {_runs(comparison, gap.n)}" if gap.pairing == "paired" else "seeds not paired"
    # With the sign of the arm that is ahead, like the number before it.
    low, high = (gap.low, gap.high) if gap.mean > 0 else (-gap.high, -gap.low)
    return f" (95% interval {low:.3f} to {high:.3f}, {how})"


def _images_sentences(comparison: Comparison, contrast: ArmDifference) -> list[str]:
    ahead, behind = _order(comparison, contrast)
    reaches = {contrast.arm: contrast.arm_reaches, contrast.baseline: contrast.baseline_reaches}
    sooner, later = reaches[ahead], reaches[behind]
    cell = comparison.cell(behind, contrast.fraction)
    if cell is None or not cell.curve.images or sooner.images is None:
        return []
    total = cell.curve.images[-1]
    first = sooner.bound == "at most"
    times = total / sooner.images if sooner.images else 0.0
    fewer = f" ({'at least ' if first else ''}{times:.1f} times fewer)" if times >= 1.05 else ""
    when = "by its first evaluation, after" if first else "after"
    when += f" {sooner.images:,.0f} of {total:,} images{fewer}"
    sentences = [f"{_name(ahead)} reaches the final score of {behind} {when}."]
    if later.images is None:
        sentences.append(f"{_name(behind)} does not reach the final score of {ahead} in {total:,} images.")
    return sentences


def _low_data_sentences(comparison: Comparison, arm: str) -> list[str]:
    result = next((item for item in comparison.low_data if item.arm == arm), None)
    if result is None:
        return []
    largest = _percent(comparison.fractions[-1])
    if result.matches is None:
        sentences = [f"With no share of the data does {arm} match {result.baseline} with {largest}."]
    else:
        about = f"{'at most' if result.is_upper_bound else 'about'} {_percent(result.matches)}"
        sentences = [f"{_name(arm)} with {about} of the data matches {result.baseline} with {largest}."]
    few = ", ".join(map(_percent, result.unshown))
    if result.meets is None and not few:
        sentences.append(f"The arms do not meet: {arm} is better at every share up to {largest}.")
    elif result.meets is None:
        sentences.append(f"The arms do not meet up to {largest}, though at {few} no difference is shown.")
    elif result.meets == comparison.fractions[0]:
        sentences.append(f"At no share of the data is {arm} shown to be better.")
    else:
        sentences.append(f"The arms meet: from {_percent(result.meets)} on, {arm} is not shown to be better.")
    return sentences


def _images_row(contrast: ArmDifference, arms: list[str], gaps: int) -> list[str]:
    by_arm = {contrast.arm: contrast.arm_reaches, contrast.baseline: contrast.baseline_reaches}
    cells = [format_images(by_arm[arm]) if arm in by_arm else "" for arm in arms]
    return ["images to reach the other's score", *cells, *("" for _ in range(gaps))]


def _score(comparison: Comparison, cell: Cell | None) -> str:
    return format_statistics(cell.metrics.get(comparison.monitor)) if cell else "-"


def _measure(value: SeedStatistics | None, digits: int) -> str:
    return format_statistics(value, digits)


def _runs(comparison: Comparison, count: int) -> str:
    """Return a number of runs of an arm by what tells them apart: "3 seeds", "5 folds"."""
    return count_text(count, repeat_word(comparison.records))


def _each(numbers: Iterable[int]) -> str:
    return " ".join(str(number) for number in sorted(set(numbers)))
