"""Every task, one row each: what the contract needs to know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import nn

from visionkit.config import OptimConfig, TransferConfig
from visionkit.task_config import DeepPoseConfig, FCOSConfig, HeatmapConfig, RCNNConfig, RetinaNetConfig
from visionkit.tasks import Captioner, Classifier, Detector, Embedder, KeypointRegressor, Segmenter
from visionkit.text.vocabulary import Vocabulary

SMALL = "timm/test_resnet"  # four stages of bottlenecks, half a million weights


@dataclass(frozen=True)
class TaskCase:
    """A task under the contract.

    Args:
        name: Of the row.
        build: `(init, transfer, optim) -> task`; init is "scratch" or a weights file of `backbone`.
        backbone: The name of its backbone.
        batch: `(first, size) -> batch`, images that are a function of their index, with ids.
        empty: The batch of a process without samples.
        logged: Names that a validation logs.
        higher: Whether the monitored score is better when higher.
        steps: Updates within which the loss of one batch falls by half.
    """

    name: str
    build: Callable[[str, TransferConfig, OptimConfig], lightning.LightningModule]
    backbone: str
    batch: Callable[[int, int], Any]
    empty: Any
    logged: frozenset[str]
    higher: bool
    steps: int = 9


def classifier(target: str) -> Callable[[str, TransferConfig, OptimConfig], lightning.LightningModule]:
    def build(init: str, transfer: TransferConfig, optim: OptimConfig) -> lightning.LightningModule:
        return Classifier(
            SMALL, init=init, num_classes=3, target=target, transfer=transfer, optim=optim, lr=1e-2
        )

    return build


def gray_images(first: int, size: int) -> torch.Tensor:
    made = [
        torch.randint(
            0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(first + i)
        )
        for i in range(size)
    ]
    return torch.stack(made)


def labelled(target: str) -> Callable[[int, int], dict[str, Any]]:
    def batch(first: int, size: int) -> dict[str, Any]:
        index = torch.arange(first, first + size)
        onehot = nn.functional.one_hot(index % 3, 3).float()
        labels = {"single": index % 3, "multi": onehot, "regression": onehot * 2 - 1}[target]
        return {
            "images": gray_images(first, size),
            "labels": labels,
            "ids": [f"image {i}" for i in index.tolist()],
        }

    return batch


def segmenter(init: str, transfer: TransferConfig, optim: OptimConfig) -> lightning.LightningModule:
    return Segmenter(
        "timm/resnet10t", init=init, num_classes=3, channels=16, transfer=transfer, optim=optim, lr=1e-2
    )


def halves(first: int, size: int) -> dict[str, Any]:
    """Images whose halves are as bright as their class says."""
    index = torch.arange(first, first + size)
    masks = torch.stack([index % 3, (index + 1) % 3], 1).repeat_interleave(16, 1)  # (B, 32)
    masks = masks[:, None, :].expand(size, 32, 32).contiguous()
    images = (gray_images(first, size) // 4 + (masks * 90)[:, None]).to(torch.uint8)
    return {"images": images, "masks": masks, "ids": [f"image {i}" for i in index.tolist()]}


def detector(init: str, transfer: TransferConfig, optim: OptimConfig) -> lightning.LightningModule:
    rcnn = RCNNConfig(
        head_width=32, anchor_scales=(4.0,), proposals_train=60, proposals_eval=30, box_samples=32
    )
    # The default norm, "sync", takes its statistics over all processes: one alone has others.
    transfer = dataclasses.replace(transfer, norm=transfer.norm or "batch")
    return Detector(
        "timm/resnet10t", init=init, num_classes=3, rcnn=rcnn, pyramid_channels=16, transfer=transfer,
        optim=optim, lr=5e-3,
    )  # fmt: skip


def keypoint_detector(init: str, transfer: TransferConfig, optim: OptimConfig) -> lightning.LightningModule:
    rcnn = RCNNConfig(
        head_width=32, anchor_scales=(4.0,), proposals_train=60, proposals_eval=30, box_samples=32,
        keypoint_convs=1, keypoint_width=16,
    )  # fmt: skip
    transfer = dataclasses.replace(transfer, norm=transfer.norm or "batch")
    return Detector(
        SMALL, init=init, num_classes=3, rcnn=rcnn, pyramid_channels=16, keypoints=HIPS,
        transfer=transfer, optim=optim, lr=5e-3,
    )  # fmt: skip


def corners(first: int, size: int) -> dict[str, Any]:
    """The images of `squares`, with three corners of each; of every third image one is not labelled."""
    batch = squares(first, size)
    for index, target in enumerate(batch["targets"], start=first):
        left, top, right, bottom = target["boxes"].unbind(1)
        flags = torch.tensor([2.0, 1.0, 0.0 if index % 3 == 2 else 2.0]).expand(len(left), 3)
        places = torch.stack((left, top, right, top, left, bottom), 1).view(-1, 3, 2)
        target["keypoints"] = torch.cat((places, flags[..., None]), dim=2)
    return batch


def one_stage(name: str, config: Any) -> Callable[..., lightning.LightningModule]:
    def make(init: str, transfer: TransferConfig, optim: OptimConfig) -> lightning.LightningModule:
        transfer = dataclasses.replace(transfer, norm=transfer.norm or "batch")
        return Detector(
            SMALL, init=init, num_classes=3, detector=name, pyramid_channels=16,
            transfer=transfer, optim=optim, lr=5e-3, **{name: config},
        )  # fmt: skip

    return make


def squares(first: int, size: int) -> dict[str, Any]:
    """Images with a small and a medium square whose colours are their classes; every fifth is empty."""
    images, targets = [], []
    for index in range(first, first + size):
        draw = torch.Generator().manual_seed(index)
        image = torch.randint(0, 60, (3, 64, 64), dtype=torch.uint8, generator=draw)
        boxes, labels = [], []
        for place, side in enumerate((20, 36)) if index % 5 != 4 else ():
            x, y = torch.randint(0, 28 - 8 * place, (2,), generator=draw).tolist()
            label = (index + place) % 3
            image[label, y : y + side, x : x + side] = 230
            boxes.append([x, y, x + side, y + side])
            labels.append(label)
        images.append(image)
        boxes = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
        targets.append({"boxes": boxes, "labels": torch.tensor(labels, dtype=torch.int64)})
    return {"images": images, "targets": targets, "ids": [f"image {first + i}" for i in range(size)]}


def embedder(init: str, transfer: TransferConfig, optim: OptimConfig) -> lightning.LightningModule:
    return Embedder(SMALL, init=init, dim=16, num_classes=3, transfer=transfer, optim=optim, lr=5e-3)


POINTS = ("left_hip", "right_hip", "head")
HIPS = {"names": list(POINTS), "edges": [[0, 1]]}


def regressor(head: str, config: Any) -> Callable[..., lightning.LightningModule]:
    def make(init: str, transfer: TransferConfig, optim: OptimConfig) -> lightning.LightningModule:
        return KeypointRegressor(
            SMALL, init=init, skeleton=HIPS, head=head, transfer=transfer, optim=optim, lr=2e-3,
            **{head: config},
        )  # fmt: skip

    return make


def dots(first: int, size: int) -> dict[str, Any]:
    """Images with a dot of its own colour at each point; of every fourth the last point is not labelled."""
    images, keypoints = gray_images(first, size) // 8, []
    for image, index in zip(images, range(first, first + size), strict=True):
        places = torch.randint(4, 28, (3, 2), generator=torch.Generator().manual_seed(index))
        for channel, (x, y) in enumerate(places.tolist()):
            image[channel, y - 2 : y + 2, x - 2 : x + 2] = 230
        flags = torch.tensor([2, 1, 0 if index % 4 == 3 else 2])[:, None]
        keypoints.append(torch.cat((places, flags), dim=1).float())
    ids = [f"image {first + i}" for i in range(size)]
    return {"images": images, "keypoints": torch.stack(keypoints), "ids": ids}


WORDS = ("a", "dark", "grey", "bright", "image")


def captioner(init: str, transfer: TransferConfig, optim: OptimConfig) -> lightning.LightningModule:
    return Captioner(
        SMALL, init=init, vocabulary=Vocabulary(WORDS), embed=16, hidden=32, attention=16,
        dropout=0.0, coverage=0.1, transfer=transfer, optim=optim, lr=1e-2,
    )  # fmt: skip


def told(first: int, size: int) -> dict[str, Any]:
    """Images as bright as their two captions say."""
    index = torch.arange(first, first + size) % 3
    words = Vocabulary(WORDS)
    references = [[f"a {WORDS[1 + i]} image", f"{WORDS[1 + i]}"] for i in index.tolist()]
    rows = [[words.encode(text) for text in several] for several in references]
    tokens = torch.tensor([[row + [0] * (5 - len(row)) for row in several] for several in rows])  # (B, 2, 5)
    images = (gray_images(first, size) // 4 + (index * 90)[:, None, None, None]).to(torch.uint8)
    ids = [f"image {i}" for i in range(first, first + size)]
    return {"images": images, "tokens": tokens, "references": references, "ids": ids}


SCORES = {
    "single": ({"loss", "top1", "macro_f1", "ece"}, True),
    "multi": ({"loss", "map", "micro_f1", "macro_f1"}, True),
    "regression": ({"loss", "mae", "rmse", "r2"}, False),
}

TASKS = [
    TaskCase(
        name=f"classifier, {target}",
        build=classifier(target),
        backbone=SMALL,
        batch=labelled(target),
        empty={"ids": []},
        logged=frozenset(names),
        higher=higher,
    )
    for target, (names, higher) in SCORES.items()
]
TASKS.append(
    TaskCase(
        name="segmenter",
        build=segmenter,
        backbone="timm/resnet10t",  # the small one learns the halves too slowly
        batch=halves,
        empty={"ids": []},
        logged=frozenset({"loss", "miou", "pixel_accuracy", "mean_accuracy", "iou/0", "iou/1", "iou/2"}),
        higher=True,
        steps=40,
    )
)
SIZES = {"map", "map50", "map75", "map_small", "map_medium", "ar1", "ar10", "ar100", "ar_small", "ar_medium"}
TASKS.append(
    TaskCase(
        name="detector",
        build=detector,
        backbone="timm/resnet10t",  # with the small one torchmetrics gives another mAP, by 1e-5
        batch=squares,
        empty={"ids": []},
        logged=frozenset(SIZES | {"ap/0", "ap/1", "ap/2"}),
        higher=True,
        steps=15,
    )
)
# Further networks of the same tasks. The tests of the contract that they take again are slow; the quick ones
# are in test_one_stage.py, test_keypoint_detection.py and test_keypoint_regressor.py of tests/tasks.
DENSE = {"convs": 1, "norm": "group", "topk_candidates": 60, "detections_per_img": 30}
MORE_TASKS = [
    TaskCase(
        name=f"detector, {name}",
        build=one_stage(name, config),
        backbone=SMALL,
        batch=squares,
        empty={"ids": []},
        logged=frozenset(SIZES | {"ap/0", "ap/1", "ap/2"}),
        higher=True,
        steps=60,
    )
    for name, config in (
        ("retinanet", RetinaNetConfig(anchor_scales=(2.0, 3.0), **DENSE)),
        ("fcos", FCOSConfig(score_threshold=0.05, **DENSE)),
    )
]
OF_POINTS = {"map", "map50", "map75", "map_medium", "ar", "ar50", "ar75", "ar_medium"}
MORE_TASKS.append(
    TaskCase(
        name="detector, keypoints",
        build=keypoint_detector,
        backbone=SMALL,
        batch=corners,
        empty={"ids": []},
        logged=frozenset(SIZES | {"ap/0", "ap/1", "ap/2"} | {f"keypoint_{name}" for name in OF_POINTS}),
        higher=True,
        steps=60,
    )
)
TASKS.append(
    TaskCase(
        name="captioner",
        build=captioner,
        backbone=SMALL,
        batch=told,
        empty={"ids": []},
        logged=frozenset({"loss", "bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider", "cider_d"}),
        higher=True,
        steps=30,
    )
)
OF_PAIRS = {"auc", "eer", "tar_at_far_0.01", "tar_at_far_0.001", "accuracy"}
TASKS.append(
    TaskCase(
        name="embedder",
        build=embedder,
        backbone=SMALL,
        batch=labelled("single"),
        empty={"ids": []},
        logged=frozenset(
            {"recall_at_1", "recall_at_5", "recall_at_10", "map_at_r"} | {f"pair_{name}" for name in OF_PAIRS}
        ),
        higher=True,
        steps=6,
    )
)
POSE = {"pck", "nme", "oks", "pcp", *(f"pck/{name}" for name in POINTS), "pcp/left_hip-right_hip"}
TASKS.append(
    TaskCase(
        name="keypoint regressor",
        build=regressor("deeppose", DeepPoseConfig(stages=1, cells=1, width=64, channels=8, stage_width=16)),
        backbone=SMALL,
        batch=dots,
        empty={"ids": []},
        logged=frozenset(POSE),
        higher=True,
        steps=20,
    )
)
MORE_TASKS.append(
    TaskCase(
        name="keypoint regressor, heatmap",
        build=regressor("heatmap", HeatmapConfig(channels=16)),
        backbone=SMALL,
        batch=dots,
        empty={"ids": []},
        logged=frozenset(POSE | {"oks_ap", "oks_ap50", "oks_ap75"}),
        higher=True,
        steps=60,
    )
)
