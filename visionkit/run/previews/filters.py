"""The filters of a run's first convolution after its training, drawn for the report."""

from __future__ import annotations

from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback
from torch import nn

from visionkit.drawing.panels import save_image
from visionkit.drawing.tiles import tiled, weight_tiles
from visionkit.run.training.best_effort import BestEffort

__all__ = ["FilterImage"]

SIDE, COLUMNS = 42, 16  # pixels of a filter; filters in a row


class FilterImage(BestEffort, Callback):
    """Writes `figures/filters.png` at the end of training, of networks that have a convolution.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.file = Path(folder) / "figures" / "filters.png"

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draw the filters of the first convolution, in the order in which the network holds its layers."""
        if not trainer.is_global_zero:
            return
        with self.best_effort("The image of the filters"):
            network = getattr(pl_module, "backbone", pl_module)
            first = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
            if first is None or first.weight.ndim != 4:  # sharded parameters are flat
                return
            self.file.parent.mkdir(parents=True, exist_ok=True)
            save_image(tiled(weight_tiles(first.weight.cpu(), side=SIDE), columns=COLUMNS), self.file)
