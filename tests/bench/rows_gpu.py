"""The rows for one CUDA device: `python -m tests.bench.run --gpu`, under 8 minutes on one card.

At size "tiny" every row runs on the CPU, which is a test that the code is whole; it says nothing of speed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from tests.bench.images import write_folder
from tests.bench.row import Row, Sides, Size, pick
from tests.bench.row_training_step import Batches, bare, ours
from visionkit.config import OptimConfig
from visionkit.data import (
    DataModule,
    PackSettings,
    classification_eval,
    classification_train,
    image_folder,
    open_pack,
    pack,
    stack_batch,
)  # fmt: skip
from visionkit.data.splits import Subset
from visionkit.data.transforms.batch import batch_transform
from visionkit.nn import Normalize
from visionkit.nn.captioning.beam_search import beam_search
from visionkit.nn.captioning.decoder import CaptionDecoder
from visionkit.nn.captioning.decoding import SpecialTokens
from visionkit.tasks import Classifier, Detector

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


def bf16() -> Any:
    return torch.autocast(DEVICE.type, dtype=torch.bfloat16)


def finite(one: Any, other: Any) -> None:
    """Networks with weights of their own agree in being finite and of one shape."""
    assert torch.as_tensor(one).isfinite().all()
    assert torch.as_tensor(other).isfinite().all()
    assert torch.as_tensor(one).shape == torch.as_tensor(other).shape


def on_device(fill: Callable[[Size], Sides]) -> Callable[[Size], Sides]:
    """Free the card's memory when a row is over."""

    def build(size: Size) -> Sides:
        sides = fill(size)

        def close() -> None:
            sides.close()
            if CUDA:
                torch.cuda.empty_cache()

        return Sides(sides.ours, sides.theirs, sides.equal, close, sides.facts)

    return build


def classifier(name: str, side: int, count: int, *, compiled: bool) -> tuple[Callable[[], Tensor], Tensor]:
    """Our task's step, as the policy would run it, over images on the device."""
    optim = OptimConfig(schedule="constant", warmup=0.0, optimizer="sgd")
    task = Classifier(f"torchvision/{name}", init="scratch", num_classes=1000, optim=optim)
    task = task.to(DEVICE, memory_format=torch.channels_last)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, device=DEVICE)
    images = images.contiguous(memory_format=torch.channels_last)
    batch = {"images": images, "labels": torch.randint(0, 1000, (count,), device=DEVICE)}
    move = torch.optim.SGD(task.parameters(), lr=1e-4, momentum=0.9, fused=True)
    if compiled:
        task.compile()

    def step(given: dict[str, Tensor] = batch) -> Tensor:
        with bf16():
            loss: Tensor = task.training_step(given, 0)["loss"]
        move.zero_grad(set_to_none=True)
        loss.backward()
        move.step()
        return loss.detach()

    return step, images


def bare_step(name: str, images: Tensor) -> Callable[[], Tensor]:
    """A loop of plain torch over the same network: channels last, bf16, fused SGD."""
    net = torchvision.models.get_model(name).to(DEVICE, memory_format=torch.channels_last)
    move = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, fused=True)
    labels = torch.randint(0, 1000, (len(images),), device=DEVICE)
    mean, std = torch.full((3, 1, 1), 0.45, device=DEVICE), torch.full((3, 1, 1), 0.22, device=DEVICE)

    def step() -> Tensor:
        with bf16():
            loss = F.cross_entropy(net((images.float() / 255 - mean) / std), labels)
        move.zero_grad(set_to_none=True)
        loss.backward()
        move.step()
        return loss.detach()

    return step


def training(*, compiled: bool) -> Callable[[Size], Sides]:
    """G1: synthetic images, beside a bare loop; the fact is the share of the card's own limit."""

    def build(size: Size) -> Sides:
        side, count = pick(size, tiny=(32, 2), quick=(224, 128), full=(224, 256))
        name = pick(size, tiny="resnet18", quick="resnet50", full="resnet50")
        step, images = classifier(name, side, count, compiled=compiled and size != "tiny")
        return Sides(step, bare_step(name, images), finite, facts=lambda: {"images a step": count})

    return on_device(build)


