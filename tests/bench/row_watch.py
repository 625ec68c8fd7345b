"""What training costs while somebody looks at it: one command, with and without `visionkit watch`."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.bench.row import Row, Sides, Size, pick, same
from tests.bench.row_start import ROOT, start

EVERY = 2.0  # seconds between the requests of the page
RECIPE = "recipes/classify.py"


def train(folder: Path, images: int) -> dict[str, float]:
    """Train from scratch on scenes, and return every value that was logged but the measured times."""
    shutil.rmtree(folder, ignore_errors=True)
    words = {
        "init": "scratch", "seeds": 0, "jobs": 1, "image_size": 64, "images": images, "batch_size": 16,
        "scenes.train_size": 64, "scenes.val_size": 32, "accelerator": "cpu", "out": folder,
        "progress": "false",
    }  # fmt: skip
    start(RECIPE, *(word for name, value in words.items() for word in (f"--{name}", str(value))))
    with next(folder.rglob("metrics.csv")).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] in ("train", "val")]
    return {f"{row['split']}/{row['name']} at {row['images']}": float(row["value"]) for row in rows}


class Page:
    """The server as its own command, and a thread that asks as the page does, with the layers open.

    Args:
        folder: Where runs will begin.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "visionkit", "watch", str(folder), "--no_browser"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().split()[-1]
        self.answers = self.frames = 0
        self.error: Exception | None = None

    @contextlib.contextmanager
    def looked_at(self) -> Iterator[None]:
        """Ask every two seconds while the block runs."""
        over = threading.Event()
        thread = threading.Thread(target=self._look, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if self.error is not None:
            raise self.error

    def _look(self, over: threading.Event) -> None:
        known: dict[str, str] = {}
        try:
            while not over.wait(EVERY):
                self._ask(known)
        except Exception as error:
            self.error = error

    def _ask(self, known: dict[str, str]) -> None:
        query = [("look", key) for key in known] + [("known", value) for value in known.values()]
        with urlopen(f"{self.address}api/state?{urlencode(query)}", timeout=60) as answer:
            state = json.load(answer)
        for run in state["runs"]:
            self._see(run, known)
        self.answers += 1

    def _see(self, run: dict[str, Any], known: dict[str, str]) -> None:
        curves = run["curves"]
        count = curves["begin"] + len(curves["rows"])
        known[run["key"]] = f"{run['key']}:{curves['generation']}:{count}"
        frames = (run["layers"] or {}).get("frames", [])
        self.frames = max(self.frames, len(frames))
        for part in frames[-1]["parts"] if frames else []:
            with urlopen(f"{self.address}layers/{run['key']}/{part['png']}", timeout=60) as answer:
                answer.read()

    def close(self) -> None:
        """End the server, and with it its drawing process."""
        self.process.terminate()
        self.process.wait()


def watched(size: Size) -> Sides:
    place = Path(tempfile.mkdtemp())
    images = pick(size, tiny=16, quick=1_000, full=6_000)
    page = Page(place / "runs")

    def ours() -> dict[str, float]:
        with page.looked_at():
            return train(place / "runs" / "watched", images)

    def close() -> None:
        page.close()
        shutil.rmtree(place, ignore_errors=True)

    return Sides(
        ours,
        lambda: train(place / "alone", images),
        same,
        close=close,
        facts=lambda: {"answers of the server": page.answers, "drawings": page.frames},
    )


ROWS = (
    Row("training while visionkit watch is looked at", "the same training alone", watched, goal=1.03,
        limit="what the page takes from the cores that training uses", at_most=True, rounds=4, quick=False,
        clock="wall", note="Layers are drawn at each checkpoint. For a quiet machine of two cores or more."),
)  # fmt: skip
