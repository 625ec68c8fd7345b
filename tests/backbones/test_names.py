"""Names that people have from elsewhere: timm's old ones, the hub's, names without a source."""

from __future__ import annotations

import re

import pytest

from visionkit.backbones import list_backbones
from visionkit.backbones.registry import resolve
from visionkit.backbones.sources.base import ModelSpec
from visionkit.errors import InputError


def _error(name):
    with pytest.raises(InputError) as caught:
        resolve(name, ModelSpec(""))
    return str(caught.value)


def test_every_old_name_of_timm_leads_to_the_same_weights():
    import timm
    from timm.models._registry import get_deprecated_models

    timm.list_models()
    old = {name: new for name, new in get_deprecated_models().items() if new is not None}
    assert len(old) > 150
    for name, new in old.items():
        for spelled in (name, f"timm/{name}"):
            named = re.findall(r"'(timm/[^']+)'", _error(spelled))
            assert len(named) == 1
            _, spec = resolve(named[0], ModelSpec(""))
            assert spec.architecture == new.partition(".")[0]
            assert spec.tag.startswith(new.partition(".")[2])


@pytest.mark.parametrize("scheme", ["hf-hub", "hf_hub", "HF-HUB"])
def test_names_of_timms_collection_on_the_hub(scheme):
    source, spec = resolve(f"{scheme}:timm/resnet50.a1_in1k", ModelSpec(""))
    assert (source.prefix, spec.architecture, spec.tag) == ("timm", "resnet50", "a1_in1k")
    assert "Unknown tag 'a9'" in _error(f"{scheme}:timm/resnet50.a9")


def test_other_collections_are_refused_with_the_way():
    text = _error("hf-hub:somebody/resnet50-flowers")
    assert "'hf-hub:timm/" in text
    assert "init='model.safetensors'" in text


@pytest.mark.parametrize(
    "name",
    ["resnet50.a1_in1k", "tim/resnet50.a1_in1k", "resnet50.IMAGENET1K_V2", "resnet50.nonsense", "resnet50"],
)
def test_no_name_is_suggested_that_does_not_exist(name):
    suggested = re.findall(r"'((?:timm|torchvision|packaged)/[^']+)'", _error(name))
    assert suggested
    for each in suggested:
        resolve(each, ModelSpec(""))


def test_suggestions_keep_the_tag_that_was_asked_for():
    assert "'timm/resnet50.a1_in1k'." in _error("resnet50.a1_in1k")
    assert "torchvision" not in _error("resnet50.a1_in1k")
    assert "timm/resnet50'" not in _error("resnet50.IMAGENET1K_V2").split("torchvision")[0]
    assert "none has the tag 'nonsense'" in _error("resnet50.nonsense")


def test_no_name_of_the_registry_is_an_old_one():
    from timm.models._registry import get_deprecated_models

    assert not {f"timm/{name}" for name in get_deprecated_models()} & set(list_backbones())
