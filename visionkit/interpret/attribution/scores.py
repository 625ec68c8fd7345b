"""The scores that are attributed to pixels: one value an image, with a gradient.

Of a classifier a class, of a segmenter the area of a class, of a detector a box, of a captioner a word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from visionkit.errors import InputError, expected, unknown_name
from visionkit.interpret.subject import Subject
from visionkit.nn.detection.dense import DenseDetector
from visionkit.tasks.captioning.generate import generate

__all__ = ["Score", "box_score", "class_score", "mask_score", "scores_of", "word_scores"]


class Score(NamedTuple):
    """A value of each image, and what it is called.

    Args:
        name: Class, box or word.
        of: Normalised images `(B, C, H, W)` to values `(B,)`: logits, or log-probabilities of words.
        probability: The same as probabilities, for curves.
    """

    name: str
    of: Callable[[Tensor], Tensor]
    probability: Callable[[Tensor], Tensor]


def class_score(subject: Subject, inputs: Tensor, *, target: int | str | None = None) -> Score:
    """Return the score of a class of a classifier, or of a backbone with its pretrained classifier.

    Args:
        subject: A classifier's run, or a backbone.
        inputs: One normalised image `(1, C, H, W)`.
        target: The class, by index or name; the likeliest if not given.

    Raises:
        InputError: There is no classifier, or no such class.
    """
    head = subject.head if subject.task is None else getattr(subject.task, "head", None)
    if head is None or subject.kind not in ("", "Classifier"):
        raise InputError(
            f"{subject.name!r} has no classes: {subject.kind or 'its backbone'} has no linear classifier. "
            "Take a run of a classifier, or another backbone."
        )

    if getattr(subject.task, "target", "single") == "regression":
        raise InputError(
            f"{subject.name!r} is a regression, which has no classes. Take a run of a classifier, or the "
            "maps of its layers."
        )

    def logits(images: Tensor) -> Tensor:
        values: Tensor = head(subject.network(images))
        return values

    with torch.no_grad():
        values = logits(inputs)[0]
    index = (
        _class_index(target, subject.class_names, len(values)) if target is not None else int(values.argmax())
    )
    multiple = getattr(subject.task, "target", "single") != "single"

    def probability(images: Tensor) -> Tensor:
        outputs = logits(images)
        return outputs.sigmoid()[:, index] if multiple else outputs.softmax(1)[:, index]

    return Score(_class_name(subject, index), lambda images: logits(images)[:, index], probability)


def mask_score(subject: Subject, inputs: Tensor, *, target: int | str) -> Score:
    """Return the sum of a segmenter's logits of a class over the pixels that it gives to that class.

    Vinogradova et al.: Towards Interpretable Semantic Segmentation via Gradient-weighted CAM, arXiv
    2002.11434.

    Args:
        subject: A segmenter's run.
        inputs: One normalised image `(1, C, H, W)`.
        target: The class.

    Raises:
        InputError: There is no such class, or no pixel is given to it.
    """

    def logits(images: Tensor) -> Tensor:
        return _area_logits(subject, images)

    with torch.no_grad():
        values = logits(inputs)[0]
    index = _class_index(target, subject.class_names, len(values))
    area = values.argmax(0) == index
    if not area.any():
        raise InputError(f"No pixel is given to class {_class_name(subject, index)!r}. Take another class.")

    def probability(images: Tensor) -> Tensor:
        return logits(images).softmax(1)[:, index][:, area].mean(1)

    return Score(_class_name(subject, index), lambda x: logits(x)[:, index][:, area].sum(1), probability)


def _area_logits(subject: Subject, images: Tensor) -> Tensor:
    """Return a segmenter's logits `(B, classes, h, w)`: two of one class against the background."""
    values: Tensor = subject.task.decoder(subject.network(images))
    # The softmax of half the logit and its negative is the sigmoid.
    return torch.cat([-values, values], 1) / 2 if values.shape[1] == 1 else values


def box_score(subject: Subject, inputs: Tensor, *, box: Tensor, label: int) -> Score:
    """Return a detector's logit of a class for a box.

    Of Faster R-CNN it is that of the region of the box, of RetinaNet and FCOS that of the anchor or position
    which gives the box (the likeliest of those that do).

    Args:
        subject: A detector's run.
        inputs: The normalised image `(1, C, H, W)` in which the box is.
        box: `(4,)` xyxy, in pixels of the normalised images.
        label: The class.
    """
    model = subject.task.model
    if isinstance(model, DenseDetector):
        with torch.no_grad():
            outputs, anchors = model.outputs(inputs)
            boxes = clip_boxes_to_image(model.decode(outputs.offsets[0], anchors), inputs.shape[-2:])
            apart = (boxes - box).abs().amax(1)  # (A,), in pixels
            likely = model.scores(outputs)[0, :, label].masked_fill(apart > apart.min() + 1e-3, -1.0)
        at = int(likely.argmax())
        return Score(
            _class_name(subject, label),
            lambda images: model.outputs(images)[0].logits[:, at, label],
            lambda images: model.scores(model.outputs(images)[0])[:, at, label],
        )

    def logits(images: Tensor) -> Tensor:
        regions = model.heads.box_roi_pool(model.source(images), [box[None]] * len(images))
        values: Tensor = model.heads.box_head(regions)[0]  # (B, classes + 1), the background first
        return values

    return Score(
        _class_name(subject, label),
        lambda images: logits(images)[:, label + 1],
        lambda images: logits(images).softmax(1)[:, label + 1],
    )


