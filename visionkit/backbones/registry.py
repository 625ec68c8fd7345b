"""The registry of backbones: timm, torchvision, packaged weights, and networks of the user."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import cast

from torch import nn

from visionkit.backbones.sources.base import ModelSpec, Source
from visionkit.backbones.sources.user import UserSource
from visionkit.compat import timm_renames
from visionkit.errors import InputError, expected, nearest, unknown_name

__all__ = ["list_backbones", "register_backbone", "registered", "resolve"]

_USER = UserSource()


def register_backbone(name: str) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Register a network of your own under a name, to be used in any task.

    The decorated function is called as `function(pretrained=...)` and returns a `FeatureSource`: a module
    with `levels` and `forward(images) -> tuple of maps`. It may also take `in_channels`, and its module may
    have `mean`, `std` and `weights` (a `WeightsInfo`).

    Args:
        name: The name; `"mine/tiny"` keeps it apart from others.

    Raises:
        InputError: The name is already used.
    """

    def register(function: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        prefix = name.partition("/")[0]
        if name in _USER.functions or (prefix in _shipped() and "/" in name):
            raise InputError(
                f"The backbone name {name!r} is taken. Choose another, best with a prefix of your own."
            )
        _USER.functions[name] = function
        return function

    return register


@contextmanager
def registered(function: Callable[..., nn.Module]) -> Iterator[str]:
    """Register a function within a `with` block; yields its name."""
    name = f"{getattr(function, '__module__', 'user')}.{getattr(function, '__qualname__', 'backbone')}"
    _USER.functions[name] = function
    try:
        yield name
    finally:
        del _USER.functions[name]


def list_backbones(pattern: str = "*", *, source: str | None = None) -> list[str]:
    """Return the names of all backbones, sorted.

    Args:
        pattern: A shell pattern ("*resnet50*").
        source: "timm", "torchvision", "packaged" or "user"; None for all.

    Raises:
        InputError: There is no such source.
    """
    sources: dict[str, Source] = {**_shipped(), "user": _USER}
    if source is not None and source not in sources:
        raise unknown_name("source of backbones", source, sources)
    names = [
        name for key, value in sources.items() if source in (None, key) for name in _full_names(key, value)
    ]
    return sorted(fnmatch.filter(names, pattern))


def resolve(name: str, spec: ModelSpec) -> tuple[Source, ModelSpec]:
    """Return the source of a name, and the spec with its architecture and tag filled in.

    Raises:
        InputError: There is no such name, or no such tag; the message suggests the nearest.
    """
    if not isinstance(name, str) or not name:
        raise InputError(expected("the backbone", "a name such as 'timm/resnet50'", name))
    if name in _USER.functions:
        return cast(Source, _USER), replace(spec, architecture=name)
    name = _from_hub(name)
    prefix, slash, rest = name.partition("/")
    sources = _shipped()
    if not slash or prefix not in sources:
        raise _unknown(name)
    source = sources[prefix]
    architecture, _, tag = rest.partition(".")
    if architecture not in _names(prefix):
        raise (_renamed(rest) if prefix == "timm" else None) or _unknown(name)
    if tag and tag not in source.tags(architecture):
        tags = source.tags(architecture)
        listing = f"Its tags are: {', '.join(tags)}." if tags else "It has no tags."
        close = nearest(tag, tags)
        hint = f" Did you mean {f'{prefix}/{architecture}.{close[0]}'!r}?" if close else ""
        raise InputError(f"Unknown tag {tag!r} of backbone '{prefix}/{architecture}'.{hint} {listing}")
    return source, replace(spec, architecture=architecture, tag=tag)


def _from_hub(name: str) -> str:
    """Return the registry's name of a model in timm's own collection on the hub ("hf-hub:timm/...").

    Raises:
        InputError: It is in another collection: its architecture is only in its settings file there.
    """
    scheme, colon, path = name.partition(":")
    if not colon or scheme.lower() not in ("hf-hub", "hf_hub"):
        return name
    if path.startswith("timm/"):
        return path
    raise InputError(
        f"Expected a model of timm's own collection ('hf-hub:timm/resnet50.a1_in1k'), but got {name!r}. "
        "Download its model.safetensors, and give the name of its architecture with init='model.safetensors'."
    )


def _renamed(name: str) -> InputError | None:
    """Return the error for a deprecated timm name, with the new name of the same weights."""
    old = timm_renames()
    known = next((key for key in (name, name.partition(".")[0]) if key in old), None)
    if known is None:
        return None
    new = old[known]
    if new is None:
        return InputError(
            f"timm no longer has {known!r}, and names none in its place. See `visionkit ls backbones`."
        )
    architecture, _, tag = new.partition(".")
    # timm's table of deprecated names lacks some of its tags
    tags = [t for t in _shipped()["timm"].tags(architecture) if t.startswith(tag)] if tag else []
    if tag and tag not in tags:
        new = f"{architecture}.{tags[0]}" if tags else architecture
    return InputError(f"timm calls {known!r} by a new name now: 'timm/{new}'. These are the same weights.")


def _unknown(name: str) -> InputError:
    prefix, slash, rest = name.partition("/")
    plain = rest if slash else name
    architecture, _, tag = plain.partition(".")
    sources = {key: source for key, source in _shipped().items() if architecture in _names(key)}
    spellings = [
        f"{key}/{plain}" for key, source in sources.items() if not tag or tag in source.tags(architecture)
    ]
    if sources and not spellings:
        tags = [
            f"{key}/{architecture}.{t}" for key, source in sources.items() for t in source.tags(architecture)
        ]
        listing = f"With a tag: {', '.join(repr(t) for t in tags[:8])}." if tags else "It has no tags."
        ways = " or ".join(repr(f"{key}/{architecture}") for key in sources)
        return InputError(
            f"Unknown backbone {name!r}. Names say their source: {ways}; none has the tag {tag!r}. {listing}"
        )
    if not sources and prefix not in _shipped() and (old := _renamed(plain)) is not None:
        return old
    if spellings:
        listing = " or ".join(repr(s) for s in spellings)
        return InputError(f"Unknown backbone {name!r}. Names say their source: {listing}.")
    known = list_backbones()
    if slash and prefix in _shipped():
        known = [k for k in known if k.startswith(f"{prefix}/")]
    elif not slash:
        close = nearest(name, [k.partition("/")[2] or k for k in known])
        spelled = [k for c in close for k in known if k.partition("/")[2] == c]
        if spelled:
            listing = " or ".join(repr(s) for s in spelled[:4])
            return InputError(
                f"Unknown backbone {name!r}. Did you mean {listing}? See `visionkit ls backbones`."
            )
    return unknown_name("backbone", name, known, hint="See `visionkit ls backbones`.")


@cache
def _shipped() -> dict[str, Source]:
    from visionkit.backbones.sources.packaged import PackagedSource
    from visionkit.backbones.sources.timm import TimmSource
    from visionkit.backbones.sources.torchvision import TorchvisionSource

    sources = (PackagedSource(), TimmSource(), TorchvisionSource())
    return {source.prefix: cast(Source, source) for source in sources}


@cache
def _names(prefix: str) -> frozenset[str]:
    return frozenset(_shipped()[prefix].names())


def _full_names(key: str, source: Source) -> list[str]:
    return source.names() if key == "user" else [f"{key}/{name}" for name in _names(key)]
