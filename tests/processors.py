"""Run the default suite as other processors would: with fewer instructions, one thread or two, beside work.

python -m tests.processors                             # every setting: hours
python -m tests.processors --list
python -m tests.processors onednn-avx2-1 aten-avx2-2 -- tests/nn    # chosen ones, with words for pytest

A limit takes instructions away from this processor and adds none. So the table is headed by the processor
that it was made on; to see an AMD or an Arm machine, run it there. Nothing in the library asks for flags.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from tests.bench.processor import cpu_flags, cpu_name

__all__ = ["SETTINGS", "main"]

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "bf16", "sve")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "VISIONKIT_TEST_THREADS")
LIMITS = {
    "default": {},
    "onednn-avx512-bf16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
    "onednn-avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "aten-avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "all-avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}
SETTINGS = {
    f"{name}-{threads}": {**limit, **dict.fromkeys(THREADS, str(threads))}
    for threads in (1, 2)
    for name, limit in LIMITS.items()
}
"""The environment of each setting; the last number of its name is how many threads torch has."""

OWN = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", *THREADS)


@contextlib.contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """Keep one core busy meanwhile."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as work:
        try:
            yield
        finally:
            work.kill()


def run(setting: str, words: Sequence[str], folder: Path) -> dict[str, object]:
    """Run pytest under one setting, and return its row: counts, seconds, and the names of what failed."""
    environment = {name: value for name, value in os.environ.items() if name not in OWN}
    environment |= {"PYTHONHASHSEED": "0", **SETTINGS[setting]}
    said = folder / f"{setting}.xml"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--junit-xml={said}", *words],
        cwd=ROOT,
        env=environment,
        check=False,
    )
    row: dict[str, object] = {"setting": setting, "status": done.returncode}
    row["wall"] = time.monotonic() - began
    return row | (count(said) if said.is_file() else {"passed": 0, "failed": 0, "skipped": 0, "names": []})


def count(report: Path) -> dict[str, object]:
    """Return how many tests of a JUnit report passed, failed and were skipped, and the names that failed."""
    passed, failed, skipped = 0, [], 0
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {part.tag for part in case}
        if kinds & {"failure", "error"}:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif "skipped" in kinds:
            skipped += 1
        else:
            passed += 1
    return {"passed": passed, "failed": len(failed), "skipped": skipped, "names": failed}


def table(rows: Sequence[dict[str, object]]) -> str:
    """Return the rows as Markdown, under the name of the processor."""
    flags = " ".join(flag for flag in SHOWN if flag in cpu_flags()) or "none of those known"
    lines = [f"{cpu_name()}, {os.cpu_count()} cores; instructions: {flags}", ""]
    lines += ["| setting | passed | failed | skipped | wall |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        cells = [str(row[name]) for name in ("setting", "passed", "failed", "skipped")]
        lines.append("| " + " | ".join([*cells, f"{row['wall']:.0f} s"]) + " |")
    return "\n".join([*lines, "", *(f"{row['setting']}: {name}" for row in rows for name in row["names"])])


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was chosen, print the table after each row; status 1 where a row is not green."""
    given = list(sys.argv[1:] if argv is None else argv)
    cut = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser("processors", description=__doc__.partition("\n")[0])
    parser.add_argument("settings", nargs="*", metavar="SETTING", help="every one if not given")
    parser.add_argument("--list", action="store_true", help="print the settings and end")
    parser.add_argument("--quiet", action="store_true", help="without the busy process beside it")
    parser.add_argument("--out", type=Path, help="write the table to this file too")
    args = parser.parse_args(given[:cut])
    if unknown := [name for name in args.settings if name not in SETTINGS]:
        parser.error(f"unknown settings {', '.join(unknown)}; they are {', '.join(SETTINGS)}")
    if args.list:
        print(
            "\n".join(
                f"{name:22} {' '.join(f'{k}={v}' for k, v in SETTINGS[name].items())}" for name in SETTINGS
            )
        )
        return 0
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder, busy(not args.quiet):
        for setting in args.settings or SETTINGS:
            print(f"== {setting}", flush=True)
            rows.append(run(setting, given[cut + 1 :], Path(folder)))
            print(table(rows), flush=True)
            if args.out:
                args.out.write_text(table(rows) + "\n", encoding="utf-8")
    return int(any(row["status"] != 0 for row in rows))


if __name__ == "__main__":
    sys.exit(main())
