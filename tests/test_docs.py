"""The pages of the documentation: their Python runs, their shell lines name real verbs, flags and files."""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.zygote import Zygote
from visionkit import cli
from visionkit.commands.recipes import list_applications, list_recipes
from visionkit.errors import install_extra

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\{?[\w-]*\}?)[^\n]*\n(.*?)^```", re.M | re.S)
# `<!-- not run: reason -->` before a block leaves it out; `<!-- slow -->` moves it to the slow suite.
MARK = re.compile(r"<!-- (not run: [^>]+|slow) -->\s*$")

# Flags of other programs in sentences: sbatch, torchrun, the starters for clusters, trackers, the bench.
OTHER_FLAGS = {
    "--ntasks-per-node", "--gpus-per-node", "--partition", "--account", "--time", "--signal", "--open-mode",
    "--max-restarts", "--address", "--restarts", "--no-install-recommends", "--logdir", "--backend-store-uri",
    "--quick", "--rounds", "--gpu", "--shm-size", "--version",
}  # fmt: skip


def pages() -> list[Path]:
    return sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)


def texts() -> list[Path]:
    """The pages, and those in front of them."""
    return [*pages(), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]


def notebooks() -> list[Path]:
    return sorted(path for path in DOCS.rglob("*.ipynb") if "_build" not in path.parts)


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [
        cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind
    ]


def blocks(text: str, language: str) -> list[tuple[str, str]]:
    """Blocks of a language with the mark before them ("" for none)."""
    found = []
    for match in FENCE.finditer(text):
        if match.group(1) == language:
            mark = MARK.search(text[: match.start()])
            found.append((match.group(2), mark.group(1) if mark else ""))
    return found


# One process for all pages: importing torch costs more than their code. Each has its own names and folder.
DRIVER = """
import json, os, sys, tempfile, traceback
said = {}
for name, code in json.load(sys.stdin).items():
    os.chdir(tempfile.mkdtemp(dir=sys.argv[1]))
    try:
        exec(compile(code, name, "exec"), {"__name__": "__page__"})
        said[name] = ""
    except BaseException:
        said[name] = traceback.format_exc()[-3000:]
json.dump(said, open(sys.argv[2], "w"))
"""


def drive(code: dict[str, str], folder: str) -> dict[str, str]:
    """Run the pages in this process, which was forked with everything imported."""
    sys.argv, sys.stdin = ["-c", folder, f"{folder}/said.json"], io.StringIO(json.dumps(code))
    exec(DRIVER, {})
    said: dict[str, str] = json.loads(Path(sys.argv[2]).read_text())
    return said


def run_pages(paths: list[Path], folder: Path, *, slow: bool, zygote: Zygote | None = None) -> dict[str, str]:
    """What went wrong in each page that has code to run: "" where nothing did; in a new process or a fork."""
    code = {}
    for path in paths:
        found = blocks(path.read_text(encoding="utf-8"), "python")
        chosen = [text for text, mark in found if mark == ("slow" if slow else "")]
        if chosen:
            code[path.name] = "\n".join(chosen)
    if zygote is not None:
        forked: dict[str, str] = zygote.run("tests.test_docs:drive", code, str(folder))
        return forked
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", DRIVER, str(folder), str(folder / "said.json")]
    subprocess.run(
        command, input=json.dumps(code), env=environment, text=True, check=True, stdout=subprocess.DEVNULL
    )
    said: dict[str, str] = json.loads((folder / "said.json").read_text())
    return said


@pytest.mark.slow
def test_python_of_the_pages_runs(tmp_path: Path) -> None:
    said = run_pages(pages(), tmp_path, slow=False)
    assert len(said) >= 4
    assert {name: text for name, text in said.items() if text} == {}


@pytest.mark.slow
def test_slow_python_of_the_pages_runs(tmp_path: Path) -> None:
    assert {name: text for name, text in run_pages(pages(), tmp_path, slow=True).items() if text} == {}


def test_notebooks_are_shown_as_they_were_run_from_top_to_bottom() -> None:
    assert notebooks()
    for path in notebooks():
        code = cells(path, "code")
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), path.name
        kinds = [output["output_type"] for cell in code for output in cell["outputs"]]
        assert "display_data" in kinds, path.name
        assert "error" not in kinds, path.name


@pytest.mark.slow
def test_notebooks_run(tmp_path: Path) -> None:
    for path in notebooks():
        page = tmp_path / f"{path.stem}.md"
        text = "\n".join("".join(cell["source"]) for cell in cells(path, "code"))
        page.write_text(f"```python\n{text}\n```\n", encoding="utf-8")
        assert run_pages([page], tmp_path, slow=False) == {page.name: ""}


TUTORIALS = {
    "detect-blood-cells": {"bccd": "bccd"},
    "segment-street-scenes": {"street": "camvid"},
    "caption-photographs": {"photos": "flickr1k"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_the_commands_of_a_tutorial_work_one_after_another(
    name: str, tmp_path: Path, shared_data: Path
) -> None:
    """On the tutorial's data, in few images: its own number of them takes minutes."""
    for link, target in TUTORIALS[name].items():
        (tmp_path / link).symlink_to(shared_data / target)
    (tmp_path / "camvid_classes.txt").write_text((ROOT / "recipes/runs/camvid_classes.txt").read_text())
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    lines = "".join(text for text, _ in blocks((DOCS / f"tutorials/{name}.md").read_text("utf-8"), "sh"))
    commands = [shlex.split(line) for line in lines.splitlines() if line.startswith("visionkit ")]
    assert len(commands) >= 4
    for words in commands:
        short = ["--images", "16", "--seeds", "0"] if words[1] == "run" else []
        command = [sys.executable, "-m", "visionkit.cli", *words[1:], *short]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        # `check` ends with 1 where it names something: two boxes of the blood cells have no area.
        assert done.returncode in ((0, 1) if words[1] == "check" else (0,)), f"{words}\n{done.stderr[-2000:]}"


def test_shell_lines_name_what_there_is() -> None:
    flags, checked = known_flags(), 0
    for path in texts():
        for text, _ in blocks(path.read_text(encoding="utf-8"), "sh"):
            for line in text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                # What stands before the recipe (sbatch, torchrun) has flags of its own.
                at = next((i for i, w in enumerate(words) if w in flags and w.startswith("recipes/")), 0)
                program = words[at] if at else ""
                if words[:1] == ["visionkit"]:
                    assert words[1] in cli.VERBS, f"{path.name}: {line}"
                    program = f"recipes/{words[2]}.py" if words[1] == "run" else words[1]
                if program and program != "tune":
                    given = {word.partition("=")[0] for word in words[at:] if word.startswith("--")}
                    assert given - flags[program] - {"--help"} == set(), f"{path.name}: {line}"
                    checked += 1
                for word in words:
                    if word.startswith("recipes/cluster/"):
                        assert (ROOT / word).is_file(), f"{path.name}: {line}"
    assert checked >= 30


def test_flags_in_sentences_are_those_of_a_recipe_or_a_verb() -> None:
    known, checked = set().union(*known_flags().values()), 0
    parents = {flag.partition(".")[0] for flag in known}
    for path in [*texts(), ROOT / "CHANGELOG.md"]:
        prose = FENCE.sub("", path.read_text(encoding="utf-8"))
        found = {flag.rstrip(".") for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", prose)}
        assert found - known - parents - OTHER_FLAGS == set(), path.name
        checked += len(found - OTHER_FLAGS)
    assert checked >= 60


def test_fences_of_shell_lines_have_the_one_name_that_is_checked() -> None:
    for path in texts():
        names = {name for name, _ in FENCE.findall(path.read_text(encoding="utf-8"))}
        assert names <= {"", "sh", "python", "text", "{toctree}", "{figure}"}, path.name


@pytest.mark.parametrize("new", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_readme_runs(tmp_path: Path, zygote: Zygote, new: bool) -> None:
    ((code, _),) = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    given = """
import torch
my_train_set = [(torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), n % 37) for n in range(64)]
my_val_set = my_train_set[:8]
my_images = torch.stack([image for image, _ in my_val_set])
"""
    for there, here in (("timm/resnet50", "packaged/efficientnet_lite0"), ("max_epochs=10", "max_epochs=1")):
        assert there in code
        code = code.replace(there, here)
    page = tmp_path / "readme.md"
    page.write_text(f"```python\n{given}{code}\nassert len(found) == 1 and len(found[0]) == 8\n```\n")
    assert run_pages([page], tmp_path, slow=False, zygote=None if new else zygote) == {"readme.md": ""}


def test_extras_are_installed_from_the_checkout() -> None:
    """No index has the package: `install_extra` gives the command for messages, pages write the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras, named = set(project["optional-dependencies"]), set()
    files = [*texts(), *(ROOT / "recipes").rglob("*"), *(ROOT / "visionkit").rglob("*.py")]
    for file in filter(Path.is_file, files):
        text = file.read_text(encoding="utf-8", errors="replace")
        assert f"{project['name']}[" not in text, file
        for names in re.findall(r"""(?:"\.\[|install_extra\(["'])([\w,-]+)(?:\]"|["']\))""", text):
            assert set(names.split(",")) <= {*extras, "NAME"}, f"{file}: {names}"
            named |= set(names.split(","))
    assert {"demo", "export", "cluster", "java-scores", "loggers", "fast"} <= named
    rows = re.findall(
        r"^\| `([\w-]+)` \|", (ROOT / "docs/how-to/install.md").read_text("utf-8"), re.MULTILINE
    )
    assert set(rows) >= extras
    assert install_extra("export") == 'pip install ".[export]" in a checkout of visionkit'


def test_links_between_pages_lead_somewhere() -> None:
    checked = 0
    written = {path: path.read_text(encoding="utf-8") for path in texts()}
    written |= {
        path: "".join("".join(cell["source"]) for cell in cells(path, "markdown")) for path in notebooks()
    }
    for path, text in written.items():
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
            checked += 1
    assert checked >= 60


def test_the_functions_of_the_way_to_a_step_are_there() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from make_reference import STEPS, linked_functions
    finally:
        sys.path.remove(str(ROOT / "docs"))
    names = linked_functions(STEPS)
    assert len(names) >= 8
    for name in names:
        module, _, function = name.rpartition(".")
        assert callable(getattr(importlib.import_module(module), function)), name


def test_the_table_of_speeds_is_that_of_the_measured_rows() -> None:
    spec = importlib.util.spec_from_file_location("make_speed", DOCS / "make_speed.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    rows = json.loads((DOCS / "reference/speed.json").read_text(encoding="utf-8"))
    page = (DOCS / "explanation/speed.md").read_text(encoding="utf-8")
    assert f"{maker.BEGIN}\n{maker.table(rows)}\n{maker.END}" in page


def test_pages_are_found() -> None:
    names = {path.relative_to(DOCS).as_posix() for path in pages()}
    assert {"index.md", "tutorials/first-comparison.md", "reference/cli.md", "explanation/design.md"} <= names


def test_a_broken_block_fails(tmp_path: Path) -> None:
    (tmp_path / "bad.md").write_text("```python\nassert 1 == 2\n```\n")
    (tmp_path / "left-out.md").write_text("<!-- not run: needs a key -->\n```python\nassert 1 == 2\n```\n")
    (tmp_path / "good.md").write_text("```python\nx = 1\n```\ntext\n```python\nassert x == 1\n```\n")
    said = run_pages(sorted(tmp_path.glob("*.md")), tmp_path, slow=False)
    assert set(said) == {"bad.md", "good.md"}
    assert "AssertionError" in said["bad.md"]
    assert said["good.md"] == ""


@cache
def known_flags() -> dict[str, set[str]]:
    """The flags in the whole help of each recipe and verb, from one process that imports nothing heavy."""
    asked = {
        f"recipes/{name}.py": ["run", name, "--help=all"] for name in list_recipes() | list_applications()
    }
    # `run` and `tune` take the flags of another program.
    asked |= {verb: [verb, "--help"] for verb in cli.VERBS if verb not in ("run", "tune")}
    asked["inspect"] = ["inspect", "--help=all"]
    code = """if True:
        import contextlib, json, sys
        from visionkit import cli
        for words in json.loads(sys.argv[1]):
            with contextlib.suppress(SystemExit):
                cli.main(words)
            print("\\0")
    """
    command = [sys.executable, "-c", code, json.dumps(list(asked.values()))]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")[
        :-1
    ]
    flags = [set(re.findall(r"(?<![\w-])--[a-z][\w.]*", text)) for text in said]
    assert all(len(found) > 30 for found, name in zip(flags, asked) if name.startswith("recipes/"))
    return dict(zip(asked, flags, strict=True))


def test_the_tests_that_the_table_of_odd_input_names_are_there() -> None:
    named = re.findall(
        r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/reference/odd-input.md").read_text("utf-8")
    )
    assert len(named) >= 170
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file in {file for file, _ in named}}
    assert [f"{file}::{name}" for file, name in named if f"def {name}(" not in texts[file]] == []
