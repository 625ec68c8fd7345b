"""Detect the format of captioned images, and read their records with the module of that format.

Files that are read here are not trusted: every error is collected with its file and record, and no file name
leads out of the folder of the images.
"""

from __future__ import annotations

from pathlib import Path

from visionkit.data.formats.captions.collector import (
    CaptionCollector,
    CaptionFormat,
    CaptionImages,
    CaptionRecord,
    CaptionRecords,
)
from visionkit.data.formats.captions.folders import (
    caption_column,
    is_text_per_image,
    read_huggingface_captions,
    read_text_per_image,
)
from visionkit.data.formats.captions.json_files import (
    IMAGE_FOLDERS,
    is_coco_captions,
    is_karpathy,
    read_coco_captions,
    read_karpathy,
)
from visionkit.data.formats.captions.text_files import has_caption_columns, read_caption_lists
from visionkit.data.formats.csv.delimited import read_header
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED

__all__ = [
    "CaptionFormat",
    "CaptionRecord",
    "CaptionRecords",
    "caption_format",
    "is_captions",
    "read_caption_records",
]

_LAYOUTS = """
  captions.txt or .csv    image,caption on each line, images in Images/ or beside it
  Flickr8k.token.txt      image.jpg#0<tab>caption, with *train*.txt, *dev*.txt and *test*.txt
  results.csv             image_name| comment_number| comment
  dataset_*.json          Karpathy's
  annotations/captions_*.json, or another json file with COCO's captions
  metadata.jsonl or .csv  file_name and text (Hugging Face)
  photo.jpg, photo.txt    a text file beside each image"""


def is_captions(root: str | Path) -> bool:
    """Return whether a path holds captions of images; it never raises.

    Args:
        root: Any path.
    """
    return caption_format(root) is not None


def caption_format(path: str | Path) -> tuple[CaptionFormat, Path] | None:
    """Return what captions a path holds, and the file or folder that holds them; None if it holds none.

    It never raises.

    Args:
        path: A json file (Karpathy's, or COCO's captions), a `captions.txt`, a table with columns of images
            and captions, a token file, or a folder with one of these, with `annotations/captions_*.json`,
            with Hugging Face's metadata, or with a text file for each image.
    """
    try:
        candidates = _candidates(Path(path))
    except (OSError, ValueError):
        return None
    return candidates[0] if candidates else None


def _candidates(path: Path) -> list[tuple[CaptionFormat, Path]]:
    """Return every reading of a path as captions, the one to take first."""
    if path.is_file():
        kind = _file_kind(path)
        return [(kind, path)] if kind else []
    if not path.is_dir():
        return []
    candidates: list[tuple[CaptionFormat, Path]] = []
    if any((path / "annotations").glob("captions_*.json")):
        candidates.append(("coco", path))
    entries = sorted(
        entry for entry in path.iterdir() if entry.suffix.lower() in (".json", ".txt", ".csv", ".token")
    )
    files = [file for file in entries if file.is_file()]
    candidates += [
        ("karpathy", file) for file in files if file.suffix.lower() == ".json" and is_karpathy(file)
    ]
    candidates += [("flickr", file) for file in files if file.name.lower() == "captions.txt"]
    # Flickr8k_text holds the captions and their words' base forms: the captions are meant.
    tokens = [file for file in files if ".token" in file.name.lower()]
    candidates += [
        ("flickr", file)
        for file in sorted(tokens, key=lambda file: ("lemma" in file.name.lower(), file.name))
    ]
    if caption_column(path):
        candidates.append(("huggingface", path))
    candidates += [("flickr", file) for file in files if file.suffix.lower() == ".csv" and _is_table(file)]
    if not candidates:
        jsons = [file for file in files if file.suffix.lower() == ".json"]
        jsons += sorted((path / "annotations").glob("*.json"))
        candidates += [("coco", file) for file in jsons if is_coco_captions(file)]
    if not candidates and is_text_per_image(path):
        candidates.append(("text", path))
    return candidates


def _file_kind(file: Path) -> CaptionFormat | None:
    name = file.name.lower()
    if file.suffix.lower() == ".json":
        if name.startswith("captions_") or is_coco_captions(file):
            return "coco"
        return (
            "karpathy"
            if is_karpathy(file) or (name.startswith("dataset") and not _of_objects(file))
            else None
        )
    if (
        name == "captions.txt"
        or ".token" in name
        or (file.suffix.lower() in (".csv", ".txt") and _is_table(file))
    ):
        return "flickr"
    return None


def _is_table(file: Path) -> bool:
    """Return whether a text file begins with a header of images and captions."""
    name = file.name.lower()
    return name in ("captions.csv", "results.csv") or (
        name != "metadata.csv" and has_caption_columns(read_header(file))
    )


def _of_objects(file: Path) -> bool:
    """Return whether a json file begins like COCO's files of objects, which name images by `file_name`."""
    with file.open("rb") as handle:
        head = handle.read(65_536)
    return any(key in head for key in (b'"file_name"', b'"annotations"', b'"categories"'))


def read_caption_records(
    path: str | Path, *, images: str | Path | None = None, max_dropped: float = MAX_DROPPED
) -> CaptionRecords:
    """Read the captions of every image, collect every error of the files, and count what is left out.

    Images are looked for, but not decoded.

    Args:
        path: As `caption_format` takes it.
        images: The folder of the images, if it is not where the format has it.
        max_dropped: Fraction of the images, and of the captions, that may be left out.

    Raises:
        DataError: There are no captions here, or a file cannot be read at all.
    """
    candidates = _candidates(Path(path)) if Path(path).exists() else []
    if not candidates:
        raise DataError(f"Expected captions in one of these layouts, but there is none:{_LAYOUTS}", path=path)
    kind, source = candidates[0]
    top = Path(images) if images is not None else _root(kind, source)
    if not top.is_dir():
        raise DataError("Expected the folder of the images, but there is none by this name.", path=top)
    collector = CaptionCollector(source, max_dropped)
    if kind == "karpathy":
        read_karpathy(source, top, collector)
    elif kind == "coco":
        read_coco_captions(_coco_files(source, candidates), top, collector)
    elif kind == "flickr":
        read_caption_lists(source, CaptionImages(top), collector)
    elif kind == "huggingface":
        read_huggingface_captions(source, collector)
    else:
        read_text_per_image(source, collector)
    for other_kind, other in candidates[1:]:
        if other_kind != kind or kind != "coco":
            text = f"{other.name or other} ({source.name} was read; give the file to read the other)"
            collector.images.add("other files of captions not read", text, harmless=True)
    unlisted = [record.id for record in collector.records if record.split == "none"]
    if unlisted:
        text = f"{unlisted[0]} of {source} stands in no list"
        what = "images with captions that no list of a split names, in no split"
        collector.images.add(what, text, count=len(unlisted), harmless=True)
    return collector.result(top, kind)


def _coco_files(source: Path, candidates: list[tuple[CaptionFormat, Path]]) -> list[Path]:
    """Return COCO's files of captions: those that have the usual name, else all that look like them."""
    if source.is_dir():
        return sorted((source / "annotations").glob("captions_*.json"))
    return [file for kind, file in candidates if kind == "coco"]


def _root(kind: CaptionFormat, source: Path) -> Path:
    """Return the folder of the images."""
    if source.is_dir():
        return source
    top = source.parent
    if kind == "coco":
        return top.parent if top.name == "annotations" else top
    for name in IMAGE_FOLDERS if kind == "flickr" else ():
        if (top / name).is_dir():
            return top / name
    return top
