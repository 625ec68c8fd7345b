"""Attribution: equal to captum's, right where the answer is known, and of every task."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.interpret.subjects import of_layers, of_task, textured
from visionkit.errors import InputError
from visionkit.interpret import (
    explain,
    grad_cam,
    integrated_gradients,
    occlusion,
    open_subject,
    overlay,
    pixel_curves,
    saliency,
    top_images,
    whole_network,
)
from visionkit.interpret.attribution.scores import box_score
from visionkit.tasks import Classifier


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


class First(nn.Module):
    """One logit of several."""

    def __init__(self, of):
        super().__init__()
        self.of = of

    def forward(self, maps):
        return self.of(maps)[:, :1]


@pytest.fixture(scope="module")
def scored():
    """A network with four classes, and the score of class 1."""
    subject = textured()
    torch.manual_seed(2)
    network = nn.Sequential(*subject.network, Mean(), nn.Linear(24, 4)).eval()
    return network, lambda images: network(images)[:, 1]


def test_it_is_equal_to_captum_s(scored):
    from captum import attr

    network, score = scored
    inputs = torch.randn(2, 3, 32, 32)
    close = {"rtol": 1e-5, "atol": 1e-5}
    theirs = attr.Saliency(network).attribute(inputs, target=1)
    torch.testing.assert_close(saliency(score, inputs), theirs.amax(1), **close)
    baseline = torch.full_like(inputs, 0.3)
    options = {"target": 1, "n_steps": 20, "method": "riemann_trapezoid", "baselines": baseline}
    theirs = attr.IntegratedGradients(network).attribute(inputs, **options)
    ours = integrated_gradients(score, inputs, baseline=baseline, steps=20)
    torch.testing.assert_close(ours * 19 / 20, theirs, **close)  # captum's steps sum to 19 / 20
    cam = attr.LayerGradCam(network, network[7]).attribute(inputs, target=1, relu_attributions=True)
    theirs = attr.LayerAttribution.interpolate(cam, (32, 32), interpolate_mode="bilinear")
    torch.testing.assert_close(grad_cam(network, score, inputs, layer="7"), theirs[:, 0].detach(), **close)
    options = {"sliding_window_shapes": (3, 8, 8), "strides": (3, 4, 4), "target": 1}
    theirs = attr.Occlusion(network).attribute(inputs, **options)
    torch.testing.assert_close(occlusion(score, inputs, side=8), theirs[:, 0], **close)


def test_integrated_gradients_sum_to_the_difference(scored):
    _, score = scored
    inputs = torch.randn(2, 3, 32, 32)
    total = integrated_gradients(score, inputs, steps=200).sum((1, 2, 3))
    expected = (score(inputs) - score(torch.zeros_like(inputs))).detach()
    torch.testing.assert_close(total, expected, rtol=0.02, atol=1e-3)


def test_a_gradient_that_is_not_finite_is_refused():
    inputs = torch.rand(1, 3, 4, 4)
    with pytest.raises(InputError, match=r"not finite.*Give another baseline"):
        integrated_gradients(lambda x: x.abs().sqrt().sum((1, 2, 3)), inputs)
    baseline = inputs + 1
    assert torch.isfinite(
        integrated_gradients(lambda x: x.sqrt().sum((1, 2, 3)), inputs, baseline=baseline)
    ).all()


@pytest.mark.parametrize("method", ["gradcam", "saliency", "integrated", "occlusion"])
def test_heat_lies_where_the_score_comes_from(method):
    """Class 1 is what is bright in the upper left quarter."""
    corner = torch.zeros(1, 1, 8, 8)
    corner[..., :4, :4] = 1 / 16

    class Corner(nn.Module):
        def forward(self, x):
            value = (x.mean(1, keepdim=True) * corner).sum((1, 2, 3))
            return torch.stack([1 - value, value, 0 * value], 1)

    subject = of_layers(nn.AvgPool2d(4), nn.ReLU(), head=Corner())
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(3))
    if method == "gradcam":  # a weight for each channel tells no positions apart: the image does
        image[:, 16:] = image[:, :, 16:] = 0.02
    (each,) = explain(subject, image, method=method, target=1, layer="1" if method == "gradcam" else "")
    assert each.name == "class 1"
    assert each.heat.shape == (32, 32)
    inside = each.heat.clamp_min(0)[:16, :16].sum() / each.heat.clamp_min(0).sum()
    assert inside > 0.8
    assert overlay(image, each.heat).size == (32, 32)


def test_a_right_order_of_pixels_deletes_sooner_and_inserts_sooner():
    patch = torch.zeros(32, 32)
    patch[8:16, 8:16] = 1

    def probability(images):
        return (images.mean(1) * patch).sum((1, 2)) / patch.sum()

    inputs = torch.ones(1, 3, 32, 32)
    right = pixel_curves(probability, inputs, patch)
    wrong = pixel_curves(probability, inputs, -patch)
    assert right.deletion[0] == right.insertion[-1] == 1
    assert right.deletion[-1] == 0
    assert right.deletion_area < 0.1 < 0.9 < wrong.deletion_area
    # a constant image is its own blur; with contrast the insertion tells them apart
    inputs = torch.zeros(1, 3, 32, 32)
    inputs[..., 8:16, 8:16] = 1
    right, wrong = (pixel_curves(probability, inputs, sign * patch, sigma=9) for sign in (1, -1))
    assert right.insertion_area > wrong.insertion_area + 0.3
    with pytest.raises(InputError, match="of one image of 32x32"):
        pixel_curves(probability, inputs, patch[:8])


@pytest.mark.parametrize(
    ("name", "target", "count"),
    [
        ("classifier, single", None, 1), ("classifier, multi", 2, 1), ("segmenter", None, 1),
        ("detector", None, 2), ("captioner", None, 1),
        ("detector, retinanet", None, 2), ("detector, fcos", None, 2),
    ],
)  # fmt: skip
def test_every_task_is_explained(name, target, count):
    subject = of_task(name)
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    explained = explain(subject, image, target=target, limit=2, min_score=0.0, curves=name == "segmenter")
    assert len(explained) >= count
    for each in explained:
        assert each.heat.shape == (64, 64)
        assert each.heat.min() >= 0
        assert torch.isfinite(each.heat).all()
        assert 0 <= each.probability <= 1
        assert each.name
    if name == "segmenter":
        assert len(explained[0].curves.deletion) == 21
        # the probability of an area is that of its class where it was predicted
        assert explained[0].curves.deletion[0] == pytest.approx(explained[0].probability, abs=1e-6)
    assert len(explained) <= 2
    assert all(each.total >= len(explained) for each in explained)
    if name.startswith("detector"):
        label = explained[0].name.removeprefix("class ")
        of_class = explain(subject, image, target=label, limit=2, min_score=0.0)
        assert {each.name for each in of_class} == {explained[0].name}
        with pytest.raises(InputError, match=f"No box of 'class {label}' has a score of 1"):
            explain(subject, image, target=label, min_score=1.0)
    if name == "detector":
        # a box's heat follows its region: different boxes have different maps
        assert (explained[0].heat - explained[1].heat).abs().max() > 0


def test_a_word_s_score_is_what_the_decoder_gives_it():
    subject = of_task("captioner")
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    explained = explain(subject, image, limit=99)
    predicted = subject.task.predict_step(image[None])[0]
    first = explain(subject, image, limit=2)
    assert [each.name for each in first] == [each.name for each in explained[:2]]
    assert {each.total for each in first} == {len(explained)} != {2}  # what a limit leaves out is counted
    assert [each.name for each in explained] == list(predicted.tokens)
    product = torch.tensor([each.probability for each in explained]).log().sum()
    assert float(product) >= predicted.log_prob - 1e-4  # the end of the sentence is not among them


@pytest.mark.parametrize("name", ["detector, retinanet", "detector, fcos"])
def test_a_box_of_a_one_stage_detector_has_the_score_that_it_was_found_with(name):
    subject = of_task(name)
    inputs = subject.inputs(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        found = subject.task.model(inputs, [(64, 64)])[0][0]
    for box, label, score in zip(found["boxes"][:3], found["labels"], found["scores"]):
        explained = box_score(subject, inputs, box=box, label=int(label))
        assert float(explained.probability(inputs)) == pytest.approx(float(score), rel=1e-5)


def test_one_class_against_the_background_has_two_areas():
    subject = of_task("segmenter")
    subject.task.decoder = First(subject.task.decoder)
    subject.class_names = ("background", "cell")
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        likely = subject.task.decoder(subject.network(subject.inputs(image)))[0, 0].sigmoid()
    explained = {each.name: each for each in explain(subject, image)}
    expected = {"background": 1 - likely[likely < 0.5], "cell": likely[likely > 0.5]}
    assert explained.keys() == {name for name, values in expected.items() if len(values)}
    for name, each in explained.items():
        assert each.probability == pytest.approx(float(expected[name].mean()), rel=1e-5)


def test_names_that_are_numbers_and_what_has_no_class():
    subject, image = of_task("classifier, single"), torch.rand(3, 64, 64)
    subject.class_names = ("0", "10", "2")
    assert explain(subject, image, target="2")[0].name == "2"
    assert explain(subject, image, target="1")[0].name == "10", "no name: the index"
    with pytest.raises(InputError, match="is a regression, which has no classes"):
        explain(of_task("classifier, regression"), image)
    with pytest.raises(InputError, match="words, and no classes"):
        explain(of_task("captioner"), image, target="dog")


def test_a_run_is_opened_with_the_size_of_its_images(tmp_path):
    task = Classifier("timm/test_resnet", init="scratch", num_classes=2, image_size=48)
    task.save_pretrained(tmp_path / "task")
    assert open_subject(tmp_path / "task").image_size == (48, 48)
    task.model_facts = {"preprocess": {"name": "CenterCrop", "size": 80, "fraction": 1.0}}
    task.save_pretrained(tmp_path / "other")
    assert open_subject(tmp_path / "other").image_size == (80, 80)
    network, size, channels = whole_network(tmp_path / "other")
    assert (size, channels) == ((80, 80), 3)
    assert network(torch.rand(1, 3, 80, 80)).shape == (1, 2)


def test_what_is_not_there_is_refused_with_the_nearest():
    subject, image = of_task("classifier, single"), torch.rand(3, 64, 64)
    subject.class_names = ("cat", "dog", "bird")
    for arguments, words in (
        ({"target": "dgo"}, "Unknown class 'dgo'. Did you mean 'dog'"),
        ({"target": 3}, "the class to be 0 to 2"),
        ({"method": "grad_cam"}, "Unknown method 'grad_cam'. Did you mean 'gradcam'"),
        ({"layer": "layer44"}, r"Unknown layer 'layer44'. Did you mean 'layer4'"),
        ({"layer": "3"}, r"no maps of reduction 3: it has .*4 \("),
        ({"layer": "bn2"}, r"layers end with 'bn2'. Take a longer name"),
    ):
        with pytest.raises(InputError, match=words):
            explain(subject, image, **arguments)
    with pytest.raises(InputError, match="Embedder has no linear classifier"):
        explain(of_task("embedder"), image)
    with pytest.raises(InputError, match="No box has a score of 1"):
        explain(of_task("detector"), image, min_score=1.0)


def test_the_images_that_excite_a_channel_are_streamed():
    subject = of_layers(nn.AvgPool2d(8), nn.Conv2d(3, 2, 1))
    subject.network[1].weight.data = torch.eye(3)[:2, :, None, None]  # channel 1 is green
    subject.network[1].bias.data.zero_()
    generator = torch.Generator().manual_seed(0)

    def images():
        for number in range(20):
            image = torch.rand(3, 32, 32, generator=generator) * 0.2
            image[1, 8:16, 24:32] = number / 19
            yield f"image {number}", image

    best = top_images(subject, images(), layer="1", channel=1, count=3)
    assert [each.id for each in best] == ["image 19", "image 18", "image 17"]
    assert best[0].value == pytest.approx(1.0)
    assert best[0].position == (0.375, 0.875)
    with pytest.raises(InputError, match="channel to be 0 to 1"):
        top_images(subject, images(), layer="1", channel=2)
    with pytest.raises(InputError, match="at least one image"):
        top_images(subject, [], layer="1", channel=0)
