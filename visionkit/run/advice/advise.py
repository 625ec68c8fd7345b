"""`advise`: a transfer policy with reasons, from the amount of data and its similarity to ImageNet."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from visionkit.config import TransferConfig
from visionkit.errors import InputError, expected, unknown_name
from visionkit.types import Init

__all__ = ["LITTLE", "PARITY_IMAGES", "Advice", "Reason", "Scratch", "Similarity", "advise"]

LITTLE = 50
"""Up to so many images a class are little data."""
PARITY_IMAGES = 10_000
"""With so many images and more of COCO scratch reached the pretrained score (He et al.)."""

Similarity = Literal["similar", "different"]
Scratch = Literal["no", "if trained longer", "yes"]


@dataclass(frozen=True)
class Reason:
    """A reason for a part of the advice.

    Args:
        text: The reason.
        measured: Where a measurement backs it: this project's page, or the paper; empty for a rule of thumb.
    """

    text: str
    measured: str = ""


@dataclass(frozen=True)
class Advice:
    """A transfer policy with its reasons.

    Args:
        init: The recommended `init`.
        transfer: The policy.
        reasons: The reasons, each with its measurement if there is one.
        scratch: Whether an arm from scratch is worth a try.
        schedules: For `--schedules`: lengths to train at, as multiples of the recipe's.
    """

    init: Init
    transfer: TransferConfig
    reasons: tuple[Reason, ...]
    scratch: Scratch
    schedules: tuple[int, ...]

    @property
    def flags(self) -> str:
        """The flags of a recipe that the advice comes to."""
        plain = TransferConfig()
        given = [
            f"--transfer.{each.name} {value}"
            for each in fields(TransferConfig)
            if (value := getattr(self.transfer, each.name)) != getattr(plain, each.name)
        ]
        arms = self.init if self.scratch == "no" else "both"
        return " ".join([f"--init {arms}", "--schedules", *map(str, self.schedules), *given])

    def __str__(self) -> str:
        lines = [f"advised: {self.flags}", f"scratch worth a try: {self.scratch}"]
        for reason in self.reasons:
            lines.append(f"- {reason.text} [{reason.measured or 'rule of thumb, not measured here'}]")
        return "\n".join(lines)


def advise(
    *,
    images_per_class: float | None = None,
    images: int | None = None,
    num_classes: int | None = None,
    similarity: Similarity = "similar",
) -> Advice:
    """Return a policy for little or much data that is similar to, or different from, the pretraining data.

    The table is the usual one of transfer-learning lectures (Stanford CS231n): little and similar, a linear
    classifier on the last features; little and different, one on earlier features; much and similar,
    fine-tune a few layers or all; much and different, fine-tune all. It is a starting point:
    `visionkit compare` measures. Scratch is worth a try with much data, and then at up to 4 times the length:
    it took 2 to 3 times as long to catch up where it did (He et al.).

    Args:
        images_per_class: Training images a class; up to 50 are little.
        images: Number of training images, with `num_classes` in place of `images_per_class`.
        num_classes: Number of classes.
        similarity: Whether the images are like those that the weights were trained on.

    Raises:
        InputError: The amount of data is not given, or not above 0.
    """
    if images_per_class is None and images is not None and num_classes:
        images_per_class = images / num_classes
    if images_per_class is None:
        raise InputError("Expected images_per_class, or images and num_classes, but got neither. Give one.")
    if images_per_class <= 0:
        raise InputError(expected("images_per_class", "above 0", images_per_class))
    if similarity not in ("similar", "different"):
        raise unknown_name("similarity", similarity, ("similar", "different"))
    little, near = images_per_class <= LITTLE, similarity == "similar"
    transfer, scratch, text = _TABLE[little, near]
    reasons = [
        Reason(text),
        Reason(f"{images_per_class:g} images a class count as {'little' if little else 'much'}."),
    ]
    if not little:
        reasons.append(
            Reason(
                "With enough data and training time scratch reaches the pretrained score: compare both.",
                f"He, Girshick, Dollar 2018, arXiv 1811.08883: parity on COCO from {PARITY_IMAGES:,} images",
            )
        )
    else:
        reasons.append(
            Reason(
                "With little data scratch stays behind, however long it trains.",
                "He, Girshick, Dollar 2018, arXiv 1811.08883: 1k COCO images, 9.9 against 3.5 AP",
            )
        )
    return Advice("pretrained", transfer, tuple(reasons), scratch, (1,) if little else (1, 2, 4))


_TABLE: dict[tuple[bool, bool], tuple[TransferConfig, Scratch, str]] = {
    (True, True): (
        TransferConfig(freeze_through="all"),
        "no",
        "Little and similar: a linear probe cannot overfit the features, and they fit already.",
    ),
    (True, False): (
        TransferConfig(freeze_through="all", probe_level=16),
        "no",
        "Little and different: the last features are too particular; probe an earlier level.",
    ),
    (False, True): (
        TransferConfig(freeze_through=0, layer_decay=0.75, backbone_lr_scale=0.3),
        "if trained longer",
        "Much and similar: train all, early levels slowest, because they fit already.",
    ),
    (False, False): (
        TransferConfig(freeze_through=0, backbone_lr_scale=1.0),
        "yes",
        "Much and different: train all at one rate; the weights are a start, no more.",
    ),
}
