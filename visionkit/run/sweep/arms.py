"""All runs of a recipe: every init, seed, fraction and schedule in its own folder, then the comparison."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from visionkit.errors import InputError, RunError, unknown_name
from visionkit.files import is_address, local_path
from visionkit.printable import for_terminal
from visionkit.run.config import RunConfig
from visionkit.run.feedback.pace import parse_duration
from visionkit.run.processes.stop import first_speaks
from visionkit.run.requests import requests
from visionkit.run.sweep.runs import each_run
from visionkit.types import init_is_path

__all__ = ["check_paths", "run_recipe"]

ConfigT = TypeVar("ConfigT", bound=RunConfig)
# What these settings may be instead of a path.
WORDS = {"data": ("scenes",), "init": ("pretrained", "scratch", "frozen", "both")}


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
    if config.budget:
        parse_duration(config.budget)
    check_paths(config, paths)  # before the long imports, and before a folder is made
    if first_speaks():
        _print(_describe(config, len(runs)))
    from visionkit.compat import import_torchmetrics

    import_torchmetrics()
    from visionkit.run.processes.lifetime import die_with_launcher
    from visionkit.run.sweep.announce_plan import announce_plan
    from visionkit.run.sweep.jobs import choose_jobs
    from visionkit.run.sweep.train_runs import train_runs

    for init in (arm for arm in config.arms() if arm not in WORDS["init"] and init_is_path(arm)):
        from visionkit.backbones.weights import split_init

        split_init(init)  # refuses a folder without weights
    _check_backbone(config.backbone)
    die_with_launcher()
    if requests().find:
        from visionkit.run.sweep.find import find_for_arms

        return find_for_arms(runs, train)
    out, began = Path(config.out), time.time()
    placement = choose_jobs(config, len(runs))
    config = announce_plan(config, train, placement)
    if requests().dry_run:
        return out
    runs = list(each_run(config))
    if config.lrs:
        from visionkit.run.sweep.rates import choose_rates

        runs = list(each_run(config, rates=choose_rates(config, train)))

    def conclude(failures: list[Exception]) -> None:
        _conclude(out, [folder for _, folder in runs], time.time() - began, failed=bool(failures))

    new = not out.exists()
    failures = train_runs(config, runs, train, choose_jobs(config, len(runs)), then=conclude)
    if failures and new:
        with contextlib.suppress(OSError):
            out.rmdir()  # only if nothing was written
    if failures:
        raise failures[0]
    return out


def _check_backbone(name: str) -> None:
    """Refuse a backbone that no source has, before each run does; other names are a recipe's to register.

    Raises:
        InputError: There is none of this name.
    """
    from visionkit.backbones.registry import resolve
    from visionkit.backbones.sources.base import ModelSpec

    if name.startswith(("packaged/", "timm/", "torchvision/")):
        resolve(name, ModelSpec(""))


def check_paths(config: RunConfig, paths: Sequence[str]) -> None:
    """Refuse paths that do not exist.

    Args:
        config: The settings.
        paths: The names of those that name a file or a folder.

    Raises:
        InputError: A path does not exist, `out` lies below a file, or an address comes without a folder for
            what is fetched.
    """
    inits = config.arms()
    named = [(n, value) for n in paths for value in (inits if n == "init" else (str(getattr(config, n)),))]
    for name, value in named:
        if name == "data" and is_address(value):
            config.stream.folder(value)
            continue
        local_path(value, f"--{name}")
        before = value.rpartition("#")[0]  # "weights.pt#teacher.backbone" names a part of a file
        if (
            value in ("", *WORDS.get(name, ()))
            or (name == "init" and not init_is_path(value))
            or any(part and Path(part).expanduser().exists() for part in (value, before))
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


def _describe(config: RunConfig, count: int) -> str:
    """Return what a command is going to do: its first line, printed before the long imports."""
    parts = [" and ".join(arm if arm in WORDS["init"] else Path(arm).name for arm in config.arms())]
    parts.append(f"seed{'s' * (len(config.seeds) > 1)} {' '.join(map(str, config.seeds))}")
    if config.folds:
        folds, *named = config.folds
        parts.append(f"folds {' '.join(map(str, named))} of {folds}" if named else f"{folds} folds")
    if config.budget:
        return f"What fits into {config.budget} ({parts[0]}), in {config.out}. Loading libraries and data."
    if config.fractions != [1.0]:
        parts.append(f"fractions {' '.join(f'{fraction:g}' for fraction in config.fractions)}")
    if config.schedules != [1]:
        parts.append(f"schedules {' '.join(map(str, sorted(config.schedules)))}")
    what = f"{count} run{'s' * (count > 1)} ({', '.join(parts)})"
    return f"{what} in {config.out}. Loading libraries and data."


def _print(text: str) -> None:
    print(for_terminal(text), flush=True)  # noqa: T201


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
