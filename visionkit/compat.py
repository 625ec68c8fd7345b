"""Every use of a private part of torch, torchvision, timm or Lightning: one function each.

Each says why nothing public serves, and links the code upstream; `tests/test_compat.py` fails when upstream
changes. A house rule keeps private names out of every other module.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import torch
import torch.utils._python_dispatch
from torch import Tensor, nn

if TYPE_CHECKING:
    import lightning
    from torchmetrics import Metric

__all__ = [
    "BatchNormBase",
    "DispatchMode",
    "InstanceNormBase",
    "anchor_box_coder",
    "batches_started",
    "cpu_computes_bf16",
    "default_store",
    "has_packed_linear",
    "has_saved_tensor_hooks",
    "ignore_buffers_in_ddp",
    "import_torchmetrics",
    "lerp_all",
    "merge_metric_states",
    "onednn_computes_bf16",
    "pack_linear_weight",
    "packed_linear",
    "point_box_coder",
    "skip_graph_capture_check",
    "skip_signal_handlers",
    "skip_sigterm_broadcast",
    "started_processes",
    "tensor_tables",
    "timm_renames",
    "top_anchors",
    "trainer_of",
    "update_is_done",
    "with_children",
    "wraps_samplers",
]

_Module = TypeVar("_Module", bound=nn.Module)

# The base of all batch norms of torch and timm, SyncBatchNorm included; it has no public name.
# https://github.com/pytorch/pytorch/blob/main/torch/nn/modules/batchnorm.py
BatchNormBase: TypeAlias = torch.nn.modules.batchnorm._BatchNorm
# What sees every operation of torch in a `with` block; its module has no public name.
# https://github.com/pytorch/pytorch/blob/main/torch/utils/_python_dispatch.py
DispatchMode: TypeAlias = torch.utils._python_dispatch.TorchDispatchMode
# The base of all instance norms, likewise.
# https://github.com/pytorch/pytorch/blob/main/torch/nn/modules/instancenorm.py
InstanceNormBase: TypeAlias = torch.nn.modules.instancenorm._InstanceNorm


def import_torchmetrics() -> None:
    """Import torchmetrics without scipy.signal, of which it wants no more than to set one alias.

    Before it imports anything else, it gives `scipy.signal` back the name `hamming`, for a package that
    computes scores of speech. That module is a fifth of the processor's time for all imports of a run, 0.8 s.
    While torchmetrics is imported another stands in for it; who imports scipy.signal later gets scipy's own.
    If what torchmetrics imports needs more of it, torchmetrics is left to whoever imports it next.
    https://github.com/Lightning-AI/torchmetrics/blob/master/src/torchmetrics/__init__.py
    """
    name = "scipy.signal"
    if "torchmetrics" in sys.modules or name in sys.modules:
        return
    stand_in: Any = ModuleType(name)
    stand_in.hamming = None
    sys.modules[name] = stand_in
    try:
        with contextlib.suppress(ImportError, AttributeError):
            importlib.import_module("torchmetrics")
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


def batches_started(trainer: lightning.Trainer) -> int:
    """Return how many training batches this process has begun in all epochs, which a checkpoint restores.

    It is the position in the data: restored with the loops before the loader is asked for, and in
    `on_train_batch_start` it counts the batch that begins. `global_step` counts updates, and
    `batch_idx` the batches of one epoch.
    https://github.com/Lightning-AI/pytorch-lightning/blob/master/src/lightning/pytorch/loops/progress.py
    """
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)


def update_is_done(trainer: lightning.Trainer) -> bool:
    """Return whether the batch that ends was the last of an update, and not one that only adds gradients.

    `accumulate_grad_batches` alone does not tell: an epoch's last batch always ends an update.
    https://github.com/Lightning-AI/pytorch-lightning/blob/master/src/lightning/pytorch/loops/training_epoch_loop.py
    """
    return not trainer.fit_loop.epoch_loop._should_accumulate()


def skip_sigterm_broadcast(trainer: lightning.Trainer) -> None:
    """Have a Trainer make no collective about SIGTERM before every batch.

    There is no setting for it; `Preemption` agrees through the key-value store instead, so that a step makes
    no collective but that of its gradients.
    https://github.com/Lightning-AI/pytorch-lightning/issues/21487
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def skip_signal_handlers(trainer: lightning.Trainer) -> None:
    """Have a Trainer set no signal handlers.

    Its own save a checkpoint, or signal all processes, within the handler, where any other call may be half
    done; and there is no setting that leaves SIGTERM alone.
    https://github.com/Lightning-AI/pytorch-lightning/blob/master/src/lightning/pytorch/trainer/connectors/signal_connector.py
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def wraps_samplers(trainer: lightning.Trainer) -> bool:
    """Return whether a Trainer replaces samplers by distributed ones; it keeps the argument to itself.

    https://github.com/Lightning-AI/pytorch-lightning/blob/master/src/lightning/pytorch/trainer/connectors/accelerator_connector.py
    """
    return bool(trainer._accelerator_connector.use_distributed_sampler)


def trainer_of(module: nn.Module) -> lightning.Trainer | None:
    """Return the Trainer that a module is attached to, or None; the public property raises without one.

    https://github.com/Lightning-AI/pytorch-lightning/blob/master/src/lightning/pytorch/core/module.py
    """
    return getattr(module, "_trainer", None)


def started_processes(launcher: Any) -> list[Any] | None:
    """Return the list in which a strategy's launcher keeps what it started; None if it starts no processes.

    Lightning's observer kills this process when one of the list fails, before it can report why; whoever
    waits for them itself empties the list. Nothing public returns them, and each launch makes a new list.
    https://github.com/Lightning-AI/pytorch-lightning/blob/master/src/lightning/pytorch/strategies/launchers/subprocess_script.py
    """
    return getattr(launcher, "procs", None)


def ignore_buffers_in_ddp(module: nn.Module) -> None:
    """Have `DistributedDataParallel` leave the buffers of `module` alone; call it before that wraps it.

    It would broadcast them at every forward: a message a step while training, and a deadlock in evaluation,
    where processes run different numbers of batches. `broadcast_buffers=False` does the same, but only
    whoever builds the Trainer can pass it.
    https://github.com/pytorch/pytorch/issues/43690
    """
    names = [name for name, _ in module.named_buffers()]
    module._ddp_params_and_buffers_to_ignore = names  # type: ignore[assignment]


def default_store() -> Any:
    """Return the key-value store that the processes of the default group met in.

    A flag in it costs a question to one process; a collective would have to be made by all of them at the
    same time. Lightning and torchrun make the store, and nothing public returns it.
    https://github.com/pytorch/pytorch/blob/main/torch/distributed/distributed_c10d.py
    """
    return torch.distributed.distributed_c10d._get_default_store()


def skip_graph_capture_check(optimizer: torch.optim.Optimizer) -> None:
    """Have an optimizer of parameters on the CPU not ask at every step whether a CUDA graph is captured.

    The question loads the driver's library, and what lies on the CPU is in no CUDA graph.
    https://github.com/pytorch/pytorch/blob/main/torch/optim/optimizer.py
    """
    if hasattr(optimizer, "_accelerator_graph_capture_health_check"):
        optimizer._accelerator_graph_capture_health_check = lambda: None  # type: ignore[method-assign]


def lerp_all(averages: list[Tensor], values: list[Tensor], weight: float) -> None:
    """Move every average towards its value by `weight`, in place and in one call.

    `torch.optim.swa_utils` does the same with `1 - weight`, which rounds; a loop makes a call a tensor.
    https://github.com/pytorch/pytorch/blob/main/torch/optim/swa_utils.py
    """
    torch._foreach_lerp_(averages, values, weight)


def cpu_computes_bf16() -> bool:
    """Return whether this processor multiplies in bfloat16, by AVX-512 or AMX.

    `torch.cpu` has no public form of the question, as `torch.cuda.is_bf16_supported` is for GPUs.
    https://github.com/pytorch/pytorch/blob/main/torch/cpu/__init__.py
    """
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)


def onednn_computes_bf16() -> bool:
    """Return whether oneDNN computes in bfloat16 on this processor.

    Where it does not, it raises for an LSTM and for packed weights, while torch's own kernels go on.
    https://github.com/pytorch/pytorch/blob/main/torch/_inductor/fx_passes/mkldnn_fusion.py
    """
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_packed_linear() -> bool:
    """Return whether torch was built with the operators of `pack_linear_weight` and `packed_linear`.

    https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/native/mkldnn/RegisterMkldnnOpContextClass.cpp
    """
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def pack_linear_weight(weight: Tensor, *, rows: int) -> Tensor:
    """Return a weight `(outputs, inputs)` as oneDNN lays it out for products of about `rows` rows.

    `nn.Linear` lays its weight out anew at every call; only frozen Inductor graphs pack once.
    https://github.com/pytorch/pytorch/blob/main/torch/_inductor/fx_passes/mkldnn_fusion.py
    """
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return packed


def packed_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `(..., inputs)` times a weight of `pack_linear_weight`, plus the bias.

    https://github.com/pytorch/pytorch/blob/main/torch/_inductor/mkldnn_lowerings.py
    """
    out: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return out


