"""Regularised logistic regression on features, its strength chosen by cross-validation. NumPy and SciPy only.

The loss is scikit-learn's: the mean cross-entropy and `strength / 2` times the squared weights, the biases
free. Its `C` is `1 / (strength * images)`, or twice that with two classes, for which it fits one vector.
Features are rotated to the axes of their covariance, which changes no solution, and each axis is scaled by
about the root of its curvature, so that L-BFGS needs tens of steps where it would need hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionkit.errors import DataError, RunError, expected

__all__ = ["STRENGTHS", "LinearProbe", "Standardization", "fit_logistic", "fit_probe"]

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

STRENGTHS: tuple[float, ...] = tuple(float(10.0**power) for power in np.arange(2.0, -6.5, -0.5))
"""The strengths tried, the strongest first: of mean cross-entropy and standardised features."""

_PATIENCE = 2  # strengths without a lower loss, after which weaker ones are not tried
_GRADIENT = 1e-8  # largest entry of the gradient at which a fit ends
_HELD_OUT = 1e-4  # the same where only the held-out loss is asked for
_FAILED = 1e-3  # above it a fit has failed
_STEPS = 5000
_CURVES = 20  # pairs that L-BFGS remembers


@dataclass(frozen=True)
class Standardization:
    """Mean 0 and deviation 1 of each feature over the training images; a constant feature becomes 0.

    Args:
        mean: `(D,)`.
        factor: `(D,)` what is multiplied with: 1 / deviation, 0 for a constant.
    """

    mean: Floats
    factor: Floats

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> Standardization:
        """Return that of features `(N, D)`."""
        rows = features.astype(np.float64)
        mean, deviation = rows.mean(0), rows.std(0)
        # What rounding alone makes of a constant is no deviation.
        varies = deviation > 1e-12 * np.abs(rows).max(0, initial=0.0)
        return cls(mean, np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies))

    def __call__(self, features: NDArray[np.floating]) -> Floats:
        """Return features `(N, D)` in these units, float64."""
        return (features.astype(np.float64) - self.mean) * self.factor


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of standardised features.

    Args:
        standardization: Of the training images.
        weights: `(D, C)`.
        bias: `(C,)`.
        strength: The strength of regularisation that was chosen.
        loss: Cross-entropy of the images that each fold held out, at that strength.
        scored: Images that could be held out: their class was in the other folds.
        at_end: Whether the strength is the strongest or the weakest that was tried.
    """

    standardization: Standardization
    weights: Floats
    bias: Floats
    strength: float
    loss: float
    scored: int
    at_end: bool

    def logits(self, features: NDArray[np.floating]) -> Floats:
        """Return `(N, C)` for features `(N, D)` as they come from the network."""
        return self.standardization(features) @ self.weights + self.bias


def fit_probe(
    features: NDArray[np.floating],
    labels: Labels,
    folds: Labels,
    *,
    num_classes: int,
    strengths: tuple[float, ...] = STRENGTHS,
) -> LinearProbe:
    """Fit a classifier; the strength is that of the lowest cross-entropy on held-out folds.

    From the strongest on, each fit begins at the one before. Weaker ones are left out once two in turn were
    worse than the best. An image whose class is in no other fold is not scored.

    Args:
        features: `(N, D)` of the training images.
        labels: `(N,)` classes, from 0.
        folds: `(N,)` the fold of each image.
        num_classes: Number of classes.
        strengths: To choose from, falling.

    Raises:
        DataError: A feature is not finite, or no fold can be scored.
        RunError: A fit does not converge.
    """
    if not np.isfinite(features).all():
        raise DataError("Expected finite features, but some are NaN or infinite.")
    standardization = Standardization.of(features)
    rotated, basis, curvature = _principal_axes(standardization(features))
    chosen, loss, scored = _cross_validate(rotated, labels, folds, curvature, strengths)
    solution = _fit(rotated, labels, num_classes, chosen, curvature)
    ends = (strengths[0], strengths[-1])
    return LinearProbe(
        standardization, basis @ solution[:-1], solution[-1], chosen, loss, scored, chosen in ends
    )


def fit_logistic(
    features: Floats, labels: Labels, *, num_classes: int, strength: float
) -> tuple[Floats, Floats]:
    """Return the weights `(D, C)` and biases `(C,)` of one strength, of features that are taken as they are.

    Args:
        features: `(N, D)`.
        labels: `(N,)` classes, from 0; each occurs.
        num_classes: Number of classes.
        strength: Above 0.

    Raises:
        RunError: The fit does not converge.
    """
    rotated, basis, curvature = _principal_axes(np.asarray(features, np.float64))
    solution = _fit(rotated, labels, num_classes, strength, curvature)
    return basis @ solution[:-1], solution[-1]


