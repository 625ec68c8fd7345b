"""The backbone of a task: by name, from a user's own module, or as a checkpoint describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from visionkit.backbones import create_backbone, create_encoder
from visionkit.backbones.norms import convert_norms
from visionkit.backbones.weights import WeightsInfo
from visionkit.config import NormPolicy, TransferConfig
from visionkit.errors import InputError, expected
from visionkit.nn.segmentation.decoders import decoder_class, list_decoders
from visionkit.tasks.image_spec import ImageSpec
from visionkit.tasks.user_module import UserModule, module_record, registered_name, wrap_module
from visionkit.transfer import is_trained, resolve_transfer, transfer_from
from visionkit.types import Init, init_is_path

__all__ = ["BackboneBuilder"]


class BackboneBuilder:
    """Builds the backbone of a task, and describes it for the task's checkpoints.

    What it builds has `mean`, `std`, `weights` and `freeze_through`; a feature source has `levels` besides,
    an encoder `dim`.

    Args:
        task: "classification", "detection", "segmentation", "captioning", "embedding" or "keypoints": whose
            transfer defaults hold.
        backbone: A name, a user's own module, or what a checkpoint saved of one.
        init: Where the weights come from; for a user's module, whether its weights are trained.
        transfer: What is done with the weights.
        images: Channels, size and statistics of the images.
        origin: The record of the weights that a checkpoint will fill in; None when nothing is reloaded.

    Attributes:
        init: Where the weights come from, be it by way of a checkpoint.
        transfer: Resolved: with the defaults of the task.

    Raises:
        InputError: The transfer settings do not fit the init.
    """

    def __init__(
        self,
        task: str,
        backbone: str | nn.Module | Mapping[str, Any],
        *,
        init: Init,
        transfer: TransferConfig | Mapping[str, Any],
        images: ImageSpec,
        origin: Mapping[str, Any] | None,
    ) -> None:
        self.backbone, self.images, self.origin = backbone, images, origin
        self.init: Init = origin["init"] if origin else init
        self.transfer = resolve_transfer(task, self.init, transfer_from(transfer))
        self._given_init, self._name = init, registered_name(backbone)

    @classmethod
    def of(cls, task: str, arguments: Mapping[str, Any]) -> BackboneBuilder:
        """Return the builder for the arguments of a task that are about its backbone and its images.

        Args:
            task: As for the class.
            arguments: The arguments of the task's `__init__` by name.
        """
        about = ("in_channels", "image_size", "mean", "std", "backbone_options")
        return cls(
            task,
            arguments["backbone"],
            images=ImageSpec(*(arguments[name] for name in about)),
            **{name: arguments[name] for name in ("init", "transfer", "origin")},
        )

    def encoder(self) -> Any:
        """Return a module `(B, C, H, W) -> (B, dim)`.

        Raises:
            InputError: The checkpoint holds a module that only the user can build, or there is no such level.
        """
        level = self.transfer.probe_level
        if self._name is None:
            return self._wrapped(pool=True, probe_level=level)
        return self._finished(create_encoder(self._name, level=level, **self._settings(self._name)))

    def maps(self, reductions: Sequence[int], *, output_stride: int | None = None) -> Any:
        """Return a feature source with `levels`; a user's module gives the maps that it has.

        Args:
            reductions: Which maps.
            output_stride: Coarsest reduction, by dilation; the network's own if not given.

        Raises:
            InputError: The module has no levels, or the checkpoint holds one that only the user can build.
        """
        if self._name is None:
            return self._wrapped()
        settings = self._settings(self._name)
        return self._finished(
            create_backbone(self._name, reductions=tuple(reductions), output_stride=output_stride, **settings)
        )

    def segmentation_maps(self, decoder: str, *, output_stride: int | None, auxiliary: bool) -> Any:
        """Return a source of the maps that a segmentation decoder joins.

        A backbone whose coarsest map is fine enough stays as it is; a coarser one is dilated, if it can be.

        Args:
            decoder: Name of the decoder.
            output_stride: Largest reduction; the decoder's default if not given.
            auxiliary: Whether the second coarsest map is needed too.

        Raises:
            InputError: The backbone cannot serve; the text says what would.
        """
        if self._name is None:
            return self._wrapped()
        kind = decoder_class(decoder)
        limit = kind.output_stride if output_stride is None else output_stride
        if limit is not None and limit < 1:
            raise InputError(expected("output_stride", "8, 16 or 32", limit))
        available, stride = self._reductions_up_to(limit, self._name, decoder)
        chosen = {reduction for reduction in kind.reductions if reduction in available}
        chosen |= set(available[-2:] if auxiliary else available[-1:])
        if len(chosen) < kind.min_levels:
            chosen.add(available[0])
        return self.maps(sorted(chosen), output_stride=stride)

    def caption_maps(self, reduction: int | None, *, output_stride: int | None) -> Any:
        """Return a source of the map that a caption decoder attends to, its last.

        Finer maps are made too, so that freezing and unfreezing by level has its levels.

        Args:
            reduction: Which map; the coarsest if not given.
            output_stride: Coarsest reduction, by dilation where the backbone can.

        Raises:
            InputError: The backbone has no maps, or no such map.
        """
        if self._name is None:
            return self._wrapped()
        available = self._reductions(self._name, output_stride)
        if not available:
            raise InputError(
                f"{self._name!r} has no maps, so nothing to attend to. Use decoder 'show_and_tell' or 'fc'."
            )
        if reduction is not None and reduction not in available:
            raise InputError(expected("reduction", f"one of {self._name!r}'s {available}", reduction))
        finer = [each for each in available if reduction is None or each <= reduction]
        return self.maps(finer, output_stride=output_stride)

    def keypoint_maps(self, finest: int) -> Any:
        """Return a source of all maps that are not finer than a reduction; of those that are, if all are.

        Args:
            finest: The reduction of the finest map.

        Raises:
            InputError: The backbone has no maps.
        """
        if self._name is None:
            return self._wrapped()
        available = self._reductions(self._name)
        if not available:
            raise InputError(
                f"{self._name!r} has no maps aligned with the image, which the places of points need. Take "
                "another backbone."
            )
        return self.maps([each for each in available if each >= finest] or available)

    def saved(self, built: Any) -> dict[str, Any]:
        """Return the settings from which this backbone is built again, for a checkpoint to fill.

        Args:
            built: What this builder has made. A path to weights is not saved: it means nothing on another
                machine.
        """
        kind = "file" if init_is_path(self.init) else self.init
        backbone = self.backbone
        return {
            "backbone": module_record(backbone) if isinstance(backbone, nn.Module) else backbone,
            **self.images.settings(),
            "init": "scratch",
            "origin": {"init": kind, "weights": built.weights.as_dict()},
            "transfer": self.transfer,
        }

    def _settings(self, name: str) -> dict[str, Any]:
        """Return what `create_backbone` and `create_encoder` take alike."""
        # Norms that a checkpoint fills may only be frozen afterwards.
        later = self.origin is not None and self.transfer.norm == "frozen"
        norm: NormPolicy = "batch" if later else self.transfer.norm or "batch"
        return {
            "init": self._given_init,
            "norm": norm,
            "in_channels": self.images.in_channels,
            "image_size": self.images.size_to_build(name),
            "options": self.images.backbone_options,
        }

    def _wrapped(self, *, pool: bool = False, probe_level: int | None = None) -> Any:
        """Return the user's module as a backbone.

        Raises:
            InputError: Options are given, which a module that is made already cannot take.
        """
        if self.images.backbone_options:
            raise InputError(
                "backbone_options are for a backbone that is named. Give yours its settings where you "
                "make it."
            )
        channels = self.images.in_channels
        wrapped = wrap_module(
            self.backbone,
            trained=is_trained(self.init),
            channels=channels,
            pool=pool,
            probe_level=probe_level,
        )
        return self._finished(wrapped)

    def _finished(self, source: Any) -> Any:
        """Return a backbone with the statistics given and, when reloading, its frozen norms and its record.

        Raises:
            InputError: The user's module has statistics for other channels.
        """
        images = self.images
        if len(source.mean) != images.in_channels and (images.in_channels != 3 or images.mean is not None):
            means = f"{len(source.mean)}, as your own backbone has means"
            raise InputError(expected("in_channels", means, images.in_channels))
        if self.origin:
            if self.transfer.norm == "frozen" and not isinstance(source, UserModule):
                convert_norms(source, "frozen", trained=True)
            source.weights = WeightsInfo.from_dict(self.origin["weights"])
        if images.mean is not None and images.std is not None:
            source.mean, source.std = tuple(images.mean), tuple(images.std)
        return source

    def _reductions(self, name: str, output_stride: int | None = None) -> list[int]:
        return self.images.model_info(name, output_stride).reductions

    def _reductions_up_to(self, limit: int | None, name: str, decoder: str) -> tuple[list[int], int | None]:
        """Return the reductions that are not above a limit, and the output stride to build the backbone with.

        Raises:
            InputError: There are none, or too few for the decoder, or the backbone cannot be dilated so far.
        """
        model_info = self.images.model_info(name)
        if model_info.fixed_size is not None and self.images.size is None:
            raise InputError(
                f"{name!r} takes images of {model_info.fixed_size[0]} x {model_info.fixed_size[1]} only, but "
                "segmentation trains on windows and scores at native size. Give the size of the windows, "
                "image_size=(height, width), or take a backbone without a fixed size."
            )
        undilated = self._reductions(name)
        if not undilated:
            raise InputError(
                f"{name!r} has no maps aligned with the image, which segmentation needs. Take another "
                "backbone."
            )
        levels = decoder_class(decoder).min_levels
        if len(undilated) < levels:
            raise InputError(
                f"Decoder {decoder!r} joins maps of at least {levels} reductions, but {name!r} has "
                f"{undilated[0]} only. {_decoders_for(undilated)}"
            )
        if limit is None or undilated[-1] <= limit:
            return undilated, None
        try:
            return self._reductions(name, limit), limit
        except InputError as error:
            raise InputError(
                f"{error} Decoder {decoder!r} asks for reduction {limit} or less. {_decoders_for(undilated)}"
            ) from error


def _decoders_for(reductions: Sequence[int]) -> str:
    """Return a sentence that names the decoders which serve maps of these reductions, without dilation."""
    plain: list[str] = []
    strided: list[str] = []
    for name in list_decoders():
        decoder = decoder_class(name)
        too_coarse = decoder.coarsest and reductions[-1] > decoder.coarsest
        if len(reductions) < decoder.min_levels or too_coarse:
            continue
        fits = decoder.output_stride is None or reductions[-1] <= decoder.output_stride
        (plain if fits else strided).append(repr(name))
    ways = [" or ".join(plain)] if plain else []
    ways += [f"{' or '.join(strided)} with output_stride={reductions[-1]}"] if strided else []
    return f"With this backbone take {', or '.join(ways)}." if ways else "Take another backbone."
