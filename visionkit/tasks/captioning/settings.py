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
    """Refuse settings of a captioner that are out of range or do not fit together.

    Args:
        decoding: Each field is within its own limits (`config_from`).
        critic: Likewise.
        label_smoothing: See `Captioner`, as for the others.
        scheduled_sampling: A fraction.
        coverage: A weight.
        lr: A learning rate.

    Raises:
        InputError: Names the setting.
    """
    for name, fraction in (("label_smoothing", label_smoothing), ("scheduled_sampling", scheduled_sampling)):
        check_number(name, fraction, limits(min=0, below=1))
    check_number("coverage", coverage, limits(min=0))
    check_number("lr", lr, limits(min=0))
    limit = decoding.beams * decoding.groups
    if decoding.n_best > limit:
        raise InputError(expected("decoding.n_best", f"in 1 .. beams * groups = {limit}", decoding.n_best))
    if critic is None:
        return
    if critic.baseline not in ("greedy", "mean", "beam"):
        raise unknown_name("baseline", critic.baseline, ("greedy", "mean", "beam"))
    min_samples = 2 if critic.baseline == "mean" else 1
    if critic.samples < min_samples:
        name = f"self_critical.samples for baseline {critic.baseline!r}"
        raise InputError(expected(name, f"at least {min_samples}", critic.samples))
