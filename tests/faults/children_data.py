"""What the battery's children do with data: orders, scores, samples left out, hostile files and images."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import resource
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from tests.faults.children import StopAt, StopError, tiny_trainer
from tests.nn.detectors import TinySource
from tests.run.tiny import TinyTask, tiny_data
from visionkit.config import TransferConfig
from visionkit.errors import InputError
from visionkit.run.callbacks.skipped_samples import SkippedSamples
from visionkit.run.config import RunConfig
from visionkit.run.storage.checkpoint import newest_good
from visionkit.run.training.trainer import build_trainer


class SeenInValidation(TinyTask):
    def __init__(self) -> None:
        super().__init__()
        self.indices: list[int] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.indices += [int(name.rsplit("-", 1)[1]) for name in batch["ids"]]
        super().validation_step(batch, batch_idx)


def orders(folder: str, world: int, workers: int, sizes: list[tuple[int, int, str]]) -> dict[str, Any]:
    """Train with a stop in between; tell the indices that this process saw."""
    told: dict[str, Any] = {}
    for size, valid, sampler in sizes:
        place = Path(folder) / str(size)
        steps: dict[int, list[int]] = {}
        for stop in (StopAt("end", 2), None):
            torch.manual_seed(0)
            task = SeenInValidation()
            trainer = tiny_trainer(place, *([stop] if stop else []), world=world, epochs=3, every=1)
            data = tiny_data(size, 12 // world, workers=workers, valid=valid, sampler=sampler)
            with contextlib.suppress(StopError):
                trainer.fit(task, datamodule=data, ckpt_path=newest_good(place, report=print))
            for ready, ids, _ in task.seen:
                seen = [int(name.rsplit("-", 1)[1]) for name in ids]
                if steps.setdefault(ready, seen) != seen:
                    raise AssertionError(f"step {ready} was another one when taken again")
        told[str(size)] = {"train": [steps[n] for n in sorted(steps)], "val": []}
        share = len(range(int(os.environ["RANK"]), valid, world))
        told[str(size)]["val"] = task.indices[len(task.indices) - share :]
    try:
        trainer = tiny_trainer(Path(folder) / "fewer", world=world)
        trainer.fit(TinyTask(), datamodule=tiny_data(max(1, world - 1), 1))
        told["fewer"] = "trained"
    except InputError as error:
        told["fewer"] = str(error)
    return told


def scores(world: int, workers: int, sizes: list[int]) -> dict[str, dict[str, float]]:
    """Score three tasks with fixed weights on validation sets of awkward sizes."""
    from visionkit.data import DataModule, Scenes, list_batch, mask_batch, stack_batch
    from visionkit.data.splits import Splits
    from visionkit.task_config import RCNNConfig
    from visionkit.tasks import Classifier, Detector, Segmenter

    rcnn = RCNNConfig(
        head_width=32, proposals_train=50, proposals_eval=30, anchor_scales=(4.0,), score_threshold=0.0
    )
    group = TransferConfig(norm="group")
    makers: dict[str, tuple[Any, Any]] = {
        "classification": (
            lambda n: Classifier("timm/test_resnet", init="scratch", num_classes=n),
            stack_batch,
        ),
        "segmentation": (
            lambda n: Segmenter("timm/test_resnet", init="scratch", num_classes=n, channels=8),
            mask_batch,
        ),
        "detection": (
            lambda n: Detector(
                TinySource(), init="scratch", num_classes=n, rcnn=rcnn, pyramid_channels=16, transfer=group
            ),
            list_batch,
        ),
    }
    told: dict[str, dict[str, float]] = {}
    for name, (make, collate) in makers.items():
        for size in sizes:
            valid = Scenes(name, split="val", count=size, size=64)
            splits = Splits(valid, valid, None, tuple(f"c{i}" for i in range(11)), name, {})
            data = DataModule(
                splits,
                batch_size=1,
                train_transform=_keep,
                eval_transform=_keep,
                collate=collate,
                workers=workers,
            )
            torch.manual_seed(0)
            task = make(11)
            settings = {"accelerator": "cpu", "precision": "32-true", "progress": False}
            if world > 1:
                settings |= {"devices": str(world), "strategy": "ddp"}
            trainer = build_trainer(RunConfig(**settings), folder=".", max_epochs=1)
            logged = trainer.validate(task, datamodule=data, verbose=False)[0]
            told[f"{name} {size}"] = {
                key: float(value) for key, value in logged.items() if float(value) == float(value)
            }
    return told


def _keep(sample: Any, rng: torch.Generator) -> Any:
    return sample


def skipping(
    folder: Path, stop: Callback | None, world: int, workers: int
) -> tuple[TinyTask, dict[str, Any]]:
    """Train over a data set with unreadable samples; return the task and what was left out."""
    from tests.faults.test_skips import BAD, Broken

    torch.manual_seed(0)
    task = TinyTask()
    trainer = tiny_trainer(
        folder, SkippedSamples(folder / "faults"), *([stop] if stop else []), world=world, epochs=3
    )
    data = tiny_data(32, 8 // world, workers=workers)
    data.train_data.reader = Broken(32, 1, BAD)
    data.splits = dataclasses.replace(data.splits, val=Broken(11, 2, (2,)))
    data.skip_unreadable(limit=0.1)
    with contextlib.suppress(StopError):
        trainer.fit(task, datamodule=data, ckpt_path=newest_good(folder, report=print))
    return task, data.skipped_counts()


def skipping_on_ranks(folder: str) -> dict[str, Any]:
    """Leave samples out in two processes; tell what both know, and whether the order is that of one."""
    task, counts = skipping(Path(folder), None, 2, 0)
    parts: list[Any] = [None, None]
    torch.distributed.all_gather_object(parts, [ids for _, ids, _ in task.seen])
    joined = [first + second for first, second in zip(*parts, strict=True)]
    from tests.faults.test_skips import BAD, Broken
    from visionkit.data.keyed_dataset import KeyedDataset
    from visionkit.data.samplers import TrainBatchSampler

    data = KeyedDataset(Broken(32, 1, BAD), _keep, seed=5, on_error="replace")
    order, wanted = TrainBatchSampler(32, batch_size=8, seed=5), []
    for epoch in range(3):
        for batch in order.global_batches(epoch):
            read = [data[(epoch, index)] for index in batch]
            wanted.append([getattr(sample, "replacement", sample)["id"] for sample in read])
    return {"counts": counts, "same order": joined == wanted}


def load_hostile(folder: str, names: list[str], urls: list[str], every: int) -> dict[str, Any]:
    """Give hostile files (each, or each second ...) to the named functions; tell which were executed."""
    from tests.faults.hostile import lay, payloads
    from tests.faults.loaders import attempts, entries

    warnings.simplefilter("ignore")
    marker = Path(os.environ["VISIONKIT_MARKER"])
    os.chdir(tempfile.mkdtemp(dir=folder))  # what an address is taken for, a relative path, is seen here
    top = Path(tempfile.mkdtemp(dir=folder))
    found, tried, ran = entries(), 0, []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    places: dict[str, tuple[Path | str, Path | str]] = {}
    for number, (kind, data) in enumerate(payloads(marker).items()):
        own = top / str(number)
        own.mkdir()
        (own / "x.bin").write_bytes(data)
        (own / "link").symlink_to(own / "x.bin")
        lay(own / "laid", own / "x.bin")
        places[kind] = ((own / "link") if number % 3 == 0 else (own / "x.bin"), own / "laid")
    places |= {url: (url, url) for url in urls}
    for shift, name in enumerate(names):
        for kind, (file, laid) in list(places.items())[shift % every :: every]:
            for attempt in attempts(found[name], file, laid):
                with (
                    contextlib.suppress(Exception, SystemExit),
                    contextlib.redirect_stdout(io.StringIO()),
                    contextlib.redirect_stderr(io.StringIO()),
                ):
                    attempt()
                tried += 1
                if marker.exists():
                    ran.append(f"{name}: {kind}")
                    marker.rmdir()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"tried": tried, "ran": ran, "grown": grown, "left": sorted(map(str, Path().iterdir()))}


def detect_faults() -> list[list[Any]]:
    """Give every faulty target to the detector's training step; tell what it said."""
    from tests.data.test_boxes import CASES
    from visionkit.errors import DataError
    from visionkit.tasks import Detector

    torch.manual_seed(0)
    group = TransferConfig(norm="group")
    task = Detector(TinySource(), init="scratch", num_classes=3, pyramid_channels=16, transfer=group)
    told = []
    for name, (image, target, *_) in CASES.items():
        before = [value.clone() for value in task.state_dict().values()]
        said = ""
        try:
            task.training_step({"images": [image], "targets": [target], "ids": ["cell_17"]}, 0)
        except DataError as error:
            said = str(error)
        same = all(torch.equal(a, b) for a, b in zip(before, task.state_dict().values(), strict=True))
        told.append([name, said, same])
    return told


def decode_mutants(folder: str, seed: int, count: int) -> dict[str, int]:
    """Decode images with a few bits changed; tell how many were decoded, refused, and the slowest."""
    import numpy as np
    from PIL import Image

    from visionkit.data.read_image import read_image
    from visionkit.errors import DataError

    rng, place = np.random.default_rng(seed), Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    kinds, whole = ("png", "jpg", "webp", "gif", "bmp", "tif"), []
    for kind in kinds:
        pixels = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"whole.{kind}")
        whole.append((place / f"whole.{kind}").read_bytes())
    told, slowest = {"decoded": 0, "refused": 0}, 0.0
    warnings.simplefilter("ignore")
    for number in range(count):
        data = bytearray(whole[number % len(kinds)])
        for spot in rng.integers(0, len(data), 1 if number // len(kinds) % 2 else 16):
            data[spot] ^= 1 << int(rng.integers(8))
        (place / "mutant").write_bytes(data)
        began = time.process_time()
        try:
            read_image(place / "mutant")
            told["decoded"] += 1
        except DataError:
            told["refused"] += 1
        slowest = max(slowest, time.process_time() - began)
    return {**told, "slowest": round(1000 * slowest), "megabytes": _peak()}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
