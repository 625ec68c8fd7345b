"""Tasks as folders that can be shared: `save_pretrained`, `from_pretrained`, `push_to_hub`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
from safetensors.torch import save
from torch import Tensor, nn

from visionkit.backbones.sources.trained import CONFIG, WEIGHTS, check_digest, published_config
from visionkit.backbones.weights import check_file, read_state_dict
from visionkit.errors import DataError, InputError, first_line
from visionkit.files import file_digest, local_path, new_folder, writing
from visionkit.tasks.model_card import make_card
from visionkit.tasks.saved_settings import plain_settings, refuse_other_task

__all__ = ["HubMixin"]

FORMAT = 1


class HubMixin(ModelHubMixin):
    """`huggingface_hub`'s mixin for tasks: `config.json`, `model.safetensors` and a model card in a folder.

    `push_to_hub(repo_id)` is the library's own.
    """

    hparams: Any
    on_save_checkpoint: Any
    on_load_checkpoint: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: D102 (the mixin's would keep a copy of the settings)
        return object.__new__(cls)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Any = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write the task into a folder: settings, weights and a model card, all of them or nothing.

        Args:
            save_directory: The folder. Other files in it stay, and so does a model card (`README.md`).
            config: Not used: the settings are the task's own.
            repo_id: Where to push to; the folder's name if not given.
            push_to_hub: Push it as well.
            model_card_kwargs: Arguments of `visionkit.tasks.model_card.make_card`.
            push_to_hub_kwargs: Arguments of `push_to_hub`.

        Returns:
            The address of the commit if it was pushed.

        Raises:
            RunError: The folder cannot be written.
        """
        folder = local_path(save_directory, "a folder to write")
        if folder.exists() and not folder.is_dir():
            raise InputError(f"Expected a folder to write at {folder}, but it is a file.")
        card = not (folder / "README.md").exists()
        settings = self._published_settings()
        with writing(folder), new_folder(folder) as part:
            (part / WEIGHTS).write_bytes(save(_once(cast(Any, self)), metadata={"format": "pt"}))
            settings["visionkit"]["sha256"] = file_digest(part / WEIGHTS)
            (part / CONFIG).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
            if card:
                self.generate_model_card(**(model_card_kwargs or {})).save(part / "README.md")
        if not push_to_hub:
            return None
        kwargs = {"model_card_kwargs": model_card_kwargs, **push_to_hub_kwargs}
        return self.push_to_hub(repo_id or folder.name, **kwargs)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """Build the task of a published folder and fill it; no code in its files is run.

        Args:
            pretrained_model_name_or_path: A folder on this machine, or a repository of the hub
                ("user/name"), of which the settings and `model.safetensors` are fetched, never a pickle.
            force_download: Fetch also what is in the cache.
            token: For private repositories.
            cache_dir: Where fetched files are kept.
            local_files_only: Take them from there only.
            revision: Branch, tag or commit.
            model_kwargs: Settings to use in place of the saved ones, such as `backbone=` for your own module.

        Returns:
            The task, in evaluation mode, on the CPU.

        Raises:
            InputError: There is no such folder or repository, it holds a pickle, or it is of another task.
            DataError: A file in it is damaged.
        """
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            options = {"force_download": force_download, "token": token, "cache_dir": cache_dir}
            options |= {"local_files_only": local_files_only, "revision": revision}
            folder = _fetch(str(pretrained_model_name_or_path), options)
        config = published_config(folder)
        if config is None:
            raise InputError(
                f"Expected a published task at {folder}, but there is no {CONFIG}. Give a folder that "
                "`visionkit publish` or task.save_pretrained wrote; a run's folder is read by "
                "visionkit.predict.load."
            )
        file = check_file(folder / WEIGHTS)
        check_digest(folder, config)
        _check_format(config, folder / CONFIG)
        refuse_other_task(folder / WEIGHTS, cls)
        try:
            task = cls(**{**config["settings"], **model_kwargs})
            _fill(cast(Any, task), read_state_dict(file))
            task.on_load_checkpoint(config)
        except InputError:
            raise
        except (RuntimeError, TypeError, KeyError, ValueError, AttributeError) as error:
            raise DataError(
                f"cannot be built again: {type(error).__name__}: {first_line(error)}", path=file
            ) from error
        _check_finite(cast(Any, task).state_dict(), file)
        return cast(Any, task).eval()  # type: ignore[no-any-return]

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Return the model card.

        Args:
            args: Not used.
            kwargs: Arguments of `visionkit.tasks.model_card.make_card`.
        """
        return make_card(cast(Any, self), **{"facts": self._record()["facts"], **kwargs})

    def _record(self) -> dict[str, Any]:
        checkpoint: dict[str, Any] = {}
        self.on_save_checkpoint(checkpoint)
        return {"format": FORMAT, **checkpoint["visionkit"]}

    def _published_settings(self) -> dict[str, Any]:
        content = {"visionkit": self._record(), "settings": plain_settings(dict(self.hparams))}
        try:
            json.dumps(content, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"Expected settings that JSON can hold, but {first_line(error)}.") from error
        return content


def _once(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a module, each under one name: a backbone has more, and a file holds it once."""
    state, first = module.state_dict(), _first_names(module)
    return {name: value.cpu().contiguous() for name, value in state.items() if first[name] == name}


def _fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    full = {name: state[first] for name, first in _first_names(module).items() if first in state}
    module.load_state_dict({**state, **full}, strict=True)


def _first_names(module: nn.Module) -> dict[str, str]:
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(value), name) for name, value in module.state_dict(keep_vars=True).items()
    }


def _fetch(repository: str, options: dict[str, Any]) -> Path:
    """Return the folder of a repository's files in the cache of `huggingface_hub`."""
    try:
        for name in (CONFIG, WEIGHTS):
            file = hf_hub_download(repository, name, **options)
    except Exception as error:
        raise InputError(
            f"Expected a published folder at {repository}, or a repository of that name on the hub with "
            f"{CONFIG} and {WEIGHTS} (pickles are not loaded), but {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    return Path(file).parent


def _check_format(config: Mapping[str, Any], file: Path) -> None:
    written = config["visionkit"].get("format")
    if not isinstance(written, int) or written > FORMAT:
        raise DataError(f"format {written!r} is newer than this version reads ({FORMAT}); update.", path=file)


def _check_finite(state: Mapping[str, Tensor], file: Path) -> None:
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise DataError("holds values that are not finite.", path=file, field=name)
