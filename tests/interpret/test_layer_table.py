"""Tables of layers: equal to the networks as built, and receptive fields equal to what gradients show."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.interpret.layer_networks import MORE, QUICK, build, open_every_path
from visionkit.errors import InputError
from visionkit.interpret import (
    layer_table,
    measure_field,
    multiply_adds,
    output_size,
    parameters,
    whole_network,
)
from visionkit.interpret.arithmetic.resizing import nearest_positions


def check_formulas(network: nn.Module, table) -> int:
    """Sizes, parameters and multiply-adds of every row by the formulas; how many rows had a geometry."""
    modules, checked = dict(network.named_modules()), 0
    for row in table.layers:
        shape = row.geometry
        if row.kind == "linear" and isinstance(modules[row.name], nn.Linear):
            layer = modules[row.name]
            cost = parameters(layer.in_features, out_channels=layer.out_features, bias=layer.bias is not None)
            assert row.parameters in (cost, 0)
        if shape is None or shape.transposed:
            continue
        checked += 1
        for side in (0, 1):
            sizes = {
                output_size(
                    row.input[1 + side], kernel_size=shape.kernel_size[side], stride=shape.stride[side],
                    padding=shape.padding[2 * side : 2 * side + 2], dilation=shape.dilation[side],
                    rounding=rounding,
                )
                for rounding in ("floor", "ceil")[: 1 + (row.kind != "conv")]
            }  # fmt: skip
            assert row.output[1 + side] in sizes, row
        if row.kind == "conv":
            given = {"out_channels": row.output[0], "kernel_size": shape.kernel_size, "groups": shape.groups}
            once = multiply_adds(row.input[0], output=row.output[1:], **given)
            # windows of a map go through as several images
            assert row.multiply_adds >= once, row
            assert row.multiply_adds % once == 0, row
            layer = modules[row.name]
            if type(layer) is nn.Conv2d:
                cost = parameters(row.input[0], bias=layer.bias is not None, **given)
                assert row.parameters in (cost, 0), row  # 0: called before
    return checked


def check_totals(network: nn.Module, table, size: tuple[int, int]) -> None:
    assert table.parameters == sum(p.numel() for p in network.parameters())
    assert sum(row.parameters for row in table.layers) + table.unused == table.parameters
    network.requires_grad_(False)  # the counter asks every input for its gradient's function
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, *size, device=next(network.parameters()).device))
    assert counter.get_total_flops() == 2 * table.multiply_adds


def check_fields(name: str, side: int, rows: int = 5) -> int:
    """Receptive fields of some rows against gradients, at the first, middle and last position."""
    network = build(name)
    table = layer_table(network, size=side)
    open_every_path(network)
    modules = dict(network.named_modules())
    chosen = [
        row for row in table.layers
        if row.kind == "conv" and isinstance(modules[row.name], nn.Conv2d) and row.receptive_field
        and not row.positions.gated and row.positions.dims and min(row.output[1:]) > 1
    ]  # fmt: skip
    assert len(chosen) >= min(rows, 5)
    chosen = [chosen[round(i * (len(chosen) - 1) / (rows - 1))] for i in range(rows)]
    image = torch.rand(1, 3, side, side, dtype=torch.float64)
    for row in chosen:
        height, width = row.output[1:]
        for position in {(0, width - 1), (height // 2, width // 2), (height - 1, 0)}:
            measured = measure_field(network, row.name, image, position=position).pixels
            for field, index, seen in zip(row.receptive_field, position, (measured[:2], measured[2:])):
                first, last = field.pixels(index, size=side)
                # a filter with a stride may leave out the last pixels of the image
                left_out = last - seen[1] if last == side else 0
                assert seen == (first, last - left_out), (row.name, position)
                assert left_out < 7  # the largest stride of a first layer: ConvMixer's patches
    return len(chosen)


@pytest.mark.parametrize("name", QUICK)
def test_the_table_is_that_of_the_network_as_built(name):
    network = build(name)
    table = layer_table(network, size=(96, 80), name=name)
    assert check_formulas(network, table) >= 8
    check_totals(network, table, (96, 80))
    shapes = {}
    hooks = [
        module.register_forward_hook(
            lambda _m, _a, out, n=n: shapes.setdefault(n, []).append(tuple(out.shape[1:]))
        )
        for n, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        network(torch.rand(1, 3, 96, 80))
    for hook in hooks:
        hook.remove()
    listed = {}
    for row in table.layers:
        if row.name in shapes:
            listed.setdefault(row.name, []).append(row.output)
    assert listed == shapes
    assert len(shapes) >= 8


@pytest.mark.parametrize("name", QUICK)
def test_receptive_fields_are_what_gradients_show(name):
    assert check_fields(name, 72, 3) == 3


@pytest.mark.parametrize(
    "resize",
    [
        nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=3, mode="nearest-exact"),
        nn.Upsample(size=(5, 11)), nn.Upsample(size=(16, 22), mode="bilinear"),
        nn.Upsample(size=(13, 7), mode="bilinear"), nn.Upsample(scale_factor=1.7, mode="bilinear"),
        nn.Upsample(size=(16, 21), mode="bilinear", align_corners=True),
        nn.Upsample(scale_factor=2, mode="bicubic"), nn.Upsample(size=(4, 5), mode="bicubic"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_resized_map_sees_is_what_gradients_show(resize):
    """No position sees more than the field says, and at both ends one sees as much."""
    assert [min(each) for each in zip(*unseen(resize))] == [0] * 4


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.floats(0.3, 7), st.booleans(), st.booleans())
@example(before=2, after=1, scale=1.25, middle=False, by_scale=True)
@example(before=2, after=1, scale=1.25, middle=True, by_scale=True)
@example(before=128, after=1, scale=1.00390625, middle=False, by_scale=True)
@example(before=64, after=1, scale=2.0078125, middle=False, by_scale=True)
def test_the_nearest_positions_are_those_of_torch(before, after, scale, middle, by_scale):
    """Of both of torch's kernels, which round differently where a source coordinate is nearly whole."""
    maps = torch.arange(before, dtype=torch.float32).view(1, 1, 1, before)
    asked = {"scale_factor": (1.0, scale)} if by_scale else {"size": (1, after)}
    mode = "nearest-exact" if middle else "nearest"
    read = []
    for layout in (torch.contiguous_format, torch.channels_last):
        given = maps.expand(1, 4, 1, before).contiguous(memory_format=layout)
        try:
            resized = nn.functional.interpolate(given, mode=mode, **asked)
        except RuntimeError:
            assume(False)  # nothing is left of the map
        read.append(resized[0, 0, 0].long().tolist())
    ratio = 1 / scale if by_scale else before / after
    sides = before, len(read[0])
    for position, ours in enumerate(zip(*read, strict=True)):
        first, last = (
            min(each, before - 1) for each in nearest_positions(position, ratio, sides, middle=middle)
        )
        assert first <= min(ours) <= max(ours) <= last
        assert {first, last} == set(ours) or last == first + 1


