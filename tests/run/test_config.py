"""One dataclass is the call, the flags, the file and the help; a mistake gets the nearest valid name."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import typing
from dataclasses import dataclass

import pytest
import yaml

from visionkit.config import OptimConfig, TransferConfig, check_limits, roles
from visionkit.errors import InputError
from visionkit.run.command_line import flag_names, parse, read_config
from visionkit.run.config import RunConfig, setting, to_dict
from visionkit.run.sweep.launch import launch
from visionkit.run.sweep.runs import each_run
from visionkit.task_config import KeypointAugment, SceneConfig, SelfCritical

RECIPES = ("caption", "classify", "compare", "detect", "embed", "keypoints", "segment")


@pytest.fixture(scope="module")
def configs(root):
    """The config of every recipe, by its name."""
    sys.path.insert(0, str(root / "recipes"))
    return {name: __import__(name).Config for name in RECIPES}


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


def test_nested_groups_of_a_recipe_come_from_flags_and_files(configs, tmp_path):
    file = tmp_path / "detect.yaml"
    file.write_text("rcnn: {masks: true, proposals_train: 7, anchor_scales: [2.0]}\nscenes: {val_size: 3}\n")
    flags = ["--rcnn.anchor_scales", "8", "16", "--scenes.train_size=5"]
    made = parse(configs["detect"], ["--config", str(file), *flags])
    assert (made.rcnn.masks, made.rcnn.proposals_train, made.rcnn.proposals_eval) == (True, 7, 300)
    assert made.rcnn.anchor_scales == (8.0, 16.0)
    assert made.scenes == SceneConfig(5, 3)
    with pytest.raises(InputError, match=r"'--rcnn\.score_threshold'"):
        parse(configs["detect"], ["--score_threshold", "0.1"])
    made = parse(configs["caption"], ["--self_critical.start_images", "7", "--self_critical.samples", "3"])
    assert made.self_critical == SelfCritical(7, samples=3)


def test_variant_then_file_then_flags(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("lr: 0.5\nseeds: [3]\noptim: {momentum: 0.5}\n")
    made = parse(Config, ["--variant", "quick", "--config", str(file), "--seeds", "4"], variants=[quick])
    assert (made.epochs, made.transfer.freeze_through) == (1, "all")
    assert (made.lr, made.seeds, made.optim.momentum, made.optim.optimizer) == (0.5, [4], 0.5, "adamw")


def test_what_is_saved_reads_back(tmp_path):
    made = parse(
        Config,
        ["--lr", "0.25", "--optim.milestones_before_end", "[100,10]", "--transfer.freeze_through", "4"],
    )
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
        (["--lrs", "--seeds", "1"], "one or more values after --lrs, but got none"),
        (["--logger", "tensorbord"], "Unknown logger 'tensorbord'. Did you mean 'tensorboard'"),
        (["--optim.optimizer", "adamww"], "'radam' or 'rmsprop', but got 'adamww'. Did you mean 'adamw'"),
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


def parts(config):
    """A config and the dataclasses nested in it."""
    values = [getattr(config(), item.name) for item in dataclasses.fields(config)]
    return [config, *(type(value) for value in values if dataclasses.is_dataclass(value))]


def test_every_number_that_a_recipe_takes_has_limits(configs):
    walked, bare = 0, []
    for config in configs.values():
        for item in (item for part in parts(config) for item in dataclasses.fields(part)):
            if re.search(r"\b(int|float)\b", str(item.type)) and item.name != "unfreeze_at":
                walked += 1
                bare += [] if {"min", "above"} & set(item.metadata) else [f"{config}: {item.name}"]
        check_limits(config())
    assert bare == []
    assert walked > 150
    with pytest.raises(InputError, match="photometric to be at least 0 and at most 1, but got 2"):
        check_limits(configs["keypoints"](augment=KeypointAugment(photometric=2.0)))


FREE = {
    "data", "group_by", "backbone", "init", "out", "budget", "image_folder", "classes", "loss",
    "backbones", "select_by", "table.image", "table.target", "table.separator", "table.root", "vectors.file",
    "stream.cache",
}  # fmt: skip
"""Settings of free text: paths, names and patterns, which are looked up."""


def leaves(config, prefix=""):
    """Every setting of a config that is no group: its flag, its field, its type and its default."""
    hints = typing.get_type_hints(type(config))
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", item, hints[item.name], value


def wrong_values(item, hint, value):
    """Values that a setting must refuse: words, and numbers beyond each of its limits."""
    limit, listed = item.metadata, isinstance(value, list | tuple)
    made = ["wrongg"]
    if item.name == "unfreeze_at":
        return ["wrongg", "[[-1,4]]"]
    if isinstance(value, bool):
        return ["perhaps", "3"]
    for name, step in (("min", -1), ("max", 1), ("above", 0), ("below", 0)):
        if name in limit:
            made.append(f"{limit[name] + step:g}")
    if listed and limit.get("unique") and limit.get("choices"):
        made.append(f"{limit['choices'][0]} {limit['choices'][0]}")
    if re.search(r"\bint\b", str(item.type)) and "float" not in str(item.type) and not isinstance(value, str):
        made.append("1.5")
    return made


def test_every_setting_of_every_recipe_refuses_what_it_is_not_in_our_words(configs):
    walked, refused, free, tried = 0, 0, set(), set()
    for recipe, config in configs.items():
        if recipe == "compare":  # has the settings of classify.py
            continue
        for name, item, hint, value in leaves(config()):
            walked += 1
            if name in FREE:
                free.add(name)
                continue
            same = (name, str(hint), repr(value), repr(dict(item.metadata)))
            if same in tried:  # a setting that an earlier recipe has too
                continue
            tried.add(same)
            for wrong in wrong_values(item, hint, value):
                with pytest.raises(InputError) as caught:
                    parse(config, [f"--{name}", *wrong.split()])
                text = str(caught.value)
                assert name in text, (recipe, name, wrong, text)
                leaks = ("typing", "<class", "Parser key", "Subtypes", "Literal[", "Traceback")
                assert not any(word in text for word in leaks), text
                refused += 1
    assert free == FREE
    assert (walked, refused) == (533, 433)


def test_every_setting_has_a_role_and_the_shared_ones_have_these(configs):
    known = {"identity", "machine", "free", "arm"}
    tables = {name: roles(config) for name, config in configs.items()}
    assert all(set(table.values()) <= known for table in tables.values())
    assert {name: len(table) for name, table in tables.items()} == {
        "caption": 93, "classify": 73, "compare": 73, "detect": 105, "embed": 81, "keypoints": 103,
        "segment": 78,
    }  # fmt: skip
    shared = roles(RunConfig)
    assert {name: role for name, role in shared.items() if role != "identity"} == {
        **dict.fromkeys(("init", "seeds", "fractions", "folds", "schedules"), "arm"),
        **dict.fromkeys(
            ("transfer.freeze_through", "transfer.backbone_lr_scale", "transfer.layer_decay"), "arm"
        ),
        **dict.fromkeys(("transfer.unfreeze_at", "transfer.probe_level"), "arm"),
        **dict.fromkeys(("devices", "num_nodes", "accelerator", "strategy", "precision"), "machine"),
        **dict.fromkeys(("compile", "recompute", "workers", "validate_every"), "machine"),
        **dict.fromkeys(("out", "resume", "logger", "progress", "checkpoint_every"), "free"),
        **dict.fromkeys(
            ("jobs", "timeout", "margin", "lrs", "budget", "stream.cache", "stream.max_gb"), "free"
        ),
    }


def test_a_recipe_lists_at_most_50_flags_at_the_top_level(configs, capsys):
    for name, config in configs.items():
        with pytest.raises(SystemExit):
            parse(config, ["--help=all"])
        lines = capsys.readouterr().out.splitlines()
        top = [line for line in lines if re.match(r"  --[a-z_]+( |\.NAME)", line)]
        nested = [line for line in lines if re.match(r"    --\w+\.\w+ ", line)]
        assert 30 < len(top) <= 50, name
        assert len(top) + len(nested) == len(set(flag_names(config)) - {"--config", "--variant"}), name


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


def test_every_flag_passes_torchrun(configs):
    from torch.distributed.run import get_args_parser

    walked = 0
    for recipe, config in configs.items():
        for flag in flag_names(config):
            args = get_args_parser().parse_args([f"recipes/{recipe}.py", flag, "1"])
            assert args.training_script_args == [flag, "1"]
            # Before the script's name too: nothing of ours may abbreviate an option of torchrun's.
            walked += 1
    assert walked > 5 * 60


def test_types_that_cannot_be_found_are_refused(monkeypatch):
    """Else the parser takes anything for those settings, and leaves nested ones as they came."""
    import types

    code = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from visionkit.run import RunConfig, setting\n"
        "from visionkit.task_config import SceneConfig\n"
        "@dataclass\n"
        "class Config(RunConfig):\n"
        "    scenes: SceneConfig = setting(SceneConfig(5, 3), 'how many')\n"
    )
    module = types.ModuleType("loaded_recipe")
    monkeypatch.setitem(sys.modules, "loaded_recipe", module)
    exec(code, vars(module))
    made = parse(module.Config, ["--scenes.val_size", "7"])
    assert made.scenes == SceneConfig(5, 7)
    for other in (None, types.ModuleType("loaded_recipe")):
        if other is None:
            monkeypatch.delitem(sys.modules, "loaded_recipe")
        else:
            monkeypatch.setitem(sys.modules, "loaded_recipe", other)
        with pytest.raises(InputError, match=r"every setting of Config.*'loaded_recipe' name 'SceneConfig'"):
            parse(module.Config, ["--scenes.val_size", "7"])


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
    for given in (["--lr", "-1"], ["--epochs", "abc"]):
        sys.argv, said = ["x", *given], io.StringIO()
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
    for recipe, (said, packages, modules, limit, torch, word, torch_too) in told.items():
        assert "Expected --lr to be above 0" in limit, recipe
        assert "Expected --epochs to be a whole number, but got 'abc'" in word, recipe
        assert not any((torch, torch_too)), f"{recipe}: refused before the long imports"
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
