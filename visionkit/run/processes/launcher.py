"""The number of processes of a run, as its launcher gives it: Lightning, torchrun, SLURM or Ray."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

import torch

from visionkit.errors import InputError
from visionkit.run.config import RunConfig

__all__ = ["Processes", "find_processes", "is_first", "store_key"]


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Args:
        launcher: Who starts them: "lightning", "torchrun", "slurm" or "ray".
        devices: Processes on this machine, one for each device.
        nodes: Machines.
        world: Processes in all.
    """

    launcher: str
    devices: int
    nodes: int
    world: int


def find_processes(config: RunConfig, *, accelerator: str) -> Processes:
    """Return the processes as the launcher's environment gives them; without a launcher, those of the config.

    Args:
        config: `devices` and `num_nodes`; "auto" and 0 ask the environment.
        accelerator: "cpu", "gpu" or "mps".

    Raises:
        InputError: `devices` is no number, or differs from what the launcher started, or the launcher started
            the program in a way that leaves processes waiting for each other.
    """
    devices, nodes = _flags(config)
    launcher = _launcher()
    if launcher == "ray":
        context = _ray_context()
        # Workers may be spread unevenly, so machines times devices is not their number.
        local, world = int(context.get_local_world_size()), int(context.get_world_size())
        started = Processes(launcher, local, 1, world)
        _check_flags(started, devices, None, "the workers that Ray placed on this machine")
        return started
    if launcher == "torchrun":
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        started = Processes(launcher, local, max(1, world // local), world)
        _check_flags(started, devices, nodes, "torchrun's --nproc-per-node and --nnodes")
        return started
    if launcher == "slurm":
        started = _slurm_tasks()
        _check_flags(started, devices, nodes, "SLURM's --ntasks-per-node and --nodes")
        return started
    if devices is None:
        devices = torch.cuda.device_count() if accelerator == "gpu" else 1
    return Processes(launcher, devices, nodes or 1, devices * (nodes or 1))


def is_first() -> bool:
    """Return whether this is the process that prints and writes for all; needs no Trainer."""
    launcher = _launcher()
    if launcher == "ray":
        return int(_ray_context().get_world_rank()) == 0
    if launcher == "slurm":
        return int(os.environ.get("SLURM_PROCID", "0")) == 0
    # Lightning starts the other processes of a machine itself; on another machine NODE_RANK is given by hand.
    ranks = ("RANK",) if "RANK" in os.environ else ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
    return all(int(os.environ.get(name, "0")) == 0 for name in ranks)


def _launcher() -> str:
    env = os.environ
    if _ray_context() is not None:
        return "ray"
    if "TORCHELASTIC_RUN_ID" in env:
        return "torchrun"
    if "SLURM_NTASKS" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return "slurm"
    return "lightning"


def _ray_context() -> Any:
    # A Ray worker has imported Ray; elsewhere it is not needed.
    train = sys.modules.get("ray.train")
    if train is None:
        return None
    try:
        context = train.get_context()
        return context if context.get_world_size() is not None else None
    except (AttributeError, RuntimeError):
        return None


def _flags(config: RunConfig) -> tuple[int | None, int | None]:
    devices = str(config.devices)
    if devices != "auto" and (not devices.isdigit() or int(devices) < 1):
        raise InputError(f"Expected --devices to be a positive number or auto, but got {config.devices!r}.")
    if config.num_nodes < 0:
        raise InputError(
            f"Expected --num_nodes to be 0 (ask the environment) or more, not {config.num_nodes}."
        )
    return None if devices == "auto" else int(devices), config.num_nodes or None


def _check_flags(started: Processes, devices: int | None, nodes: int | None, source: str) -> None:
    if devices not in (None, started.devices) or nodes not in (None, started.nodes):
        asked = f"--devices {devices or 'auto'} --num_nodes {nodes or 0}"
        raise InputError(
            f"Expected {asked} to agree with {source}, which gave {started.devices} process(es) on each of "
            f"{started.nodes} machine(s). Leave both flags out: they are filled in from there."
        )


def store_key(what: str, fit: int) -> str:
    """Return a key of the process group's store, which outlives a fit and torchrun's restarts.

    Args:
        what: The kind of message.
        fit: The number of the fit in this program, the same on all processes.
    """
    return f"visionkit/{what}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{fit}"


def _slurm_tasks() -> Processes:
    env = os.environ
    tasks, nodes = int(env["SLURM_NTASKS"]), int(env.get("SLURM_NNODES", "1"))
    if tasks > 1 and "SLURM_STEP_ID" not in env:
        raise InputError(
            f"This SLURM job has {tasks} tasks, but the program was started once, without srun: it would "
            "wait for the others. Start it as `srun python ...`, as recipes/cluster/slurm.sbatch does."
        )
    if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in env:
        raise InputError(
            f"Expected the SLURM job to give its {tasks} tasks as --ntasks-per-node, which is not set "
            f"(--ntasks alone is not enough). Use --nodes={nodes} --ntasks-per-node={max(1, tasks // nodes)}."
        )
    devices = int(env.get("SLURM_NTASKS_PER_NODE", "1"))
    if devices * nodes != tasks:
        raise InputError(
            f"Expected every machine to run {devices} task(s), but the SLURM step has {tasks} tasks on "
            f"{nodes} machine(s). Give srun no --ntasks of its own."
        )
    return Processes("slurm", devices, nodes, tasks)
