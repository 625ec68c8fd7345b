"""What is looked at: a backbone by name, or a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from visionkit.backbones.create import create_encoder
from visionkit.backbones.registry import resolve
from visionkit.backbones.sources.base import ModelSpec
from visionkit.backbones.tracing import on_meta_device
from visionkit.errors import InputError
from visionkit.nn.normalize import Normalize
from visionkit.predict.kinds import default_preprocess
from visionkit.predict.loaded import load_task
from visionkit.predict.trained_files import check_backbone
from visionkit.types import Init

__all__ = ["Subject", "open_subject", "whole_network"]


@dataclass
class Subject:
    """A network that is looked at.

    Args:
        name: The backbone, or the run's folder.
        network: Takes normalised images `(B, C, H, W)`; its layers are those that can be named.
        normalize: Images in [0, 1] to what the network takes.
        image_size: `(height, width)` of the images that it is made for.
        task: The task of a run; None for a backbone.
        head: Classes of a pretrained backbone from its vectors; None where it has no linear classifier.
        class_names: Names of the classes; empty where they are not known.
        note: Which of several runs was taken; empty where there was one.
    """

    name: str
    network: nn.Module
    normalize: Normalize
    image_size: tuple[int, int]
    task: Any = None
    head: nn.Module | None = None
    class_names: Sequence[str] = ()
    note: str = ""

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return int(self.normalize.mean.shape[0])

    @property
    def kind(self) -> str:
        """The class of a run's task; empty for a backbone."""
        return "" if self.task is None else type(self.task).__name__

    def inputs(self, image: Tensor) -> Tensor:
        """Return an image `(C, H, W)` in [0, 1] as a normalised batch `(1, C, H, W)`."""
        return (image[None] - self.normalize.mean) / self.normalize.std

    def allowed_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the nearest size whose sides the network can divide.

        Args:
            height: In pixels.
            width: In pixels.
        """
        divisor = int(getattr(self.network, "size_divisor", 1))
        return (max(1, round(height / divisor)) * divisor, max(1, round(width / divisor)) * divisor)

    def fit(self, image: Tensor, size: int = 0) -> Tensor:
        """Return an image as floats in [0, 1] of a size that the network takes.

        Args:
            image: `(C, H, W)`, uint8 or float in [0, 1].
            size: Of the longer side; 0 for the side that the network is made for. Networks of a fixed size
                get theirs, and the image is stretched.

        Raises:
            InputError: The network takes one size only, and this is another.
        """
        image = image[None].float() / 255 if image.dtype == torch.uint8 else image[None].float()
        fixed = getattr(self.network, "fixed_size", None)
        if fixed and size and size not in fixed:
            raise InputError(
                f"{self.name!r} takes images of {fixed[0]}x{fixed[1]} only, not {size}. Leave size out."
            )
        height, width = fixed or self.image_size
        if not fixed:
            scale = (size or max(self.image_size)) / max(image.shape[-2:])
            height, width = (max(1, round(side * scale)) for side in image.shape[-2:])
            height, width = self.allowed_size(height, width)
        fitted = F.interpolate(image, (height, width), mode="bilinear", antialias=True, align_corners=False)
        return fitted[0].clamp(0, 1)

    def __call__(self, images: Tensor) -> Any:
        """Return what the network gives for images `(B, C, H, W)` in [0, 1]."""
        return self.network(self.normalize(images))


def open_subject(name: str | Path, *, init: Init = "pretrained") -> Subject:
    """Open a backbone by its name, or what a run trained.

    Args:
        name: As in `visionkit ls backbones`; or a run, a folder of runs, a checkpoint, a published folder.
        init: Weights of a backbone: "pretrained", "scratch", their name or a path. A run has its own.

    Returns:
        The network in evaluation mode; its parameters take no gradient.

    Raises:
        InputError: There is neither, or the weights cannot be had.
    """
    if Path(name).exists():
        loaded = load_task(name)
        task = loaded.task.eval().requires_grad_(False)
        sides = _trained_size(task, loaded.facts.get("preprocess"))
        names = tuple(getattr(task, "class_names", None) or ())
        note = loaded.note or ""
        return Subject(
            str(name), task.backbone, task.normalize, sides, task=task, class_names=names, note=note
        )
    check_backbone(str(name))
    encoder = create_encoder(str(name), init=init).eval().requires_grad_(False)
    source, spec = resolve(str(name), ModelSpec(""))
    size = source.pretrained_cfg(spec).input_size
    normalize = Normalize(encoder.mean, encoder.std)
    head = _frozen(encoder.pretrained_head())
    classes = _imagenet_classes() if getattr(head, "out_features", 0) == 1000 else ()
    return Subject(str(name), encoder, normalize, size, head=head, class_names=classes)


def _trained_size(task: Any, preprocess: Mapping[str, Any] | None) -> tuple[int, int]:
    """Return the size of the images that a task saw: of its crop, or the short side; 224 where it is any."""
    described = preprocess or default_preprocess(task)
    resize = described.get("resize")
    given = resize.get("size") if isinstance(resize, Mapping) else described.get("size")
    size = given or task.hparams.get("image_size") or 224
    return (int(size), int(size)) if isinstance(size, int | float) else (int(size[0]), int(size[1]))


def _frozen(head: nn.Module | None) -> nn.Module | None:
    return None if head is None else head.eval().requires_grad_(False)


def _imagenet_classes() -> tuple[str, ...]:
    """Return the names of ImageNet's thousand classes, in the order of every classifier of them."""
    return tuple(torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"])


def whole_network(name: str | Path) -> tuple[nn.Module, tuple[int, int], int]:
    """Return a whole network as it was published, with its classifier, without weights or memory.

    Args:
        name: As for `open_subject`.

    Returns:
        The network, the image size that it is made for, and the channels of its images. Of a classifier's run
        it is the whole task, of others the backbone.
    """
    if Path(name).exists():
        subject = open_subject(name)
        classifier = type(subject.task).__name__ == "Classifier"
        network = nn.Sequential(subject.network, subject.task.head) if classifier else subject.network
        return network, subject.image_size, subject.channels
    check_backbone(str(name))
    source, spec = resolve(str(name), ModelSpec(""))
    network = on_meta_device(lambda: source.build(spec, None))
    return network.eval(), cast("tuple[int, int]", tuple(source.pretrained_cfg(spec).input_size)), 3