def _principal_axes(features: Floats) -> tuple[Floats, Floats, Floats]:
    """Return features `(N, R)` along their principal axes `(D, R)`, and their second moments `(R,)`."""
    count, dim = features.shape
    wide = dim > count
    moments, axes = np.linalg.eigh((features @ features.T if wide else features.T @ features) / count)
    known = moments > 1e-13 * max(float(moments[-1]), 1e-300) * max(count, dim)
    moments, axes = moments[known], axes[:, known]
    basis = features.T @ axes / np.sqrt(moments * count) if wide else axes  # (D, R)
    return features @ basis, basis, moments


def _cross_validate(
    features: Floats, labels: Labels, folds: Labels, curvature: Floats, strengths: tuple[float, ...]
) -> tuple[float, float, int]:
    """Return the strength of the lowest held-out loss, that loss, and how many images it is of."""
    splits = [_Fold.of(features, labels, folds == fold) for fold in np.unique(folds)]
    scored = sum(len(each.held_out) for each in splits)
    if not scored:
        raise DataError(
            f"Expected each class in two groups of images or more, but none of {len(labels)} training images "
            "has its class in another group: no strength can be chosen. Take more images."
        )
    starts: list[Floats | None] = [None] * len(splits)
    best, chosen, waited = np.inf, strengths[0], 0
    for strength in strengths:
        total = 0.0
        for index, each in enumerate(splits):
            if not len(each.held_out):
                continue
            solution = _fit(
                each.features, each.train_labels, each.classes, strength, curvature, starts[index], _HELD_OUT
            )
            starts[index] = solution
            logits = each.held_out @ solution[:-1] + solution[-1]
            total += float(_losses(logits, each.held_labels)[0].sum())
        if total < best:
            best, chosen, waited = total, strength, 0
        else:
            waited += 1
            if waited == _PATIENCE:
                break
    return chosen, best / scored, scored


@dataclass(frozen=True)
class _Fold:
    """What is trained on and what is scored for one fold; labels count the classes of its training part."""

    features: Floats
    train_labels: Labels
    held_out: Floats
    held_labels: Labels
    classes: int

    @classmethod
    def of(cls, features: Floats, labels: Labels, held: NDArray[np.bool_]) -> _Fold:
        present, train_labels = np.unique(labels[~held], return_inverse=True)
        rows = held & np.isin(labels, present)
        held_labels = np.searchsorted(present, labels[rows])
        return cls(features[~held], train_labels, features[rows], held_labels, len(present))


def _fit(
    features: Floats,
    labels: Labels,
    num_classes: int,
    strength: float,
    curvature: Floats,
    start: Floats | None = None,
    tolerance: float = _GRADIENT,
) -> Floats:
    """Return weights and, in the last row, biases `(R + 1, C)` of the lowest loss."""
    from scipy.optimize import minimize

    if strength <= 0:
        raise RunError(expected("the strength", "above 0", strength))
    flat = (1 - 1 / num_classes) / num_classes  # the softmax's curvature where all classes are alike
    scale = 1 / np.sqrt(np.append(flat * curvature + strength, max(flat, 1e-3)))[:, None]  # (R + 1, 1)
    shape, rows = (features.shape[1] + 1, num_classes), np.arange(len(labels))

    def loss(flattened: Floats) -> tuple[float, Floats]:
        solution = flattened.reshape(shape) * scale
        losses, errors = _losses(features @ solution[:-1] + solution[-1], labels)
        errors[rows, labels] -= 1
        errors /= len(labels)
        gradient = np.concatenate([features.T @ errors + strength * solution[:-1], errors.sum(0)[None]])
        value = losses.mean() + strength / 2 * (solution[:-1] ** 2).sum()
        return float(value), (gradient * scale).ravel()

    begin = np.zeros(shape) if start is None else start / scale
    options = {"maxiter": _STEPS, "maxfun": 2 * _STEPS, "maxcor": _CURVES, "gtol": tolerance, "ftol": 0.0}
    done = minimize(loss, begin.ravel(), jac=True, method="L-BFGS-B", options=options)
    if not np.isfinite(done.fun) or np.abs(done.jac).max() > _FAILED:
        raise RunError(
            f"The logistic regression of {len(labels)} images and {features.shape[1]} features at strength "
            f"{strength:.3g} did not converge in {done.nit} steps ({done.message})."
        )
    solution: Floats = done.x.reshape(shape) * scale
    return solution


def _losses(logits: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Return the cross-entropy of each image `(N,)`, and the probabilities `(N, C)`."""
    shifted = logits - logits.max(1, keepdims=True)
    exponents = np.exp(shifted)
    total = exponents.sum(1)
    return np.log(total) - shifted[np.arange(len(labels)), labels], exponents / total[:, None]
