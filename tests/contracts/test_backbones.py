"""Every backbone, one contract: levels, shapes, gradients, stages, freezing, encoder, kept classifier."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.contracts.cases import ALL, BACKBONES, MORE_BACKBONES
from tests.contracts.quick_weights import quick_weights
from visionkit.backbones import ContractReport, Level, check_backbone, describe_backbone, list_backbones
from visionkit.errors import InputError, RunError

SHAPES_ONLY = 12_000_000
SECONDS_LONG = {
    "torchvision/maxvit_t", "torchvision/densenet121", "torchvision/vit_b_16", "torchvision/googlenet",
    "timm/swin_tiny_patch4_window7_224", "timm/hrnet_w18_small", "timm/iformer_t",
    # two seconds and more, and a relative or another of its kind of block stays in the default suite
    "torchvision/mobilenet_v3_small", "torchvision/regnet_y_400mf", "timm/swiftformer_xs",
    "timm/efficientvit_b0", "timm/repghostnet_050", "timm/poolformerv2_s12", "timm/shvit_s1",
    "timm/hgnetv2_b0", "timm/efficientvit_m0", "torchvision/swin_t", "timm/edgenext_xx_small",
    "timm/ghostnet_050", "timm/mobilenetv3_small_050", "timm/pvt_v2_b0", "timm/efficientvim_m1",
    "timm/vit_tiny_r_s16_p8_224", "timm/levit_128s",
}  # fmt: skip
NAMED = re.compile("no maps aligned with the image|cannot be traced for its shapes")  # reasons of a refusal
LARGE = re.compile(r"_(3[3-9]\d|[4-9]\d\d|1\d\d\d)(_|$)|huge|giant|gigantic|enormous|so\d+m|xlarge")


def _hold(name: str, reductions: tuple[int, ...]) -> None:
    report = check_backbone(name, shapes_only_above=SHAPES_ONLY)
    assert tuple(r for _, r in report.levels if r in ALL) == reductions
    assert bool(report.refusal) == (not reductions)
    assert not report.refusal or "no maps aligned with the image" in report.refusal
    assert report.dim > 0
    assert report.computed == (report.parameters <= SHAPES_ONLY)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SECONDS_LONG)) for name in BACKBONES]
)
def test_contract(name):
    with quick_weights():
        _hold(name, BACKBONES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE_BACKBONES)
def test_contract_of_more_families(name):
    _hold(name, MORE_BACKBONES[name])


def test_the_rows_span_the_registry():
    rows = {**BACKBONES, **MORE_BACKBONES}
    assert len(BACKBONES) >= 50
    assert BACKBONES.keys() >= SECONDS_LONG
    assert len(rows) >= 95
    assert set(rows) <= set(list_backbones())
    assert {name.partition("/")[0] for name in rows} == {"packaged", "timm", "torchvision"}


def test_the_registry_holds_every_architecture():
    import timm
    from torchvision import models

    names = list_backbones()
    assert len(names) == len(timm.list_models()) + len(models.list_models(module=models)) + 5
    assert len(names) >= 1400
    assert len(names) == len(set(names))


class _Broken(nn.Module):
    levels = (Level(8, 4),)

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.idle = nn.Conv2d(8, 8, 1) if fault == "idle" else nn.Identity()
        self.norm = nn.BatchNorm2d(8)

    def forward(self, images):
        x = self.norm(self.conv(images))
        if self.fault != "reduction":
            x = torch.nn.functional.max_pool2d(x, 2, ceil_mode=True)
        if self.fault == "nan":
            x = x * float("nan")
        return (x,)


@pytest.mark.parametrize(
    ("fault", "text"),
    [("idle", "a gradient for every parameter"), ("nan", "finite numbers")],
)
def test_a_broken_network_is_found_out(fault, text):
    def mine(*, pretrained: bool) -> nn.Module:
        return _Broken(fault)

    with pytest.raises(RunError, match=text):
        check_backbone(mine)


def test_a_network_that_keeps_the_contract_passes():
    def mine(*, pretrained: bool) -> nn.Module:
        return _Broken("")

    report = check_backbone(mine)
    assert report.levels == ((8, 4),)
    assert report.dim == 8


def test_a_function_that_was_changed_is_measured_anew():
    def named_alike(reduction):
        def mine(*, pretrained: bool) -> nn.Module:
            return _Broken("" if reduction == 4 else "reduction")

        return mine

    assert [check_backbone(named_alike(r)).levels for r in (4, 2)] == [((8, 4),), ((8, 2),)]


def test_a_level_that_is_not_what_it_says_is_measured():
    def mine(*, pretrained: bool) -> nn.Module:
        return _Broken("reduction")

    assert check_backbone(mine).levels == ((8, 2),)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_contract_of_all_names(tmp_path):
    """Hold every name to the contract; `VISIONKIT_TABLE` names a file to go on from, line by line."""
    table = Path(os.environ.get("VISIONKIT_TABLE", tmp_path / "backbones.jsonl"))
    done = {json.loads(line)["name"] for line in table.read_text().splitlines()} if table.exists() else set()
    # Those of a large fixed size take minutes each: last, so that a walk cut short has seen the most.
    names = sorted(list_backbones(), key=lambda name: bool(LARGE.search(name)))
    with table.open("a") as out, quick_weights():
        for name in names:
            if name in done:
                continue
            row = {"name": name, "status": "crash", "reason": ""}
            try:
                report = check_backbone(name)
                row = dataclasses.asdict(report) | {"status": "refused" if report.refusal else "passes"}
                row["reason"] = report.refusal
            except InputError as error:
                row |= {"status": "refused_all", "reason": str(error)}
            except Exception as error:
                row["reason"] = f"{type(error).__name__}: {error}"
            out.write(json.dumps(row) + "\n")
            out.flush()
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert {row["name"] for row in rows} >= set(names)
    assert [row for row in rows if row["status"] == "crash"] == []
    refused = [row for row in rows if row["status"].startswith("refused")]
    assert [row for row in refused if not NAMED.search(row["reason"])] == []


def test_the_kept_rows_are_as_the_report_is_now(root, monkeypatch):
    fields = {field.name for field in dataclasses.fields(ContractReport)} | {"status", "reason"}
    rows = [json.loads(line) for line in (root / "tests/results/backbones.jsonl").read_text().splitlines()]
    assert len(rows) >= 1400
    assert {frozenset(row) for row in rows if row["status"] in ("passes", "refused")} == {frozenset(fields)}
    assert [row for row in rows if row["status"] != "passes" and not NAMED.search(row["reason"])] == []
    monkeypatch.syspath_prepend(root / "docs")
    import make_backbones

    monkeypatch.setattr(make_backbones, "families", lambda: {row["name"]: "any" for row in rows})
    table = make_backbones.tables(rows, len(rows))
    numbers = sum(row["status"] == "passes" and row["computed"] for row in rows)
    assert f"| passes, run with numbers | {numbers} |" in table
    assert numbers > 1000


def test_quick_weights_are_drawn_and_let_go():
    with quick_weights():
        weights = nn.init.trunc_normal_(torch.empty(100, 1000), std=0.02)
        other = nn.Linear(300, 300).weight
    assert 0.005 < float(weights.std()) < 0.03
    assert len(weights.unique()) > 3000
    assert float(other.abs().max()) <= 300**-0.5
    assert len(torch.empty(100_000).uniform_().unique()) > 50_000


def test_describe_before_build():
    facts = describe_backbone("timm/resnet50.a1_in1k")
    assert [level.reduction for level in facts.levels] == [2, 4, 8, 16, 32]
    assert [level.channels for level in facts.levels] == [64, 256, 512, 1024, 2048]
    assert facts.parameters == 25_557_032
    assert facts.tag == "a1_in1k"
    assert facts.licence == "apache-2.0"
    assert "tv_in1k" in facts.tags
    assert facts.norm_policies["pretrained"] == ("batch", "frozen", "sync")
    assert facts.output_strides == (32, 16, 8)
    assert facts.weights_here is False
    assert json.loads(json.dumps(facts.as_dict()))["mean"] == [0.485, 0.456, 0.406]
