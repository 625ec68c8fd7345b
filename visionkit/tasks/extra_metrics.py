"""Metrics of your own beside a task's: exact on any number of processes, and no part of its weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from visionkit.compat import merge_metric_states
from visionkit.distributed import all_gather_objects, world_size
from visionkit.errors import InputError, expected

__all__ = ["ExtraMetrics", "Metrics", "box_targets"]

Metrics: TypeAlias = Metric | MetricCollection | Mapping[str, Metric]
"""One `torchmetrics.Metric`, a `MetricCollection`, or metrics by the names under which they are logged."""


class ExtraMetrics:
    """The metrics that a task was given, for one loader of an evaluation.

    No module: what they hold travels neither in checkpoints nor with the task's parameters, so a checkpoint
    loads with other metrics, or none.

    Args:
        given: The metrics; None for none.
        taken: Names that the task logs itself.
        class_names: By which a metric that gives one number a class is logged; their numbers if None.

    Raises:
        InputError: Something is no metric, or a name is one of the task's own.
    """

    def __init__(
        self, given: Metrics | None, *, taken: Iterable[str], class_names: Sequence[str] | None = None
    ) -> None:
        self.taken = frozenset(taken)
        self.class_names = class_names
        self.collection = None if given is None else _collection(given)
        if self.collection is not None:
            self._refuse_taken(str(name) for name in self.collection)

    def fresh(self, device: torch.device) -> ExtraMetrics:
        """Return the same metrics without an image, on a device."""
        made = ExtraMetrics(None, taken=self.taken, class_names=self.class_names)
        if self.collection is not None:
            made.collection = self.collection.clone().to(device)
            made.collection.reset()
        return made

    @torch.no_grad()
    def update(self, preds: Any, target: Any) -> None:
        """Add a batch, in the form that torchmetrics' metrics of the task take."""
        if self.collection is not None:
            self.collection.update(preds, target)

    def compute(self, logged: Iterable[str] = ()) -> dict[str, float]:
        """Return the values over all processes by name; every process must call it.

        Only numbers can be logged: a metric that gives one a class comes as `NAME/CLASS`, and matrices and
        curves are left out. They can be drawn from `task.metrics`.

        Args:
            logged: Names that the task has logged of this evaluation.

        Raises:
            InputError: A name is one of the task's own.
        """
        if self.collection is None:
            return {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            if not any(self._gather_states()):
                return {}
            computed = self.collection.compute()
        values: dict[str, float] = {}
        for name, value in computed.items():
            values |= self._numbers(str(name), value)
        self.taken |= set(logged)
        self._refuse_taken(values)
        return values

    def _gather_states(self) -> list[int]:
        """Give every metric the states of all processes; return how many batches each process had.

        torchmetrics gathers by itself, but waits for ever where a process has no image or fewer batches.
        """
        metrics = [part for part in self._modules() if isinstance(part, Metric)]
        if world_size() == 1:
            return [metric.update_count for metric in metrics]
        every = all_gather_objects([(each.update_count, _on_host(each.metric_state)) for each in metrics])
        for position, metric in enumerate(metrics):
            merge_metric_states(metric, [process[position] for process in every])
        return [count for process in every for count, _ in process]

    def _modules(self) -> Iterable[torch.nn.Module]:
        collection = self.collection
        if collection is None:
            return ()
        # `items` separates the states that metrics of one compute group have in common.
        return [part for _, metric in collection.items(keep_base=True) for part in metric.modules()]

    def _numbers(self, name: str, value: Any) -> dict[str, float]:
        tensor = value.detach() if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
        if tensor.numel() == 1:
            return {name: float(tensor)}
        if tensor.ndim != 1 or not tensor.is_floating_point():
            return {}
        names = self.class_names or ()
        labels = names if len(names) == len(tensor) else [str(index) for index in range(len(tensor))]
        return {f"{name}/{label}": item for label, item in zip(labels, tensor.tolist())}

    def _refuse_taken(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self.taken:
                fix = "Name it otherwise: metrics={'my_" + name + "': ...}, or MetricCollection(prefix=...)."
                raise InputError(
                    expected("metrics", "names that the task does not log itself", name, fix=fix)
                )


def box_targets(
    truths: Sequence[Mapping[str, Any]], device: torch.device, *, masks: bool
) -> list[dict[str, Tensor]]:
    """Return the objects of images as `torchmetrics.detection.MeanAveragePrecision` takes them.

    Args:
        truths: Of each image `boxes`, `labels` and perhaps `iscrowd`, `area` and `masks`: tensors, arrays, or
            run lengths.
        device: Where they go.
        masks: Whether to give the masks too.
    """
    made = []
    for truth in truths:
        target = {
            "boxes": torch.as_tensor(truth["boxes"], dtype=torch.float32, device=device).view(-1, 4),
            "labels": torch.as_tensor(truth["labels"], dtype=torch.int64, device=device),
        }
        if "iscrowd" in truth:
            target["iscrowd"] = torch.as_tensor(truth["iscrowd"], dtype=torch.int64, device=device)
        area = torch.as_tensor(truth["area"], dtype=torch.float32, device=device) if "area" in truth else None
        if area is not None and bool(area.isfinite().all()):
            target["area"] = area
        if masks:
            target["masks"] = _masks(truth["masks"]).to(device)
        made.append(target)
    return made


def _masks(masks: Any) -> Tensor:
    """Return masks `(N, H, W)` bool from a tensor, an array or run lengths."""
    if isinstance(masks, list | tuple) and masks and isinstance(masks[0], Mapping):
        from pycocotools import mask as runs

        return torch.from_numpy(runs.decode(list(masks))).permute(2, 0, 1).bool()
    return torch.as_tensor(masks).bool() if len(masks) else torch.zeros(0, 1, 1, dtype=torch.bool)


def _collection(given: Metrics) -> MetricCollection:
    if isinstance(given, MetricCollection):
        return given.clone()
    if isinstance(given, Metric):
        return MetricCollection([given.clone()])
    if isinstance(given, Mapping) and all(isinstance(metric, Metric) for metric in given.values()):
        return MetricCollection({name: metric.clone() for name, metric in given.items()})
    allowed = "a torchmetrics Metric, a MetricCollection, or a dict of metrics by name"
    raise InputError(expected("metrics", allowed, type(given).__name__))


def _on_host(state: Any) -> Any:
    """Return states on the host, lists and tuples in them too."""
    if isinstance(state, Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {name: _on_host(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_on_host(value) for value in state)
    return state
