"""Feature maps of any network by forward hooks at named modules; removal of layers that they do not need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from visionkit.backbones.sources.base import FeatureNode, Size
from visionkit.backbones.tracing import record_calls, run_for_shapes

__all__ = ["FeatureHookNet", "ends_with", "last_layer", "prune_after"]


class FeatureHookNet(nn.Module):
    """Any network, returning the outputs of some of its modules.

    Args:
        model: The network.
        nodes: The modules whose outputs are returned; their keys are module names.
    """

    def __init__(self, model: nn.Module, nodes: Sequence[FeatureNode]) -> None:
        super().__init__()
        self.model = model
        self._keys = tuple(str(node.key) for node in nodes)
        self._outputs = _Outputs()
        modules = dict(model.named_modules())
        for key in self._keys:
            modules[key].register_forward_hook(_StoreOutput(self._outputs, key))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the outputs of the modules, in order, for `(B, C, H, W)`."""
        self._outputs["listening"] = images
        self.model(images)
        features = [self._outputs[key] for key in self._keys]
        self._outputs.clear()
        return features


class _Outputs(dict[str, Tensor]):
    """The outputs of one forward pass.

    A type of its own: `torch.export` puts copies of a module's dicts back, and the hooks would fill another.
    """


class _StoreOutput:
    """A picklable forward hook that stores the output of its module during `FeatureHookNet.forward`."""

    def __init__(self, outputs: _Outputs, key: str) -> None:
        self.outputs, self.key = outputs, key

    def __call__(self, _module: nn.Module, _args: Any, output: Tensor) -> None:
        if self.outputs:
            self.outputs[self.key] = output


def prune_after(model: nn.Module, keys: Sequence[str], size: Size, channels: int) -> None:
    """Replace modules that run only after the last of `keys` by `nn.Identity`, if the network runs so."""
    calls = record_calls(model, size, channels)
    last = max(call.end for call in calls if call.name in keys)
    # modules that are never called stay: attention reads the weights of a submodule without calling it
    needed = {call.name for call in calls if call.begin < last}
    after = {call.name for call in calls} - needed
    removable = [name for name in after if not any(name.startswith(f"{other}.") for other in after)]
    replaced = {name: _swap(model, name, nn.Identity()) for name in removable if _has_parameters(model, name)}
    try:
        run_for_shapes(model, size, channels)
    except Exception:
        for name, old in replaced.items():
            _swap(model, name, old)


def ends_with(model: nn.Module, layer: nn.Module, size: Size, channels: int) -> bool:
    """Return whether a layer is the last to run, so that its output is the output of the network."""
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
