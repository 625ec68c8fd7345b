"""What a probe writes: `probe.json`, `probe.html` with its figures, and the text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from visionkit import __version__
from visionkit.compare.report.pages import render
from visionkit.compare.report.plot_style import to_svg
from visionkit.files import finite, to_plain, write_text, writing
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
    path = Path(folder) / "probe.html"
    with writing(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        for earlier in (path.parent / "figures").glob("levels-*.svg"):
            earlier.unlink()
        content = _content(result, path.parent, command)
        text = render("probe.html.j2", content, package="visionkit.run.probing")
        write_text(path.with_suffix(".json"), json.dumps(to_plain(result, finite), indent=1) + "\n")
        write_text(path, text)
    return path


def _content(result: ProbeResult, folder: Path, command: str) -> dict[str, Any]:
    backbones = list(dict.fromkeys(name for name, init in result.arms if init))
    return {
        "title": f"Levels of {', '.join(backbones)} on {Path(result.data).name}",
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
