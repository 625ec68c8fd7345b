"""Weights files of torchvision's detectors and segmenters give their backbone to `init`."""

from __future__ import annotations

import pytest
import torch
from torchvision import models
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from tests.contracts.quick_weights import quick_weights
from tests.tasks.small_tasks import small_task
from visionkit.backbones import create_backbone
from visionkit.errors import InputError

# What each is over; an SSD cuts its backbone in two and leaves layers out, so that it is no such network.
NETWORKS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": "mobilenet_v3_large",
    "fasterrcnn_mobilenet_v3_large_fpn": "mobilenet_v3_large",
    "fasterrcnn_resnet50_fpn": "resnet50",
    "fasterrcnn_resnet50_fpn_v2": "resnet50",
    "fcos_resnet50_fpn": "resnet50",
    "keypointrcnn_resnet50_fpn": "resnet50",
    "maskrcnn_resnet50_fpn": "resnet50",
    "maskrcnn_resnet50_fpn_v2": "resnet50",
    "retinanet_resnet50_fpn": "resnet50",
    "retinanet_resnet50_fpn_v2": "resnet50",
    "ssd300_vgg16": "",
    "ssdlite320_mobilenet_v3_large": "",
    "deeplabv3_mobilenet_v3_large": "mobilenet_v3_large",
    "deeplabv3_resnet101": "resnet101",
    "deeplabv3_resnet50": "resnet50",
    "fcn_resnet101": "resnet101",
    "fcn_resnet50": "resnet50",
    "lraspp_mobilenet_v3_large": "mobilenet_v3_large",
}


def _detector():
    """A Faster R-CNN over ResNet-18 as torchvision builds them, with frozen norms and a narrow head."""
    network = FasterRCNN(
        resnet_fpn_backbone(backbone_name="resnet18", weights=None),
        box_head=TwoMLPHead(256 * 49, 8),
        box_predictor=FastRCNNPredictor(8, 3),
    )
    assert "backbone.body.bn1.num_batches_tracked" not in network.state_dict()
    return network


def _check(backbone, network, inside):
    """Compare a backbone's weights with those of torchvision's network, in which they begin with `inside`."""
    theirs, compared = network.state_dict(), 0
    for name, value in backbone.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        plain = name[name.index("model.") + len("model.") :].removeprefix("features.")
        assert torch.equal(value, theirs[f"{inside}.{plain}"]), name
        compared += 1
    return compared


@pytest.mark.parametrize("kind", ["Detector", "Segmenter"])
def test_a_task_begins_from_torchvisions_file(kind, tmp_path):
    file = tmp_path / "coco.pth"
    with quick_weights():
        if kind == "Detector":
            network, name, inside = _detector(), "torchvision/resnet18", "backbone.body"
        else:
            network = models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
            name, inside = "torchvision/mobilenet_v3_large", "backbone"
        for value in network.buffers():
            if value.ndim == 1:
                value.uniform_(0.5, 1.5)  # running statistics, all 0 and 1 otherwise
        torch.save(network.state_dict(), file)
        task = small_task(kind, name, init=str(file))
    assert _check(task.backbone, network, inside) > 90
    assert task.init_note == "backbone from coco.pth; the rest is new"
    assert (task.backbone.weights.source, task.backbone.weights.file) == ("file", "coco.pth")
    with pytest.raises(InputError, match="another architecture than 'torchvision/resnet34'"):
        create_backbone("torchvision/resnet34", init=str(file))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_file_of_torchvision_begins_a_task_or_is_refused(name, tmp_path):
    file = tmp_path / "coco.pth"
    with quick_weights():
        network = models.get_model(name, weights=None, weights_backbone=None)
        torch.save(network.state_dict(), file)
        if not NETWORKS[name]:
            plain = f"torchvision/{name.partition('_')[2]}"
            with pytest.raises(InputError, match=f"another architecture than '{plain}'"):
                create_backbone(plain, init=str(file))
            return
        backbone = create_backbone(f"torchvision/{NETWORKS[name]}", init=str(file))
    inside = "backbone.body" if "backbone.body." in " ".join(network.state_dict()) else "backbone"
    assert _check(backbone, network, inside) > 200


def test_the_list_is_torchvisions():
    theirs = models.list_models(module=models.detection) + models.list_models(module=models.segmentation)
    assert sorted(NETWORKS) == sorted(theirs)
