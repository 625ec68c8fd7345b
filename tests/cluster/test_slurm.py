"""On a private SLURM: the same bits as without it, also after being preempted and queued again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.recipe import (
    FLAGS,
    ROOT,
    RUN,
    begin,
    finish,
    left_over,
    outcome,
    recipe,
    started,
    wait_for,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

SBATCH = ["--parsable", "--gpus-per-node=0", "--cpus-per-task=1"]


def submit(slurm, place: Path, shape: list[str], command: list[str]) -> tuple[str, Path]:
    log = place / "job.log"
    script = str(ROOT / "recipes/cluster/slurm.sbatch")
    job = slurm.call("sbatch", *SBATCH, *shape, f"--output={log}", f"--chdir={ROOT}", script, *command)
    return job, log


def requeued(slurm, job: str) -> None:
    """Wait until the job is in the queue again and let it start now, not in the usual two minutes."""
    slurm.wait(job, ("PENDING",))
    # A start while the machines still clean up after the first one fails; those two minutes avoid that.
    wait_for(slurm.idle, 60, "the machines to be idle")
    time.sleep(2)
    slurm.call("scontrol", "update", f"JobId={job}", "StartTime=now")


@pytest.mark.parametrize("shape", [(2, 1), (1, 2)], ids=["two machines", "two tasks"])
def test_the_weights_are_those_of_a_run_without_slurm(slurm, whole, tmp_path, shape):
    nodes, tasks = shape
    job, log = submit(
        slurm, tmp_path, [f"--nodes={nodes}", f"--ntasks-per-node={tasks}"], recipe(tmp_path / "out")
    )
    slurm.wait(job, ("GONE",))
    assert slurm.field(job, "JobState") == "COMPLETED", log.read_text()
    assert "2 x cpu" in log.read_text()
    assert outcome(tmp_path / "out") == whole


def test_a_preempted_job_saves_queues_again_and_ends_with_the_same_weights(slurm, whole, tmp_path):
    out = tmp_path / "out"
    job, log = submit(slurm, tmp_path, ["--nodes=2"], recipe(out))
    wait_for(lambda: started(out), 200, "the first validation")
    slurm.call("scancel", "--signal=USR1", job)
    requeued(slurm, job)
    slurm.wait(job, ("GONE",))
    told = log.read_text()
    assert slurm.field(job, "JobState") == "COMPLETED", told
    assert slurm.field(job, "Restarts") == "1"
    assert told.count("exit code 75") == 2, told
    assert "queues again" in told
    assert "continuing from last.ckpt" in told
    assert outcome(out) == whole
    assert list((out / RUN).glob("hpc_ckpt*")) == []


def test_a_job_without_time_left_is_signalled_by_slurm_itself(slurm, tmp_path):
    out = tmp_path / "out"
    # Both are SLURM's to keep; it signals up to a minute early.
    shape = ["--nodes=2", "--time=3", "--signal=SIGUSR1@60"]
    job, log = submit(slurm, tmp_path, shape, recipe(out, "--epochs", "4000"))
    slurm.wait(job, ("RUNNING",))
    slurm.wait(job, ("PENDING",))
    assert "queues again" in log.read_text()
    assert log.read_text().count("exit code 75") == 2
    slurm.call("scancel", job)


def test_a_signal_before_the_first_update_is_kept_until_after_it(slurm, tmp_path):
    out = tmp_path / "out"
    job, log = submit(slurm, tmp_path, ["--nodes=2"], recipe(out))
    wait_for(lambda: sum("python -u" in line for line in left_over(str(out))) >= 4, 60, "the processes")
    time.sleep(4)  # they import
    slurm.call("scancel", "--signal=USR1", job)
    slurm.wait(job, ("PENDING",))
    assert "saved after update 1 " in log.read_text() or "saved after update 2 " in log.read_text()
    slurm.call("scancel", job)


def test_a_cancelled_job_saves_and_stays_cancelled(slurm, tmp_path):
    out = tmp_path / "out"
    job, log = submit(slurm, tmp_path, ["--nodes=2"], recipe(out, "--epochs", "400"))
    wait_for(lambda: started(out), 200, "the first validation")
    slurm.call("scancel", job)
    slurm.wait(job, ("GONE",))
    assert slurm.field(job, "JobState") == "CANCELLED"
    assert "Asked to stop: saved after update" in log.read_text()
    assert "queues again" not in log.read_text()
    wait_for(lambda: not left_over(str(out)), 40, "its processes to end")


def test_an_array_over_inits_seeds_and_schedules_is_compared(slurm, tmp_path):
    script = str(ROOT / "recipes/cluster/slurm-array.sbatch")
    flags = [*FLAGS, "--epochs", "2"]
    for name in ("--init", "--seeds"):
        place = flags.index(name)
        del flags[place : place + 2]
    job = slurm.call(
        *("sbatch", *SBATCH, "--array=0-7", f"--output={tmp_path}/%a.log", f"--chdir={ROOT}", script),
        *(str(tmp_path / "out"), "recipes/classify.py", *flags),
        SEEDS="3 4",
        SCHEDULES="1 2",
    )
    slurm.wait(job, ("GONE",), 900)
    logs = "".join(path.read_text() for path in sorted(tmp_path.glob("*.log")))
    runs = sorted(path.parent.name for path in (tmp_path / "out").glob("*/*/result.json"))
    arms = [f"{init}-f1{length}" for init in ("pretrained", "scratch") for length in ("", "-x2")]
    assert runs == sorted(f"{arm}-s{seed}" for arm in arms for seed in (3, 4)), logs
    folders = [str(path) for path in sorted((tmp_path / "out").iterdir())]
    command = [sys.executable, "-m", "visionkit.cli", "compare", *folders, "--out", str(tmp_path / "both")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    compared = json.loads((tmp_path / "both/comparison.json").read_text())
    assert len(compared["runs"]) == 8
    assert compared["schedules"] == [1, 2]


def test_a_program_started_without_srun_is_told_so(slurm, tmp_path):
    log = tmp_path / "log"
    script = tmp_path / "no-srun.sbatch"
    script.write_text('#!/bin/bash\npython "$@"\n')
    job = slurm.call(
        "sbatch",
        "--parsable",
        "--nodes=2",
        "--ntasks-per-node=1",
        f"--output={log}",
        str(script),
        *recipe(tmp_path / "out"),
    )
    slurm.wait(job, ("GONE",))
    assert slurm.field(job, "ExitCode") == "2:0", log.read_text()
    assert "without srun" in log.read_text()


def test_torchrun_inside_srun_starts_the_processes(slurm, whole, tmp_path):
    log = tmp_path / "log"
    script = tmp_path / "torchrun.sbatch"
    script.write_text(
        "#!/bin/bash\n"
        "srun torchrun --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-id $SLURM_JOB_ID "
        '--rdzv-endpoint 127.0.0.1:$((20000 + SLURM_JOB_ID)) "$@"\n'
    )
    job = slurm.call(
        *("sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", f"--output={log}", str(script)),
        *recipe(tmp_path / "out"),
    )
    slurm.wait(job, ("GONE",))
    assert outcome(tmp_path / "out") == whole, log.read_text()


def test_submitit_starts_is_preempted_and_queues_again(slurm, whole, tmp_path):
    pytest.importorskip("submitit", reason="the extra `cluster` is not installed")
    out, log = tmp_path / "out", tmp_path / "log"
    launcher = [
        sys.executable,
        "recipes/cluster/with_submitit.py",
        "--gpus",
        "0",
        "--tasks",
        "2",
        "--cpus",
        "1",
    ]
    command = [*launcher, "--minutes", "30", "--logs", str(tmp_path / "logs"), *recipe(out)]
    assert finish(begin(command, log, **slurm.settings), log) == 0, log.read_text()
    job = log.read_text().split("job ")[1].split(";")[0]
    wait_for(lambda: started(out), 200, "the first validation")
    slurm.call("scancel", "--signal=USR1", job)
    requeued(slurm, job)
    slurm.wait(job, ("GONE",))
    logs = "".join(
        path.read_text()
        for path in sorted((tmp_path / "logs").glob("*.*"))
        if path.suffix in (".out", ".err")
    )
    assert slurm.field(job, "JobState") == "COMPLETED", logs
    assert slurm.field(job, "Restarts") == "1"
    assert "continuing from last.ckpt" in logs
    assert outcome(out) == whole
