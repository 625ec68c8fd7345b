"""The function that builds every Trainer: exact data order, atomic checkpoints, DDP or FSDP, quiet log."""

from __future__ import annotations

import datetime
import logging
import os
import socket
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy

from visionkit.compat import skip_signal_handlers, skip_sigterm_broadcast
from visionkit.errors import InputError, unknown_name
from visionkit.run.callbacks.deterministic_all_reduce import DeterministicAllReduce
from visionkit.run.config import RunConfig
from visionkit.run.processes.launcher import Processes, find_processes
from visionkit.run.processes.lifetime import destroy_group_at_exit
from visionkit.run.storage.checkpoint import AtomicCheckpointIO
from visionkit.run.training.device_policy import Policy, choose_policy
from visionkit.run.training.precision import CpuMixedPrecision, CpuPrecision
from visionkit.run.training.quiet_profiler import QuietProfiler

__all__ = ["build_trainer"]


def build_trainer(
    config: RunConfig,
    *,
    folder: str | Path,
    policy: Policy | None = None,
    processes: Processes | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    max_epochs: int = -1,
    max_steps: int = -1,
    validate_every: int = 1,
    log_every: int = 20,
    progress: bool = True,
) -> lightning.Trainer:
    """Return the Trainer of every recipe; all that it sets can be set on a stock Trainer.

    Args:
        config: Devices, nodes, strategy, precision, accumulation, clipping.
        folder: Root of everything the Trainer writes.
        policy: How the run uses its device; chosen from `config` if not given.
        processes: The processes of the run; found from `config` and the environment if not given.
        callbacks: Run in this order; checkpoint writers go last.
        loggers: Receive the logged values.
        max_epochs: Maximum epochs; -1 for no limit.
        max_steps: Maximum updates; -1 for no limit.
        validate_every: Epochs between validations.
        log_every: Updates between rows of training values.
        progress: Whether Lightning's bar is shown on a terminal, where `config.progress` is set.

    Raises:
        InputError: The strategy is unknown or does not run on this device, or the master address does not
            resolve.
    """
    policy = policy or choose_policy(config)
    processes = processes or find_processes(config, accelerator=policy.accelerator)
    _check_master(processes)
    if processes.world > 1:
        destroy_group_at_exit()
    _quiet()
    progress = progress and config.progress and sys.stderr.isatty()
    all_reduce = [DeterministicAllReduce()] if policy.accelerator == "cpu" and processes.world > 2 else []
    trainer = lightning.Trainer(
        accelerator=policy.accelerator,
        devices=processes.devices,
        num_nodes=processes.nodes,
        strategy=_strategy(config, policy, processes),
        **_precision(policy, processes),
        callbacks=[*all_reduce, *callbacks, *([RichProgressBar(refresh_rate=20)] if progress else [])],
        logger=list(loggers) or False,
        max_epochs=max_epochs,
        max_steps=max_steps,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.optim.clip_norm or None,
        check_val_every_n_epoch=validate_every,
        log_every_n_steps=log_every,
        num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(c, lightning.pytorch.callbacks.Checkpoint) for c in callbacks),
        enable_model_summary=False,
        enable_progress_bar=progress,
        use_distributed_sampler=False,
        profiler=QuietProfiler(),
        deterministic="warn" if config.deterministic else False,
        benchmark=False if config.deterministic else None,
        default_root_dir=folder,
    )
    if policy.accelerator == "gpu":
        # TF32 for what stays in 32 bits: convolutions have it already, products of matrices do not.
        torch.set_float32_matmul_precision("high")
    # Deterministic algorithms also fill every new tensor with NaN, a pass over memory that changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # `Preemption` does both.
    skip_sigterm_broadcast(trainer)
    skip_signal_handlers(trainer)
    return trainer


def _precision(policy: Policy, processes: Processes) -> dict[str, Any]:
    """Return the plugins and the precision: on a CPU, those that replace slow gradients."""
    plugins: list[Any] = [AtomicCheckpointIO(), *_environment(processes)]
    ours = {"bf16-mixed": CpuMixedPrecision, "32-true": CpuPrecision}
    if policy.accelerator == "cpu" and policy.precision in ours and not policy.compile:
        return {"plugins": [*plugins, ours[policy.precision]()]}
    return {"plugins": plugins, "precision": policy.precision}


def _strategy(config: RunConfig, policy: Policy, processes: Processes) -> str | Strategy:
    name, timeout = config.strategy, datetime.timedelta(seconds=config.timeout)
    if name not in ("auto", "ddp", "fsdp"):
        raise unknown_name("strategy", name, ("auto", "ddp", "fsdp"))
    if name == "fsdp" and policy.accelerator == "cpu":
        raise InputError("Expected a GPU for --strategy fsdp, but this run uses the CPU. Use --strategy ddp.")
    if processes.launcher == "ray":
        from ray.train.lightning import RayDDPStrategy, RayFSDPStrategy

        # Ray has made the process group, with its own time-out.
        strategy: Strategy = (
            RayFSDPStrategy() if name == "fsdp" else RayDDPStrategy(gradient_as_bucket_view=True)
        )
        return strategy
    if name == "fsdp":
        return FSDPStrategy(timeout=timeout)
    if name == "auto" and processes.world == 1:
        return "auto"
    backend = "gloo" if policy.accelerator == "cpu" else None
    return DDPStrategy(timeout=timeout, process_group_backend=backend, gradient_as_bucket_view=True)


def _environment(processes: Processes) -> list[ClusterEnvironment]:
    if processes.launcher == "slurm":
        return [SLURMEnvironment(auto_requeue=False)]
    if processes.launcher == "ray":
        from ray.train.lightning import RayLightningEnvironment

        return [RayLightningEnvironment()]
    return []


def _check_master(processes: Processes) -> None:
    address, source = os.environ.get("MASTER_ADDR"), "MASTER_ADDR"
    if not address and processes.launcher == "slurm" and processes.world > 1:
        address = SLURMEnvironment.resolve_root_node_address(os.environ.get("SLURM_NODELIST", "127.0.0.1"))
        source = "The first machine of SLURM_NODELIST"
    if not address:
        return
    try:
        socket.getaddrinfo(address, None)
    except OSError as error:
        raise InputError(
            f"{source} is {address!r}, which does not resolve from this machine ({error}); every process "
            "would wait for it. Set MASTER_ADDR to the first machine's reachable name or address."
        ) from error


def _quiet() -> None:
    # Product tips, and warnings about settings made on purpose; all others are shown.
    notes: list[Any] = [
        r".*does not have many workers.*",
        r".*number of training batches .* is smaller than the logging interval.*",
        r".*resuming from a checkpoint that ended before the epoch ended.*",
        r".*module\(s\) in eval mode at the start of training.*",
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
        r".*recommended to use `self.log\(.*sync_dist=True.*",
        r".*You have overridden `(on_before_batch_transfer|transfer_batch_to_device)` in `LightningModule`.*",
        r".*srun.*command is available on your system but is not used.*",
        r".*You are using `torch.load` with `weights_only=.*",
    ]
    for note in notes:
        warnings.filterwarnings("ignore", message=note)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
