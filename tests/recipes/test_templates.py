"""Templates of a linear classifier, an MLP and a CNN: trained on folders of images, and drawn."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from visionkit import compare
from visionkit.errors import InputError
from visionkit.interpret import weight_sheet
from visionkit.run.requests import asking
from visionkit.run.sweep import backbone_table


@pytest.fixture(scope="module")
def templates(root):
    sys.path.insert(0, str(root / "recipes" / "apps"))
    return importlib.import_module("templates")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes: what is bright above, and what is bright below."""
    folder = tmp_path_factory.mktemp("photos")
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 24), ("test", 8)):
        for name, rows in (("above", slice(0, 16)), ("below", slice(16, 32))):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = torch.rand(32, 32, 3, generator=generator) * 0.3
                pixels[rows] += 0.6
                image = Image.fromarray((pixels * 255).to(torch.uint8).numpy())
                image.save(folder / split / name / f"{number}.png")
    return folder


@pytest.mark.slow
def test_each_class_has_a_template_and_each_network_its_image(templates, photos, tmp_path, capsys):
    settings = {"epochs": 4, "batch_size": 8, "lr": 3e-3, "accelerator": "cpu", "precision": "32-true"}
    settings |= {"progress": False, "jobs": 1, "data": str(photos), "out": str(tmp_path / "out")}
    out = templates.main(templates.Config(**settings))
    said = capsys.readouterr().out
    for name in templates.NETWORKS:
        assert f"{name}  scratch-f1-s0  val/top1" in said
        with Image.open(out / f"{name.rpartition('/')[2]}.png") as image:
            assert image.mode == "RGB"
            assert image.width > 100
    # two templates: the one for "above" is bright above, the other below
    from visionkit.interpret import open_subject

    subject = open_subject(out / "templates-linear")
    above, below = subject.task.head.weight.view(2, 3, 32, 32)
    assert tuple(subject.class_names) == ("above", "below")
    assert above[:, :16].mean() > above[:, 16:].mean()
    assert below[:, :16].mean() < below[:, 16:].mean()
    with pytest.raises(InputError, match="Expected --data"):
        templates.main(templates.Config())


def test_a_rate_is_looked_for_without_a_run(templates, photos, tmp_path, monkeypatch, capsys):
    def train(config, folder):
        (folder / "looked").mkdir(parents=True)
        return {"lr": 0.1}

    monkeypatch.setattr(templates, "train", train)
    with asking(find=["lr"]):
        out = templates.main(templates.Config(data=str(photos), out=str(tmp_path / "out")))
    assert capsys.readouterr().out.count("Nothing was trained.") == len(list(out.iterdir())) == 3
    assert not list(out.rglob("*.png"))


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_of_several_processes_draws_and_writes_the_table(
    templates, photos, tmp_path, monkeypatch, rank
):
    written, drawn = [], []

    def write(folder):
        written.append(folder)
        (folder / "architectures.md").write_text("")

    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setattr(backbone_table, "run_recipe", lambda config, train, paths: None)
    monkeypatch.setattr(backbone_table, "write_architectures", write)
    monkeypatch.setattr(templates, "draw", lambda out, folders: drawn.append(out))
    monkeypatch.setattr(compare, "find_runs", lambda folders: [tmp_path])
    monkeypatch.setattr(compare, "read_run", lambda folder: SimpleNamespace(result={"metrics": {}}))
    assert templates.main(templates.Config(data=str(photos), out=str(tmp_path))) == tmp_path
    assert written == drawn == [tmp_path] * (rank == 0)


def test_weights_that_are_no_images_are_refused():
    sheet = weight_sheet(torch.randn(3, 3, 8, 8), names=["a", "b", "c"], side=32, columns=3)
    assert sheet.mode == "RGB"
    assert sheet.width > 3 * 32
    assert weight_sheet(torch.randn(3, 5, 8, 8)).mode == "L", "grey: the mean over the inputs"
    with pytest.raises(InputError, match="one for each of 3 templates, but got 2"):
        weight_sheet(torch.randn(3, 3, 8, 8), names=["a", "b"])
    with pytest.raises(InputError, match=r"weight to be \(N, C, h, w\)"):
        weight_sheet(torch.randn(10, 3072))
