"""A sample as bytes: a header in JSON, the image, and every other field, each with its shape and type.

Each part begins at a multiple of eight bytes, and none can run. A check value finds damage when a record is
read: CRC-32 for compressed images, the sum of its 8-byte words for raw ones, which a CRC would slow by half.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.data.read_image import decode_image
from visionkit.data.truth import plain_truth, truth_from_plain
from visionkit.errors import DataError
from visionkit.types import Sample, Truth

__all__ = ["Form", "check_value", "decode_record", "encode_record"]

Form = Literal["jpeg", "raw"]
Bytes = NDArray[np.uint8]

_WORD = 8
_SMALL = 4096  # bytes of a field above which it is worth compressing
_TYPES = ("uint8", "int64", "int32", "float32", "float64", "bool")


def encode_record(sample: Sample, image: tuple[str, bytes], *, compress: bool) -> bytes:
    """Return a sample as a record.

    Args:
        sample: Any sample; of its image only the shape is used.
        image: "file" and the bytes of any image file, "jpeg" and those of an upright one in RGB,
            or "raw" and the pixels of `sample["image"]`.
        compress: Compress large fields (class maps, masks).

    Raises:
        DataError: A field is of a kind that cannot be packed.
    """
    form, pixels = image
    plain: dict[str, Any] = {}
    fields, parts = [], [pixels]
    for name, value in sample.items():
        if name == "image":
            continue
        if name == "truth":
            plain[name] = plain_truth(cast(Truth, value))
        elif isinstance(value, Tensor):
            description, data = _field(name, value, compress)
            fields.append(description)
            parts.append(data)
        elif isinstance(value, str | int | float | list | tuple):
            plain[name] = value
        else:
            text = f"Expected a tensor, a text or numbers, but got {type(value).__name__}."
            raise DataError(text, path=sample.get("id"), field=name)
    shape = list(sample["image"].shape[1:])
    head = {"image": [form, *shape, len(pixels)], "fields": fields, "plain": plain}
    header = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    start = len(header).to_bytes(4, "little") + header
    return b"".join(_padded(part) for part in (start, *parts))


def decode_record(record: Bytes, name: str) -> Sample:
    """Return the sample of a record; raw pixels are copied, so that the record may be freed.

    Args:
        record: The record's bytes, as they were written.
        name: What the sample is called in errors.
    """
    length = int.from_bytes(record[:4].tobytes(), "little")
    head = json.loads(record[4 : 4 + length].tobytes())
    start = _up(4 + length)
    kind, height, width, size = head["image"]
    pixels = record[start : start + size]
    if kind == "raw":
        image = torch.from_numpy(pixels.reshape(height, width, 3).copy()).permute(2, 0, 1)
    else:
        image = decode_image(pixels.data, name=name, plain=kind == "jpeg")
    start += _up(size)
    sample: dict[str, Any] = {"image": image, **head["plain"]}
    if "size" in sample:
        sample["size"] = tuple(sample["size"])
    if "truth" in sample:
        sample["truth"] = truth_from_plain(sample["truth"])
    for field, stored, coding, dtype, shape, size in head["fields"]:
        sample[field] = _tensor(record[start : start + size], stored, coding, dtype, shape)
        start += _up(size)
    return cast(Sample, sample)


def check_value(record: Bytes, form: Form) -> int:
    """Return the check value of a record, which changes when its bytes do."""
    if form == "jpeg":
        return zlib.crc32(record.data)
    return int(record.view(np.uint64).sum(dtype=np.uint64))


def _field(name: str, value: Tensor, compress: bool) -> tuple[list[Any], bytes]:
    """Return how a tensor is stored, and its bytes: class maps and masks narrow, long ones compressed."""
    array = value.detach().cpu().contiguous().numpy()
    dtype = str(array.dtype)
    if dtype not in _TYPES:
        raise DataError(f"Expected a field of type {', '.join(_TYPES)}, but got {dtype}.", field=name)
    stored, coding = dtype, "plain"
    if dtype == "int64" and array.nbytes > _SMALL and array.min() >= 0 and array.max() <= 255:
        array, stored = array.astype(np.uint8), "uint8"
    if dtype == "uint8" and array.nbytes > _SMALL and array.max(initial=0) <= 1:
        array, coding = np.packbits(array), "bits"
    data = array.tobytes()
    if compress and len(data) > _SMALL:
        data, coding = zlib.compress(data, 1), f"{coding}+zlib"
    return [name, stored, coding, dtype, list(value.shape), len(data)], data


def _tensor(data: Bytes, stored: str, coding: str, dtype: str, shape: list[int]) -> Tensor:
    if coding.endswith("+zlib"):
        data = np.frombuffer(bytearray(zlib.decompress(data.data)), np.uint8)
    bits = coding.startswith("bits")
    array = np.unpackbits(data, count=int(np.prod(shape))) if bits else data.view(stored)
    return torch.from_numpy(array.reshape(shape).astype(dtype))


def _up(length: int) -> int:
    return -(-length // _WORD) * _WORD


def _padded(part: bytes) -> bytes:
    return part + b"\0" * (_up(len(part)) - len(part))
