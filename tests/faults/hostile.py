"""Files that would run code, fill the memory or lead elsewhere, and a folder that has one in every place."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.makedirs, (self.marker, 0o777, True))


def touch(*args: Any, **kwargs: Any) -> None:
    """What a checkpoint's settings may name to be called: it says that it was."""
    Path(os.environ["VISIONKIT_MARKER"]).mkdir(exist_ok=True)


def _saved(value: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **how)
    return file.getvalue()


def _tar(bomb: Bomb) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(bomb, protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _zip(entries: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def _safetensors(tail: bytes, header: bytes | None = None, length: int | None = None) -> bytes:
    head = header or json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(head) if length is None else length) + head + b"\0\0\0\0" + tail


def _huge_tensor() -> bytes:
    """A checkpoint of a few bytes whose tensor claims to be of many gigabytes."""
    data = _saved({"state_dict": {"w": torch.zeros(4)}})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(key for key in entries if key.endswith("data.pkl"))
    entries[name] = entries[name].replace(b"K\x04tq", b"J\xff\xff\xff\x7ftq")
    return _zip(entries)


def payloads(marker: Path) -> dict[str, bytes]:
    """Every hostile file by name; `marker` is the folder that appears when one of them is executed."""
    bomb, yaml = Bomb(marker), "!!python/object/apply:os.makedirs"
    pickled, hparams = pickle.dumps(bomb), "hyper_parameters"
    named = {"_instantiator": "tests.faults.hostile.touch", "backbone": "timm/test_resnet", "num_classes": 3}
    array = io.BytesIO()
    np.save(array, np.array([bomb], dtype=object), allow_pickle=True)
    aliases = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi")
    )
    return {
        "pickle": pickled,
        "pickle, protocol 2": pickle.dumps(bomb, protocol=2),
        "torch zip": _saved({"state_dict": {"w": torch.zeros(1)}, "x": bomb}),
        "torch zip, state dict": _saved({"w": bomb}),
        "torch legacy": _saved({"state_dict": {}, "x": bomb}, _use_new_zipfile_serialization=False),
        "torch tar": _tar(bomb),
        "torchscript": _zip(
            {"m/data.pkl": pickled, "m/constants.pkl": pickled, "m/code/__torch__.py": b"import os"}
        ),
        "pt2": _zip(
            {"archive_format": b"pt2", "data/weights/w": pickled, "extra/x.pkl": pickled, "version": b"1"}
        ),
        "instantiator": _saved({"state_dict": {}, hparams: named, "pytorch-lightning_version": "2.6.5"}),
        "instantiator, name": _saved(
            {
                "state_dict": {},
                "hparams_name": "_instantiator",
                hparams: {"_class_path": "os.system", **named},
                "pytorch-lightning_version": "2.6.6",
            }
        ),
        "yaml tag": f"out: {yaml} [{marker}]\nseeds: {yaml} [{marker}]\n".encode(),
        "yaml name": b"out: !!python/name:os.system\nbackbone: !!python/module:os\n",
        "yaml aliases": aliases.encode(),
        "safetensors and pickle": _safetensors(pickled),
        "pickle and safetensors": pickled + _safetensors(b""),
        "safetensors, header": _safetensors(b"", length=2**62),
        "safetensors, metadata": _safetensors(b"", header=b'{"__metadata__":{"x":"' + b"y" * 10**6 + b'"}}'),
        "zip bomb": _zip({"archive/data.pkl": b"\0" * 200_000_000}, zipfile.ZIP_DEFLATED),
        "huge tensor": _huge_tensor(),
        "numpy": array.getvalue(),
        "json, deep": b"[" * 100_000,
        "json, wide": b'{"a":' * 50_000,
        "xml entities": b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>',
        "csv": b"path,label\n../../etc/passwd,a\n/etc/passwd,b\n=cmd|'/c calc'!A1,c\n",
        "template": b"{{ ''.__class__.__mro__[1].__subclasses__() }} {% import os %}",
    }


# Where a reader of folders looks.
PLACES = (
    *("train/a/x.png", "val/a/x.png", "images/x.png", "masks/x.png", "classes.txt", "labels.csv"),
    *("JPEGImages/x.jpg", "Annotations/x.xml", "ImageSets/Main/train.txt"),
    *("ImageSets/Segmentation/train.txt",),
    *("ImageSets/Segmentation/val.txt", "SegmentationClass/x.png", "annotations/instances_val2017.json"),
    *("annotations/instances_train2017.json", "captions.txt", "dataset.json", "result.json", "config.yaml"),
    *("metrics.csv", "predictions/val.jsonl", "figures/val/000.png", "comparison.json"),
    *("checkpoints/last.ckpt",),
    *("checkpoints/best.ckpt", "checkpoints/manifest.json", "last.ckpt", "previous.ckpt", "manifest.json"),
)  # fmt: skip


def lay(folder: Path, source: Path) -> None:
    """Put a link or a copy of a hostile file wherever readers of folders look."""
    for number, place in enumerate(PLACES):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        if number % 2:
            (folder / place).symlink_to(source)
        else:
            (folder / place).write_bytes(source.read_bytes())
