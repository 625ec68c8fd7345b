"""Every task: other channels, networks of fixed size, a backbone of ours given as an object."""

from __future__ import annotations

import warnings

import lightning
import pytest
import torch
from PIL import Image
from torch import nn

from tests.contracts.task_cases import HIPS, WORDS, dots, halves, labelled, squares, told
from visionkit.backbones import Level, create_backbone, create_encoder
from visionkit.backbones.channels import adapt_statistics
from visionkit.backbones.probe import probe_model
from visionkit.config import OptimConfig, TransferConfig
from visionkit.errors import InputError
from visionkit.run.previews.to_pil import to_pil
from visionkit.task_config import DeepPoseConfig, RCNNConfig
from visionkit.tasks import Captioner, Classifier, Detector, Embedder, KeypointRegressor, Segmenter
from visionkit.text.vocabulary import Vocabulary

RCNN = RCNNConfig(head_width=16, anchor_scales=(4.0,), proposals_train=20, proposals_eval=10, box_samples=8)
KINDS = {
    "classifier": (Classifier, {"num_classes": 3}, labelled("single")),
    "embedder": (Embedder, {"num_classes": 3, "dim": 8}, labelled("single")),
    "detector": (Detector, {"num_classes": 3, "rcnn": RCNN, "pyramid_channels": 8}, squares),
    "segmenter": (Segmenter, {"num_classes": 3, "channels": 8}, halves),
    "captioner": (
        Captioner,
        {"vocabulary": Vocabulary(WORDS), "embed": 8, "hidden": 8, "attention": 8},
        told,
    ),
    "regressor": (
        KeypointRegressor,
        {"skeleton": HIPS, "deeppose": DeepPoseConfig(stages=1, cells=1, width=8, channels=8, stage_width=8)},
        dots,
    ),
}


def _with_channels(batch, channels):
    """The same batch with other channels: those of the images in turn."""
    images = batch["images"]
    turned = [image[[i % 3 for i in range(channels)]] for image in images]
    return {**batch, "images": turned if isinstance(images, list) else torch.stack(turned)}


def _reloaded(task, folder):
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.strategy.connect(task)
    trainer.save_checkpoint(folder / "t.ckpt")
    return type(task).load_from_checkpoint(folder / "t.ckpt")


def _same(task, again, batch):
    found, wanted = again.eval().predict_step(batch), task.eval().predict_step(batch)
    assert len(found) == len(wanted) > 0
    assert repr(found) == repr(wanted)


@pytest.mark.parametrize("channels", [1, 4, 13])
@pytest.mark.parametrize("kind", KINDS)
def test_other_channels_go_through_every_task(tmp_path, kind, channels):
    make, options, batches = KINDS[kind]
    task = make(
        "timm/test_resnet",
        init="scratch",
        in_channels=channels,
        transfer=TransferConfig(norm="group"),
        **options,
    )
    batch = _with_channels(batches(0, 2), channels)
    loss = task.train().training_step(batch, 0)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert task.hparams["in_channels"] == channels
    assert len(task.backbone.mean) == channels
    with pytest.raises(InputError, match=rf"\(?{channels}, H, W"):
        task.training_step(batches(0, 2), 0)
    again = _reloaded(task, tmp_path)
    assert again.normalize.mean.shape == (channels, 1, 1)
    _same(task, again, batch)


@pytest.mark.parametrize("channels", [1, 4])
def test_trained_input_layers_are_adapted_as_documented(tmp_path, channels):
    donor = create_encoder("timm/test_resnet", init="scratch").eval()
    torch.save(donor.state_dict(), tmp_path / "w.pt")
    task = Classifier("timm/test_resnet", init=str(tmp_path / "w.pt"), num_classes=3, in_channels=channels)
    old, new = (m.net.model.conv1[0].weight for m in (donor, task.backbone))
    wanted = old.sum(1, keepdim=True) if channels == 1 else old[:, [0, 1, 2, 0]] * 3 / 4
    assert torch.allclose(new, wanted, atol=1e-6)
    assert task.backbone.mean == adapt_statistics(donor.mean, channels)
    assert task.hparams["origin"]["weights"]["file"] == "w.pt"
    assert task.backbone.weights.adapted == f"input layer from 3 to {channels} channels"
    assert str(tmp_path) not in str(dict(task.hparams))


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_of_ones_own(tmp_path, kind):
    make, options, _ = KINDS[kind]
    mean, std = [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]
    task = make("timm/test_resnet", init="scratch", in_channels=4, mean=mean, std=std, **options)
    again = _reloaded(task, tmp_path)
    for each in (task, again):
        assert torch.equal(each.normalize.mean.flatten(), torch.tensor(mean))
        assert torch.equal(each.normalize.std.flatten(), torch.tensor(std))
    for wrong in ({"mean": mean}, {"mean": mean, "std": std[:3]}, {"mean": mean, "std": [0.0] * 4}):
        with pytest.raises(InputError, match=r"mean and std|std to be 4 numbers|std\[0\] to be above 0"):
            make("timm/test_resnet", init="scratch", in_channels=4, **wrong, **options)
    for name, value in {"in_channels": 0, "image_size": (3,)}.items():
        with pytest.raises(InputError, match=name):
            make("timm/test_resnet", init="scratch", **{name: value}, **options)


# takes 224 x 224 only, unless it is built for another size; maps at reduction 16
FIXED = "torchvision/vit_b_16"


