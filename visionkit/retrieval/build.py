"""`build_index`: every image through an encoder once, shard by shard; what was interrupted is continued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import visionkit
from visionkit.data.formats.options import OpenOptions
from visionkit.errors import DataError, InputError, unknown_name
from visionkit.files import PART, file_digest, local_path, remove_parts, write_text, writing
from visionkit.predict.predictor import Predictor
from visionkit.predict.sources import SourceItem
from visionkit.retrieval.encoder import check_encoder, load_encoder
from visionkit.retrieval.gallery import GalleryItem, gallery_items
from visionkit.retrieval.layout import (
    INDEX_FORMAT,
    MANIFEST,
    PENDING,
    Row,
    is_index,
    read_manifest,
    read_shard,
    shard_name,
    write_shard,
)
from visionkit.retrieval.neighbors import METRICS, Metric
from visionkit.run.storage.lock import FILE, hold

__all__ = ["IndexReport", "build_index"]

SHARD_ROWS = 2048
_EXAMPLES = 5


@dataclass
class IndexReport:
    """What `build_index` did.

    Args:
        folder: The index.
        count: Images that it has now.
        added: Images of them that are new.
        known: Images that it had before, and that were left as they are.
        dim: Length of the vectors.
        unread: Images that could not be read, with the error; they are left out.
        copies: How many images have the very content of an earlier one.
        copy_examples: Names of up to five of them, each with that of the earlier one.
        notes: What was assumed or left out while the data were read, in sentences.
    """

    folder: Path
    count: int = 0
    added: int = 0
    known: int = 0
    dim: int = 0
    unread: list[tuple[str, str]] = field(default_factory=list)
    copies: int = 0
    copy_examples: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Job:
    """What is written: images that the index does not have, in shards from `first` on."""

    folder: Path
    predictor: Predictor
    items: list[GalleryItem]
    first: int
    batch_size: int
    progress: Callable[[int, int], object]


def build_index(
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    backbone: str | Path,
    init: str = "pretrained",
    metric: Metric = "cosine",
    split: Sequence[str] = ("all",),
    image_size: int = 0,
    options: OpenOptions = OpenOptions(target=None),  # noqa: B008
    batch_size: int = 0,
    device: str = "auto",
    precision: str = "32-true",
    which: str = "best",
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> IndexReport:
    """Write the vectors of all images into a folder; those that an index there has are left as they are.

    The folder is an index from its last write on: until then an interrupted call is continued by the same
    one, with the same bytes at the end, and an index that is added to stays what it was.

    Args:
        data: A data set of any format of `visionkit.data.open_dataset`, "scenes", or images: a folder, a
            file, a glob, or a list of these.
        out: Where the index is, or will be.
        backbone: A backbone's name, or a run, a checkpoint or a published folder: see `load_encoder`.
        init: For a backbone: "pretrained", "scratch", the name of weights or a path to them.
        metric: "cosine" or "l2" (of the vectors as the encoder gives them).
        split: Of a data set: "train", "val", "test", some of them, or "all".
        image_size: Side of the images in pixels; 0: that of the weights, or of the training.
        options: What the caller knows of the data set.
        batch_size: Images at once; 0: 32.
        device: "auto", "cpu", "gpu" or "mps".
        precision: "32-true", "bf16-mixed" or "16-mixed".
        which: For a run: "best" or "last".
        progress: Called after each image with how many are done and how many there are.

    Returns:
        What was done. Images that cannot be read are named in it and left out.

    Raises:
        InputError: The folder holds something else, or an index of another encoder or metric; an image has
            changed since it was indexed.
        DataError: The data set, the index or the weights are damaged, a vector is not finite, or no image can
            be read.
        RunError: The folder cannot be written.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    path = local_path(out, "a folder to write")
    items, notes = gallery_items(data, split=split, options=options)
    before = _earlier(path)
    if before is not None and before["metric"] != metric:
        raise InputError(f"Expected the metric of the index in {path}, {before['metric']}, but got {metric}.")
    predictor = load_encoder(
        backbone, init=init, image_size=image_size, device=device, precision=precision, which=which
    )
    if before is not None:
        check_encoder(predictor.facts, before["encoder"])
    rows = _rows(path, before["shards"]) if before is not None else []
    new = _new_items(items, rows)
    report = IndexReport(path, known=len(items) - len(new), notes=[*notes, *predictor.notes])
    shards = list(before["shards"]) if before is not None else []
    first = 1 + max((int(Path(each["name"]).stem.rpartition("-")[2]) for each in shards), default=-1)
    with writing(path), hold([path]):
        if _earlier(path) != before:
            raise InputError(
                f"Expected the index in {path} as it was, but another command has written it. Repeat this "
                "one."
            )
        job = _Job(path, predictor, new, first, batch_size, progress)
        _open_folder(job, metric, finished=before is not None)
        for number in range(0, len(new), SHARD_ROWS):
            written = _shard(job, number // SHARD_ROWS)
            report.unread += written["unread"]
            rows += written["rows"]
            if written["rows"]:
                shards.append(written["shard"])
        report.count = len(rows)
        report.added = report.count - (before["count"] if before is not None else 0)
        if not rows:
            raise _without_images(job, report)
        report.dim = int(shards[0]["dim"])
        facts = {"metric": metric, "dim": report.dim, "count": len(rows), "encoder": predictor.facts}
        _close_folder(path, {**facts, "shards": shards})
    _count_copies(report, rows)
    return report


def _without_images(job: _Job, report: IndexReport) -> DataError:
    """Remove what was written, so that the folder can have other images, and return the error."""
    for file in (*job.folder.glob("vectors-*"), job.folder / PENDING):
        file.unlink(missing_ok=True)
    name, error = report.unread[0] if report.unread else ("", "there is none")
    return DataError(
        f"Expected images that can be read, but of {len(job.items)} none can: {error}", path=name
    )


def _earlier(path: Path) -> dict[str, Any] | None:
    """Return the description of the index in a folder; None where it is new or unfinished.

    Raises:
        InputError: The folder holds something else.
    """
    if is_index(path):
        return read_manifest(path)
    if path.exists() and not (path / PENDING).is_file():
        others = [] if not path.is_dir() else [each.name for each in path.iterdir()]
        others = [name for name in others if name != FILE and not name.endswith(PART)]
        if others or not path.is_dir():
            what = f"holds {sorted(others)[0]}" if others else "is a file"
            raise InputError(
                f"Expected a new folder or an index at {path}, but it {what}. Give another --out."
            )
    return None


def _rows(path: Path, shards: Sequence[dict[str, Any]]) -> list[Row]:
    return [row for each in shards for row in read_shard(path / each["name"], known=each).rows]


def _new_items(items: Sequence[GalleryItem], rows: Sequence[Row]) -> list[GalleryItem]:
    """Return the images that the index does not have; those that it has must be what they were."""
    known = {row.key: row.digest for row in rows}
    new, changed = [], []
    for item in items:
        if item.key not in known:
            new.append(item)
        elif item.digest() != known[item.key]:
            changed.append(item.name)
    if changed:
        raise InputError(
            f"Expected the images of the index as they were, but {len(changed)} have changed since, the "
            f"first is {changed[0]}. Make a new index: give another --out."
        )
    return new


def _open_folder(job: _Job, metric: str, *, finished: bool) -> None:
    """Make the folder, and note what is being written; what an interrupted call left must be of the same."""
    names = hashlib.sha256("\n".join(item.key for item in job.items).encode("utf-8", "surrogateescape"))
    facts = job.predictor.facts
    plain = [INDEX_FORMAT, metric, SHARD_ROWS, job.batch_size, job.first, names.hexdigest()]
    key = hashlib.sha256(
        json.dumps([*plain, *(facts[name] for name in ("digest", "preprocess", "precision"))]).encode()
    ).hexdigest()
    job.folder.mkdir(parents=True, exist_ok=True)
    pending = job.folder / PENDING
    try:
        earlier = json.loads(pending.read_text(encoding="utf-8"))["key"] if pending.is_file() else key
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"it is damaged ({error}). Remove the folder.", path=pending) from error
    if earlier != key and not finished:
        raise InputError(
            f"Expected to continue the unfinished index in {job.folder}, but it is of other images or "
            "settings. Repeat the command that was interrupted, or remove the folder."
        )
    if earlier != key or not pending.is_file():  # shards of another addition, or none
        for file in job.folder.glob("vectors-*"):
            number = file.name.partition("-")[2].partition(".")[0]
            if number.isdigit() and int(number) >= job.first:
                file.unlink()
    write_text(pending, json.dumps({"key": key, "images": len(job.items)}))


