"""What a captioner reads from a batch, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from visionkit.errors import DataError, InputError, expected
from visionkit.tasks.batch_parts import read_parts
from visionkit.text.vocabulary import Vocabulary

__all__ = ["CaptionParts", "read_captions"]


class CaptionParts(NamedTuple):
    """A batch, taken apart."""

    images: Any  # (B, 3, H, W)
    tokens: Tensor  # (B * K, L), the K sentences of a picture next to each other
    references: list[list[str]]  # every sentence of each picture
    ids: Sequence[str] | None


def read_captions(batch: Any, vocabulary: Vocabulary) -> CaptionParts:
    """Take a batch apart and look at its tokens and references while they are on the host.

    Args:
        batch: A dict with `images`, `tokens` `(B, L)` or `(B, K, L)` and perhaps `references` and `ids`; or a
            tuple `(images, tokens)`. Without references, the tokens' words are the references.
        vocabulary: The words that tokens stand for.

    Raises:
        InputError: There are no tokens, or their shape does not fit the pictures.
        DataError: A token is out of range, a sentence does not begin with `<bos>`, or a picture has no
            reference or one that is no text; the picture is named.
    """
    images, tokens, ids = read_parts(batch, "tokens")
    references: Any = batch.get("references") if isinstance(batch, Mapping) else None
    if not isinstance(tokens, Tensor):
        raise InputError(
            expected("tokens", "a tensor", type(tokens).__name__, fix="Encode captions: vocabulary.encode.")
        )
    pictures = len(images)
    fits = tokens.ndim in (2, 3) and len(tokens) == pictures and tokens.shape[-1] >= 2
    if not fits or tokens.dtype != torch.int64:
        wanted = f"int64 ({pictures}, L) or ({pictures}, K, L)"
        raise InputError(expected("tokens", wanted, (str(tokens.dtype), tuple(tokens.shape))))
    flat = tokens.reshape(-1, tokens.shape[-1])
    if flat.device.type == "cpu":
        _check_tokens(flat, vocabulary, ids, flat.shape[0] // max(1, pictures))
    if references is None:
        rows = [flat.view(pictures, -1, flat.shape[-1])[i].tolist() for i in range(pictures)]
        references = [[" ".join(vocabulary.decode(row)) for row in several] for several in rows]
    else:
        _check_references(references, pictures, ids)
    return CaptionParts(images, flat, references, ids)


def _check_tokens(tokens: Tensor, vocabulary: Vocabulary, ids: Sequence[str] | None, several: int) -> None:
    bad = ((tokens < 0) | (tokens >= len(vocabulary))).any(dim=1) | (tokens[:, 0] != vocabulary.bos)
    if not bool(bad.any()):
        return
    row = int(bad.nonzero()[0])
    wanted = f"ids in 0 .. {len(vocabulary) - 1} that begin with <bos> ({vocabulary.bos})"
    fix = "Encode captions with the task's own vocabulary: task.vocabulary.encode(sentence)."
    raise DataError(
        expected("a caption's tokens", wanted, tokens[row].tolist(), fix=fix),
        path=_name(ids, row // several),
        field="tokens",
    )


def _check_references(references: Any, pictures: int, ids: Sequence[str] | None) -> None:
    if len(references) != pictures:
        raise InputError(expected("references", f"one list for each of {pictures} pictures", len(references)))
    for row, several in enumerate(references):
        good = isinstance(several, list | tuple) and several and all(isinstance(s, str) for s in several)
        if not good:
            raise DataError(
                expected("a picture's references", "one or more sentences of text", several),
                path=_name(ids, row),
                field="references",
            )


def _name(ids: Sequence[str] | None, row: int) -> str:
    return ids[row] if ids else f"picture {row} of the batch"
