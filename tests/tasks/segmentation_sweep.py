"""Every decoder over one backbone of a family: what trains and evaluates at odd sizes, what is refused, how.

`python tests/tasks/segmentation_sweep.py NAME ...` prints rows as JSON, and advice that fails.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import time
from typing import Any

import torch

from visionkit.config import TransferConfig
from visionkit.errors import InputError
from visionkit.nn.segmentation.decoders import list_decoders
from visionkit.tasks import Segmenter, backbones

SIZE = (97, 131)


def sweep(name: str) -> list[dict[str, Any]]:
    """Return a row for each decoder: "ok", or "refused" with the text; anything else is raised."""
    original = backbones.create_backbone
    # the same maps serve several decoders: a network is built once for each choice of them
    built = functools.cache(lambda name, reductions, **rest: original(name, reductions=reductions, **rest))
    backbones.create_backbone = lambda name, *, reductions, **rest: built(name, tuple(reductions), **rest)
    try:
        return [_row(name, decoder) for decoder in list_decoders()]
    finally:
        backbones.create_backbone = original


def _row(name: str, decoder: str, **more: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    try:
        task = Segmenter(
            name, init="scratch", num_classes=3, decoder=decoder, channels=8,
            transfer=TransferConfig(norm="batch"), **more,
        )  # fmt: skip
    except InputError as error:
        return {"name": name, "decoder": decoder, "status": "refused", "why": str(error)}
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8, generator=generator)
    masks = torch.randint(0, 3, (2, *SIZE), generator=generator)
    task.zero_grad()
    out = task.train().training_step({"images": images, "masks": masks, "ids": ["a", "b"]}, 0)
    out["loss"].backward()
    with torch.no_grad():
        logits = task.eval()(images[:1])
    faults = [] if torch.isfinite(out["loss"]) and torch.isfinite(logits).all() else ["not finite"]
    faults += [] if logits.shape == (1, 3, *SIZE) else [f"shape {tuple(logits.shape)}"]
    trained = {key: value.grad for key, value in task.named_parameters() if value.requires_grad}
    silent = [key for key, grad in trained.items() if grad is None]
    wild = [key for key, grad in trained.items() if grad is not None and not torch.isfinite(grad).all()]
    faults += [f"not finite: {', '.join(wild[:3])} ({len(wild)})"] if wild else []
    levels = [level.reduction for level in task.backbone.levels]
    status = "; ".join(faults) or "ok"
    return {"name": name, "decoder": decoder, "status": status, "levels": levels, "unused": len(silent)}


def broken_promises(rows: list[dict[str, Any]]) -> list[str]:
    """Return what refusals recommend that does not work; a refusal must recommend something."""
    works = {row["decoder"] for row in rows if row["status"] == "ok"}
    found: list[str] = []
    again: dict[tuple[str, str], str] = {}
    for row in rows:
        if row["status"] != "refused":
            continue
        place = f"{row['name']} {row['decoder']}"
        advice = row["why"].partition("take ")[2]
        plain, _, strided = advice.partition("with output_stride=")
        named = [word for word in re.findall(r"'(\w+)'", plain) if word in list_decoders()]
        if not named and "another backbone" not in row["why"] and "without a fixed size" not in row["why"]:
            found.append(f"{place}: recommends nothing: {row['why']}")
        stride = re.match(r"\d+", strided)
        for decoder in named:
            if decoder in works:
                continue
            if stride and (decoder, stride[0]) not in again:
                again[decoder, stride[0]] = _row(row["name"], decoder, output_stride=int(stride[0]))["status"]
            if not stride or again[decoder, stride[0]] != "ok":
                found.append(f"{place}: recommends {decoder}, which does not work: {row['why']}")
    return found


if __name__ == "__main__":
    for each in sys.argv[1:]:
        began = time.process_time()
        rows = sweep(each)
        print(each, f"{time.process_time() - began:.1f} s", flush=True)
        for row in rows:
            print(json.dumps(row), flush=True)
        for text in broken_promises(rows):
            print("PROMISE", text, flush=True)
