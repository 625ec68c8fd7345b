"""The settings that cross package borders, as plain dataclasses. No torch: `--help` must not wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["NormPolicy", "OptimConfig", "TransferConfig"]

NormPolicy = Literal["batch", "frozen", "sync", "group"]


@dataclass(frozen=True)
class OptimConfig:
    """How the parameters move. Lengths are counted in images, so subsets and batch sizes compare.

    Args:
        optimizer: Which update rule.
        weight_decay: Decay of weights; norms, biases and embeddings are never decayed.
        momentum: SGD's momentum.
        schedule: Shape of the learning rate after warm-up. "steps" cuts by `gamma` where each tail begins.
        warmup: Share of all images over which the rate rises linearly from zero.
        tails: For "steps": the lengths, in images, of the low-rate tails counted back from the end, longest
            first (He et al. keep them fixed and stretch only the first stage). Empty: at 2/3 and 8/9 of all.
        gamma: For "steps": the factor of each cut.
        power: For "poly": the exponent.
        final_scale: The rate at the end as a share of its peak, for "cosine", "linear" and "poly".
        batch: The global batch that `lr` was chosen for: the rate is scaled linearly to the batch that runs.
            0 leaves the rate alone.
        clip_norm: Largest norm of the gradient; 0 is off.
        ema: Decay of the moving average of the weights per 32 images seen; 0 is off.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.05
    momentum: float = 0.9
    schedule: Literal["cosine", "linear", "poly", "steps", "constant"] = "cosine"
    warmup: float = 0.05
    tails: tuple[int, ...] = ()
    gamma: float = 0.1
    power: float = 0.9
    final_scale: float = 0.0
    batch: int = 0
    clip_norm: float = 0.0
    ema: float = 0.0


@dataclass(frozen=True)
class TransferConfig:
    """What is done with the weights that `init` brings. `None` asks for the task's own default.

    Args:
        freeze_through: Freeze every stage up to this reduction (parameters and running statistics).
            0 freezes nothing; "all" freezes the whole backbone: a linear probe.
        norm: Normalisation of backbone and heads alike. Both arms of a comparison use the same one.
        backbone_lr_scale: The backbone's learning rate as a share of the head's.
        layer_decay: The rate of each level as a share of the next coarser one's; 1 is off.
        thaw_at: Staged thaw: at `images` seen, everything coarser than `reduction` trains;
            pairs `(images, reduction)`, reduction 0 thaws all.
        probe_level: Pool this reduction's map instead of the last one (a probe from a chosen level).
    """

    freeze_through: int | Literal["all"] | None = None
    norm: NormPolicy | None = None
    backbone_lr_scale: float | None = None
    layer_decay: float = 1.0
    thaw_at: tuple[tuple[int, int], ...] = ()
    probe_level: int | None = None
