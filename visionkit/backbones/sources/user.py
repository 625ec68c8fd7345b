"""Networks that users registered with `register_backbone`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.backbones.sources.base import FeatureNode, ModelSpec, PretrainedCfg, Size
from visionkit.backbones.sources.state_dict import fill_missing, without_prefixes
from visionkit.backbones.tracing import on_meta_device
from visionkit.backbones.weights import WeightsInfo
from visionkit.errors import InputError, unknown_name

__all__ = ["UserSource"]

_SIZE = (224, 224)


class UserSource:
    """The builder functions given to `register_backbone`."""

    prefix = "user"

    def __init__(self) -> None:
        self.functions: dict[str, Callable[..., nn.Module]] = {}

    def names(self) -> list[str]:
        """Return every registered name."""
        return sorted(self.functions)

    def tags(self, architecture: str) -> list[str]:
        """Return no tags."""
        return []

    def pretrained_cfg(self, spec: ModelSpec) -> PretrainedCfg:
        """Return the attributes `mean`, `std` and `input_size` of the network, or defaults."""
        model: Any = on_meta_device(lambda: self._make(spec, pretrained=False))
        return PretrainedCfg(
            mean=tuple(getattr(model, "mean", (0.5, 0.5, 0.5))),
            std=tuple(getattr(model, "std", (0.5, 0.5, 0.5))),
            input_size=cast(Size, tuple(getattr(model, "input_size", _SIZE))),
            tags=(),
            info=WeightsInfo("user", spec.architecture, "", "not stated", "not stated"),
        )

    def fetch(self, spec: ModelSpec) -> tuple[None, WeightsInfo]:
        """Return only the record: the user's function loads its own weights."""
        return None, WeightsInfo("user", spec.architecture, "", "not stated", "not stated")

    def build(
        self,
        spec: ModelSpec,
        state: Mapping[str, Tensor] | None,
        *,
        trusted: bool = True,
        needed: frozenset[str] | None = None,
    ) -> nn.Module:
        """Call the user's function, and load `state` if there is one."""
        if spec.output_stride is not None:
            raise InputError(
                f"{spec.architecture!r} is your own network: give it its output stride yourself."
            )
        if state is None:
            return self._make(spec, pretrained=False)
        model = self._make(spec, pretrained=False)
        stripped = without_prefixes(state, model.state_dict())
        model.load_state_dict(
            fill_missing(stripped, model.state_dict(), model.state_dict(), name=spec.architecture)
        )
        return model

    def build_pretrained(self, spec: ModelSpec) -> nn.Module:
        """Call the user's function with `pretrained=True`."""
        return self._make(spec, pretrained=True)

    def classifier_keys(self, spec: ModelSpec) -> tuple[str, ...]:
        """Return nothing: a feature source has no classifier."""
        return ()

    def candidate_nodes(self, model: nn.Module, size: Size) -> Sequence[int | str]:
        """Return one index per declared level."""
        return list(range(len(cast(Any, model).levels)))

    def maps(self, model: nn.Module, nodes: Sequence[FeatureNode], *, prune: bool) -> nn.Module:
        """Return the maps at the chosen levels."""
        return _SelectedMaps(model, [int(node.key) for node in nodes])

    def pooled(self, model: nn.Module, size: Size) -> tuple[nn.Module, None]:
        """Return the average over the coarsest map."""
        return _LastPooled(model), None

    def _make(self, spec: ModelSpec, *, pretrained: bool) -> nn.Module:
        function = self.functions[spec.architecture]
        accepts = inspect.signature(function).parameters
        options: dict[str, Any] = {}
        if "pretrained" in accepts:
            options["pretrained"] = pretrained
        elif pretrained:
            raise InputError(
                f"{spec.architecture!r} has no pretrained weights: its function takes no argument "
                "'pretrained'. Use init='scratch', or a weights file."
            )
        if "in_channels" in accepts:
            options["in_channels"] = spec.in_channels
        elif spec.in_channels != 3:
            raise InputError(
                f"{spec.architecture!r} takes 3 channels: its function has no argument 'in_channels'."
            )
        for name, value in spec.options:
            if name not in accepts:
                raise unknown_name(f"option of {spec.architecture!r}", name, accepts)
            options[name] = value
        model = function(**options)
        levels = getattr(model, "levels", None)
        if not isinstance(model, nn.Module) or not levels or not all(isinstance(v, Level) for v in levels):
            raise InputError(
                f"Expected the function of {spec.architecture!r} to return a module with `levels`, a "
                f"sequence of Level(channels, reduction), but got {type(model).__name__} with levels "
                f"{levels!r}."
            )
        return model


class _SelectedMaps(nn.Module):
    """The maps at some indices of a feature source."""

    def __init__(self, model: nn.Module, indices: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self._indices = list(indices)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.model(images)
        return [maps[i] for i in self._indices]


class _LastPooled(nn.Module):
    """The average over the coarsest map of a feature source."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.model(images)[-1].mean((2, 3)))  # (B, C, h, w) -> (B, C)
