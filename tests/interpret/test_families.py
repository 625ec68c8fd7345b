"""Every way to look over one network of each family, with random weights."""

from __future__ import annotations

import pytest
import torch

from tests.contracts.cases import BACKBONES
from visionkit.errors import InputError
from visionkit.interpret import (
    activation_sheet,
    dream,
    explain,
    filter_sheet,
    find_levels,
    measure_field,
    open_subject,
    transfer_style,
)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_every_function_serves_or_refuses_by_name(name):
    torch.manual_seed(0)
    subject = open_subject(name, init="scratch")
    size = 0 if subject.network.fixed_size else 128
    image = subject.fit(torch.rand(3, 128, 128), size)
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
    assert torch.isfinite(dream(subject, image, layer=layer, octaves=2, steps=2)).all()
    done = transfer_style(subject, image, image.flip(2), steps=3, style_weight=1.0)
    assert torch.isfinite(done.image).all()
