"""METEOR through its Java tool, and the texts that say what is missing."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from visionkit.errors import InputError
from visionkit.metrics.java_scores import java_scores

SAID = [["a", "dog", "runs"], ["a", "red", "apple"]]
TRUE = [[["a", "dog", "is", "running"]], [["a", "red", "apple"], ["an", "apple"]]]


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"Unknown Java score 'metor'\. Did you mean 'meteor'"):
        java_scores(SAID, TRUE, scores=("metor",))
    with pytest.raises(InputError, match="image 0"):
        java_scores([["a"]], [[]])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="Install a Java runtime"):
        java_scores(SAID, TRUE)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/java")
    with monkeypatch.context() as hidden:
        hidden.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r'"\.\[java-scores\]"'):
            java_scores(SAID, TRUE)

    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: Spec())
    with pytest.raises(InputError, match="Nothing is fetched unasked"):
        java_scores(SAID, TRUE, scores=("spice",))


@pytest.mark.slow
def test_meteor_is_its_tools():
    if shutil.which("java") is None:
        pytest.skip("METEOR needs `java`, which is not on this machine")
    same = java_scores([s[0] for s in TRUE], TRUE)["meteor"]
    near = java_scores(SAID, TRUE)["meteor"]
    far = java_scores([["two", "cars"], ["grass"]], TRUE)["meteor"]
    assert same == pytest.approx(1.0, abs=0.01)
    assert far < 0.1 < near < same