@pytest.mark.parametrize("size", [(3, 4), (5, 7), (7, 11), (1, 1)])
def test_windows_of_two_sizes_see_no_more_than_their_bound(size):
    assert min(min(ends) for ends in unseen(nn.AdaptiveAvgPool2d(size))) >= 0


def unseen(resize: nn.Module) -> list[list[int]]:
    """Pixels of a field before and after what a position sees, of both sides; none below zero."""
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), resize, nn.Conv2d(1, 1, 1, bias=False))
    network.double()
    for layer in (network[0], network[2]):
        layer.weight.data.fill_(1.0)
    image = torch.rand(1, 1, 8, 11, dtype=torch.float64, requires_grad=True)
    fields = layer_table(network, size=(8, 11), in_channels=1).layers[-1].receptive_field
    maps = network(image)[0, 0]
    slack = []
    for index in range(max(maps.shape)):
        position = (min(index, maps.shape[0] - 1), min(index, maps.shape[1] - 1))
        gradient = torch.autograd.grad(maps[position], image, retain_graph=True)[0][0, 0]
        ends = []
        for side, field in enumerate(fields):
            seen = gradient.abs().amax(1 - side).nonzero().flatten()
            first, last = field.pixels(position[side], size=image.shape[2 + side])
            ends += [int(seen[0]) - first, last - 1 - int(seen[-1])]
        assert min(ends) >= 0, index
        slack.append(ends)
    return slack


