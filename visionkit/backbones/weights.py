"""Provenance of weights (`WeightsInfo`), and the reader of weights files, which runs no code in them."""

from __future__ import annotations

import hashlib
import json
import pickle
import pickletools
import re
import stat
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from visionkit.backbones.sources.trained import WEIGHTS, published_config, trained_file
from visionkit.errors import InputError, first_line, nearest
from visionkit.files import file_digest, local_path
from visionkit.types import init_is_path

__all__ = [
    "REFUSALS",
    "WeightsInfo",
    "check_file",
    "checkpoint_record",
    "portable_init",
    "read_state_dict",
    "split_init",
    "weights_digest",
]

_MAX_BYTES = 16 * 2**30
REFUSALS = ("Unsupported", "GLOBAL")  # in lines of torch's unpickler that name the reason
_CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "state_dict_ema")
_LEGACY_PICKLES = 4  # magic number, protocol version, system facts, then the object itself


@dataclass(frozen=True)
class WeightsInfo:
    """Provenance of a network's weights.

    Args:
        source: "none" (scratch), "timm", "torchvision", "package", "user" or "file".
        name: The architecture the weights belong to.
        tag: Name of the weights ("a1_in1k", "IMAGENET1K_V2"); empty when there is none.
        training_data: Data set that the weights were trained on, as far as the source documents it.
        licence: The licence of the weights, as far as the source documents it.
        digest: SHA-256 of the weights file, 64 hexadecimal digits; empty for scratch.
        file: Name of the weights file, without its folder: the record travels with checkpoints and results.
        adapted: Changes that were made to fit the images ("input layer from 3 to 13 channels"); empty if
            none.
        doubt: Why the weights look as if they were never trained; empty if they do not.
    """

    source: str = "none"
    name: str = ""
    tag: str = ""
    training_data: str = ""
    licence: str = ""
    digest: str = ""
    file: str = ""
    adapted: str = ""
    doubt: str = ""

    @property
    def trained(self) -> bool:
        """Whether the weights are trained: false for scratch."""
        return self.source != "none"

    def as_dict(self) -> dict[str, str]:
        """Return the record as a plain dict of strings."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, str]) -> WeightsInfo:
        """Return the record from a plain dict, as in checkpoints; older ones have a full path."""
        plain = dict(value)
        path = plain.pop("path", "")
        plain.setdefault("file", re.split(r"[/\\]", path)[-1])
        return cls(**plain)


def split_init(init: str) -> tuple[Path, str]:
    """Return the file of an `init` and the prefix of the network within it: "weights.pt#teacher.backbone".

    A file whose own name has a "#" is taken as it is. Of a run, a folder of runs and a published folder it
    is the file with the (best) weights.

    Raises:
        InputError: A folder without a trained task.
    """
    path, prefix = Path(init).expanduser(), ""
    before, mark, after = init.rpartition("#")
    if mark and not path.exists():
        path, prefix = Path(before).expanduser(), after.strip(".")
    return trained_file(path) if path.is_dir() else path, prefix


def portable_init(init: str) -> str:
    """Return an `init` without machine paths: for a path the name and digest of the file, not its folder."""
    if not init_is_path(init):
        return init
    path, prefix = split_init(init)
    known = f" {file_digest(path)[:16]}" if path.is_file() else ""
    return f"{path.name}{'#' if prefix else ''}{prefix}{known}"


def check_file(path: str | Path, *, max_bytes: int = _MAX_BYTES) -> Path:
    """Return the path of a weights file after checking its size, packed and unpacked.

    Args:
        path: A regular file on this machine; none of it is loaded.
        max_bytes: Largest size of the file, and of its unpacked content.

    Raises:
        InputError: The path is a URL or no regular file, or the file is empty, too large or a zip bomb.
    """
    file = _local_file(path, max_bytes)
    with file.open("rb") as stream:
        packed = stream.read(2) == b"PK"
    if packed:
        try:
            _check_zip(file, max_bytes)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{file}: The file is damaged ({type(error).__name__}: {error}).") from error
    return file


def checkpoint_record(path: str | Path) -> dict[str, Any]:
    """Return the hyper-parameters and the library's entries of a checkpoint, without its tensors.

    Those of a published folder's weights are in `config.json` beside them.

    Args:
        path: A file that `check_file` has passed.

    Returns:
        "hyper_parameters" and "visionkit", each a dict, empty where the file has none.
    """
    try:
        if Path(path).name == WEIGHTS:
            config = published_config(Path(path).parent) or {}
            raw: Any = {**config, "hyper_parameters": config.get("settings")}
        else:
            raw = torch.load(path, map_location="meta", weights_only=True)
    except Exception:  # reported when the full file is read
        raw = {}
    content = raw if isinstance(raw, dict) else {}
    entries = {name: content.get(name) for name in ("hyper_parameters", "visionkit")}
    return {name: dict(value) if isinstance(value, dict) else {} for name, value in entries.items()}


def read_state_dict(
    path: str | Path, *, max_bytes: int = _MAX_BYTES, prefix: str | None = None
) -> dict[str, Tensor]:
    """Read a weights file without running code in it.

    Reads safetensors and `torch.save` files (through `torch.load(weights_only=True)`), recognised by content,
    not by file name. A file that wraps its tensors ("state_dict", "model", ...) or prefixes them ("module.")
    is unwrapped; one that wraps several networks ("student", "teacher") gives names with those before them.

    Args:
        path: A regular file on this machine.
        prefix: Return only the tensors under this prefix ("teacher.backbone"), without it.
        max_bytes: Largest size of the file, and of its unpacked content, checked before anything is
            allocated.

    Returns:
        Names to tensors, on the CPU.

    Raises:
        InputError: The path is a URL or no regular file, the file is too large, damaged, contains code, or
            contains something else than named tensors.
    """
    file = _local_file(path, max_bytes)
    with file.open("rb") as stream:
        head = stream.read(9)
    try:
        if head[:2] == b"PK":
            _check_zip(file, max_bytes)
            raw = torch.load(file, map_location="cpu", weights_only=True)
        elif _is_safetensors(head, file.stat().st_size):
            from safetensors.torch import load_file

            raw = load_file(file, device="cpu")
        elif head[:1] == b"\x80":
            with file.open("rb") as stream:
                _check_pickle(stream, file.stat().st_size, _LEGACY_PICKLES)
            raw = torch.load(file, map_location="cpu", weights_only=True)
        else:
            raise InputError(
                f"{file}: Expected a safetensors file or one written by torch.save, but it begins with "
                f"{head[:8]!r}. Save the state dict again with safetensors.torch.save_file."
            )
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{file}: Refused to read this weights file: it holds more than tensors, and reading it could "
            f"run code ({first_line(error, prefer=REFUSALS)}). Save only `model.state_dict()`, best with "
            "safetensors.torch.save_file."
        ) from error
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{file}: The weights file is damaged or incomplete ({type(error).__name__}: "
            f"{first_line(error, prefer=REFUSALS)}). Fetch or save it again."
        ) from error
    return _named_tensors(raw, file) if prefix is None else _part(raw, file, prefix)


def _local_file(path: str | Path, max_bytes: int) -> Path:
    file = local_path(path, "a weights file").expanduser()
    if not file.exists():
        raise InputError(
            f"{file}: There is no such weights file. Give the path of a safetensors or torch.save file."
        )
    file = file.resolve()
    facts = file.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise InputError(f"{file}: Expected a regular weights file, but it is a folder, a pipe or a device.")
    if facts.st_size == 0:
        raise InputError(f"{file}: The weights file is empty. Fetch or save it again.")
    if facts.st_size > max_bytes:
        raise InputError(
            f"{file}: The weights file holds {facts.st_size:,} bytes; the limit is {max_bytes:,} "
            "(max_bytes=)."
        )
    return file


def _is_safetensors(head: bytes, size: int) -> bool:
    return len(head) == 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= size - 8


def _check_zip(file: Path, max_bytes: int) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        total = sum(entry.file_size for entry in entries)
        # What torch.save writes is not compressed: it unpacks to what it is.
        limit = min(max_bytes, 2 * file.stat().st_size + 2**20)
        if total > limit:
            raise InputError(
                f"{file}: The weights file unpacks to {total:,} bytes; the limit is {limit:,} (max_bytes=, "
                "and twice the file)."
            )
        for entry in entries:
            if entry.filename.endswith("/data.pkl"):
                with archive.open(entry) as stream:
                    _check_pickle(stream, total, 1)


def _check_pickle(stream: IO[bytes], size: int, pickles: int) -> None:
    """Refuse a storage that claims more elements than the file has bytes, before it is allocated."""
    for _ in range(pickles):
        last = 0
        for opcode, argument, _position in pickletools.genops(stream):
            if (isinstance(argument, int) and "INT" in opcode.name) or opcode.name.startswith("LONG"):
                last = int(argument or 0)
            elif opcode.name == "BINPERSID" and last > size:
                raise InputError(
                    f"The weights file claims a tensor of {last:,} elements in {size:,} bytes: it is "
                    "damaged or hostile."
                )


def _named_tensors(raw: Any, file: Path) -> dict[str, Tensor]:
    for key in _CONTAINERS:
        if isinstance(raw, Mapping) and isinstance(raw.get(key), Mapping):
            raw = raw[key]
            break
    if not isinstance(raw, Mapping) or not raw:
        raise InputError(
            f"{file}: Expected named tensors (a state dict), but the file holds {type(raw).__name__}. "
            "Save `model.state_dict()`."
        )
    wrong = [
        str(key) for key, value in raw.items() if not (isinstance(key, str) and isinstance(value, Tensor))
    ]
    if wrong:
        flattened = {} if any(isinstance(value, Tensor) for value in raw.values()) else _flat(raw)
        if flattened:
            return flattened
        raise InputError(
            f"{file}: Expected named tensors (a state dict), but {json.dumps(wrong[0])} is no tensor. "
            "Save `model.state_dict()`."
        )
    if all(key.startswith("module.") for key in raw):
        return {key.removeprefix("module."): value for key, value in raw.items()}
    return dict(raw)


def _flat(raw: Any) -> dict[str, Tensor]:
    """Return the tensors of a file that wraps several state dicts, under WRAPPER.NAME."""
    if not isinstance(raw, Mapping):
        return {}
    entries = {key: value for key, value in raw.items() if isinstance(key, str) and isinstance(value, Tensor)}
    for key, part in raw.items():
        if isinstance(part, Mapping) and part and all(isinstance(value, Tensor) for value in part.values()):
            entries |= {f"{key}.{name}": value for name, value in part.items()}
    return entries


def _part(raw: Any, file: Path, prefix: str) -> dict[str, Tensor]:
    """Return the tensors under a prefix; the usual wrappers of one state dict need not be named."""
    named = _flat(raw)
    for before in (f"{prefix}.", *(f"{key}.{prefix}." for key in _CONTAINERS)):
        part = {key.removeprefix(before): value for key, value in named.items() if key.startswith(before)}
        if part:
            return part
    parents = {".".join(k.split(".")[:depth]) for k in named for depth in range(1, min(k.count(".") + 1, 5))}
    close = nearest(prefix, parents)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    first = ", ".join(sorted({key.partition(".")[0] for key in named})[:8]) or "none"
    raise InputError(
        f"{file}: There are no weights under the prefix {prefix!r}.{hint} The names begin with: {first}."
    )


def weights_digest(modules: Iterable[nn.Module]) -> str:
    """Return the SHA-256 of all parameters and buffers of some modules, with their names, shapes and types.

    Args:
        modules: In their order; on any device.
    """
    digest = hashlib.sha256()
    for module in modules:
        for name, value in sorted(module.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