def has_saved_tensor_hooks() -> bool:
    """Return whether hooks take what the backward pass needs, as in a forward pass under checkpointing.

    Such a forward runs a second time in the backward pass, and both have to compute the same way; torch asks
    itself the same question there.
    https://github.com/pytorch/pytorch/blob/main/torch/utils/checkpoint.py
    """
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def tensor_tables(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the dicts in which a module itself keeps its parameters and its buffers, to change in place.

    `torch.func.functional_call` does not put everything back in networks that share modules.
    https://github.com/pytorch/pytorch/blob/main/torch/nn/modules/module.py
    """
    return module._parameters, module._buffers


def with_children(module: _Module, children: dict[str, nn.Module]) -> _Module:
    """Return a shallow copy of a module with other children; the original keeps its own.

    `copy.copy` shares the dict of children, and setting one of them would set it in both.
    https://github.com/pytorch/pytorch/blob/main/torch/nn/modules/module.py
    """
    twin = copy.copy(module)
    twin.__dict__["_modules"] = children
    return twin


def top_anchors(rpn: Any, scores: Tensor, counts: list[int]) -> Tensor:
    """Return the indices `(B, K)` of the anchors of `(B, N)` that a torchvision RPN keeps before its NMS.

    The best of each level, of which `counts` gives the sizes; its public methods decode every box first.
    https://github.com/pytorch/vision/blob/main/torchvision/models/detection/rpn.py
    """
    indices: Tensor = rpn._get_top_n_idx(scores, counts)
    return indices


def anchor_box_coder() -> Any:
    """Return torchvision's coder of boxes as offsets from anchors, with the weights of its RetinaNet.

    `encode_single(boxes, anchors)` and `decode_single(offsets, anchors)`, `(N, 4)` each. Its detectors hold
    one, but making a detector for it would be a detour; `torchvision.ops` has none.
    https://github.com/pytorch/vision/blob/main/torchvision/models/detection/_utils.py
    """
    from torchvision.models.detection._utils import BoxCoder

    return BoxCoder((1.0, 1.0, 1.0, 1.0))


def point_box_coder() -> Any:
    """Return torchvision's coder of boxes as distances from a centre, in sizes of the square around it.

    `encode(squares, boxes)` and `decode(distances, squares)`, `(N, 4)` each; see `anchor_box_coder`.
    https://github.com/pytorch/vision/blob/main/torchvision/models/detection/_utils.py
    """
    from torchvision.models.detection._utils import BoxLinearCoder

    return BoxLinearCoder(normalize_by_size=True)


def timm_renames() -> dict[str, str | None]:
    """Return timm's table of given-up names: old name to new one, None where there is no successor.

    timm uses it to warn, and says the new name nowhere else.
    https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/_registry.py
    """
    from timm.models import list_models  # fills timm's registry
    from timm.models._registry import get_deprecated_models

    list_models()
    return dict(get_deprecated_models())


def merge_metric_states(metric: Metric, states: Sequence[tuple[int, dict[str, Any]]]) -> None:
    """Give a metric the states of all processes, in their order, and keep it from gathering them itself.

    Which state is a sum and which a list is known to the metric alone, and `merge_state` refuses some metrics
    and weighs means wrongly. A process without an update adds nothing, as in one process alone.
    https://github.com/Lightning-AI/torchmetrics/blob/master/src/torchmetrics/metric.py

    Args:
        metric: Of this process.
        states: Of each process: its number of updates, and its states by name.
    """
    from torchmetrics.utilities.data import dim_zero_cat

    metric.distributed_available_fn = lambda: False
    given = [state for count, state in states if count]
    for name, reduce in metric._reductions.items() if given else ():
        values = [state[name] for state in given]
        if isinstance(values[0], list):
            rows = [row for value in values for row in value]
            merged: Any = [row.to(metric.device) if isinstance(row, Tensor) else row for row in rows]
        else:
            stacked = torch.stack([torch.as_tensor(value) for value in values]).to(metric.device)
            merged = values[0].to(metric.device) if len(values) == 1 else stacked
            if len(values) > 1 and reduce is dim_zero_cat:
                merged = torch.cat([value.to(metric.device) for value in values])
            elif len(values) > 1 and reduce is not None:
                merged = cast(Any, reduce)(stacked)
        setattr(metric, name, merged)
