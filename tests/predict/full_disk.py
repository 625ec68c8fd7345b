"""Writing predictions where few bytes fit; runs in a child, as its disk is a file system of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from tests.faults.children import Room
from tests.predict.made_results import NAMES, photos, results
from visionkit import cli
from visionkit.errors import RunError
from visionkit.files import PART
from visionkit.predict.writers import open_writers
from visionkit.run.storage.lock import FILE as LOCK


def write_on_a_full_disk(folder: str, limits: list[int]) -> list[dict[str, Any]]:
    """Write all formats of two kinds where so many bytes fit; return what was raised and what is left."""
    top, room = Path(folder) / "disk", None
    top.mkdir()
    files = photos(Path(folder) / "photos")
    room, told = Room(top), []
    for limit in limits:
        for kind in ("detection", "segmentation"):
            made, raised = results(files, kind) * 5, ""
            room.leave(limit)
            try:
                with open_writers(["all"], top / "out", kind=kind, class_names=NAMES, facts={}) as writers:
                    for each in made:
                        writers.add(each)
            except RunError as error:
                raised = str(error)
            finally:
                room.free()
            told.append({"limit": limit, "kind": kind, "raised": raised, **check_whole(top / "out")})
            shutil.rmtree(top / "out", ignore_errors=True)
    return told


def verbs_on_a_full_disk(
    folder: str, empty: str, commands: dict[str, str], rooms: list[int]
) -> list[dict[str, Any]]:
    """Run commands in a folder that write where so many bytes fit; return how each ended and what is left."""
    os.chdir(folder)
    top = Path(empty) / "disk"
    top.mkdir()
    room, told = Room(top), []
    for verb, command in commands.items():
        for limit in rooms:
            room.leave(limit)
            said = io.StringIO()
            try:
                with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                    status = cli.main(command.format(place=top / "out").split())
            finally:
                room.free()
            files = [path for path in top.rglob("*") if path.is_file()]
            broken = [path.name for path in files if PART in path.name or path.name == LOCK]
            if verb == "search":  # would refuse the same command afterwards
                broken += [path.name for path in files if not path.stat().st_size]
            for path in top.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            told.append(
                {"verb": verb, "room": limit, "status": status, "told": said.getvalue(), "broken": broken}
            )
    return told


def check_whole(folder: Path) -> dict[str, Any]:
    """Return the number of lines, and the files that are not whole."""
    lines = folder / "predictions.jsonl"
    rows = [json.loads(line) for line in lines.read_text("utf-8").splitlines()] if lines.exists() else []
    broken = [str(row["name"]) for row in rows if not (folder / f"drawings/{row['name']}.jpg").exists()]
    ends = {".html": "</html>\n", ".xml": "</annotation>", ".json": "\n", ".csv": "\n", ".jsonl": "\n"}
    for path in folder.rglob("*"):
        if PART in path.name:
            broken.append(path.name)
        if path.suffix in ends:
            text = path.read_text(encoding="utf-8")
            if text and not text.endswith(ends[path.suffix]):
                broken.append(path.name)
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        if path.suffix in (".png", ".jpg"):
            with Image.open(path) as image:
                image.load()
    return {"rows": len(rows), "broken": broken}
