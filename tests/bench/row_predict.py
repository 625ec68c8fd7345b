"""From image files to predictions, beside the loop that one writes by hand: read, resize, predict."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from tests.bench.images import write_folder
from tests.bench.row import Row, Sides, Size, close, pick
from visionkit.data import classification_eval
from visionkit.predict import Predictor
from visionkit.predict.predictor import TaskModel
from visionkit.run.config import RunConfig
from visionkit.run.training.device_policy import choose_policy
from visionkit.tasks import Classifier

NETWORK = "packaged/efficientnet_lite0"
CLASSES = 1000


def make_predictor(side: int, precision: str) -> Predictor:
    """The predictor of a trained network, as `visionkit.predict.load` makes it of a checkpoint."""
    task = Classifier(NETWORK, init="pretrained", num_classes=CLASSES, head="pretrained")
    policy = choose_policy(RunConfig(accelerator="cpu", precision=precision, image_size=side), task)
    return Predictor(
        TaskModel(task, policy),
        facts={},
        kind="classification",
        class_names=[str(number) for number in range(CLASSES)],
        transform=classification_eval(side),
    )


def one_by_one(files: list[Path], side: int) -> Callable[[], Tensor]:
    """The loop by hand, in 32 bits, over the same network."""
    task = Classifier(NETWORK, init="pretrained", num_classes=CLASSES, head="pretrained").eval()
    resize = v2.Resize((side, side), antialias=True)

    @torch.inference_mode()
    def once() -> Tensor:
        rows = []
        for file in files:
            image = decode_image(str(file), ImageReadMode.RGB)
            square = v2.functional.center_crop(image, [min(image.shape[-2:])])
            rows.append(task(resize(square)[None]).softmax(1)[0])
        return torch.stack(rows)

    return once


def alike(atol: float) -> Callable[[Tensor, Tensor], None]:
    """Equal within `atol`, and images far enough apart for that to say something."""

    def equal(ours: Tensor, theirs: Tensor) -> None:
        close(atol=atol)(ours, theirs)
        apart = (theirs[0] - theirs[1]).abs().max()
        assert apart > 4 * atol, f"the images' probabilities are {apart:.3f} apart"

    return equal


def predicting(precision: str, atol: float) -> Callable[[Size], Sides]:
    def build(size: Size) -> Sides:
        place = Path(tempfile.mkdtemp())
        side, count = pick(size, tiny=(96, 3), quick=(224, 40), full=(224, 200))
        root = write_folder(place / "photos", count, height=480, width=640) / "train"
        files = sorted(root.rglob("*.jpg"))
        predictor = make_predictor(side, precision)

        def ours() -> Tensor:
            return torch.stack([result.prediction.probabilities for result in predictor.stream(root)])

        return Sides(
            ours, one_by_one(files, side), alike(atol), close=lambda: shutil.rmtree(place, ignore_errors=True)
        )

    return build


PEER = "torchvision reads, one at a time, eager fp32"
ROWS = (
    Row("predict from files, default policy", PEER, predicting("auto", 0.05), goal=2.0, clock="wall",
        limit="the slower of decoding on the other cores and the network", package="torchvision", rounds=5,
        note="Threads decode beside the network. For a quiet machine of two cores or more."),
    Row("predict from files, 32 bits", PEER, predicting("32-true", 1e-4), goal=2.0, clock="wall",
        limit="the network", package="torchvision", rounds=5, note="As the row above, at equal precision."),
)  # fmt: skip
