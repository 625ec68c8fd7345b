"""The filters of a run's first convolution: drawn at the end of training, and side by side in the report."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from PIL import Image
from torch import nn

from tests.run.make_runs import make_comparison
from visionkit.compare.comparison import compare
from visionkit.compare.report.report import write_report
from visionkit.run.previews.filters import FilterImage


class Task(nn.Module):
    """A task whose head stands before its backbone."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.head = nn.Conv2d(8, 2, 1)
        self.backbone = nn.Sequential(*layers)


@pytest.mark.parametrize(("rank", "layers", "size"), [
    (0, [nn.Conv2d(3, 20, 7), nn.Conv2d(20, 8, 3)], (16 * 44, 2 * 44)),
    (0, [nn.Conv2d(1, 4, 3)], (4 * 44, 44)),
    (0, [nn.Linear(3, 4)], None),
    (1, [nn.Conv2d(3, 20, 7)], None),
])  # fmt: skip
def test_the_first_process_draws_the_backbone_s_first_convolution(rank, layers, size, tmp_path):
    drawing = FilterImage(tmp_path)
    drawing.on_train_end(SimpleNamespace(is_global_zero=rank == 0), Task(*layers))
    assert drawing.problem == ""
    assert drawing.file.is_file() == (size is not None)
    if size is not None:
        with Image.open(drawing.file) as image:
            assert image.size == size


def test_an_error_is_a_problem_of_the_run_and_no_end(tmp_path):
    (tmp_path / "figures").write_text("a file where the folder should be")
    drawing = FilterImage(tmp_path)
    with pytest.warns(RuntimeWarning, match="the run goes on"):
        drawing.on_train_end(SimpleNamespace(is_global_zero=True), Task(nn.Conv2d(3, 4, 3)))
    assert drawing.problem.startswith("The image of the filters failed: ")


def test_the_report_has_them_of_both_arms_and_none_of_older_runs(tmp_path):
    folders = make_comparison(tmp_path, seeds=(0,))
    assert "The first filters" not in write_report(compare([tmp_path]), tmp_path).read_text()
    for folder in folders:
        (folder / "figures").mkdir(exist_ok=True)
        Image.new("RGB", (44, 44), "red").save(folder / "figures" / "filters.png")
    text = write_report(compare([tmp_path]), tmp_path).read_text()
    assert text.count("The first filters") >= 1
    for arm in ("pretrained", "scratch"):
        assert text.count(f'alt="Filters of {arm}"') == 1
