"""Frozen is frozen: parameters and running statistics after a fit, for every policy, on five families."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FAMILIES = (
    "timm/resnet10t",
    "timm/efficientnet_lite0",
    "timm/convnext_atto",
    "timm/mobilenetv3_small_050",
    "torchvision/shufflenet_v2_x0_5",
)


def battery(folder: Path, processes: int, families: tuple[str, ...]) -> list[dict[str, dict[str, object]]]:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launch if processes > 1 else []), str(HERE / "frozen_battery.py")]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(folder), str(processes), *families],
        env=env, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"report-{processes}-{rank}.json").read_text()) for rank in range(processes)]


def check(reports: list[dict[str, dict[str, object]]], families: int) -> None:
    for report in reports:
        assert len(report) == 6 * families
        for case, found in report.items():
            assert found["unchanged"], f"{case}: something frozen moved"
            assert found["stuck"] == [], f"{case}: {found['stuck']} should train"
            assert found["statistics moved"] == found["statistics that should"], case
            assert bool(found["frozen"]) == (": full" not in case), case
    for case, found in reports[0].items():
        assert all(found["weights"] == other[case]["weights"] for other in reports), (
            f"{case}: processes differ"
        )


def test_frozen_is_frozen_in_one_process(tmp_path: Path) -> None:
    check(battery(tmp_path, 1, FAMILIES[:1]), 1)


@pytest.mark.slow
def test_frozen_is_frozen_in_one_process_on_every_family(tmp_path: Path) -> None:
    check(battery(tmp_path, 1, FAMILIES), 5)


@pytest.mark.dist
@pytest.mark.slow
def test_frozen_is_frozen_in_two_processes_on_every_family(tmp_path: Path) -> None:
    check(battery(tmp_path, 2, FAMILIES), 5)


@pytest.mark.dist
def test_frozen_is_frozen_in_two_processes(tmp_path: Path) -> None:
    check(battery(tmp_path, 2, FAMILIES[3:4]), 1)
