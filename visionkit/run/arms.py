"""All runs of a recipe: every init, seed and fraction in a folder of its own, then the comparison."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from visionkit.config import check_limits
from visionkit.errors import InputError
from visionkit.run.config import RunConfig, to_dict

if TYPE_CHECKING:
    from visionkit.run.jobs import Job

__all__ = ["each_run", "run_recipe"]

ConfigT = TypeVar("ConfigT", bound=RunConfig)
IGNORED = (
    "out",
    "resume",
    "logger",
    "progress",
    "workers",
    "checkpoint_every",
    "devices",
    "num_nodes",
    "strategy",
    "jobs",
    "timeout",
)


def each_run(config: ConfigT) -> Iterator[tuple[ConfigT, Path]]:
    """Yield `(config of one run, its folder)` for every fraction, seed and init, arms side by side.

    Raises:
        InputError: A setting is outside its limits, or a list is empty.
    """
    check_limits(config)
    if not config.seeds or not config.fractions:
        raise InputError("Expected at least one seed and one fraction. Use --seeds 0 --fractions 1.")
    places: dict[Path, float] = {}
    for fraction in config.fractions:
        for seed in config.seeds:
            for init in config.arms():
                name = init if init in ("pretrained", "scratch") else Path(init).stem
                folder = Path(config.out) / f"{name}-f{fraction:g}-s{seed}"
                other = places.setdefault(folder, fraction)
                if other != fraction:
                    raise InputError(f"The fractions {other} and {fraction} would share the folder {folder}.")
                one = dataclasses.replace(config, init=init, seeds=[seed], fractions=[fraction])
                yield one, folder


def run_recipe(config: ConfigT, train: Callable[[ConfigT, Path], dict[str, Any]]) -> Path:
    """Run every run that is not finished yet, then compare them all and write the report.

    Finished runs with the same settings are kept as they are, so the same command continues after anything.

    Args:
        config: The recipe's settings; `out` must be set.
        train: Trains one run in a folder; torch is seeded before it is called.

    Returns:
        The folder that holds the runs, `comparison.json` and `report.html`.

    Raises:
        InputError: A folder holds a run with other settings, or holds one and `resume` is "never".
    """
    from visionkit.run.children import end_with_parent
    from visionkit.run.jobs import Job, choose_jobs, run_jobs
    from visionkit.run.processes import is_first
    from visionkit.run.result import read_result
    from visionkit.run.stop import listening

    end_with_parent()
    out, began = Path(config.out), time.time()
    runs, first = list(each_run(config)), is_first()
    jobs, threads = choose_jobs(config, len(runs))
    # Another process may look when the first has already begun: only that one can tell a run of before.
    for one, folder in runs:
        if first or one.resume != "never":
            _check_folder(one, folder)
    todo = []
    for number, (one, folder) in enumerate(runs, start=1):
        title = f"[{number}/{len(runs)}] {folder.name}"
        if read_result(folder) is None:
            todo.append(Job(title, folder, functools.partial(_train_one, train, one, folder)))
        elif first:
            print(f"{title}: finished before, kept.", flush=True)  # noqa: T201
    with listening():
        if jobs > 1 and todo:
            print(f"{len(todo)} runs, {jobs} at a time, {threads} thread(s) each.", flush=True)  # noqa: T201
            run_jobs(todo, jobs=jobs, threads=threads, finished=_say)
        else:
            for job in todo:
                if first:
                    print(job.title, flush=True)  # noqa: T201
                result = job.call()
                if first:
                    _say(job, result)
        if first:
            _conclude(out, [folder for _, folder in runs], time.time() - began)
    return out


def _train_one(
    train: Callable[[ConfigT, Path], dict[str, Any]], one: ConfigT, folder: Path
) -> dict[str, Any]:
    import lightning

    from visionkit.run.stop import listening

    lightning.seed_everything(one.seeds[0], workers=False, verbose=False)
    with listening():  # also in a process of its own
        return train(one, folder)


def _say(job: Job, result: dict[str, Any]) -> None:
    name = result["monitor"][0]
    score = result["metrics"].get(name, float("nan"))
    print(  # noqa: T201
        f"{job.title}: {name} = {score:.4f} after {result['images_seen']} images, "
        f"{result['seconds']['total']:.0f} s, {result['images_per_second']:.0f} images/s",
        flush=True,
    )


def _check_folder(one: RunConfig, folder: Path) -> None:
    import yaml

    from visionkit.run.saver import writable

    saved = folder / "config.yaml"
    if not saved.exists():
        if one.resume == "require":
            raise InputError(f"--resume require: expected a run in {folder}, but there is none.")
        writable(folder.parent)
        return
    if one.resume == "never":
        raise InputError(
            f"{folder} already holds a run. Nothing is overwritten: continue it with --resume auto, or give "
            "another --out."
        )
    before = yaml.safe_load(saved.read_text(encoding="utf-8")) or {}
    now = to_dict(one)
    other = [name for name in now if name not in IGNORED and before.get(name) != now[name]]
    if other:
        rows = "; ".join(f"{name} was {before.get(name)}, is {now[name]}" for name in other[:4])
        rows += f" and {len(other) - 4} more" if len(other) > 4 else ""
        raise InputError(
            f"{folder} holds a run with other settings: {rows}. Nothing is overwritten: give the settings it "
            "was started with, or another --out."
        )


def _conclude(out: Path, folders: list[Path], seconds: float) -> None:
    from visionkit.run.comparison import compare
    from visionkit.run.report import write_report

    comparison = compare(folders)
    report = write_report(comparison, out)
    comparison.print()
    print(f"\nreport      {report}\nruns        {out}\nseconds     {seconds:.0f}", flush=True)  # noqa: T201
