"""`Encoder`: an image to one pooled feature vector."""

from __future__ import annotations

import copy
from typing import cast

from torch import Tensor, nn

from visionkit.backbones.backbone import Backbone
from visionkit.backbones.sources.base import ModelInfo
from visionkit.backbones.stages import Stage, StagedNetwork, StageMaps
from visionkit.backbones.weights import WeightsInfo
from visionkit.errors import InputError

__all__ = ["Encoder", "PooledLevel"]


class PooledLevel(nn.Module):
    """The average over the map of one level, for probes of that level.

    Args:
        backbone: A backbone with that level only.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.model: Backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Return `(B, channels)` for normalised images `(B, C, H, W)`."""
        maps = self.model(images)
        return cast(Tensor, maps[-1].mean((2, 3)))  # (B, C, h, w) -> (B, C)


class Encoder(StagedNetwork):
    """A network that returns one vector per image; made by `create_encoder`.

    It keeps all pretrained parameters before the classifier, conv heads and final norms included: a network
    cut for feature maps lacks them, which would be a handicap of the pretrained arm of a comparison.

    Args:
        net: `images -> (B, dim)`.
        model_info: Feature maps, image sizes and parameters of the network.
        dim: Length of the vector.
        name: The registered name it was created by.
        mean: Mean per channel that images in [0, 1] are normalised by.
        std: Standard deviation per channel.
        weights: Provenance of its weights.
        head: The classifier that was removed.
        stage_maps: Returns, for `net`, a module that gives every map, and their reductions.
    """

    def __init__(
        self,
        net: nn.Module,
        model_info: ModelInfo,
        *,
        dim: int,
        name: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        weights: WeightsInfo,
        head: nn.Module | None,
        stage_maps: StageMaps,
    ) -> None:
        super().__init__(
            net, model_info, name=name, mean=mean, std=std, weights=weights, stage_maps=stage_maps
        )
        self.dim = dim
        # in a tuple, so that an unused classifier is no parameter of the encoder
        self._head = (_as_linear(head, dim),)

    def forward(self, images: Tensor) -> Tensor:
        """Return vectors `(B, dim)` for normalised images `(B, C, H, W)`.

        Raises:
            InputError: The network does not take this image size.
        """
        height, width = images.shape[-2:]
        self._check_size(height, width)
        divisor = self._model_info.size_divisor
        if height % divisor or width % divisor:
            raise InputError(
                f"{self.name!r} takes images whose sides are multiples of {divisor}, but got "
                f"{height}x{width}. Resize them."
            )
        return cast(Tensor, self.net(images))

    def pretrained_head(self) -> nn.Linear | None:
        """Return a copy of the pretrained classifier `dim -> classes`; None when it is not linear.

        From scratch it has the same shape and random weights (a checkpoint fills them).
        """
        return copy.deepcopy(self._head[0])

    def _find_stages(self) -> list[Stage]:
        """Find the stages of the maps, and one more for what follows the last map (conv head, final norm).

        That one has twice the reduction of the last map.
        """
        if isinstance(self.net, PooledLevel):
            stages = self._rename(self.net.model, self.net.model.stages())
        else:
            stages = super()._find_stages()
        taken = {name for stage in stages for name in stage.parameters}
        rest = [name for name, _ in self.named_parameters() if name not in taken]
        if rest:
            stages.append(Stage(2 * max((s.reduction for s in stages), default=16), rest))
        return stages


def _as_linear(head: nn.Module | None, dim: int) -> nn.Linear | None:
    if isinstance(head, nn.Conv2d) and head.kernel_size == (1, 1):
        linear = nn.Linear(
            head.in_channels, head.out_channels, bias=head.bias is not None, device=head.weight.device
        )
        linear.weight.data = head.weight.data.flatten(1)  # (K, C, 1, 1) -> (K, C)
        if head.bias is not None:
            linear.bias.data = head.bias.data
        head = linear
    if not isinstance(head, nn.Linear) or list(head.children()) or head.in_features != dim:
        return None
    linear = nn.Linear(dim, head.out_features, bias=head.bias is not None, device=head.weight.device)
    linear.load_state_dict(head.state_dict())
    return linear
