"""Comparing a state dict with a network: wrapper prefixes, missing and unexpected keys, other shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from visionkit.backbones.tracing import on_meta_device
from visionkit.errors import InputError

__all__ = ["MismatchError", "fill_missing", "load_if_fits", "without_prefixes"]


class MismatchError(InputError):
    """Raised for weights of another network; the message lists the first keys and shapes that differ."""


def without_prefixes(
    state: Mapping[str, Tensor], expected_state: Mapping[str, Tensor], required: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Remove the prefix that a wrapper (a task, a training script) put before the parameter names.

    Any prefix is recognised: it is what precedes the network's own names. When no prefix has every required
    name, the one with the most matching names is used, and `fill_missing` reports the differences.

    Args:
        state: State dict of the file.
        expected_state: State dict of the network; its shapes decide between prefixes with the same names.
        required: The names that must be in the file; all of `expected_state` if not given.

    Raises:
        InputError: Several prefixes fit (student and teacher, a network and its moving average) with
            different values.
    """
    counts = _prefixes(state, expected_state)
    required_keys = {
        k for k in (expected_state if required is None else required) if not k.endswith("num_batches_tracked")
    }
    parts = {prefix: _inside(state, prefix) for prefix, hits in counts.items() if hits >= len(required_keys)}
    fits = [prefix for prefix, part in parts.items() if required_keys <= part.keys()]
    if len(fits) > 1:
        shaped = [p for p in fits if all(parts[p][k].shape == expected_state[k].shape for k in required_keys)]
        fits = shaped or fits
    if len(fits) > 1 and not _equal([parts[prefix] for prefix in fits], required_keys):
        names = ", ".join(repr(prefix.rstrip(".")) for prefix in sorted(fits))
        raise InputError(
            f"The weights file holds {len(fits)} networks of this architecture, under the prefixes {names}. "
            f"Say which by init='FILE#PREFIX', such as init='weights.pt#{sorted(fits)[-1].rstrip('.')}', "
            "or save the one that you want in a file of its own."
        )
    if fits:
        return parts[min(fits, key=len)]
    best = max(counts, key=lambda prefix: (counts[prefix], prefix == ""), default="")
    return _inside(state, best)


def load_if_fits(
    state: Mapping[str, Tensor], build: Callable[[], nn.Module], required: Iterable[str]
) -> nn.Module | None:
    """Return a network with the weights of a file, or None where names or shapes differ.

    Args:
        state: State dict of the file, without prefixes.
        build: Builds the network.
        required: The names that must be in the file.
    """
    expected_state = on_meta_device(build).state_dict()
    try:
        full = fill_missing(state, expected_state, required, name="")
    except MismatchError:
        return None
    model = build()
    model.load_state_dict(full)
    return model


def _prefixes(state: Mapping[str, Tensor], expected_state: Mapping[str, Tensor]) -> dict[str, int]:
    """Return each prefix of the network's names in the file, and how many names have it."""
    counts: dict[str, int] = {}
    for key in state:
        at = 0
        while True:
            if key[at:] in expected_state:
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
    expected_state: Mapping[str, Tensor],
    required: Iterable[str],
    *,
    name: str,
    optional: Iterable[str] = (),
) -> dict[str, Tensor]:
    """Return a state dict with every name of `expected_state`; names that are not required may be missing.

    Args:
        state: State dict of the file.
        expected_state: State dict of the network; only its shapes are read.
        required: The names that must be in the file; others may be missing and are filled with zeros, because
            the part of the network they belong to is not used.
        name: Name of the network, for the error message.
        optional: Names that may be in the file without being in `expected_state`.

    Raises:
        MismatchError: Names or shapes differ.
    """
    required_keys = {key for key in required if not key.endswith("num_batches_tracked")}
    missing = [key for key in expected_state if key in required_keys and key not in state]
    optional_keys = set(optional)
    unexpected = [key for key in state if key not in expected_state and key not in optional_keys]
    shapes = [key for key in expected_state if key in state and state[key].shape != expected_state[key].shape]
    if missing or unexpected or shapes:
        raise MismatchError(_differences(state, expected_state, missing, unexpected, shapes, name))
    return {
        key: state[key] if key in state else value.new_zeros(value.shape, device="cpu")
        for key, value in expected_state.items()
    }


def _differences(
    state: Mapping[str, Tensor],
    expected_state: Mapping[str, Tensor],
    missing: list[str],
    unexpected: list[str],
    shapes: list[str],
    name: str,
) -> str:
    parts = [f"The weights are of another architecture than {name!r}:"]
    if shapes:
        first = "; ".join(
            f"{k} is {tuple(state[k].shape)}, not {tuple(expected_state[k].shape)}" for k in shapes[:3]
        )
        parts.append(f"{len(shapes)} shapes differ ({first}).")
    if missing:
        parts.append(f"{len(missing)} names are missing (first: {', '.join(missing[:3])}).")
    if unexpected:
        parts.append(f"{len(unexpected)} names are not in it (first: {', '.join(unexpected[:3])}).")
    parts.append("Give the name of the architecture that the file was saved from.")
    return " ".join(parts)
