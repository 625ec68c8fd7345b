"""`visionkit publish`: a run becomes a folder to be shared, with its model card."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from visionkit.commands.arguments import VerbParser
from visionkit.printable import for_terminal

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Publish one run."""
    parser = VerbParser(
        "publish",
        "Write a trained task into a new folder to be shared: config.json, model.safetensors, the model\n"
        "card (README.md) with the scores of all arms, and their learning curves. Sends nothing.",
        epilog="examples:\n  visionkit publish runs/classify cells-classifier\n"
        "  visionkit publish runs/classify cells-classifier --timm cells-resnet50.safetensors\n"
        "  hf upload NAME/cells-classifier cells-classifier     (of huggingface_hub: sends the folder)",
        loads=True,
    )
    parser.add_argument(
        "run", metavar="RUN", help="a run, a folder of runs (the best is taken), a checkpoint"
    )
    parser.add_argument("folder", metavar="FOLDER", help="the new folder")
    parser.add_argument("--timm", default=None, metavar="FILE", help="also the backbone, in timm's format")
    parser.add_argument("--name", default="", help="of the model, for the card")
    parser.add_argument("--which", default="best", choices=("best", "last"), help="which checkpoint")
    args = parser.parse(argv)
    from visionkit.predict.share import publish

    done = publish(args.run, args.folder, timm_file=args.timm, name=args.name, which=args.which)
    lines = [*done.notes, f"published   {done.folder}: {', '.join(done.files)}"]
    if done.timm is not None:
        lines += [f"timm        {done.timm.file}: {done.timm.call}", *done.timm.notes]
    sys.stdout.write(for_terminal("\n".join(lines)) + "\n")
    return 0
