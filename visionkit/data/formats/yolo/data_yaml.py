"""The data.yaml of a YOLO folder, and the names of its classes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from visionkit.data.splits import split_of
from visionkit.errors import DataError

__all__ = ["NAME_FILES", "class_names", "load_yaml", "names_in", "text_of", "yaml_files"]

NAME_FILES = ("classes.txt", "obj.names", "classes.names", "names.txt")
"""Files that hold the names of the classes, one a line."""

_LARGEST = 50_000_000  # bytes of a text file


def class_names(top: Path, content: dict[str, Any]) -> tuple[list[str], bool]:
    """Return the names of the classes, and whether there are any.

    Args:
        top: The folder.
        content: Of data.yaml.

    Raises:
        DataError: They are no list of different names, or not `nc` of them.
    """
    names = content.get("names")
    if isinstance(names, dict):
        try:
            numbered = {int(key): str(value) for key, value in names.items()}
        except (TypeError, ValueError):
            raise DataError(
                "Expected names as number: name, but got others.", path=top, field="names"
            ) from None
        if sorted(numbered) != list(range(len(numbered))):
            text = f"Expected names of 0 to {len(numbered) - 1}, but got {sorted(numbered)[:5]} ..."
            raise DataError(text, path=top, field="names")
        names = [numbered[number] for number in range(len(numbered))]
    if names is None:
        file = next((top / name for name in NAME_FILES if (top / name).is_file()), None)
        file = file or next((f for f in (top / "labels" / n for n in NAME_FILES) if f.is_file()), None)
        if file is None:
            return [], False
        names = [line.strip() for line in text_of(file).splitlines() if line.strip()]
    if not isinstance(names, list) or not names:
        raise DataError(f"Expected a list of names, but got {names!r}.", path=top, field="names")
    count = content.get("nc")
    if type(count) is int and count != len(names):
        raise DataError(f"Expected nc: {count} names, but there are {len(names)}.", path=top, field="names")
    named = [str(name) for name in names]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise DataError(f"Expected each class once, but {twice[0]!r} comes twice.", path=top, field="names")
    return named, True


def yaml_files(root: Path) -> list[Path]:
    """Return the YAML files of a folder that have names and a split, data.yaml first.

    Args:
        root: The folder, or the file.
    """
    files = [root] if root.is_file() else [root / name for name in names_in(root)]
    chosen = []
    for file in sorted(files, key=lambda file: file.name.lower() not in ("data.yaml", "data.yml")):
        if (
            file.suffix.lower() in (".yaml", ".yml")
            and file.is_file()
            and file.stat().st_size < _LARGEST // 50
        ):
            try:
                content = load_yaml(file)
            except DataError:
                continue
            if "names" in content and any(split_of(key) for key in content if str(key).islower()):
                chosen.append(file)
    return chosen


def load_yaml(file: Path) -> dict[str, Any]:
    """Return the content of a YAML file, names as they are written; {} where it is no mapping.

    Args:
        file: The file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        content = yaml.safe_load(text_of(file))
    except yaml.YAMLError as error:
        raise DataError(f"Expected YAML, but {error}.", path=file) from None
    if not isinstance(content, dict):
        return {}
    written = _names_as_written(file)
    return content if written is None else content | {"names": written}


def _names_as_written(file: Path) -> list[str] | dict[str, str] | None:
    """Return the names of a YAML file as they are written: yes and no are names, not True and False."""
    top = yaml.compose(text_of(file), Loader=yaml.SafeLoader)
    if not isinstance(top, yaml.MappingNode):
        return None
    node = next((value for key, value in top.value if key.value == "names"), None)
    if isinstance(node, yaml.SequenceNode) and all(isinstance(v, yaml.ScalarNode) for v in node.value):
        return [value.value for value in node.value]
    if isinstance(node, yaml.MappingNode) and all(
        isinstance(each, yaml.ScalarNode) for pair in node.value for each in pair
    ):
        return {key.value: value.value for key, value in node.value}
    return None


def text_of(file: Path) -> str:
    """Return the text of a file.

    Args:
        file: The file.

    Raises:
        DataError: It cannot be read, or is too large.
    """
    try:
        if file.stat().st_size > _LARGEST:
            raise DataError(f"Expected a text of at most {_LARGEST / 1e6:g} MB.", path=file)
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"Expected text in UTF-8, but {error.reason}.", path=file) from None
    except OSError as error:
        raise DataError(f"Expected a readable text, but {error.strerror or error}.", path=file) from None


def names_in(folder: Path) -> list[str]:
    """Return what a folder holds, hidden files left out; nothing where it cannot be read.

    Args:
        folder: The folder.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208
    except OSError:
        return []
