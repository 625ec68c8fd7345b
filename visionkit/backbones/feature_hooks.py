"""Reading maps inside any network by hooks at named modules, with what lies behind them cut off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from visionkit.backbones.sources.base import Size, Tap
from visionkit.backbones.tracing import record_calls, run_for_shapes

__all__ = ["TappedMaps", "cut_behind", "ends_with", "last_layer"]


class TappedMaps(nn.Module):
    """Any network, giving the outputs of named modules.

    Args:
        model: The network.
        taps: Where to read; keys are module names.
    """

    def __init__(self, model: nn.Module, taps: Sequence[Tap]) -> None:
        super().__init__()
        self.model = model
        self._keys = tuple(str(tap.key) for tap in taps)
        self._seen: dict[str, Tensor] = {}
        modules = dict(model.named_modules())
        for key in self._keys:
            modules[key].register_forward_hook(_Keep(self._seen, key))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the raw outputs of the tapped modules for `(B, C, H, W)`."""
        self._seen["listening"] = images
        self.model(images)
        found = [self._seen[key] for key in self._keys]
        self._seen.clear()
        return found


class _Keep:
    """A forward hook that is copied and pickled with the network, and keeps nothing between runs."""

    def __init__(self, seen: dict[str, Tensor], key: str) -> None:
        self.seen, self.key = seen, key

    def __call__(self, _module: nn.Module, _args: Any, output: Tensor) -> None:
        if self.seen:
            self.seen[self.key] = output


def cut_behind(model: nn.Module, keys: Sequence[str], size: Size, channels: int) -> None:
    """Replace what runs only behind the last of `keys` by `nn.Identity`, if the network still runs then."""
    calls = record_calls(model, size, channels)
    last = max(call.end for call in calls if call.name in keys)
    # what never runs by itself stays: attention reads the weights of a submodule without calling it
    needed = {call.name for call in calls if call.begin < last}
    behind = {call.name for call in calls} - needed
    doomed = [name for name in behind if not any(name.startswith(f"{other}.") for other in behind)]
    replaced = {name: _swap(model, name, nn.Identity()) for name in doomed if _has_parameters(model, name)}
    try:
        run_for_shapes(model, size, channels)
    except Exception:
        for name, old in replaced.items():
            _swap(model, name, old)


def ends_with(model: nn.Module, layer: nn.Module, size: Size, channels: int) -> bool:
    """Whether a layer is the last to run, so that what it gives is what the whole network gives."""
    modules = dict(model.named_modules())
    leaves = [
        modules[c.name] for c in record_calls(model, size, channels) if not list(modules[c.name].children())
    ]
    leaves = [leaf for leaf in leaves if not isinstance(leaf, nn.Identity | nn.Flatten)]
    return bool(leaves) and leaves[-1] is layer


def last_layer(model: nn.Module, size: Size, channels: int) -> str:
    """Return the name of the last module with parameters of its own that runs: the classifier."""
    modules = dict(model.named_modules())
    owners = [
        call.name
        for call in record_calls(model, size, channels)
        if not list(modules[call.name].children())
        and next(modules[call.name].parameters(recurse=False), None) is not None
    ]
    return owners[-1]


def _has_parameters(model: nn.Module, name: str) -> bool:
    return next(model.get_submodule(name).parameters(), None) is not None


def _swap(model: nn.Module, name: str, new: nn.Module) -> nn.Module:
    parent, _, child = name.rpartition(".")
    owner = model.get_submodule(parent)
    old = owner.get_submodule(child)
    setattr(owner, child, new)
    return old
