"""A user's own network as a task's backbone, without registering it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from visionkit.backbones import Backbone, Encoder, create_backbone, create_encoder
from visionkit.backbones.norms import convert_norms
from visionkit.backbones.stages import Block, Stage, Through
from visionkit.backbones.weights import WeightsInfo
from visionkit.errors import InputError, expected

__all__ = ["OwnModule", "PooledMaps", "own_module_name", "wrap_own"]

_MARK = "module:"


class OwnModule(nn.Module):
    """Gives a user's network what tasks ask of a backbone: statistics, a record, and whole-network freezing.

    Freezing by level needs its stages: register it (`visionkit.backbones.register_backbone`), or give it
    `freeze_through(reduction)` and `stages()`.

    Args:
        net: Gives `(B, dim)` and has `dim`, or gives maps and has `levels`. Its `mean` and `std`, if it has
            them, are for images in [0, 1]; without them it gets the images in [0, 1] as they are.
        trained: Whether its weights are trained.
        channels: Channels of an image, for a network that has no `mean`.

    Raises:
        InputError: It has neither `dim` nor `levels`.
    """

    def __init__(self, net: nn.Module, *, trained: bool, channels: int = 3) -> None:
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
        own = getattr(net, "name", None)
        self.name = own if isinstance(net, Backbone | Encoder) and isinstance(own, str) else _mark(net)
        record = getattr(net, "weights", None)
        if not isinstance(record, WeightsInfo) or record.trained != trained:
            record = WeightsInfo(source="user" if trained else "none", name=type(net).__name__)
        self.weights = record
        self.fixed_size: tuple[int, int] | None = net.fixed_size if isinstance(net, Backbone) else None
        self._frozen = False

    def forward(self, images: Any) -> Any:
        """Return what the network gives."""
        return self.net(images)

    def freeze_through(self, reduction: Through) -> None:
        """Freeze all of the network's parameters and statistics ("all"), or nothing (0)."""
        if reduction not in (0, "all"):
            fix = "To freeze it by level, register it with visionkit.backbones.register_backbone."
            raise InputError(expected("freeze_through of your own module", "0 or 'all'", reduction, fix=fix))
        self._frozen = reduction == "all"
        self.net.requires_grad_(not self._frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> OwnModule:
        """Switch to training, but leave a frozen network in evaluation: its statistics must not move."""
        super().train(mode)
        if self._frozen:
            self.net.eval()
        return self

    @staticmethod
    def is_mark(name: object) -> bool:
        """Return whether a saved backbone name stands for a user's module, which only the user can build."""
        return isinstance(name, str) and name.startswith(_MARK)


class _OwnLevels(OwnModule):
    """A network that can freeze itself by level and say its stages: ours, given as an object, or a user's."""

    def __init__(self, net: nn.Module, *, trained: bool, channels: int = 3) -> None:
        super().__init__(net, trained=trained, channels=channels)
        if isinstance(net, Backbone | Encoder):
            net.weights = self.weights  # weights loaded by hand are trained, if the user says so

    def freeze_through(self, reduction: Through) -> None:
        """Have the network freeze itself."""
        self.net.freeze_through(reduction)  # type: ignore[operator]

    def stages(self) -> list[Stage]:
        """Return the network's own stages."""
        return [Stage(reduction, [f"net.{n}" for n in names]) for reduction, names in self.net.stages()]  # type: ignore[operator]

    def blocks(self) -> list[Block]:
        """Return the network's own blocks, where it is one of ours."""
        found = self.net.blocks() if isinstance(self.net, Backbone | Encoder) else []
        return [Block(block.share, [f"net.{n}" for n in block.parameters]) for block in found]

    def pretrained_head(self) -> nn.Linear | None:
        """Return the weights' own classifier, where the network has it."""
        return self.net.pretrained_head() if isinstance(self.net, Encoder) else None


class PooledMaps(nn.Module):
    """A feature source seen as an encoder: the mean of one level's map.

    Args:
        source: Gives one map a level.
        reduction: Which level; the coarsest if not given.

    Raises:
        InputError: There is no such level.
    """

    def __init__(self, source: OwnModule, *, reduction: int | None = None) -> None:
        super().__init__()
        levels = source.levels or ()
        reductions = [level.reduction for level in levels]
        wanted = reductions[-1] if reduction is None else reduction
        if wanted not in reductions:
            raise InputError(
                expected("probe_level", f"one of the backbone's reductions {reductions}", reduction)
            )
        self.source = source
        self.place = reductions.index(wanted)
        self.dim = int(levels[self.place].channels)
        self.mean, self.std, self.name, self.weights = source.mean, source.std, source.name, source.weights

    def forward(self, images: Tensor) -> Tensor:
        """Return `(B, dim)` for normalised images `(B, C, H, W)`."""
        maps: tuple[Tensor, ...] = self.source(images)
        return maps[self.place].mean(dim=(2, 3))

    def freeze_through(self, reduction: Through) -> None:
        """Freeze the source."""
        self.source.freeze_through(reduction)


class _PooledLevels(PooledMaps):
    """The same over a network that knows its stages."""

    source: _OwnLevels

    def stages(self) -> list[Stage]:
        """Return the source's stages."""
        return [Stage(s.reduction, [f"source.{n}" for n in s.parameters]) for s in self.source.stages()]

    def blocks(self) -> list[Block]:
        """Return the source's blocks."""
        return [Block(b.share, [f"source.{n}" for n in b.parameters]) for b in self.source.blocks()]


def wrap_own(
    net: nn.Module | Mapping[str, Any] | str,
    *,
    trained: bool,
    channels: int,
    pool: bool = False,
    probe_level: int | None = None,
) -> Any:
    """Return a user's module as a backbone.

    Args:
        net: The module; or what a checkpoint remembers of one.
        trained: Whether its weights are trained.
        channels: Channels of an image.
        pool: Whether a vector is wanted: maps are averaged.
        probe_level: Which map; the coarsest if not given.

    Raises:
        InputError: Only the user can build it, or it gives no maps where they are wanted.
    """
    if isinstance(net, str):
        name = net.removeprefix(_MARK)
        raise InputError(
            f"This checkpoint was trained with your own module {name}, which only you can build. "
            f"Pass it again: load_from_checkpoint(path, backbone={name}(...))."
        )
    if isinstance(net, Mapping):
        net = _made_again(net, trained=trained)
    knows = all(inspect.ismethod(getattr(net, name, None)) for name in ("freeze_through", "stages"))
    own = (_OwnLevels if knows else OwnModule)(net, trained=trained, channels=channels)
    if pool:
        if own.dim is None:
            return (_PooledLevels if knows else PooledMaps)(own, reduction=probe_level)
        if probe_level is not None:
            raise InputError(
                "probe_level needs a backbone with levels, but yours gives a vector. Leave it out."
            )
    elif own.levels is None:
        raise InputError(
            f"Expected your backbone {type(net).__name__} to have 'levels' and to give one map "
            "a level, but it gives a vector. Set self.levels = (Level(channels, reduction), ...) in it."
        )
    return own


def own_module_name(net: nn.Module) -> str | dict[str, Any]:
    """Return how a checkpoint remembers a module: how ours was made, or a mark with the class of a user's."""
    if isinstance(net, Backbone | Encoder) and net.made_by:
        return dict(net.made_by)
    return _mark(net)


def _mark(net: nn.Module) -> str:
    return f"{_MARK}{type(net).__name__}"


def _made_again(made_by: Mapping[str, Any], *, trained: bool) -> nn.Module:
    """Build one of our networks, given as an object once, for a checkpoint to fill."""
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
