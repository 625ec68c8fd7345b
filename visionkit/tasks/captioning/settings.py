"""How a captioner speaks, and how it learns from its own sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, cast

from visionkit.config import check_number, limits
from visionkit.errors import InputError, expected, unknown_name

__all__ = ["Decoding", "SelfCritical", "check_settings", "settings_from"]

SettingsT = TypeVar("SettingsT")


@dataclass(frozen=True)
class Decoding:
    """How sentences are found in evaluation and prediction.

    Args:
        beams: Open sentences an image; 1 says the most likely word each time.
        n_best: Sentences returned in prediction, the best first.
        longest: Most words, the end included.
        length_penalty: Above 0 favours long sentences (Wu et al. 2016).
        block_trigrams: Never say three words in a row twice.
        bad_endings: Whether a sentence may end in "a", "of" and the like.
        groups: Groups of beams that are discouraged from saying the same (diverse beam search).
        diversity: How strongly.
    """

    beams: int = 3
    n_best: int = 1
    longest: int = 20
    length_penalty: float = 0.0
    block_trigrams: bool = False
    bad_endings: bool = False
    groups: int = 1
    diversity: float = 0.5


@dataclass(frozen=True)
class SelfCritical:
    """Self-critical training: sentences that are drawn are rewarded with CIDEr-D over a baseline.

    Args:
        at: Images seen before it begins; until then words are taught. 0 begins at once.
        baseline: "greedy": the most likely sentence's reward (Rennie et al., CVPR 2017). "mean": that of the
            image's other draws (Luo, "A Better Variant of Self-Critical Sequence Training", 2020). "beam":
            the best beam's.
        samples: Sentences drawn for each image; at least 2 for "mean".
        temperature: Of the draws.
        seed: Of the draws: they are a function of (seed, update, image), on any number of processes.
    """

    at: int = 0
    baseline: Literal["greedy", "mean", "beam"] = "mean"
    samples: int = 5
    temperature: float = 1.0
    seed: int = 0


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
    if critic.at < 0 or critic.temperature <= 0:
        got_two = (critic.at, critic.temperature)
        raise InputError(expected("self_critical.at and temperature", "0 or more, and above 0", got_two))
