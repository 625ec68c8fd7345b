"""Text of captions: tokenizer, vocabulary and word vectors. The word vectors import torch when used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from visionkit.text.tokenize import tokenize
from visionkit.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from visionkit.text.word_vectors import WordVectors, check_word_vectors, read_word_vectors

__all__ = ["Vocabulary", "WordVectors", "check_word_vectors", "read_word_vectors", "tokenize"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("visionkit.text.word_vectors"), name)
