"""The table of advice, and that it says what it rests on."""

from __future__ import annotations

import pytest

from visionkit.run.advice.advise import advise
from visionkit.transfer import resolve_transfer


@pytest.mark.parametrize(
    ("count", "similarity", "freeze", "probe"),
    [
        (20, "similar", "all", None),
        (20, "different", "all", 16),
        (500, "similar", 0, None),
        (500, "different", 0, None),
    ],
)
def test_the_table(count: int, similarity: str, freeze: object, probe: int | None) -> None:
    advice = advise(images_per_class=count, similarity=similarity)
    assert (advice.transfer.freeze_through, advice.transfer.probe_level) == (freeze, probe)
    assert resolve_transfer("classification", advice.init, advice.transfer).freeze_through == freeze
    assert any(reason.measured for reason in advice.reasons)
    assert "rule of thumb, not measured here" in str(advice)
    assert advice == advise(images=count * 10, num_classes=10, similarity=similarity)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="images_per_class, or images and num_classes"):
        advise()
    with pytest.raises(ValueError, match="above 0"):
        advise(images_per_class=0)
    with pytest.raises(ValueError, match="similar"):
        advise(images_per_class=3, similarity="similr")
