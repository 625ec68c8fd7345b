"""The probe from end to end: the table, the page, features that are read again, a kill, and bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from visionkit import cli
from visionkit.backbones import Level, WeightsInfo, create_encoder
from visionkit.backbones.registry import registered
from visionkit.commands import progress
from visionkit.data.formats.open import open_dataset
from visionkit.data.formats.options import OpenOptions
from visionkit.data.splits import Subset, subset
from visionkit.errors import DataError, InputError, RunError
from visionkit.run import probe
from visionkit.run.probing import outcomes
from visionkit.run.probing import stored_features as store
from visionkit.run.probing.draws import draw_images
from visionkit.run.probing.networks import POOLED, LevelNetwork, PixelNetwork, choose_levels
from visionkit.run.probing.stored_features import features_folder, stored_features

GROUPS = "([a-z]+/[0-9]+)_"


class Tiny(nn.Module):
    """Two levels."""

    levels = (Level(4, 2), Level(6, 4))

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.weights = WeightsInfo("user", "tiny", training_data="nothing")

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = self.first(images).relu()
        return fine, self.second(fine).relu()


def tiny(pretrained: bool = False) -> nn.Module:
    if pretrained:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            return Tiny()
    made = Tiny()
    made.weights = WeightsInfo()
    return made


@pytest.fixture(scope="module")
def name():
    with registered(tiny) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("classes")
    for label, level in (("dark", 60), ("light", 150), ("middle", 105)):
        for split, first, count in (("train", 0, 16), ("test", 50, 4)):
            path = root / split / label
            path.mkdir(parents=True)
            for index in range(first, first + count):
                pixels = rng.normal(level, 25, (16, 20, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(path / f"{index // 2}_{index}.png")
    return root


@pytest.fixture(scope="module")
def train(folder):
    return open_dataset(folder, "classification", OpenOptions()).train


def test_the_verb_writes_the_table_and_a_second_call_computes_no_feature(
    folder, name, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(outcomes, "STRENGTHS", (1.0, 0.1, 0.01))
    shown: list[progress.ImageProgress] = []

    class Watched(progress.ImageProgress):
        def __init__(self, total: int, *, unit: str) -> None:
            super().__init__(total, unit=unit, terminal=True)
            shown.append(self)

    monkeypatch.setattr(progress, "ImageProgress", Watched)
    args = ["probe", str(folder), "--backbone", name, "--fractions", "0.5", "1", "--seeds", "0", "1"]
    args += ["--image_size", "16", "--group_by", GROUPS, "--out", str(tmp_path)]
    assert cli.main(args) == 0
    text = capsys.readouterr().out
    counts = [(each.unit, each.done, each.total) for each in shown]
    assert counts == [("images", 200, 200), ("classifiers", 28, 28)]  # 4 networks, the pixels among them
    table = json.loads((tmp_path / "probe.json").read_text())
    assert (table["classes"], table["images"], table["units"], table["split"]) == (3, 12, 6, "test")
    cells = {(c["init"], c["level"], c["fraction"]): c for c in table["cells"]}
    assert len(cells) == 2 * 3 * 2 + 2  # inits x levels x fractions, and the pixels
    assert {key[1] for key in cells} == {"2", "4", "pooled", "pixels"}
    assert all(len(cell["linear"]["values"]) == 2 for cell in cells.values())
    # the classes differ in brightness alone
    assert cells["", "pixels", 1.0]["linear"]["mean"] >= 0.75
    assert cells["pretrained", "2", 1.0]["linear"]["mean"] >= 0.75
    assert len(table["differences"]) == 2 * (2 * 2 + 3)
    assert len(table["choices"]) == 4
    for part in ("trained on nothing", "random weights, drawn", "at 100% every seed", "minus pooled", "5-NN"):
        assert part in text
    page = (tmp_path / "probe.html").read_text()
    assert page.count("<svg") == 1
    assert "--group_by" in page
    assert "<script" not in page
    assert "pretrained 2 minus scratch" in page
    monkeypatch.setattr(store, "_compute", None)  # called for nothing
    assert cli.main(args) == 0
    assert json.loads((tmp_path / "probe.json").read_text())["cells"] == table["cells"]


def test_training_images_are_those_of_a_recipe_and_groups_stay_in_a_fold(train) -> None:
    classes = ("dark", "light", "middle")
    draws = draw_images(train, classes=classes, fractions=[0.5, 1.0], seeds=[0, 3], group_by=GROUPS)
    assert [(each.fraction, each.seed) for each in draws] == [(0.5, 0), (0.5, 3), (1.0, 0), (1.0, 3)]
    chosen = subset(train, 0.5, seed=3)
    assert isinstance(chosen, Subset)
    assert draws[1].rows.tolist() == chosen.indices
    names = [str(train.ids[row]).rpartition("_")[0] for row in draws[1].rows]
    assert len(set(names)) < len(names)
    assert all(
        len({f for n, f in zip(names, draws[1].folds, strict=True) if n == each}) == 1 for each in names
    )
    assert draws[2].rows.tolist() == list(range(len(train)))


def test_features_are_those_of_the_network_and_a_kill_loses_one_part(
    train, name, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(store, "_PART", 10)
    network = LevelNetwork(name, init="scratch", levels=("2", POOLED), image_size=16, seed=3)
    other = LevelNetwork(name, init="scratch", levels=("2", POOLED), image_size=16, seed=4)
    whole = stored_features(tmp_path / "whole", train, network)
    assert {level: rows.shape for level, rows in whole.items()} == {
        "2": (len(train), 4),
        "pooled": (len(train), 6),
    }
    computed: list[int] = []

    def killed(reader, net, advance):
        computed.append(len(reader))
        if len(computed) == 3:
            raise KeyboardInterrupt
        return compute(reader, net, advance)

    compute = store._compute
    monkeypatch.setattr(store, "_compute", killed)
    with pytest.raises(KeyboardInterrupt):
        stored_features(tmp_path / "part", train, network)
    monkeypatch.setattr(store, "_compute", lambda *args: computed.append(len(args[0])) or compute(*args))
    counted: list[int] = []
    again = stored_features(tmp_path / "part", train, network, advance=lambda: counted.append(1))
    assert computed == [10] * (len(train) // 10 + 1) + [len(train) % 10] * (len(train) % 10 > 0)
    assert len(counted) == len(train)
    assert all(np.array_equal(again[level], whole[level]) for level in whole)
    # other weights, sizes and images have folders of their own
    keys = [features_folder(tmp_path, reader, net) for reader, net in (
        (train, network), (train, other), (Subset(train, range(30)), network), (train, PixelNetwork()),
        (train, LevelNetwork(name, init="scratch", levels=("2", POOLED), image_size=24, seed=3)),
    )]  # fmt: skip
    assert len(set(keys)) == 5
    same = LevelNetwork(name, init="scratch", levels=("2", POOLED), image_size=16, seed=3)
    assert features_folder(tmp_path, train, same) == keys[0]


def test_the_average_over_a_map_is_that_of_an_encoder_of_its_level(train, name) -> None:
    network = LevelNetwork(name, init="pretrained", levels=choose_levels(name, ["all"]), image_size=20)
    sample = train[0]
    made = network.features([sample])
    with torch.inference_mode():
        for level in ("2", "4"):
            encoder = create_encoder(name, init="pretrained", level=int(level)).eval()
            mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (encoder.mean, encoder.std))
            from visionkit.run.advice.vectors import resized

            images = (resized([sample], 20).float() / 255 - mean) / std
            assert torch.allclose(made[level], encoder(images), atol=1e-5)
    assert torch.allclose(made["pooled"], made["4"], atol=1e-6)  # nothing is behind the last map


def test_damaged_files_are_named(train, tmp_path) -> None:
    network = PixelNetwork()
    stored_features(tmp_path, train, network)
    path = next(features_folder(tmp_path, train, network).glob("*.npz"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"0000000\.npz cannot be read .*Delete it"):
        stored_features(tmp_path, train, network)
    for values, why in (
        ({"pixels": np.zeros((3, 2), np.float32)}, "rows a level"),
        ({"pixels": np.full((len(train), 2), np.nan, np.float32)}, "NaN"),
        ({"2": np.zeros((len(train), 2), np.float32)}, "its levels are"),
    ):
        np.savez(path, **values)
        with pytest.raises(RunError, match=why):
            stored_features(tmp_path, train, network)


def test_features_that_are_not_finite_name_the_image(train, name, tmp_path) -> None:
    network = LevelNetwork(name, init="pretrained", levels=("2", "4"), image_size=16)
    features = network.features

    def broken(samples):
        made = {level: rows.clone() for level, rows in features(samples).items()}
        made["4"][1, 2] = torch.inf
        return made

    network.features = broken
    second = re.escape(repr(train[1]["id"]))
    with pytest.raises(DataError, match=f"features of level 4, but those of {second} have NaN"):
        stored_features(tmp_path, train, network)


def test_wrong_settings_are_named(folder, name, tmp_path, capsys) -> None:
    with pytest.raises(InputError, match=r"level '5'.*The levels of .* are 2, 4, pooled; or all"):
        choose_levels(name, ["5"])
    with pytest.raises(InputError, match="but got none"):
        choose_levels(name, [])
    assert choose_levels(name, ["pooled", "2"]) == ("2", "pooled")
    for setting in ({"fractions": (0.5, 0.5)}, {"seeds": ()}, {"k": 0}, {"image_size": 2}):
        with pytest.raises(InputError, match=next(iter(setting))):
            probe(folder, out=tmp_path, backbones=[name], **setting)
    # few images a class: which, how many, and what would do
    with pytest.raises(DataError, match=r"at fraction 0\.05 .* 3 of 3 classes have fewer: .* such as 0\."):
        probe(folder, out=tmp_path, backbones=[name], fractions=(0.05,))
    assert not list(Path(tmp_path).iterdir())  # before anything is computed
    assert cli.main(["probe", str(folder), "--target", "multi"]) == 2
    assert "freeze_through all" in capsys.readouterr().err


def test_a_class_with_one_image_and_other_targets_are_refused(train) -> None:
    labels = list(train.labels)
    first = labels.index(0)
    one = Subset(train, [first, *(i for i, label in enumerate(labels) if label != 0)])
    classes = ("dark", "light", "middle")
    with pytest.raises(DataError, match=r"'dark' has 1 of its 1\. Add images"):
        draw_images(one, classes=classes, fractions=[1.0], seeds=[0], group_by="")
    one.labels = [[1, 0]] * len(one)
    with pytest.raises(DataError, match="several labels or numbers"):
        draw_images(one, classes=classes, fractions=[1.0], seeds=[0], group_by="")
