"""TensorBoard, Weights & Biases and MLflow: one tracker run for each run, with its hyper-parameters."""

from __future__ import annotations

import contextlib
import hashlib
import json
import netrc
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from visionkit.errors import InputError, install_extra, unknown_name
from visionkit.files import write_text
from visionkit.run.training.best_effort import BestEffort

__all__ = ["LOGGERS", "Tracker", "make_logger"]

LOGGERS = ("tensorboard", "wandb", "mlflow")
MAX_LENGTH = 250  # characters of a parameter: the limit of MLflow's oldest stores


class Tracker(BestEffort, Logger):
    """A logger whose hyper-parameters are those of the run, and whose errors do not end the run.

    Lightning would log those of the task, whose saved `init` is always "scratch", so that it can be loaded
    without its weights file. Curves go over images seen, with the learning rates beside them.
    """

    _images: Callable[[], int] | None = None
    _rates: Callable[[], Mapping[str, float]] = dict
    _at = -1  # images at which rates were logged last

    def follow(self, *, images: Callable[[], int], rates: Callable[[], Mapping[str, float]]) -> None:
        """Have every value logged over images seen.

        Args:
            images: Returns the images seen so far.
            rates: Returns the learning rates by name.
        """
        self._images, self._rates = images, rates

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
        if self.problem:
            return
        values = dict(metrics)
        with self.best_effort():
            if self._images is not None:
                updates, step = float(step or 0), self._images()
                if step != self._at:  # once where training and validation log at the same images
                    values |= {**self._rates(), "updates": updates}
                    self._at = step
            self._write(values, step)

    @rank_zero_only
    def log_scores(self, facts: Mapping[str, Any], scores: Mapping[str, Mapping[str, float]]) -> None:
        """Log the scores of the finished run, as "val_last/top1", "val_best/top1", "test_best/top1".

        Args:
            facts: What `log_facts` was given.
            scores: By the split and the weights that they are of ("val (last)"), then by name.
        """
        if not self.problem:
            with self.best_effort():
                self._finish(facts, _flat_scores(scores), self._images() if self._images else None)

    def _finish(self, facts: Mapping[str, Any], scores: dict[str, float], step: int | None) -> None:
        self._write(scores, step)

    def _write(self, values: dict[str, float], step: int | None) -> None:
        parent: Any = super()
        parent.log_metrics(values, step)

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

    def _finish(self, facts: Mapping[str, Any], scores: dict[str, float], step: int | None) -> None:
        # The writer takes no None as a hyper-parameter.
        plain = {str(name): "none" if value is None else _short(value) for name, value in facts.items()}
        self.experiment.add_hparams(plain, scores, run_name=".", global_step=step)


class _Wandb(Tracker, WandbLogger):
    """A run of Weights & Biases, finished at the end."""

    def follow(self, *, images: Callable[[], int], rates: Callable[[], Mapping[str, float]]) -> None:
        """Have every curve drawn over images."""
        super().follow(images=images, rates=rates)
        if not self.problem:
            with self.best_effort():
                self.experiment.define_metric("images")
                self.experiment.define_metric("*", step_metric="images", step_sync=True)

    def _write(self, values: dict[str, float], step: int | None) -> None:
        self.experiment.log(values if step is None else {**values, "images": step})

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
    the run's folder for `wandb sync`); its project is `WANDB_PROJECT`, or "visionkit"; the runs of a
    comparison are a group. A run that is continued goes on
    in the tracker's run of before, whose name is in the folder's `trackers.json`.

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
            f"pip install {package} (or all loggers: {install_extra('loggers')})."
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
    project = os.environ.get("WANDB_PROJECT", "") or "visionkit"
    offline = "WANDB_MODE" not in os.environ and not _logged_in()
    run_folder.mkdir(parents=True, exist_ok=True)
    known = _read_ids(run_folder).get("wandb", {})
    run = str(known["run"]) if known.get("project") == project else secrets.token_hex(4)
    _note_id(run_folder, "wandb", {"project": project, "run": run})
    return _Wandb(
        save_dir=str(run_folder),
        name=run_folder.name,
        group=comparison_folder.name,
        project=project,
        offline=offline,
        id=run,
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
    known = _read_ids(run_folder).get("mlflow", {})
    store = hashlib.sha256(address.encode()).hexdigest()[:16]  # an address may hold a password
    run = str(known["run"]) if known.get("store") == store else None
    # The first run that opens the store makes its tables: two runs must not do so at once.
    with _one_at_a_time(comparison_folder / "mlflow.lock") if local else contextlib.nullcontext():
        logger = _started(
            _MLflow(
                experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", comparison_folder.name),
                run_name=run_folder.name,
                tracking_uri=address,
                artifact_location=(comparison_folder / "mlartifacts").as_uri() if local else None,
                run_id=run if run and _mlflow_knows(address, run) else None,
            )
        )
    _note_id(run_folder, "mlflow", {"store": store, "run": str(getattr(logger, "run_id", ""))})
    return logger


def _mlflow_knows(address: str, run: str) -> bool:
    """Return whether a store has a run; there it runs again."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        MlflowClient(address).update_run(run, status="RUNNING")
    except MlflowException:  # the store was deleted, and made anew
        return False
    return True


def _read_ids(folder: Path) -> dict[str, Any]:
    """Return the runs of trackers that the run in a folder has, by tracker."""
    try:
        loaded = json.loads((folder / "trackers.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = loaded.items() if isinstance(loaded, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, dict) and "run" in entry}


@rank_zero_only
def _note_id(folder: Path, name: str, entry: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ids = _read_ids(folder) | {name: entry}
    write_text(folder / "trackers.json", json.dumps(ids, indent=1) + "\n")


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    from filelock import FileLock  # torch requires it

    with FileLock(path, timeout=300):
        yield


def _flat_scores(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    # Not every tracker takes brackets in a name.
    return {
        f"{label.replace(' (', '_').rstrip(')')}/{name}": value
        for label, values in scores.items()
        for name, value in values.items()
    }


def _short(value: Any) -> Any:
    if isinstance(value, bool | int | float) or value is None:
        return value
    text = str(value)
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."