def test_a_run_before_it_changes_no_table():
    """Lightning leaves deterministic algorithms on, which resize by parts of which no field is known."""
    network = nn.Sequential(
        nn.Conv2d(1, 1, 3), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(1, 1, 1)
    )
    fields = []
    try:
        for on in (False, True):
            torch.use_deterministic_algorithms(on, warn_only=True)
            fields.append(layer_table(network, size=16, in_channels=1).layers[-1].receptive_field)
            assert torch.are_deterministic_algorithms_enabled() is on
    finally:
        torch.use_deterministic_algorithms(False)
    assert fields[0] is not None
    assert fields[0] == fields[1]


def test_known_networks():
    """AlexNet and VGG16 as Araujo et al. 2019 list them; ResNet-50 with its strides in the filters of 3."""
    rows = {}
    for name in ("torchvision/alexnet", "torchvision/vgg16", "torchvision/resnet50"):
        network, size, channels = whole_network(name)
        table = layer_table(network, size=size, in_channels=channels)
        rows[name] = [row for row in table.layers if row.kind in ("conv", "max pool")][-1]
        assert table.unused == 0
    assert [int(row.receptive_field[0].size) for row in rows.values()] == [195, 212, 427]
    assert rows["torchvision/vgg16"].receptive_field[0].stride == 32


def test_gates_and_mixed_positions_are_named():
    network, size, _ = whole_network("timm/test_nfnet")
    table = layer_table(network, size=size)
    assert table.layers[0].positions.gated is False
    assert table.layers[-1].positions.gated
    network, size, _ = whole_network("timm/test_vit")
    table = layer_table(network, size=size)
    assert table.mixed == ("cat of positions", "")
    first = next(row for row in table.layers if row.name == "patch_embed.proj")
    assert (first.receptive_field[0].size, first.receptive_field[0].stride) == (16, 16)
    assert table.layers[-1].receptive_field is None


def test_the_effective_field_is_smaller_than_the_whole():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1) for i in range(8)]
    network = nn.Sequential(*layers)
    measured = measure_field(network, "7", torch.randn(8, 3, 33, 33))
    assert measured.pixels == (8, 25, 8, 25)  # 1 + 8 * (3 - 1) = 17 around the pixel 16
    assert 5 < measured.effective_size < 15
    with pytest.raises(InputError, match="within the map of 33x33"):
        measure_field(network, "7", torch.randn(1, 3, 33, 33), position=(33, 0))
    with pytest.raises(InputError, match="no maps of reduction 9"):
        measure_field(network, "9", torch.randn(1, 3, 33, 33))


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_receptive_fields_of_more_networks(name):
    assert check_fields(name, 160) == 5


@pytest.mark.slow
def test_every_family_of_timm_and_torchvision():
    """The smallest name of each module of timm, and every family of torchvision."""
    import timm
    from timm.models import list_modules

    from visionkit.backbones import list_backbones

    known = set(list_backbones())
    names = []
    for module in sorted(list_modules()):
        of_module = [f"timm/{n}" for n in timm.list_models(module=module) if f"timm/{n}" in known]
        names += sorted(of_module, key=lambda n: ("test_" not in n, n))[:1]
    prefixes = {n.split("_")[0].rstrip("0123456789") for n in known if n.startswith("torchvision/")}
    names += [min(n for n in known if n.startswith(prefix)) for prefix in sorted(prefixes)]
    conv_rows = 0
    for name in names:
        network, size, channels = whole_network(name)
        table = layer_table(network, size=size, in_channels=channels, name=name)
        conv_rows += check_formulas(network, table)
        check_totals(network, table, size)
    assert len(names) >= 100
    assert conv_rows > 5000
