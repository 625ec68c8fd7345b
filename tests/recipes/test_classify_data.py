"""What the classification recipe makes of its data flags, without a training run."""

from __future__ import annotations

import importlib
import sys

import pytest
from PIL import Image

from visionkit.config import TableConfig
from visionkit.errors import InputError
from visionkit.run.command_line import parse
from visionkit.run.config import to_dict


@pytest.fixture(scope="module")
def classify(root):
    sys.path.insert(0, str(root / "recipes"))
    return importlib.import_module("classify")


@pytest.fixture
def started(classify, monkeypatch, tmp_path):
    """Return a function that makes the recipe's task, up to where training would begin."""

    def start(*flags):
        config = parse(classify.Config, ["--backbone", "timm/test_resnet", "--init", "scratch", *flags])
        monkeypatch.setattr("visionkit.run.fit", lambda config, task, data, **more: {"task": task})
        return classify.train(config, tmp_path)["task"]

    return start


def test_the_table_flags_are_one_dataclass(classify):
    flags = [
        "--table.image",
        "img",
        "--table.target",
        "a",
        "b",
        "--table.separator",
        "|",
        "--table.root",
        "x",
    ]
    config = parse(classify.Config, flags)
    assert config.table == TableConfig("img", ["a", "b"], "|", "x")
    assert to_dict(config)["table"] == {"image": "img", "target": ["a", "b"], "separator": "|", "root": "x"}
    with pytest.raises(InputError, match=r"table\.separator"):
        parse(classify.Config, ["--table.seperator", "|"])


def test_a_table_of_tags_is_read_as_the_flags_say(started, tmp_path):
    for i in range(6):
        Image.new("RGB", (40, 40)).save(tmp_path / f"{i}.png")
    (tmp_path / "T.CSV").write_text("n;p;tags\n" + "".join(f"{i};{i}.png;a|b\n" for i in range(6)))
    flags = ["--data", str(tmp_path / "T.CSV"), "--table.image", "p", "--table.target", "tags"]
    task = started(*flags, "--target", "multi", "--table.separator", "|")
    assert tuple(task.hparams["class_names"]) == ("a", "b")
    with pytest.raises(InputError, match="labels"):
        started(*flags, "--target", "multi", "--table.separator", "|", "--class_weights", "balanced")


def test_class_weights_weigh_the_rare_classes(started, tmp_path):
    for name, count in (("common", 20), ("rare", 5)):
        for i in range(count):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40)).save(tmp_path / "data" / name / f"{i}.png")
    assert started("--data", str(tmp_path / "data")).class_weights is None
    common, rare = started(
        "--data", str(tmp_path / "data"), "--class_weights", "balanced"
    ).class_weights.tolist()
    assert rare / common == pytest.approx(4)  # 16 and 4 of them are trained on
    assert (16 * common + 4 * rare) / 20 == pytest.approx(1)
    with pytest.raises(InputError, match="class_weights"):
        started("--class_weights", "2")
