"""The pages of the documentation: their Python runs, their shell lines name real verbs, flags and files."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from visionkit import cli
from visionkit.commands.recipes import list_recipes

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\{?[\w-]*\}?)[^\n]*\n(.*?)^```", re.M | re.S)
# `<!-- not run: reason -->` before a block leaves it out; `<!-- slow -->` moves it to the slow suite.
MARK = re.compile(r"<!-- (not run: [^>]+|slow) -->\s*$")


def pages() -> list[Path]:
    return sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)


def blocks(text: str, language: str) -> list[tuple[str, str]]:
    """Blocks of a language with the mark before them ("" for none)."""
    found = []
    for match in FENCE.finditer(text):
        if match.group(1) == language:
            mark = MARK.search(text[: match.start()])
            found.append((match.group(2), mark.group(1) if mark else ""))
    return found


def run_page(path: Path, folder: Path, *, slow: bool) -> None:
    code = "\n".join(
        text for text, mark in blocks(path.read_text(encoding="utf-8"), "python") if mark == "slow" * slow
    )
    if not code:
        pytest.skip("no Python to run here")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.relative_to(DOCS).as_posix())
def test_python_of_a_page_runs(path: Path, tmp_path: Path) -> None:
    run_page(path, tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("path", pages(), ids=lambda path: path.relative_to(DOCS).as_posix())
def test_slow_python_of_a_page_runs(path: Path, tmp_path: Path) -> None:
    run_page(path, tmp_path, slow=True)


def test_shell_lines_name_what_there_is() -> None:
    helps = {name: _help(["run", name, "--help=all"]) for name in list_recipes()}
    checked = 0
    for path in pages():
        for text, _ in blocks(path.read_text(encoding="utf-8"), "sh"):
            for line in text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["visionkit"]:
                    assert words[1] in cli.VERBS, f"{path.name}: {line}"
                    checked += 1
                recipe = next((Path(w).stem for w in words if w.startswith("recipes/")), None)
                if recipe is not None and recipe in helps:
                    for flag in (w.partition("=")[0] for w in words if w.startswith("--")):
                        assert flag in helps[recipe] or flag in ("--nproc-per-node", "--standalone"), (
                            f"{path.name}: {line}"
                        )
                    checked += 1
    assert checked >= 8


def test_links_between_pages_lead_somewhere() -> None:
    checked = 0
    for path in pages():
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
            checked += 1
    assert checked >= 6


def test_pages_are_found() -> None:
    names = {path.relative_to(DOCS).as_posix() for path in pages()}
    assert {"index.md", "tutorials/first-comparison.md", "reference/cli.md", "explanation/design.md"} <= names


def test_a_broken_block_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nassert 1 == 2\n```\n")
    with pytest.raises(AssertionError, match="assert 1 == 2"):
        run_page(page, tmp_path, slow=False)
    page.write_text("<!-- not run: needs a key -->\n```python\nassert 1 == 2\n```\n")
    with pytest.raises(pytest.skip.Exception):
        run_page(page, tmp_path, slow=False)


def _help(args: list[str]) -> str:
    command = [sys.executable, "-m", "visionkit.cli", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
