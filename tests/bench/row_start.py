"""What one waits for: the import, the help, the report; each beside a budget of CPU seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.row import Row, Sides, Size, pick
from tests.run.make_runs import make_comparison

ROOT = Path(__file__).resolve().parents[2]


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def start(*arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    # Else each start would compile what it imports, which an installed package does once.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    return done.stdout


def works(ours: object, _: object) -> None:
    assert ours, "it printed nothing"


def alike(ours: str, theirs: str) -> None:
    assert ours == theirs == "Tensor", (ours, theirs)  # the type of the first loss


def process(arguments: Sequence[str], budget: float) -> Callable[[Size], Sides]:
    """A process of ours, against a bare interpreter and the budget."""

    def build(size: Size) -> Sides:
        def theirs() -> None:
            start("-c", "print(1)")
            spin(budget)

        return Sides(lambda: start(*arguments), theirs, works)

    return build


def first_step(_: Size) -> Sides:
    """Both sides as commands, to the end of their first training step."""
    folder, script = Path(tempfile.mkdtemp()), "tests/bench/first_step.py"

    def ours() -> str:
        shutil.rmtree(folder / "runs", ignore_errors=True)
        return start(script, "ours", str(folder / "runs")).split()[-1]

    return Sides(
        ours, lambda: start(script, "theirs").split()[-1], alike,
        close=lambda: shutil.rmtree(folder, ignore_errors=True),
    )  # fmt: skip


def report(size: Size) -> Sides:
    from visionkit.compare.comparison import compare
    from visionkit.compare.report.report import write_report

    place = Path(tempfile.mkdtemp())
    make_comparison(place / "runs", seeds=tuple(range(pick(size, tiny=2, quick=5, full=10))), predictions=40)

    def ours() -> Path:
        return write_report(compare([place / "runs"]), place / "out")

    return Sides(
        ours, lambda: spin(10.0 if size != "tiny" else 0.1), works,
        close=lambda: shutil.rmtree(place, ignore_errors=True),
    )  # fmt: skip


ROWS = (
    Row("import visionkit", "a bare interpreter and 0.05 s",
        process(("-c", "import visionkit; print(1)"), 0.05),
        goal=1.0, limit="the interpreter's start", at_most=True, rounds=9),
    Row("visionkit --help", "a bare interpreter and 1 s", process(("-m", "visionkit.cli", "--help"), 1.0),
        goal=1.0, limit="the interpreter's start", at_most=True, rounds=5),
    Row("from the command to the first step", "a script in plain Lightning", first_step, goal=1.25,
        limit="importing torch, Lightning and timm", package="lightning", at_most=True, rounds=5),
    Row("report over 20 runs", "10 s", report, goal=1.0, limit="drawing", at_most=True, rounds=3,
        quick=False),
)  # fmt: skip
