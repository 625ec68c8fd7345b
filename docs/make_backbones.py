"""Turn the rows of the contract over all names into the tables of `reference/backbones.md`.

VISIONKIT_TABLE=tests/results/backbones.jsonl pytest -m slow tests/contracts/test_backbones.py -k all_names
python docs/make_backbones.py tests/results/backbones.jsonl

The first goes on where its file ends: names that are in it are not run again.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

PAGE = Path(__file__).resolve().parent / "reference" / "backbones.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def families() -> dict[str, str]:
    """The module that each architecture of timm is written in."""
    import timm
    from timm.models import list_modules

    return {f"timm/{name}": module for module in list_modules() for name in timm.list_models(module=module)}


def tables(rows: list[dict], registered: int) -> str:
    named, text = families(), []
    count: Counter[str] = Counter()
    groups: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        how = "numbers" if row.get("computed") else "shapes"
        count[f"{row['status']} {how}" if row["status"] == "passes" else row["status"]] += 1
        prefix = row["name"].partition("/")[0]
        groups[f"timm {named[row['name']]}" if prefix == "timm" else prefix].append(row)
    text.append("| outcome | names |\n| --- | ---: |")
    text.append(f"| passes, run with numbers | {count['passes numbers']} |")
    text.append(f"| passes, by shape alone | {count['passes shapes']} |")
    text.append(f"| no aligned maps (refused by name), encoder passes | {count['refused']} |")
    text.append(f"| refused by name altogether | {count['refused_all']} |")
    text.append(f"| crashes | {count['crash']} |")
    text.append(f"| not run yet | {registered - len(rows)} |\n")
    text.append("| family | names | maps pass | reductions | refused |\n| --- | ---: | ---: | --- | --- |")
    for group in sorted(groups):
        members = groups[group]
        found = sorted({r for row in members for _, r in row.get("levels", [])})
        refused = [row["name"].partition("/")[2] for row in members if row["status"] != "passes"]
        shown = ", ".join(f"`{name}`" for name in refused[:4]) + (" ..." if len(refused) > 4 else "")
        listed = ", ".join(map(str, found)) or "none"
        text.append(f"| {group} | {len(members)} | {len(members) - len(refused)} | {listed} | {shown} |")
    return "\n".join(text)


def fill(page: Path, path: str, tables: Callable[[list[dict], int], str]) -> None:
    """Put the tables of the rows in the file at `path` between the marks of a page."""
    from visionkit.backbones import list_backbones

    rows = {row["name"]: row for row in map(json.loads, Path(path).read_text(encoding="utf-8").splitlines())}
    text = page.read_text(encoding="utf-8")
    head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
    table = tables(list(rows.values()), len(list_backbones()))
    page.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    fill(PAGE, sys.argv[1], tables)
