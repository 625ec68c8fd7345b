"""The bench itself: every row's two sides agree at a tiny size, and the runner times, prints and compares."""

from __future__ import annotations

import gc
import json

import pytest

from tests.bench import processor
from tests.bench import run as runner
from tests.bench.row import Row, Sides, same
from tests.bench.run import find_rows
from tests.bench.table import read_table, slower, write_table
from tests.bench.timing import time_pairs

CPU = [row for row in find_rows() if row.device == "cpu"]
GPU = [row for row in find_rows() if row.device == "gpu"]
# Each starts processes or a Trainer: checked once, by the first of its family.
SLOW = {
    "training step, whole run", "visionkit --help", "packed JPEG to uint8 batch, Pillow",
}  # fmt: skip
# Half a minute each, because no size makes the network of the row smaller.
LARGE = {
    "Faster R-CNN step, default policy, 320 px, batch 4", "G4 Faster R-CNN training",
    "from the command to the first step", "training while visionkit watch is looked at",
    "a detection run, 3 epochs of 68 photographs", "a validation of detections",
}  # fmt: skip


def checked(rows: list[Row]) -> pytest.MarkDecorator:
    """Return the mark that runs a test for each row; the large ones are slow."""
    marked = [pytest.param(row, id=row.name, marks=[pytest.mark.slow] * (row.name in LARGE)) for row in rows]
    return pytest.mark.parametrize("row", marked)


def test_rows_are_found_and_say_what_they_measure():
    assert len(CPU) >= 18
    assert len(GPU) >= 8
    assert {row.name for row in CPU + GPU} > LARGE
    for row in CPU + GPU:
        assert row.peer, row.name
        assert row.limit, row.name
        assert row.goal > 0, row.name


@checked([row for row in CPU if row.name not in SLOW])
def test_both_sides_agree(row):
    for name in row.needs:
        pytest.importorskip(name)
    sides = row.build("tiny")
    try:
        sides.equal(sides.ours(), sides.theirs())
    finally:
        sides.close()


@checked(GPU)
def test_rows_for_a_gpu_run_dry_on_a_cpu(row):
    sides = row.build("tiny")
    try:
        sides.equal(sides.ours(), sides.theirs())
    finally:
        sides.close()


@pytest.fixture
def small_heap():
    """The runner collects garbage before each timing, which takes a second after many tests."""
    gc.collect()
    gc.freeze()


def made(ours, theirs, **settings) -> Row:
    return Row("sum", "slow sum", lambda size: Sides(ours, theirs, same), goal=1.5, limit="none", **settings)


def test_the_runner_times_compares_and_refuses_what_differs(small_heap, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.setenv(name, "1")

    def slow() -> int:
        return sum(number for number in range(60_000))

    def fast() -> int:
        return 59_999 * 30_000

    monkeypatch.setattr(runner, "find_rows", lambda pattern: [made(fast, slow, package="torch")])
    monkeypatch.setattr(runner, "LEAST", {"full": 0.002})
    out = tmp_path / "speed.json"
    assert runner.main(["--out", str(out), "--against", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["row", "peer", "ratio", "spread", "goal", "limit", "verdict"]
    assert said[1].endswith("holds")
    row = json.loads(out.read_text())["rows"][0]
    assert row["ratio"] > 5
    assert row["peer"].startswith("slow sum 2.")
    assert row["spread"][0] <= row["ratio"] <= row["spread"][1]
    # The same row, now slow: it is short of its goal, and a regression from the table.
    monkeypatch.setattr(runner, "find_rows", lambda pattern: [made(slow, slow)])
    assert runner.main(["--against", str(out)]) == 1
    assert "regressed from" in capsys.readouterr().out
    # Sides that differ are not timed.
    monkeypatch.setattr(runner, "find_rows", lambda pattern: [made(lambda: 1, slow)])
    assert runner.main(["--against", str(out)]) == 1
    assert "failed: AssertionError" in capsys.readouterr().out
    assert runner.main(["--gpu"]) == 2


def test_each_kind_of_processor_has_rows_of_its_own(tmp_path):
    path = tmp_path / "speed.json"
    row = {"row": "sum", "ratio": 2.0}
    write_table(path, [row, {**row, "row": "product"}], {"kind": "AVX2", "cores": 2})
    write_table(path, [{**row, "ratio": 4.0}], {"kind": "AMX", "cores": 2})
    write_table(path, [{**row, "ratio": 3.0}], {"kind": "AVX2", "cores": 4})
    ratios = {
        kind: {name: one["ratio"] for name, one in read_table(path, kind).items()} for kind in ("AVX2", "AMX")
    }
    assert ratios == {"AVX2": {"sum": 3.0, "product": 2.0}, "AMX": {"sum": 4.0}}
    assert read_table(path, "AVX-512") == {}
    assert json.loads(path.read_text())["processors"]["AVX2"]["cores"] == 4


def test_a_processor_is_named_by_the_best_instruction_it_has(monkeypatch):
    monkeypatch.setattr(processor.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(processor.torch.cuda, "get_device_name", lambda: "a GPU")
    goals = {"avx2": 1.0, "avx512_bf16": 2.0, "amx_bf16": 4.0}
    for flags, name, goal in (
        ({"avx2"}, "AVX2", 1.0),
        ({"avx2", "avx512f"}, "AVX-512", 1.0),
        ({"avx2", "avx512f", "avx512_bf16"}, "AVX-512 with bf16", 2.0),
        ({"avx2", "avx512f", "avx512_bf16", "amx_bf16"}, "AMX", 4.0),
    ):
        monkeypatch.setattr(processor, "cpu_flags", lambda flags=flags: flags)
        assert (processor.processor_kind(), processor.goal_here(**goals)) == (name, goal)
        assert processor.processor_kind(gpu=True) == "a GPU"
    monkeypatch.setattr(processor, "cpu_flags", set)
    assert processor.goal_here(**goals) == 1.0
    rates = {"products, fp32": 50.0, "products, bf16": 100.0}
    rates |= {"convolutions, fp32": 40.0, "convolutions, bf16": 5.0}
    assert processor.bf16_gain(rates, "products") == 2.0
    assert processor.bf16_gain(rates, "convolutions") == 1.0, "float32 is chosen then"


def test_bf16_that_is_slower_than_float32_names_no_processor(monkeypatch):
    monkeypatch.setattr(
        processor, "_cpu_info", lambda key: "avx2 avx512f avx512_bf16" if key == "flags" else ""
    )
    for faster, name in ((True, "AVX-512 with bf16"), (False, "AVX-512")):
        monkeypatch.setattr(processor, "cpu_is_faster_in_bf16", lambda faster=faster: faster)
        assert processor.processor_kind() == name


def test_pairs_alternate_and_regressions_have_a_direction(small_heap):
    calls = []
    pairs = time_pairs(lambda: calls.append("o"), lambda: calls.append("t"), rounds=4, least=0.0)
    assert "".join(calls[2:]) == "toottoot"
    assert len(pairs.ratios(at_most=False)) == 4
    before = {"ratio": 1.5, "spread": [1.4, 1.6]}
    assert slower({"ratio": 1.3, "at_most": False}, before) == ""
    assert "regressed" in slower({"ratio": 1.2, "at_most": False}, before)
    assert "regressed" in slower({"ratio": 1.9, "at_most": True}, before)
    assert slower({"ratio": 1.2, "at_most": True}, before) == ""
    assert slower({"ratio": 1.2, "at_most": False, "size": "quick"}, before | {"size": "full"}) == ""
