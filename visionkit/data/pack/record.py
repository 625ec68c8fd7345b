"""A sample as the members of a WebDataset shard, and back, to the last bit.

    KEY.jpg (.png ...)  the image file; KEY.npy: its pixels, (H, W, 3) uint8
    KEY.cls             the class, where the sample has one
    KEY.mask.png        the class map, one number a pixel
    KEY.json            everything else: id, size, boxes, labels, masks as COCO's run lengths, captions ...
    KEY.FIELD.npy       any other tensor

None can run: members of other kinds, pickles among them, are never opened. A check value finds damage when a
sample is read: CRC-32 for compressed images, the sum of its 8-byte words for raw ones, which a CRC would slow
by half.
"""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from visionkit.data.formats.coco.segmentations import run_lengths
from visionkit.data.read_image import IMAGE_SUFFIXES
from visionkit.data.transforms.reduced import load_bytes
from visionkit.data.truth import encode_masks, plain_truth, truth_from_plain
from visionkit.errors import DataError, printable
from visionkit.types import Sample, Truth

__all__ = [
    "IMAGE_EXTENSIONS",
    "UNREADABLE",
    "Form",
    "check_value",
    "decode_sample",
    "encode_sample",
    "npy_bytes",
    "own_facts",
    "read_json",
    "unreadable",
]

UNREADABLE: tuple[type[Exception], ...] = (
    *(ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError, OSError),
    *(SyntaxError, Image.DecompressionBombError),
)
"""What JSON, arrays and images of others may raise."""

Form = Literal["jpeg", "raw"]
Bytes = NDArray[np.uint8]

IMAGE_EXTENSIONS = frozenset(
    f"{prefix}{suffix[1:]}" for suffix in IMAGE_SUFFIXES for prefix in ("", "image.", "img.", "input.")
)
"""Of members that are the image of a sample."""

_OWN = "visionkit"  # in the JSON: what only this library asks for
_LISTED: dict[str, tuple[type, tuple[int, ...]]] = {
    "label": (np.float32, (-1,)),
    "boxes": (np.float32, (-1, 4)),
    "labels": (np.int64, (-1,)),
    "iscrowd": (np.int64, (-1,)),
    "area": (np.float64, (-1,)),
    "keypoints": (np.float32, (-1, -1, 3)),
    "keypoint_flip": (np.int64, (-1,)),
    "region": (np.float32, (4,)),
}
"""Type and shape of fields that stand in the JSON as lists; NaN is null."""
_TENSORS = {*_LISTED, "masks", _OWN}
_decode = json.JSONDecoder().decode  # `json.loads` asks for the encoding first
_FIELD = re.compile(r"[a-z_][a-z0-9_]*")


def encode_sample(
    sample: Sample, image: tuple[str, bytes], *, compress: bool, own: Mapping[str, Any] | None = None
) -> dict[str, bytes]:
    """Return the members of a sample by extension.

    Args:
        sample: Any sample; its image is not looked at.
        image: Extension and content of its member.
        compress: Compress class maps.
        own: Plain values that `own_facts` gives back.

    Raises:
        DataError: A field is of a kind that cannot be packed.
    """
    plain: dict[str, Any] = {}
    parts: dict[str, bytes] = {}
    for name, value in sample.items():
        if name == "image":
            continue
        if name == "truth":
            plain[name] = plain_truth(cast(Truth, value))
        elif isinstance(value, Tensor):
            listed = _listed(name, value, sample)
            if listed is not None:
                plain[name] = listed
            else:
                extension, data = _member(name, value, sample.get("id"), compress)
                parts[extension] = data
        elif isinstance(value, str | int | float | list | tuple) and name not in _TENSORS:
            plain[name] = value
        else:
            text = f"Expected a tensor{'' if name in _TENSORS else ', a text or numbers'}, but got "
            text += f"{type(value).__name__}."
            raise DataError(text, path=sample.get("id"), field=name)
    if own:
        plain[_OWN] = dict(own)
    return {"json": _json(plain), **parts, image[0]: image[1]}


