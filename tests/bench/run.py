"""Measure speed beside the peers, both sides in one run, results asserted equal first.

python -m tests.bench.run                      # every row for the CPU: the committed table, 20 to 40 minutes
python -m tests.bench.run --quick              # smaller sizes, under 5 minutes
python -m tests.bench.run --gpu                # the rows for one CUDA device, under 8 minutes
python -m tests.bench.run --only 'packed*' --out speed.json
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.bench.processor import processor_kind
from tests.bench.row import Row, Size
from tests.bench.table import (
    describe_machine,
    is_tuned,
    measured,
    print_table,
    read_table,
    slower,
    write_table,
)
from tests.bench.timing import time_pairs
from visionkit.run.processes.malloc import tuned_environment

__all__ = ["find_rows", "main", "measure"]

HERE = Path(__file__).resolve().parent
COMMITTED = HERE.parents[1] / "docs" / "reference" / "speed.json"
ROUNDS = {"tiny": 2, "quick": 3}
LEAST = {"tiny": 0.0, "quick": 0.05, "full": 0.2}  # seconds of CPU that one timing fills


def find_rows(pattern: str = "*") -> list[Row]:
    """Every row of the files `row_*.py` and `rows_*.py` beside this one."""
    files = sorted([*HERE.glob("row_*.py"), *HERE.glob("rows_*.py")])
    rows = [row for file in files for row in importlib.import_module(f"tests.bench.{file.stem}").ROWS]
    names = [row.name for row in rows]
    if len(set(names)) < len(names):
        raise ValueError(f"Two rows have one name: {sorted(n for n in names if names.count(n) > 1)[0]!r}.")
    return [row for row in rows if fnmatch.fnmatch(row.name.lower(), pattern.lower())]


def measure(row: Row, size: Size) -> dict[str, Any]:
    """Build a row, assert that its sides agree, time them, and return what was measured."""
    missing = [name for name in row.needs if importlib.util.find_spec(name) is None]
    if missing:
        return {"row": row.name, "peer": row.peer, "verdict": f"left out: needs {', '.join(missing)}"}
    sides = row.build(size)
    try:
        sides.equal(sides.ours(), sides.theirs())
        rounds = ROUNDS.get(size, row.rounds)
        pairs = time_pairs(sides.ours, sides.theirs, rounds=rounds, least=LEAST[size], clock=row.clock)
        return measured(row, pairs, dict(sides.facts())) | {"size": size}
    finally:
        sides.close()
        torch.use_deterministic_algorithms(False)  # a run of ours turns them on, and leaves them on


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what was asked for; status 1 where a row failed or became slower than the committed table."""
    parser = argparse.ArgumentParser("bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under 5 minutes")
    parser.add_argument("--gpu", action="store_true", help="the rows for one CUDA device")
    parser.add_argument("--tiny", action="store_true", help="a dry run: everything at its smallest")
    parser.add_argument("--only", default="*", help="a pattern of row names")
    parser.add_argument("--out", help="write the rows to this JSON file (kept rows stay)")
    parser.add_argument(
        "--against",
        default=str(COMMITTED),
        help="a table: no row may be slower than on this kind of processor",
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    if not is_tuned():  # start again with the thresholds raised, in place of this process
        sys.stdout.flush()
        command = [sys.executable, "-m", "tests.bench.run", *(sys.argv[1:] if argv is None else argv)]
        os.execve(sys.executable, command, tuned_environment())
    torch.set_num_threads(args.threads)
    size: Size = "tiny" if args.tiny else "quick" if args.quick else "full"
    if args.gpu and not torch.cuda.is_available() and not args.tiny:
        sys.stderr.write("Expected a CUDA device for --gpu, but found none. --gpu --tiny is a dry run.\n")
        return 2
    rows = [row for row in find_rows(args.only) if (row.device == "gpu") == args.gpu]
    rows = [row for row in rows if row.quick or size != "quick"]
    before = read_table(Path(args.against), processor_kind(gpu=args.gpu)) if size == "full" else {}
    done, status = [], 0
    for row in rows:
        began = time.perf_counter()
        try:
            found = measure(row, size)
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            found = {"row": row.name, "peer": row.peer, "verdict": f"failed: {type(error).__name__}: {text}"}
            status = 1
        worse = slower(found, before.get(row.name))
        if worse:
            found["verdict"] = worse
            status = 1
        done.append(found)
        ratio = f"{found['ratio']:.2f}x" if "ratio" in found else ""
        seconds = time.perf_counter() - began
        sys.stderr.write(f"{row.name}: {ratio} {found['verdict']} ({seconds:.0f} s)\n")
        gc.collect()
    print(print_table(done))
    if args.out:
        machine = describe_machine(args.threads, gpu=args.gpu)
        write_table(Path(args.out), [row for row in done if "ratio" in row], machine)
    return status


if __name__ == "__main__":
    sys.exit(main())
