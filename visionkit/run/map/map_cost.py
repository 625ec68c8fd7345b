"""What a transfer map is going to cost here, from some measured steps of every cell."""

from __future__ import annotations

from visionkit.errors import InputError, RunError, first_line
from visionkit.printable import for_terminal
from visionkit.run.feedback.pace import duration
from visionkit.run.map.map_config import MapCell, MapConfig
from visionkit.run.storage.result import read_result
from visionkit.run.sweep.jobs import choose_jobs
from visionkit.run.sweep.plan import estimate, measure, total_seconds
from visionkit.run.sweep.rates import rate_runs, rates_of
from visionkit.run.sweep.runs import each_run

__all__ = ["print_cost"]


def print_cost(config: MapConfig) -> None:
    """Time some steps of each cell, and print its runs, images and hours, and those of the whole map.

    Args:
        config: The map.

    Raises:
        RunError: Cells cannot be trained at all; names each with the reason.
    """
    faults, total = [], (0, 0, 0.0)
    for number, cell in enumerate(config.cells, start=1):
        head = f"[{number}/{len(config.cells)}] {cell.name}"
        try:
            runs, images, seconds = _cost(cell)
        except RunError as error:
            faults.append(f"{cell.name}: {first_line(error)}")
        except InputError as error:
            faults.append(f"{cell.name}: {error}")
        else:
            total = total[0] + runs, total[1] + images, total[2] + seconds
            _print(f"{head}: {_text(runs, images, seconds)}")
            continue
        _print(f"{head}: cannot be trained: {faults[-1]}")
    trained = len(config.cells) - len(faults)
    cells = f"{len(config.cells)} cells" if not faults else f"{trained} of {len(config.cells)} cells"
    _print(f"\nplan: {cells}" + (f", {_text(*total)} here" if trained else "") + "\nNothing was started.")
    if faults:
        lines = "\n".join(f"  {text}" for text in faults)
        raise RunError(f"{len(faults)} of {len(config.cells)} cells cannot be trained:\n{lines}")


def _cost(cell: MapCell) -> tuple[int, int, float]:
    """Return the runs that are left, their images, and their seconds."""
    config = cell.config
    stages = [rate_runs(config)] if config.lrs else []
    stages.append(list(each_run(config, rates=rates_of(config) if config.lrs else None)))
    todo = [[run for run in stage if read_result(run[1]) is None] for stage in stages]
    if not any(todo):
        return 0, 0, 0.0
    placement = choose_jobs(config, len(stages[-1]))
    speeds = measure(stages[-1], cell.recipe.train, placement)
    images = sum(estimate(one, speeds[one.init])[0] for stage in todo for one, _ in stage)
    return sum(map(len, todo)), images, total_seconds(todo, speeds, placement.jobs)


def _text(runs: int, images: int, seconds: float) -> str:
    return (
        f"{runs} runs, {images:,} images, about {duration(seconds)}" if runs else "0 runs: all are finished"
    )


def _print(text: str) -> None:
    print(for_terminal(text), flush=True)  # noqa: T201
