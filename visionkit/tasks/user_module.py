"""A user's own network with what tasks ask of a backbone, without registering it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from visionkit.backbones import Backbone, Encoder, create_backbone, create_encoder
from visionkit.backbones.norms import convert_norms
from visionkit.backbones.stages import Block, Stage, Through
from visionkit.backbones.weights import WeightsInfo
from visionkit.errors import InputError, expected

__all__ = ["UserModule", "module_record", "registered_name", "wrap_module"]

_PREFIX = "module:"


class UserModule(nn.Module):
    """A user's network with statistics, a weights record, and freezing of the complete network.

    Freezing by level needs its stages: register it (`visionkit.backbones.register_backbone`), or give it
    `freeze_through(reduction)` and `stages()`.

    Args:
        net: Gives `(B, dim)` and has `dim`, or gives maps and has `levels`. Its `mean` and `std`, if it has
            them, are for images in [0, 1]; without them it gets the images in [0, 1] as they are.
        trained: Whether its weights are trained.
        channels: Channels of an image, for a network that has no `mean`.
        pool: Whether a vector `(B, dim)` is needed: where the network gives maps, one of them is averaged.
        probe_level: The reduction of that map; the coarsest if not given.

    Raises:
        InputError: It has neither `dim` nor `levels`, no maps where they are needed, or no such level.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        trained: bool,
        channels: int = 3,
        pool: bool = False,
        probe_level: int | None = None,
    ) -> None:
        super().__init__()
        dim, levels = getattr(net, "dim", None), getattr(net, "levels", None)
        if not isinstance(dim, int) and not levels:
            raise InputError(
                f"Expected your backbone {type(net).__name__} to have 'dim' (it gives (B, dim)) or 'levels' "
                "(it gives one map a level), but it has neither. Set self.dim = ... in it."
            )
        self.net = net
        self.dim = dim if isinstance(dim, int) else None
        self.levels = tuple(levels) if levels else None
        self.mean = tuple(getattr(net, "mean", (0.0,) * channels))
        self.std = tuple(getattr(net, "std", (1.0,) * channels))
        ours = isinstance(net, Backbone | Encoder)
        self.name = net.name if ours else _class_record(net)
        record = getattr(net, "weights", None)
        if not isinstance(record, WeightsInfo) or record.trained != trained:
            record = WeightsInfo(source="user" if trained else "none", name=type(net).__name__)
        self.weights = record
        self.fixed_size: tuple[int, int] | None = net.fixed_size if isinstance(net, Backbone) else None
        self._frozen = False
        self._pooled = self._map_to_pool(probe_level) if pool else None
        if not pool and self.levels is None:
            raise InputError(
                f"Expected your backbone {type(net).__name__} to have 'levels' and to give one map "
                "a level, but it gives a vector. Set self.levels = (Level(channels, reduction), ...) in it."
            )

    def forward(self, images: Any) -> Any:
        """Return maps `(B, C, H, W)`, or a vector `(B, dim)`, for normalised images `(B, C, H, W)`."""
        output = self.net(images)
        return output if self._pooled is None else output[self._pooled].mean(dim=(2, 3))

    def freeze_through(self, reduction: Through) -> None:
        """Freeze all of the network's parameters and statistics ("all"), or nothing (0)."""
        if reduction not in (0, "all"):
            fix = "To freeze it by level, register it with visionkit.backbones.register_backbone."
            raise InputError(expected("freeze_through of your own module", "0 or 'all'", reduction, fix=fix))
        self._frozen = reduction == "all"
        self.net.requires_grad_(not self._frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> UserModule:
        """Switch to training, but leave a frozen network in evaluation: its statistics must not move."""
        super().train(mode)
        if self._frozen:
            self.net.eval()
        return self

    def _map_to_pool(self, probe_level: int | None) -> int | None:
        """Return the index of the map that is averaged, and set `dim`; None for a network with a vector."""
        if self.dim is not None:
            if probe_level is not None:
                raise InputError(
                    "probe_level needs a backbone with levels, but yours gives a vector. Leave it out."
                )
            return None
        levels = self.levels or ()
        reductions = [level.reduction for level in levels]
        chosen = reductions[-1] if probe_level is None else probe_level
        if chosen not in reductions:
            available = f"one of the backbone's reductions {reductions}"
            raise InputError(expected("probe_level", available, probe_level))
        index = reductions.index(chosen)
        self.dim = int(levels[index].channels)
        return index


class _StagedModule(UserModule):
    """A network with `freeze_through` and `stages`: one of ours, given as an object, or a user's."""

    def __init__(self, net: nn.Module, **settings: Any) -> None:
        super().__init__(net, **settings)
        if isinstance(net, Backbone | Encoder):
            net.weights = self.weights  # `trained` is also right for weights that were loaded by hand

    def freeze_through(self, reduction: Through) -> None:
        """Have the network freeze itself."""
        self.net.freeze_through(reduction)  # type: ignore[operator]

    def stages(self) -> list[Stage]:
        """Return the network's own stages."""
        return [Stage(reduction, [f"net.{n}" for n in names]) for reduction, names in self.net.stages()]  # type: ignore[operator]

    def blocks(self) -> list[Block]:
        """Return the network's own blocks, where it is one of ours."""
        blocks = self.net.blocks() if isinstance(self.net, Backbone | Encoder) else []
        return [Block(block.fraction, [f"net.{n}" for n in block.parameters]) for block in blocks]

    def pretrained_head(self) -> nn.Linear | None:
        """Return the weights' own classifier, where the network has it."""
        return self.net.pretrained_head() if isinstance(self.net, Encoder) else None


def registered_name(backbone: str | nn.Module | Mapping[str, Any]) -> str | None:
    """Return the name of a task's backbone; None for a module, and for what a checkpoint saved of one."""
    return backbone if isinstance(backbone, str) and not backbone.startswith(_PREFIX) else None


def module_record(net: nn.Module) -> str | dict[str, Any]:
    """Return what a checkpoint saves of a module: how ours was made, or the class of a user's."""
    if isinstance(net, Backbone | Encoder) and net.made_by:
        return dict(net.made_by)
    return _class_record(net)


def wrap_module(
    net: nn.Module | Mapping[str, Any] | str,
    *,
    trained: bool,
    channels: int,
    pool: bool = False,
    probe_level: int | None = None,
) -> UserModule:
    """Return a user's module as a backbone.

    Args:
        net: The module, or what a checkpoint saved of one.
        trained: Whether its weights are trained.
        channels: Channels of an image.
        pool: Whether a vector `(B, dim)` is needed.
        probe_level: Which map is averaged.

    Raises:
        InputError: Only the user can build it, or it does not give what is needed (see `UserModule`).
    """
    if isinstance(net, str):
        name = net.removeprefix(_PREFIX)
        raise InputError(
            f"This checkpoint was trained with your own module {name}, which only you can build. "
            f"Pass it again: load_from_checkpoint(path, backbone={name}(...))."
        )
    if isinstance(net, Mapping):
        net = _rebuilt(net, trained=trained)
    staged = all(inspect.ismethod(getattr(net, name, None)) for name in ("freeze_through", "stages"))
    kind = _StagedModule if staged else UserModule
    return kind(net, trained=trained, channels=channels, pool=pool, probe_level=probe_level)


def _class_record(net: nn.Module) -> str:
    return f"{_PREFIX}{type(net).__name__}"


def _rebuilt(made_by: Mapping[str, Any], *, trained: bool) -> nn.Module:
    """Build one of our networks, once given as an object, for a checkpoint to fill."""
    settings = dict(made_by)
    frozen = trained and settings["norm"] == "frozen"
    if frozen:
        settings["norm"] = "batch"
    size = settings["image_size"]
    settings["image_size"] = tuple(size) if isinstance(size, list) else size
    create = create_backbone if "reductions" in settings else create_encoder
    net: Any = create(settings.pop("name"), init="scratch", **settings)
    if frozen:
        convert_norms(net, "frozen", trained=True)
    if trained:
        net.weights = WeightsInfo(source="user", name=net.name)
    net.made_by = dict(made_by)
    return net  # type: ignore[no-any-return]
