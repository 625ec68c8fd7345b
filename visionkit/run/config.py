"""What every recipe can be set to: one dataclass is the Python call, the flags, the YAML file and the help.

No torch here: `--help` answers before anything heavy is imported.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from visionkit.config import OptimConfig, Role, StreamConfig, TransferConfig, limits
from visionkit.errors import InputError
from visionkit.task_config import CheckConfig

BOTH = ("pretrained", "scratch")

__all__ = ["PRECISIONS", "DefaultList", "RunConfig", "setting", "to_dict"]

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
"""The precisions of a run, in Lightning's words."""


class DefaultList(list[Any]):
    """The list of a setting that was not given: `--budget` may choose a longer one in its place."""


def setting(
    default: Any,
    help: str,
    *,
    group: str = "task",
    rare: bool = False,
    role: Role = "identity",
    min: float | None = None,
    max: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
    unique: bool = False,
) -> Any:
    """Return a dataclass field that is a flag: its default, a line of help, and the values it takes.

    Args:
        default: What it is when it is not given.
        help: One line for `--help`.
        group: Where the help lists it.
        rare: Listed by `--help=all` only.
        role: What it means to a run that is continued or compared (`visionkit.config.Role`).
        min: The smallest number, itself allowed (of each item of a list).
        max: The largest number, itself allowed.
        above: Numbers must be larger than this.
        below: Numbers must be smaller than this.
        choices: The words that are allowed.
        unique: Whether the items of a list must differ.
    """
    meta = limits(min=min, max=max, above=above, below=below, choices=choices, unique=unique)
    meta |= {"help": help, "group": group, "rare": rare, "role": role}
    if isinstance(default, list):
        return field(default_factory=lambda: DefaultList(default), metadata=meta)
    if dataclasses.is_dataclass(default):
        return field(default_factory=lambda: dataclasses.replace(default), metadata=meta)  # type: ignore[type-var]
    return field(default=default, metadata=meta)


