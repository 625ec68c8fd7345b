"""What commands cost over many files and many runs: CPU seconds of the process, and its largest memory.

python -m tests.bench.growth_survey        # 200,000 files, 1,000 runs, a report over 200, 10,000 predictions
python -m tests.bench.growth_survey --files 2000 --runs 20 --photos 200
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bench.images import write_folder
from tests.run.make_runs import make_comparison

ROOT = Path(__file__).resolve().parents[2]
REPORT = """
import sys
from visionkit.compare import compare, write_report
write_report(compare([sys.argv[1]]), sys.argv[2])
"""


def make_files(folder: Path, count: int) -> None:
    """Write JPEG files of 32 x 32 random pixels into ten classes; no two are alike."""
    draw = np.random.default_rng(0)
    for number in range(count):
        file = folder / "train" / f"class{number % 10}" / f"{number:06}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(content, "JPEG")
        file.write_bytes(content.getvalue())


def cost(*words: str | Path) -> str:
    """Run Python in a process of its own, and say what it took."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    child = subprocess.Popen([sys.executable, *map(str, words)], env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{words[1:]} ended with {child.returncode}")
    return f"{used.ru_utime + used.ru_stime:.1f} s of CPU, {used.ru_maxrss / 1024:.0f} MB"


def predictions(folder: Path, count: int) -> None:
    """Print what predictions of photographs in every format cost, over a tenth of them and over all."""
    words = "--init scratch --seeds 0 --images 16 --scenes.train_size 16 --scenes.val_size 8 --jobs 1"
    cost("-m", "visionkit", "run", "classify", *words.split(), "--out", folder / "run")
    write_folder(folder / "few", count // 10, height=480, width=640)
    files = sorted((folder / "few" / "train").rglob("*.jpg"))
    for number in range(count):  # the same photographs again: each is read and decoded all the same
        link = folder / "many" / f"{number:06}.jpg"
        link.parent.mkdir(exist_ok=True)
        link.hardlink_to(files[number % len(files)])
    for photos in (folder / "few" / "train", folder / "many"):
        written = cost(
            *("-m", "visionkit", "predict", folder / "run", photos, "--formats", "all"),
            *("--out", folder / f"predictions-{photos.name}"),
        )
        print(f"predict on {len(list(photos.rglob('*.jpg'))):,} photographs: {written}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser("growth_survey", description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--photos", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_files(folder / "photos", args.files)
        verb = ("-m", "visionkit")
        print(f"check of {args.files:,} files: {cost(*verb, 'check', folder / 'photos')}", flush=True)
        packed = cost(*verb, "pack", folder / "photos", "--out", folder / "pack")
        print(f"pack of {args.files:,} files: {packed}", flush=True)
        make_comparison(folder / "all", seeds=tuple(range(args.runs // 2)))
        print(f"compare of {args.runs:,} runs: {cost(*verb, 'compare', folder / 'all')}", flush=True)
        make_comparison(folder / "some", seeds=tuple(range(args.runs // 10)), predictions=40)
        written = cost("-c", REPORT, folder / "some", folder / "report")
        print(f"compare and report of {args.runs // 10 * 2:,} runs: {written}", flush=True)
        predictions(folder, args.photos)


if __name__ == "__main__":
    main()