def fed(size: Size) -> Sides:
    """G2: the same from a pack of JPEGs over loader processes, beside images that are there already."""
    place = Path(tempfile.mkdtemp())
    side, count, workers = pick(size, tiny=(32, 2, 0), quick=(224, 128, 8), full=(224, 256, 16))
    root = write_folder(place / "photos", pick(size, tiny=4, quick=128, full=256))
    pack(image_folder(root), place / "pack", settings=PackSettings(), workers=workers)
    splits = open_pack(place / "pack")
    # An epoch is long enough for its beginning, when nothing is read ahead yet, to count for little.
    times = pick(size, tiny=1, quick=20, full=40)
    long = Subset(splits.train, list(range(len(splits.train))) * times)
    data = DataModule(
        dataclasses.replace(splits, train=long), batch_size=count, train_transform=classification_train(side),
        eval_transform=classification_eval(side), collate=stack_batch, workers=workers,
    )  # fmt: skip
    step, _ = classifier(
        pick(size, tiny="resnet18", quick="resnet50", full="resnet50"), side, count, compiled=False
    )
    loader = data.train_dataloader()

    def ours_once() -> Tensor:
        last = torch.zeros(())
        for batch in loader:
            moved = {key: batch[key].to(DEVICE, non_blocking=True) for key in ("images", "labels")}
            last = step(moved)
        return last

    def theirs_once() -> Tensor:
        return [step() for _ in range(len(data.train_order()))][-1]

    return Sides(ours_once, theirs_once, finite, close=lambda: shutil.rmtree(place, ignore_errors=True))


def small_steps(size: Size) -> Sides:
    """G3: steps of a tiny network under our Trainer, beside a bare loop (host-bound on any card)."""
    data, place = Batches(pick(size, tiny=4, quick=300, full=600)), Path(tempfile.mkdtemp())
    kind = "gpu" if CUDA else "cpu"
    return Sides(
        lambda: torch.tensor(list(ours(data, place, run=True, accelerator=kind).values())),
        lambda: torch.tensor(list(bare(data, DEVICE.type).values())), finite,
        close=lambda: shutil.rmtree(place, ignore_errors=True),
    )  # fmt: skip


def boxes_for(count: int, side: int) -> list[dict[str, Tensor]]:
    low = torch.rand(count, 8, 2) * side * 0.6
    boxes = torch.cat((low, low + side * (0.1 + 0.3 * torch.rand(count, 8, 2))), 2)
    return [{"boxes": b.to(DEVICE), "labels": torch.randint(0, 20, (8,), device=DEVICE)} for b in boxes]


def detector_training(size: Size) -> Sides:
    """G4: Faster R-CNN, ResNet-50 and a pyramid, 800 px, 16 images; torchvision under the same bf16."""
    side, count = pick(size, tiny=(64, 1), quick=(640, 8), full=(800, 16))
    name = "torchvision/resnet18" if size == "tiny" else "torchvision/resnet50"
    task = (
        Detector(name, init="scratch", num_classes=20).to(DEVICE, memory_format=torch.channels_last).train()
    )
    images, targets = list(torch.rand(count, 3, side, side, device=DEVICE)), boxes_for(count, side)
    net = torchvision.models.detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=21, min_size=side, max_size=side * 2
    )
    net = net.to(DEVICE).train()
    shifted = [{**target, "labels": target["labels"] + 1} for target in targets]
    batch = {"images": images, "targets": targets, "ids": [str(i) for i in range(count)]}

    def ours_once() -> Tensor:
        with bf16():
            loss: Tensor = task.training_step(batch, 0)["loss"]
        loss.backward()
        task.zero_grad(set_to_none=True)
        return loss.detach()

    def theirs_once() -> Tensor:
        with bf16():
            loss: Tensor = sum(net(images, shifted).values())  # type: ignore[assignment]
        loss.backward()
        net.zero_grad(set_to_none=True)
        return loss.detach()

    return Sides(ours_once, theirs_once, finite)


def detector_inference(num_images: int) -> Callable[[Size], Sides]:
    """G5: what a detector finds, one image or sixteen."""

    def build(size: Size) -> Sides:
        side, count = pick(size, tiny=(64, 1), quick=(640, num_images), full=(800, num_images))
        name = pick(
            size, tiny="torchvision/resnet18", quick="torchvision/resnet50", full="torchvision/resnet50"
        )
        task = (
            Detector(name, init="scratch", num_classes=20)
            .to(DEVICE, memory_format=torch.channels_last)
            .eval()
        )
        net = torchvision.models.detection.fasterrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=21, min_size=side, max_size=side * 2
        )
        net = net.to(DEVICE).eval()
        images = list(torch.rand(count, 3, side, side, device=DEVICE))

        def ours_once() -> Tensor:
            with torch.inference_mode(), bf16():
                return torch.tensor(float(len(task.predict_step(images))))

        def theirs_once() -> Tensor:
            with torch.inference_mode(), bf16():
                return torch.tensor(float(len(net(images))))

        return Sides(ours_once, theirs_once, finite)

    return on_device(build)