def word_scores(subject: Subject, inputs: Tensor) -> list[Score]:
    """Return the log-probability of each word of a captioner's sentence, given the words before it.

    Args:
        subject: A captioner's run.
        inputs: One normalised image `(1, C, H, W)`.
    """
    task = subject.task
    with torch.no_grad():
        grid = task.grid(subject.network(inputs))[0]
        decoded = generate(task.decoder, grid, task.special_tokens, task.decoding).tokens[0, 0].tolist()
    vocabulary = task.vocabulary
    words = decoded[: decoded.index(vocabulary.eos)] if vocabulary.eos in decoded else decoded
    tokens = torch.tensor([[vocabulary.bos, *words, vocabulary.eos]])

    def log_probabilities(images: Tensor) -> Tensor:
        rows = []
        for image in images:  # words of several sentences would come without padding, one after the other
            output = task.decoder(task.grid(subject.network(image[None]))[0], tokens)
            rows.append(output.logits.log_softmax(1).gather(1, output.targets[:, None])[:, 0])
        return torch.stack(rows)

    def word(position: int) -> Score:
        return Score(
            " ".join(vocabulary.decode([words[position]])),
            lambda x: log_probabilities(x)[:, position],
            lambda x: log_probabilities(x)[:, position].exp(),
        )

    return [word(position) for position in range(len(words))]


def scores_of(
    subject: Subject,
    inputs: Tensor,
    *,
    target: int | str | None = None,
    limit: int = 4,
    min_score: float = 0.5,
) -> tuple[list[Score], int]:
    """Return what there is to attribute (the likeliest class, the largest areas, boxes, or words).

    Args:
        subject: A backbone, or a run of any task.
        inputs: One normalised image `(1, C, H, W)`.
        target: A class; of a detector, boxes of that class alone; not of a captioner.
        limit: At most as many.
        min_score: Of a detector's boxes.

    Returns:
        The scores, and how many there would be without a limit.

    Raises:
        InputError: There is no such class, or nothing is predicted.
    """
    if subject.kind == "Segmenter":
        if target is not None:
            return [mask_score(subject, inputs, target=target)], 1
        with torch.no_grad():
            counts = _area_logits(subject, inputs)[0].argmax(0).flatten().bincount()
        areas = [i for i in counts.argsort(descending=True).tolist() if counts[i]]
        return [mask_score(subject, inputs, target=i) for i in areas[:limit]], len(areas)
    if subject.kind == "Detector":
        return _boxes(subject, inputs, target, limit, min_score)
    if subject.kind == "Captioner":
        if target is not None:
            raise InputError("A captioner has words, and no classes. Leave target out.")
        words = word_scores(subject, inputs)
        if not words:
            raise InputError("The sentence of this image has no word. Take another image.")
        return words[:limit], len(words)
    return [class_score(subject, inputs, target=target)], 1


def _boxes(
    subject: Subject, inputs: Tensor, target: int | str | None, limit: int, min_score: float
) -> tuple[list[Score], int]:
    model = subject.task.model
    with torch.no_grad():
        detections = model(inputs, [(inputs.shape[-2], inputs.shape[-1])])[0][0]
    chosen, of = detections["scores"] >= min_score, ""
    if target is not None:
        index = _class_index(target, subject.class_names, subject.task.num_classes)
        chosen &= detections["labels"] == index
        of = f" of {_class_name(subject, index)!r}"
    boxes, labels = detections["boxes"][chosen][:limit], detections["labels"][chosen][:limit]
    if not len(boxes):
        raise InputError(
            f"No box{of} has a score of {min_score:g} or more. Lower min_score, or take another image."
        )
    made = [box_score(subject, inputs, box=box, label=int(label)) for box, label in zip(boxes, labels)]
    return made, int(chosen.sum())


def _class_index(target: int | str, names: Sequence[str], count: int) -> int:
    if isinstance(target, str) and target in names:  # also a name that is a number
        return list(names).index(target)
    if isinstance(target, str) and not target.isdigit():
        raise unknown_name("class", target, names, hint="A number serves, too.")
    if not 0 <= int(target) < count:
        raise InputError(expected("the class", f"0 to {count - 1}", target))
    return int(target)


def _class_name(subject: Subject, index: int) -> str:
    names: Any = subject.class_names
    return str(names[index]) if index < len(names) else f"class {index}"
