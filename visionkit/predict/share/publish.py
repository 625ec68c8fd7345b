"""`publish`: a run becomes a folder with the task, its model card and the comparison's figure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from visionkit.errors import InputError, RunError
from visionkit.files import is_free, local_path, new_folder, unwritable
from visionkit.predict.loaded import load_task
from visionkit.predict.share.model_card import card_of
from visionkit.predict.share.timm_weights import TimmWeights, check_timm_file, timm_weights

__all__ = ["Published", "publish"]


@dataclass(frozen=True)
class Published:
    """What was published.

    Args:
        folder: The folder.
        files: The names of its files.
        timm: The backbone's weights in timm's format, where they were asked for.
        notes: What was chosen or is missing, in sentences.
    """

    folder: Path
    files: tuple[str, ...]
    timm: TimmWeights | None
    notes: tuple[str, ...]


def publish(
    path: str | Path,
    folder: str | Path,
    *,
    timm_file: str | Path | None = None,
    name: str = "",
    which: str = "best",
) -> Published:
    """Write a trained task into a new folder to be shared: all of it or nothing.

    The folder holds `config.json`, `model.safetensors`, `README.md` (the model card, with the scores of all
    arms that were run beside it) and `learning-curves.png`. No file in it names a path of this machine.

    Args:
        path: A run, a folder of runs (the best is taken), a checkpoint, or a published folder.
        folder: The new folder.
        timm_file: Also write the backbone in timm's format, to this `.safetensors` file (in `folder`, too).
        name: Of the model, for the card.
        which: "best" or "last": which checkpoint of the run.

    Raises:
        InputError: There is nothing to publish, the folder is not empty, or timm has no such network.
        DataError: The checkpoint is damaged.
        RunError: The folder cannot be written.
    """
    target = local_path(folder, "a new folder")
    _check_free(target)
    if timm_file is not None:
        check_timm_file(timm_file, new_folder=target)
    loaded = load_task(path, which=which)
    made: TimmWeights | None = None
    try:
        with new_folder(target) as part:
            if timm_file is not None:
                inside = Path(timm_file).parent.resolve() == target.resolve()
                made = timm_weights(loaded.task, part / Path(timm_file).name if inside else timm_file)
                made = replace(made, file=Path(timm_file))
            card, figures, notes = card_of(loaded, name=name, timm=made)
            card.save(part / "README.md")
            for file, content in figures.items():
                (part / file).write_bytes(content)
            loaded.task.save_pretrained(part)
            files = tuple(sorted(each.name for each in part.iterdir()))
            _check_free(target)  # another command may have been faster
    except BaseException as error:
        if made is not None:
            made.file.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(error, OSError | RunError) and isinstance(cause, OSError):
            raise unwritable(target, cause) from error
        raise
    return Published(target, files, made, tuple(filter(None, (loaded.note, *notes))))


def _check_free(target: Path) -> None:
    if not is_free(target):
        raise InputError(
            f"Expected a new or an empty folder at {target}, but there is something. Name another."
        )
