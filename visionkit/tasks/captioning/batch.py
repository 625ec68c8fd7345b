"""A captioning batch taken apart and checked."""

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
    tokens: Tensor  # (B * K, L), the K sentences of an image next to each other
    references: list[list[str]]  # every sentence of each image
    ids: Sequence[str] | None


def read_captions(batch: Any, vocabulary: Vocabulary) -> CaptionParts:
    """Take a batch apart, and check its tokens and references while they are on the host.

    Args:
        batch: A dict with `images`, `tokens` `(B, L)` or `(B, K, L)` and perhaps `references` and `ids`; or a
            tuple `(images, tokens)`. Without references, the tokens' words are the references.
        vocabulary: The words that tokens stand for.

    Raises:
        InputError: There are no tokens, or their shape does not fit the images.
        DataError: A token is out of range, a sentence does not begin with `<bos>`, or an image has no
            reference or one that is no text; the image is named.
    """
    images, tokens, ids = read_parts(batch, "tokens")
    references: Any = batch.get("references") if isinstance(batch, Mapping) else None
    if not isinstance(tokens, Tensor):
        raise InputError(
            expected("tokens", "a tensor", type(tokens).__name__, fix="Encode captions: vocabulary.encode.")
        )
    num_images = len(images)
    fits = tokens.ndim in (2, 3) and len(tokens) == num_images and tokens.shape[-1] >= 2
    if not fits or tokens.dtype != torch.int64:
        allowed = f"int64 ({num_images}, L) or ({num_images}, K, L)"
        raise InputError(expected("tokens", allowed, (str(tokens.dtype), tuple(tokens.shape))))
    flat = tokens.reshape(-1, tokens.shape[-1])
    if flat.device.type == "cpu":
        _check_tokens(flat, vocabulary, ids, flat.shape[0] // max(1, num_images))
    if references is None:
        rows = [flat.view(num_images, -1, flat.shape[-1])[i].tolist() for i in range(num_images)]
        references = [[" ".join(vocabulary.decode(row)) for row in captions] for captions in rows]
    else:
        _check_references(references, num_images, ids)
    return CaptionParts(images, flat, references, ids)


def _check_tokens(
    tokens: Tensor, vocabulary: Vocabulary, ids: Sequence[str] | None, captions_per_image: int
) -> None:
    bad = ((tokens < 0) | (tokens >= len(vocabulary))).any(dim=1) | (tokens[:, 0] != vocabulary.bos)
    if not bool(bad.any()):
        return
    row = int(bad.nonzero()[0])
    allowed = f"ids in 0 .. {len(vocabulary) - 1} that begin with <bos> ({vocabulary.bos})"
    fix = "Encode captions with the task's own vocabulary: task.vocabulary.encode(sentence)."
    raise DataError(
        expected("a caption's tokens", allowed, tokens[row].tolist(), fix=fix),
        path=_name(ids, row // captions_per_image),
        field="tokens",
    )


def _check_references(references: Any, num_images: int, ids: Sequence[str] | None) -> None:
    if len(references) != num_images:
        raise InputError(expected("references", f"one list for each of {num_images} images", len(references)))
    for row, captions in enumerate(references):
        good = (
            isinstance(captions, list | tuple)
            and captions
            and all(isinstance(text, str) for text in captions)
        )
        if not good:
            raise DataError(
                expected("an image's references", "one or more sentences of text", captions),
                path=_name(ids, row),
                field="references",
            )


def _name(ids: Sequence[str] | None, row: int) -> str:
    return ids[row] if ids else f"image {row} of the batch"
