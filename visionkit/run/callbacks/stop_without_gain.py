"""Early stopping on the monitored score, which a resume continues."""

from __future__ import annotations

import lightning
from lightning.pytorch.callbacks import EarlyStopping

__all__ = ["StopWithoutGain"]


class StopWithoutGain(EarlyStopping):
    """Lightning's early stopping, after each validation, that stays stopped when the run is started again.

    The learning rate follows the planned length: only the end comes sooner. A score that is NaN or was not
    logged is no better score, and a missing one does not count as a validation.

    Args:
        monitor: Logged name and direction ("max" or "min").
        patience: Validations in a row without a better score, after which the run ends.
    """

    def __init__(self, monitor: tuple[str, str], patience: int) -> None:
        super().__init__(
            monitor[0],
            mode=monitor[1],
            patience=patience,
            strict=False,
            check_finite=False,
            check_on_train_epoch_end=False,
        )

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """End at once where the checkpoint is of a run whose patience was at its end."""
        # `trainer.should_stop` is in no checkpoint: a run killed before its result was written trained on.
        if self.wait_count >= self.patience:
            trainer.should_stop = True