def captions(size: Size) -> Sides:
    """G6: beam search over all images at once, beside a search an image (the same sentences)."""
    count, words, width = pick(size, tiny=(2, 30, 16), quick=(8, 10_000, 512), full=(32, 10_000, 512))
    torch.manual_seed(0)
    decoder = CaptionDecoder(
        "show_and_tell", channels=width, words=words, embed=width, hidden=width, attention=width, dropout=0.0
    )
    decoder = decoder.to(DEVICE).eval()
    grid = torch.randn(count, 1, width, device=DEVICE)
    special_tokens = SpecialTokens()

    def search(part: Tensor) -> Tensor:
        with torch.inference_mode():
            memory, state = decoder.start(part)
            found = beam_search(
                lambda tokens, now: decoder.step(tokens, now, memory),
                state,
                special_tokens=special_tokens,
                beams=5,
                max_length=20,
            )
        return F.pad(found.tokens[:, 0], (0, 20 - found.tokens.shape[-1]))

    return Sides(
        lambda: search(grid), lambda: torch.cat([search(grid[i : i + 1]) for i in range(count)]), finite
    )


def batch_stage(size: Size) -> Sides:
    """G7: mirror, mixup and normalise on the device, beside one copy of its bytes to floats."""
    count = pick(size, tiny=2, quick=128, full=256)
    images = torch.randint(0, 256, (count, 3, 224, 224), dtype=torch.uint8, device=DEVICE)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (count,), device=DEVICE)
    normalize = Normalize((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).to(DEVICE)
    augment, rng = batch_transform("flip", "mixup"), torch.Generator().manual_seed(0)
    floats = torch.empty(images.shape, device=DEVICE)

    def ours_once() -> Tensor:
        return normalize(augment({"images": images, "labels": labels}, rng)["images"])  # type: ignore[misc]

    def theirs_once() -> Tensor:
        return floats.copy_(images)

    return Sides(ours_once, theirs_once, finite)


def counted(size: Size) -> Sides:
    """G8: a step with its counters, beside the same step without; with them no step waits for the host."""
    side, count = pick(size, tiny=(32, 2), quick=(224, 64), full=(224, 256))
    name = pick(size, tiny="resnet18", quick="resnet50", full="resnet50")
    step, _ = classifier(name, side, count, compiled=False)
    task: Any = step.__closure__ and next(
        cell.cell_contents for cell in step.__closure__ if isinstance(cell.cell_contents, nn.Module)
    )

    def without() -> Tensor:
        task._log_training, task._hits = lambda **sums: None, lambda *labels: None
        try:
            return step()
        finally:
            del task._log_training, task._hits

    def strict() -> Tensor:
        if CUDA:
            torch.cuda.set_sync_debug_mode("error")
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: CUDA and torch.cuda.set_sync_debug_mode("default"))
            return step()

    return Sides(strict, without, finite)


def row(name: str, peer: str, build: Callable[[Size], Sides], goal: float, limit: str, **more: Any) -> Row:
    more = {"rounds": 5, **more}
    return Row(name, peer, build, goal=goal, limit=limit, device="gpu", clock="wall", **more)


ROWS = (
    row("G1 ResNet-50 training, eager", "bare loop, same layout and precision", training(compiled=False),
        1.02, "memory traffic of batch norm", at_most=True),
    row("G1 ResNet-50 training, compiled", "bare loop, eager", training(compiled=True), 1.2,
        "memory traffic of activations"),
    row("G2 ResNet-50 training, fed from a pack", "images on the device already", on_device(fed), 1.11,
        "decoding on the host's cores", at_most=True, rounds=3),
    row("G3 tiny steps under the Trainer", "bare loop", on_device(small_steps), 1.7, "Lightning's loop",
        at_most=True),
    row("G4 Faster R-CNN training", "torchvision, bf16", on_device(detector_training), 1.3, "the network",
        package="torchvision"),
    row("G5 Faster R-CNN inference, 1 image", "torchvision, bf16", detector_inference(1), 1.2,
        "the network", package="torchvision"),
    row("G5 Faster R-CNN inference, 16 images", "torchvision, bf16", detector_inference(16), 1.5,
        "the network", package="torchvision"),
    row("G6 beam search, all images at once", "a search an image", on_device(captions), 5.0,
        "a decoder's step"),
    row("G7 mirror, mixup, normalise", "one copy of bytes to floats", on_device(batch_stage), 6.0,
        "reads and writes of the batch", at_most=True),
    row("G8 a step with counters", "the step without", on_device(counted), 1.01, "nothing waits for the host",
        at_most=True),
)  # fmt: skip
