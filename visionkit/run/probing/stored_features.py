"""Features computed once and stored in parts: a killed or a second call begins with those that are there."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.data.splits import Subset, fingerprint
from visionkit.errors import DataError, RunError
from visionkit.files import remove_parts, write_atomic, write_text, writing
from visionkit.run.advice.vectors import image_batches
from visionkit.run.probing.networks import FeatureNetwork
from visionkit.types import Reader

__all__ = ["features_folder", "stored_features"]

_PART = 256  # images of a file
_FORMAT = 1


def features_folder(out: str | Path, reader: Reader, network: FeatureNetwork) -> Path:
    """Return the folder of the features of these images by this network: other ones have another.

    Args:
        out: The folder of the probe.
        reader: The images.
        network: What gives their features.
    """
    return _folder(out, _key(reader, network))


def stored_features(
    out: str | Path, reader: Reader, network: FeatureNetwork, *, advance: Callable[[], None] = lambda: None
) -> dict[str, NDArray[np.float32]]:
    """Return the features of all images, each part from its file, or computed and then stored.

    Args:
        out: The folder of the probe; the files are in `features/` of it, a folder each for network and data.
        reader: The images.
        network: What gives their features.
        advance: Called after each image, also one whose features were stored.

    Returns:
        `(N, D)` by the name of the level.

    Raises:
        DataError: A feature is not finite: the image and the level are named; or an image cannot be read.
        RunError: A stored file is damaged, or the folder cannot be written.
    """
    key = _key(reader, network)
    folder = _folder(out, key)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_parts(folder)
        write_text(folder / "key.json", json.dumps(key, indent=1) + "\n")
    parts = []
    for start in range(0, len(reader), _PART):
        rows = range(start, min(start + _PART, len(reader)))
        path = folder / f"{start:07d}.npz"
        if path.is_file():
            parts.append(_read(path, len(rows), set(network.levels)))
            for _ in rows:
                advance()
            continue
        made = _compute(Subset(reader, rows), network, advance)
        with writing(folder):
            write_atomic(path, lambda part, made=made: _write(part, made))  # type: ignore[misc]
        parts.append(made)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _folder(out: str | Path, key: Mapping[str, object]) -> Path:
    text = json.dumps(key, sort_keys=True)
    return Path(out) / "features" / hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _key(reader: Reader, network: FeatureNetwork) -> Mapping[str, object]:
    return {"format": _FORMAT, "data": fingerprint(reader), "images": len(reader), **network.key}


def _compute(
    reader: Reader, network: FeatureNetwork, advance: Callable[[], None]
) -> dict[str, NDArray[np.float32]]:
    parts: list[dict[str, NDArray[Any]]] = []
    for batch in image_batches(reader, advance):
        made = {name: values.numpy() for name, values in network.features(batch).items()}
        for name, values in made.items():
            faulty = ~np.isfinite(values).all(1)
            if faulty.any():
                sample = batch[int(faulty.argmax())]
                raise DataError(
                    f"Expected finite features of level {name}, but those of {sample['id']!r} have NaN or "
                    "infinity. Take other weights, or another image."
                )
        parts.append(made)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _write(path: Path, values: Mapping[str, NDArray[np.float32]]) -> None:
    with path.open("wb") as file:
        np.savez(file, **values)  # type: ignore[arg-type]


def _read(path: Path, count: int, levels: Collection[str]) -> dict[str, NDArray[np.float32]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in arrays.files}
        for rows in values.values():
            if rows.ndim != 2 or len(rows) != count or rows.dtype != np.float32:
                raise ValueError(f"it does not hold {count} rows a level")
            if not np.isfinite(rows).all():
                raise ValueError("it holds NaN or infinity")
        if set(values) != levels:
            raise ValueError(f"its levels are {sorted(values)}")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise RunError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Delete it; the same command computes "
            "it again."
        ) from error
    return values
