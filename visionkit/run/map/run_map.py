"""Train a transfer map: cell after cell on one machine, or one run of it as a task of a job array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from visionkit.compare.comparison import compare
from visionkit.compare.map.page import write_map
from visionkit.compare.map.plan import write_plan
from visionkit.compare.map.read_map import CELL_ERROR, read_map
from visionkit.compare.report.report import write_report
from visionkit.compare.run_record import runs_inside
from visionkit.errors import InputError, PreemptedError, RunError, first_line
from visionkit.printable import for_terminal, printable
from visionkit.run.config import RunConfig
from visionkit.run.map.map_config import MapCell, MapConfig, planned
from visionkit.run.processes.launcher import is_first
from visionkit.run.processes.lifetime import die_with_launcher
from visionkit.run.storage.result import read_result
from visionkit.run.sweep.jobs import choose_jobs
from visionkit.run.sweep.rates import rates_of
from visionkit.run.sweep.runs import each_run
from visionkit.run.sweep.train_runs import train_runs

__all__ = ["publish_map", "run_map", "train_one_of"]


def run_map(config: MapConfig) -> Path:
    """Run every cell that is not finished, each by its recipe; write the page, anew after each cell.

    A cell that fails does not stop the others. The same call goes on after any stop.

    Args:
        config: The map.

    Returns:
        The path of `map.html`.

    Raises:
        PreemptedError: The command was asked to stop; the page is of what is finished.
        RunError: A cell failed or is not finished; the page names it.
    """
    die_with_launcher()
    if is_first():
        write_plan([planned(cell, config.out) for cell in config.cells], config.out)
    for number, cell in enumerate(config.cells, start=1):
        _print(f"\n[{number}/{len(config.cells)}] {cell.name}")
        _write_failure(cell, None)
        try:
            cell.recipe.main(cell.config)
        except PreemptedError:
            raise
        except Exception as error:
            _print(f"{cell.name}: {error}")
            _write_failure(cell, error)
        finally:
            if is_first():
                write_map(config.out)
    return _conclude(config.out)


def publish_map(config: MapConfig) -> Path:
    """Compare what is finished of each cell, and write the page; start nothing.

    Args:
        config: The map.

    Returns:
        The path of `map.html`.

    Raises:
        RunError: A cell failed or is not finished; the page names it.
    """
    write_plan([planned(cell, config.out) for cell in config.cells], config.out)
    for cell in config.cells:
        inside = runs_inside(_folder(cell))
        asked = {folder.resolve() for _, folder in _runs(cell.config)}
        finished = [path for path in inside if path in asked and read_result(path) is not None]
        if len(finished) == len(asked) > 0:  # else what kept a command from the other runs still does
            _write_failure(cell, None)
        try:
            if finished:
                write_report(compare(finished, others=inside), _folder(cell))
        except (InputError, RunError) as error:
            _write_failure(cell, error)
    write_map(config.out)
    return _conclude(config.out)


def train_one_of(config: MapConfig, number: int) -> None:
    """Train one run of the map, as a task of a job array does; the page comes when all are finished.

    Args:
        config: The map.
        number: The run, counted from 0 over all cells in their order.

    Raises:
        InputError: The map has fewer runs, or its learning rates are not chosen.
        RunError: The run failed, or was asked to stop.
    """
    die_with_launcher()
    runs = [(cell, one, folder) for cell in config.cells for one, folder in _runs(cell.config, chosen=True)]
    if not 0 <= number < len(runs):
        raise InputError(
            f"Expected the number of a run, but got {number}: the map has {len(runs)} runs, "
            f"0 to {len(runs) - 1}. Use sbatch --array=0-{len(runs) - 1}."
        )
    cell, one, folder = runs[number]
    _print(f"run {number} of 0 to {len(runs) - 1}: {cell.name}, {folder.name}")
    placement = choose_jobs(cell.config, 1)
    failures = train_runs(cell.config, [(one, folder)], cell.recipe.train, placement)
    if failures:
        raise failures[0]


def _runs(config: RunConfig, *, chosen: bool = False) -> Sequence[tuple[RunConfig, Path]]:
    """Return settings and folder of each run of a cell, at the rates that were chosen among `lrs`."""
    rates = rates_of(config) if config.lrs else None
    if config.lrs and rates is None:
        if chosen:
            raise InputError(
                f"{config.out}: the rates of lrs are not chosen yet, so that the runs of an array are not "
                "known. Give each data set its lr, or start the map without an array."
            )
        return []
    return list(each_run(config, rates=rates))


def _folder(cell: MapCell) -> Path:
    return Path(cell.config.out)


def _write_failure(cell: MapCell, error: Exception | None) -> None:
    """Leave beside the runs of a cell why its command failed; remove what an earlier one left."""
    path = _folder(cell) / CELL_ERROR
    if not is_first():
        return
    if error is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(printable(f"{type(error).__name__}: {first_line(error)}\n"), encoding="utf-8")


def _conclude(out: Path) -> Path:
    """Print what the map is, and refuse to end well where a cell is missing.

    Raises:
        RunError: A cell failed or is not finished.
    """
    page = out / "map.html"
    if not is_first():
        return page
    made = read_map(out)
    for line in made.sentences():
        _print(line)
    _print(f"\nmap         {page}\ncomparisons {out}")
    wrong = [cell for cell in made.cells if cell.status != "finished"]
    if wrong:
        lines = "\n".join(f"  {cell.name}: {cell.state}" for cell in wrong)
        raise RunError(
            f"{len(wrong)} of {len(made.cells)} cells of the map are not complete:\n{lines}\n"
            "Start the same command again: finished runs are kept."
        )
    return page


def _print(text: str) -> None:
    if is_first():
        print(for_terminal(text), flush=True)  # noqa: T201
