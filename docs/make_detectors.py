"""Turn the rows of the detector over all names into the table of `reference/detectors.md`.

VISIONKIT_TABLE=tests/results/detectors.jsonl pytest -m slow -k every_name \\
  tests/tasks/test_detector_backbones.py
python docs/make_detectors.py tests/results/detectors.jsonl

The first goes on where its file ends: names that are in it are not run again.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path

from make_backbones import families, fill

PAGE = Path(__file__).resolve().parent / "reference" / "detectors.md"
ALL = [4, 8, 16, 32]
OUTCOMES = ("passes with 4, 8, 16, 32", "passes with what it has", "refused by name", "crash")


def tables(rows: list[dict], registered: int) -> str:
    named, count = families(), Counter(outcome(row) for row in rows)
    groups: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        prefix = row["name"].partition("/")[0]
        groups[f"timm {named[row['name']]}" if prefix == "timm" else prefix].append(row)
    text = ["| outcome | names |\n| --- | ---: |"]
    text += [f"| {what} | {count[what]} |" for what in OUTCOMES]
    text.append(f"| not run | {registered - len(rows)} |\n")
    text.append("| family | names | pass | reductions that passed | refused |")
    text.append("| --- | ---: | ---: | --- | --- |")
    for group in sorted(groups):
        members = groups[group]
        passed = [row for row in members if row["status"] == "passes"]
        sets = sorted({tuple(row["reductions"]) for row in passed}, key=lambda has: (-len(has), has))
        shown = "; ".join(", ".join(map(str, has)) for has in sets) or "none"
        refused = [row["name"].partition("/")[2] for row in members if row["status"] != "passes"]
        listed = ", ".join(f"`{name}`" for name in refused[:4]) + (" ..." if len(refused) > 4 else "")
        text.append(f"| {group} | {len(members)} | {len(passed)} | {shown} | {listed} |")
    return "\n".join(text)


def outcome(row: dict) -> str:
    if row["status"] == "refused":
        return OUTCOMES[2]
    if row["status"] != "passes":
        return OUTCOMES[3]
    return OUTCOMES[0] if row["reductions"] == ALL else OUTCOMES[1]


if __name__ == "__main__":
    fill(PAGE, sys.argv[1], tables)
