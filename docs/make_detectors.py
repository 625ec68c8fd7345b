"""Turn the rows of the detector over all names into the table of `reference/detectors.md`.

VISIONKIT_TABLE=tests/results/detectors.jsonl pytest -m slow -k every_name \\
  tests/tasks/test_detector_backbones.py
for name in keypoint_rcnn retinanet fcos; do
  VISIONKIT_FAMILIES=tests/results/$name.jsonl pytest -m slow -k "every_family and $name" \\
    tests/tasks/test_detector_backbones.py
done
python docs/make_detectors.py tests/results

The first goes on where its file ends: names that are in it are not run again.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

from make_backbones import families, fill

PAGE = Path(__file__).resolve().parent / "reference" / "detectors.md"
ALL = [4, 8, 16, 32]
FAMILIES = {"keypoint_rcnn": "Keypoint R-CNN", "retinanet": "RetinaNet", "fcos": "FCOS"}
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


def family_table(title: str, path: Path) -> str:
    """Networks by what came of one detector over them."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    groups: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        groups[", ".join(map(str, row["reductions"])) or row["status"]].append(f"`{row['name']}`")
    text = [f"{title} over one network of each family:\n", "| reductions | networks | names |"]
    text.append("| --- | ---: | --- |")
    for has, names in sorted(groups.items(), key=lambda group: -len(group[1])):
        text.append(f"| {has} | {len(names)} | {', '.join(names)} |")
    return "\n".join(text)


if __name__ == "__main__":
    results = Path(sys.argv[1])
    others = [family_table(title, results / f"{name}.jsonl") for name, title in FAMILIES.items()]
    fill(
        PAGE,
        str(results / "detectors.jsonl"),
        lambda rows, registered: "\n\n".join([tables(rows, registered), *others]),
    )
