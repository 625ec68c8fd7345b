"""Who started the processes and how many; what is refused before anything waits; the rate in the banner."""

from __future__ import annotations

import itertools
import signal
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.run.tiny import TinyTask, tiny_data
from visionkit.config import OptimConfig
from visionkit.errors import InputError
from visionkit.run.callbacks import trackers
from visionkit.run.callbacks.trackers import make_logger
from visionkit.run.config import RunConfig
from visionkit.run.processes.launcher import find_processes, is_first
from visionkit.run.training import banner
from visionkit.run.training.banner import banner_text
from visionkit.run.training.device_policy import choose_policy
from visionkit.run.training.schedule_length import ScheduleLength, schedule_length
from visionkit.run.training.trainer import build_trainer

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
}
SRUN = {
    "SLURM_NTASKS": "8",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_JOB_NAME": "visionkit",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "gpu[07-08]",
    "SLURM_JOB_ID": "4711",
}


@pytest.fixture
def environment(monkeypatch):
    """A way to set the launcher's variables, with none of this process's own left."""
    import os

    starts = ("SLURM_", "TORCHELASTIC_", "RANK", "LOCAL_", "WORLD_", "MASTER_", "NODE_RANK", "GROUP_RANK")
    for name in list(os.environ):
        if name.startswith(starts):
            monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "ray.train", raising=False)

    def give(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return give


def config(**more):
    return RunConfig(**{"accelerator": "cpu", "precision": "32-true", "progress": False, **more})


def found(accelerator="cpu", **more):
    it = find_processes(config(**more), accelerator=accelerator)
    return it.launcher, it.devices, it.nodes, it.world


def test_without_a_launcher_the_config_decides(environment, monkeypatch):
    assert found() == ("lightning", 1, 1, 1)
    assert found(devices="3", num_nodes=2) == ("lightning", 3, 2, 6)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert found("gpu") == ("lightning", 8, 1, 8)
    assert is_first()
    environment(LOCAL_RANK="1")
    assert not is_first()
    environment(LOCAL_RANK="0", NODE_RANK="1")
    assert not is_first()


def test_torchrun_and_slurm_fill_the_numbers_in(environment):
    environment(**TORCHRUN)
    assert found() == ("torchrun", 4, 2, 8)
    assert found(devices="4", num_nodes=2) == ("torchrun", 4, 2, 8)
    assert not is_first()
    environment(RANK="0")
    assert is_first()
    with pytest.raises(InputError, match=r"--devices 8 .* torchrun.* gave 4 process\(es\) on each of 2"):
        found(devices="8")


def test_slurm_fills_the_numbers_in_and_torchrun_inside_it_wins(environment):
    environment(**SRUN)
    assert found() == ("slurm", 4, 2, 8)
    assert not is_first()
    environment(SLURM_PROCID="0")
    assert is_first()
    with pytest.raises(InputError, match=r"--num_nodes 3 .* SLURM's .* gave 4 process\(es\) on each of 2"):
        found(num_nodes=3)
    environment(**TORCHRUN)
    assert found()[0] == "torchrun"


def test_slurm_shells_and_single_tasks_are_no_launcher_to_wait_for(environment, monkeypatch):
    environment(**SRUN | {"SLURM_JOB_NAME": "interactive"})
    assert found() == ("lightning", 1, 1, 1)
    environment(SLURM_JOB_NAME="x", SLURM_NTASKS="1", SLURM_NNODES="1")
    monkeypatch.delenv("SLURM_STEP_ID")
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    assert found() == ("slurm", 1, 1, 1)


def test_slurm_steps_that_would_wait_for_ever_are_refused(environment, monkeypatch):
    environment(**SRUN)
    monkeypatch.delenv("SLURM_STEP_ID")
    with pytest.raises(InputError, match=r"8 tasks.*without srun.*slurm\.sbatch"):
        found()
    environment(SLURM_STEP_ID="0", SLURM_NTASKS="6")
    with pytest.raises(InputError, match=r"every machine to run 4 task\(s\).*6 tasks on 2"):
        found()
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(InputError, match=r"--nodes=2 --ntasks-per-node=3"):
        found()


def test_ray_is_asked_for_its_numbers(environment, monkeypatch):
    context = SimpleNamespace(
        get_world_size=lambda: 5, get_local_world_size=lambda: 2, get_world_rank=lambda: 3
    )
    monkeypatch.setitem(sys.modules, "ray.train", SimpleNamespace(get_context=lambda: context))
    environment(**SRUN)
    # 3 workers on one machine, 2 on the other: the world is no product.
    assert found() == ("ray", 2, 1, 5)
    assert not is_first()

    def outside():
        raise RuntimeError("not in a worker")

    monkeypatch.setitem(sys.modules, "ray.train", SimpleNamespace(get_context=outside))
    assert found()[0] == "slurm"


def test_numbers_that_are_none_are_refused(environment):
    for devices in ("0", "-1", "two", "1.5"):
        with pytest.raises(InputError, match="--devices"):
            found(devices=devices)
    with pytest.raises(InputError, match="--num_nodes"):
        found(num_nodes=-1)


def test_the_trainer_under_slurm_saves_in_no_handler(environment, tmp_path, monkeypatch):
    environment(**SRUN, MASTER_ADDR="127.0.0.1")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    trainer = build_trainer(config(), folder=tmp_path)
    place = trainer.strategy.cluster_environment
    assert type(place).__name__ == "SLURMEnvironment"
    assert place.auto_requeue is False
    assert (trainer.world_size, trainer.global_rank) == (8, 5)
    trainer._signal_connector.register_signal_handlers()
    assert {number: signal.getsignal(number) for number in before} == before


def test_the_trainer_refuses_what_would_hang_or_fail_later(environment, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"--strategy fsdp.*uses the CPU.*--strategy ddp"):
        build_trainer(config(strategy="fsdp"), folder=tmp_path)
    with pytest.raises(InputError, match=r"strategy 'dpp'.*'ddp'"):
        build_trainer(config(strategy="dpp"), folder=tmp_path)
    with pytest.raises(InputError, match=r"--accelerator.*'tpu'"):
        build_trainer(config(accelerator="tpu"), folder=tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"CUDA device for --accelerator gpu.*--accelerator cpu"):
        build_trainer(config(accelerator="gpu"), folder=tmp_path)
    environment(MASTER_ADDR="no-such-host.invalid")
    with pytest.raises(InputError, match=r"MASTER_ADDR is 'no-such-host.invalid'.*does not resolve"):
        build_trainer(config(devices="2"), folder=tmp_path)
    monkeypatch.delenv("MASTER_ADDR")
    environment(**SRUN | {"SLURM_NODELIST": "no-such-host[1-2]"})
    with pytest.raises(InputError, match=r"SLURM_NODELIST is 'no-such-host1'.*Set MASTER_ADDR"):
        build_trainer(config(), folder=tmp_path)


def test_strategies_go_by_name(environment, tmp_path):
    kinds = {
        name: type(build_trainer(config(devices=n, strategy=name), folder=tmp_path).strategy).__name__
        for name, n in (("auto", "1"), ("ddp", "2"))
    }
    assert kinds == {"auto": "SingleDeviceStrategy", "ddp": "DDPStrategy"}
    two = build_trainer(config(devices="2", timeout=77), folder=tmp_path).strategy
    assert type(two).__name__ == "DDPStrategy"
    assert two._timeout.total_seconds() == 77


def test_loggers_that_are_unknown_or_not_installed_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"logger 'tensorbord'.*'tensorboard'"):
        make_logger("tensorbord", tmp_path)
    for name, kind in (("wandb", "_Wandb"), ("mlflow", "_MLflow"), ("tensorboard", "_TensorBoard")):

        def absent(*_, **__):
            raise ModuleNotFoundError("Requirement is not met")  # as Lightning says it: no name

        monkeypatch.setattr(trackers, kind, absent)
        text = rf"needs the package '{name}', which is not installed.*pip install {name} .*\[loggers\]"
        with pytest.raises(InputError, match=text):
            make_logger(name, tmp_path)


