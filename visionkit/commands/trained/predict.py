"""`visionkit predict`: predict on files, folders and globs, and write what was predicted."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from visionkit.commands.arguments import VerbParser
from visionkit.commands.progress import ImageProgress
from visionkit.errors import DataError, InputError, expected
from visionkit.predict.writers.earlier import check_free
from visionkit.predict.writers.formats import EVERY_KIND, FORMATS, check_formats
from visionkit.printable import for_terminal
from visionkit.run.feedback.pace import duration

if TYPE_CHECKING:
    from visionkit.predict.predictor import Predictor
    from visionkit.predict.writers import Writers

__all__ = ["main"]

_DEFAULT = ("jsonl", "drawings", "sheet")
_NAMED = 5  # files that cannot be read and are named at the end


def main(argv: Sequence[str]) -> int:
    """Predict, and return 0, 1 if a file could not be read, or 130 after Ctrl-C."""
    args = _parser().parse(argv)
    if not 0 <= args.min_score <= 1:
        raise InputError(expected("--min_score", "0 to 1", args.min_score))
    if args.batch_size < 0:
        raise InputError(expected("--batch_size", "0 or more", args.batch_size))
    formats, out = check_formats(["jsonl", *args.formats]), Path(args.out)
    check_free(out, overwrite=args.overwrite)
    files = _files(args.sources, out)
    from visionkit.predict.predictor import load
    from visionkit.predict.writers import open_writers
    from visionkit.predict.writers.output_names import source_root
    from visionkit.run.storage.lock import hold

    predictor = load(args.run, device=args.device, precision=args.precision, which=args.which)
    for note in predictor.notes:
        _write(note)
    with hold([out]):
        writers = open_writers(
            ["jsonl", *args.formats] if "all" in args.formats else formats,
            out,
            kind=predictor.kind,
            class_names=predictor.class_names,
            facts=predictor.facts,
            min_score=args.min_score,
            roots=[source_root(source) for source in args.sources],
            overwrite=args.overwrite,
        )
        return _predict(predictor, files, writers, args.batch_size)


def _parser() -> VerbParser:
    rows = []
    for name, each in FORMATS.items():
        only = "" if each.kinds == EVERY_KIND else f" ({', '.join(each.kinds)})"
        rows.append(f"  {name:<10}{each.text}{only}")
    parser = VerbParser(
        "predict",
        "Predict on images with a trained model, and write drawings, a contact sheet and data files.\n"
        "The run's folder, or a checkpoint alone, is enough: no data set, no recipe, no network.",
        epilog="formats:\n" + "\n".join(rows) + "\n\nexamples:\n"
        "  visionkit predict runs/detect photos/ --out found\n"
        "  visionkit predict runs/detect 'photos/**/*.jpg' --out found --formats coco yolo\n"
        "  visionkit predict best.ckpt a.jpg b.png --out found --formats all --min_score 0.7",
        loads=True,
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        help="a run's folder, a folder of runs (the best is taken), a checkpoint, an .onnx",
    )
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="images, folders (searched recursively), globs"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where everything is written (required)")
    parser.add_argument(
        "--formats", nargs="+", default=list(_DEFAULT), metavar="NAME",
        help=f"see below; all: all that the model can have (default: {' '.join(_DEFAULT)}); jsonl always",
    )  # fmt: skip
    parser.add_argument(
        "--min_score", type=float, default=0.5, metavar="X",
        help="detections: minimum score in drawings, voc and yolo (default 0.5)",
    )  # fmt: skip
    parser.add_argument(
        "--batch_size", type=int, default=0, metavar="N", help="images at once (default: as in evaluation)"
    )
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "gpu", "mps"),
        help="auto | cpu | gpu | mps (default auto)",
    )
    parser.add_argument(
        "--precision", default="auto", metavar="P",
        help="auto (as training chooses) | 32-true | bf16-mixed | 16-mixed (default auto)",
    )  # fmt: skip
    parser.add_argument(
        "--which", default="best", choices=("best", "last"), help="checkpoint: best | last (default best)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the predictions that DIR has")
    return parser


def _files(sources: Sequence[str], out: Path) -> list[str]:
    """Return the files of the sources; those below `out` are predictions, not images."""
    from visionkit.predict.sources import source_items

    top = os.path.abspath(out)  # noqa: PTH100 (links stay as they are)
    files = [str(item.path) for item in source_items(list(sources))]
    chosen = [file for file in files if not os.path.abspath(file).startswith(top + os.sep)]  # noqa: PTH100
    if not chosen:
        raise InputError(
            f"Expected images outside of --out, but all {len(files)} are in {out}, where predictions go. "
            "Choose another --out."
        )
    if len(chosen) < len(files):
        _write(f"{len(files) - len(chosen)} images in {out} are left out: predictions go there.")
    return chosen


def _predict(predictor: Predictor, files: list[str], writers: Writers, batch_size: int) -> int:
    unread: list[str] = []

    def note_error(name: str, error: DataError) -> None:
        writers.add_error(name, error)
        if len(unread) < _NAMED:
            unread.append(str(error))
        progress.advance()

    with ImageProgress(len(files)) as progress, writers, _stoppable() as stop:
        for result in predictor.stream(files, batch_size=batch_size, on_error=note_error):
            writers.add(result)
            progress.advance()
            if stop.requested:
                break
    _report(writers, progress)
    if writers.errors:
        _write(f"{writers.errors} of {len(files)} files could not be read; errors.jsonl names all:")
        for text in unread:
            _write(f"  {text}")
    if stop.requested and progress.done < len(files):
        _write(f"Interrupted after {progress.done} of {len(files)} images; what is written is complete.")
        return 130
    return 1 if writers.errors else 0


def _report(writers: Writers, progress: ImageProgress) -> None:
    """Say how long it took, what was written, and what there is to say about it."""
    seconds = progress.seconds
    lines = [
        f"{writers.count:,} images in {duration(seconds)} ({writers.count / seconds:,.3g} images/s), "
        f"written to {writers.folder}:"
    ]
    for name in writers.formats if writers.count else ():
        lines.append(f"  {'  '.join(FORMATS[name].files):<44}{FORMATS[name].text}")
    sys.stdout.write(for_terminal("\n".join(lines)) + "\n")
    for note in writers.close():
        _write(note)


class _Stop:
    requested = False


@contextmanager
def _stoppable() -> Iterator[_Stop]:
    """Take the first Ctrl-C as a request to stop between two images; a second one ends at once."""
    stop = _Stop()

    def request(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        os.write(2, b"\nInterrupted: stopping after this batch. Ctrl-C again ends at once.\n")

    try:
        before = signal.signal(signal.SIGINT, request)
    except ValueError:  # not in the main thread
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _write(text: str) -> None:
    sys.stderr.write(f"{for_terminal(text)}\n")
