"""A task that begins from a trained one: its head and all the rest are taken too where the classes are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from visionkit.backbones.weights import checkpoint_record, read_state_dict, split_init
from visionkit.errors import InputError
from visionkit.tasks.saved_settings import plain_settings, task_name
from visionkit.types import init_is_path

__all__ = ["has_task", "take_heads"]


class _ClassRows(NamedTuple):
    """What a module has for each class: how many rows, and what is before and around them."""

    rows: int = 1
    background: bool = False  # before the first class
    repeated: bool = False  # all classes, for each anchor


# By the end of a module's name.
_CLASS_ROWS: dict[str, dict[str, _ClassRows]] = {
    "Classifier": {"head": _ClassRows(), "standardize": _ClassRows()},
    "Embedder": {"head": _ClassRows()},
    "Segmenter": {"classifier": _ClassRows()},
    "Detector": {
        "classify": _ClassRows(background=True),
        "regress": _ClassRows(4, background=True),
        "predict": _ClassRows(background=True),
        "class_logits": _ClassRows(repeated=True),
    },
}


def has_task(init: str) -> bool:
    """Return whether an `init` names the weights of a task of this library.

    Args:
        init: "pretrained", "scratch", the name of weights or a path.

    Raises:
        InputError: A folder without a trained task.
    """
    return init_is_path(init) and bool(_record(split_init(init)[0])["visionkit"].get("task"))


def take_heads(task: nn.Module, init: str, *, any_classes: bool = False) -> str:
    """Fill everything but the backbone from the weights that a task begins from, where it is the same task.

    With the same classes in another order the rows of the head are put into the task's own order, by name.
    Where the classes (a captioner's words) are not the same, or not known, everything but the backbone stays
    new, and so it does where another setting makes another network.

    Args:
        task: The task, with its new head.
        init: Where its weights come from.
        any_classes: Take the head whatever its classes are called.

    Returns:
        What was taken and what is new, in one sentence; "" where the weights are no task's and no file's.

    Raises:
        InputError: `any_classes`, and the head does not fit.
    """
    if not init_is_path(init):
        return ""
    file, prefix = split_init(init)
    record = _record(file)
    kind, own_kind = record["visionkit"].get("task"), task_name(type(task))
    begin = f"backbone from {_title(file)}" + (f", a {kind}" if kind else "")
    adapted = getattr(getattr(task.backbone, "weights", None), "adapted", "")
    begin += f" ({adapted})" if adapted else ""
    if not kind or prefix:
        return f"{begin}; the rest is new"
    if kind != own_kind:
        return f"{begin}; the rest is new: this is a {own_kind}"
    old, own = _names(record["hyper_parameters"]), _names(plain_settings(dict(task.hparams)))  # type: ignore[arg-type]
    word = {"Captioner": "words", "KeypointRegressor": "points"}.get(own_kind, "classes")
    if not any_classes:
        why = _other_names(old, own, record["hyper_parameters"], task, word)
        if why:
            return f"{begin}; the rest is new: {why}"
    state = _outside_backbone(task, read_state_dict(file))
    target = _outside_backbone(task, task.state_dict())
    differing = sorted(
        name
        for name in state.keys() | target.keys()
        if name not in state or name not in target or state[name].shape != target[name].shape
    )
    if differing:
        why = f"it is another network, first in {differing[0]}"
        if any_classes:
            raise InputError(
                f"head='pretrained' takes the head of {file.name}, but {why}. Give its num_classes and "
                "settings, or use head='new'."
            )
        return f"{begin}; the rest is new: {why}"
    order = None if any_classes or old == own else [old.index(name) for name in own]
    with torch.no_grad():
        for name, value in state.items():
            target[name].copy_(value if order is None else _in_order(name, value, own_kind, order))
    moved = "" if order is None else ", in the order of the data by their names"
    count = "" if any_classes else f", with the same {len(own)} {word}{moved}"
    return f"{begin}, and all the rest{count}"


def _record(file: Path) -> dict[str, Any]:
    return checkpoint_record(file) if file.is_file() else {"hyper_parameters": {}, "visionkit": {}}


def _names(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes or points, or a captioner's words, as a task's settings have them."""
    vocabulary = settings.get("vocabulary")
    skeleton, names = settings.get("skeleton"), settings.get("class_names")
    if isinstance(vocabulary, Mapping):
        names = vocabulary.get("words")
    elif isinstance(skeleton, Mapping):
        names = skeleton.get("names")
    return [str(name) for name in names] if isinstance(names, Sequence) else []


def _other_names(
    old: Sequence[str], own: Sequence[str], settings: Mapping[str, Any], task: nn.Module, word: str
) -> str:
    """Return why the names do not allow taking the head; "" where they do."""
    if not old or not own:
        return f"the names of its {word} are not known"
    if settings.get("target") != task.hparams.get("target"):  # type: ignore[operator,union-attr]
        return f"its target is {settings.get('target')!r}"
    points = (settings.get("keypoints"), task.hparams.get("keypoints"))  # type: ignore[operator,union-attr]
    names = [None if each is None else list(each["names"]) for each in points]
    if names[0] != names[1]:
        return f"its keypoints are {', '.join(names[0] or ['none'])}"
    ordered = word != "classes" or settings.get("num_classes") == 1 or len(set(old)) < len(old)
    if list(old) == list(own) or (not ordered and sorted(old) == sorted(own)):
        return ""
    common = len(set(old) & set(own))
    return f"it has {len(old)} {word}, here are {len(own)}, {common} of them the same"


def _outside_backbone(task: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what of a state dict is neither the backbone's, which has a name or more, nor was given."""
    parts = {id(task.backbone)} | ({id(task.normalize)} if task.hparams.get("mean") else set())  # type: ignore[operator,union-attr]
    inside = tuple(f"{name}." for name, m in task.named_modules(remove_duplicate=False) if id(m) in parts)
    return {name: value for name, value in state.items() if not name.startswith(inside)}


def _in_order(name: str, value: Tensor, kind: str, order: Sequence[int]) -> Tensor:
    """Return a tensor with its rows of classes in another order; one without such rows as it is."""
    layer = name.rpartition(".")[0].rpartition(".")[2]
    known = _CLASS_ROWS.get(kind, {}).get(layer)
    if known is None or value.ndim == 0:
        return value
    rows, background, repeated = known
    count = len(order) + background
    if len(value) % (rows * count) or (len(value) != rows * count and not repeated):
        return value
    taken = [0] * background + [background + index for index in order]
    ordered: Tensor = value.unflatten(0, (-1, count, rows))[:, taken].flatten(0, 2)
    return ordered


def _title(file: Path) -> str:
    """Return a file's name with the folder that tells which it is: the run's, or the published one."""
    folder = file.parent.parent if file.parent.name == "checkpoints" else file.parent
    ours = file.suffix == ".ckpt" or file.name == "model.safetensors"
    return f"{file.name} of {folder.name}" if ours and folder.name else file.name
