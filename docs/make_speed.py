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
    lines = [
        "| row | size | peer | ratio | spread | goal | limit | verdict |",
        "|---|---|---|---:|---|---|---|---|",
    ]
    for row in found["rows"]:
        sign = "≤" if row["at_most"] else "≥"
        low, high = row["spread"]
        spread = f"{low:.2f} to {high:.2f}" if row["pairs"] > 1 else "one reading"
        cells = (
            row["row"], row["size"], row["peer"], f"{row['ratio']:.2f}x", spread,
            f"{sign} {row['goal']:g}", row["limit"], row["verdict"],
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    machine = found["machine"]
    flags = ", ".join(machine["flags"])
    lines.append(
        f"\nMeasured on {machine['cpu']} ({machine['cores']} cores, {flags}), {machine['threads']} thread, "
        f"allocator {machine['allocator']}, Python {machine['python']}, torch {machine['torch']}."
    )
    return "\n".join(lines)


def main() -> None:
    page = HERE / "explanation" / "speed.md"
    text = page.read_text(encoding="utf-8")
    found = json.loads((HERE / "reference" / "speed.json").read_text(encoding="utf-8"))
    head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
    page.write_text(f"{head}{BEGIN}\n{table(found)}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
