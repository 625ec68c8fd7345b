"""Images of any size as one padded batch, and detections back in the frames of the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import batched_nms

from visionkit.data.formats.keypoints.skeleton import Skeleton
from visionkit.errors import InputError

__all__ = ["Detections", "ImageBatch", "merge_views", "resize_image", "training_targets"]

DetectionDict = dict[str, Tensor]


@dataclass
class Detections:
    """The detections of one image, best first, on the host.

    Args:
        boxes: `(D, 4)` absolute xyxy in the frame of the original image.
        scores: `(D,)` in 0 .. 1.
        labels: `(D,)` int64, from 0.
        names: Names of the labels, if the task knows names.
        masks: `(D, H, W)` bool in the frame of the original image, if the task has a mask head.
        id: The image's, if the batch names images.
        keypoints: `(D, K, 2)` x, y in the frame of the original image, if the task has a keypoint head.
        keypoint_scores: `(D, K)`, the logit of each at its peak; higher is surer.
        keypoint_names: Names of the K points.
        edges: Pairs of points that a line joins.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    names: tuple[str, ...] = ()
    masks: Tensor | None = None
    id: str | None = None
    keypoints: Tensor | None = None
    keypoint_scores: Tensor | None = None
    # Not as a Skeleton: a Trainer copies predictions, and refuses frozen parts.
    keypoint_names: tuple[str, ...] = ()
    edges: tuple[tuple[int, int], ...] = ()

    @property
    def skeleton(self) -> Skeleton | None:
        """Names and edges of the points, if the task has a keypoint head."""
        return Skeleton(self.keypoint_names, self.edges) if self.keypoint_names else None

    @classmethod
    def on_host(
        cls,
        detections: DetectionDict,
        *,
        class_names: Sequence[str] | None,
        name: str | None,
        skeleton: Skeleton | None = None,
    ) -> Detections:
        """Return the detections of one image, copied to the host.

        Args:
            detections: `boxes`, `scores`, `labels` and perhaps `masks`, `keypoints` and `keypoint_scores`.
            class_names: Names by label, if the task knows names.
            name: The image's, if the batch names images.
            skeleton: Of the keypoints.
        """
        host = {key: value.cpu() for key, value in detections.items()}
        names = tuple(class_names[label] for label in host["labels"].tolist()) if class_names else ()
        return cls(
            host["boxes"],
            host["scores"],
            host["labels"],
            names,
            host.get("masks"),
            name,
            host.get("keypoints"),
            host.get("keypoint_scores"),
            *(() if skeleton is None else (skeleton.names, skeleton.edges)),
        )


