"""What people ask is answered within two clicks of the first page, and errors are found by their text."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.house_rules import PACKAGE, ROOT, parse
from tests.syntax import walk

DOCS = ROOT / "docs"
# Texts that the page explains although another library says them.
OF_OTHERS = {"CUDA out of memory", "No space left on device"}

# Question, the page that answers it, and words of the answer.
QUESTIONS = [
    ("How do I install it, and what are the extras?", "how-to/install.md", "## Extras"),
    ("Does it run without a GPU?", "how-to/install.md", "## Without a GPU"),
    ("How do I use it on a machine without internet?", "how-to/install.md", "## Without a network"),
    ("Does it run on Windows or a Mac?", "how-to/install.md", "--accelerator mps"),
    ("Are pretrained weights worth it on my data?", "tutorials/first-comparison.md", "visionkit compare"),
    ("How must my image folder look?", "how-to/use-your-own-data.md", "train/<class>/*.jpg"),
    ("Which box formats are read?", "how-to/detect-your-own-boxes.md", "YOLO text files"),
    ("How do I train on masks?", "how-to/segment-your-own-masks.md", "classes.txt"),
    ("How do I train a captioner?", "how-to/caption-your-own-images.md", "captions.txt"),
    (
        "How do I use torchvision's or own transforms?",
        "how-to/use-your-own-parts.md",
        "`Keyed` takes",
    ),
    ("How do I use a task with my own Lightning code?", "how-to/use-a-task-in-your-own-code.md", "Trainer("),
    ("What are the files in a run folder?", "how-to/use-a-run-folder.md", "`result.json`"),
    ("How do I continue or lengthen a run?", "how-to/use-a-run-folder.md", "## Start it again"),
    ("How do I log to wandb, MLflow or TensorBoard?", "how-to/use-trackers.md", "WANDB_PROJECT"),
    ("How do I predict on new images?", "how-to/predict-on-images.md", "visionkit predict"),
    ("How do I export to ONNX?", "how-to/export-a-model.md", "visionkit export"),
    ("How do I evaluate on other data?", "how-to/evaluate-a-trained-model.md", "--data"),
    ("How do I run on SLURM or Kubernetes?", "how-to/run-on-a-cluster.md", "## SLURM"),
    ("What do the numbers of the report mean?", "how-to/read-the-report.md", "report.html"),
    ("What does this error mean?", "how-to/troubleshoot.md", "is not finite at update"),
]


def body_links(page: Path) -> set[Path]:
    """The pages that the text of a page links to; the sidebar does not count."""
    text = re.sub(r"^```\{toctree\}.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)#:\s]+\.md)(?:#[^)]*)?\)", text)
    targets += [f"{name}.md" for name in re.findall(r"^:link: ([\w/.-]+)$", text, re.M)]
    return {(page.parent / target).resolve() for target in targets}


def test_twenty_questions_are_answered_within_two_clicks():
    first = body_links(DOCS / "index.md")
    second = first.union(*(body_links(page) for page in first if page.exists()))
    assert len({question for question, _, _ in QUESTIONS}) == 20
    for question, page, words in QUESTIONS:
        assert (DOCS / page).resolve() in second, question
        assert words in (DOCS / page).read_text(encoding="utf-8"), question


def test_a_page_that_is_three_clicks_away_is_seen(tmp_path):
    for name, text in (
        ("index.md", "[a](a.md)\n```{toctree}\n[d](d.md)\n```\n"),
        ("a.md", "[b](b.md#x)"),
        ("b.md", ":link: c\n"),
        ("c.md", ""),
    ):
        (tmp_path / name).write_text(text)
    assert body_links(tmp_path / "index.md") == {tmp_path / "a.md"}
    assert body_links(tmp_path / "a.md") == {tmp_path / "b.md"}
    assert body_links(tmp_path / "b.md") == {tmp_path / "c.md"}


def texts_of_the_code() -> list[str]:
    """Every text in the package, with a mark where a value is filled in."""
    found = []
    for tree in parse(PACKAGE).values():
        for node in walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.fixture(scope="module")
def code():
    return texts_of_the_code()


def in_code(heading: str, code: list[str]) -> bool:
    parts = [part.strip(" ,'") for part in heading.split("...")]
    pattern = re.compile(r"[^.]*".join(re.escape(part) for part in parts if part), re.S)
    return any(pattern.search(text) for text in code)


def test_each_error_of_the_page_is_a_text_of_the_code(code):
    page = (DOCS / "how-to/troubleshoot.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### (.+)$", page, re.M)
    assert len(headings) >= 30
    assert [text for text in headings if text not in OF_OTHERS and not in_code(text, code)] == []
    assert not in_code("The weights of ... are made of cheese", code)
