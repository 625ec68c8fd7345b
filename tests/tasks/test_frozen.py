"""Frozen is frozen: parameters and running statistics after a fit, for every policy, on five families."""

from __future__ import annotations

from pathlib import Path

import pytest

FAMILIES = (
    "timm/resnet10t",
    "timm/efficientnet_lite0",
    "timm/convnext_atto",
    "timm/mobilenetv3_small_050",
    "torchvision/shufflenet_v2_x0_5",
)
SMALL = ("timm/test_efficientnet",)  # convolutions over channels and in depth, as mobilenetv3_small_050 has


def battery(
    zygote, folder: Path, processes: int, families: tuple[str, ...]
) -> list[dict[str, dict[str, object]]]:
    given = ("tests.tasks.frozen_battery:main", processes, str(folder), processes, families)
    if processes > 1:
        return zygote.ranks(*given, timeout=1800, torchrun=True)
    return [zygote.run(given[0], *given[2:], timeout=1800)]


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


def test_frozen_is_frozen_in_one_process(zygote, tmp_path: Path) -> None:
    check(battery(zygote, tmp_path, 1, FAMILIES[:1]), 1)


@pytest.mark.slow
def test_frozen_is_frozen_in_one_process_on_every_family(zygote, tmp_path: Path) -> None:
    check(battery(zygote, tmp_path, 1, FAMILIES), 5)


@pytest.mark.dist
@pytest.mark.slow
def test_frozen_is_frozen_in_two_processes_on_every_family(zygote, tmp_path: Path) -> None:
    check(battery(zygote, tmp_path, 2, FAMILIES), 5)


@pytest.mark.dist
def test_frozen_is_frozen_in_two_processes(zygote, tmp_path: Path) -> None:
    check(battery(zygote, tmp_path, 2, SMALL), 1)
