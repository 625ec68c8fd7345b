"""Holding a state dict against the network it is meant for: missing names, spare names, other shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from visionkit.errors import InputError

__all__ = ["MismatchError", "fill_missing", "without_prefixes"]

_OWN_PREFIXES = ("net.model.", "backbone.net.model.", "encoder.net.model.", "backbone.", "model.", "net.")


class MismatchError(InputError):
    """A weights file belongs to another network; the text names the first keys and shapes that differ."""


def without_prefixes(state: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """Take off the prefix that a wrapper, ours or a training script's, put before the names."""
    names = set(wanted)
    best, hits = dict(state), sum(key in names for key in state)
    for prefix in _OWN_PREFIXES:
        inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        found = sum(key in names for key in inner)
        if found > hits:
            best, hits = inner, found
    return best


def fill_missing(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    needed: Iterable[str],
    *,
    name: str,
    optional: Iterable[str] = (),
) -> dict[str, Tensor]:
    """Return a state dict with every name of `wanted`, refusing one that belongs to another network.

    Args:
        state: What the file holds.
        wanted: The network's own state (shapes count, memory does not matter).
        needed: The names that must be in the file; others may be missing and are filled with zeros, because
            the part of the network they belong to is not used.
        name: What the network is called, for the text.
        optional: Names that may be in the file without being wanted.

    Raises:
        MismatchError: Names or shapes differ.
    """
    must = {key for key in needed if not key.endswith("num_batches_tracked")}
    missing = [key for key in wanted if key in must and key not in state]
    spare = set(optional)
    extra = [key for key in state if key not in wanted and key not in spare]
    shapes = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or extra or shapes:
        raise MismatchError(_differences(state, wanted, missing, extra, shapes, name))
    return {
        key: state[key] if key in state else value.new_zeros(value.shape, device="cpu")
        for key, value in wanted.items()
    }


def _differences(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    missing: list[str],
    extra: list[str],
    shapes: list[str],
    name: str,
) -> str:
    parts = [f"The weights are of another architecture than {name!r}:"]
    if shapes:
        first = "; ".join(f"{k} is {tuple(state[k].shape)}, not {tuple(wanted[k].shape)}" for k in shapes[:3])
        parts.append(f"{len(shapes)} shapes differ ({first}).")
    if missing:
        parts.append(f"{len(missing)} names are missing (first: {', '.join(missing[:3])}).")
    if extra:
        parts.append(f"{len(extra)} names are not in it (first: {', '.join(extra[:3])}).")
    parts.append("Give the name of the architecture that the file was saved from.")
    return " ".join(parts)