def decode_sample(parts: Mapping[str, Bytes], plain: Mapping[str, Any], name: str) -> Sample:
    """Return the sample of some members.

    Args:
        parts: The content of each by extension; those of other kinds are left alone. The pixels of a .npy
            become the image's memory where they may be written, other arrays are copied.
        plain: What `read_json` gave.
        name: What the sample is called in errors.

    Raises:
        DataError: The image cannot be read.
        ValueError: An annotation cannot be, or another of `UNREADABLE`.
    """
    own = own_facts(plain)
    image = _image(parts, name, upright=own.get("upright") is True)
    sample: dict[str, Any] = {"image": image}
    for field, value in plain.items():
        if field in _READERS:
            sample[field] = _READERS[field](field, value, image)
        elif field != _OWN:
            sample[field] = value
    for extension, data in parts.items():
        if extension == "cls":
            sample["label"] = torch.from_numpy(np.array(int(data.tobytes()), np.int64))
        elif extension == "mask.png":
            sample["mask"] = torch.from_numpy(_class_map(data, image))
        elif extension[-4:] == ".npy":
            sample[extension[:-4]] = torch.from_numpy(_array(data).copy())
    return cast(Sample, sample)


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Return an array as a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def read_json(parts: Mapping[str, Bytes]) -> dict[str, Any]:
    """Return the object of the JSON among some members, empty where there is none.

    Raises:
        ValueError: It is no object, or another of `UNREADABLE`.
    """
    if "json" not in parts:
        return {}
    plain = _decode(parts["json"].tobytes().decode())
    if not isinstance(plain, dict):
        raise ValueError(f"the JSON is no object but of type {type(plain).__name__}")
    return plain


def unreadable(error: Exception, file: Path, record: str) -> DataError:
    """Return the error that names the sample which raised one of `UNREADABLE`."""
    if isinstance(error, DataError):
        return error
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    text = f"Expected a sample of image and annotations, but it cannot be read ({reason}). Write it again."
    return DataError(text, path=file, record=printable(record))