@dataclass
class RunConfig:
    """The settings that all recipes share; a recipe's own `Config` adds its task's.

    `init`, `seeds`, `fractions`, `folds` and `schedules` span the runs: every combination is a run in a
    folder of its own below `out`, resumable and comparable. The values of `init` are the arms of the
    comparison, as a trial has arms: "pretrained" and "scratch" for "both", or several names with commas
    between them. `images`, when not 0, is how long a run trains at any fraction; a schedule of 4 is a run
    four times as long, with its own warm-up and decay.
    """

    data: str = setting(
        "scenes", "data set: a folder, a file, 'scenes' (embedded), the address of a pack", group="data"
    )
    stream: StreamConfig = setting(StreamConfig(), "a pack at an address", group="data", rare=True)
    image_size: int = setting(96, "side of the training images, in pixels", group="data", min=8)
    fractions: list[float] = setting(
        [1.0],
        "fractions of the training split to train on",
        group="data",
        role="arm",
        above=0,
        max=1,
        unique=True,
    )
    folds: list[int] = setting(
        [], "cross-validation: K folds, all or those named after K (5 0 3)", group="data", role="arm", min=0
    )
    group_by: str = setting(
        "",
        "hold out by group: a pattern of the file names, or a column of the table",
        group="data",
        rare=True,
    )
    workers: int = setting(
        0, "loader processes (order and draws do not depend on it)", group="data", role="machine", min=0
    )
    checks: CheckConfig = setting(CheckConfig(), "inputs and updates that cannot be used", group="data")
    backbone: str = setting("packaged/efficientnet_lite0", "see `visionkit ls backbones`", group="model")
    init: str = setting(
        "both",
        "pretrained | scratch | frozen | both | NAME.TAG | file, run, folder; several",
        group="model",
        role="arm",
    )
    transfer: TransferConfig = setting(
        TransferConfig(), "freezing, norms and learning rates of the backbone", group="model"
    )
    epochs: int = setting(6, "passes over the training split", group="training", min=1)
    images: int = setting(0, "train for this many images instead of epochs", group="training", min=0)
    schedules: list[int] = setting(
        [1],
        "runs of this many times the length: 1 2 4 8",
        group="training",
        role="arm",
        min=1,
        unique=True,
    )
    batch_size: int = setting(32, "images a step on each device", group="training", min=1)
    accumulate: int = setting(
        1, "steps whose gradients are added before an update", group="training", rare=True, min=1
    )
    patience: int = setting(
        0, "stop after this many validations without a better score; 0: never", group="training", min=0
    )
    lr: float = setting(1e-3, "peak learning rate of the head", group="training", above=0)
    lrs: list[float] = setting(
        [],
        "try these rates first, and give each arm its best on validation",
        group="training",
        role="free",
        above=0,
        unique=True,
    )
    optim: OptimConfig = setting(OptimConfig(), "optimiser and schedule", group="training")
    seeds: list[int] = setting(
        [0, 1], "one run for each", group="training", role="arm", min=0, max=2**32 - 1, unique=True
    )
    devices: str = setting(
        "auto",
        "how many processes on this machine, or auto",
        group="machine",
        role="machine",
        choices=("auto",),
        min=1,
    )
    num_nodes: int = setting(
        0, "machines; 0 asks the environment", group="machine", role="machine", rare=True, min=0
    )
    accelerator: str = setting(
        "auto",
        "cpu | gpu | mps | auto (a GPU, else the CPU)",
        group="machine",
        role="machine",
        choices=("cpu", "gpu", "mps", "auto"),
    )
    strategy: str = setting(
        "auto",
        "auto | ddp | fsdp",
        group="machine",
        role="machine",
        rare=True,
        choices=("auto", "ddp", "fsdp"),
    )
    timeout: int = setting(
        300,
        "seconds a process waits for the others before it ends",
        group="machine",
        role="free",
        rare=True,
        min=1,
    )
    precision: str = setting(
        "auto",
        "auto | 32-true | bf16-mixed | 16-mixed",
        group="machine",
        role="machine",
        choices=("auto", *PRECISIONS),
    )
    jobs: int = setting(
        0, "runs at a time on a CPU; 0: one a thread, 4 at most", group="machine", role="free", min=0
    )
    compile: bool = setting(
        False, "compile the model (slow first step)", group="machine", role="machine", rare=True
    )
    recompute: bool = setting(
        False,
        "gradient checkpointing: less memory, more arithmetic",
        group="machine",
        role="machine",
        rare=True,
    )
    out: str = setting("", "where everything is written (default runs/RECIPE)", group="output", role="free")
    resume: Literal["auto", "require", "never"] = setting(
        "auto", "auto | require | never: continue the runs in --out", group="output", role="free"
    )
    checkpoint_every: int = setting(
        200, "updates between checkpoints within an epoch", group="output", role="free", rare=True, min=0
    )
    validate_every: int = setting(
        0, "epochs between validations; 0: about 12 a run", group="output", role="machine", rare=True, min=0
    )
    budget: str = setting(
        "",
        "choose schedules, fractions and seeds within a time on this machine: 2h",
        group="training",
        role="free",
        rare=True,
    )
    margin: float = setting(
        0.01, "scores as close as this count as equal", group="output", role="free", rare=True, above=0
    )
    logger: list[str] = setting(
        [],
        "besides csv: tensorboard wandb mlflow",
        group="output",
        role="free",
        choices=("tensorboard", "wandb", "mlflow"),
        unique=True,
        rare=True,
    )
    deterministic: bool = setting(True, "only deterministic algorithms", group="output", rare=True)
    progress: bool = setting(
        True, "show a progress bar on a terminal", group="output", role="free", rare=True
    )

    def arms(self) -> tuple[str, ...]:
        """Return the values of `init` that are to be run.

        Several are one text with commas between them, as the command line joins `--init pretrained scratch`.
        A path with a comma in its name counts as one where it exists.

        Raises:
            InputError: One is given twice, or none.
        """
        # Not `Path.exists`, which raises where the names together are longer than a file's may be.
        parts = [self.init] if os.path.exists(self.init) else self.init.split(",")  # noqa: PTH110
        named = [name for part in parts for name in (BOTH if part.strip() == "both" else (part.strip(),))]
        if not all(named) or len(set(named)) < len(named):
            raise InputError(
                f"Expected --init to name each arm once, but got {self.init!r}. Use --init both frozen."
            )
        return tuple(named)

    def of_arm(self, init: str) -> Self:
        """Return the settings of one arm: "frozen" is the pretrained weights with the backbone fixed.

        Args:
            init: One of `arms()`.
        """
        if init != "frozen":
            return dataclasses.replace(self, init=init)
        transfer = dataclasses.replace(self.transfer, freeze_through="all", unfreeze_at=())
        return dataclasses.replace(self, init="pretrained", transfer=transfer)

    def runs_of_folds(self) -> list[list[int]]:
        """Return `folds` of each run: `[K, number]`; one empty list without cross-validation.

        Raises:
            InputError: There are fewer than two folds, or one that is named is none of them.
        """
        if not self.folds:
            return [[]]
        count, *named = self.folds
        if count < 2:
            raise InputError(f"Expected at least 2 folds, but got --folds {count}. Use 5, or leave it out.")
        outside = [number for number in named if number >= count]
        if outside or len(set(named)) < len(named):
            raise InputError(
                f"Expected the folds named after --folds {count} to be different ones of 0 .. {count - 1}, "
                f"but got {' '.join(map(str, named))}."
            )
        return [[count, number] for number in named or range(count)]

    def open_options(self) -> dict[str, Any]:
        """Return what `OpenOptions` takes from these settings, for one run."""
        count, number = self.folds or (0, 0)
        return {
            "max_dropped": self.checks.max_dropped,
            "group_by": self.group_by,
            "folds": count,
            "fold": number,
            "stream": self.stream,
        }

    def data_options(self) -> dict[str, Any]:
        """Return what a `DataModule` takes from these settings, for one run."""
        return {
            "batch_size": self.batch_size,
            "seed": self.seeds[0],
            "fraction": self.fractions[0],
            "workers": self.workers,
        }

    def task_options(self) -> dict[str, Any]:
        """Return what every task takes from these settings, for one run."""
        return {"init": self.init, "transfer": self.transfer, "optim": self.optim, "lr": self.lr}


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as plain values: what `config.yaml` and `result.json` hold."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain
