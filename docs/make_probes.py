"""Collect measured probes, and turn them into the table and the figure of `explanation/from-which-level.md`.

Measure, one folder a data set:

visionkit probe photos/ --out runs/photos
visionkit advise photos/ --json > runs/photos/advise.json

python docs/make_probes.py "photographs=runs/photos" "signs=runs/signs"   # into the table that advise cites
python docs/make_probes.py                                                # the page from that table
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TABLE = HERE.parent / "visionkit" / "run" / "probing" / "measured.json"
PAGE = HERE / "explanation" / "from-which-level.md"
FIGURE = HERE / "_static" / "from-which-level.png"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
LEFT_OUT = {"data", "seconds", "notices"}  # of the result: paths and what differs from machine to machine


def collect(named: dict[str, Path]) -> None:
    """Put what folders with `probe.json` and `advise.json` measured into the table; other data sets stay."""
    sets = {each["name"]: each for each in json.loads(TABLE.read_text(encoding="utf-8"))["sets"]}
    for name, folder in named.items():
        probe = json.loads((folder / "probe.json").read_text(encoding="utf-8"))
        advice = json.loads((folder / "advise.json").read_text(encoding="utf-8"))["measured"]
        sets[name] = {
            "name": name,
            "similarity": advice["similarity"],
            "errors_removed": rounded(advice["errors_removed"]),
            "probe": {key: rounded(value) for key, value in probe.items() if key not in LEFT_OUT},
        }
    TABLE.write_text('{"sets": [\n' + ",\n".join(map(written, sets.values())) + "\n]}\n", encoding="utf-8")


def written(each: dict[str, Any]) -> str:
    """Return one data set as JSON, with a line for each cell of its probe."""
    lines = [f' {{"name": {json.dumps(each["name"])}, "similarity": {json.dumps(each["similarity"])},']
    lines.append(f'  "errors_removed": {each["errors_removed"]:.4g},')
    lines.append('  "probe": {')
    for key, value in each["probe"].items():
        if key in ("cells", "choices", "differences"):
            rows = ",\n    ".join(json.dumps(row) for row in value)
            lines.append(f'   "{key}": [\n    {rows}],')
        else:
            lines.append(f'   "{key}": {json.dumps(value)},')
    lines[-1] = lines[-1].removesuffix(",")
    return "\n".join([*lines, "  }}"])


def rounded(value: Any) -> Any:
    """Return plain values with floats of four significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def table(sets: list[dict[str, Any]]) -> str:
    """Return the table of the page: a row a data set, amount and network, a column a level."""
    levels = list(dict.fromkeys(c["level"] for each in sets for c in each["probe"]["cells"]))
    levels = [level for level in levels if level != "pixels"]
    lines = [
        f"| data | images a class | weights | {' | '.join(levels)} | pooled, 5-NN | pixels "
        "| chosen minus pooled |",
        f"|---|---:|---|{'---:|' * len(levels)}---:|---:|---|",
    ]
    for each in sets:
        probe = each["probe"]
        cells = {(c["init"], c["level"], c["fraction"]): c for c in probe["cells"]}
        choices = {(c["init"], c["fraction"]): c for c in probe["choices"]}
        for fraction in probe["fractions"]:
            for init in ("pretrained", "scratch"):
                row = [cells[init, level, fraction] for level in levels]
                best = max(cell["linear"]["mean"] for cell in row)
                choice = choices[init, fraction]
                gap = choice["minus_pooled"]
                texts = [score(cell["linear"], best) for cell in row]
                texts.append(f"{row[-1]['neighbors']['mean']:.3f}")
                texts.append(score(cells["", "pixels", fraction]["linear"]) if init == "pretrained" else "")
                chosen = ", ".join(dict.fromkeys(choice["levels"]))
                texts.append(f"{chosen}: {gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]")
                count = f"{row[0]['images'] / probe['classes']:.3g}"
                named = {"scratch": "random"}.get(init, init)
                lines.append(f"| {each['name']} | {count} | {named} | {' | '.join(texts)} |")
    return "\n".join(lines)


def score(value: dict[str, Any], best: float | None = None) -> str:
    """Return the mean and half of its interval over seeds, in bold where it is the best of its row."""
    half = value["seed_interval"][1] - value["mean"]
    text = f"{value['mean']:.3f} ±{half:.3f}"
    return f"**{text}**" if value["mean"] == best else text


def main() -> None:
    if len(sys.argv) > 1:
        collect({name: Path(folder) for name, _, folder in (arg.partition("=") for arg in sys.argv[1:])})
        return
    sets = json.loads(TABLE.read_text(encoding="utf-8"))["sets"]
    text = PAGE.read_text(encoding="utf-8")
    head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(f"{head}{BEGIN}\n{table(sets)}\n{END}{tail}", encoding="utf-8")
    from visionkit.run.probing import measured_figure

    FIGURE.write_bytes(measured_figure(sets))


if __name__ == "__main__":
    main()
