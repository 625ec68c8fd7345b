"""Labels of a classifier as its loss takes them, and the checks of labels and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from visionkit.config import check_number, check_numbers, limits
from visionkit.errors import DataError, InputError, expected, unknown_name
from visionkit.tasks.batch_parts import check_count, read_parts

__all__ = [
    "Target",
    "check_labels",
    "check_names",
    "check_settings",
    "check_weights",
    "hard_labels",
    "metric_inputs",
    "mixed_labels",
    "read_labels",
    "shape_labels",
]

_PAIRS = "Give the number of each image's class: soft labels have no pairs."
_SLACK = 0.01  # how far the sum of an image's soft labels may lie from 1: they may come in 16 bits
Target = Literal["single", "multi", "regression"]


def read_labels(
    batch: Any, target: Target, num_classes: int, *, soft: bool = True
) -> tuple[Any, Tensor, list[str] | None]:
    """Return images, labels and ids of a batch; labels on the host are checked.

    Args:
        batch: As for `read_parts`.
        target: What the labels are.
        num_classes: Classes, labels or outputs.
        soft: For "single": whether labels may be soft.

    Raises:
        InputError: Something is missing, or of another shape or type.
        DataError: Labels cannot be right; their images are named.
    """
    images, given, ids = read_parts(batch, "labels")
    labels = shape_labels(given, target, num_classes, soft=soft)
    check_count("labels", labels, images)
    if labels.device.type == "cpu":
        check_labels(labels, target, num_classes, ids)
    return images, labels, ids


def shape_labels(labels: Any, target: Target, num_classes: int, *, soft: bool = True) -> Tensor:
    """Return labels as `(B,)` int64 for single, `(B, K)` float for multi, regression and soft labels.

    Args:
        labels: A tensor, or a list of numbers.
        target: What they are.
        num_classes: Classes, labels or outputs.
        soft: For "single": whether labels may be soft.

    Raises:
        InputError: The shape or type does not fit the target.
    """
    given = _as_tensor(labels)
    if target == "single" and soft and given.ndim == 2 and given.shape[1] == num_classes:
        return given.float()  # soft or one-hot
    if target == "single":
        if given.ndim != 1 or given.is_floating_point():
            got = (tuple(given.shape), str(given.dtype))
            allowed = "(B,) whole numbers" + (f", or soft (B, {num_classes})" if soft else "")
            fix = "For several labels an image use target='multi', for numbers 'regression'."
            raise InputError(expected("labels", allowed, got, fix=fix if soft else _PAIRS))
        return given.long()
    if target == "regression" and given.ndim == 1:
        given = given.unsqueeze(1)
    if given.ndim != 2 or given.shape[1] != num_classes:
        fix = "Set num_classes to the number of columns."
        raise InputError(expected("labels", f"(B, {num_classes})", tuple(given.shape), fix=fix))
    return given.float()


def _as_tensor(labels: Any) -> Tensor:
    try:
        made: Tensor = torch.as_tensor(labels)
        return made
    except (TypeError, ValueError, RuntimeError):
        fix = "Give the number of each class."
        raise InputError(expected("labels", "a tensor of numbers", labels, fix=fix)) from None


def check_labels(labels: Tensor, target: Target, num_classes: int, ids: Sequence[str] | None) -> None:
    """Refuse labels that are out of range or not numbers, naming the images.

    Reads the labels, so call it where they lie on the host.

    Args:
        labels: As `shape_labels` gives them.
        target: What they are.
        num_classes: Classes, labels or outputs.
        ids: Names of the images.

    Raises:
        DataError: Some labels cannot be right; the first five images are named.
    """
    if target == "single" and labels.ndim == 2:
        sums = labels.sum(1, keepdim=True)
        bad = ~((labels >= 0) & ((sums - 1).abs() <= _SLACK))
        allowed, fix = "soft, each at least 0 and 1 in sum", "For several labels an image use target='multi'."
    elif target == "single":
        bad = (labels < 0) | (labels >= num_classes)
        allowed, fix = f"in 0 .. {num_classes - 1}", "Correct the labels, or num_classes."
    elif target == "multi":
        bad = ~((labels >= 0) & (labels <= 1))
        allowed, fix = "0 or 1", "Correct the labels; NaN is no label."
    else:
        bad = ~labels.isfinite()
        allowed, fix = "finite", "Correct the targets, or leave those images out."
    if not bool(bad.any()):
        return
    rows = bad.nonzero()
    named = []
    for position in rows[:5].tolist():
        image = f"'{ids[position[0]]}'" if ids else f"image {position[0]} of the batch"
        column = f" column {position[1]}" if len(position) > 1 else ""
        named.append(f"{image}{column} has {labels[tuple(position)].item():g}")
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    raise DataError(
        f"Expected every label to be {allowed}, but {', '.join(named)}{more}. {fix}", field="label"
    )


def mixed_labels(batch: Mapping[str, Any], labels: Tensor) -> tuple[Tensor | None, Tensor | float]:
    """Return the labels mixed in and the weight of the first ones, as mixup and cutmix leave them."""
    if "labels_b" not in batch:
        return None, 1.0
    lam = batch["lam"]
    return batch["labels_b"], lam.to(labels.device, torch.float32) if isinstance(lam, Tensor) else lam


def hard_labels(labels: Tensor, target: Target) -> Tensor:
    """Return `(B,)` classes for soft labels `(B, K)` of one class an image; other labels as they are.

    Args:
        labels: As `shape_labels` gives them.
        target: What they are.
    """
    return labels.argmax(1) if target == "single" and labels.ndim == 2 else labels


def metric_inputs(values: Tensor, labels: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Return what torchmetrics takes: probabilities `(B, K)` and whole labels, or numbers as they are.

    Args:
        values: Logits `(B, K)`, or for regression values.
        labels: As `shape_labels` gives them.
        target: What they are.
    """
    if target == "regression":
        return values.float(), labels
    probabilities = values.float().softmax(1) if target == "single" else values.float().sigmoid()
    return probabilities, labels.long()


