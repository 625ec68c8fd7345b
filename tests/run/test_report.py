# ruff: noqa: E501
"""The report: everything in one file, nothing from elsewhere, nothing unescaped; figures are deterministic."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.run.make_runs import CLASSES, make_comparison, make_run
from visionkit.compare.comparison import compare
from visionkit.compare.report import figures, report
from visionkit.compare.report.figure_table import FIGURES
from visionkit.compare.report.figures import samples
from visionkit.compare.report.figures.class_bars import class_bars
from visionkit.compare.report.figures.confusion_matrix import confusion, confusion_matrix
from visionkit.compare.report.figures.curves.learning_curves import learning_curves
from visionkit.compare.report.figures.curves.loss_curves import plot_loss
from visionkit.compare.report.figures.curves.low_data_curve import low_data_curve
from visionkit.compare.report.figures.curves.rate_curves import plot_rates
from visionkit.compare.report.figures.gap_bars import gap_bars
from visionkit.compare.report.first_screen import tiles
from visionkit.compare.report.plot_style import (
    add_legend,
    arm_style,
    name_axes,
    new_figure,
    to_png,
    to_svg,
)
from visionkit.compare.report.predictions import open_image, read_predictions
from visionkit.compare.report.report import write_report
from visionkit.compare.report.sections import Panel, ReportFigure, Section
from visionkit.errors import RunError

EVIL = '<script>alert("x")</script><img src=http://evil.example/x.png>'


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))


def parse(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(text)
    return parser.tags


def test_report_of_twenty_runs_is_whole_and_small(tmp_path, monkeypatch) -> None:
    folders = make_comparison(tmp_path, seeds=(0, 1, 2, 3, 4), fractions=(0.1, 1.0), predictions=60)
    assert len(folders) == 20
    drawn = []
    monkeypatch.setattr(report, "to_svg", lambda figure, path: drawn.append(path) or to_svg(figure, path))
    path = write_report(compare([tmp_path]), tmp_path)
    text = path.read_text()
    assert path == tmp_path / "report.html"
    assert 3 < len(drawn) == len(set(drawn)) < 20  # each figure is drawn once, and none for each run
    assert len(text) < 3_000_000
    tags = parse(text)
    names = {tag for tag, _ in tags}
    assert not names & {"script", "link", "iframe", "object", "form"}
    images = [attrs["src"] for tag, attrs in tags if tag == "img"]
    assert len(images) == 6 + 6 + 6  # the worst of each arm, and random ones
    assert text.count("<svg") == len(drawn) == len(list((tmp_path / "figures").glob("*.svg")))
    for source in images:
        head, _, data = str(source).partition(",")
        assert head == "data:image/jpeg;base64"
        Image.open(io.BytesIO(base64.b64decode(data))).verify()
    # Only what is in the file: data, and parts of a figure.
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", text)
    assert not re.search(r"url\((?!#)", text)
    for words in ("Pretrained beats scratch on scenes", "Learning curves", "With less data", "What was held equal",
                  "Most wrong:", "OpenMoji, CC BY-SA 4.0", "python recipes/classify.py --data scenes --init both",
                  "Apache-2.0", "ImageNet-1k", "in the same order", "prefers-color-scheme: dark"):  # fmt: skip
        assert words in text, words
    assert json.loads((tmp_path / "comparison.json").read_text())["arms"] == ["pretrained", "scratch"]
    assert (tmp_path / "figures" / "learning-f1.svg").exists()
    assert len(compare([tmp_path]).records) == 20, "the report's own files are not taken for runs"


def test_everything_that_came_from_outside_is_escaped(tmp_path) -> None:
    classes = [EVIL, "b"]
    data = {"name": EVIL, "classes": classes, "sizes": {"train": 5, "val": 5}, "fingerprint": "f",
            "facts": {"attribution": EVIL, EVIL: EVIL}}  # fmt: skip
    for init in ("pretrained", "scratch"):
        folder = make_run(tmp_path, init, predictions=6, classes=classes, config={EVIL: EVIL},
                          changes={"data": data, "weights": {"licence": EVIL}, "env": {EVIL: EVIL}})  # fmt: skip
        (folder / "cmd.txt").write_text(EVIL)
    text = write_report(compare([tmp_path]), tmp_path).read_text()
    assert "<script" not in text
    assert "<img src=http" not in text
    assert text.count("&lt;script&gt;") >= 6


def test_report_without_predictions_curves_or_second_arm(tmp_path) -> None:
    folder = make_run(tmp_path, "scratch")
    (folder / "metrics.csv").unlink()
    (folder / "cmd.txt").unlink()
    text = write_report(compare([tmp_path]), tmp_path / "out" / "deep").read_text()
    assert "One arm only" in text
    assert "Sample predictions" not in text
    assert "The data" not in text
    assert "Reproduce" not in text


def test_an_image_outside_the_run_is_not_shown(tmp_path) -> None:
    folder = make_run(tmp_path, "scratch", predictions=2)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    assert open_image(folder, {"image": "../secret.png"}) is None
    assert open_image(folder, {"image": str(tmp_path / "secret.png")}) is None
    assert open_image(folder, {"image": "result.json"}) is None
    assert open_image(folder, {"image": None}) is None
    assert open_image(folder, {"image": "figures/val/000.png"}).size == (96, 96)


def test_damaged_predictions_lose_only_their_lines(tmp_path) -> None:
    folder = make_run(tmp_path, "scratch", predictions=5)
    with (folder / "predictions/val.jsonl").open("a") as file:
        file.write('{"id": "torn\n[1, 2]\n{"no": "id"}\n')
    notes: list[str] = []
    rows = read_predictions(folder, notes=notes)
    assert len(rows) == 5
    first = "predictions/val.jsonl: 3 of 8 lines are left out, which are no rows (the first is line 6)"
    assert notes == [first]
    make_run(tmp_path, "pretrained", predictions=5)
    assert first in write_report(compare([tmp_path]), tmp_path).read_text(encoding="utf-8")
    counts = confusion(rows, CLASSES)
    assert counts is not None
    assert counts.sum() == 5
    assert confusion([{"truth": ["a"], "prediction": [1.5]}], CLASSES) is None
    assert read_predictions(folder, "predictions/none.jsonl") == []


def test_figures_are_the_same_every_time_and_of_fixed_size(tmp_path) -> None:
    make_comparison(tmp_path, fractions=(0.1, 1.0))
    found = compare([tmp_path])
    for draw in (lambda: learning_curves(found, 1.0), lambda: low_data_curve(found), lambda: gap_bars(found)):
        first = to_png(draw())
        assert first == to_png(draw())
        assert Image.open(io.BytesIO(first)).width == 630
        svg = to_svg(draw(), tmp_path / "a.svg")
        assert svg == to_svg(draw(), tmp_path / "a.svg")
        assert svg.startswith('<svg viewBox="')
        assert "var(--pretrained)" in svg
        assert "#24292f" not in svg


def test_the_label_of_an_axis_is_not_cut_off_by_the_numbers_beside_it() -> None:
    """Smaller axes may get other numbers, wider than those that the layout saw: 0.50 becomes 0.500."""
    for low in np.linspace(0, 0.45, 10):
        figure, axes = new_figure()
        axes.plot([160, 320], [low, 0.5], label="pretrained (n = 1)")
        name_axes(axes, "photos, 60 validation images, 100% of the training data", "n", "images", "val/top1")
        add_legend(axes)
        to_png(figure)
        assert axes.yaxis.label.get_window_extent().x0 >= 0, low


def test_a_curve_of_one_point_can_be_seen(tmp_path) -> None:
    """A training of one epoch logs one loss and one rate."""
    make_comparison(tmp_path)
    rows = ("train,loss,1.0", "val,top1,0.5", "lr,head,0.001")
    for file in tmp_path.glob("*/metrics.csv"):
        file.write_text(
            "\n".join(["step,epoch,images,split,name,value", *(f"10,0,320,{row}" for row in rows)])
        )
    for plot in (plot_loss, plot_rates):
        axes = new_figure()[1]
        plot(axes, compare([tmp_path]), 1.0)
        assert axes.lines
        assert all(line.get_marker() not in ("", "None") for line in axes.lines)


def test_long_names_in_a_legend_leave_the_axes_their_width() -> None:
    usual = None
    for name in ("scratch", "weights-of-a-longer-name", "道路 $x_1^{2}$ <b> % {}", "w" * 200):
        figure, axes = new_figure()
        for part in ("training", "validation"):
            axes.plot([0, 1], [0, 1], label=f"{name}, {part}")
        name_axes(axes, "photos", "", "images", "loss")
        add_legend(axes)
        to_png(figure)
        width = axes.get_position().width
        usual = usual or width
        assert width == pytest.approx(usual, rel=0.1), name
        legend = axes.get_legend()
        assert legend.get_window_extent().x1 <= figure.bbox.x1, name
        texts = [text.get_text() for text in legend.get_texts()]
        assert all(text.endswith(part) for text, part in zip(texts, ("training", "validation"), strict=True))
        assert ("…" in texts[0]) == (len(name) > 100)


def test_the_figure_says_what_its_band_is(tmp_path) -> None:
    make_comparison(tmp_path / "two")
    make_comparison(tmp_path / "three", seeds=(0, 1, 2))
    make_comparison(tmp_path / "one", seeds=(0,))

    def words(name: str) -> str:
        figure = learning_curves(compare([tmp_path / name]), 1.0)
        axes = figure.axes[0]
        return " ".join(" ".join([axes.get_title(loc="left"), *(t.get_text() for t in axes.texts)]).split())

    assert "min to max of 2 seeds, thin: single runs" in words("two")
    assert "± sample sd over seeds, thin: single runs" in words("three")
    assert "one run an arm: no band" in words("one")
    assert "scenes, 400 validation images, 100% of the training data" in words("one")


def test_an_arm_looks_the_same_everywhere_and_differs_without_colour() -> None:
    arms = ("pretrained", "a.pt", "b.pt", "scratch")
    looks = [arm_style(arm, arms) for arm in arms]
    assert looks[0] == arm_style("pretrained", ("pretrained", "scratch"))
    assert len({look.marker for look in looks}) == len({str(look.line) for look in looks}) == 4


def test_class_figures_serve_many_classes_and_any_metric() -> None:
    names = [f"class with a rather long name {i}" for i in range(90)]
    many = {arm: {name: i / 90 for i, name in enumerate(names)} for arm in ("pretrained", "scratch")}
    figure = class_bars(many, title="Box AP by class, BCCD", label="AP")
    assert len(figure.axes[0].get_yticklabels()) == 40
    assert "the 20 highest and the 20 lowest classes" in figure.axes[0].texts[0].get_text()
    assert len(to_png(figure)) > 1000
    for size in (2, 20, 90):
        counts = np.eye(size, dtype=int) * 3
        counts[0] = 0  # a class that never occurs has no share
        assert len(to_png(confusion_matrix(counts, names[:size], title="t"))) > 1000


@pytest.mark.parametrize("value", [float("nan"), None, "x"])
def test_odd_numbers_in_predictions_do_not_stop_the_report(tmp_path, value) -> None:
    for init in ("pretrained", "scratch"):
        folder = make_run(tmp_path, init, predictions=3)
        rows = read_predictions(folder)
        text = "".join(json.dumps(row | {"loss": value, "confidence": value}) + "\n" for row in rows)
        (folder / "predictions/val.jsonl").write_text(text)
    assert write_report(compare([tmp_path]), tmp_path).exists()


def test_a_new_figure_is_one_row(tmp_path, monkeypatch) -> None:
    def broken(data):
        raise ZeroDivisionError(data.name)

    make_comparison(tmp_path)
    found = compare([tmp_path])
    section = Section([Panel(lambda: gap_bars(found), "more gaps", file="more")], note="A note & more.")
    rows = (
        ReportFigure("Never", lambda data: False, broken),
        ReportFigure("Broken", lambda data: True, broken),
        ReportFigure("New", lambda data: True, lambda data: section),
    )
    monkeypatch.setattr(report, "FIGURES", (*FIGURES, *rows))
    with pytest.raises(RunError, match="Broken: ZeroDivisionError: scenes"):
        write_report(found, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", text) == ["Summary", "Learning curves", "The gap at the end", "New",
                                                  "What was held equal", "The record", "Reproduce"]  # fmt: skip
    assert "A note &amp; more." in text
    assert 'aria-label="more gaps"' in text
    assert (tmp_path / "figures" / "more.svg").is_file()


def test_every_figure_is_in_the_table() -> None:
    modules = {
        path.stem for path in Path(figures.__file__).parent.rglob("*.py") if "\ndef draw" in path.read_text()
    }
    assert len(FIGURES) >= len(modules) >= 12
    assert {row.draw.__module__.rpartition(".")[2] for row in FIGURES} == modules
    assert len({row.draw for row in FIGURES}) == len(FIGURES)


def test_an_empty_caption_says_nothing() -> None:
    assert [samples._answer_text(value) for value in ("", None, [], "a", ["", "a"])] == [
        "(nothing)", "none", "none", "a", "(nothing), a"
    ]  # fmt: skip


def test_the_first_screen_answers(tmp_path) -> None:
    make_comparison(tmp_path / "two")
    make_comparison(tmp_path / "one", seeds=(0,))
    found = {tile.title: tile for tile in tiles(compare([tmp_path / "two"]))}
    assert list(found) == ["Data", "Score", "pretrained", "scratch", "Difference", "How sure"]
    assert found["Data"][1:3] == ("scenes", "1,000 training, 400 validation images; 5 classes")
    assert found["Score"][1:3] == (
        "Top-1 accuracy",
        "val/top1 (last): validation split, weights at the end of training; higher is better",
    )
    assert found["Difference"].value.startswith("+0.3")
    assert found["How sure"].note.startswith("95% interval ")
    single = {tile.title: tile for tile in tiles(compare([tmp_path / "one"]))}
    assert single["How sure"][1:3] == ("Not known", "one seed an arm gives no interval: add seeds")


def test_nothing_is_claimed_of_one_seed(tmp_path) -> None:
    make_comparison(tmp_path, seeds=(0,), fractions=(0.1, 1.0))
    found = compare([tmp_path])
    assert "one seed an arm: no interval" in [text.get_text() for text in gap_bars(found).axes[0].texts]
    assert "one run each: no bars" in [text.get_text() for text in low_data_curve(found).axes[0].texts]
    make_comparison(tmp_path / "flat", seeds=(0,))
    assert (
        "The gap at the end" not in write_report(compare([tmp_path / "flat"]), tmp_path / "flat").read_text()
    )


def test_a_run_that_stopped_early_is_marked(tmp_path) -> None:
    make_run(tmp_path, "pretrained")
    early = {"images": 6000, "planned_images": 9000}
    make_run(tmp_path, "scratch", changes={"stopped_early": early})
    found = compare([tmp_path], allow=["images_seen"])
    labels = [text.get_text() for text in learning_curves(found, 1.0).axes[0].get_legend().get_texts()]
    assert labels == ["pretrained (n = 1)", "scratch (n = 1, stopped early)"]
    assert [tile.note for tile in tiles(found) if tile.arm] == ["1 seed", "1 seed, 1 stopped early"]


def test_what_was_held_equal_is_in_words_and_private_paths_are_not_there(tmp_path) -> None:
    schedule = {"images": 6000, "epochs": 6, "global_batch": 32, "shape": "cosine", "lr": 0.001}
    draws = {"seed": 0, "batch_transform": "NoneType"}
    for init in ("pretrained", "scratch"):
        equal = {
            "norm": "batch",
            "schedule": schedule,
            "order": "0a1b2c",
            "draws": draws,
            "precision": "32-true",
        }
        folder = make_run(tmp_path, init, changes={"equal": equal}, config={"lost": f"{Path.home()}/secret"})
        command = (
            "/opt/here/bin/python3 recipes/classify.py"
            if init == "scratch"
            else "/opt/here/bin/python /opt/here/bin/visionkit run classify"
        )
        (folder / "cmd.txt").write_text(command)
    (tmp_path / "pretrained-f1-s9").mkdir()
    (tmp_path / "pretrained-f1-s9" / "config.yaml").write_text("")
    text = write_report(compare([tmp_path]), tmp_path).read_text()
    assert "Planned for 6,000 images, 6 epochs, 32 an update." in text
    assert "rate 0.001 at its highest, cosine schedule" in text
    assert "random weights" in text
    assert "0a1b2c" not in text
    assert "/opt/here" not in text
    assert "visionkit run classify" in text
    assert f"{Path.home()}/" not in text
    assert "Left out: pretrained-f1-s9: unfinished" in text
    assert str(tmp_path) not in text.replace(f"out</td><td>{tmp_path}", "")  # --out, as the user gave it


@pytest.mark.parametrize(
    ("command", "typed"),
    [
        ("/opt/here/bin/python recipes/classify.py --data 'my photos/'", "python recipes/classify.py --data 'my photos/'"),
        ("'/opt/my env/bin/python' /opt/x/visionkit/_recipes/classify.py --lr 1", "visionkit run classify --lr 1"),
        ("/bin/python /opt/x/visionkit/_recipes/apps/faces.py --data 'a b'", "visionkit run apps/faces --data 'a b'"),
        ("/bin/python '/opt/my env/bin/visionkit' compare runs", "visionkit compare runs"),
        ("python recipes/classify.py --data 'no end", "python recipes/classify.py --data 'no end"),
    ],
)  # fmt: skip
def test_a_report_gives_the_command_as_it_was_typed(command, typed) -> None:
    assert report._as_typed(command) == typed


def test_a_report_does_not_grow_without_bound(tmp_path, monkeypatch) -> None:
    make_comparison(tmp_path, predictions=12)
    whole = write_report(compare([tmp_path]), tmp_path).read_text()
    monkeypatch.setattr(report, "MAX_IMAGE_BYTES", 20_000)
    cut = write_report(compare([tmp_path]), tmp_path).read_text()
    assert whole.count("<img") > cut.count("<img") > 0
    assert f"{whole.count('<img') - cut.count('<img')} images are left out" in cut
