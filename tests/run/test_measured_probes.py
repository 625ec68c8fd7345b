"""The committed table of probes: its schema, what advice cites of it, and the page that is made from it."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import fields
from pathlib import Path

import pytest

from visionkit.run.probing.measured import measured_sets, nearest_case
from visionkit.run.probing.result import ProbeCell, ProbeChoice, ProbeDifference, ProbeResult

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _maker():
    spec = importlib.util.spec_from_file_location("make_probes", DOCS / "make_probes.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def _names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


def test_the_table_holds_whole_results_of_similar_and_different_data() -> None:
    sets = measured_sets()
    assert {each["similarity"] for each in sets} == {"similar", "different"}
    cells = 0
    for each in sets:
        assert set(each) == {"name", "similarity", "errors_removed", "probe"}
        assert each["similarity"] == ("similar" if each["errors_removed"] > 1 / 3 else "different")
        probe = each["probe"]
        assert set(probe) == _names(ProbeResult) - _maker().LEFT_OUT
        assert len(probe["seeds"]) >= 3
        assert len(probe["fractions"]) >= 3
        for cell in probe["cells"]:
            assert set(cell) == _names(ProbeCell)
            score = cell["linear"]
            assert score["mean"] == pytest.approx(math.fsum(score["values"]) / len(probe["seeds"]), abs=1e-3)
            assert 0 < score["image_interval"][0] < score["image_interval"][1] < 1
        for row in probe["choices"]:
            assert set(row) == _names(ProbeChoice)
            assert len(row["levels"]) == len(probe["seeds"])
        for row in probe["differences"]:
            assert set(row) == _names(ProbeDifference)
            assert row["low"] <= row["mean"] <= row["high"]
        # 2 networks x 6 levels x the fractions, and the pixels
        assert len(probe["cells"]) == 13 * len(probe["fractions"])
        cells += len(probe["cells"])
    assert cells == 3 * 39


def test_advice_cites_the_nearest_case() -> None:
    known = {each["name"]: each for each in measured_sets()}
    for name, each in known.items():
        counts = {c["images"] / each["probe"]["classes"] for c in each["probe"]["cells"]}
        for count in counts:
            case = nearest_case(count * 1.01, each["similarity"], each["errors_removed"])
            assert (case.name, case.images_per_class) == (name, pytest.approx(count))
            assert case.gap[1] <= case.gap[0] <= case.gap[2]
            assert case.gap[0] == pytest.approx(case.chosen - case.pooled, abs=1e-3)
            for part in (name, case.backbone, f"{case.pooled:.3f}", "against pooled"):
                assert part in str(case)
    assert nearest_case(1e9, "similar").images_per_class == max(
        c["images"] / each["probe"]["classes"]
        for each in known.values()
        if each["similarity"] == "similar"
        for c in each["probe"]["cells"]
    )


def test_the_page_shows_the_table() -> None:
    maker, page = _maker(), (DOCS / "explanation/from-which-level.md").read_text(encoding="utf-8")
    sets = list(measured_sets())
    assert f"{maker.BEGIN}\n{maker.table(sets)}\n{maker.END}" in page
    assert maker.FIGURE.is_file()
    rows = maker.table(sets).splitlines()
    assert len(rows) == 2 + sum(2 * len(each["probe"]["fractions"]) for each in sets)
    assert len({row.count("|") for row in rows}) == 1


def test_the_table_is_what_the_command_collects(tmp_path, monkeypatch) -> None:
    maker, (one, other, *_) = _maker(), measured_sets()
    (tmp_path / "probe.json").write_text(json.dumps(one["probe"] | dict.fromkeys(maker.LEFT_OUT, "x")))
    advice = {"similarity": one["similarity"], "errors_removed": one["errors_removed"]}
    (tmp_path / "advise.json").write_text(json.dumps({"measured": advice}))
    monkeypatch.setattr(maker, "TABLE", tmp_path / "measured.json")
    outdated = one | {"errors_removed": 0.5}
    maker.TABLE.write_text(json.dumps({"sets": [other, outdated]}))
    maker.collect({one["name"]: tmp_path, "again": tmp_path})
    made = json.loads(maker.TABLE.read_text())["sets"]
    assert made == [other, one, one | {"name": "again"}]
