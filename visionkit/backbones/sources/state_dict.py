"""Holding a state dict against the network it is meant for: missing names, spare names, other shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from visionkit.backbones.tracing import on_meta_device
from visionkit.errors import InputError

__all__ = ["MismatchError", "fill_missing", "fitted", "without_prefixes"]


class MismatchError(InputError):
    """A weights file belongs to another network; the text names the first keys and shapes that differ."""


def without_prefixes(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], needed: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Take off the prefix that a wrapper, ours or a training script's, put before the names.

    The prefix may be called anything: it is found, as what stands before the network's own names. When no
    prefix has every needed name, the one with most names is taken, and what differs is named by
    `fill_missing`.

    Args:
        state: What the file holds.
        wanted: The network's own state; shapes only decide between prefixes whose names fit alike.
        needed: The names that must be there; all of `wanted` if not given.

    Raises:
        InputError: Several prefixes fit (student and teacher, a network and its average), with other numbers.
    """
    counts = _prefixes(state, wanted)
    must = {k for k in (wanted if needed is None else needed) if not k.endswith("num_batches_tracked")}
    parts = {prefix: _inside(state, prefix) for prefix, hits in counts.items() if hits >= len(must)}
    fits = [prefix for prefix, part in parts.items() if must <= part.keys()]
    if len(fits) > 1:
        shaped = [p for p in fits if all(parts[p][k].shape == wanted[k].shape for k in must)]
        fits = shaped or fits
    if len(fits) > 1 and not _equal([parts[prefix] for prefix in fits], must):
        listed = ", ".join(repr(prefix.rstrip(".")) for prefix in sorted(fits))
        raise InputError(
            f"The weights file holds {len(fits)} networks of this architecture, under the prefixes {listed}. "
            f"Say which by init='FILE#PREFIX', such as init='weights.pt#{sorted(fits)[-1].rstrip('.')}', "
            "or save the one that you want in a file of its own."
        )
    if fits:
        return parts[min(fits, key=len)]
    best = max(counts, key=lambda prefix: (counts[prefix], prefix == ""), default="")
    return _inside(state, best)


def fitted(
    state: Mapping[str, Tensor], build: Callable[[], nn.Module], needed: Iterable[str]
) -> nn.Module | None:
    """Return a network with the weights of a file, or None where names or shapes differ.

    Args:
        state: What the file holds, without prefixes.
        build: Makes the network as it is asked for.
        needed: The names that must be in the file.
    """
    wanted = on_meta_device(build).state_dict()
    try:
        full = fill_missing(state, wanted, needed, name="")
    except MismatchError:
        return None
    model = build()
    model.load_state_dict(full)
    return model


def _prefixes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, int]:
    """Return what stands before the network's names in the file, and how often."""
    counts: dict[str, int] = {}
    for key in state:
        at = 0
        while True:
            if key[at:] in wanted:
                counts[key[:at]] = counts.get(key[:at], 0) + 1
            at = key.find(".", at) + 1
            if not at:
                break
    return counts


def _inside(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _equal(parts: Sequence[Mapping[str, Tensor]], names: Iterable[str]) -> bool:
    first = parts[0]
    return all(torch.equal(first[name], part[name]) for name in names for part in parts[1:])


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
