"""Every way to look over one network of each family, with random weights."""

from __future__ import annotations

import pytest
import torch

from tests.contracts.cases import BACKBONES
from visionkit.errors import InputError
from visionkit.interpret import (
    activation_sheet,
    class_score,
    dream,
    explain,
    filter_sheet,
    find_levels,
    integrated_gradients,
    measure_field,
    occlusion,
    open_subject,
    saliency,
    transfer_style,
    visualize,
)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", BACKBONES)
def test_every_function_serves_or_refuses_by_name(name):
    torch.manual_seed(0)
    subject = open_subject(name, init="scratch")
    size = 0 if subject.network.fixed_size else 96
    image = subject.fit(torch.rand(3, 96, 96), size)
    inputs = subject.inputs(image)
    levels = find_levels(subject.network, inputs)
    assert levels
    layer = levels[max(levels)]
    assert filter_sheet(subject).width > 100
    assert activation_sheet(subject, image, layer=layer).width > 100
    assert measure_field(subject.network, layer, inputs).effective_size >= 1
    if subject.head is None:
        with pytest.raises(InputError, match="has no classes"):
            explain(subject, image)
    else:
        (each,) = explain(subject, image)
        assert each.heat.shape == image.shape[1:]
        assert torch.isfinite(each.heat).all()
        score = class_score(subject, inputs).of
        heats = [
            saliency(score, inputs),
            integrated_gradients(score, inputs, steps=3),
            occlusion(score, inputs, side=min(inputs.shape[-2:]) // 2),
        ]
        assert all(torch.isfinite(heat).all() and heat.shape[-2:] == inputs.shape[-2:] for heat in heats)
        assert torch.isfinite(visualize(subject, target=0, size=size, steps=1).image).all()
    assert torch.isfinite(dream(subject, image, layer=layer, octaves=2, steps=2).image).all()
    done = transfer_style(subject, image, image.flip(2), steps=2, style_weight=1.0)
    assert torch.isfinite(done.image).all()
    made = visualize(subject, layer=layer, channel=0, size=size, steps=2)
    assert torch.isfinite(made.image).all()
    with pytest.raises(InputError, match="Unknown layer"):
        visualize(subject, layer="no-such-layer")
