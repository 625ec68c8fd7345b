"""`visionkit evaluate`: score a trained model on its own data, or on other data of the same kind."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.commands.arguments import VerbParser, add_stream, add_table, stream_values, table_config

if TYPE_CHECKING:
    from visionkit.predict.evaluation.result import Evaluation

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Evaluate, print the scores, and write them to --out."""
    parser = _parser()
    args = parser.parse(argv)
    from visionkit.predict.evaluation.arms import arms_text, finished_runs, write_arms
    from visionkit.predict.evaluation.result import free_folder

    runs = finished_runs(args.run)
    if len(runs) < 2:
        sys.stdout.write(f"{_evaluate(args, args.run, args.out).text()}\n")
    else:
        if args.out:
            free_folder(args.out, overwrite=args.overwrite)
        done = [_evaluate(args, run, args.out and Path(args.out) / run.name) for run in runs]
        sys.stdout.write(f"{arms_text(done)}\n")
        if args.out:
            write_arms(done, args.out)
    if args.out:
        sys.stdout.write(f"written  {args.out}: evaluation.json, figures/, predictions/\n")
    return 0


def _evaluate(args: argparse.Namespace, run: str | Path, out: str | Path | None) -> Evaluation:
    from visionkit.predict.evaluation.evaluate import evaluate

    return evaluate(
        run,
        data=args.data,
        split=args.split,
        which=args.which,
        options=_options(args),
        limit=args.limit,
        batch_size=args.batch_size,
        workers=args.workers,
        device=args.device,
        precision=args.precision,
        out=out or None,
        overwrite=args.overwrite,
        progress=True,
    )


def _parser() -> VerbParser:
    parser = VerbParser(
        "evaluate",
        "Score a trained model: every score and figure of its training, exactly. On the run's own data the\n"
        "scores are compared with its result.json, to the last digit. Of a folder of runs: all, with mean\n"
        "and spread of each arm. Needs neither recipe nor network.",
        epilog="examples:\n  visionkit evaluate runs/pets\n"
        "  visionkit evaluate runs/pets/pretrained-f1-s0 --split val --which last\n"
        "  visionkit evaluate runs/pets/pretrained-f1-s0 --data new_photos/ --split all --out scores/",
        loads=True,
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder, a folder of runs, or a checkpoint")
    parser.add_argument("--data", help="a data set of the same kind, any format (default: the run's own)")
    parser.add_argument(
        "--split", default="", help="test (default; val where the run's data have none) | val | train | all"
    )
    parser.add_argument(
        "--which", default="best", choices=("best", "last"), help="checkpoint: best (default) | last"
    )
    parser.add_argument("--limit", type=int, default=0, help="evaluate so many images (default 0: all)")
    parser.add_argument("--batch_size", type=int, default=0, help="images a batch (default 0: as the run)")
    parser.add_argument("--workers", type=int, default=0, help="processes that read (default 0: this one)")
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "gpu", "mps"),
        help="auto (as the run) | cpu | gpu | mps",
    )
    parser.add_argument(
        "--precision", default="auto", help="auto (as the run) | 32-true | bf16-mixed | 16-mixed"
    )
    parser.add_argument("--out", help="write evaluation.json, figures/ and predictions/ there")
    parser.add_argument("--overwrite", action="store_true", help="--out may hold files already")
    parser.add_argument(
        "--max_dropped", type=float, help="largest fraction of unknown classes (default: that of the run)"
    )
    add_table(parser, "as the run")
    add_stream(parser)
    parser.add_argument("--classes", default="", help="masks: the label map file of their values")
    parser.add_argument("--images", default="", help="captions: the folder of the images")
    return parser


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was given of how the data are read."""
    given = {name: value for name in ("target", "classes", "images") if (value := getattr(args, name))}
    table = table_config(args)
    if table != type(table)():
        given["table"] = table
    stream = stream_values(args)
    if any(stream.values()):
        given["stream"] = stream
    if args.max_dropped is not None:
        given["max_dropped"] = args.max_dropped
    return given
