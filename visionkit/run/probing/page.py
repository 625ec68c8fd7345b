"""What a probe writes: `probe.json`, `probe.html` with its figures, and the text."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from visionkit import __version__
from visionkit.compare.report.plot_style import to_svg
from visionkit.compare.report.report import page_style
from visionkit.files import finite, to_plain, write_text, writing
from visionkit.printable import printable
from visionkit.run.probing.figure import level_figure
from visionkit.run.probing.result import ProbeResult, difference_rows, level_rows

__all__ = ["write_probe"]


def write_probe(result: ProbeResult, folder: str | Path, *, command: str = "") -> Path:
    """Write `probe.json`, `probe.html` and its figures; those of an earlier call are replaced.

    Args:
        result: The result.
        folder: Where to write; made if it is not there.
        command: The command that made it, for the page.

    Returns:
        The path of `probe.html`: self-contained, without scripts, links or external fonts.

    Raises:
        RunError: The folder cannot be written.
    """
    from jinja2 import Environment

    template = files("visionkit.run.probing").joinpath("probe.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    path = Path(folder) / "probe.html"
    with writing(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        text = environment.from_string(template).render(**_content(result, path.parent, command))
        write_text(path.with_suffix(".json"), json.dumps(to_plain(result, finite), indent=1) + "\n")
        write_text(path, printable(text))
    return path


def _content(result: ProbeResult, folder: Path, command: str) -> dict[str, Any]:
    backbones = list(dict.fromkeys(name for name, init in result.arms if init))
    return {
        "title": f"Levels of {', '.join(backbones)} on {Path(result.data).name}",
        "style": page_style(),
        "result": result,
        "answers": result.answers,
        "figures": [
            {
                "svg": to_svg(level_figure(result, name), folder / "figures" / f"levels-{index}.svg"),
                "alt": f"top-1 of a linear classifier over the level of {name}, a line a fraction",
            }
            for index, name in enumerate(backbones)
        ],
        "tables": [
            (" · ".join(filter(None, arm)), result.weights.get(" ".join(arm), ""), level_rows(result, *arm))
            for arm in result.arms
        ],
        "differences": difference_rows(result),
        "command": command,
        "version": __version__,
    }
