"""The checks of a captioner's settings."""

from __future__ import annotations

from visionkit.config import check_number, limits
from visionkit.errors import InputError, expected, unknown_name
from visionkit.task_config import Decoding, SelfCritical

__all__ = ["check_settings"]


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
    for name, fraction in (("label_smoothing", label_smoothing), ("scheduled_sampling", scheduled_sampling)):
        check_number(name, fraction, limits(min=0, below=1))
    check_number("coverage", coverage, limits(min=0))
    check_number("lr", lr, limits(min=0))
    if decoding.beams < 1 or decoding.groups < 1 or decoding.max_length < 2:
        got = (decoding.beams, decoding.groups, decoding.max_length)
        raise InputError(expected("beams, groups and max_length", "at least 1, 1 and 2", got))
    if not 1 <= decoding.n_best <= decoding.beams * decoding.groups:
        limit = decoding.beams * decoding.groups
        raise InputError(expected("decoding.n_best", f"in 1 .. beams * groups = {limit}", decoding.n_best))
    if critic is None:
        return
    if critic.baseline not in ("greedy", "mean", "beam"):
        raise unknown_name("baseline", critic.baseline, ("greedy", "mean", "beam"))
    min_samples = 2 if critic.baseline == "mean" else 1
    if critic.samples < min_samples:
        name = f"self_critical.samples for baseline {critic.baseline!r}"
        raise InputError(expected(name, f"at least {min_samples}", critic.samples))
    if (critic.start_images or 0) < 0 or critic.temperature <= 0:
        got_two = (critic.start_images, critic.temperature)
        raise InputError(
            expected("self_critical.start_images and temperature", "0 or more, and above 0", got_two)
        )
