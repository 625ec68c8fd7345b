"""Whether runs may be compared: everything but init, seed and fraction has to be the same.

He, Girshick and Dollár (arXiv 1811.08883) set the rules: one norm and one schedule for both arms.
What an init implies (what is frozen, how fast the backbone moves) may differ between arms, never inside one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from visionkit.compare.run_record import Record
from visionkit.errors import InputError, nearest

__all__ = ["flatten", "require_alike", "unlike"]

# Fields of the config that name the run, its place or its helpers, and change nothing that is learned.
FREE = frozenset({"init", "seed", "seeds", "fraction", "fractions", "data", "download", "out", "resume"})
FREE |= {"logger", "workers", "debug", "report", "progress", "checkpoint_every", "jobs", "timeout"}
# Fields that say what is done with the weights: implied by init, so they may differ between arms.
IMPLIED = frozenset(
    f"transfer.{name}"
    for name in ("freeze_through", "backbone_lr_scale", "layer_decay", "unfreeze_at", "probe_level")
)
# What result.json says was held equal, and between which runs it has to be.
EVERYWHERE = frozenset({"norm"})
BY_FRACTION = frozenset({"schedule"})


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested table as dotted names and plain values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unlike(records: Sequence[Record], *, allow: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """Return what differs between runs beyond init, seed and fraction.

    Args:
        records: The runs.
        allow: Dotted names ("lr", "equal.schedule") that may differ.

    Returns:
        Sentences that forbid the comparison, and sentences on differences that were allowed by name.
    """
    everywhere, by_fraction, by_pair, by_arm = _keys()
    found: dict[str, str] = {}
    for name, of in (("task", "task"), ("monitor", "monitor")):
        _note(found, records, name, lambda r, of=of: r.result.get(of), everywhere)  # type: ignore[misc]
    for name in _names(records, lambda r: flatten(r.result["config"])):
        if name.split(".")[0] in FREE:
            continue
        _note(
            found,
            records,
            name,
            lambda r, n=name: flatten(r.result["config"]).get(n),  # type: ignore[misc]
            by_arm if name in IMPLIED else everywhere,
        )
    for name in _names(records, _fingerprints):
        key = by_pair if name in ("train", "all") else everywhere
        _note(found, records, "data.fingerprint", lambda r, n=name: _fingerprints(r).get(n), key)  # type: ignore[misc]
    _note(found, records, "data.classes", lambda r: r.result["data"].get("classes"), everywhere)
    for name in _names(records, lambda r: r.result.get("equal") or {}):
        key = everywhere if name in EVERYWHERE else by_fraction if name in BY_FRACTION else by_pair
        _note(found, records, f"equal.{name}", lambda r, n=name: (r.result.get("equal") or {}).get(n), key)  # type: ignore[misc]
    _note(found, records, "images_seen", _planned, by_fraction)
    allowed = set(allow)
    strange = sorted(allowed - set(_nameable(records)))
    if strange:
        close = nearest(strange[0], _nameable(records))
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise InputError(
            f"Nothing named {strange[0]!r} is compared, so it cannot be allowed to differ.{hint}"
        )
    return (
        [text for name, text in found.items() if name not in allowed],
        [text for name, text in found.items() if name in allowed],
    )


def require_alike(records: Sequence[Record], *, allow: Iterable[str] = ()) -> list[str]:
    """Return the differences that were allowed; refuse all others.

    Args:
        records: The runs.
        allow: Dotted names that may differ.

    Raises:
        InputError: Runs differ in more than init, seed and fraction; names each field and both values.
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


def _keys() -> tuple[Callable[[Record], Hashable], ...]:
    return (
        lambda r: (),
        lambda r: (r.fraction,),
        lambda r: (r.fraction, r.seed),
        lambda r: (r.init,),
    )


def _planned(record: Record) -> Any:
    # A run that its own rule ended early was to see as many images as the others; that is noted, not refused.
    early = record.result.get("stopped_early")
    return early["planned_images"] if isinstance(early, dict) else record.result["images_seen"]


def _fingerprints(record: Record) -> dict[str, Any]:
    # The training part may depend on fraction and seed, what is scored on may not.
    prints = record.result["data"].get("fingerprint")
    return prints if isinstance(prints, dict) else {"all": prints}


def _names(records: Sequence[Record], table: Callable[[Record], Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in table(record)))


def _nameable(records: Sequence[Record]) -> list[str]:
    names = _names(records, lambda r: flatten(r.result["config"]))
    names += [f"equal.{name}" for name in _names(records, lambda r: r.result.get("equal") or {})]
    return [*names, "data.fingerprint", "data.classes", "images_seen"]


def _note(
    found: dict[str, str],
    records: Sequence[Record],
    name: str,
    value: Callable[[Record], Any],
    group: Callable[[Record], Hashable],
) -> None:
    # Compare each run with the first of its group: the first mismatch is named, with both values.
    first: dict[Hashable, Record] = {}
    for record in records:
        other = first.setdefault(group(record), record)
        mine, theirs = value(record), value(other)
        if name not in found and json.dumps(mine, sort_keys=True) != json.dumps(theirs, sort_keys=True):
            here, there = _short(mine), _short(theirs)
            found[name] = f"{name}: {there} in {other.folder.name}, {here} in {record.folder.name}"
            return


def _short(value: Any, limit: int = 80) -> str:
    text = json.dumps(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
