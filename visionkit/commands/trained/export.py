"""`visionkit export`: a trained model as one file that other programs run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionkit.commands.arguments import VerbParser
from visionkit.errors import InputError, unknown_name
from visionkit.predict.trained_files import SUFFIXES
from visionkit.printable import for_terminal

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Export one trained model."""
    parser = VerbParser(
        "export",
        "Write a trained model as one file. It is compared with the task on images before it gets its name;\n"
        "a file that differs is not kept.\n\n"
        "  onnx         a graph for onnxruntime, in Python, C++ or a browser; any batch size, and any image\n"
        "               size where the network allows it; proposals, suppression and captions are inside\n"
        "  torch        a program of torch.export (.pt2); no detectors\n"
        "  safetensors  the weights, with the settings that build the task again",
        epilog="examples:\n  visionkit export runs/pets\n"
        "  visionkit export runs/pets --format onnx --uint8 --images photos/ --out pets.onnx\n"
        "  visionkit describe pets.onnx\n  visionkit predict pets.onnx photos/",
        loads=True,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, a folder of runs, or a checkpoint")
    parser.add_argument(
        "--format", default="onnx", metavar="NAME", help="onnx (default) | torch | safetensors"
    )
    parser.add_argument("--out", default="", metavar="FILE", help="default: RUN/model.ENDING")
    parser.add_argument("--uint8", action="store_true", help="take uint8 RGB images, not float in [0, 1]")
    parser.add_argument("--images", default=[], nargs="+", metavar="PATH", help="compare on these images")
    parser.add_argument("--which", default="best", metavar="NAME", help="checkpoint: best (default) | last")
    args = parser.parse(argv)
    if args.format not in SUFFIXES:
        raise unknown_name("export format", args.format, SUFFIXES)
    from visionkit.predict.export import export

    if args.images and args.format == "safetensors":
        raise InputError(
            "Expected --images with a graph (--format onnx or torch): the tensors of a state dict are "
            "compared as they are. Leave --images out."
        )
    run = Path(args.run)
    beside = run / f"model{SUFFIXES[args.format]}" if run.is_dir() else run.with_suffix(SUFFIXES[args.format])
    made = export(
        args.run,
        args.out or beside,
        format=args.format,
        uint8=args.uint8,
        images=args.images or None,
        which=args.which,
    )
    size = made.path.stat().st_size / 1e6
    sys.stdout.write(for_terminal(f"{made.path}: {size:,.1f} MB, {made.metadata['kind']}\n"))
    for line in (*_figures(made.metadata, made.speed), *made.notes):
        sys.stdout.write(for_terminal(f"{line}\n"))
    return 0


def _figures(metadata: dict[str, Any], speed: dict[str, float]) -> list[str]:
    lines = []
    if check := metadata.get("check"):
        differences = ", ".join(
            f"{name} {value:.2g}{' px' if name == 'boxes' else ''}"
            for name, value in check["largest_difference"].items()
        )
        sizes = ", ".join("x".join(map(str, shape)) for shape in check["batches"])
        lines.append(f"largest difference from the task on {check['images']} ({sizes}): {differences}")
    if speed:
        lines.append(
            "processor time for one image on one thread, the median of several calls in turn: "
            f"file {speed['file']:.1f} ms, task {speed['task']:.1f} ms"
        )
    return lines
