"""Windows: equal to the whole image where the field of view allows, complete, and bounded in memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import interpolate

from visionkit.errors import InputError
from visionkit.nn.segmentation.sliding_window import Windows, sliding_labels, sliding_logits


class _Net(nn.Module):
    """Convolutions down to reduction 8 and bilinear steps back up: a field of view of under 40 pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.ModuleList(nn.Conv2d(i, 6, 3, stride=2, padding=1) for i in (3, 6, 6))
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, images):
        features = images
        for conv in self.down:
            features = conv(features).relu()
        # by the factor, not onto the size: the grid does not stretch where the size is odd
        logits = interpolate(self.head(features), scale_factor=8, mode="bilinear", align_corners=False)
        return logits[..., : images.shape[-2], : images.shape[-1]]


@pytest.mark.parametrize("size", [(97, 131), (160, 160), (64, 300), (50, 40), (129, 96)])
@pytest.mark.parametrize("batch", [1, 3])
def test_windows_equal_the_whole_image(size, batch):
    net = _Net().eval()
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(1))
    windows = Windows(size=112, stride=32, margin=32, multiple=8, batch=batch)
    with torch.no_grad():
        whole = net(image[None])[0]
        pieces = sliding_logits(net, image, windows)
        labels = sliding_labels(net, image, windows)
    assert pieces.shape == whole.shape
    assert (pieces - whole).abs().max() < 1e-5
    top = whole.topk(2, dim=0).values
    clear = top[0] - top[1] > 1e-4
    assert clear.float().mean() > 0.9
    assert (labels == whole.argmax(0))[clear].all()


def test_without_a_margin_borders_show():
    net = _Net().eval()
    image = torch.rand(3, 160, 160)
    with torch.no_grad():
        apart = sliding_logits(net, image, Windows(size=64, stride=64, multiple=8)) - net(image[None])[0]
    assert apart.abs().max() > 1e-3


@settings(max_examples=200)
@given(
    length=st.integers(1, 400),
    size=st.integers(1, 150),
    margin=st.integers(0, 40),
    multiple=st.sampled_from([1, 8, 32]),
    fraction=st.floats(0, 1),
)
def test_every_pixel_is_counted_by_a_whole_context(length, size, margin, multiple, fraction):
    reach = size - 2 * margin
    if reach < multiple:
        return
    stride = multiple + int(fraction * (reach - multiple))
    spans = Windows(size=size, stride=stride, margin=margin, multiple=multiple).spans(length)
    counted = torch.zeros(length)
    for start, end in spans:
        assert start % multiple == 0
        assert 0 <= start < end <= length
        assert end - start <= size
        counted[start + (margin if start else 0) : end - (margin if end < length else 0)] += 1
    assert (counted > 0).all()
    assert spans == sorted(spans)
    assert len(set(spans)) == len(spans)


def test_averages_overlapping_windows():
    image = torch.zeros(3, 8, 12)
    seen = []

    def predict(pieces):
        seen.append(pieces.shape)
        return torch.full((len(pieces), 1, *pieces.shape[-2:]), float(len(seen)))

    logits = sliding_logits(predict, image, Windows(size=8, stride=4, multiple=4))
    assert logits[0, 0].tolist() == [1.0] * 4 + [1.5] * 4 + [2.0] * 4


def test_windows_that_leave_pixels_out_are_refused():
    with pytest.raises(InputError, match=r"stride from 8 .* to 48 .* got 64 for windows of 64 with margin 8"):
        Windows(size=64, stride=64, margin=8, multiple=8)
    with pytest.raises(InputError, match="stride from 32"):
        Windows(size=64, stride=16)
    with pytest.raises(InputError, match="positive sizes"):
        Windows(size=64, stride=0)


def large_image():
    """How many KiB the labels of a large image take at their most."""
    import resource

    image = torch.zeros(3, 5477, 3652, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    labels = sliding_labels(
        lambda pieces: pieces[:, :1].float().expand(-1, 21, -1, -1),
        image,
        Windows(512, 512),
        decide=lambda x: x[:, 20].long(),
    )
    assert labels.shape == (5477, 3652)
    assert not labels.any()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def test_an_image_of_20_megapixels_takes_bounded_memory(zygote):
    larger = zygote.run("tests.nn.test_sliding_window:large_image") / 1024
    assert larger > 20  # the labels alone: the measure works
    # all logits at once would be 1,600 MiB; labels are 153 MiB, and twice that while they are joined
    assert larger < 800, f"{larger:.0f} MiB"
