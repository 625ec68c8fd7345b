"""What a further head of the region heads is: pooled detections to something more than classes and boxes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from visionkit.nn.detection.roi_align import RoIPool
from visionkit.nn.fpn import NormFactory

__all__ = ["ObjectHead", "conv_blocks", "draw_convs"]


class ObjectHead(nn.Module, ABC):
    """A head over the regions of objects, beside that of classes and boxes; masks and keypoints are two.

    A subclass has `forward`, which maps pooled regions `(R, C, S, S)` to 32-bit logits with one row a region,
    and the three methods below.

    Args:
        pool: Pools the regions; it has no parameters.

    Attributes:
        attribute: Name under which the region heads hold the module, which is that of torchvision's.
        field: What it learns of a target.
        loss_name: Name of its loss.
    """

    attribute: ClassVar[str]
    field: ClassVar[str]
    loss_name: ClassVar[str]

    def __init__(self, pool: RoIPool) -> None:
        super().__init__()
        self.pool = pool

    @abstractmethod
    def loss(
        self,
        logits: Tensor,
        *,
        boxes: Sequence[Tensor],
        targets: Sequence[Mapping[str, Tensor]],
        matched: Sequence[Tensor],
    ) -> Tensor:
        """Return the loss; 0 with every parameter in the graph, as DDP needs, where there is no object.

        Args:
            logits: Of the regions of all images, or of one region where no image has an object.
            boxes: For each image the regions of objects `(R_i, 4)` xyxy.
            targets: For each image `labels` `(N_i,)`, background 0, and `field`.
            matched: For each image the object of each region, `(R_i,)`.
        """

    @abstractmethod
    def decode(self, logits: Tensor, *, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return what the head gives, by name, one row a detection.

        Args:
            logits: Of D detections.
            boxes: `(D, 4)` xyxy.
            labels: `(D,)`, background 0.
        """

    @abstractmethod
    def empty(self, like: Tensor) -> dict[str, Tensor]:
        """Return what `decode` gives for no detection.

        Args:
            like: A tensor of the right type and device.
        """


def conv_blocks(channels: int, *, count: int, width: int, norm: NormFactory | None = None) -> nn.Sequential:
    """Return convolutions of 3 x 3, each with a norm (a bias without) and a ReLU.

    Args:
        channels: Of the input.
        count: How many.
        width: Channels of each.
        norm: Makes the norm.
    """
    blocks: list[nn.Module] = []
    for inputs in (channels, *[width] * (count - 1))[:count]:
        conv = nn.Conv2d(inputs, width, 3, padding=1, bias=norm is None)
        blocks.append(nn.Sequential(conv, *([] if norm is None else [norm(width)]), nn.ReLU(inplace=True)))
    return nn.Sequential(*blocks)


def draw_convs(head: nn.Module) -> None:
    """Draw the weights of a head's convolutions as torchvision does; biases are 0.

    Args:
        head: The head.
    """
    for module in head.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
