"""How a captioner speaks, and how it learns from its own sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, cast

from visionkit.config import check_number, limits
from visionkit.errors import InputError, expected, unknown_name
from visionkit.task_config import Decoding, SelfCritical

__all__ = ["Decoding", "SelfCritical", "check_settings", "settings_from"]

SettingsT = TypeVar("SettingsT")


def settings_from(kind: type[SettingsT], value: SettingsT | Mapping[str, Any]) -> SettingsT:
    """Return settings from themselves or from their plain dict, as checkpoints hold them.

    Raises:
        InputError: A key is not known.
    """
    if isinstance(value, kind):
        return value
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    given = dict(cast("Mapping[str, Any]", value))
    for name in given:
        if name not in known:
            raise unknown_name(f"{kind.__name__} setting", name, known)
    return kind(**given)


def check_settings(
    decoding: Decoding,
    critic: SelfCritical | None,
    *,
    label_smoothing: float,
    scheduled_sampling: float,
    coverage: float,
    lr: float,
) -> None:
    """Refuse settings of a captioner that are out of range.

    Raises:
        InputError: Names the setting.
    """
    for what, share in (("label_smoothing", label_smoothing), ("scheduled_sampling", scheduled_sampling)):
        check_number(what, share, limits(min=0, below=1))
    check_number("coverage", coverage, limits(min=0))
    check_number("lr", lr, limits(min=0))
    if decoding.beams < 1 or decoding.groups < 1 or decoding.longest < 2:
        got = (decoding.beams, decoding.groups, decoding.longest)
        raise InputError(expected("beams, groups and longest", "at least 1, 1 and 2", got))
    if not 1 <= decoding.n_best <= decoding.beams * decoding.groups:
        most = decoding.beams * decoding.groups
        raise InputError(expected("decoding.n_best", f"in 1 .. beams * groups = {most}", decoding.n_best))
    if critic is None:
        return
    if critic.baseline not in ("greedy", "mean", "beam"):
        raise unknown_name("baseline", critic.baseline, ("greedy", "mean", "beam"))
    least = 2 if critic.baseline == "mean" else 1
    if critic.samples < least:
        what = f"self_critical.samples for baseline {critic.baseline!r}"
        raise InputError(expected(what, f"at least {least}", critic.samples))
    if (critic.start_images or 0) < 0 or critic.temperature <= 0:
        got_two = (critic.start_images, critic.temperature)
        raise InputError(
            expected("self_critical.start_images and temperature", "0 or more, and above 0", got_two)
        )
