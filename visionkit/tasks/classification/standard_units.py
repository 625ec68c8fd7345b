"""The units in which a regression learns: found from the training targets when a fit starts."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from visionkit.data.formats.csv.target_statistics import target_statistics
from visionkit.nn.standardize import Standardize

__all__ = ["fit_standard_units"]


def fit_standard_units(standardize: Standardize, trainer: lightning.Trainer) -> None:
    """Take mean and standard deviation of the training targets, unless the task has its units already.

    Given ones and those of a checkpoint stay. Every process finds the same ones, since each has the full
    training set, and both arms of a comparison train on the same targets. Where they cannot be found (a
    stream), the targets stay as they are, and there is a warning.

    Args:
        standardize: Of the task.
        trainer: Has the training loader.
    """
    if bool(standardize.fitted):
        return
    if trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()
    loader: Any = trainer.train_dataloader
    statistics = target_statistics(getattr(loader, "dataset", None), len(standardize.mean))
    if statistics is None:
        rank_zero_warn(
            "The training targets cannot be read before training, so they are learnt as they are. If "
            "they are far from 0 or vary by much more than 1 (years, prices), give target_mean= and "
            "target_std=."
        )
        return
    standardize.fit(statistics.mean, statistics.std)
    mean, std = ([f"{value:.6g}" for value in values[:4]] for values in (statistics.mean, statistics.std))
    rank_zero_info(
        f"targets are learnt in standard units: mean {', '.join(mean)}, standard deviation {', '.join(std)} "
        f"of {statistics.count} of {statistics.total} training targets"
    )