def own_facts(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what `encode_sample` was given as `own`, from the JSON of a sample."""
    own = plain.get(_OWN)
    return own if isinstance(own, dict) else {}


def check_value(record: Bytes, form: Form) -> int:
    """Return the check value of a record of whole 8-byte words, which changes when its bytes do."""
    if form == "jpeg":
        return zlib.crc32(record.data)
    return int(np.add.reduce(record.view(np.uint64)))


def _json(plain: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # names of files that are no text
        return json.dumps(plain, separators=(",", ":")).encode()


def _image(parts: Mapping[str, Bytes], name: str, *, upright: bool) -> Tensor:
    for extension, data in parts.items():
        if extension in IMAGE_EXTENSIONS:
            return load_bytes(data.data, name=name, plain=upright)
        if extension == "npy":
            pixels = _array(data)
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
                raise ValueError(f"the pixels are {pixels.dtype} {pixels.shape}, not (H, W, 3) uint8")
            pixels = pixels if pixels.flags.writeable else pixels.copy()  # not the memory of a map
            return torch.from_numpy(pixels).permute(2, 0, 1)
    text = "Expected an image (jpg, png, webp ... or npy), but the sample has " + ", ".join(parts)
    raise DataError(f"{text}. Write the shard with images; pickles are never opened.", path=name)


def _listed(name: str, value: Tensor, sample: Sample) -> list[Any] | None:
    """Return a field as the list that stands in the JSON; None where that would not give it back."""
    if name == "masks":
        return _runs(value, sample)
    if name not in _LISTED:
        return None
    kind, shape = _LISTED[name]
    array = value.detach().cpu().numpy()
    if array.dtype != kind or array.ndim != len(shape) or np.isinf(array).any():
        return None
    if not array.size and (array.shape[1:] != shape[1:] or -1 in shape[1:]):
        return None
    listed: list[Any] = array.tolist() if not np.isnan(array).any() else _without_nan(array.tolist())
    return listed


def _without_nan(values: Any) -> Any:
    if isinstance(values, list):
        return [_without_nan(value) for value in values]
    return None if values != values else values


def _runs(value: Tensor, sample: Sample) -> list[Any] | None:
    if value.dtype != torch.uint8 or value.ndim != 3 or value.shape[1:] != sample["image"].shape[1:]:
        return None
    if value.numel() and int(value.max()) > 1:
        return None
    return [
        {"size": list(run["size"]), "counts": run["counts"].decode("ascii")} for run in encode_masks(value)
    ]


def _member(name: str, value: Tensor, sample: str | None, compress: bool) -> tuple[str, bytes]:
    """Return extension and content of a tensor that is no list in the JSON."""
    array = value.detach().cpu().contiguous().numpy()
    if name == "label" and array.ndim == 0 and array.dtype == np.int64:
        return "cls", str(int(array)).encode()
    stream = io.BytesIO()
    if name == "mask" and array.dtype == np.int64 and array.ndim == 2 and array.size:
        low, high = int(array.min()), int(array.max())
        if low >= 0 and high < 2**16:
            narrow = array.astype(np.uint8 if high < 256 else np.uint16)
            Image.fromarray(narrow).save(stream, "PNG", compress_level=int(compress))
            return "mask.png", stream.getvalue()
    if not _FIELD.fullmatch(name):
        text = (
            "Expected the name of a field in small letters, digits and _, which members of a shard may have."
        )
        raise DataError(text, path=sample, field=name)
    return f"{name}.npy", npy_bytes(array)


def _read_list(field: str, value: Any, image: Tensor) -> Tensor:
    kind, shape = _LISTED[field]
    if isinstance(value, int) and field == "label":
        return torch.tensor(value)
    array = np.array(value, np.float64 if kind is not np.int64 else None)
    if not array.size:
        return torch.from_numpy(np.zeros([max(side, 0) for side in shape], kind))
    if array.ndim != len(shape) or any(side not in (-1, is_) for side, is_ in zip(shape, array.shape)):
        raise ValueError(f"{field} has the shape {array.shape}")
    if kind is np.int64 and array.dtype != np.int64:
        raise ValueError(f"{field} has values of type {array.dtype}")
    return torch.from_numpy(array.astype(kind))


def _read_masks(field: str, runs: Any, image: Tensor) -> Tensor:
    """Return masks `(N, H, W)` of run lengths, which go down the columns."""
    height, width = image.shape[1:]
    masks = np.zeros((len(runs), width, height), np.uint8)
    for mask, run in zip(masks, runs):
        if tuple(run["size"]) != (height, width):
            raise ValueError(f"a mask is of {run['size']}, not of the image's height and width")
        lengths = np.array(_run_lengths(run["size"], run["counts"]), np.int64)
        mask.reshape(-1)[:] = np.repeat(np.arange(len(lengths)) % 2, lengths)
    return torch.from_numpy(np.ascontiguousarray(masks.transpose(0, 2, 1)))


def _run_lengths(shape: Any, counts: Any) -> Any:
    """Return the run lengths of a mask, which must fill it: the library of masks reads on past their end."""
    lengths = run_lengths(counts)
    if sum(lengths) != shape[0] * shape[1]:
        raise ValueError(f"run lengths of a mask do not fill {shape}")
    return lengths


def _read_truth(field: str, plain: Any, image: Tensor) -> Truth:
    for shape, counts in plain.get("masks") or ():
        _run_lengths(shape, counts)
    return truth_from_plain(plain)


def _read_size(field: str, value: Any, image: Tensor) -> tuple[int, int]:
    height, width = value
    return int(height), int(width)


_READERS: dict[str, Callable[[str, Any, Tensor], Any]] = {
    **dict.fromkeys(_LISTED, _read_list),
    "masks": _read_masks,
    "truth": _read_truth,
    "size": _read_size,
}
"""What gives a field of the JSON back."""


def _class_map(data: Bytes, image: Tensor) -> NDArray[np.int64]:
    with Image.open(io.BytesIO(data.data), formats=("PNG",)) as mask:
        if (mask.height, mask.width) != tuple(image.shape[1:]):
            raise ValueError(f"the class map has {mask.width} x {mask.height} pixels, not those of the image")
        if mask.mode not in ("1", "L", "P") and not mask.mode.startswith("I"):
            raise ValueError(f"the class map has the pixel type {mask.mode!r}, not one number a pixel")
        return np.array(mask).astype(np.int64)


def _array(data: Bytes) -> NDArray[Any]:
    """Return the array of a .npy file, without a copy."""
    magic = data[:10].tobytes()
    length = 10 + int.from_bytes(magic[8:], "little")
    if magic[:8] != b"\x93NUMPY\x01\x00" or length > len(data):
        raise ValueError("it is no .npy file of version 1")
    shape, dtype = _header(data[:length].tobytes())
    return data[length:].view(dtype).reshape(shape)


@lru_cache(maxsize=4096)
def _header(head: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of a .npy file, of which a data set has few; objects are refused."""
    stream = io.BytesIO(head)
    stream.seek(8)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if fortran or dtype.hasobject:
        raise ValueError("the array is not of numbers in C order")
    return shape, dtype
