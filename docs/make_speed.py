"""Turn `reference/speed.json` into the table of `explanation/speed.md`.

python -m tests.bench.run --out docs/reference/speed.json
python docs/make_speed.py
"""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def table(found: dict) -> str:
    """Return the rows as Markdown, a column of ratios for each kind of processor."""
    kinds = list(found["processors"])
    names = sorted({row["row"] for row in found["rows"]})
    measured = {(row["row"], row["processor"]): row for row in found["rows"]}
    lines = [
        "| row | peer | limit | " + " | ".join(kinds) + " |",
        "|---|---|---|" + "---|" * len(kinds),
    ]
    for name in names:
        rows = [measured.get((name, kind)) for kind in kinds]
        newest = max((row for row in rows if row), key=lambda row: row["date"])
        cells = [name, newest["peer"], newest["limit"], *map(cell, rows)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *(machine(found, kind) for kind in kinds)])


def cell(row: dict | None) -> str:
    """Return what was measured on one kind of processor: ratio, spread, goal, and what bounds it there."""
    if row is None:
        return ""
    sign = "≤" if row["at_most"] else "≥"
    low, high = row["spread"]
    spread = f"{low:.2f} to {high:.2f}" if row["pairs"] > 1 else "one reading"
    verdict = "holds" if row["verdict"] == "holds" else "**short**"
    bound = f"; bf16 gives {row['bf16_gain']:.1f}x here" if row.get("bf16_gain") else ""
    size = "" if row["size"] == "full" else f", {row['size']} size"
    return f"{row['ratio']:.2f}x ({spread}{size}); {sign} {row['goal']:g}: {verdict}{bound}"


def machine(found: dict, kind: str) -> str:
    """Return the sentence on the processor of a column, and on which days its rows were measured."""
    about = found["processors"][kind]
    days = sorted({row["date"] for row in found["rows"] if row["processor"] == kind})
    return (
        f"\n{kind}: {about['cpu']} ({about['cores']} cores; {', '.join(about['flags'])}), "
        f"{about['threads']} thread, allocator {about['allocator']}, Python {about['python']}, "
        f"torch {about['torch']}; "
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}."
    )


def main() -> None:
    page = HERE / "explanation" / "speed.md"
    text = page.read_text(encoding="utf-8")
    found = json.loads((HERE / "reference" / "speed.json").read_text(encoding="utf-8"))
    head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
    page.write_text(f"{head}{BEGIN}\n{table(found)}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
