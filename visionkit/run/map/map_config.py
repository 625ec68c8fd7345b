"""The file of a transfer map: which backbones on which data sets; every fault in it is named at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from visionkit.compare.map.plan import PlannedCell, PlannedRun
from visionkit.compare.run_record import arm_name, named_init
from visionkit.config import flatten
from visionkit.errors import InputError, expected, unknown_name
from visionkit.run.command_line import from_settings, read_mapping, setting_names
from visionkit.run.config import RunConfig
from visionkit.run.sweep.arms import check_paths
from visionkit.run.sweep.runs import each_run

__all__ = ["MapCell", "MapConfig", "planned", "read_map_config"]

OF_MAP = ("backbones", "data", "out")
OF_DATA = ("recipe", "variant", "backbones")
REFUSED = {
    "backbone": "list the names as backbones",
    "budget": "the runs of a map are known before it starts; see its cost with --dry_run",
    "resume": "a map always continues, and keeps finished runs",
}
NAME = re.compile(r"[\w.+-]*\w[\w.+-]*")


@dataclass(frozen=True)
class MapCell:
    """One backbone on one data set.

    Args:
        data: The name of the data set in the map.
        recipe: The recipe.
        config: Its settings; `out` is the folder of the comparison.
    """

    data: str
    recipe: ModuleType
    config: RunConfig

    @property
    def name(self) -> str:
        """Return the name of the cell: "cifar10, packaged/vgg16"."""
        return f"{self.data}, {self.config.backbone}"

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the settings that name a file or a folder."""
        return getattr(self.recipe, "PATHS", ("data", "init"))


@dataclass(frozen=True)
class MapConfig:
    """A transfer map as its file has it.

    Args:
        cells: Every backbone on every data set, data set after data set.
        out: The folder of the map.
    """

    cells: tuple[MapCell, ...]
    out: Path


def read_map_config(
    path: str | Path, load: Callable[[str], ModuleType], *, out: str = "", jobs: int | None = None
) -> MapConfig:
    """Return the cells that a file asks for, after checking all of it.

    Args:
        path: The YAML file: `backbones`, `data` (name to recipe and settings), and settings of all recipes.
        load: Returns a recipe by its name.
        out: The folder of the map; `out` of the file, or `runs/` and the name of the file if empty.
        jobs: Runs at a time; as the settings have it if not given.

    Raises:
        InputError: A key, a value, a backbone or a path is not valid; names every fault.
    """
    table, faults = read_mapping(path, what="CONFIG"), []
    shared = {name: value for name, value in table.items() if name not in OF_MAP}
    folder = Path(out or table.get("out") or f"runs/{Path(path).stem}")
    entries = table.get("data")
    if not isinstance(entries, dict) or not entries:
        faults.append(expected("data", "names of data sets, each with recipe and settings", entries))
        entries = {}
    recipes = _load_recipes(entries, load, faults)
    faults += _unknown_shared(shared, recipes)
    cells: list[MapCell] = []
    for name, recipe in recipes.items():
        entry = entries[name]
        names = entry.get("backbones", table.get("backbones"))
        if not _is_names(names):
            faults.append(expected("backbones", "a list of different names", names))
            continue
        own = {key: value for key, value in entry.items() if key not in OF_DATA}
        known = set(setting_names(recipe.Config))
        usable = {key: value for key, value in shared.items() if key in known and key not in REFUSED}
        faults += [f"data.{name}: {text}" for text in _unknown_own(own, known)]
        try:
            made = _config_of(recipe, entry, {**usable, **{k: v for k, v in own.items() if k in known}})
            check_paths(replace(made, out=str(folder)), getattr(recipe, "PATHS", ("data", "init")))
        except InputError as error:
            faults.append(f"data.{name}: {error}")
            continue
        made = made if jobs is None else replace(made, jobs=jobs)
        cells += [MapCell(name, recipe, _of_backbone(made, each, folder / name)) for each in names]
    faults += _wrong_backbones(cells)
    if faults:
        lines = "\n".join(f"  {text}" for text in dict.fromkeys(faults))
        raise InputError(f"{path}: {len(dict.fromkeys(faults))} fault(s), nothing was started:\n{lines}")
    return MapConfig(tuple(cells), folder)


def planned(cell: MapCell, out: Path) -> PlannedCell:
    """Return what the page is to know of a cell before it runs.

    Args:
        cell: The cell.
        out: The folder of the map.
    """
    runs = tuple(
        PlannedRun(
            arm_name(named_init(one.init, {"transfer": vars(one.transfer)})),
            one.fractions[0],
            one.schedules[0],
            one.seeds[0],
            one.folds[1] if one.folds else None,
        )
        for one, _ in each_run(cell.config)
    )
    folder = Path(cell.config.out).relative_to(out).as_posix()
    return PlannedCell(cell.config.backbone, cell.data, cell.recipe.__name__, folder, runs)


