"""Every decoder over a network of each family works at odd sizes, or is refused with a way out."""

from __future__ import annotations

import pytest

from tests.contracts.cases import ALL, BACKBONES, MORE_BACKBONES
from tests.contracts.quick_weights import quick_weights
from tests.tasks.segmentation_sweep import broken_promises, sweep
from visionkit.nn.segmentation.decoders import list_decoders

ANY = {"semantic_fpn", "unet", "upernet"}
# convolutions that can be dilated, that cannot, attention with and without a pyramid, a size of its own
SECONDS_LONG = {"torchvision/swin_t", "torchvision/vgg11_bn"}
FEW = {
    "timm/test_efficientnet": set(list_decoders()),
    "timm/mobilenetv3_small_050": ANY,
    "torchvision/vgg11_bn": ANY,
    "timm/test_convnext": set(list_decoders()),
    "torchvision/swin_t": ANY,
    "timm/test_vit": set(),
    "timm/levit_128s": set(),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SECONDS_LONG)) for name in FEW]
)
def test_odd_sizes(name):
    with quick_weights():
        rows = sweep(name)
        broken = broken_promises(rows)
    assert len(rows) == 7
    assert {row["decoder"] for row in rows if row["status"] == "ok"} == FEW[name]
    assert {row["status"] for row in rows} <= {"ok", "refused"}
    assert broken == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(BACKBONES | MORE_BACKBONES))
def test_odd_sizes_of_every_family(name):
    rows = sweep(name)
    assert len(rows) == 7
    assert [row for row in rows if row["status"] not in ("ok", "refused")] == []
    assert broken_promises(rows) == []
    works = {row["decoder"] for row in rows if row["status"] == "ok"}
    fixed = all("without a fixed size" in row.get("why", "") for row in rows)
    if (BACKBONES | MORE_BACKBONES)[name] == ALL and not fixed:
        assert works >= ANY
    assert [row for row in rows if row.get("unused")] == [], "parameters without use would stop DDP"
