"""One XML annotation, in whatever encoding it declares, without entities."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from visionkit.errors import DataError

__all__ = ["read_voc_xml"]

_LARGEST = 4_000_000  # bytes of an XML file
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
# Files that declare the smaller set are often written in the larger one that contains it.
_WIDER = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "cp950",
    "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
}
_PARSED = ("utf-8", "utf8", "utf-16", "us-ascii", "ascii", "iso-8859-1")  # by the XML parser itself


def read_voc_xml(path: Path) -> Element:
    """Return the `<annotation>` of a file.

    The parser knows few encodings; a text in another one is decoded by its declared name first (GBK, Big5,
    EUC-KR, Shift-JIS, ...).

    Args:
        path: The file.

    Raises:
        DataError: The file is missing, too large, no XML, in an unknown encoding, holds entities, or is no
            annotation.
    """
    try:
        if path.stat().st_size > _LARGEST:
            text = f"Expected an annotation of at most {_LARGEST} bytes, but it has {path.stat().st_size}."
            raise DataError(text, path=path)
        tree = ElementTree.fromstring(_decoded(path.read_bytes(), path))
    except FileNotFoundError as error:
        raise DataError("Expected an annotation, but there is no such file.", path=path) from error
    except (ParseError, DefusedXmlException, ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"Expected XML without entities, but {error or type(error).__name__}.", path=path
        ) from error
    if tree is None or tree.tag != "annotation":
        got = "nothing" if tree is None else f"<{tree.tag}>"
        raise DataError(f"Expected <annotation>, but got {got}.", path=path)
    return tree


def _decoded(data: bytes, path: Path) -> bytes | str:
    declared = _DECLARED.match(data)
    name = declared[1].decode("ascii").lower() if declared else "utf-8"
    if name in _PARSED:
        return data
    try:
        return data.decode(_WIDER.get(name, name))
    except LookupError:
        text = f"Expected a known encoding, but the file declares {name!r}. Save it in UTF-8."
        raise DataError(text, path=path, field="encoding") from None
    except UnicodeDecodeError as error:
        text = f"Expected text in {name!r}, as the file declares, but byte {error.start} is none."
        raise DataError(text, path=path, field="encoding") from None
