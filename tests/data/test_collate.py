"""Batches: one tensor, lists, class maps, captions; and the empty share of a process."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from visionkit.data import caption_batch, list_batch, mask_batch, stack_batch
from visionkit.errors import DataError


def _sample(i, height=8, width=6):
    return {
        "image": torch.full((3, height, width), i, dtype=torch.uint8),
        "id": f"p{i}",
        "label": torch.tensor(i),
        "boxes": torch.zeros(i, 4),
        "labels": torch.zeros(i, dtype=torch.int64),
        "mask": torch.full((height, width), i),
        "captions": [" ".join("a" * (i + 1)), "other"],
        "size": (height, width),
    }


def test_no_samples_give_a_batch_without_ids():
    captions = partial(caption_batch, encode=lambda text: [1])
    collates = (stack_batch, list_batch, mask_batch, captions)
    assert [collate([]) for collate in collates] == [{"ids": []}] * 4


def test_images_are_stacked_channels_last():
    batch = stack_batch([_sample(i) for i in range(4)])
    assert batch["images"].shape == (4, 3, 8, 6)
    assert batch["images"].is_contiguous(memory_format=torch.channels_last)
    assert batch["images"][:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert batch["labels"].tolist() == [0, 1, 2, 3]
    assert batch["ids"] == ["p0", "p1", "p2", "p3"]
    with pytest.raises(DataError, match="one size") as caught:
        stack_batch([_sample(0), _sample(1, 9)])
    assert caught.value.path == "p1"


def test_lists_keep_sizes_and_targets():
    batch = list_batch([_sample(1), _sample(2, 9)])
    assert [tuple(image.shape) for image in batch["images"]] == [(3, 8, 6), (3, 9, 6)]
    assert [len(target["boxes"]) for target in batch["targets"]] == [1, 2]
    assert set(batch["targets"][0]) == {"boxes", "labels", "size"}


def test_class_maps_are_stacked_where_sizes_agree():
    assert mask_batch([_sample(0), _sample(1)])["masks"].shape == (2, 8, 6)
    mixed = mask_batch([_sample(0), _sample(1, 9)])
    assert [len(mixed["images"]), len(mixed["masks"])] == [2, 2]


def test_captions_become_padded_tokens():
    batch = caption_batch([_sample(0), _sample(2)], encode=lambda text: [1, *map(ord, text), 2], pad=9)
    assert batch["tokens"].tolist()[0] == [1, 97, 2, 9, 9, 9, 9]
    assert batch["references"] == [["a", "other"], ["a a a", "other"]]
