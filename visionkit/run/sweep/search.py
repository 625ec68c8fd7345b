"""A search for good settings by Optuna: each trial a run folder, poor trials end early, any stop goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
from lightning.pytorch.callbacks import Callback

from visionkit.errors import InputError, PreemptedError, RunError, expected, install_extra, unknown_name
from visionkit.printable import for_terminal
from visionkit.rng import keyed_seed
from visionkit.run.command_line import flag_names, parse
from visionkit.run.config import RunConfig
from visionkit.run.processes.stop import listening
from visionkit.run.requests import asking
from visionkit.run.storage.lock import hold, is_held
from visionkit.run.sweep.runs import each_run
from visionkit.run.sweep.train_one import train_one
from visionkit.run.training.task_callbacks import monitor_of

if TYPE_CHECKING:
    from optuna import Study, Trial

__all__ = ["Search", "SearchRange", "parse_range", "run_search"]

LOG_FROM = 10.0
"""Ranges whose ends are this many times apart are searched on a logarithmic scale."""


@dataclass(frozen=True)
class SearchRange:
    """The values of one setting that are searched.

    Args:
        name: The setting, by its dotted name.
        low: The smallest number of a range.
        high: The largest number of a range.
        whole: Whether the numbers are whole.
        choices: The values, where they are no range.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    choices: tuple[str, ...] = ()

    @property
    def log(self) -> bool:
        """Return whether the range is searched on a logarithmic scale."""
        return self.low > 0 and self.high / self.low >= LOG_FROM

    def suggest(self, trial: Trial) -> str:
        """Return the value of a trial, as its flag takes it."""
        if self.choices:
            return str(trial.suggest_categorical(self.name, self.choices))
        if self.whole:
            return str(trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log))
        return repr(trial.suggest_float(self.name, self.low, self.high, log=self.log))

    def ends(self) -> tuple[str, ...]:
        """Return the values that are checked before anything runs: every choice, or the ends of a range."""
        return self.choices or tuple(str(int(x)) if self.whole else repr(x) for x in (self.low, self.high))


def parse_range(text: str, config: type[RunConfig]) -> SearchRange:
    """Return what "lr=1e-4..1e-1" or "augment=basic,trivial" searches.

    Args:
        text: `NAME=LOW..HIGH`, or `NAME=A,B,...`.
        config: The recipe's dataclass.

    Raises:
        InputError: The text has another form, or the recipe has no such setting.
    """
    name, _, values = text.partition("=")
    known = [flag.removeprefix("--") for flag in flag_names(config)]
    if not values:
        raise InputError(expected("--search", "NAME=LOW..HIGH or NAME=A,B", text))
    if name not in known:
        raise unknown_name("setting", name, known, hint="It is in --search.")
    low, dots, high = values.partition("..")
    if not dots:
        choices = tuple(part for part in values.split(",") if part)
        if len(set(choices)) < max(2, len(choices)):
            raise InputError(expected(f"--search {name}", "two or more different values A,B", values))
        return SearchRange(name, choices=choices)
    try:
        ends = float(low), float(high)
    except ValueError:
        raise InputError(expected(f"--search {name}", "two numbers LOW..HIGH", values)) from None
    if not ends[0] < ends[1]:
        raise InputError(f"Expected --search {name} to rise from LOW to HIGH, but got {values}.")
    return SearchRange(name, *ends, whole=_is_whole(config, name))


def _is_whole(config: type[RunConfig], name: str) -> bool:
    owner: Any = config()
    *groups, last = name.split(".")
    for group in groups:
        owner = getattr(owner, group)
    return type(getattr(owner, last)) is int


@dataclass(frozen=True)
class Search:
    """What is searched, and where.

    Args:
        config: The recipe's dataclass.
        train: The recipe's function that trains one run in a folder.
        args: Flags of the recipe that all trials share.
        ranges: What is searched.
        out: The folder of the search.
        variants: The recipe's named settings.
    """

    config: type[RunConfig]
    train: Callable[[Any, Path], dict[str, Any]]
    args: Sequence[str]
    ranges: Sequence[SearchRange]
    out: Path
    variants: Sequence[Callable[[Any], Any]] = ()

    def config_of(self, values: Sequence[str]) -> RunConfig:
        """Return the settings of a trial.

        Args:
            values: One for each range.

        Raises:
            InputError: A value is not valid, or the flags are for more than one run.
        """
        flags = [f"--{each.name}={value}" for each, value in zip(self.ranges, values, strict=True)]
        made = parse(self.config, [*self.args, *flags, "--out", str(self.out)], variants=self.variants)
        runs = list(each_run(made))
        if len(runs) > 1:
            raise InputError(
                f"Expected the flags of one run, but they are for {len(runs)}. Give one --init, --seeds and "
                "--fractions: each arm has best settings of its own, so sweep one after the other."
            )
        return runs[0][0]

    def check(self) -> RunConfig:
        """Return the settings of the first values; every choice and both ends of each range are checked."""
        all_ends = [each.ends() for each in self.ranges]
        for index in range(max(map(len, all_ends))):
            self.config_of([ends[index % len(ends)] for ends in all_ends])
        return self.config_of([ends[0] for ends in all_ends])


