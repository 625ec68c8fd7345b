"""The embedder: what its scores leave out is counted and shown."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

from task_cases import TASKS
from task_inputs import FLAT, loader, trainer

from visionkit.config import TransferConfig


def test_images_without_another_of_their_class_are_counted():
    (case,) = (case for case in TASKS if case.name == "embedder")
    task, run = case.build("scratch", TransferConfig(), FLAT), trainer()
    with pytest.warns(UserWarning, match=r"2 of 4 images have no other of their class"):
        values = run.validate(task, loader(case.batch(0, 4)), verbose=False)[0]
    assert values["val/unmatched"] == 2
    every = run.validate(task, loader(case.batch(0, 6)), verbose=False)[0]
    assert values.keys() - every.keys() == {"val/unmatched"}
    some = trainer(limit_val_batches=1)  # of a part of a split nothing is said
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        some.validate(task, loader(case.batch(0, 4), case.batch(4, 4)), verbose=False)
    assert some.callback_metrics["val/unmatched"] == 2
    assert not [each for each in caught if "of their class" in str(each.message)]
