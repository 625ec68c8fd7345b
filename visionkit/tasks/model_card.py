"""The model card of a published task: what it is, what it was trained on, and how it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from visionkit.config import flatten
from visionkit.printable import printable
from visionkit.tasks.saved_settings import task_name

__all__ = ["HUB_TASKS", "cell", "make_card", "table"]

HUB_TASKS = {
    "Classifier": "image-classification",
    "Detector": "object-detection",
    "Segmenter": "image-segmentation",
    "Captioner": "image-to-text",
    "Embedder": "image-feature-extraction",
    "KeypointRegressor": "keypoint-detection",
}
_VERBS = {
    "Classifier": "gives images classes",
    "Detector": "finds objects in images",
    "Segmenter": "gives every pixel of an image a class",
    "Captioner": "describes images in a sentence",
    "Embedder": "gives images vectors that lie near each other where the class is the same",
    "KeypointRegressor": "finds the points of an object in an image",
}
# Those that the hub knows, by how the sources of weights spell them.
_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0",
             "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "agpl-3.0", "gpl-3.0")  # fmt: skip
_MAX_CLASSES = 100


def make_card(
    task: lightning.LightningModule,
    *,
    name: str = "",
    facts: Mapping[str, Any],
    results: Sequence[EvalResult] = (),
    sections: Sequence[tuple[str, str]] = (),
) -> ModelCard:
    """Return the model card of a task.

    Args:
        task: The task.
        name: Of the model; made of task, backbone and data if empty.
        facts: The facts that its checkpoints carry.
        results: Scores for the card's metadata.
        sections: Title and text of more sections, which come before the usual ones.
    """
    kind = task_name(type(task))
    weights = dict(facts.get("weights") or {})
    backbone = str(getattr(getattr(task, "backbone", None), "name", "") or "a network of its own")
    data = str((facts.get("data") or {}).get("name") or "")
    title = name or f"{kind} over {backbone}" + (f" on {data}" if data else "")
    licence = str(weights.get("licence") or "").lower()
    card_data = ModelCardData(
        library_name="visionkit",
        license=licence if licence in _LICENCES else "other",
        pipeline_tag=HUB_TASKS.get(kind),
        tags=["visionkit", "pytorch", "lightning"],
        model_name=printable(title),
        eval_results=list(results) or None,
    )
    trained_on = f", trained on {cell(data)}" if data else ""
    parts = [
        f"# {cell(title)}",
        f"It {_VERBS.get(kind, 'is a task')}: a visionkit `{kind}` over `{cell(backbone)}`{trained_on}.",
        *(f"## {heading}\n\n{text}" for heading, text in (*sections, *_usual(task, kind, facts, weights))),
    ]
    body = "\n\n".join(parts)
    return ModelCard(f"---\n{card_data.to_yaml()}\n---\n\n{printable(body)}\n")


def table(rows: Sequence[Sequence[Any]]) -> str:
    """Return rows as a table in Markdown, the first row its header."""
    lines = [f"| {' | '.join(map(cell, row))} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def cell(value: Any) -> str:
    """Return a value as text that Markdown shows as it is: it may come from anywhere."""
    text = " ".join(str(value).split())
    for sign in "\\|<>`*[]":
        text = text.replace(sign, f"\\{sign}")
    return text


def _usual(
    task: lightning.LightningModule, kind: str, facts: Mapping[str, Any], weights: Mapping[str, Any]
) -> list[tuple[str, str]]:
    use = (
        "```python\nfrom visionkit.predict import load\n\n"
        'predictor = load("PATH")  # this folder\nfor result in predictor("photo.jpg"):\n'
        "    print(result.summary())\n```\n\n"
        f"Or the task itself, from a folder or from the hub: `visionkit.tasks.{kind}.from_pretrained(...)`. "
        "A new training begins from it with `--init PATH`."
    )
    sections = [("Use", use)]
    names = getattr(task, "class_names", None)
    if names:
        more = f" and {len(names) - _MAX_CLASSES:,} more" if len(names) > _MAX_CLASSES else ""
        sections.append(
            (f"Classes ({len(names):,})", ", ".join(cell(name) for name in names[:_MAX_CLASSES]) + more)
        )
    if weights.get("source") not in (None, "", "none"):
        labels = {"training_data": "trained on", "digest": "SHA-256"}
        rows = [(labels.get(key, key), value) for key, value in weights.items() if value]
        begun = table([("the backbone began from", ""), *rows])
    else:
        begun = "Trained from scratch: no weights of others are in it."
    sections.append(("Source and licence of the weights", begun))
    preprocess = facts.get("preprocess")
    if preprocess:
        rows = list(flatten({"resizing": preprocess}).items())
        sections.append(("Images", table([("how images are made ready", ""), *rows])))
    sections.append(("Made with", f"visionkit {cell(facts.get('version', ''))}"))
    return sections
