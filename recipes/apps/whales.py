"""Which whale is this? Individuals that other photographs show, and new ones, as a competition had them.

python recipes/apps/whales.py --data whales/            # train/<individual>/*.jpg, test/<individual>/*.jpg
python recipes/apps/whales.py --data whales/ --image_size 128 --loss arcface --epochs 40

The individuals in test/ are new in the test, and a fifth of those in train/ is new in validation. The others
are known: of the images of each about a fifth is searched for in the test and another in validation, and the
rest is trained on and searched among. The answer "a new whale" comes before every individual whose cosine is
below a threshold, which is chosen on validation. Beside the runs lie known.csv (what is known), scores.md and
scores.json.
"""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionkit.commands import load_recipe
from visionkit.config import TableConfig
from visionkit.errors import InputError
from visionkit.files import write_text
from visionkit.run import launch, setting
from visionkit.task_config import RetrievalConfig

embed = load_recipe("embed", beside=__file__)  # the installed one where this file stands alone

ANSWERS = 5  # to each image, the likeliest first
COLUMNS = (
    *("known/top1", "known/map_at_5", "new/top1", "new/map_at_5"),
    *("open/map_at_5", "open_known/top1", "open_new/top1"),
)


@dataclass
class Config(embed.Config):
    """The settings of `whales.py`: those of `embed.py`, with other defaults."""

    data: str = setting("", "a data set whose test split has individuals of its own (required)", group="data")
    select_by: str = setting("map_at_r", "map_at_r recall_at_1 ...: what weights are chosen by")
    seeds: list[int] = setting(
        [0], "one run for each", group="training", role="arm", min=0, max=2**32 - 1, unique=True
    )
    retrieval: RetrievalConfig = setting(
        RetrievalConfig(gallery="train", baselines=True), "whether baselines are scored, too"
    )


def write_known(splits: Any, file: Path) -> Path:
    """Write a table of the individuals that are known: most images to train on, others to search for.

    Args:
        splits: Those of training are known.
        file: The table.

    Returns:
        The folder that its paths are of.
    """
    from visionkit.data import HOLDOUT, holdout

    if splits.test is None or not hasattr(splits.train, "files"):
        raise InputError(
            f"Expected image files, and individuals of the test alone, but {splits.name} has none."
        )
    counts = [len(set(reader.labels)) for reader in (splits.train, splits.test)]
    if min(counts) < ANSWERS:
        raise InputError(
            f"Expected at least {ANSWERS} known individuals and {ANSWERS} that are new in the test, of which "
            f"{ANSWERS} are answered, but got {counts[0]} and {counts[1]}."
        )
    rest, test = holdout(splits.train, HOLDOUT)
    train, val = holdout(rest, HOLDOUT)
    root = Path(os.path.commonpath([Path(path).absolute().parent for path in splits.train.files]))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("image", "id", "split"))
    for split, reader in (("train", train), ("val", val), ("test", test)):
        for path, label in zip(reader.files, reader.labels, strict=True):
            inside = Path(path).absolute().relative_to(root).as_posix()
            writer.writerow((inside, splits.classes[label], split))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, stream.getvalue())  # each of several processes writes the same, and none reads a half
    return root


def identify(encode: Any, known: Any, splits: Any) -> dict[str, float]:
    """Return top-1 and mAP@5 of known individuals, of new ones among each other, and of both together.

    Args:
        encode: Gives the vectors of a reader.
        known: The splits of the known individuals.
        splits: All splits, those of validation and test with individuals of their own.
    """
    import numpy as np
    import torch

    from visionkit.metrics import UNKNOWN, best_threshold, identification_scores, rank_classes

    def unit(reader: Any) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.from_numpy(encode(reader)), dim=1)

    gallery, of_gallery = unit(known.train), np.asarray(known.train.labels)
    scores: dict[str, float] = {}
    threshold = 0.0
    for split in ("val", "test"):
        own, others = getattr(known, split), getattr(splits, split)
        vectors, truth = unit(own), np.asarray(own.labels)
        new, of_new = unit(others), np.asarray(others.labels)
        ranking = rank_classes(torch.cat([vectors, new]), gallery, of_gallery, count=ANSWERS)
        answers = np.append(truth, np.full(len(new), UNKNOWN))
        if split == "val":
            threshold = best_threshold(ranking, answers)
            continue
        among = rank_classes(new, new, of_new, count=ANSWERS, skip=torch.arange(len(new)))
        is_known = answers != UNKNOWN
        parts = {
            "known": (is_known, -np.inf), "open": (np.ones_like(is_known), threshold),
            "open_known": (is_known, threshold), "open_new": (~is_known, threshold),
        }  # fmt: skip
        for name, (rows, cut) in parts.items():
            some = ranking._replace(classes=ranking.classes[rows], cosines=ranking.cosines[rows])
            made = identification_scores(some, answers[rows], threshold=cut)
            scores |= {f"{name}/{key}": value for key, value in made.items()}
        scores |= {f"new/{key}": value for key, value in identification_scores(among, of_new).items()}
    return scores | {"threshold": threshold}


def main(config: Config) -> Path:
    """Train both arms on the known individuals, and score them and the baselines; return the folder."""
    from visionkit.data import OpenOptions, open_dataset
    from visionkit.retrieval import (
        BASELINES,
        baseline_encoder,
        check_baselines,
        compared_runs,
        run_encoder,
        write_scores,
    )
    from visionkit.run import is_first, trains

    if not config.data:
        raise InputError("Expected --data with train/<individual>/ and test/<individual>/, but got none.")
    if config.folds:
        raise InputError("Expected no --folds: which images of whales are searched for is fixed.")
    config.out = config.out or "runs/whales"
    splits = open_dataset(config.data, "classification", OpenOptions(unseen_classes=True))
    table = Path(config.out) / "known.csv"
    config.table = TableConfig(image="image", target=["id"], root=str(write_known(splits, table)))
    baselines = BASELINES if config.retrieval.baselines else ()
    if baselines:
        check_baselines(config.backbone)
    config.data, config.retrieval = str(table), RetrievalConfig(gallery="train")
    out = Path(embed.main(config))
    if not is_first() or not trains():
        return out
    known = embed.open_splits(config)
    how = {"backbone": config.backbone, "image_size": config.image_size, "device": config.accelerator}
    rows = {name: [identify(baseline_encoder(name, known.train, **how), known, splits)] for name in baselines}
    for name, runs in compared_runs(out).items():
        encoders = (run_encoder(run["folder"], device=config.accelerator) for run in runs)
        rows[name] = [identify(encode, known, splits) for encode in encoders]
    print(write_scores(out, rows, COLUMNS))
    print(f"scores      {out / 'scores.md'}")
    return out


if __name__ == "__main__":
    launch(main, Config, doc=__doc__, prog="whales.py")
