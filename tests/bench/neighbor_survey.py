"""Exact neighbours beside scikit-learn's and faiss' in one run: seconds in turn, and peak memory of each.

    python -m tests.bench.neighbor_survey --vectors 100000 --dim 512 --queries 1000 --k 10 --threads 2

faiss is compared where it is installed. Seconds are CPU seconds of the process and seconds on the wall.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, value in (
        ("vectors", 100_000),
        ("dim", 512),
        ("queries", 1000),
        ("k", 10),
        ("threads", 2),
        ("rounds", 5),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--metric", default="l2", choices=("l2", "cosine"))
    parser.add_argument("--memory-of", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def sides(gallery, args):
    """Each way, by name: a function of queries that returns rows."""
    from visionkit.retrieval import exact_neighbors

    def ours(queries):
        return exact_neighbors(queries, gallery, k=args.k, metric=args.metric).rows

    def scikit_learn():
        from sklearn.neighbors import NearestNeighbors

        metric = "euclidean" if args.metric == "l2" else "cosine"
        built = NearestNeighbors(n_neighbors=args.k, algorithm="brute", metric=metric).fit(gallery)
        return lambda queries: built.kneighbors(queries)[1]

    def faiss_flat():
        import faiss

        faiss.omp_set_num_threads(args.threads)
        built = (faiss.IndexFlatL2 if args.metric == "l2" else faiss.IndexFlatIP)(args.dim)
        built.add(gallery)
        return lambda queries: built.search(queries, args.k)[1]

    return {"visionkit": lambda: ours, "scikit-learn": scikit_learn, "faiss flat": faiss_flat}


def peak() -> int:
    """Peak memory of this process in MB; `ru_maxrss` would begin at that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def main() -> None:
    args = parse()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        if os.environ.get(name) != str(args.threads):  # read when the libraries are loaded
            os.environ.update(
                dict.fromkeys(
                    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(args.threads)
                )
            )
            os.execv(sys.executable, [sys.executable, "-m", "tests.bench.neighbor_survey", *sys.argv[1:]])
    import numpy as np

    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((args.vectors, args.dim), dtype=np.float32)
    for start in range(0, args.vectors, 4096):  # whole, its squares would be the peak of every side
        gallery[start : start + 4096] /= np.linalg.norm(gallery[start : start + 4096], axis=1, keepdims=True)
    queries = rng.standard_normal((args.queries, args.dim), dtype=np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    ways = sides(gallery, args)
    if args.memory_of:
        search = ways[args.memory_of]()
        search(queries[:1])
        search(queries)
        print(peak())
        return
    built = {}
    for name, make in ways.items():
        try:
            built[name] = make()
        except ImportError:
            print(f"{name} is not installed")
    rows = {name: search(queries) for name, search in built.items()}
    times = {name: [] for name in built}
    for _ in range(args.rounds):
        for name, search in built.items():
            wall, cpu = time.perf_counter(), time.process_time()
            search(queries)
            times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    for name in built:
        command = [sys.executable, "-m", "tests.bench.neighbor_survey", *sys.argv[1:], "--memory-of", name]
        memory = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        cpu, wall = (np.median([each[column] for each in times[name]]) for column in (0, 1))
        ratio = np.median(
            [own[0] / other[0] for own, other in zip(times[name], times["visionkit"], strict=True)]
        )
        same = (rows[name] == rows["visionkit"]).mean()
        print(
            f"{name:<13} {cpu:6.2f} s CPU  {wall:6.2f} s  {ratio:5.2f}x of ours  peak {memory:,} MB  "
            f"{same:.2%} of the rows as ours"
        )


if __name__ == "__main__":
    main()
