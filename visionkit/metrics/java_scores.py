"""METEOR and SPICE through their Java tools, an optional extra.

The tools come with the package pycocoevalcap (104 MB); SPICE also needs Stanford's CoreNLP 3.6.0, which is
not downloaded unasked. Everything else in this package needs no Java.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionkit.errors import InputError, RunError, expected, install_extra, unknown_name
from visionkit.metrics.ngrams import check_caption_sets

__all__ = ["java_scores"]

_SCORES = {
    "meteor": ("pycocoevalcap.meteor.meteor", "Meteor"),
    "spice": ("pycocoevalcap.spice.spice", "Spice"),
}
_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


def java_scores(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    *,
    scores: Sequence[str] = ("meteor",),
) -> dict[str, float]:
    """Score captions with METEOR 1.5 or SPICE 1.0.

    Args:
        candidates: One token list for each image (`visionkit.text.tokenize` makes them).
        references: One or more token lists for each image.
        scores: "meteor" (starts Java with up to 2 GB), "spice" (up to 8 GB; made for Java 8).

    Returns:
        Each score in [0, 1]; published tables show them times 100.

    Raises:
        InputError: An unknown score, captions that cannot be scored, no `java`, no pycocoevalcap, or no
            CoreNLP for SPICE; with how to get what is missing.
        RunError: The Java tool failed.

    Denkowski and Lavie, "Meteor Universal", WMT 2014; Anderson et al., "SPICE", ECCV 2016.
    """
    check_caption_sets(candidates, references)
    for name in scores:
        if name not in _SCORES:
            raise unknown_name("Java score", name, _SCORES)
    if shutil.which("java") is None:
        fix = "METEOR and SPICE are Java tools. Install a Java runtime (SPICE: version 8), and try again."
        raise InputError(expected("java", "a program on the path", "none", fix=fix))
    if importlib.util.find_spec("pycocoevalcap") is None:
        raise InputError(
            "Expected the package pycocoevalcap, which contains METEOR and SPICE, but it is not installed. "
            f"Install the extra: {install_extra('java-scores')}."
        )
    lines = {index: [_line(candidate)] for index, candidate in enumerate(candidates)}
    reference_lines = {index: [_line(r) for r in image] for index, image in enumerate(references)}
    return {name: _score(name, reference_lines, lines) for name in scores}


def _score(name: str, references: dict[int, list[str]], candidates: dict[int, list[str]]) -> float:
    module, kind = _SCORES[name]
    if name == "spice":
        _refuse_download()
    try:
        tool: Any = getattr(importlib.import_module(module), kind)()
        score, _ = tool.compute_score(references, candidates)
    except Exception as error:
        raise RunError(
            f"The Java tool of {name.upper()} stopped: {type(error).__name__}: {error}. Does `java -version` "
            "work, and is there memory for it (METEOR 2 GB, SPICE 8 GB and Java 8)?"
        ) from error
    return float(score)


def _refuse_download() -> None:
    spec = importlib.util.find_spec("pycocoevalcap.spice")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    lib = Path(folders[0]) / "lib" if folders else Path("lib")
    missing = [name for name in _MODELS if not (lib / name).is_file()]
    if missing:
        raise InputError(
            f"SPICE needs {' and '.join(missing)} in {lib}, and would fetch them from nlp.stanford.edu (400 "
            "MB). Nothing is fetched unasked: run its spice/get_stanford_models.py, or put the "
            "files there."
        )


def _line(tokens: Sequence[str]) -> str:
    # The tools read one sentence a line, with bars between sentences.
    return " ".join(" ".join(tokens).replace("|||", " ").split())
