"""What turns images into vectors: a backbone of the registry, or what was trained for any task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.backbones import create_encoder, describe_backbone
from visionkit.backbones.weights import weights_digest
from visionkit.data.transforms.saved import transform_from
from visionkit.errors import DataError, InputError, expected, unknown_name
from visionkit.files import file_digest
from visionkit.nn.normalize import Normalize
from visionkit.predict.kinds import default_preprocess
from visionkit.predict.loaded import load_task
from visionkit.predict.predictor import Predictor
from visionkit.predict.trained_files import check_backbone
from visionkit.rng import seeded
from visionkit.run.config import RunConfig
from visionkit.run.training.device_policy import choose_policy
from visionkit.tasks import Embedder
from visionkit.tasks.embedding.prediction import EmbeddingPrediction
from visionkit.tasks.image_spec import ImageSpec

__all__ = ["VectorModel", "check_encoder", "encoder_from", "load_encoder"]

PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class VectorModel:
    """A network as a `Model` of `Predictor`, whose predictions are vectors.

    Args:
        net: Gives vectors `(B, D)`, or maps, the coarsest of which is averaged, for normalised images.
        normalize: Normalises images `(B, 3, H, W)` uint8.
        device: "auto", "cpu", "gpu" or "mps".
        precision: "32-true", "bf16-mixed" or "16-mixed".
    """

    def __init__(self, net: nn.Module, normalize: nn.Module, *, device: str, precision: str) -> None:
        if precision not in PRECISIONS:
            raise unknown_name("precision", precision, PRECISIONS)
        self.policy = choose_policy(RunConfig(accelerator=device, precision=precision), net)
        self.net = net.to(self.policy.device).eval()
        if self.policy.channels_last:
            self.net.to(memory_format=torch.channels_last)
        self.normalize = normalize.to(self.policy.device)
        self._dtype = PRECISIONS[precision]

    @torch.inference_mode()
    def predict(
        self, images: list[Tensor], sizes: list[tuple[int, int]], ids: Sequence[str]
    ) -> list[EmbeddingPrediction]:
        """Return one vector `(D,)` float32 an image, as the network gives it, of any length.

        Args:
            images: `(3, H, W)` uint8, resized for the network, all of one size.
            sizes: `(H, W)` of the originals.
            ids: One name an image.
        """
        device = self.policy.device
        cast = nullcontext() if self._dtype is None else torch.autocast(device, dtype=self._dtype)
        with cast:
            vectors = self.net(self.normalize(torch.stack(images).to(device)))
        if not isinstance(vectors, Tensor):
            vectors = vectors[-1].float().mean((2, 3))  # (B, C, h, w) -> (B, C)
        return [EmbeddingPrediction(*each) for each in zip(vectors.float().cpu(), ids, strict=True)]


def load_encoder(
    source: str | Path,
    *,
    init: str = "pretrained",
    image_size: int = 0,
    device: str = "auto",
    precision: str = "32-true",
    which: str = "best",
) -> Predictor:
    """Return what gives the vector of an image; its `facts` say what it is, down to a digest of its weights.

    Args:
        source: A backbone's name (`visionkit.backbones.list_backbones`): its pooled features. Or a run, a
            folder of runs, a checkpoint or a published folder: an `Embedder` gives its vectors of length 1,
            any other task the pooled features of its encoder.
        init: For a backbone: "pretrained", "scratch" (seed 0), or a file of weights.
        image_size: Side of the images in pixels; 0: that of the weights, or of the training.
        device: "auto", "cpu", "gpu" or "mps".
        precision: "32-true", "bf16-mixed" or "16-mixed". Vectors of two precisions differ a little, so an
            index keeps to one.
        which: For a run: "best" or "last".

    Raises:
        InputError: There is no such backbone and nothing by this name, or the weights cannot be had.
        DataError: A checkpoint is damaged.
    """
    if image_size < 0:
        raise InputError(expected("image_size", "a side in pixels, or 0", image_size))
    if Path(source).exists():
        net, normalize, facts, notes = _trained(source, image_size, which)
    else:
        net, normalize, facts = _backbone(str(source), init, image_size)
        notes = []
    facts |= {"precision": precision, "digest": weights_digest([net])}
    model = VectorModel(net, normalize, device=device, precision=precision)
    return Predictor(
        model,
        facts=facts,
        kind="embedding",
        class_names=(),
        transform=transform_from(facts["preprocess"]),
        notes=notes,
    )


def encoder_from(facts: Mapping[str, Any], *, source: str = "", device: str = "auto") -> Predictor:
    """Return the encoder of an index again, and refuse one whose weights differ.

    Args:
        facts: Those of the encoder that made the index.
        source: Where a run is now, if it was moved; or the backbone that is expected.
        device: "auto", "cpu", "gpu" or "mps".

    Raises:
        InputError: It is another encoder, or its run is no longer there.
    """
    name = source or str(facts["source"])
    if not Path(name).exists() and facts["kind"] != "backbone":
        fix = "Say with --backbone where it is now."
        raise InputError(f"Expected the {facts['kind']} that made the index at {name}, but it is gone. {fix}")
    same_kind = Path(name).exists() == (facts["kind"] != "backbone")
    if not same_kind or (facts["kind"] == "backbone" and name != facts["source"]):
        raise InputError(f"Expected {facts['source']}, which made the index, but got {name!r}.")
    side = int(facts["image_size"])
    made = load_encoder(
        name,
        init=str(facts["init"]),
        image_size=side,
        device=device,
        precision=str(facts["precision"]),
        which=str(facts["which"]),
    )
    check_encoder(made.facts, facts)
    return made


def check_encoder(facts: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse an encoder whose vectors cannot be compared with those of an index.

    Args:
        facts: The encoder's.
        known: Those of the encoder that made the index.

    Raises:
        InputError: They differ; both are named.
    """
    for name, what in (
        ("digest", "weights (by their SHA-256)"), ("preprocess", "preprocessing"), ("precision", "precision"),
    ):  # fmt: skip
        if facts[name] != known[name]:
            raise InputError(
                f"Expected the encoder that made the index, {known['source']} with the {what} "
                f"{known[name]}, but {facts['source']} has {facts[name]}. Vectors of two encoders cannot be "
                "compared: take the same one, or make a new index."
            )


