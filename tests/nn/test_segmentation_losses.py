"""Segmentation losses against independent references, finite differences, and their corner cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.errors import InputError
from visionkit.nn.segmentation.losses import (
    SegmentationLoss,
    cross_entropy_loss,
    dice_loss,
    focal_loss,
    lovasz_loss,
    ohem_loss,
    parse_terms,
    tversky_loss,
)
from visionkit.nn.segmentation.lovasz import hardest_first

LOSSES = {
    "ce": cross_entropy_loss,
    "dice": dice_loss,
    "focal": focal_loss,
    "lovasz": lovasz_loss,
    "ohem": ohem_loss,
    "tversky": tversky_loss,
}


def _case(seed: int = 0, classes: int = 4, present: int | None = None, ignore: float = 0.2):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 5, 6, generator=generator) * 2
    masks = torch.randint(0, present or max(2, classes), (2, 5, 6), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < ignore] = 255
    return logits, masks


def _flat(logits, masks):
    """Plain numpy: (N, C) probabilities and (N,) classes of the counted pixels."""
    values = logits.double().movedim(1, -1).reshape(-1, logits.shape[1]).numpy()
    truth = masks.reshape(-1).numpy()
    values, truth = values[truth != 255], truth[truth != 255]
    exponent = np.exp(values - values.max(1, keepdims=True))
    return exponent / exponent.sum(1, keepdims=True), truth


@pytest.mark.parametrize("seed", range(3))
def test_cross_entropy_equals_torch(seed):
    logits, masks = _case(seed)
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0])
    for weight in (None, weights):
        theirs = F.cross_entropy(logits, masks, weight=weight, ignore_index=255)
        torch.testing.assert_close(cross_entropy_loss(logits, masks, class_weights=weight), theirs)


def test_one_logit_is_binary_cross_entropy():
    logits, masks = _case(classes=1)
    counted = masks != 255
    theirs = F.binary_cross_entropy_with_logits(logits[:, 0][counted], masks[counted].float())
    torch.testing.assert_close(cross_entropy_loss(logits, masks), theirs)
    probability, truth = torch.sigmoid(logits[:, 0][counted]), masks[counted].float()
    dice = 1 - 2 * (probability * truth).sum() / (probability.sum() + truth.sum())
    torch.testing.assert_close(dice_loss(logits, masks), dice)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_equals_its_formula(gamma):
    logits, masks = _case(1)
    probability, truth = _flat(logits, masks)
    weights = np.array([1.0, 2.0, 3.0, 0.5])
    p = probability[np.arange(len(truth)), truth]
    expected = (weights[truth] * (1 - p) ** gamma * -np.log(p)).sum() / weights[truth].sum()
    ours = focal_loss(logits, masks, gamma=gamma, class_weights=torch.tensor(weights).float())
    assert float(ours) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.3, 0.7)])
def test_tversky_equals_its_formula(alpha, beta):
    logits, masks = _case(2, present=3)  # class 3 is absent and must not count
    probability, truth = _flat(logits, masks)
    indices = []
    for index in range(3):
        p, t = probability[:, index], truth == index
        hits, false_positive, false_negative = p[t].sum(), p[~t].sum(), (1 - p[t]).sum()
        indices.append(hits / (hits + alpha * false_positive + beta * false_negative))
    ours = tversky_loss(logits, masks, alpha=alpha, beta=beta)
    assert float(ours) == pytest.approx(1 - np.mean(indices), rel=1e-5)


def _lovasz_reference(errors, truth):
    """The Lovász extension from its definition: sum over sorted errors of e_i (J({1..i}) - J({1..i-1}))."""
    order = np.argsort(-errors, kind="stable")
    value, previous = 0.0, 0.0
    for count in range(1, len(order) + 1):
        wrong = np.zeros(len(errors), bool)
        wrong[order[:count]] = True
        union = (truth | wrong).sum()
        jaccard_loss = wrong.sum() / union
        value += errors[order[count - 1]] * (jaccard_loss - previous)
        previous = jaccard_loss
    return value


def test_lovasz_equals_its_definition():
    logits, masks = _case(3, present=3)
    probability, truth = _flat(logits, masks)
    each = [
        _lovasz_reference(np.abs((truth == index) - probability[:, index]), truth == index)
        for index in range(3)
    ]
    assert float(lovasz_loss(logits, masks)) == pytest.approx(np.mean(each), rel=1e-5)


@settings(max_examples=100)
@given(st.integers(1, 400), st.integers(0, 2**31), st.sampled_from([0, 1, 3, 20]))
def test_the_hardest_come_first(count, seed, levels):
    """Radix sort over the bits is the order of the numbers, ties, zeros and ones included."""
    rng = np.random.default_rng(seed)
    errors = torch.from_numpy(rng.random(count, dtype=np.float32))
    if levels:
        errors = (errors * levels).round() / levels
    order = hardest_first(errors)
    assert sorted(order.tolist()) == list(range(count))
    assert errors[order].tolist() == sorted(errors.tolist(), reverse=True)
    assert errors.double()[hardest_first(errors.double())].tolist() == errors[order].double().tolist()


@pytest.mark.parametrize("channels", [1, 4])
def test_lovasz_leaves_the_ignored_out(channels):
    logits, masks = torch.randn(2, channels, 6, 7, requires_grad=True), torch.randint(0, 2, (2, 6, 7))
    remaining = torch.rand(2, 6, 7) < 0.6
    lovasz_loss(logits, torch.where(remaining, masks, 255)).backward()
    assert (logits.grad.movedim(1, -1)[~remaining] == 0).all()
    alone = logits.detach().movedim(1, -1)[remaining].T[None, :, None].requires_grad_()  # (1, C, 1, N)
    full = lovasz_loss(logits, torch.where(remaining, masks, 255))
    assert float(full.detach()) == pytest.approx(
        float(lovasz_loss(alone, masks[remaining][None, None]).detach())
    )
    lovasz_loss(alone, masks[remaining][None, None]).backward()
    assert torch.allclose(logits.grad.movedim(1, -1)[remaining], alone.grad[0, :, 0].T, atol=1e-6)


def test_lovasz_of_certain_predictions_is_one_minus_iou():
    masks = torch.tensor([[[0, 0, 1, 1, 1, 2]]])
    predicted = torch.tensor([[[0, 1, 1, 1, 2, 2]]])
    logits = F.one_hot(predicted, 3).movedim(-1, 1).float() * 100
    iou = np.mean([1 / 2, 2 / 4, 1 / 2])
    assert float(lovasz_loss(logits, masks)) == pytest.approx(1 - iou, abs=1e-5)


@pytest.mark.parametrize("keep", [0.05, 0.5, 1.0])
def test_ohem_counts_the_hard_pixels(keep):
    logits, masks = _case(4)
    probability, truth = _flat(logits, masks)
    p = np.sort(probability[np.arange(len(truth)), truth])
    count = max(int((p <= 0.3).sum()), min(len(p), round(keep * masks.numel())))
    ours = ohem_loss(logits, masks, threshold=0.3, keep=keep)
    assert float(ours) == pytest.approx(-np.log(p[:count]).mean(), rel=1e-5)
    assert count < len(p) or keep == 1.0


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("classes", [1, 4])
def test_gradient_equals_finite_differences(name, classes, monkeypatch):
    logits, masks = _case(5, classes=classes)
    logits = logits[:, :, :3, :3].double().requires_grad_()
    masks = masks[:, :3, :3]
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the losses' own float32 is too coarse
    weights = torch.arange(1.0, max(2, classes) + 1, dtype=torch.float64)
    loss = LOSSES[name](logits, masks, class_weights=weights)
    (gradient,) = torch.autograd.grad(loss, logits)
    flat, numeric = logits.detach().reshape(-1), []
    for index in range(flat.numel()):
        values = []
        for step in (1e-6, -1e-6):
            moved = flat.clone()
            moved[index] += step
            values.append(LOSSES[name](moved.view_as(logits), masks, class_weights=weights).item())
        numeric.append((values[0] - values[1]) / 2e-6)
    torch.testing.assert_close(gradient.reshape(-1), torch.tensor(numeric).double(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_ignored_pixels_change_nothing(name):
    logits, masks = _case(6)
    logits.requires_grad_()
    loss = LOSSES[name](logits, masks)
    (gradient,) = torch.autograd.grad(loss, logits)
    ignored = (masks == 255)[:, None].expand_as(logits)
    assert ignored.any()
    assert (gradient[ignored] == 0).all()
    assert gradient[~ignored].abs().sum() > 0
    changed = torch.where(ignored, logits + 5 * torch.rand_like(logits), logits)
    torch.testing.assert_close(LOSSES[name](changed, masks), loss)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("classes", [1, 4])
def test_all_ignored_is_zero_with_zero_gradients(name, classes):
    logits, masks = _case(7, classes=classes)
    logits.requires_grad_()
    loss = LOSSES[name](logits, torch.full_like(masks, 255))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0.0
    assert (gradient == 0).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_extreme_and_half_precision_logits_stay_finite(name):
    logits, masks = _case(8)
    for values in ((logits * 1e4).requires_grad_(), logits.bfloat16().requires_grad_()):
        loss = LOSSES[name](values, masks)
        (gradient,) = torch.autograd.grad(loss, values)
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_weighted_sum_by_name():
    logits, masks = _case(9)
    for terms in ("0.5*ce + 2*dice", {"ce": 0.5, "dice": 2.0}):
        parts = SegmentationLoss(terms, class_weights=[1.0, 2.0, 1.0, 1.0])(logits, masks)
        assert list(parts) == ["ce", "dice"]
        weights = torch.tensor([1.0, 2.0, 1.0, 1.0])
        torch.testing.assert_close(
            parts["ce"], 0.5 * cross_entropy_loss(logits, masks, class_weights=weights)
        )
        torch.testing.assert_close(parts["dice"], 2 * dice_loss(logits, masks, class_weights=weights))
    assert parse_terms("ce+lovasz") == {"ce": 1.0, "lovasz": 1.0}


def test_wrong_sums_are_refused_with_the_fix():
    with pytest.raises(InputError, match=r"Unknown loss term 'dise'. Did you mean 'dice'\?"):
        parse_terms("ce+dise")
    for text in ("-1*ce", "x*ce", "ce+ce", "nan*ce", "inf*ce"):
        with pytest.raises(InputError, match="each loss term once, with a positive weight"):
            parse_terms(text)
