"""All runs of a recipe: every init, seed and fraction in a folder of its own, then the comparison."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from visionkit.config import check_limits
from visionkit.errors import InputError, PreemptedError, RunError, unknown_name
from visionkit.files import local_path
from visionkit.printable import printable
from visionkit.run.config import RunConfig
from visionkit.run.feedback.pace import duration
from visionkit.run.processes.stop import first_speaks, listening
from visionkit.run.requests import requests
from visionkit.run.resume import check_resume, machine_changes
from visionkit.run.sweep.announce import announce
from visionkit.run.sweep.train_one import train_one

if TYPE_CHECKING:
    from visionkit.run.feedback.board import Board
    from visionkit.run.sweep.jobs import Job, Placement

__all__ = ["each_run", "run_recipe"]

ConfigT = TypeVar("ConfigT", bound=RunConfig)
# What these settings may be instead of a path.
WORDS = {"data": ("scenes",), "init": ("pretrained", "scratch", "frozen", "both")}


def each_run(config: ConfigT) -> Iterator[tuple[ConfigT, Path]]:
    """Yield `(config of one run, its folder)` for every fraction, seed, fold and init, arms side by side.

    Raises:
        InputError: A setting is outside its limits, or a list is empty.
    """
    check_limits(config)
    if not config.seeds or not config.fractions:
        raise InputError("Expected at least one seed and one fraction. Use --seeds 0 --fractions 1.")
    run_of: dict[Path, tuple[float, str]] = {}
    for fraction in config.fractions:
        for seed in config.seeds:
            for folds, init in itertools.product(config.runs_of_folds(), config.arms()):
                name = Path(init).name if Path(init).is_dir() else Path(init).stem
                name += f"-f{fraction:g}-s{seed}" + (f"-k{folds[1]}" if folds else "")
                folder = Path(config.out) / name
                other, first = run_of.setdefault(folder, (fraction, init))
                if other != fraction:
                    raise InputError(f"The fractions {other} and {fraction} would share the folder {folder}.")
                if first != init:
                    raise InputError(
                        f"--init {first} and {init} would share the folder {folder}: rename one."
                    )
                one = {"seeds": [seed], "fractions": [fraction], "folds": folds} | config.arm(init)
                yield dataclasses.replace(config, **one), folder  # type: ignore[arg-type]


def run_recipe(
    config: ConfigT, train: Callable[[ConfigT, Path], dict[str, Any]], *, paths: Sequence[str] = ()
) -> Path:
    """Run every run that is not finished yet, then compare them all and write the report.

    Finished runs with the same settings are left as they are: the same command continues after any stop.

    Args:
        config: The recipe's settings; `out` must be set.
        train: Trains one run in a folder; torch is seeded before it is called.
        paths: Settings that name a file or a folder ("data", "init"): looked for before anything begins.

    Returns:
        The folder that holds the runs, `comparison.json` and `report.html`.

    Raises:
        InputError: A folder holds a run with other settings, or holds one and `resume` is "never", or another
            command trains there.
        RunError: A run failed; the others are finished and compared. Or all are finished, but a figure, a
            tracker or the test split failed: results and report are written and name it.
    """
    runs = list(each_run(config))
    _check_paths(config, paths)  # before the long imports, and before a folder is made
    if first_speaks():
        _print(_describe(config, len(runs)))
    from visionkit.run.feedback.state import shown_to
    from visionkit.run.processes.launcher import is_first
    from visionkit.run.processes.lifetime import die_with_launcher
    from visionkit.run.storage.lock import hold
    from visionkit.run.sweep.jobs import choose_jobs

    for init in (arm for arm in config.arms() if arm not in WORDS["init"]):
        from visionkit.backbones.weights import split_init

        split_init(init)  # refuses a folder without weights
    die_with_launcher()
    if requests().find:
        from visionkit.run.sweep.find import find_for_arms

        return find_for_arms(runs, train)
    out, began = Path(config.out), time.time()
    first = is_first()
    placement = choose_jobs(config, len(runs))
    # Another process may check after the first has begun: only the first can know a run of before.
    for one, folder in runs:
        if first or one.resume != "never":
            _check_folder(one, folder)
    todo = _unfinished(runs, train, first=first)
    failures: list[Exception] = []
    with hold([job.folder for job in todo] if first else []), listening():
        try:
            with _make_board(config, runs, todo, placement.jobs) as board, shown_to(board):
                _train_all(todo, placement, board, failures, first=first)
        except PreemptedError:
            raise
        except Exception as error:
            if not placement.alone:  # other processes wait for this one's end
                raise
            failures.insert(0, error)  # what is finished is compared all the same
        if first:
            _conclude(out, [folder for _, folder in runs], time.time() - began, failed=bool(failures))
    if failures:
        raise failures[0]
    return out


def _unfinished(
    runs: Sequence[tuple[ConfigT, Path]], train: Callable[[ConfigT, Path], dict[str, Any]], *, first: bool
) -> list[Job]:
    """Return the runs that are to be trained; of the others a line is printed."""
    from visionkit.run.storage.result import TEST_FAILED, read_result
    from visionkit.run.sweep.jobs import Job

    todo = []
    for number, (one, folder) in enumerate(runs, start=1):
        title = f"[{number}/{len(runs)}] {folder.name}"
        result = read_result(folder)
        if result is None or any(TEST_FAILED in text for text in result.get("problems") or ()):
            todo.append(Job(title, folder, functools.partial(train_one, train, one, folder)))
            for line in announce([machine_changes(one, folder)] if first else []):
                _print(line)
        elif first:
            _print(f"{title}: finished before, kept.")
    return todo


def _make_board(
    config: RunConfig, runs: Sequence[tuple[RunConfig, Path]], todo: Sequence[Job], jobs: int
) -> Board:
    """Return what shows how far the runs are."""
    from visionkit.run.feedback.board import Board
    from visionkit.run.processes.launcher import is_first

    # With `images` a run trains as long with any fraction of the data.
    amounts = {folder.name: 1.0 if one.images else one.fractions[0] for one, folder in runs}
    return Board(
        {job.folder.name: amounts[job.folder.name] for job in todo},
        titles={job.folder.name: job.title for job in todo} if jobs > 1 else None,
        jobs=jobs,
        terminal=None if config.progress and is_first() else False,
    )


def _train_all(
    todo: Sequence[Job], placement: Placement, board: Board, failures: list[Exception], *, first: bool
) -> None:
    """Train all of `todo`, in turn or at once."""
    from visionkit.run.sweep.jobs import run_jobs

    def finished(job: Job, result: dict[str, Any]) -> None:
        board.end(job.folder.name)
        _print_result(job, result)
        if len(todo) > 1:
            _print(f"  {board.summary()}")

    if placement.jobs > 1 and todo:
        _print(f"{len(todo)} runs, {placement.jobs} at a time, {placement.threads} thread(s) each.")
        run_jobs(todo, jobs=placement.jobs, threads=placement.threads, finished=finished, board=board)
        return
    for job in todo:
        with _passing_over(job, failures, board, first=first, alone=placement.alone):
            result = job.call()
            if first:
                finished(job, result)


def _check_paths(config: RunConfig, paths: Sequence[str]) -> None:
    """Refuse paths that do not exist.

    Raises:
        InputError: A path does not exist, or `out` lies below a file.
    """
    inits = config.arms()
    named = [(n, value) for n in paths for value in (inits if n == "init" else (str(getattr(config, n)),))]
    for name, value in named:
        local_path(value, f"--{name}")
        before = value.rpartition("#")[0]  # "weights.pt#teacher.backbone" names a part of a file
        if value in ("", *WORDS.get(name, ())) or any(
            part and Path(part).expanduser().exists() for part in (value, before)
        ):
            continue
        text = f"--{name} {value}: there is no file or folder of this name."
        if name in WORDS:
            text += f" {unknown_name(name, value, WORDS[name])}"
        raise InputError(text)
    out = local_path(config.out, "--out")
    used = [init for init in inits if init not in WORDS["init"] and out.resolve() == Path(init).resolve()]
    if used and out.is_dir():
        raise InputError(
            f"--init {used[0]}: the new runs would be written into the folder that they begin from. "
            "Choose another --out."
        )
    existing = next((path for path in (out, *out.absolute().parents) if path.exists()), None)
    if existing is not None and not existing.is_dir():
        raise InputError(f"--out {out}: {existing} is a file, not a folder. Choose another --out.")


@contextlib.contextmanager
def _passing_over(
    job: Job, failures: list[Exception], board: Board, *, first: bool, alone: bool
) -> Iterator[None]:
    """Print what begins; a run that fails inside is noted, and stops the next only where processes wait."""
    if first:
        _print(job.title)
    board.begin(job.folder.name)
    try:
        yield
    except RunError as error:
        if not alone or isinstance(error, PreemptedError):
            raise
        failures.append(error)
        _print(f"{job.title}: {error}")
    finally:
        board.end(job.folder.name)


def _describe(config: RunConfig, count: int) -> str:
    """Return what a command is going to do: its first line, printed before the long imports."""
    parts = [" and ".join(arm if arm in WORDS["init"] else Path(arm).name for arm in config.arms())]
    parts.append(f"seed{'s' * (len(config.seeds) > 1)} {' '.join(map(str, config.seeds))}")
    if config.folds:
        count, *named = config.folds
        parts.append(f"folds {' '.join(map(str, named))} of {count}" if named else f"{count} folds")
    if config.fractions != [1.0]:
        parts.append(f"fractions {' '.join(f'{fraction:g}' for fraction in config.fractions)}")
    what = f"{count} run{'s' * (count > 1)} ({', '.join(parts)})"
    return f"{what} in {config.out}. Loading libraries and data."


def _print(text: str) -> None:
    print(printable(text), flush=True)  # noqa: T201


def _print_result(job: Job, result: dict[str, Any]) -> None:
    from visionkit.run.storage.result import score_text

    _print(
        f"{job.title}: {score_text(result)}; {result['images_seen']:,} images, "
        f"{duration(result['seconds']['total'])}, {result['images_per_second']:.0f} images/s"
    )
    early = result.get("stopped_early")
    if early:
        _print(f"  stopped early: {early['images']:,} of {early['planned_images']:,} images")
    for split, left in ((result.get("skipped") or {}).get("samples") or {}).items():
        _print(f"  left out: {left['count']} of {left['of']} {split} samples, which could not be read")
    for text in result.get("problems") or ():
        _print(f"  {text}")


def _check_folder(one: RunConfig, folder: Path) -> None:
    from visionkit.run.storage.disk import check_writable

    if not (folder / "config.yaml").exists():
        if one.resume == "require":
            raise InputError(f"--resume require: expected a run in {folder}, but there is none.")
        check_writable(folder.parent)
        return
    if one.resume == "never":
        raise InputError(
            f"{folder} already holds a run. Nothing is overwritten: continue it with --resume auto, or give "
            "another --out."
        )
    check_resume(one, folder)


def _conclude(out: Path, folders: list[Path], seconds: float, *, failed: bool) -> None:
    """Compare what is finished, of this command and of earlier ones in the same folder; write the report.

    Raises:
        RunError: The runs are finished, but something beside them went wrong: a figure, a tracker, the test.
    """
    from visionkit.compare.comparison import compare
    from visionkit.compare.report.report import write_report
    from visionkit.compare.run_record import runs_inside
    from visionkit.compare.summary import print_summary
    from visionkit.run.storage.result import read_result

    results = [result for folder in folders if (result := read_result(folder)) is not None]
    if failed and not results:
        return
    inside = runs_inside(out)
    problems = [f"{r['init']}, seed {r['seed']}: {text}" for r in results for text in r.get("problems") or ()]
    try:
        comparison = compare(
            [path for path in inside if path in {f.resolve() for f in folders}], others=inside
        )
        print_summary(comparison)
        report = write_report(comparison, out)
    except Exception as error:
        if failed:  # that error is raised in the end
            _print(f"The comparison is not complete: {error}")
            return
        if not isinstance(error, RunError):
            raise
        problems.append(str(error))
        report = out / "report.html"
    _print(f"\nreport      {report}\nruns        {out}\nseconds     {seconds:.0f}")
    if problems and not failed:
        lines = "\n".join(f"  {text}" for text in problems)
        raise RunError(f"Every run is finished and its result is kept, but not all went well:\n{lines}")
