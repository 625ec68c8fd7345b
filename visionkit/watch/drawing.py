"""The server's side of the drawing process: it is started when a browser looks, and ends when none does."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visionkit.watch.run_folder import RunFolder

__all__ = ["Drawing"]

VIEW_SECONDS = 12.0  # seconds for which a browser that has asked counts as looking
IDLE = 60.0  # seconds without a browser after which the process ends
HISTORY = 24  # drawings of a run that are remembered
REST = 19.0  # seconds without drawing for each second of CPU that the last one took: 5% of a core at most
_MAX_FAILURES = 3


@dataclass
class _Drawn:
    """What is known of one run: its drawings, oldest first, and of which checkpoint the latest is."""

    looked: float = 0.0
    version: int = 0
    drawn_at: float = 0.0  # on the monotonic clock; 0: never
    busy: bool = False
    note: str = ""
    number: int = 0
    frames: list[dict[str, Any]] = field(default_factory=list)
    pngs: dict[str, bytes] = field(default_factory=dict)


class Drawing:
    """Draws the layers of the runs that a browser looks at, one at a time, in one process of low priority."""

    def __init__(self) -> None:
        self._runs: dict[str, tuple[RunFolder, _Drawn]] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._process: subprocess.Popen[str] | None = None
        self._failures = 0
        self._rest_until = 0.0  # on the monotonic clock
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def look(self, run: RunFolder) -> dict[str, Any]:
        """Note that a browser looks at a run, and return what is drawn of it so far.

        Args:
            run: The run.
        """
        with self._lock:
            _, drawn = self._runs.setdefault(run.key, (run, _Drawn()))
            drawn.looked = time.monotonic()
            self._wake.set()
            return {"frames": list(drawn.frames), "note": drawn.note, "busy": drawn.busy}

    def png(self, key: str, name: str) -> bytes | None:
        """Return a drawing, None if there is none of this name (any more).

        Args:
            key: The run's key.
            name: The name that a frame of `look` has.
        """
        with self._lock:
            entry = self._runs.get(key)
            return entry[1].pngs.get(name) if entry else None

    def close(self) -> None:
        """End the process."""
        self._closed = True
        self._wake.set()
        self._end_process()

    @property
    def pid(self) -> int | None:
        """The number of the process, None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def _work(self) -> None:
        while not self._closed:
            self._wake.wait(1.0)
            self._wake.clear()
            for run, drawn in sorted(self._due(), key=lambda entry: entry[1].drawn_at):
                if not drawn.drawn_at or time.monotonic() >= self._rest_until:  # a first drawing never waits
                    self._draw(run, drawn)
            latest = max((drawn.looked for _, drawn in list(self._runs.values())), default=0.0)
            if self._process is not None and time.monotonic() - latest > IDLE:
                self._end_process()

    def _due(self) -> list[tuple[RunFolder, _Drawn]]:
        now, due = time.monotonic(), []
        for run, drawn in list(self._runs.values()):
            if now - drawn.looked > VIEW_SECONDS:
                continue
            version = _changed(run.checkpoint)
            if version == 0:
                drawn.note = "No checkpoint yet; the layers are drawn from the first one."
            elif version != drawn.version:
                due.append((run, drawn))
        return due

    def _draw(self, run: RunFolder, drawn: _Drawn) -> None:
        if self._failures >= _MAX_FAILURES:
            drawn.note = f"The drawing process ended {_MAX_FAILURES} times (memory?): start the page again."
            return
        drawn.busy, drawn.note, version = True, "", _changed(run.checkpoint)
        images = sorted((run.folder / "figures" / "watch").glob("?.png"))[:4]
        request = {"checkpoint": str(run.checkpoint), "images": [str(path) for path in images]}
        answer = self._ask(request)
        with self._lock:
            drawn.busy = False
            if self._closed or answer is None:
                return
            drawn.version, drawn.note = version, str(answer.get("note", ""))
            drawn.drawn_at = time.monotonic()
            self._rest_until = drawn.drawn_at + REST * answer["cpu_seconds"]
            if answer["parts"]:
                self._keep(drawn, answer)

    def _keep(self, drawn: _Drawn, answer: Mapping[str, Any]) -> None:
        drawn.number += 1
        parts = []
        for index, part in enumerate(answer["parts"]):
            name = f"{drawn.number}-{index}.png"
            drawn.pngs[name] = base64.b64decode(part.pop("png"))
            parts.append({**part, "png": name})
        drawn.frames.append({"number": drawn.number, "images": answer["images_seen"], "parts": parts})
        if len(drawn.frames) > HISTORY:
            # The first stays, and of the others every second: a long run keeps its whole story.
            gone = drawn.frames[1:-1:2]
            drawn.frames = [frame for frame in drawn.frames if frame not in gone]
            for frame in gone:
                for part in frame["parts"]:
                    drawn.pngs.pop(part["png"], None)

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        try:
            process = self._started()
            if process.stdin is None or process.stdout is None:
                return None
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
        except (OSError, ValueError):  # it ended
            self._failures += 1
            self._end_process()
            return None
        self._failures = 0
        return answer

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            quiet = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            package = str(Path(__file__).resolve().parents[2])
            paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "visionkit.watch.draw"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=os.environ | quiet | {"PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # Ctrl-C is for the server, which ends it
            )
        return self._process

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.close()


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
