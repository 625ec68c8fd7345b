"""Start a recipe on SLURM from Python, through submitit. Preempted or out of time, it saves and queues again.

python recipes/cluster/with_submitit.py --nodes 2 --gpus 8 recipes/detect.py --config detect.yaml
python recipes/cluster/with_submitit.py --gpus 0 --tasks 2 recipes/classify.py --accelerator cpu --out runs/c

Each task of the job starts the recipe as a program of its own; the recipe finds its place among them in the
environment. --out has to be on a file system that all machines share.
Needs: pip install ".[cluster]".
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PREEMPTED = 75


class Recipe:
    """One task of the job: runs the recipe, and passes the queue's request to stop on to it.

    Args:
        words: The recipe's file and its flags.
    """

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.child: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Run the recipe to its end and return its status, which is 0."""
        self.child = subprocess.Popen([sys.executable, "-u", *self.words])
        while (status := self._status()) is None:
            time.sleep(0.2)
        if status in (PREEMPTED, -signal.SIGTERM):
            # No result is written, so that submitit knows this task as unfinished. The first task requeues,
            # which ends what the others still have running.
            raise SystemExit(PREEMPTED)
        if status:
            raise RuntimeError(f"{self.words[0]} ended with status {status}; the log of this task says why.")
        return status

    def checkpoint(self) -> Any:
        """Have the recipe save and end; submitit calls this in the first task, then requeues the job."""
        import submitit

        if self.child is not None and self._status() is None:
            self.child.send_signal(signal.SIGUSR1)
            while self._status() is None:
                time.sleep(0.2)
        return submitit.helpers.DelayedSubmission(Recipe(self.words))

    def _status(self) -> int | None:
        # Popen's own poll holds a lock, in which the handler that calls `checkpoint` may have interrupted it.
        if self.child is None:
            return None
        ended = os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def main(argv: list[str] | None = None) -> str:
    """Submit the recipe and return the number of the job."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--nodes", type=int, default=1, help="machines")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs a machine, one process for each; 0: CPU")
    parser.add_argument("--tasks", type=int, default=1, help="processes a machine when --gpus is 0")
    parser.add_argument("--cpus", type=int, default=4, help="CPU cores a process")
    parser.add_argument("--minutes", type=int, default=240, help="time of one start; more are made as needed")
    parser.add_argument("--partition", help="SLURM's partition")
    parser.add_argument("--account", help="SLURM's account")
    parser.add_argument("--logs", default="runs/logs", help="folder of submitit's files and of the logs")
    parser.add_argument("--wait", action="store_true", help="stay until the job has ended")
    parser.add_argument("recipe", help="the recipe's file")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="the recipe's flags")
    args = parser.parse_args(argv)
    if not Path(args.recipe).is_file():
        parser.error(f"there is no recipe at {args.recipe}")
    import submitit

    # SLURM signals every process of a task: with its own signal the recipe knows what it means, too.
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"
    tasks = args.gpus or args.tasks
    executor = submitit.AutoExecutor(folder=args.logs, cluster="slurm", slurm_max_num_timeout=1000)
    executor.update_parameters(
        name=Path(args.recipe).stem,
        nodes=args.nodes,
        tasks_per_node=tasks,
        cpus_per_task=args.cpus,
        timeout_min=args.minutes,
        slurm_signal_delay_s=120,
        **({"gpus_per_node": args.gpus} if args.gpus else {}),
        **({"slurm_partition": args.partition} if args.partition else {}),
        **({"slurm_account": args.account} if args.account else {}),
    )
    job = executor.submit(Recipe([str(Path(args.recipe).resolve()), *args.flags]))
    print(f"job {job.job_id}; logs: {job.paths.stdout}", flush=True)
    if args.wait:
        job.results()
    return str(job.job_id)


if __name__ == "__main__":
    main()
