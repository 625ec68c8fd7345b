"""TensorBoard, Weights & Biases and MLflow: one tracker run for each run, with its hyper-parameters."""

from __future__ import annotations

import contextlib
import netrc
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from visionkit.errors import InputError, unknown_name
from visionkit.run.training.best_effort import BestEffort

__all__ = ["LOGGERS", "Tracker", "make_logger"]

LOGGERS = ("tensorboard", "wandb", "mlflow")
MAX_LENGTH = 250  # characters of a parameter: the limit of MLflow's oldest stores


class Tracker(BestEffort, Logger):
    """A logger whose hyper-parameters are those of the run, and whose errors do not end the run.

    Lightning would log those of the task, whose saved `init` is always "scratch", so that it can be loaded
    without its weights file.
    """

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any) -> None:
        """Do nothing: `log_facts` logs the hyper-parameters of the run."""

    @rank_zero_only
    def log_facts(self, facts: Mapping[str, Any]) -> None:
        """Log the hyper-parameters of the run.

        Args:
            facts: Flat table of init, seed, fraction, epochs, batch size, data, model and settings.
        """
        parent: Any = super()
        with self.best_effort():
            parent.log_hyperparams({str(name): _short(value) for name, value in facts.items()})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values; after an error nothing."""
        parent: Any = super()
        if not self.problem:
            with self.best_effort():
                parent.log_metrics(dict(metrics), step)

    def save(self) -> None:
        """Write what is buffered."""
        if not self.problem:
            with self.best_effort():
                super().save()

    def finalize(self, status: str = "success") -> None:
        """Log how a fit ended."""
        if not self.problem:
            with self.best_effort():
                super().finalize(status)

    def end(self, status: str) -> None:
        """End the tracker's run, so that the next run in this process has a new one.

        Args:
            status: "success" or "failed".
        """
        self.finalize(status)


class _TensorBoard(Tracker, TensorBoardLogger):
    """TensorBoard's files in the run's folder."""


class _Wandb(Tracker, WandbLogger):
    """A run of Weights & Biases, finished at the end."""

    @rank_zero_only
    def end(self, status: str) -> None:
        """Finish the run: another one in this process would be written into it."""
        with self.best_effort():
            self.experiment.finish(exit_code=0 if status == "success" else 1)


class _MLflow(Tracker, MLFlowLogger):
    """A run of MLflow."""


def make_logger(name: str, folder: str | Path, *, root: str | Path | None = None) -> Tracker:
    """Return a logger by name; `metrics.csv` is written in any case.

    MLflow writes to `MLFLOW_TRACKING_URI`, or to `mlflow.db` in the comparison's folder: all runs of a
    comparison are one experiment. Weights & Biases is online if the user is logged in (else its files are in
    the run's folder for `wandb sync`); the runs of a comparison are a group.

    Args:
        name: "tensorboard", "wandb" or "mlflow".
        folder: The run's folder.
        root: The comparison's folder, `folder` if not given; nothing is written outside it.

    Raises:
        InputError: The name is unknown, the logger's package is not installed, or it cannot be started.
    """
    run_folder = Path(folder).absolute()
    comparison_folder = Path(root).absolute() if root else run_folder
    if name not in LOGGERS:
        raise unknown_name("logger", name, LOGGERS, hint="csv is always written.")
    try:
        if name == "tensorboard":
            return _started(
                _TensorBoard(str(run_folder), name="tensorboard", version="", default_hp_metric=False)
            )
        if name == "wandb":
            return _started(_wandb(run_folder, comparison_folder))
        return _mlflow(run_folder, comparison_folder)
    except ModuleNotFoundError as error:
        # Lightning's error does not name the package.
        package = name if error.name is None or find_spec(name) is None else error.name
        raise InputError(
            f"The logger {name!r} needs the package {package!r}, which is not installed. Install it: "
            f'pip install {package} (or all loggers: pip install "lightning-visionkit[loggers]").'
        ) from error
    except Exception as error:
        raise InputError(
            f"The logger {name!r} cannot be started: {type(error).__name__}: {error} Repair it, or leave it "
            "out of --logger; metrics.csv is always written."
        ) from error


def _started(logger: Tracker) -> Tracker:
    _ = getattr(logger, "experiment", None)  # made now, before training, rather than in its first step
    return logger


def _wandb(run_folder: Path, comparison_folder: Path) -> Tracker:
    project = os.environ.get("WANDB_PROJECT", "visionkit")
    offline = "WANDB_MODE" not in os.environ and not _logged_in()
    run_folder.mkdir(parents=True, exist_ok=True)
    return _Wandb(
        save_dir=str(run_folder),
        name=run_folder.name,
        group=comparison_folder.name,
        project=project,
        offline=offline,
    )


def _logged_in() -> bool:
    """Return whether `wandb login` stored a key, without a prompt or the network."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _mlflow(run_folder: Path, comparison_folder: Path) -> Tracker:
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    local = not address
    if local:
        comparison_folder.mkdir(parents=True, exist_ok=True)
        address = f"sqlite:///{comparison_folder / 'mlflow.db'}"
    # The first run that opens the store makes its tables: two runs must not do so at once.
    with _one_at_a_time(comparison_folder / "mlflow.lock") if local else contextlib.nullcontext():
        return _started(
            _MLflow(
                experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", comparison_folder.name),
                run_name=run_folder.name,
                tracking_uri=address,
                artifact_location=(comparison_folder / "mlartifacts").as_uri() if local else None,
            )
        )


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    from filelock import FileLock  # torch requires it

    with FileLock(path, timeout=300):
        yield


def _short(value: Any) -> Any:
    if isinstance(value, bool | int | float) or value is None:
        return value
    text = str(value)
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."
