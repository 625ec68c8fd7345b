"""What the library takes of the private parts of others is there and behaves as used.

All but methods that a class overrides is in `visionkit.compat`.
"""

from __future__ import annotations

import inspect
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import lightning
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.strategies.launchers import subprocess_script
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from torchmetrics import Metric, SumMetric
from torchmetrics.utilities.distributed import gather_all_tensors

from tests.processes import together
from visionkit import compat
from visionkit.metrics import ScoreMetric


def test_each_function_has_a_reason_a_link_and_a_test():
    text = Path(__file__).read_text()
    functions = [name for name in compat.__all__ if inspect.isfunction(getattr(compat, name))]
    for name in functions:
        doc = inspect.getdoc(getattr(compat, name)) or ""
        assert len(doc) > 120, name
        assert re.search(r"^https://github\.com/\S+$", doc, re.MULTILINE), name
        assert f"compat.{name}(" in text, f"{name} has no test here"
    assert (len(functions), len(compat.__all__)) == (25, 28)


IMPORTS = """
import sys
from visionkit import compat
{first}
import lightning, torchmetrics
assert ("scipy.signal" in sys.modules) is {loaded}, "how torchmetrics imports scipy.signal"
import scipy.signal
assert scipy.signal is sys.modules["scipy.signal"]
assert scipy.signal.lfilter([1], [1], [2.0]).tolist() == [2.0]
"""


# What torchmetrics imports may need more of scipy.signal one day: then it is imported as usual.
NEEDED = """
from unittest import mock
with mock.patch.object(compat.importlib, "import_module", side_effect=ImportError("lfilter")):
    compat.import_torchmetrics()
"""


@pytest.mark.parametrize(
    ("first", "loaded"),
    [
        ("", True),  # else there is nothing left to keep away
        ("compat.import_torchmetrics()", False),
        ("import scipy.signal; compat.import_torchmetrics(); import torchmetrics", True),
        ("import torchmetrics; compat.import_torchmetrics()", True),
        (NEEDED, True),
    ],
)
def test_torchmetrics_is_imported_without_scipys_signals(first, loaded):
    code = IMPORTS.format(first=first, loaded=loaded)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