@dataclass(frozen=True)
class ImageBatch:
    """Images as the network gets them, and the sizes they had before.

    Args:
        images: `(B, C, H, W)` normalised, padded with zeros at the right and the bottom.
        sizes: `(h, w)` of each image within it.
        given: `(h, w)` of each image as it was given.
    """

    images: Tensor
    sizes: list[tuple[int, int]]
    given: list[tuple[int, int]]

    @classmethod
    def of(
        cls,
        images: Sequence[Tensor],
        *,
        normalize: Any,
        divisor: int,
        resize: tuple[int, int] | None = None,
        flip: bool = False,
        canvas: tuple[int, int] | None = None,
    ) -> ImageBatch:
        """Return images `(C, H, W)` as a batch, normalised, perhaps resized and mirrored.

        With a canvas `(H, W)`, the only size that the network takes, they are padded to it.

        Raises:
            InputError: An image is larger than the canvas.
        """
        ready = [resize_image(normalize(image), resize) for image in images]
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in ready]
        height = -(-max(size[0] for size in sizes) // divisor) * divisor
        width = -(-max(size[1] for size in sizes) // divisor) * divisor
        if canvas is not None:
            if height > canvas[0] or width > canvas[1]:
                high, wide = max(size[0] for size in sizes), max(size[1] for size in sizes)
                raise InputError(
                    f"Expected images of at most {canvas[0]} x {canvas[1]} (height x width), the only size "
                    f"that this backbone was built for, but got {high} x {wide}. Resize them, or build the "
                    f"detector with image_size=({high}, {wide})."
                )
            height, width = canvas
        given = [(int(i.shape[-2]), int(i.shape[-1])) for i in images]
        # A tracer would keep the zeros and lose what is copied into them.
        if torch.jit.is_tracing():  # type: ignore[attr-defined]
            padded = [F.pad(image.flip(-1) if flip else image, (0, width - w, 0, height - h))
                    for image, (h, w) in zip(ready, sizes, strict=True)]  # fmt: skip
            return cls(torch.stack(padded), sizes, given)
        batch = torch.zeros(
            (len(ready), int(ready[0].shape[0]), height, width),
            dtype=ready[0].dtype,
            device=ready[0].device,
        ).contiguous(memory_format=torch.channels_last)
        for padded_image, image, (high, wide) in zip(batch, ready, sizes, strict=True):
            padded_image[:, :high, :wide] = image.flip(-1) if flip else image
        return cls(batch, sizes, given)

    def restore(
        self,
        detections: Sequence[DetectionDict],
        *,
        originals: Sequence[tuple[int, int]] | None = None,
        flip: bool = False,
    ) -> list[DetectionDict]:
        """Return the detections in the frames of the original images; of those given, by default."""
        out = []
        for each, size, target in zip(detections, self.sizes, originals or self.given, strict=True):
            boxes = each["boxes"]
            if flip:
                boxes = torch.stack(
                    (size[1] - boxes[:, 2], boxes[:, 1], size[1] - boxes[:, 0], boxes[:, 3]), 1
                )
            restored = {**each, "boxes": boxes * _ratio(size, target, boxes)}
            if "masks" in each:
                pasted = paste_masks_in_image(each["masks"], restored["boxes"], target)
                restored["masks"] = pasted[:, 0] >= 0.5
            if "keypoints" in each:
                restored["keypoints"] = each["keypoints"] * _ratio(size, target, boxes)[:2]
            out.append(restored)
        return out


def resize_image(image: Tensor, resize: tuple[int, int] | None) -> Tensor:
    """Return a float image `(C, H, W)` whose short side is `resize[0]` and the long one at most `[1]`.

    It is torchvision's step (bilinear, not antialiased), on which its weights were trained.
    """
    if resize is None:
        return image
    short, long = sorted(image.shape[-2:])
    scale = min(resize[0] / short, resize[1] / long)
    resized: Tensor = F.interpolate(
        image[None], scale_factor=scale, mode="bilinear", recompute_scale_factor=True, align_corners=False
    )
    return resized[0]


def training_targets(
    targets: Sequence[Mapping[str, Any]], batch: ImageBatch, *, fields: Sequence[str] = ()
) -> list[DetectionDict]:
    """Return the objects of images in the network's frame, without crowds: they are no objects to learn.

    Args:
        targets: Of the images as they were given.
        batch: The images.
        fields: What is learnt beside boxes and labels: "masks", "keypoints".
    """
    out = []
    for target, given, size in zip(targets, batch.given, batch.sizes, strict=True):
        objects = {name: target[name] for name in ("boxes", "labels", *fields)}
        if "iscrowd" in target:
            real = target["iscrowd"] == 0
            objects = {name: value[real] for name, value in objects.items()}
        ratio = _ratio(given, size, objects["boxes"])
        objects["boxes"] = objects["boxes"].float() * ratio
        if "keypoints" in objects:
            points, flags = objects["keypoints"].float().split((2, 1), dim=-1)
            objects["keypoints"] = torch.cat((points * ratio[:2], flags), dim=-1)
        if "masks" in objects and size != given:
            objects["masks"] = F.interpolate(objects["masks"][:, None].float(), size=size)[:, 0]
        out.append(objects)
    return out


def merge_views(
    views: Sequence[Sequence[DetectionDict]], *, threshold: float, limit: int
) -> list[DetectionDict]:
    """Join the detections of multiple views of the same images: one suppression a class over all of them."""
    merged = []
    for parts in zip(*views, strict=True):
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        keep = batched_nms(joined["boxes"], joined["scores"], joined["labels"], threshold)[:limit]
        merged.append({name: value[keep] for name, value in joined.items()})
    return merged


def _ratio(old: tuple[int, int], new: tuple[int, int], like: Tensor) -> Tensor:
    height, width = new[0] / old[0], new[1] / old[1]
    return torch.tensor([width, height, width, height], dtype=torch.float32, device=like.device)
