"""Text from outside is drawn, written and printed as it stands: no formula, no byte that ends a file."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from tests.run.make_runs import make_run
from visionkit.compare.comparison import compare
from visionkit.compare.report.figures.class_bars import class_bars
from visionkit.compare.report.figures.confusion_matrix import confusion_matrix
from visionkit.compare.report.figures.precision_recall import precision_recall
from visionkit.compare.report.plot_style import to_png
from visionkit.compare.report.report import write_report
from visionkit.compare.summary import summary_text
from visionkit.printable import printable, printable_values
from visionkit.run.storage.result import write_result

LATIN1 = os.fsdecode(b"caf\xe9.jpg")
ODD = (
    r"cost $\foo$",
    "a$^$b",
    "x_1^{2}",
    "道路 $x_1^{2}$",
    "_",
    "%",
    "{}",
    "$$",
    "\\",
    LATIN1,
    "\ud83d",
    "<b>",
    "a\nb",
    "",
)


def test_figures_of_any_names_are_drawn():
    values = {arm: dict.fromkeys(ODD, 0.5) for arm in ("pretrained", "scratch")}
    for figure in (
        class_bars(values, title=ODD[0], label=ODD[1], note=ODD[2]),
        confusion_matrix(np.eye(len(ODD)), ODD, title=ODD[3], note=LATIN1),
        precision_recall({r"$\w$": [0.5] * 101}, title=ODD[1]),
    ):
        assert len(to_png(figure)) > 1000


def test_dollars_are_no_formula():
    plain, dollars = (
        to_png(class_bars({"a": {name: 1.0}}, title="t", label="l")) for name in ("x2", "$x^2$")
    )
    assert plain != dollars
    figure = class_bars({"a": {"$x^2$": 1.0}}, title="t", label="l")
    to_png(figure)
    assert not any(text.get_parse_math() for text in figure.findobj(Text))


@pytest.mark.parametrize("name", [r"cost $\foo$ a$^$b", "道路 $x_1^{2}$ <b> % {}", f"{LATIN1} $$\n\\"])
def test_a_report_of_any_names_is_whole(tmp_path, name):
    data = {
        "name": name,
        "classes": [name, "b"],
        "fingerprint": "f",
        "sizes": {"train": 5, "val": 5},
        "facts": {name: name},
    }
    for init in ("pretrained", f"/w/{printable(name).replace('/', '')}.pt"):
        folder = make_run(
            tmp_path, init, predictions=6, classes=[printable(name), "b"], changes={"data": data}
        )
        write_result(folder, json.loads((folder / "result.json").read_text()))
        json.loads((folder / "result.json").read_bytes().decode("utf-8"))
    found = compare([tmp_path])
    text = write_report(found, tmp_path).read_bytes().decode("utf-8")
    assert "Could not be drawn" not in text
    json.loads((tmp_path / "comparison.json").read_bytes().decode("utf-8"))
    summary_text(found).encode("utf-8")


def test_bytes_that_are_no_utf8_are_written_out():
    assert printable(LATIN1) == "caf\\xe9.jpg"
    assert printable("café 道路") == "café 道路"
    assert printable_values({LATIN1: [LATIN1, 1, None]}) == {"caf\\xe9.jpg": ["caf\\xe9.jpg", 1, None]}


@given(st.binary(max_size=20))
def test_any_file_name_is_printable(raw):
    text = printable(os.fsdecode(raw))
    text.encode("utf-8")
    assert printable(text) == text
