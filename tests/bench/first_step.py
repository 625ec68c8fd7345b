"""From the command to the end of the first step: ours through the recipe, the peer's in plain Lightning.

python tests/bench/first_step.py ours FOLDER
python tests/bench/first_step.py theirs

Each prints its loss's type when the step is done, and ends.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "classify.py"
SIDE, BATCH, CLASSES, NAME = 96, 32, 12, "tf_efficientnet_lite0"


def done(loss: Any) -> None:
    """Say that the step is done, and end at once: nothing after it is to be measured."""
    print(type(loss).__name__, flush=True)
    os._exit(0)


def ours(folder: str) -> None:
    """Start the recipe as its command does, and end after the first step."""
    from visionkit.run.training import fit as fitting

    build = fitting.build_trainer

    def built(*args: Any, **settings: Any) -> Any:
        from lightning.pytorch.callbacks import Callback

        class End(Callback):
            def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
                done(outputs["loss"])

        trainer = build(*args, **settings)
        trainer.callbacks.append(End())
        return trainer

    fitting.build_trainer = built
    words = {
        "backbone": f"timm/{NAME}", "init": "scratch", "seeds": 0, "image_size": SIDE, "batch_size": BATCH,
        "scenes.train_size": 2 * BATCH, "scenes.val_size": BATCH, "accelerator": "cpu", "devices": 1,
        "jobs": 1, "out": folder, "progress": "false",
    }  # fmt: skip
    sys.argv = [str(RECIPE), *(word for name, value in words.items() for word in (f"--{name}", str(value)))]
    sys.path.insert(0, str(RECIPE.parent))
    runpy.run_path(str(RECIPE), run_name="__main__")


def theirs() -> None:
    """Take the first step of the same network on random images in a LightningModule of a few lines."""
    import lightning
    import timm
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    class Plain(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = timm.create_model(NAME, num_classes=CLASSES)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def on_train_batch_end(self, outputs: Any, *_: Any) -> None:
            done(outputs["loss"])

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    data = TensorDataset(torch.rand(BATCH, 3, SIDE, SIDE), torch.randint(CLASSES, (BATCH,)))
    lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False
    ).fit(Plain(), DataLoader(data, BATCH))


if __name__ == "__main__":
    theirs() if sys.argv[1] == "theirs" else ours(sys.argv[2])
