"""Verification of a list of pairs: a table of two images each, and whether they show the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from visionkit.data.formats.csv.delimited import read_delimited
from visionkit.errors import DataError
from visionkit.metrics import VerificationScores
from visionkit.predict.predictor import Predictor

__all__ = ["Pairs", "read_pairs", "score_pairs"]

COLUMNS = ("first", "second", "same")
_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class Pairs:
    """A list of pairs of images.

    Args:
        files: The images, each once.
        first: `(N,)` the number of the one image of each pair.
        second: `(N,)` that of the other.
        same: `(N,)` whether they show the same.
        folds: `(N,)` the fold of each; None where the table names none.
    """

    files: tuple[str, ...]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]
    folds: NDArray[np.int64] | None


def read_pairs(file: str | Path, *, root: str | Path = "") -> Pairs:
    """Read a table with the columns `first` and `second` (images), `same` (0 or 1) and perhaps `fold`.

    Args:
        file: A CSV file.
        root: The folder that its paths are of; that of the table if empty.

    Raises:
        DataError: A column is missing, an image is not there, a cell is not what it should be, or both images
            of a pair are one; the first case is named, with its line.
    """
    path = Path(file)
    table = read_delimited(path, known=COLUMNS)
    missing = [name for name in COLUMNS if name not in table.header]
    if missing:
        text = f"Expected the columns {', '.join(COLUMNS)}, but {', '.join(missing)} is not among"
        raise DataError(f"{text} {', '.join(table.header)}.", path=path, record="line 1")
    column = {name: table.header.index(name) for name in (*COLUMNS, "fold") if name in table.header}
    numbers: dict[str, int] = {}
    rows: list[tuple[int, int, bool, int]] = []
    for line, cells in table.lines:
        if len(cells) != len(table.header):
            text = f"Expected {len(table.header)} cells, but got {len(cells)}."
            raise DataError(text, path=path, record=f"line {line}")
        one, other = (numbers.setdefault(cells[column[name]].strip(), len(numbers)) for name in COLUMNS[:2])
        if one == other:
            text = f"Expected two images, but {cells[column['first']]} comes twice."
            raise DataError(text, path=path, record=f"line {line}")
        same, fold = cells[column["same"]].strip().lower(), cells[column["fold"]] if "fold" in column else "0"
        for name, value, right in (("same", same, same in _TRUTH), ("fold", fold, fold.strip().isdecimal())):
            if not right:
                text = f"Expected {'0 or 1' if name == 'same' else 'a whole number'}, but got {value!r}."
                raise DataError(text, path=path, record=f"line {line}", field=name)
        rows.append((one, other, _TRUTH[same], int(fold)))
    files = _there(path, list(numbers), Path(root or path.parent))
    first, second, same_as, folds = (np.asarray(each) for each in zip(*rows, strict=True))
    return Pairs(files, first, second, same_as, folds if "fold" in column else None)


def score_pairs(encoder: Predictor, pairs: Pairs, *, batch_size: int = 0) -> dict[str, float]:
    """Return auc, eer, tar_at_far_X and accuracy of a list of pairs: see `visionkit.metrics`.

    Args:
        encoder: See `load_encoder`.
        pairs: The list; its folds are those of the accuracy, NaN where it has none.
        batch_size: Images at once; 0: 32.

    Raises:
        DataError: An image cannot be read.
    """
    vectors = [each.prediction.vector for each in encoder.stream(list(pairs.files), batch_size=batch_size)]
    units = torch.nn.functional.normalize(torch.stack(vectors).double(), dim=1)
    likeness = (units[pairs.first] * units[pairs.second]).sum(1)
    scores = VerificationScores()
    folds = None if pairs.folds is None else torch.from_numpy(pairs.folds)
    scores.update(likeness, torch.from_numpy(pairs.same), folds)
    return scores.compute_floats()


def _there(table: Path, names: list[str], root: Path) -> tuple[str, ...]:
    files = [str(root / name) for name in names]
    gone = [name for name, file in zip(names, files, strict=True) if not Path(file).is_file()]
    if gone:
        raise DataError(
            f"Expected the images of the pairs in {root}, but {len(gone)} of {len(names)} are not there, the "
            f"first is {gone[0]!r}. Give their folder as root, or mend the table.",
            path=table,
        )
    return tuple(files)