def run_search(search: Search, *, trials: int) -> Study:
    """Run trials until there are `trials` of them, those of other commands on the same folder included.

    Each trial is a run in a folder of its own, `trial-000` and so on. Proposals are a tree-structured Parzen
    estimator's; a trial whose score is below the median of the others at the same epoch ends early. A trial
    that was killed is taken up by the next start: with its values, in its folder, from its checkpoint. The
    study lies in `study.db` (SQLite); a trial's value is its best validation score, negated where lower is
    better.

    Args:
        search: What is searched.
        trials: How many trials there are to be.

    Raises:
        InputError: A flag or an end of a range is not valid, or Optuna is not installed.
        PreemptedError: The command was asked to stop; the trial in progress is saved.
    """
    seed = search.check().seeds[0]
    study = _open_study(search.out)
    # Not the seed alone: a search that goes on, and a job array's next task, would propose the same again.
    worker = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    study.sampler = _sampler(keyed_seed(seed, worker, len(study.get_trials(deepcopy=False))))
    _requeue(study, search.out)
    with listening():
        while (count := _count(study)) < trials or _waiting(study):
            trial = study.ask()
            folder = search.out / trial.user_attrs.get("folder", f"trial-{trial.number:03d}")
            trial.set_user_attr("folder", folder.name)
            with hold([folder]):
                values = [each.suggest(trial) for each in search.ranges]
                shown = "  ".join(f"{each.name} {x}" for each, x in zip(search.ranges, values, strict=True))
                _print(f"[{min(count + 1, trials)}/{trials}] {folder.name}  {shown}")
                _run_trial(study, trial, search.train, search.config_of(values), folder)
    return study


def _sampler(seed: int) -> Any:
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed % 2**32, constant_liar=True)


def _open_study(out: Path) -> Study:
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            f"A sweep needs Optuna, which is not installed. Run: {install_extra('sweep')}."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    out.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        storage=f"sqlite:///{(out / 'study.db').resolve()}",
        study_name="visionkit",
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    )


def _run_trial(
    study: Study, trial: Trial, train: Callable[[Any, Path], dict[str, Any]], config: RunConfig, folder: Path
) -> None:
    from optuna.trial import TrialState

    pruner = _Pruner(trial)
    try:
        with asking(callbacks=[pruner]):
            result = train_one(train, config, folder)
    except PreemptedError:
        raise  # the trial stays unfinished, and the next start takes it up
    except RunError as error:
        _print(f"  {error}")
        study.tell(trial, state=TrialState.FAIL)
        return
    (name, mode), score = result["monitor"], result["best"]["value"]
    if score is None:
        _print(f"  nothing to score: no {name}")
        study.tell(trial, state=TrialState.FAIL)
    elif pruner.pruned:
        _print(f"  pruned at {name} {score:.4f} (best), after {result['images_seen']:,} images")
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, _higher_is_better(float(score), mode))


class _Pruner(Callback):
    """Reports each validation to a trial, and ends the run where the trial is not worth finishing."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.pruned = False

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Report the monitored score."""
        name, mode = monitor_of(pl_module)
        score = trainer.callback_metrics.get(name)
        if score is None or trainer.sanity_checking:
            return
        self.trial.report(_higher_is_better(float(score), mode), trainer.current_epoch)
        if self.trial.should_prune():
            self.pruned = trainer.should_stop = True


def _requeue(study: Study, out: Path) -> None:
    """Queue again what an earlier start left unfinished; a trial whose folder is in use is somebody's."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        folder = trial.user_attrs.get("folder", f"trial-{trial.number:03d}")
        if not is_held(out / folder):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={"folder": folder})


def _count(study: Study) -> int:
    """Return how many trials there are; one that was taken up again has the folder of before."""
    return len({t.user_attrs.get("folder", t.number) for t in study.get_trials(deepcopy=False)})


def _waiting(study: Study) -> bool:
    from optuna.trial import TrialState

    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def _higher_is_better(score: float, mode: str) -> float:
    return score if mode == "max" else -score


def _print(text: str) -> None:
    print(for_terminal(text), flush=True)  # noqa: T201
