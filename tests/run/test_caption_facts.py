"""Previews and facts of captions: rows, figures, exact shares; a fault in drawing stops no training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))

from captioning_tiny import WORDS, captioner, trainer

from visionkit.data import DataModule, Splits, caption_batch
from visionkit.data.scenes import attention_in_boxes
from visionkit.run import CaptionGrounding, CaptionPreview, Preview
from visionkit.tasks import CaptionPrediction

NAMES = ("dark", "bright")


class Pairs:
    """Two things side by side, with boxes; captions say which stands where."""

    def __init__(self, count: int) -> None:
        self.ids = [f"pair-{index}" for index in range(count)]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int):
        image = torch.zeros(3, 8, 8, dtype=torch.uint8)
        image[:, :, 4:] = 200
        return {
            "image": image,
            "id": self.ids[index],
            "captions": ["a dark left of a bright", "a bright right of a dark"],
            "boxes": torch.tensor([[0.0, 0.0, 4.0, 8.0], [4.0, 0.0, 8.0, 8.0]]),
            "labels": torch.tensor([0, 1]),
            "size": (8, 8),
        }


def collate(samples):
    return caption_batch(samples, encode=WORDS.encode)


def test_facts_are_counted_once_and_drawn(tmp_path):
    task = captioner()
    right = ["a", "dark", "left", "of", "a", "bright"]
    wrong = ["a", "bright", "left", "of", "a", "dark"]
    maps = torch.zeros(7, 2, 2)
    maps[:, :, 0] = 0.5  # always on the left half
    sentences = {f"pair-{index}": right if index < 3 else wrong for index in range(5)}

    def evaluate(batch):
        return [
            CaptionPrediction(" ".join(sentences[name]), tuple(sentences[name]), -7.0, (), maps, name)
            for name in batch["ids"]
        ]

    task._evaluate = evaluate
    data = DataModule(
        Splits(Pairs(4), Pairs(5), Pairs(5), NAMES, "pairs"), batch_size=2, train_transform=lambda s, _: s,
        eval_transform=lambda s, _: s, collate=collate,
    )  # fmt: skip
    facts = CaptionGrounding(tmp_path, NAMES, num_images=3)
    run = trainer(max_epochs=1, callbacks=[facts, Preview(tmp_path, CaptionPreview())])
    run.fit(task, datamodule=data)
    said = {name.removeprefix("val/"): float(value) for name, value in run.callback_metrics.items()}
    assert said["objects"] == 1.0
    assert said["relation"] == pytest.approx(3 / 5)
    assert said["relation_given_objects"] == pytest.approx(3 / 5)
    assert said["attention_in_box"] == pytest.approx(0.5)  # right for the dark word, wrong for the bright one
    assert said["attention_by_chance"] == pytest.approx(0.5)
    assert said["attention_elsewhere"] == pytest.approx(0.5)
    with Image.open(tmp_path / "figures" / "attention.png") as figure:
        assert figure.height > 3 * 128
        assert figure.width > 7 * 128
    rows = [json.loads(line) for line in (tmp_path / "predictions" / "val.jsonl").read_text().splitlines()]
    assert len(rows) == 5
    assert [row["right"] for row in rows] == [False, False, True, True, True]  # the worst come first
    assert rows[0]["truth"] == "a dark left of a bright / a bright right of a dark"
    assert rows[4]["confidence"] == pytest.approx(2.718281828**-1)
    assert (tmp_path / "figures" / "val-worst.png").exists()
    assert (tmp_path / "figures" / "train-batch.png").exists()
    values = run.test(task, datamodule=data, verbose=False)[0]
    assert values["test/relation"] == pytest.approx(3 / 5)


def test_what_was_just_said_is_not_said_again():
    task = captioner()
    batch = collate([Pairs(2)[index] for index in range(2)])
    first = task.validation_step(batch, 0)["preds"]
    assert [each.id for each in first] == list(batch["ids"])
    looked = attention_in_boxes(first[0].attention, [], batch["boxes"][0], ["dark", "bright"], size=(8, 8))
    assert looked.words == 0