@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_fixed_size_are_built_for_the_images(kind):
    make, options, batches = KINDS[kind]
    batch = batches(0, 2)
    side = int(batch["images"][0].shape[-1])
    more = {"detector": {"reductions": (16,)}, "segmenter": {"decoder": "fcn", "output_stride": 16}}.get(
        kind, {}
    )
    with _small_vit():
        task = make(FIXED, init="scratch", image_size=side, **options, **more)
        assert task.hparams["image_size"] == [side, side]
        assert task.backbone.fixed_size == (side, side)
        task.train().training_step(batch, 0)["loss"].backward()
        assert len(task.eval().predict_step(batch)) == 2
        if kind == "segmenter":
            # scored in windows of that size, smaller images padded to it
            found = task.predict_step(
                {"images": [torch.zeros(3, 50, 40, dtype=torch.uint8), batch["images"][0][:, :20]]}
            )
            assert [tuple(each.mask.shape) for each in found] == [(50, 40), (20, 32)]
        if kind == "detector":
            with pytest.raises(InputError, match=r"at most 64 x 64 .*image_size=\(80, 80\)"):
                task.predict_step([torch.zeros(3, 80, 80, dtype=torch.uint8)])
        again = make(
            **{**task.hparams, **({"vocabulary": options["vocabulary"]} if kind == "captioner" else {})}
        )
        again.load_state_dict(task.state_dict())


class _small_vit:
    """vit_b_16 of torchvision with three narrow blocks: what counts here is its fixed size."""

    def __enter__(self):
        from torchvision.models import vision_transformer as module

        self.patch = pytest.MonkeyPatch()
        init = module.VisionTransformer.__init__

        def small(net, image_size, patch_size, num_layers, num_heads, hidden_dim, mlp_dim, **kwargs):
            init(net, image_size, patch_size, 3, 2, 16, 16, **kwargs)

        small.__signature__ = __import__("inspect").signature(init)
        self.patch.setattr(module.VisionTransformer, "__init__", small)
        probe_model.cache_clear()  # what other tests learnt of the network, and what they are to learn of it

    def __exit__(self, *_):
        self.patch.undo()
        probe_model.cache_clear()


def test_flexible_networks_only_remember_the_size():
    plain = Classifier("timm/test_vit", init="scratch", num_classes=3)
    sized = Classifier("timm/test_vit", init="scratch", num_classes=3, image_size=96)
    shapes = [{k: v.shape for k, v in task.backbone.state_dict().items()} for task in (plain, sized)]
    assert shapes[0] == shapes[1]
    assert (sized.hparams["image_size"], plain.hparams["image_size"]) == ([96, 96], None)


def test_another_size_than_trained_on_is_said_once():
    task = Classifier("timm/test_resnet", init="scratch", num_classes=3, image_size=(32, 48))
    right, wrong = torch.rand(1, 3, 32, 48), torch.rand(1, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task.predict_step(right)
    with pytest.warns(UserWarning, match="These images are 64 x 64.*trained on 32 x 48"):
        task.predict_step(wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task.predict_step(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_a_backbone_of_ours_given_as_an_object_reloads_by_name(tmp_path, kind):
    make, options, batches = KINDS[kind]
    create = create_encoder if kind in ("classifier", "embedder") else create_backbone
    given = create("timm/test_resnet", init="scratch", in_channels=4)
    transfer = TransferConfig(norm="batch", freeze_through=8, layer_decay=0.5)
    task = make(given, init="pretrained", transfer=transfer, optim=OptimConfig(), **options)
    frozen = {n for n, p in task.backbone.named_parameters() if not p.requires_grad}
    assert frozen == {n for s in task.backbone.stages() if s.reduction <= 8 for n in s.parameters}
    batch = _with_channels(batches(0, 2), 4)
    again = _reloaded(task, tmp_path)
    assert again.backbone.weights == task.backbone.weights
    assert {n for n, p in again.backbone.named_parameters() if not p.requires_grad} == frozen
    _same(task, again, batch)


class _Own(nn.Module):
    levels = (Level(4, 2), Level(8, 4))

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(5, 4, 3, 2, 1), nn.Conv2d(4, 8, 3, 2, 1)
        self.stages = nn.ModuleList()  # a name that networks like to use: no method, so it is not asked

    def forward(self, images):
        one = self.one(images)
        return one, self.two(one)


def test_a_network_of_ones_own_of_other_channels():
    task = Classifier(_Own(), init="pretrained", num_classes=3, in_channels=5)
    assert task(torch.rand(2, 5, 16, 16)).shape == (2, 3)
    with pytest.raises(InputError, match="0 or 'all'"):
        Classifier(
            _Own(), init="pretrained", num_classes=3, in_channels=5, transfer=TransferConfig(freeze_through=2)
        )

    class Knows(_Own):
        mean, std = (0.0,) * 5, (1.0,) * 5

        def __init__(self) -> None:
            super().__init__()
            del self.stages

        def stages(self):
            return [(2, ["one.weight", "one.bias"]), (4, ["two.weight", "two.bias"])]

        def freeze_through(self, reduction):
            self.one.requires_grad_(reduction not in (2, 4))

    knows = Classifier(Knows(), init="pretrained", num_classes=3, transfer=TransferConfig(freeze_through=2))
    assert [n for n, p in knows.backbone.named_parameters() if not p.requires_grad] == [
        "net.one.weight", "net.one.bias"
    ]  # fmt: skip
    assert [s.parameters[0] for s in knows.backbone.stages()] == ["net.one.weight", "net.two.weight"]
    with pytest.raises(InputError, match="in_channels"):
        Classifier(Knows(), init="pretrained", num_classes=3, in_channels=4)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_previews_show_images_of_any_channels(channels):
    image = to_pil(torch.randint(0, 256, (channels, 20, 30), dtype=torch.uint8), side=30)
    assert isinstance(image, Image.Image)
    assert (image.mode, image.size) == ("RGB", (30, 20))
