"""A backbone from the checkpoint of a task: its record, and the layers that the task did not use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from visionkit.backbones.registry import resolve
from visionkit.backbones.sources.base import ModelSpec, Source
from visionkit.backbones.sources.state_dict import without_prefixes
from visionkit.backbones.tracing import on_meta_device
from visionkit.backbones.weights import WeightsInfo, checkpoint_record
from visionkit.errors import InputError

__all__ = ["Origin", "complete_state", "task_origin"]

_UNKNOWN = "not stated"


@dataclass(frozen=True)
class Origin:
    """What a weights file says of itself.

    Args:
        info: Record of the weights: with the data that a task was trained on, and on what before.
        task: The task ("Detector"); empty for a file that is not of this library.
        backbone: The task's backbone, by name; empty if it has none.
        same_network: Whether that is the network that is asked for.
    """

    info: WeightsInfo
    task: str = ""
    backbone: str = ""
    same_network: bool = False

    def refusal(self, error: InputError) -> InputError:
        """Return the error for weights that do not fit, with the backbone that they are of."""
        if not self.backbone or self.same_network:
            return error
        return InputError(
            f"These are weights of a {self.task} over {self.backbone!r}: give that as the backbone. {error}"
        )


def task_origin(path: str | Path, source: Source, spec: ModelSpec) -> Origin:
    """Return what a weights file says of itself.

    Args:
        path: A file that `check_file` has passed.
        source: Of the network that is asked for.
        spec: The network that is asked for.
    """
    record = checkpoint_record(path)
    facts, task = record["visionkit"].get("facts"), str(record["visionkit"].get("task") or "")
    given = record["hyper_parameters"].get("backbone")
    name = given.get("name") if isinstance(given, Mapping) else given  # a dict: how an object was made
    name = name if isinstance(name, str) and not name.startswith("module:") else ""
    info = WeightsInfo("file", training_data=_UNKNOWN, licence=_UNKNOWN)
    if not task:
        return Origin(info)
    facts = facts if isinstance(facts, Mapping) else {}
    weights, data = facts.get("weights"), facts.get("data")
    weights = weights if isinstance(weights, Mapping) else {}
    learnt_from = [weights.get("training_data"), data.get("name") if isinstance(data, Mapping) else None]
    trail = " then ".join(str(each) for each in learnt_from if each and each != _UNKNOWN)
    info = replace(
        info,
        training_data=trail or _UNKNOWN,
        licence=str(weights.get("licence") or _UNKNOWN),
        adapted=str(weights.get("adapted") or ""),
    )
    return Origin(info, task, name, bool(name) and _same(name, source, spec))


def complete_state(
    state: Mapping[str, Tensor], source: Source, spec: ModelSpec, needed: frozenset[str] | None
) -> tuple[dict[str, Tensor], str]:
    """Return the state of a task's backbone with the layers that the task had cut off, drawn afresh.

    A detector over EfficientNet has no convolution after the last map, which a classifier needs.

    Args:
        state: State dict of the task.
        source: Of its network.
        spec: Its network.
        needed: The names that must be in it; all but the classifier's if None.

    Returns:
        The state, and a remark on what is new; the state as it was and "" where nothing is missing.

    Raises:
        InputError: The norms have no running statistics, which group norms of a run from scratch have not.
    """
    names = on_meta_device(lambda: source.build(spec, None)).state_dict()
    required = names.keys() - set(source.classifier_keys(spec)) if needed is None else needed
    part = without_prefixes(state, names, required)
    missing = [n for n in names if n in required and n not in part and not n.endswith("num_batches_tracked")]
    if not missing or not part:
        return dict(state), ""
    if any(name.endswith("running_mean") and f"{name[:-12]}weight" in part for name in missing):
        raise InputError(
            "These weights were trained with norm 'group', which leaves the network's own batch norms "
            "without statistics. Begin from weights that were trained with norm 'batch', 'sync' or 'frozen'."
        )
    fresh = source.build(spec, None).state_dict()
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in missing))
    listed = ", ".join(layers[:3]) + (f" and {len(layers) - 3} more layers" if len(layers) > 3 else "")
    return part | {name: fresh[name] for name in missing}, f"{listed} new"


def _same(name: str, source: Source, spec: ModelSpec) -> bool:
    try:
        other, other_spec = resolve(name, ModelSpec(""))
    except InputError:  # a network that is registered elsewhere
        return False
    return other.prefix == source.prefix and other_spec.architecture == spec.architecture
