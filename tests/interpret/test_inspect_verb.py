"""`visionkit inspect`: every kind writes what it says, over a small network, and refuses what is wrong."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from visionkit.cli import main

NET = ("timm/test_resnet", "--init", "scratch")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    pixels = torch.rand(6, 8, 3, generator=torch.Generator().manual_seed(0))
    for name, shift in (("a", 0), ("b", 3)):
        image = Image.fromarray((pixels.roll(shift, 0) * 255).to(torch.uint8).numpy())
        image.resize((96, 72)).save(folder / f"{name}.png")
    return folder / "a.png"


def test_layers_are_printed_and_as_json(capsys):
    assert main(["inspect", "layers", "timm/test_resnet", "--size", "64", "--measure", "8"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].split()[:3] == ["layer", "kind", "kernel"]
    assert "parameters" in text
    assert "measured at" in text
    assert main(["inspect", "timm/test_resnet", "--layers", "--size", "64", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["size"] == [64, 64]
    assert sum(layer["parameters"] for layer in table["layers"]) == table["parameters"]
    first = table["layers"][0]
    assert first["receptive_field"]["size"] == first["geometry"]["kernel_size"]


@pytest.mark.parametrize(
    ("words", "least"),
    [
        (["filters", *NET], 100),
        (["filters", NET[0], NET[0], *NET[1:]], 100),
        (["activations", *NET, "--image", "{photo}", "--layer", "4", "--size", "64", "--limit", "8"], 500),
        (["activations", *NET, "--image", "{folder}", "--layer", "4", "--channel", "1", "--size", "64"], 300),
        (["gradcam", NET[0], NET[0], *NET[1:], "--image", "{photo}", "--size", "64", "--curves"], 130),
        (["dream", *NET, "--image", "{photo}", "--layer", "4", "--size", "64", "--steps", "2"], 64),
        (["style", *NET, "--image", "{photo}", "--style", "{photo}", "--size", "64", "--steps", "2"], 64),
        (["style", *NET, "--image", "{photo}", "--style", "{photo}", "{folder}/b.png", "--size", "64",
          "--regions", "{photo}", "{folder}/b.png", "--style_regions", "{photo}", "{photo}",
          "--fine_style", "{folder}/b.png", "--steps", "1"], 64),
        (["visualize", *NET, "--layer", "4", "--channel", "0", "3", "--size", "64", "--steps", "2"], 128),
    ],
)  # fmt: skip
def test_every_kind_writes_its_image(words, least, photo, tmp_path, capsys):
    out = tmp_path / "out.png"
    words = [word.format(photo=photo, folder=photo.parent) for word in words]
    assert main(["inspect", *words, "--out", str(out)]) == 0, capsys.readouterr().err
    with Image.open(out) as image:
        assert image.width >= least
        assert f"{image.width}x{image.height}" in capsys.readouterr().out
        assert len(set(image.convert("L").tobytes())) > 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["flters", "timm/test_resnet"], "Expected what to inspect (layers, filters"),
        (["layers", "timm/test_resnt"], "Did you mean 'timm/test_resnet'"),
        (["layers", "timm/test_resnet", "--sise", "3"], "Did you mean '--size'"),
        (["filters", *NET, "--out", "x.txt"], "a file that ends with .png"),
        (["filters", *NET, "--out", "no-such/x.png"], "no-such does not"),
        (
            ["dream", *NET, "--image", "{photo}", "--layer", "layr2", "--out", "x.png"],
            "Unknown layer 'layr2'",
        ),
        (
            ["style", *NET, "--image", "{photo}", "--style", "{photo}", "{photo}", "--out", "x.png"],
            "--regions to be one mask for each of 2 styles, but got 0",
        ),
        (["visualize", *NET, "--channel", "1", "--target", "dog", "--out", "x.png"], "and not both"),
        (["visualize", *NET, "--layer", "4", "--target", "0", "--out", "x.png"], "and not both"),
        (
            ["style", *NET, "--image", "{photo}", "--style", "b.png", "--fine_layers", "2", "--out", "a.png"],
            "Add --fine_style",
        ),
        (
            ["gradcam", *NET, "--image", "{photo}", "--method", "saliency", "--layer", "4", "--out", "x.png"],
            "got '4' with 'saliency'",
        ),
        (["gradcam", *NET, "--image", "{photo}", "--limit", "0", "--out", "x.png"], "Expected limit "),
        (["activations", *NET, "--image", "gone.png", "--layer", "4", "--out", "x.png"], "gone.png"),
    ],
)
def test_what_is_wrong_is_named(words, said, photo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", *(word.format(photo=photo) for word in words)]) == 2
    assert said in capsys.readouterr().err


def test_help_names_every_kind(capsys):
    assert main(["inspect"]) == 0
    text = capsys.readouterr().out
    for kind in ("layers", "filters", "activations", "gradcam", "visualize", "dream", "style"):
        assert f"  {kind}" in text
    assert main(["inspect", "--help=all"]) == 0
    assert "--octave_scale" in capsys.readouterr().out
