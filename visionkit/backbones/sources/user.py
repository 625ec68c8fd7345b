"""Networks that users registered under a name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.backbones.sources.base import Card, Request, Size, Tap
from visionkit.backbones.sources.state_dict import fill_missing, without_prefixes
from visionkit.backbones.tracing import on_meta_device
from visionkit.backbones.weights import WeightsInfo
from visionkit.errors import InputError

__all__ = ["UserSource"]

_SIZE = (224, 224)


class UserSource:
    """The functions that `register_backbone` was given."""

    prefix = "user"

    def __init__(self) -> None:
        self.functions: dict[str, Callable[..., nn.Module]] = {}

    def names(self) -> list[str]:
        """Return every registered name."""
        return sorted(self.functions)

    def tags(self, architecture: str) -> list[str]:
        """Return no tags."""
        return []

    def card(self, request: Request) -> Card:
        """Return the statistics that the network declares: its `mean`, `std` and `input_size`."""
        model: Any = on_meta_device(lambda: self._make(request, pretrained=False))
        return Card(
            mean=tuple(getattr(model, "mean", (0.5, 0.5, 0.5))),
            std=tuple(getattr(model, "std", (0.5, 0.5, 0.5))),
            input_size=cast(Size, tuple(getattr(model, "input_size", _SIZE))),
            tags=(),
            info=WeightsInfo("user", request.architecture, "", "not stated", "not stated"),
        )

    def fetch(self, request: Request) -> tuple[None, WeightsInfo]:
        """Return only the record: the user's function brings its own weights."""
        return None, WeightsInfo("user", request.architecture, "", "not stated", "not stated")

    def build(
        self,
        request: Request,
        state: Mapping[str, Tensor] | None,
        *,
        trusted: bool = True,
        needed: frozenset[str] | None = None,
    ) -> nn.Module:
        """Call the user's function, and load the weights if there are any."""
        if request.output_stride is not None:
            raise InputError(
                f"{request.architecture!r} is your own network: give it its output stride yourself."
            )
        if state is None:
            return self._make(request, pretrained=False)
        model = self._make(request, pretrained=False)
        own = without_prefixes(state, model.state_dict())
        model.load_state_dict(
            fill_missing(own, model.state_dict(), model.state_dict(), name=request.architecture)
        )
        return model

    def build_pretrained(self, request: Request) -> nn.Module:
        """Call the user's function for its trained network."""
        return self._make(request, pretrained=True)

    def classifier_keys(self, request: Request) -> tuple[str, ...]:
        """Return nothing: a feature source has no classifier."""
        return ()

    def places(self, model: nn.Module, size: Size) -> Sequence[int | str]:
        """Return one place per declared level."""
        return list(range(len(cast(Any, model).levels)))

    def maps(self, model: nn.Module, taps: Sequence[Tap], *, prune: bool) -> nn.Module:
        """Return the maps at the chosen levels."""
        return _Chosen(model, [int(tap.key) for tap in taps])

    def vector(self, model: nn.Module, size: Size) -> tuple[nn.Module, None]:
        """Return the average over the coarsest map."""
        return _LastPooled(model), None

    def _make(self, request: Request, *, pretrained: bool) -> nn.Module:
        function = self.functions[request.architecture]
        takes = inspect.signature(function).parameters
        options: dict[str, Any] = {}
        if "pretrained" in takes:
            options["pretrained"] = pretrained
        elif pretrained:
            raise InputError(
                f"{request.architecture!r} has no pretrained weights: its function takes no argument "
                "'pretrained'. "
                "Use init='scratch', or a weights file."
            )
        if "in_channels" in takes:
            options["in_channels"] = request.in_channels
        elif request.in_channels != 3:
            raise InputError(
                f"{request.architecture!r} takes 3 channels: its function has no argument 'in_channels'."
            )
        model = function(**options)
        levels = getattr(model, "levels", None)
        if not isinstance(model, nn.Module) or not levels or not all(isinstance(v, Level) for v in levels):
            raise InputError(
                f"Expected the function of {request.architecture!r} to return a module with `levels`, a "
                "sequence of "
                f"Level(channels, reduction), but got {type(model).__name__} with levels {levels!r}."
            )
        return model


class _Chosen(nn.Module):
    def __init__(self, model: nn.Module, indices: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self._indices = list(indices)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.model(images)
        return [maps[i] for i in self._indices]


class _LastPooled(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.model(images)[-1].mean((2, 3)))  # (B, C, h, w) -> (B, C)