def _close_folder(path: Path, facts: dict[str, Any]) -> None:
    """Write what the index holds, from which on the folder is one."""
    manifest = {"format": INDEX_FORMAT, "visionkit": visionkit.__version__, **facts}
    write_text(path / MANIFEST, json.dumps(manifest, indent=1))
    (path / PENDING).unlink(missing_ok=True)
    remove_parts(path)


def _shard(job: _Job, number: int) -> dict[str, Any]:
    """Return what there is to say of a shard, which is written unless it is there as it should be."""
    file = job.folder / shard_name(job.first + number)
    start = number * SHARD_ROWS
    items = job.items[start : start + SHARD_ROWS]
    try:
        done = read_shard(file)
        if not done.rows:
            raise DataError("Expected images in it, but it has none: they are read again.", path=file)
        _new_items(items, done.rows)  # refuses images that have changed since
    except DataError:
        _write(job, file, items, start)
        done = read_shard(file, check=False)
    job.progress(start + len(items), len(job.items))
    return {
        "rows": done.rows,
        "unread": done.unread,
        "shard": {
            "name": file.name,
            "rows": len(done.rows),
            "dim": int(done.vectors.shape[1]),
            "sha256": file_digest(file),
            "rows_sha256": file_digest(file.with_suffix(".jsonl")),
        },
    }


