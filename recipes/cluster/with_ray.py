"""Start a recipe in the workers of a Ray cluster. Workers that are lost come again and continue the run.

python recipes/cluster/with_ray.py --workers 8 --gpu --storage /shared/ray recipes/detect.py --out /shared/d
python recipes/cluster/with_ray.py --workers 2 recipes/classify.py --accelerator cpu --out runs/c

SIGTERM or SIGUSR1 to this program has the workers save after the same update and end; its status is then 75,
and the same command continues. --out (and --storage) have to be on a file system that all machines share; the
recipe and its data are found by the same path on each. Needs: pip install ".[cluster]".
"""

from __future__ import annotations

import argparse
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

PREEMPTED = 75
POLL_SECONDS = 1.0


def main(argv: list[str] | None = None) -> int:
    """Run the recipe in the workers and return the status: 0, or 75 when it was asked to stop."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workers", type=int, default=1, help="processes in all; one a GPU with --gpu")
    parser.add_argument("--gpu", action="store_true", help="give every worker a GPU")
    parser.add_argument("--cpus", type=int, default=1, help="CPU cores a worker")
    parser.add_argument("--address", help="the cluster; left out: RAY_ADDRESS, or this machine")
    parser.add_argument("--storage", default="runs/ray", help="folder of Ray's own files")
    parser.add_argument("--restarts", type=int, default=10, help="how often lost workers are started again")
    parser.add_argument("recipe", help="the recipe's file")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="the recipe's flags")
    args = parser.parse_args(argv)
    recipe = Path(args.recipe).resolve()
    if not recipe.is_file():
        parser.error(f"there is no recipe at {args.recipe}")
    # Ray gives workers a minute to start; imports from a shared file system may take longer.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    local = {} if args.address or "RAY_ADDRESS" in os.environ else {"include_dashboard": False}
    ray.init(address=args.address, runtime_env={"env_vars": {"PYTHONUNBUFFERED": "1"}}, **local)
    bell = ray.remote(num_cpus=0)(Bell).remote()
    rung = threading.Event()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: rung.set())
    threading.Thread(target=_ring, args=(bell, rung), daemon=True).start()
    trainer = TorchTrainer(
        work,
        train_loop_config={
            "recipe": str(recipe),
            "flags": args.flags,
            "folder": str(Path.cwd()),
            "bell": bell,
        },
        scaling_config=ScalingConfig(
            num_workers=args.workers,
            use_gpu=args.gpu,
            resources_per_worker={"CPU": args.cpus} | ({"GPU": 1} if args.gpu else {}),
        ),
        run_config=RunConfig(
            name=f"{recipe.stem}-{int(time.time())}",
            storage_path=str(Path(args.storage).resolve()),
            failure_config=FailureConfig(max_failures=args.restarts),
        ),
    )
    status = int(trainer.fit().return_value or 0)
    ray.shutdown()
    return status


class Bell:
    """One actor that all workers ask whether the run shall stop: workers get no signals of their own."""

    def __init__(self) -> None:
        self.rung = False

    def ring(self) -> None:
        """Ask for the stop."""
        self.rung = True

    def heard(self) -> bool:
        """Return whether the stop was asked for."""
        return self.rung


def work(job: dict[str, Any]) -> int:
    """Run the recipe in this worker; return its status."""
    import ray.train

    os.chdir(job["folder"])
    if ray.train.get_context().get_world_rank() == 0:
        threading.Thread(target=_listen, args=(job["bell"],), daemon=True).start()
    sys.argv = [job["recipe"], *job["flags"]]
    try:
        runpy.run_path(job["recipe"], run_name="__main__")
    except SystemExit as end:
        status = int(end.code or 0) if isinstance(end.code, int | None) else 1
        if status not in (0, PREEMPTED):
            raise RuntimeError(f"{job['recipe']} ended with status {status}; its message is above.") from None
        return status
    return 0


def _ring(bell: Any, rung: threading.Event) -> None:
    rung.wait()
    bell.ring.remote()


def _listen(bell: Any) -> None:
    import ray

    from visionkit.run import request_stop

    while not ray.get(bell.heard.remote()):
        time.sleep(POLL_SECONDS)
    request_stop()


if __name__ == "__main__":
    raise SystemExit(main())
