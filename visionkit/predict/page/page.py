"""Write the page: the model and what runs it as scripts, so that a browser can open it as a file.

A page that is opened as a file may run the scripts beside it, but may not read files. Model, WebAssembly and
examples are therefore written as scripts that hold them in base64, in pieces (for a progress bar).
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from visionkit import __version__
from visionkit.data.read_image import MAX_PIXELS, read_image
from visionkit.errors import InputError, printable
from visionkit.files import PART, local_path, new_folder, writing
from visionkit.predict.export.exporter import export
from visionkit.predict.export.metadata import read_metadata
from visionkit.predict.page.about import make_about
from visionkit.predict.page.runtime import Runtime

__all__ = ["Page", "write_page"]

EMBED_LIMIT = 100 * 2**20  # bytes of a model that is written as scripts; a larger one needs a server
_PIECE = 6 * 2**20  # bytes; a multiple of 3, so that base64 has no padding between pieces
_BROWSER_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif")
_WORKER = ("preprocess.js", "answer.js", "worker.js")
_COPIED = ("draw.js", "page.js", "page.css", "LICENSE-onnxruntime-web.txt")
_LEAD = {
    "classification": "Drop an image, and the model says what it shows.",
    "detection": "Drop an image, and the model marks the objects that it knows.",
    "segmentation": "Drop an image, and the model gives each pixel a class.",
    "captioning": "Drop an image, and the model writes a sentence about it.",
}


@dataclass(frozen=True)
class Page:
    """A page that was written.

    Args:
        folder: Its folder.
        index: What a browser opens.
        size: Bytes of the folder.
        needs_server: Whether the model is too large to open the page as a file.
        notes: In what its answers differ from those of the run, in sentences.
    """

    folder: Path
    index: Path
    size: int
    needs_server: bool
    notes: tuple[str, ...] = ()


def write_page(
    path: str | Path,
    folder: str | Path,
    *,
    runtime: Runtime,
    title: str = "",
    examples: Sequence[str | Path] = (),
    overwrite: bool = False,
) -> Page:
    """Write a page on which a browser answers images with a model.

    Args:
        path: A run folder, a folder of runs or a checkpoint, which is exported; or an exported ONNX file.
        folder: Where to write; it must be new or empty, or hold a page that may be replaced.
        runtime: onnxruntime-web, from `find_runtime` or `download_runtime`.
        title: Heading of the page; what the model does, if not given.
        examples: Images that a visitor can choose, of the formats that browsers read.
        overwrite: Whether a page that was written there before may be replaced.

    Raises:
        InputError: There is no model, the folder holds something, or an example has the name of another.
        DataError: The model or an example is damaged.
        RunError: It cannot be written; nothing is left behind.
    """
    target = local_path(folder, "a new folder")
    _check_free(target, overwrite=overwrite)
    images = _read_examples(examples)
    with writing(target), new_folder(target) as part:
        metadata, notes = _write_model(Path(path), part / "model.onnx")
        length = (part / "model.onnx").stat().st_size
        about = make_about(metadata, size=length, title=title)
        about |= {"examples": list(images), "max_pixels": MAX_PIXELS}
        _write(part, about, runtime, images, embed=length <= EMBED_LIMIT)
        _check_free(target, overwrite=overwrite)  # another command may have been faster
        for name in (*_COPIED, "model.onnx", "index.html"):
            (target / name).unlink(missing_ok=True)
        shutil.rmtree(target / "data", ignore_errors=True)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    return Page(target, target / "index.html", size, length > EMBED_LIMIT, (*notes, *_notes(metadata)))


def _write_model(path: Path, file: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Put an exported file into the page, a run or a checkpoint exported; return its metadata, and notes."""
    if path.suffix == ".onnx":
        metadata = read_metadata(path)
        file.write_bytes(path.read_bytes())
        return metadata, ()
    made = export(path, file)
    return made.metadata, made.notes


def _notes(metadata: Mapping[str, Any]) -> Iterator[str]:
    views = metadata.get("views") or {}
    if views.get("flip") or views.get("windows") or list(views.get("scales") or (1,)) != [1]:
        yield "The page sees an image once and whole, without the other views that the task joins."


def _check_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds anything but a page that may be replaced."""
    if folder.is_symlink() or folder.is_file():
        raise InputError(f"Expected a new folder, but {folder} is a file or a link.")
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    inside = {name for name in inside if not name.endswith(PART)}
    if not inside:
        return
    page = {"index.html", "data", *_COPIED} <= inside <= {"index.html", "data", "model.onnx", *_COPIED}
    if not page:
        raise InputError(
            f"Expected a new or an empty folder, but {folder} holds other files. Give another one: a page is "
            "written as a whole."
        )
    if not overwrite:
        raise InputError(f"Expected a new folder, but {folder} is a page. Replace it with --overwrite.")


def _read_examples(paths: Iterable[str | Path]) -> dict[str, bytes]:
    """Return the bytes of images by their names; each is decoded once, so that a visitor gets no error."""
    images: dict[str, bytes] = {}
    for path in map(Path, paths):
        if path.suffix.lower() not in _BROWSER_SUFFIXES:
            raise InputError(
                f"Expected an example that browsers read ({' '.join(_BROWSER_SUFFIXES)}), but got {path}."
            )
        read_image(path)
        name = printable(path.name)
        if name in images:
            raise InputError(f"Expected examples of different names, but two are called {name}. Rename one.")
        images[name] = path.read_bytes()
    return images


def _write(
    folder: Path,
    about: Mapping[str, Any],
    runtime: Runtime,
    images: Mapping[str, bytes],
    *,
    embed: bool,
) -> None:
    """Write every file of the page into a folder that is not visible under its name yet."""
    from jinja2 import Environment

    static = files("visionkit.predict.page").joinpath("static")
    worker = b"\n".join(static.joinpath(name).read_bytes() for name in _WORKER)
    embedded = {"about.json": json.dumps(about).encode()}
    embedded |= {f"examples/{name}": content for name, content in images.items()}
    embedded |= {"worker.js": worker, "ort.mjs": runtime.script, "ort.wasm": runtime.wasm}
    if embed:
        embedded["model.onnx"] = (folder / "model.onnx").read_bytes()
        (folder / "model.onnx").unlink()
    scripts = _write_scripts(folder / "data", embedded)
    for name in _COPIED:
        (folder / name).write_bytes(static.joinpath(name).read_bytes())
    template = static.joinpath("index.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(template).render(
        title=about["title"],
        lead=_LEAD[about["kind"]],
        rows=about["rows"],
        scripts=scripts,
        version=__version__,
        runtime=runtime.version,
    )
    (folder / "index.html").write_text(text, encoding="utf-8")


def _write_scripts(folder: Path, embedded: Mapping[str, bytes]) -> list[str]:
    """Write files as scripts of pieces in base64; return their addresses in the order of loading."""
    folder.mkdir()
    scripts: list[str] = []
    lines: list[str] = []
    held = 0

    def close() -> None:
        name = f"data/{len(scripts):03}.js"
        (folder.parent / name).write_text("\n".join(lines) + "\n", encoding="ascii")
        scripts.append(name)

    for name, content in embedded.items():
        for index, start in enumerate(range(0, len(content), _PIECE)):
            piece = content[start : start + _PIECE]
            if lines and held + len(piece) > _PIECE:
                close()
                lines, held = [], 0
            text = base64.b64encode(piece).decode()
            lines.append(f'visionkitPart({json.dumps(name)}, {index}, "{text}");')
            held += len(piece)
    close()
    return scripts
