"""One dataclass is the call, the flags, the file and the help; a mistake gets the nearest valid name."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest
import yaml

from visionkit.config import OptimConfig, TransferConfig, check_limits
from visionkit.errors import InputError
from visionkit.run.config import RunConfig, flag_names, parse, read_config, setting, to_dict
from visionkit.run.sweep.arms import each_run
from visionkit.run.sweep.launch import launch

RECIPES = ("classify", "compare")
ALL_RECIPES = ("caption", "classify", "compare", "detect", "segment")


@dataclass
class Config(RunConfig):
    label_smoothing: float = setting(0.1, "mass moved")


def quick(config: Config) -> Config:
    """Variant: short."""
    config.epochs, config.transfer = 1, TransferConfig(freeze_through="all")
    return config


def test_flags_lists_and_nested_settings():
    made = parse(
        Config,
        [
            "--seeds",
            "0",
            "1",
            "2",
            "--fractions=0.1,1",
            "--lr",
            "3e-4",
            "--transfer.freeze_through",
            "all",
            "--transfer.unfreeze_at",
            "[[100,4]]",
            "--label_smoothing=0",
            "--logger",
            "tensorboard",
            "--compile",
            "true",
        ],
    )
    assert made.seeds == [0, 1, 2]
    assert made.fractions == [0.1, 1.0]
    assert made.transfer.freeze_through == "all"
    assert [list(pair) for pair in made.transfer.unfreeze_at] == [[100, 4]]
    assert (made.lr, made.label_smoothing, made.logger, made.compile) == (3e-4, 0.0, ["tensorboard"], True)


def test_variant_then_file_then_flags(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("lr: 0.5\nseeds: [3]\noptim: {momentum: 0.5}\n")
    made = parse(Config, ["--variant", "quick", "--config", str(file), "--seeds", "4"], variants=[quick])
    assert (made.epochs, made.transfer.freeze_through) == (1, "all")
    assert (made.lr, made.seeds, made.optim.momentum, made.optim.optimizer) == (0.5, [4], 0.5, "adamw")


def test_what_is_saved_reads_back(tmp_path):
    made = parse(Config, ["--lr", "0.25", "--optim.tails", "[100,10]", "--transfer.freeze_through", "4"])
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(to_dict(made)))
    assert to_dict(read_config(Config, file)) == to_dict(made)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--sedes", "0"], "'--seeds'"),
        (["--transfer.nrom", "group"], "'--transfer.norm'"),
        (["--lr", "abc"], "lr"),
        (["--transfer.norm", "grup"], "group"),
        (["--variant", "quik"], "'quick'"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--resume", "perhaps"], "resume"),
    ],
)
def test_mistakes_name_the_fix(argv, text):
    with pytest.raises(InputError, match=text):
        parse(Config, argv, variants=[quick])


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--lr", "-1"], "Expected --lr to be above 0, but got -1.0. The default is 0.001."),
        (["--lr", ".inf"], "Expected --lr to be above 0, but got inf"),
        (["--epochs", "0"], "--epochs to be at least 1, but got 0. The nearest valid value is 1."),
        (
            ["--optim.warmup", "7"],
            "optim.warmup to be at least 0 and below 1, but got 7.0. The default is 0.05.",
        ),
        (["--transfer.layer_decay", "2"], "transfer.layer_decay to be above 0 and at most 1"),
        (["--fractions", "0.5", "2"], "--fractions to be above 0 and at most 1, but got 2.0"),
        (["--seeds", "1", "1"], "each value of --seeds once, but 1 comes twice"),
        (["--logger", "tensorbord"], "Unknown logger 'tensorbord'. Did you mean 'tensorboard'"),
        (["--optim.optimizer", "adam"], "to be 'adamw' or 'sgd', but got 'adam'. Did you mean 'adamw'"),
        (["--transfer.norm", "grup"], "'sync' or 'group' or null, but got 'grup'. Did you mean 'group'"),
        (["--epochs", "1.5"], "Expected --epochs to be a whole number, but got '1.5'"),
        (["--optim", "3"], "part by part: --optim.optimizer, --optim.weight_decay"),
    ],
)
def test_a_value_out_of_its_limits_gets_the_nearest_valid_one(argv, text):
    with pytest.raises(InputError) as caught:
        parse(Config, argv)
    assert text in str(caught.value)
    assert not any(word in str(caught.value) for word in ("typing", "<class", "Parser key", "Subtypes"))


def test_limits_hold_in_files_and_in_python_too(tmp_path):
    file = tmp_path / "c.yaml"
    for content in ("lr: -1", "optim: {warmup: 7}", "epochs: 0", "seeds: [0, 0]"):
        file.write_text(content)
        with pytest.raises(InputError, match="Expected"):
            parse(Config, ["--config", str(file)])
    with pytest.raises(InputError, match=r"optim.ema to be at least 0 and below 1, but got 1.5"):
        OptimConfig(ema=1.5)
    with pytest.raises(InputError, match="epochs to be at least 1"):
        next(each_run(RunConfig(out=str(tmp_path), epochs=0)))
    with pytest.raises(InputError, match="would share the folder"):
        list(each_run(RunConfig(out=str(tmp_path), fractions=[0.1, 0.1000000001])))


def test_every_number_that_a_recipe_takes_has_limits(root):
    sys.path.insert(0, str(root / "recipes"))
    walked, bare = 0, []
    for config in (OptimConfig, TransferConfig, *(__import__(name).Config for name in ALL_RECIPES)):
        for item in dataclasses.fields(config):
            if re.search(r"\b(int|float)\b", str(item.type)) and item.name != "unfreeze_at":
                walked += 1
                bare += [] if {"min", "above"} & set(item.metadata) else [f"{config}: {item.name}"]
        check_limits(config())
    assert bare == []
    assert walked > 100


def test_yaml_mistakes_name_file_and_nearest(tmp_path):
    file = tmp_path / "c.yaml"
    for content, text in (
        ("lrr: 1", "'lr'"),
        ("optim: {warmpu: 1}", "'optim.warmup'"),
        ("- 1", "mapping"),
        ("a: [", "not a YAML"),
        ("!!python/object/apply:os.system [ls]", "not a YAML"),
    ):
        file.write_text(content)
        with pytest.raises(InputError, match=text) as caught:
            parse(Config, ["--config", str(file)])
        assert str(file) in str(caught.value)


def test_every_flag_passes_torchrun(root):
    from torch.distributed.run import get_args_parser

    sys.path.insert(0, str(root / "recipes"))
    walked = 0
    for recipe in RECIPES:
        module = __import__(recipe)
        for flag in flag_names(module.Config):
            args = get_args_parser().parse_args([f"recipes/{recipe}.py", flag, "1"])
            assert args.training_script_args == [flag, "1"]
            # Before the script's name too: nothing of ours may abbreviate an option of torchrun's.
            walked += 1
    assert walked > 2 * 40


HELPS = """
import contextlib, io, json, runpy, sys
told = {}
for recipe in sys.argv[1:]:
    sys.argv, said = ["x", "--help"], io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        runpy.run_path(f"recipes/{recipe}.py", run_name="__main__")
    packages = sorted({name.partition(".")[0] for name in sys.modules})
    told[recipe] = [said.getvalue(), packages, len(sys.modules)]
for recipe in told:
    sys.argv, said = ["x", "--lr", "-1"], io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        runpy.run_path(f"recipes/{recipe}.py", run_name="__main__")
    told[recipe] += [said.getvalue(), "torch" in sys.modules]
json.dump(told, sys.stdout)
"""


def test_help_is_short_and_imports_little(root):
    command = [sys.executable, "-c", HELPS, *RECIPES]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert sorted(told) == sorted(RECIPES)
    for recipe, (said, packages, modules, refusal, torch) in told.items():
        assert "lr" in refusal, recipe
        assert not torch, f"{recipe}: a value outside its limits is told before the long imports"
        lines = said.splitlines()
        assert 10 < len(lines) <= 60, recipe
        assert max(map(len, lines)) <= 120
        assert not {"torch", "torchvision", "lightning", "timm", "matplotlib"} & set(packages), recipe
        assert modules < 400, recipe


def test_help_goes_by_the_file_that_runs_and_its_reader_may_leave(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/somewhere/mine.py", "--help"])
    with pytest.raises(SystemExit):
        launch(print, Config, prog="classify.py")
    said = capsys.readouterr().out
    assert "usage: mine.py " in said
    assert "classify.py" not in said
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as end:
            launch(print, Config)
        assert end.value.code == 0
