"""Checking a COCO file of the real one's size, beside what pycocotools does to read it unchecked."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pycocotools.coco import COCO

from tests.bench.row import Row, Sides, Size, pick, same
from tests.data.coco_faults import write_large
from visionkit.data.formats.coco.validate import scan_coco

GROWTH = """
import sys
sys.path.insert(0, {root!r})
{imports}
def held(what):  # not `ru_maxrss`: a process that was forked begins with its parent's
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what))
before = held("VmRSS")
{call}
print((held("VmHWM") - before) / 1024)
"""
OURS = ("from visionkit.data.formats.coco.validate import scan_coco", "scan_coco({!r}, masks=True)")
THEIRS = ("from pycocotools.coco import COCO", "COCO({!r})")


def growth(code: tuple[str, str], path: Path) -> float:
    """Megabytes that the call takes at most, in a process of its own."""
    root, (imports, call) = str(Path(__file__).resolve().parents[2]), code
    told = subprocess.run(
        [sys.executable, "-c", GROWTH.format(root=root, imports=imports, call=call.format(str(path)))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(told.stdout.split()[-1])


def build(size: Size) -> Sides:
    place = Path(tempfile.mkdtemp())
    path = place / "instances.json"
    write_large(path, pick(size, tiny=700, quick=20_000, full=860_000))

    def ours() -> int:
        scan = scan_coco(path, masks=True)
        assert not scan.errors
        return len(scan.records.ids)

    def theirs() -> int:
        with contextlib.redirect_stdout(io.StringIO()):
            return len(COCO(str(path)).anns)

    def facts() -> dict[str, float]:
        return {
            "megabytes of the file": round(path.stat().st_size / 1e6, 1),
            "megabytes taken, ours": round(growth(OURS, path), 1),
            "megabytes taken, peer": round(growth(THEIRS, path), 1),
        }

    return Sides(ours, theirs, same, close=lambda: shutil.rmtree(place, ignore_errors=True), facts=facts)


ROWS = (
    Row("check of a COCO file", "pycocotools reads it, unchecked", build, goal=3.0,
        limit="parsing the JSON", package="pycocotools", at_most=True, rounds=3),
)  # fmt: skip
