"""A run continued with another setting is refused, reported or neither, as the role of the setting says."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from pathlib import Path

import pytest

from tests.run.make_runs import make_run
from visionkit.compare.comparison import compare
from visionkit.config import flatten, roles
from visionkit.run.config import to_dict
from visionkit.run.sweep import announce as announcing
from visionkit.run.sweep.arms import run_recipe
from visionkit.run.sweep.launch import launch

RECIPES = (
    "caption",
    "classify",
    "detect",
    "embed",
    "keypoints",
    "segment",
)  # compare.py has the settings of classify.py
COMMAND = ["--seeds", "0", "--init", "scratch", "--jobs", "1", "--accelerator", "cpu", "--devices", "1"]
# Values that no rule makes up: paths that exist, and words that the recipe checks by itself.
GIVEN = {
    "data": "{tmp}", "init": "pretrained", "image_folder": "{tmp}", "classes": "{tmp}", "devices": "auto",
    "accelerator": "auto", "strategy": "ddp", "precision": "32-true", "num_nodes": "1", "resume": "require",
    "logger": "tensorboard", "mix": "mixup", "transfer.norm": "group", "transfer.freeze_through": "4",
    "transfer.unfreeze_at": "[[100,4]]", "transfer.backbone_lr_scale": "0.5", "transfer.probe_level": "8",
    "self_critical.start_images": "7", "jobs": "2", "class_weights": "balanced",
    "select_by": "map_at_r", "head.margin": "0.3", "retrieval.shots": "2",
    "detector": "fcos", "head": "heatmap",
}  # fmt: skip


def another(name: str, hint: object, value: object) -> str:
    """A valid value of a flag that is not the one it has."""
    if name in GIVEN:
        return GIVEN[name]
    words = [word for word in typing.get_args(hint) if isinstance(word, str)]
    if isinstance(value, bool):
        return str(not value).lower()
    if isinstance(value, str):
        return next((word for word in words if word != value), "other")
    if isinstance(value, list | tuple):
        numbers = " ".join(str(part / 2) for part in value) or "64"
        return "other" if str in typing.get_args(hint) else numbers
    if isinstance(value, float):
        return str(value / 2 or 0.5)
    return str(value * 2 or 1)


def settings(config: object, prefix: str = "") -> dict[str, str]:
    """Every flag of a config, with another value."""
    hints, made = typing.get_type_hints(type(config)), {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            made |= settings(value, f"{prefix}{item.name}.")
        else:
            made[f"{prefix}{item.name}"] = another(f"{prefix}{item.name}", hints[item.name], value)
    return made


def batches(table: dict[str, str], values: dict[str, str]) -> list[list[str]]:
    """The names in few commands: a refusal names up to four settings, one line the machine's."""
    fixed = [name for name in values if table[name] in ("identity", "arm")]
    order = {name: number for number, name in enumerate(table)}
    fixed.sort(key=order.__getitem__)
    groups = [fixed[start : start + 4] for start in range(0, len(fixed), 4)]
    groups += [[name for name in values if table[name] == role] for role in ("machine", "free")]
    return [names for names in groups if names]


@pytest.fixture
def command(root, capsys, monkeypatch):
    """Start a recipe's command line with a training that only notes its settings."""
    monkeypatch.syspath_prepend(root / "recipes")
    monkeypatch.setattr("visionkit.run.training.device_policy._check_compiler", lambda _: None)

    def start(recipe: str, *flags: str, out: Path) -> tuple[int, str, list[dict]]:
        seen = []

        def train(one, folder: Path) -> dict:
            seen.append(flatten(to_dict(one)))
            folder.mkdir(exist_ok=True)
            (folder / "config.yaml").write_text(json.dumps(to_dict(one)))
            raise KeyboardInterrupt  # begun, not finished

        announcing._SEEN.clear()
        with pytest.raises(SystemExit) as end:
            launch(
                lambda config: run_recipe(config, train),
                __import__(recipe).Config,
                argv=[*COMMAND, "--out", str(out), *flags],
                prog=recipe,
            )
        captured = capsys.readouterr()
        return end.value.code, " ".join((captured.out + captured.err).split()), seen

    return start


@pytest.mark.parametrize(
    ("recipe", "count"),
    [("caption", 30), ("classify", 65), ("detect", 42), ("embed", 12), ("keypoints", 41), ("segment", 15)],
)
def test_every_setting_of_a_recipe_continues_a_run_as_its_role_says(recipe, count, command, tmp_path):
    config = __import__(recipe).Config
    table, out = roles(config), tmp_path / "runs"
    # What all recipes share is walked with classify.py; another init, seed or fraction is another folder.
    left_out = set() if recipe == "classify" else set(roles(__import__("classify").Config))
    left_out |= {"out", "init", "seeds", "fractions", "folds", "schedules", "lrs", "budget"}
    values = {
        name: text.format(tmp=tmp_path) for name, text in settings(config()).items() if name not in left_out
    }
    assert len(values) == count
    assert command(recipe, out=out)[0] == 130
    saved = out / "scratch-f1-s0" / "config.yaml"
    begun = saved.read_text()
    before = flatten(json.loads(begun))
    for names in batches(table, values):
        flags = [word for name in names for word in (f"--{name}", *values[name].split(" "))]
        code, output, seen = command(recipe, *flags, out=out)
        changes = [f"--{name} was {before[name]}, is " for name in names]
        if table[names[0]] in ("identity", "arm"):
            assert (code, seen) == (2, []), (names, output)
            assert f"holds a run with other settings: {changes[0]}" in output
            assert "give the settings it was started with, or another --out" in output
            assert saved.read_text() == begun
        else:
            assert (code, len(seen)) == (130, 1), (names, output)
            assert all(seen[0][name] != before[name] for name in names)
            changed = table[names[0]] == "machine"
            assert ("scratch-f1-s0 goes on with other machine settings: --" in output) == changed, output
            changes = [f"{text}{seen[0][name]}" for text, name in zip(changes, names, strict=True)]
            changes = changes if changed else []
            saved.write_text(begun)
        assert all(text in output for text in changes), (names, output)
        assert len(re.findall(r"--[\w.]+ was ", output)) == len(changes), (names, output)


def test_another_init_seed_fraction_fold_or_schedule_is_another_run_of_the_same_folder(command, tmp_path):
    folders = set()
    for flag, value in (
        ("--init", "pretrained"),
        ("--seeds", "7"),
        ("--fractions", "0.5"),
        ("--folds", "5 3"),
        ("--schedules", "4"),
    ):
        assert command("classify", flag, *value.split(), out=tmp_path)[0] == 130
        folders |= {path.name for path in tmp_path.iterdir()}
    assert folders == {
        "pretrained-f1-s0",
        "scratch-f1-s7",
        "scratch-f0.5-s0",
        "scratch-f1-s0-k3",
        "scratch-f1-x4-s0",
    }


def test_a_comparison_reports_machine_settings_and_ignores_free_ones(tmp_path):
    make_run(tmp_path, "pretrained", config={"precision": "32-true", "logger": ["wandb"]})
    make_run(tmp_path, "scratch", config={"precision": "auto", "logger": []})
    found = compare([tmp_path])
    assert found.allowed == ('precision: "32-true" in pretrained-f1-s0, "auto" in scratch-f1-s0',)
