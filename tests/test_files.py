"""Files are the old or the new one at any time, and values become what JSON takes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pytest

from visionkit.errors import first_line
from visionkit.files import PART, file_digest, finite, to_plain, write_atomic, write_text


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