def test_compile_is_refused_where_nothing_compiles(environment, tmp_path, monkeypatch):
    from visionkit.run.training import device_policy as policy

    assert choose_policy(config()).compile is False
    monkeypatch.setenv("CXX", sys.executable)
    assert choose_policy(config(compile=True)).compile is True
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"--compile.*C\+\+ compiler.*no-such-compiler"):
        build_trainer(config(compile=True), folder=tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(policy, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--compile on a GPU.*triton"):
        choose_policy(config(compile=True, accelerator="gpu"))


def test_rate_follows_the_global_batch_and_the_banner_says_so(environment, tmp_path):
    walked = 0
    for processes, accumulate in itertools.product((1, 2, 4), (1, 3)):
        optim = OptimConfig(batch=32)
        one = config(
            devices=str(processes), accumulate=accumulate, lr=0.1, optim=optim, batch_size=8, epochs=2
        )
        data, task = tiny_data(size=100, batch_size=8), TinyTask()
        trainer = build_trainer(one, folder=tmp_path)
        plan = schedule_length(one, data, processes)
        told = banner_text(one, task, data, trainer, choose_policy(one), tmp_path, plan, None)
        wide = 8 * processes * accumulate
        assert f"batch     8 x {processes} process(es) x {accumulate} accumulated = {wide}" in told
        assert f"learning rate {0.1 * wide / 32:g} = 0.1 x {wide} / 32" in told
        each = 100 // (8 * processes) * 8 * processes
        assert f"length    2 epochs = {2 * each} images ({each} of 100 an epoch: full batches of" in told
        walked += 1
    assert walked == 6
    # Fewer samples than a batch for each: the batch shrinks, and the banner with it.
    one = config(devices="4", batch_size=8, optim=OptimConfig(), lr=0.1)
    data, trainer = tiny_data(size=30, batch_size=8), build_trainer(one, folder=tmp_path)
    plan = schedule_length(one, data, 4)
    told = banner_text(one, TinyTask(), data, trainer, choose_policy(one), tmp_path, plan, None)
    assert "batch     7 x 4 process(es) x 1 accumulated = 28" in told
    assert "learning rate 0.1, not scaled by the batch of 28 images an update" in told


def test_the_banner_counts_in_words_that_fit():
    assert ScheduleLength(1, 1, 4, 4).describe(19) == "1 epoch = 16 of 19 images (full batches of 4)"
    assert ScheduleLength(1, 1, 4, 4).describe(16) == "1 epoch = 16 images"
    assert ScheduleLength(3, 1, 4, 4).describe(16) == "3 epochs = 48 images"
    task = TinyTask()
    assert banner._targets(task, ()) == ""
    assert banner._targets(task, ("a",)) == ", 1 class"
    assert banner._targets(task, ("a", "b")) == ", 2 classes"
    task.target = "regression"
    assert banner._targets(task, ("mass",)) == ", 1 number"
