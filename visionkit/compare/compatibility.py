"""Whether runs may be compared: everything but init, seed, fold, fraction and schedule has to be the same.

He, Girshick and Dollár (arXiv 1811.08883) set the rules: one norm and one schedule for both arms.
What an init implies (what is frozen, how fast the backbone moves) may differ between arms, never inside one.
What each setting means to a comparison, its role, is written in the run's record (`visionkit.config.roles`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from visionkit.compare.run_record import RunRecord
from visionkit.config import flatten
from visionkit.errors import InputError, nearest

__all__ = ["BY_RECORD", "require_alike", "unlike"]

Value = Callable[[RunRecord], Any]
Group = Callable[[RunRecord], Hashable]
# Not compared as settings: these are what varies (data count by their fingerprint).
BY_RECORD = frozenset({"init", "seeds", "fractions", "folds", "schedules", "data"})


def unlike(records: Sequence[RunRecord], *, allow: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """Return what differs between runs beyond init, seed, fold, fraction and schedule.

    Args:
        records: The runs.
        allow: Dotted names ("lr", "equal.schedule") that may differ.

    Returns:
        Sentences that forbid the comparison, and sentences on differences that do not: settings of the role
        "machine", and those that were allowed by name.
    """
    machine = {name for name, role in _roles(records).items() if role == "machine"}
    differences: dict[str, str] = {}
    for name, value, group in _compared(records):
        text = _difference(records, name, value, group)
        if text and name not in differences:
            differences[name] = text
    allowed, names = set(allow), _names_to_allow(records)
    unknown = sorted(allowed - set(names))
    if unknown:
        close = nearest(unknown[0], names)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise InputError(
            f"Nothing named {unknown[0]!r} is compared, so it cannot be allowed to differ.{hint}"
        )
    allowed |= machine
    return (
        [text for name, text in differences.items() if name not in allowed],
        [text for name, text in differences.items() if name in allowed],
    )


def require_alike(records: Sequence[RunRecord], *, allow: Iterable[str] = ()) -> list[str]:
    """Return the differences that do not forbid a comparison; refuse all others.

    Args:
        records: The runs.
        allow: Dotted names that may differ.

    Raises:
        InputError: Runs differ in more than these; names each field and both values.
    """
    forbidden, allowed = unlike(records, allow=allow)
    if forbidden:
        lines = "\n".join(f"  {text}" for text in forbidden)
        names = " ".join(text.split(":")[0] for text in forbidden)
        raise InputError(
            f"These runs differ in more than init, seed and fraction:\n{lines}\n"
            "A difference between their scores would not be the init's. Compare runs that share all of it, "
            f"or name what may differ: --allow {names}"
        )
    return allowed


def _compared(records: Sequence[RunRecord]) -> Iterator[tuple[str, Value, Group]]:
    """Yield what is compared: its name, its value of a run, and the group of runs that must share it."""
    for name in ("task", "monitor"):
        yield name, partial(_entry, name), _all
    roles = _roles(records)
    # Each arm has the best of the same rates, by a choice of its own for each fraction.
    own_rates = all(_setting("lrs", record) for record in records)
    if own_rates:
        yield "lr", partial(_setting, "lr"), _same_rate
    for name in _names(records, _settings):
        role = roles.get(name, "identity")
        if role != "free" and name not in BY_RECORD and not (own_rates and name == "lr"):
            yield name, partial(_setting, name), _same_init if role == "arm" else _all
    for name in _names(records, _fingerprints):
        # The training part may depend on fraction and seed; what is scored on may not, but for its fold.
        group = _same_draws if name in ("train", "all") else _same_fold
        yield "data.fingerprint", partial(_fingerprint, name), group
    yield "folds", lambda record: (record.result["config"].get("folds") or [0])[0], _all
    # Where a fold is of classes, each has an order of its own: those of its training come first.
    yield "data.classes", lambda record: record.result["data"].get("classes"), _same_fold
    yield "data.classes", lambda record: sorted(record.result["data"].get("classes") or ()), _all
    groups: dict[str, Group] = {"norm": _all, "schedule": _same_length}
    for name in _names(records, _equal):
        value = partial(_held_equal, name, without=("lr",) if own_rates and name == "schedule" else ())
        yield f"equal.{name}", value, groups.get(name, _same_draws)
    yield "images_seen", _planned, _same_length


def _all(record: RunRecord) -> Hashable:
    return ()


def _same_init(record: RunRecord) -> Hashable:
    return record.init


def _same_length(record: RunRecord) -> Hashable:
    return record.fraction, record.schedule


def _same_rate(record: RunRecord) -> Hashable:
    return record.init, record.fraction


def _same_draws(record: RunRecord) -> Hashable:
    return record.fraction, record.draw


def _same_fold(record: RunRecord) -> Hashable:
    return record.fold


def _entry(name: str, record: RunRecord) -> Any:
    return record.result.get(name)


def _settings(record: RunRecord) -> dict[str, Any]:
    return flatten(record.result["config"])


def _setting(name: str, record: RunRecord) -> Any:
    return _settings(record).get(name)


def _roles(records: Sequence[RunRecord]) -> dict[str, str]:
    return {name: role for record in records for name, role in record.result["roles"].items()}


def _equal(record: RunRecord) -> Mapping[str, Any]:
    return record.result.get("equal") or {}


def _held_equal(name: str, record: RunRecord, *, without: Sequence[str] = ()) -> Any:
    value = _equal(record).get(name)
    return {k: v for k, v in value.items() if k not in without} if isinstance(value, dict) else value


def _planned(record: RunRecord) -> Any:
    # A run that its own rule ended early was to see as many images as the others; that is noted, not refused.
    early = record.result.get("stopped_early")
    return early["planned_images"] if isinstance(early, dict) else record.result["images_seen"]


def _fingerprints(record: RunRecord) -> dict[str, Any]:
    prints = record.result["data"].get("fingerprint")
    return prints if isinstance(prints, dict) else {"all": prints}


def _fingerprint(name: str, record: RunRecord) -> Any:
    return _fingerprints(record).get(name)


def _names(records: Sequence[RunRecord], table: Callable[[RunRecord], Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in table(record)))


def _names_to_allow(records: Sequence[RunRecord]) -> list[str]:
    equal = [f"equal.{name}" for name in _names(records, _equal)]
    return [*_names(records, _settings), *equal, "folds", "data.fingerprint", "data.classes", "images_seen"]


def _difference(records: Sequence[RunRecord], name: str, value: Value, group: Group) -> str:
    """Return the first difference between a run and the first one of its group, with both values; or ""."""
    first: dict[Hashable, RunRecord] = {}
    for record in records:
        other = first.setdefault(group(record), record)
        here, there = json.dumps(value(record), sort_keys=True), json.dumps(value(other), sort_keys=True)
        if here != there:
            mine, theirs = _short(value(record)), _short(value(other))
            return f"{name}: {theirs} in {other.folder.name}, {mine} in {record.folder.name}"
    return ""


def _short(value: Any, limit: int = 80) -> str:
    text = json.dumps(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
