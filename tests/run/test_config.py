"""One dataclass is the call, the flags, the file and the help; a mistake gets the nearest valid name."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
import yaml

from visionkit.config import TransferConfig
from visionkit.errors import InputError
from visionkit.run.config import RunConfig, flag_names, parse, read_config, setting, to_dict

RECIPES = ("classify", "compare")


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
            "--transfer.thaw_at",
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
    assert [list(pair) for pair in made.transfer.thaw_at] == [[100, 4]]
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


def test_help_is_quick_short_and_needs_no_torch(root):
    for recipe in RECIPES:
        code = (
            "import sys, time; t = time.perf_counter(); sys.argv = ['x', '--help']\n"
            f"import runpy\ntry:\n    runpy.run_path('recipes/{recipe}.py', run_name='__main__')\n"
            "except SystemExit as e:\n    assert e.code == 0\n"
            "assert 'torch' not in sys.modules\nprint('TOOK', time.perf_counter() - t)"
        )
        shortest = 9.0
        for _ in range(3):
            began = time.perf_counter()
            out = subprocess.run(
                [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
            )
            shortest = min(shortest, time.perf_counter() - began)
            if shortest < 1.0:
                break
        lines = out.stdout.splitlines()
        assert len(lines) <= 60, recipe
        assert max(map(len, lines)) <= 120
        assert shortest < 1.0, f"{recipe} --help took {shortest:.2f} s"