class Linear(lightning.LightningModule):
    """Two epochs of three batches, two of which make an update; notes what compat reports at their ends."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        return self.net(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(3, 1))

    def on_train_batch_end(self, *_):
        done = compat.update_is_done(self.trainer)
        self.seen.append((compat.batches_started(self.trainer), done, self.trainer.global_step))


def trainer(**settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(accelerator="cpu", enable_checkpointing=False, **quiet, **settings)


def test_the_loops_of_a_trainer():
    task, made = Linear(), trainer(max_epochs=2, accumulate_grad_batches=2)
    assert compat.batches_started(made) == 0
    assert compat.trainer_of(task) is None
    assert compat.trainer_of(nn.Linear(1, 1)) is None
    for name in ("_broadcast_sigterm_tensor", "_should_accumulate"):
        assert callable(getattr(made.fit_loop.epoch_loop, name))
    calls = []
    connector = type(made._signal_connector)
    assert "register_signal_handlers" in vars(connector)
    assert "_signal_connector.register_signal_handlers()" in inspect.getsource(type(made)._run)
    compat.skip_signal_handlers(made)
    compat.skip_sigterm_broadcast(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connector, "register_signal_handlers", lambda _: calls.append("handlers"))
        patch.setattr(
            type(made.fit_loop.epoch_loop), "_broadcast_sigterm_tensor", lambda _: calls.append("broadcast")
        )
        made.fit(task)
    assert calls == []
    assert compat.trainer_of(task) is made
    assert task.seen == [(1, False, 0), (2, True, 1), (3, True, 2), (4, False, 2), (5, True, 3), (6, True, 4)]


@pytest.mark.parametrize("wraps", [True, False])
def test_samplers_are_wrapped_as_asked(wraps):
    assert compat.wraps_samplers(trainer(use_distributed_sampler=wraps)) is wraps


def test_a_launcher_lists_what_it_started():
    assert compat.started_processes(None) is None
    launcher = subprocess_script._SubprocessScriptLauncher(SimpleNamespace(), num_processes=2, num_nodes=1)
    assert compat.started_processes(launcher) is launcher.procs == []
    assert "_launch_process_observer(self.procs)" in inspect.getsource(type(launcher).launch)


def test_ddp_leaves_ignored_buffers_alone_and_the_default_store_is_shared(tmp_path):
    norm = nn.BatchNorm1d(2)
    compat.ignore_buffers_in_ddp(norm)
    with together(tmp_path, 0, 1):
        wrapped = DistributedDataParallel(norm)
        assert wrapped.parameters_to_ignore == {"running_mean", "running_var", "num_batches_tracked"}
        store = compat.default_store()
        store.set("key", "7")
        assert store.check(["key"])
        assert not store.check(["other"])
        assert store.clone().get("key") == b"7"
        del wrapped
    with pytest.raises(ValueError, match="not been initialized"):
        compat.default_store()
    assert not dist.is_initialized()


def test_the_graph_capture_check_is_made_unless_skipped(monkeypatch):
    calls = []
    weight = nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    name = "_accelerator_graph_capture_health_check"
    monkeypatch.setattr(torch.optim.Optimizer, name, lambda _: calls.append(name))
    optimizer = torch.optim.AdamW([weight])
    optimizer.step()
    assert len(calls) == 1
    compat.skip_graph_capture_check(optimizer)
    optimizer.step()
    assert len(calls) == 1


def test_averages_move_by_the_weight():
    averages, values = [torch.zeros(2), torch.ones(1)], [torch.ones(2), torch.zeros(1)]
    compat.lerp_all(averages, values, 0.25)
    assert [average.tolist() for average in averages] == [[0.25, 0.25], [0.75]]


def test_processors_say_what_they_compute():
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        assert isinstance(getattr(torch.cpu, probe)(), bool)
    assert compat.cpu_computes_bf16() in (True, False)
    assert compat.onednn_computes_bf16() in (True, False)


def test_packed_products_are_those_of_a_linear_layer():
    if not compat.has_packed_linear():
        pytest.skip("torch without oneDNN")
    layer, inputs = nn.Linear(24, 32), torch.randn(5, 24)
    with torch.no_grad():
        weight = compat.pack_linear_weight(layer.weight, rows=5)
        assert torch.allclose(compat.packed_linear(inputs, weight, layer.bias), layer(inputs), atol=1e-5)


def test_checkpointing_is_seen_by_its_hooks():
    seen = []

    def forward(x):
        seen.append(compat.has_saved_tensor_hooks())
        return x * 2

    x = torch.ones(1, requires_grad=True)
    forward(x)
    checkpoint(forward, x, use_reentrant=False).backward()
    assert seen[:2] == [False, True]


def test_tables_of_a_module_are_its_own():
    norm = nn.BatchNorm1d(2)
    parameters, buffers = compat.tensor_tables(norm)
    assert [*parameters, *buffers] == [*dict(norm.named_parameters()), *dict(norm.named_buffers())]
    parameters["weight"] = None
    assert norm.weight is None


def test_a_copy_has_children_of_its_own():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    twin = compat.with_children(net, {"0": nn.Identity()})
    assert isinstance(net[0], nn.Linear)
    assert [*map(type, twin)] == [nn.Identity]
    assert len(net) == 2


def test_the_best_anchors_of_each_level():
    rpn = torchvision_rpn(keep=2)
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.7, 0.2]])
    assert compat.top_anchors(rpn, scores, [3, 2]).tolist() == [[1, 2, 3, 4]]


def torchvision_rpn(keep):
    from torchvision.models.detection.rpn import RegionProposalNetwork

    counts = {"training": keep, "testing": keep}
    return RegionProposalNetwork(nn.Identity(), nn.Identity(), 0.7, 0.3, 8, 0.5, counts, counts, 0.7)


def test_boxes_are_coded_from_anchors_and_from_points():
    anchors, boxes = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[2.0, 1, 10, 17]])
    offsets = compat.anchor_box_coder().encode_single(boxes, anchors)
    assert offsets[0].tolist() == pytest.approx([0.25, 0.625, 0, math.log(2)])
    torch.testing.assert_close(compat.anchor_box_coder().decode_single(offsets, anchors), boxes)
    distances = compat.point_box_coder().encode(anchors, boxes)
    assert distances[0].tolist() == pytest.approx([0.25, 0.375, 0.75, 1.625])
    torch.testing.assert_close(compat.point_box_coder().decode(distances, anchors), boxes)


def test_norms_share_their_bases():
    assert issubclass(nn.BatchNorm1d, compat.BatchNormBase)
    assert issubclass(nn.BatchNorm2d, compat.BatchNormBase)
    assert issubclass(nn.SyncBatchNorm, compat.BatchNormBase)
    assert issubclass(nn.InstanceNorm2d, compat.InstanceNormBase)


def test_timm_names_its_renames():
    renames = compat.timm_renames()
    assert len(renames) > 50
    assert renames["vit_base_patch16_224_in21k"] == "vit_base_patch16_224.augreg_in21k"


def test_modules_have_the_methods_that_ours_override():
    assert callable(nn.Module._apply)
    assert callable(nn.Module._load_from_state_dict)


def test_metrics_call_the_methods_that_ours_override():
    """`ScoreMetric` overrides two private methods of torchmetrics: arguments, and when they are called."""
    for name in ("_sync_dist", "_apply"):
        theirs, ours = (inspect.signature(getattr(kind, name)).parameters for kind in (Metric, ScoreMetric))
        assert name in vars(ScoreMetric)
        assert [*theirs] == [*ours]
        assert [p.default for p in theirs.values()] == [p.default for p in ours.values()]
    calls = []

    class Sum(Metric):
        def __init__(self, **settings):
            super().__init__(**settings)
            self.add_state("total", torch.zeros(1), dist_reduce_fx="sum")
            self.add_state("rows", [], dist_reduce_fx="cat")

        def update(self, value):
            self.total += value
            self.rows.append(value)

        def compute(self):
            return self.total, list(self.rows)

        def _sync_dist(self, *args, **kwargs):
            calls.append((args, kwargs))
            super()._sync_dist(*args, **kwargs)

        def _apply(self, fn, exclude_state=""):
            calls.append("_apply")
            return super()._apply(fn, exclude_state=("rows",))

    def twice(state, group=None):
        return [state, state]

    metric = Sum(dist_sync_fn=twice, distributed_available_fn=lambda: True)
    metric.update(torch.ones(1))
    assert [*metric.metric_state] == ["total", "rows"]
    total, rows = metric.compute()
    assert calls == [((twice,), {"process_group": None})], "once for all states, before compute"
    assert (float(total), torch.as_tensor(rows).tolist()) == (2.0, [1.0, 1.0])
    assert (metric.total.tolist(), metric.rows) == ([1.0], [torch.ones(1)]), "its own states come back"
    Sum.sync(metric, distributed_available=lambda: False)
    assert len(calls) == 1, "nothing to do on one process"
    holder = nn.ModuleList([metric])
    holder.to("meta")
    assert calls[1:] == ["_apply"]
    assert (metric.total.device.type, metric.device.type) == ("meta", "meta")
    assert metric.rows[0].device.type == "cpu", "a state that was to be left alone"


def test_metrics_sync_by_gathering_unless_told_otherwise(monkeypatch):
    """`ScoreMetric._sync_dist` takes this function for the sign that nobody asked for another way."""
    given = []
    monkeypatch.setattr(Metric, "_sync_dist", lambda self, how, process_group=None: given.append(how))
    SumMetric().sync(distributed_available=lambda: True)
    assert given == [gather_all_tensors]


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "cat", None])
def test_states_of_processes_are_merged_as_in_one(reduce):
    class Rows(Metric):
        def __init__(self):
            super().__init__()
            rows = reduce in ("cat", None)
            self.add_state("value", [] if rows else torch.zeros(2), dist_reduce_fx=reduce)

        def update(self, value):
            if isinstance(self.value, list):
                self.value.append(value)
            else:
                self.value = value

        def compute(self):
            return torch.stack(self.value) if isinstance(self.value, list) else self.value

    metrics = [Rows(), Rows(), Rows()]
    metrics[0].update(torch.tensor([1.0, 2]))
    metrics[2].update(torch.tensor([3.0, 1]))
    states = [(metric.update_count, metric.metric_state) for metric in metrics]
    for metric in metrics:
        compat.merge_metric_states(metric, states)
    expected = {"sum": [4, 3], "mean": [2, 1.5], "max": [3, 2]}.get(reduce, [[1, 2], [3, 1]])
    assert metrics[0].compute().tolist() == metrics[2].compute().tolist() == expected
    assert metrics[0].distributed_available_fn() is False