def check_names(names: Sequence[str] | None, count: int) -> None:
    """Refuse class names that are not one a class, or come twice: scores and predictions go by them.

    Raises:
        InputError: Names the first that comes twice.
    """
    if names is None:
        return
    if len(names) != count:
        raise InputError(expected("class_names", f"{count} names", len(names)))
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice:
        raise InputError(f"Expected class_names to be different, but {twice[0]!r} comes twice. Rename one.")


def check_settings(
    num_classes: int,
    target: str,
    head: str,
    class_weights: Sequence[float] | None,
    label_smoothing: float,
    loss: str,
    class_names: Sequence[str] | None,
    lr: float,
    dropout: float,
) -> list[float] | None:
    """Refuse settings of a classifier that do not fit together; return the class weights as plain numbers.

    Raises:
        InputError: Names the setting.
    """
    for what, value, known in (
        ("target", target, ("single", "multi", "regression")),
        ("head", head, ("new", "pretrained")),
        ("loss", loss, ("ce", "bce")),
    ):
        if value not in known:
            raise unknown_name(what, value, known)
    min_classes = 2 if target == "single" else 1
    check_number(f"num_classes for target {target!r}", num_classes, limits(min=min_classes), whole=True)
    check_number("label_smoothing", label_smoothing, limits(min=0, below=1))
    check_number("lr", lr, limits(min=0))
    check_number("dropout", dropout, limits(min=0, max=1))
    if target == "regression" and (label_smoothing or class_weights is not None):
        raise InputError(
            "Expected no label_smoothing and no class_weights for target 'regression'. Leave them out."
        )
    if target != "single" and loss == "bce":
        raise InputError(f"loss='bce' is for target 'single'; {target!r} has one loss. Leave it out.")
    check_names(class_names, num_classes)
    return check_weights(class_weights, num_classes)


def check_weights(weights: Any, classes: int) -> list[float] | None:
    """Return the weights of classes as plain numbers, from a sequence, an array or a tensor.

    Raises:
        InputError: They are not one a class, one is negative, NaN or infinite, or all are 0.
    """
    if weights is None:
        return None
    plain = check_numbers("class_weights", weights, limits(min=0), count=classes)
    if not any(plain):
        raise InputError(expected("class_weights", "at least 0, and one above 0", plain))
    return plain