def _backbone(name: str, init: str, image_size: int) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    check_backbone(name)
    side = image_size or max(describe_backbone(name).input_size)
    with seeded(0):
        net = create_encoder(
            name, init=init, image_size=ImageSpec(image_size=image_size or None).size_to_build(name)
        )
    facts = {
        "kind": "backbone",
        "source": name,
        "init": init,
        "which": "best",
        "weights": net.weights.as_dict(),
        "image_size": image_size,
        "preprocess": {"name": "CenterCrop", "size": side, "fraction": 1.0},
    }
    return net, Normalize(net.mean, net.std), facts


def _trained(
    path: str | Path, image_size: int, which: str
) -> tuple[nn.Module, nn.Module, dict[str, Any], list[str]]:
    loaded = load_task(path, which=which)
    task, trained = loaded.task, loaded.facts.get("preprocess")
    notes = [loaded.note] if loaded.note else []
    preprocess = trained or default_preprocess(task)
    if trained is None:
        notes.append(f"The checkpoint does not say how images are resized; {preprocess} is used.")
    if image_size or preprocess["name"] != "CenterCrop":
        side = image_size or max(task.hparams.get("image_size") or [224])
        notes.append(f"Images are cropped to a square of {side} pixels, in place of {preprocess}.")
        preprocess = {"name": "CenterCrop", "size": int(side), "fraction": 1.0}
    facts = {
        "kind": type(task).__name__,
        "source": str(Path(path).absolute()),
        "init": "",
        "which": which,
        "weights": {"file": loaded.checkpoint.name, "digest": file_digest(loaded.checkpoint)},
        "image_size": image_size,
        "preprocess": dict(preprocess),
    }
    if task.hparams.get("in_channels", 3) != 3:
        raise DataError(
            "Expected a task of images in RGB, but it has other channels.", path=loaded.checkpoint
        )
    if isinstance(task, Embedder):
        return task, nn.Identity(), facts, notes
    return task.backbone, task.normalize, facts, notes
