"""The rule against words that a re-wrap leaves alone on a line of a string."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

# A short string alone on a line, and after it (and comments) one more.
SHORT = re.compile(r"^ +[a-zA-Z]{0,2}(['\"]) ?\S+( \S+)? ?\1\n\s*(#|[a-zA-Z]{0,2}['\"])", re.MULTILINE)


def stray_fragments(package: Path) -> list[str]:
    """One or two words alone on a line amid a string of several lines: what a re-wrap leaves behind."""
    found = []
    skip = (tokenize.NL, tokenize.COMMENT)
    for file in sorted(package.rglob("*.py")):
        path, text = file.relative_to(package).as_posix(), file.read_text(encoding="utf-8")
        if not SHORT.search(text):
            continue  # nothing so short: no need to take the file apart
        read = io.StringIO(text).readline
        tokens = [token for token in tokenize.generate_tokens(read) if token.type not in skip]
        for before, item, after in zip(tokens, tokens[1:], tokens[2:]):
            strings = {before.type, item.type, after.type} == {tokenize.STRING}
            alone = before.end[0] < item.start[0] == item.end[0] < after.start[0]
            # a line that ends in a line break is meant to be short
            breaks = before.string[:-1].endswith("\\n") or item.string[:-1].endswith("\\n")
            if strings and alone and not breaks and len(item.string.strip("frbFRB\"'").split()) <= 2:
                found.append(f"{path}:{item.start[0]}: {item.string} stands alone: wrap the string again")
    return found
