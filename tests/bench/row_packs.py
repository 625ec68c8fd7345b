"""One pass over a pack, sample by sample in its order, beside other formats of large files."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.bench.images import write_folder
from tests.bench.row import Row, Sides, Size, pick
from tests.bench.row_images import decoding_with
from visionkit.data import PackSettings, image_folder, open_pack, pack

Pairs = list[tuple[np.ndarray[Any, Any], int]]


def by_webdataset(reader: Any, place: Path, form: str) -> Callable[[], Pairs]:
    """WebDataset itself, over the shards of our pack."""
    import webdataset

    data = webdataset.WebDataset(
        [str(file) for file in sorted(place.glob("train-*.tar"))], shardshuffle=False
    )
    data = data.decode("rgb8").to_tuple("npy" if form == "raw" else "jpg", "cls")
    return lambda: list(data)


def by_litdata(reader: Any, place: Path, form: str) -> Callable[[], Pairs]:
    """LitData's chunks, with the same pixels, or the same JPEG files."""
    import webdataset
    from litdata.streaming import Cache, StreamingDataset

    chunks = str(place / "chunks")
    cache = Cache(chunks, chunk_bytes="64MB")
    shards = [str(file) for file in sorted(place.glob("train-*.tar"))]
    for index, sample in enumerate(webdataset.WebDataset(shards, shardshuffle=False)):
        image = np.load(io.BytesIO(sample["npy"])) if form == "raw" else bytes(sample["jpg"])
        cache[index] = {"image": image, "label": int(sample["cls"])}
    cache.done()
    cache.merge()
    data = StreamingDataset(chunks)

    def once() -> Pairs:
        if form == "raw":
            return [(sample["image"], sample["label"]) for sample in data]
        return [(np.asarray(Image.open(io.BytesIO(s["image"])).convert("RGB")), s["label"]) for s in data]

    return once


def building(form: str, peer: Callable[[Any, Path, str], Callable[[], Pairs]]) -> Callable[[Size], Sides]:
    def build(size: Size) -> Sides:
        top = Path(tempfile.mkdtemp())
        splits = image_folder(write_folder(top / "photos", pick(size, tiny=4, quick=64, full=256)))
        place = pack(splits, top / "pack", settings=PackSettings(form=form))
        reader = open_pack(place).train
        theirs = peer(reader, place, form)

        def ours() -> Pairs:
            with decoding_with("pillow"):
                samples = [reader[index] for index in range(len(reader))]
            return [(s["image"].permute(1, 2, 0).numpy(), int(s["label"])) for s in samples]

        def equal(one: Pairs, other: Pairs) -> None:
            assert len(one) == len(other) == len(reader)
            for (image, label), (their_image, their_label) in zip(one, other, strict=True):
                assert label == their_label
                assert np.array_equal(image, their_image)

        return Sides(ours, theirs, equal, close=lambda: shutil.rmtree(top, ignore_errors=True))

    return build


NOTE = "Both sides use Pillow. Ours can take any order at the same cost, and checks every sample."
WEBDATASET, LITDATA = "webdataset on the same shards", "LitData's chunks of the same images"
BOTH = ("webdataset", "litdata")
ROWS = (
    Row("one pass over raw pixels, webdataset", WEBDATASET, building("raw", by_webdataset), goal=1.0,
        limit="copying the pixels", package="webdataset", needs=("webdataset",), note=NOTE),
    Row("one pass over raw pixels, LitData", LITDATA, building("raw", by_litdata), goal=1.0,
        limit="copying the pixels", package="litdata", needs=BOTH, note=NOTE),
    Row("one pass over JPEGs, webdataset", WEBDATASET, building("jpeg", by_webdataset), goal=1.0,
        limit="decoding", package="webdataset", needs=("webdataset",), note=NOTE),
    Row("one pass over JPEGs, LitData", LITDATA, building("jpeg", by_litdata), goal=1.0,
        limit="decoding", package="litdata", needs=BOTH, note=NOTE),
)  # fmt: skip
