"""Networks of the layer tables, and what makes receptive fields of a network visible to gradients."""

from __future__ import annotations

import torch
from torch import nn

from visionkit.backbones.registry import resolve
from visionkit.backbones.sources.base import ModelSpec

# For receptive fields by gradients: the quick ones, and those of the slow suite.
QUICK = ("torchvision/alexnet", "torchvision/squeezenet1_1", "timm/test_resnet", "timm/test_byobnet")
MORE = (
    "packaged/vgg16", "packaged/efficientnet_lite0", "torchvision/resnet18", "torchvision/resnet50",
    "torchvision/vgg11_bn", "torchvision/googlenet", "torchvision/densenet121", "torchvision/mobilenet_v2",
    "torchvision/shufflenet_v2_x0_5", "torchvision/mnasnet0_5", "torchvision/inception_v3",
    "timm/test_convnext", "timm/cs3darknet_focus_s", "timm/cspnext_tiny", "timm/dla46x_c", "timm/dpn48b",
    "timm/fasternet_t0", "timm/hgnetv2_b0", "timm/inception_next_atto", "timm/res2net50_26w_4s",
    "timm/resnetv2_18", "timm/res2next50", "timm/starnet_s050", "timm/test_mambaout", "timm/repghostnet_050",
    "timm/xception41p", "timm/vgg11", "timm/legacy_xception", "timm/convmixer_768_32",
)  # fmt: skip


def build(name: str) -> nn.Module:
    """The whole classifier, with random weights."""
    source, spec = resolve(name, ModelSpec(""))
    torch.manual_seed(0)
    return source.build(spec, None).eval()


def open_every_path(network: nn.Module) -> nn.Module:
    """Make every weight positive, every activation and layer norm the identity, in float64.

    So no gradient is lost: channels that are all alike are nothing to a layer norm.
    """
    activations = ("relu", "silu", "gelu", "swish", "sigmoid", "act", "mish", "tanh")
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            kind = type(child).__name__.lower()
            if isinstance(child, nn.MaxPool2d):
                pads = {"padding": child.padding, "ceil_mode": child.ceil_mode}
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, **pads))
            elif "layernorm" in kind or (
                any(word in kind for word in activations) and not list(child.parameters())
            ):
                setattr(module, name, nn.Identity())
    for name, parameter in network.named_parameters():
        parameter.data = torch.full_like(
            parameter, 0.0 if name.endswith("bias") else 1.0, dtype=torch.float64
        )
        if parameter.ndim > 1:
            parameter.data /= parameter[0].numel()
    return network.double()