def _load_recipes(
    entries: Mapping[Any, Any], load: Callable[[str], ModuleType], faults: list[str]
) -> dict[str, ModuleType]:
    """Return the recipe of each data set that has one."""
    recipes = {}
    for name, entry in entries.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            faults.append(
                expected("a name in data", "letters, digits, '.', '-' and '_': a folder's name", name)
            )
        elif not isinstance(entry, dict) or not isinstance(entry.get("recipe"), str):
            faults.append(expected(f"data.{name}", "recipe: NAME and its settings", entry))
        else:
            try:
                recipes[name] = load(entry["recipe"])
            except InputError as error:
                faults.append(f"data.{name}: {error}")
    return recipes


def _unknown_shared(shared: Mapping[Any, Any], recipes: Mapping[str, ModuleType]) -> Iterator[str]:
    """Yield what is wrong with the keys of the settings that all recipes are to have."""
    known = {name: set(setting_names(recipe.Config)) for name, recipe in recipes.items()}
    every = set().union(*known.values()) - {"data", "backbone", "out"} if known else set()
    for key in _dotted(shared):
        if key in REFUSED:
            yield f"{key} is not set in a map: {REFUSED[key]}."
            continue
        without = [name for name, names in known.items() if key not in names]
        if known and len(without) == len(known):
            yield str(unknown_name("setting", key, {*every, *OF_MAP}))
        elif without:
            owners = " and ".join(f"data.{name}" for name in known if name not in without)
            yield (
                f"{key} is no setting of the recipe{'s' * (len(without) > 1)} of {', '.join(without)}. "
                f"Give it below {owners}."
            )


def _unknown_own(own: Mapping[Any, Any], known: set[str]) -> Iterator[str]:
    """Yield what is wrong with the keys of one data set."""
    for key in _dotted(own):
        if key in REFUSED or key == "out":
            reason = REFUSED.get(key, "each comparison has its folder below that of the map")
            yield f"{key} is not set in a map: {reason}."
        elif key not in known:
            yield str(unknown_name("setting", key, {*known, *OF_DATA} - {"out", *REFUSED}))


def _dotted(settings: Mapping[Any, Any]) -> list[str]:
    return [str(name) for name in flatten({str(key): value for key, value in settings.items()})]


def _config_of(recipe: ModuleType, entry: Mapping[str, Any], settings: dict[str, Any]) -> RunConfig:
    """Return the settings of a data set, the backbone and the folder aside."""
    arms = settings.get("init")
    if isinstance(arms, list):
        settings = {**settings, "init": ",".join(map(str, arms))}
    made: RunConfig = from_settings(
        recipe.Config,
        {name: value for name, value in settings.items() if name not in REFUSED and name != "out"},
        variant=str(entry.get("variant", "")),
        variants=getattr(recipe, "VARIANTS", ()),
    )
    if getattr(made, "backbones", ()):
        raise InputError("Expected a variant of one comparison, but it has several backbones of its own.")
    if getattr(getattr(made, "vectors", None), "use", "") == "all":
        raise InputError(
            "Expected one use of word vectors in a map, but got 'all'. Give vectors: {use: random}, "
            "pretrained or frozen."
        )
    if check := getattr(recipe, "check", None):
        check(made)
    list(each_run(replace(made, out="map")))  # arms, seeds and fractions that fit
    return made


def _of_backbone(config: RunConfig, backbone: str, folder: Path) -> RunConfig:
    return replace(config, backbone=backbone, out=str(folder / re.sub(r"[^\w.-]+", "-", backbone)))


def _is_names(names: Any) -> bool:
    texts = isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)
    return texts and len(set(names)) == len(names)


def _wrong_backbones(cells: Sequence[MapCell]) -> Iterator[str]:
    """Yield the backbones that there are not, with the nearest ones."""
    if not cells:
        return
    from visionkit.backbones.registry import resolve
    from visionkit.backbones.sources.base import ModelSpec

    for name in dict.fromkeys(cell.config.backbone for cell in cells):
        try:
            resolve(name, ModelSpec(""))
        except InputError as error:
            yield str(error)
    folders: dict[str, str] = {}
    for cell in cells:
        other = folders.setdefault(cell.config.out, cell.name)
        if other != cell.name:
            yield f"{other} and {cell.name} would share the folder {cell.config.out}. Leave one out."
