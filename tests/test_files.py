"""Files are the old or the new one at any time, and values become what JSON takes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from visionkit.errors import InputError, RunError, first_line
from visionkit.files import (
    PART,
    file_digest,
    finite,
    is_free,
    local_path,
    new_folder,
    remove_parts,
    to_plain,
    write_atomic,
    write_text,
    writing,
)


def test_a_file_that_fails_leaves_the_old_one_and_no_part(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(part):
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, fail)
    with pytest.raises(OSError, match="refused"):
        write_atomic(path, lambda part: part.write_text("new"), before_rename=refuse)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def refuse(part):
    assert part.read_text() == "new"
    assert part.name.endswith(PART)
    raise OSError("refused")


def test_digests(tmp_path):
    write_text(tmp_path / "a", "abc")
    assert file_digest(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
    assert file_digest(tmp_path / "a", algorithm="blake2b-128") == "cf4ab791c62b8d2b2109c90275287816"


@dataclass
class Point:
    x: float
    tags: tuple[str, ...]


def test_plain_values_are_json_at_any_depth():
    plain = to_plain(
        {1: Point(math.nan, ("a", "b")), "kind": Point}, lambda v: str(v) if v is Point else finite(v)
    )
    assert plain == {"1": {"x": None, "tags": ["a", "b"]}, "kind": str(Point)}
    json.dumps(plain, allow_nan=False)


def test_the_first_line_of_an_error():
    assert first_line(ValueError("\none\ntwo")) == "one"
    assert first_line(ValueError("one\ntwo\nthree"), prefer=("th",)) == "three"
    assert first_line(ValueError()) == "ValueError"
    assert first_line(ValueError("x" * 300), limit=5) == "xxxxx"


def test_a_folder_that_exists_is_filled_from_within(tmp_path, monkeypatch):
    target = tmp_path / "mounted"
    left = target / f"mounted.{2**22 + 1}{PART}"  # of a killed process
    left.mkdir(parents=True)
    assert is_free(target)
    with new_folder(target) as part:
        assert part.parent == target  # beside it may be another file system
        assert not left.exists()
        (part / "a").write_text("a")
    monkeypatch.chdir(target)
    with new_folder(".") as part:
        (part / "b").write_text("b")
    with pytest.raises(KeyboardInterrupt), new_folder(".") as part:
        raise KeyboardInterrupt
    assert sorted(each.name for each in target.iterdir()) == ["a", "b"]
    assert not is_free(target)
    assert not is_free(target / "a")
    assert is_free(target / "c")


def test_temporary_folders_of_killed_processes_go_too(tmp_path):
    left = tmp_path / f"page.{2**22 + 1}{PART}"
    left.mkdir()
    (left / "x").write_text("four")
    assert remove_parts(tmp_path) == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["s3://bucket/run", "file:///etc/passwd", "simplecache::http://host/x"])
def test_an_address_is_no_folder(tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    for given in (address, Path(address)):  # pathlib makes one slash of two
        with pytest.raises(InputError, match=r"Expected a run on this machine, but got the address .*Name"):
            local_path(given, "a run")
        with pytest.raises(InputError, match="address"), new_folder(given):
            pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "odd:").mkdir()
    for given in ("odd:/run", "C:/runs", "runs", "/runs", "a:b"):
        assert local_path(given) == Path(given)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_has_is_wrong_input(tmp_path, name):
    with pytest.raises(InputError, match=r"Expected a run, but no file has"):
        local_path(tmp_path / name, "a run")


def test_a_folder_that_is_there_is_joined_and_keeps_the_rest(tmp_path):
    for name in ("figures/old.png", "figures/new.png", "own.txt"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("before")
    with new_folder(tmp_path / "out") as part:
        (part / "figures").mkdir()
        for name in ("figures/new.png", "report.html"):
            (part / name).write_text("now")
    said = {
        str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.*") if path.is_file()
    }
    assert said == {
        "out/figures/old.png": "before", "out/figures/new.png": "now", "out/own.txt": "before",
        "out/report.html": "now",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (
            OSError(28, "No space left on device"),
            r"No space left on device \(\d+ bytes are free\)\. Free some",
        ),
        (OSError(30, "Read-only file system", "/x/y"), r"Read-only file system \(/x/y\)\. Choose another"),
    ],
)
def test_what_the_system_does_not_let_one_write_is_named(tmp_path, error, why):
    with pytest.raises(RunError, match=f"write into {tmp_path}, but: {why}"), writing(tmp_path):
        raise error
