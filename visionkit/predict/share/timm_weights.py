"""The backbone of a trained task as a weights file that `timm.create_model(checkpoint_path=)` loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from visionkit.backbones import Backbone, Encoder
from visionkit.backbones.registry import resolve
from visionkit.backbones.sources.base import ModelSpec
from visionkit.backbones.sources.packaged import PackagedSource
from visionkit.backbones.sources.timm import TimmSource
from visionkit.backbones.weights import read_state_dict
from visionkit.errors import InputError
from visionkit.files import write_atomic, writing

__all__ = ["TimmWeights", "check_timm_file", "timm_weights"]


@dataclass(frozen=True)
class TimmWeights:
    """Weights in timm's format.

    Args:
        file: The file.
        call: The call that loads them, strictly.
        classes: Classes of its classifier; 0 for a file without one.
        notes: What was added or left out, in sentences.
    """

    file: Path
    call: str
    classes: int
    notes: tuple[str, ...] = ()


def timm_weights(task: Any, file: str | Path) -> TimmWeights:
    """Write the backbone of a task in timm's format; a classifier's last layer is timm's classifier.

    The file is loaded by timm, strictly, before it is kept. A head that learnt numbers in standard units gets
    their mean and deviation into its weights: timm's model gives them in the units of the targets.

    Args:
        task: A task over a `timm/` backbone (or a packaged one, which timm has too).
        file: A new `.safetensors` file.

    Raises:
        InputError: The backbone is none of timm's, its norms are not timm's, or the file exists.
        RunError: The file cannot be written.
    """
    import timm

    target = check_timm_file(file)
    name, options = _timm_model(task)
    network = _network(task)
    head = _last_layer(task)
    own = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    for classes in [len(head["weight"]), 0] if head else [0]:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)  # of the layers that are not trained
            plain = timm.create_model(name, num_classes=classes, **options)
        state, new = _as_timm(plain, own, head if classes else {})
        if state is not None:
            break
    else:
        missing = sorted(plain.state_dict().keys() - own.keys()) or sorted(
            own.keys() - plain.state_dict().keys()
        )
        raise InputError(
            f"timm's {name!r} does not take these weights (first in {missing[0]}): the backbone has other "
            "norms or layers than timm's, such as norm='group'."
        )
    arguments = {"num_classes": classes, **options, "checkpoint_path": target.name}
    listed = ", ".join(f"{key}={value!r}" for key, value in arguments.items())

    def write(part: Path) -> None:
        part.write_bytes(save(state, metadata={"format": "pt"}))
        plain.load_state_dict(read_state_dict(part), strict=True)

    with writing(target.parent):
        write_atomic(target, write)
    mean, std = (tuple(round(v, 6) for v in values) for values in (task.backbone.mean, task.backbone.std))
    notes = [f"Images in [0, 1] less {mean}, over {std}, is what the network takes."]
    if classes and getattr(task, "standardize", None) is not None:
        notes.append("Its numbers are in the units of the targets.")
    if new:
        rest = f" and {len(new) - 3} more layers" if len(new) > 3 else ""
        notes.append(f"Not trained, since the task does not use it: {', '.join(new[:3])}{rest}.")
    return TimmWeights(target, f"timm.create_model({name!r}, {listed})", classes, tuple(notes))


def check_timm_file(file: str | Path, *, new_folder: Path | None = None) -> Path:
    """Return the path of a file that is to be written.

    Args:
        file: The file.
        new_folder: A folder that will be made for it.

    Raises:
        InputError: It exists, or its ending is not `.safetensors`.
    """
    target = Path(file)
    if target.suffix != ".safetensors":
        raise InputError(f"Expected a file that ends in .safetensors for timm, but got {target.name!r}.")
    if target.exists():
        raise InputError(f"{target} exists already. Nothing is overwritten: name another file.")
    if not target.parent.is_dir() and target.parent != new_folder:
        raise InputError(f"Expected a folder at {target.parent} for {target.name}, but there is none.")
    return target


def _timm_model(task: Any) -> tuple[str, dict[str, Any]]:
    """Return timm's name of a task's network, and the options to build it with."""
    backbone = task.backbone
    name = backbone.name if isinstance(backbone, Backbone | Encoder) else type(backbone).__name__
    if not isinstance(backbone, Backbone | Encoder):
        raise InputError(f"timm has no {name!r}: the backbone is a module of your own.")
    source, spec = resolve(name, ModelSpec(""))
    architecture = (
        source.timm_name(spec.architecture) if isinstance(source, TimmSource | PackagedSource) else None
    )
    if architecture is None:
        raise InputError(
            f"timm has no {name!r}: only its own backbones can have its format. "
            "Leave --timm out; model.safetensors of the published folder has the weights too."
        )
    made: dict[str, Any] = backbone.made_by
    options: dict[str, Any] = {}
    if made.get("in_channels", 3) != 3:
        options["in_chans"] = made["in_channels"]
    if made.get("output_stride") is not None:
        options["output_stride"] = made["output_stride"]
    if made.get("image_size") is not None:
        options["img_size"] = made["image_size"]
    return architecture, options


def _network(task: Any) -> nn.Module:
    """Return timm's own module inside a backbone."""
    network = task.backbone.net.get_submodule("model")
    return network.net.get_submodule("model") if isinstance(network, Backbone) else cast(nn.Module, network)


def _last_layer(task: Any) -> dict[str, Tensor]:
    """Return weight `(K, C)` and bias `(K,)` of a classifier's last layer; of another head nothing."""
    head, units = getattr(task, "head", None), getattr(task, "standardize", None)
    if not isinstance(head, nn.Linear):
        return {}
    state = {name: value.detach().cpu() for name, value in head.state_dict().items()}
    if units is not None:  # restore(x) = x * std + mean
        mean, std = units.mean.cpu(), units.std.cpu()
        state = {"weight": state["weight"] * std[:, None], "bias": state.get("bias", 0) * std + mean}
    return state


def _as_timm(
    plain: nn.Module, own: dict[str, Tensor], head: dict[str, Tensor]
) -> tuple[dict[str, Tensor] | None, list[str]]:
    """Return the state of timm's model with trained weights, and the layers that are not; None: no fit."""
    expected_state = plain.state_dict()
    state = dict(own)
    for layer in _classifiers(plain) if head else ():
        for part, value in head.items():
            like = expected_state.get(f"{layer}.{part}")
            if like is None or like.numel() != value.numel():
                return None, []
            state[f"{layer}.{part}"] = value.reshape(like.shape).contiguous()
    if state.keys() - expected_state.keys():
        return None, []
    if any(state[key].shape != expected_state[key].shape for key in state):
        return None, []
    missing = [key for key in expected_state if key not in state]
    if any(key.endswith("running_mean") and f"{key[:-12]}weight" in state for key in missing):
        return None, []  # group norms have no statistics
    fresh = {key: expected_state[key].contiguous() for key in missing}
    layers = [key.rpartition(".")[0] for key in missing if not key.endswith("num_batches_tracked")]
    return {**fresh, **state}, list(dict.fromkeys(layers))


def _classifiers(plain: nn.Module) -> tuple[str, ...]:
    names = cast(Any, plain).pretrained_cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)
