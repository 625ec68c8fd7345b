"""Hostile WebDataset shards: each is an error that names shard and sample; nothing runs or is extracted."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from visionkit.data import webdataset
from visionkit.data.pack.record import npy_bytes
from visionkit.data.pack.tar import END
from visionkit.errors import DataError


class Bomb:
    def __reduce__(self):
        return (open, ("/nonexistent/executed", "w"))


def encoded(image: torch.Tensor) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(stream, "PNG")
    return stream.getvalue()


def tar(*entries: tuple, end: bytes = END) -> bytes:
    """A tar of (name, data) or TarInfo."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
    return stream.getvalue().rstrip(b"\0") + end if end != END else stream.getvalue()


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


PNG = encoded(torch.zeros(3, 4, 4, dtype=torch.uint8))
SOUND = [(f"{number}.{name}", data) for number in range(4) for name, data in (("png", PNG), ("cls", b"1"))]
WHOLE = tar(*SOUND)
HOSTILE = {
    "a link": (tar(*SOUND, link("5.png", tarfile.SYMTYPE)), "member", "a link"),
    "a hard link": (tar(*SOUND, link("5.png", tarfile.LNKTYPE)), "member", "a link"),
    "a device": (tar(*SOUND, link("5.png", tarfile.CHRTYPE)), "member", "no plain file"),
    "a path outside": (tar(*SOUND, ("../../x.png", PNG)), "member", "leads out"),
    "an absolute path": (tar(*SOUND, ("/etc/x.png", PNG)), "member", "leads out"),
    "a key twice": (tar(*SOUND, SOUND[0]), "key", "another sample stands in between"),
    "a member twice": (tar(SOUND[0], SOUND[0]), "key", "two members of one name"),
    "cut in a member": (WHOLE[:700], "shard", "unexpected end"),
    "cut between members": (WHOLE[: 512 + 512 * -(-len(PNG) // 512)], "shard", "cut short"),
    "compressed": (gzip.compress(WHOLE), "shard", "not compressed"),
    "no tar": (b"x" * 3000, "shard", "whole tar file"),
    "a size beyond": (WHOLE[:124] + b"77777777777\0" + WHOLE[136:], "shard", "bad checksum|invalid header"),
    "deep json": (tar(("1.png", PNG), ("1.json", b"[" * 100_000)), None, "RecursionError|cannot be read"),
    "an object array": (tar(("1.npy", npy_bytes(np.zeros(2))), ("1.cls", b"1")), None, "at least 2"),
    "no class": (tar(("1.png", PNG), ("2.png", PNG)), None, "class .cls"),
    "a class of words": (tar(("1.png", PNG), ("1.cls", b"cat")), None, "ValueError"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_shards_are_named(tmp_path, name):
    data, field, text = HOSTILE[name]
    file = tmp_path / "train-0.tar"
    file.write_bytes(data)
    with pytest.raises(DataError, match=text) as caught:
        webdataset(tmp_path, "classification")
    assert str(tmp_path) in str(caught.value)
    assert caught.value.field == field
    assert sorted(tmp_path.iterdir()) == [file]


def test_arrays_masks_and_runs_that_lie_are_named_when_they_are_read(tmp_path):
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    objects = io.BytesIO()
    np.save(objects, np.array([Bomb()], dtype=object), allow_pickle=True)
    box = {"boxes": [[0, 0, 2, 2]], "labels": [1]}
    pixels = npy_bytes(np.zeros((4, 4, 3), np.uint8))
    wider = encoded(torch.zeros(3, 4, 5, dtype=torch.uint8))
    cases = {
        "objects": ("classification", {"npy": objects.getvalue(), "cls": b"1"}, "not of numbers"),
        "floats": ("classification", {"npy": npy_bytes(np.zeros((4, 4, 3))), "cls": b"1"}, "uint8"),
        "short": ("classification", {"npy": pixels[:-9], "cls": b"1"}, "reshape"),
        "huge": ("classification", {"npy": pixels.replace(b"(4, 4, 3), }     ", b"(400000, 4, 3), }"),
                                    "cls": b"1"}, "reshape"),
        "map": ("segmentation", {"png": PNG, "mask.png": wider}, "pixels"),
        "value": ("segmentation", {"png": PNG, "mask.png": class_map(9)}, "value 9"),
        "runs": ("detection", {"png": PNG, "json": {**box, "masks": [{"size": [4, 4], "counts": ""}]}},
                 "fill"),
        "size": ("detection", {"png": PNG, "json": {**box, "masks": [{"size": [9, 9], "counts": "o"}]}},
                 "height"),
        "outside": ("detection", {"png": PNG, "json": {"boxes": [[0, 0, 99, 2]], "labels": [1]}}, "beyond"),
        "fewer": ("detection", {"png": PNG, "json": {**box, "area": []}}, "one an object"),
        "ragged": ("detection", {"png": PNG, "json": {"boxes": [[0, 0, 1]], "labels": [1]}}, "shape"),
    }  # fmt: skip
    for name, (task, parts, text) in cases.items():
        plain = {k: json.dumps(v).encode() if isinstance(v, dict) else v for k, v in parts.items()}
        file = tmp_path / "x-train.tar"
        file.write_bytes(tar(*((f"{key}.{k}", v) for key in "ab" for k, v in plain.items())))
        reader = webdataset(tmp_path, task, masks=name in ("runs", "size")).train
        with pytest.raises(DataError, match=text) as caught:
            reader[0]
        assert "x-train.tar" in str(caught.value), name
        assert pickle.loads(pickle.dumps(reader)).ids == reader.ids
    assert len(cases) == 11


def class_map(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (4, 4), value).save(stream, "PNG")
    return stream.getvalue()
