"""Text files in every encoding that editors write; what is none is refused with file and line."""

from __future__ import annotations

import codecs
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionkit.errors import DataError
from visionkit.text.read_text import decode_text, read_json, read_lines, read_text

ENCODINGS = (
    *("utf-8", "utf-8-sig"),
    *("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"),
)
_MARKS = {
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@given(text=st.text(st.characters(exclude_characters="\0\r\ufeff", exclude_categories=["Cs"])))
def test_every_encoding_and_line_end_gives_the_same_text(text):
    for encoding in ENCODINGS:
        for end in ("\n", "\r\n", "\r"):
            data = _MARKS.get(encoding, b"") + text.replace("\n", end).encode(encoding)
            assert decode_text(data, path="a.txt") == text


def test_lines_end_where_editors_end_them(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(codecs.BOM_UTF8 + "# café\r\nroad\u2028side\x0b\r\n\r\nlast".encode())
    assert read_lines(file) == ["# café", "road\u2028side\x0b", "", "last"]
    file.write_bytes(b"")
    assert (read_text(file), read_lines(file)) == ("", [])


@pytest.mark.parametrize(
    ("data", "line", "said"),
    [
        ("road\ncafé\n".encode("cp1252"), 2, "byte 0xe9"),
        ("road\ncar\n".encode("utf-16-le"), 1, "zero byte"),
        (b"a\nb\nc\0d", 3, "zero byte"),
        (codecs.BOM_UTF16_LE + "ab\n".encode("utf-16-le") + b"\xd8", 2, "UTF-16"),
    ],
)
def test_other_bytes_are_refused_with_file_and_line(tmp_path, data, line, said):
    file = tmp_path / "classes.txt"
    file.write_bytes(data)
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        read_text(file)
    assert (caught.value.path, caught.value.record) == (str(file), line)
    assert f"line {line}" in str(caught.value)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="none by this name"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(DataError, match="cannot be read"):
        read_lines(tmp_path)


def test_json_with_a_byte_order_mark_and_faults_with_their_place(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"a": [1]}', encoding="utf-8-sig")
    assert read_json(file) == {"a": [1]}
    file.write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(DataError, match="line 2, column 6") as caught:
        read_json(file)
    assert caught.value.path == str(file)
    file.write_text("[" * 100_000)
    with pytest.raises(DataError, match="nested too deeply"):
        read_json(file)
