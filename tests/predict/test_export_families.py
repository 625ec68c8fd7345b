"""ONNX over backbones of every family, for four tasks: each passes, or is refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.contracts.cases import BACKBONES
from tests.contracts.quick_weights import quick_weights
from tests.predict.export_over import export_over

pytest.importorskip("onnx", reason="the extra `export` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
pytest.importorskip("onnxscript", reason="the extra `export` is not installed")

KINDS = ("classification", "segmentation", "detection", "captioning")


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_every_family_exports_or_is_refused_by_name(tmp_path):
    """`VISIONKIT_TABLE` is a file to go on from, `VISIONKIT_LIMIT` how many rows to add."""
    table = Path(os.environ.get("VISIONKIT_TABLE", tmp_path / "export.jsonl"))
    lines = table.read_text().splitlines() if table.exists() else []
    done = {(row["name"], row["kind"]) for row in map(json.loads, lines)}
    todo = [(name, kind) for name in BACKBONES for kind in KINDS if (name, kind) not in done]
    limit = int(os.environ.get("VISIONKIT_LIMIT", len(todo)))
    with table.open("a") as out, quick_weights():
        for name, kind in todo[:limit]:
            out.write(json.dumps(export_over(kind, name, BACKBONES[name])) + "\n")
            out.flush()
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    for row in rows:
        print(row["name"], row["kind"], row["status"], row.get("difference"), row.get("opset"), row["reason"])
    assert [row for row in rows if row["status"] == "crash"] == []
    if limit >= len(todo):
        passed = [
            {row["name"] for row in rows if row["kind"] == kind and row["status"] == "passes"}
            for kind in KINDS
        ]
        assert min(map(len, passed)) >= 30
