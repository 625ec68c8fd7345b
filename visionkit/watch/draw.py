"""The process that draws a network's first layer and its activation maps, from a checkpoint and a few images.

`python -m visionkit.watch.draw` reads a request a line from its input and answers each with a line (JSON); it
ends with its input. It has the lowest priority, one thread and no GPU, so that a training beside it loses
nothing that can be measured.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["draw", "main"]

_TRIES = 4
_PAUSE = 0.5  # seconds before a checkpoint that was being replaced is read again


def main() -> int:
    """Answer requests until the input ends."""
    _step_back()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    import torch

    import visionkit.watch.layers  # noqa: F401  (what a drawing needs, so that its own time can be told)

    torch.set_num_threads(1)
    for line in sys.stdin:
        request, began = json.loads(line), time.process_time()
        try:
            answer = draw(Path(request["checkpoint"]), [Path(path) for path in request["images"]])
        except Exception as error:
            answer = {"note": _in_words(error), "parts": []}
        answer["cpu_seconds"] = time.process_time() - began
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


def draw(checkpoint: Path, images: list[Path]) -> dict[str, Any]:
    """Return the first layer and the activation maps of a checkpoint as PNG images with their numbers.

    Args:
        checkpoint: A file that may be replaced meanwhile: then the new one is read.
        images: PNG files of what the network receives.

    Returns:
        "images_seen", "note" (what cannot be shown, and why), and "parts": one for the filters, one for each
        resolution of the maps, each with "title", "png" (base64), "rows" (names and values) and "about".

    Raises:
        InputError: The checkpoint cannot be loaded or its network not be built; the text says why.
    """
    import torch

    from visionkit.watch.layers import activation_parts, build_task, filter_part, find_layers, read_images

    loaded = _load(checkpoint)
    task = build_task(loaded)
    parts: list[dict[str, Any]] = []
    notes: list[str] = []
    inputs = read_images(images, task.channels)
    if not inputs:
        notes.append(
            f"No images of {task.channels} channels lie in figures/watch/ of this run, so the maps are those "
            "of grey noise: what the network makes of no content."
        )
        side = getattr(task.backbone, "fixed_size", None) or (224, 224)
        generator = torch.Generator().manual_seed(0)
        inputs = [torch.rand((task.channels, *side), generator=generator) * 0.1 + 0.45]
    layers = find_layers(task, inputs)
    if layers.convolution is None:
        notes.append("No layer of this network is a convolution, so there are no filters to show.")
    else:
        parts.append(filter_part(layers.convolution, task.channels))
    parts += activation_parts(layers.maps)
    if not layers.maps:
        notes.append("The network has no maps: none of its layers keeps the grid of the image.")
    for part in parts:
        part["png"] = _png(part.pop("image"))
    about = loaded.get("visionkit") or {}
    seen = int(loaded.get("global_step", 0)) * int(about.get("update", 0))
    return {"images_seen": seen, "note": " ".join(notes), "parts": parts}


def _load(checkpoint: Path) -> dict[str, Any]:
    from visionkit.errors import InputError
    from visionkit.run.storage.checkpoint import load_checkpoint

    for attempt in range(_TRIES):
        try:
            return load_checkpoint(checkpoint)
        except (InputError, OSError):
            # Renamed between two looks at it: the digest is of one file, the content of another.
            if attempt == _TRIES - 1:
                raise
            time.sleep(_PAUSE)
    raise InputError(f"{checkpoint} was replaced whenever it was read.")


def _png(image: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _step_back() -> None:
    """Take the lowest priority, at which a busy machine still gives a percent of a core.

    Linux shares processor time between sessions first, where autogroups are on, then by `nice` within one:
    the process has a session of its own, so the session takes the lowest priority too (sched(7)).
    """
    with contextlib.suppress(OSError, AttributeError):  # not everywhere
        os.nice(19)
        Path("/proc/self/autogroup").write_text("19", "ascii")


def _in_words(error: Exception) -> str:
    from visionkit.errors import InputError, RunError, first_line

    name = "" if isinstance(error, InputError | RunError) else f"{type(error).__name__}: "
    return f"The layers cannot be shown: {name}{first_line(error, limit=400)}"


if __name__ == "__main__":
    sys.exit(main())
