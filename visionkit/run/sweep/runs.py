"""The runs that a command spans: the settings and the folder of each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from visionkit.compare.run_record import named_init
from visionkit.config import check_limits
from visionkit.errors import InputError
from visionkit.run.config import RunConfig
from visionkit.types import init_is_path

__all__ = ["each_run", "run_name"]

ConfigT = TypeVar("ConfigT", bound=RunConfig)


def each_run(
    config: ConfigT, *, rates: Mapping[tuple[str, float], float] | None = None
) -> Iterator[tuple[ConfigT, Path]]:
    """Yield `(config of one run, its folder)` for every fraction, schedule, seed, fold and init.

    Arms are side by side, and short schedules come first.

    Args:
        config: The command's settings.
        rates: The learning rate of each init and fraction; `config.lr` for all if not given.

    Raises:
        InputError: A setting is outside its limits, or a list is empty.
    """
    check_limits(config)
    if not config.seeds or not config.fractions or not config.schedules:
        raise InputError(
            "Expected at least one seed, fraction and schedule. Use --seeds 0 --fractions 1 --schedules 1."
        )
    run_of: dict[Path, tuple[float, str]] = {}
    axes = (config.fractions, sorted(config.schedules), config.seeds, config.runs_of_folds(), config.arms())
    for fraction, schedule, seed, folds, init in itertools.product(*axes):
        arm = config.of_arm(init)
        source = named_init(arm.init, {"transfer": vars(arm.transfer)})
        one = dataclasses.replace(
            arm,
            seeds=[seed],
            fractions=[fraction],
            schedules=[schedule],
            folds=folds,
            lr=arm.lr if rates is None else rates[source, fraction],
        )
        folder = Path(config.out) / run_name(one, init)
        other, first = run_of.setdefault(folder, (fraction, init))
        if other != fraction:
            raise InputError(f"The fractions {other} and {fraction} would share the folder {folder}.")
        if first != init:
            raise InputError(f"--init {first} and {init} would share the folder {folder}: rename one.")
        yield one, folder


def run_name(one: RunConfig, arm: str) -> str:
    """Return the name of the folder of one run: "scratch-f0.1-x4-lr0.003-s0-k3".

    A schedule of 1 is left out, and a rate that was not chosen among `lrs`.

    Args:
        one: The run's settings.
        arm: One of `config.arms()`.
    """
    init, schedule = Path(arm), one.schedules[0]
    # Weights of the registry differ in what follows the dot, which of a file is its kind.
    name = f"{init.name if init.is_dir() or not init_is_path(arm) else init.stem}-f{one.fractions[0]:g}"
    name += f"-x{schedule}" if schedule > 1 else ""
    name += f"-lr{one.lr:g}" if one.lrs else ""
    return f"{name}-s{one.seeds[0]}" + (f"-k{one.folds[1]}" if one.folds else "")