def _write(job: _Job, file: Path, items: Sequence[GalleryItem], start: int) -> None:
    digests: dict[int, str] = {}
    unread: list[tuple[str, str]] = []
    vectors, rows = [], []

    def source(index: int, item: GalleryItem) -> SourceItem:
        def read() -> Any:
            pixels = item.read()
            plain = pixels.contiguous().numpy().tobytes() if not item.path else b""
            digests[index] = file_digest(item.path) if item.path else hashlib.sha256(plain).hexdigest()
            return pixels

        return SourceItem(str(index), item.path or None, read)

    def note(index: str, error: DataError) -> None:
        unread.append((items[int(index)].name, str(error)))

    sources = [source(index, item) for index, item in enumerate(items)]
    for result in job.predictor.stream(sources, batch_size=job.batch_size, on_error=note):
        index = int(result.id)
        item, vector = items[index], result.prediction.vector.numpy()
        if not np.isfinite(vector).all():
            raise DataError(
                "Expected a vector of finite numbers, but it has NaN or infinity. Take other weights, or "
                "--precision 32-true.",
                path=item.path or item.name,
            )
        vectors.append(vector)
        rows.append(Row(item.name, item.path, item.split, item.label, digests[index]))
        job.progress(start + index + 1, len(job.items))
    stacked = np.stack(vectors) if vectors else np.empty((0, 0), np.float32)
    write_shard(file, stacked, rows, unread)


def _count_copies(report: IndexReport, rows: Sequence[Row]) -> None:
    """Count the images that have the content of an earlier one, and name some."""
    first: dict[str, str] = {}
    for row in rows:
        if row.digest not in first:
            first[row.digest] = row.name
            continue
        report.copies += 1
        if len(report.copy_examples) < _EXAMPLES:
            report.copy_examples.append((row.name, first[row.digest]))
