"""Turn the rows of the export over families into the table of `reference/export.md`.

VISIONKIT_TABLE=tests/results/export.jsonl pytest -m slow tests/predict/test_export_families.py
python docs/make_export.py tests/results/export.jsonl

The first goes on where its file ends: rows that are in it are not run again.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from make_backbones import BEGIN, END

PAGE = Path(__file__).resolve().parent / "reference" / "export.md"
DECODERS = {"segmentation": "unet", "captioning": "show_attend_tell"}
KINDS = ("classification", "segmentation", "detection", "captioning")


def table(rows: list[dict]) -> str:
    by_name: dict[str, dict[str, dict]] = defaultdict(dict)
    for row in rows:
        by_name[row["name"]][row["kind"]] = row
    passed = [row for row in rows if row["status"] == "passes"]
    counts = {kind: sum(row["kind"] == kind for row in passed) for kind in KINDS}
    opsets = " and ".join(sorted({str(row["opset"]) for row in passed}))
    exports = f"{len(passed)} of {len(rows)} exports that were run pass"
    text = [f"ONNX opset {opsets}; {len(by_name)} backbones, {exports}.", ""]
    text.append(f"| backbone | {' | '.join(f'{kind} ({counts[kind]})' for kind in KINDS)} |")
    text.append("| --- |" + " --- |" * len(KINDS))
    for name in sorted(by_name):
        cells = [cell(by_name[name].get(kind)) for kind in KINDS]
        text.append(f"| `{name}` | {' | '.join(cells)} |")
    reasons: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["status"] != "passes":
            reasons[row["reason"]].append(row["kind"])
    if reasons:
        text += ["", "Refused:", ""]
        text += [f"- {' and '.join(kinds)}: {reason}" for reason, kinds in sorted(reasons.items())]
    return "\n".join(text)


def cell(row: dict | None) -> str:
    if row is None:
        return "not run"
    if row["status"] != "passes":
        return row["status"]
    worst = max(
        value for name, value in row["difference"].items() if name not in ("boxes", "labels", "tokens")
    )
    boxes = f", {row['difference']['boxes']:.0e} px" if "boxes" in row["difference"] else ""
    size = "any size" if row["dynamic"]["size"] else "one size"
    decoder = row.get("decoder", DECODERS.get(row["kind"]))
    other = "" if decoder == DECODERS.get(row["kind"]) else f", `{decoder}`"
    return f"{worst:.0e}{boxes}, {size}{other}"


if __name__ == "__main__":
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    text = PAGE.read_text(encoding="utf-8")
    head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(f"{head}{BEGIN}\n{table(rows)}\n{END}{tail}", encoding="utf-8")
