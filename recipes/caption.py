"""Caption images, from pretrained weights and from scratch, and compare the two.

python recipes/caption.py                                        # embedded scenes, both arms, two seeds
python recipes/caption.py --data flickr8k/ --backbone timm/resnet50 --init pretrained --image_size 224
python recipes/caption.py --data dataset_coco.json --image_folder coco/ --variant show_attend_tell
torchrun --nproc-per-node 8 recipes/caption.py --data coco/ --devices 8 --variant finetune_cnn
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from visionkit.config import OptimConfig, TransferConfig
from visionkit.errors import InputError
from visionkit.run import RunConfig, launch, setting
from visionkit.task_config import (
    AttentionConfig,
    Decoding,
    RNNConfig,
    SceneConfig,
    SelfCritical,
    SentenceConfig,
    VectorFile,
)


@dataclass
class Config(RunConfig):
    """The settings of `caption.py`."""

    image_folder: str = setting("", "the folder of the images, where it is not beside the captions")
    reduced_jpegs: bool = setting(
        False, "decode large JPEGs at 1/2, 1/4 or 1/8: quicker, slightly other pixels", group="data"
    )
    decoder: Literal["show_attend_tell", "show_and_tell", "fc", "att2in", "up_down"] = setting(
        "show_attend_tell", "show_attend_tell | show_and_tell | fc | att2in | up_down"
    )
    rnn: RNNConfig = setting(RNNConfig(), "recurrent decoder")
    attention: AttentionConfig = setting(AttentionConfig(), "attended map")
    sentences: SentenceConfig = setting(SentenceConfig(), "what is learnt of the captions")
    self_critical: SelfCritical = setting(SelfCritical(start_images=None), "reward with CIDEr-D")
    decoding: Decoding = setting(Decoding(), "beam search in evaluation")
    vectors: VectorFile = setting(VectorFile(), "word vectors")
    crop: float = setting(1.0, "smallest area of random training crops; 1: none", rare=True, above=0, max=1)
    scenes: SceneConfig = setting(SceneConfig(2000, 300), "how many embedded scenes")


def open_splits(config: Config) -> Any:
    """Return the splits that `--data` names."""
    from visionkit.data import OpenOptions, SceneSizes, open_dataset

    sizes = SceneSizes(config.image_size, config.scenes.train_size, config.scenes.val_size)
    options = OpenOptions(images=config.image_folder, scenes=sizes, **config.open_options())
    return open_dataset(config.data, "captioning", options)


def train_geometry(config: Config) -> Any:
    """Return the training geometry; never a mirror, which would make "left of" untrue."""
    from visionkit.data import Compose, DrawCaptions, RandomResizedCrop, Resize

    side, reads = config.image_size, {"reduced_jpegs": config.reduced_jpegs}
    if config.crop < 1:
        return Compose((DrawCaptions(), RandomResizedCrop(side, scale=(config.crop, 1.0), **reads)))
    return Compose((DrawCaptions(), Resize((side, side), **reads)))


def train(config: Config, folder: Path) -> dict[str, Any]:
    """Train one run in `folder` and return its result."""
    from visionkit.data import DataModule, caption_batch, captions_of, classification_eval
    from visionkit.run import CaptionGrounding, CaptionPreview, Preview, fit
    from visionkit.tasks import Captioner, training_frequency
    from visionkit.text import Vocabulary, read_word_vectors

    splits, seed = open_splits(config), config.seeds[0]
    make_data = partial(
        DataModule,
        **config.data_options(),
        train_transform=train_geometry(config),
        eval_transform=classification_eval(config.image_size, reduced_jpegs=config.reduced_jpegs),
    )
    # The words come from the captions that are trained on: a smaller fraction has fewer of them.
    captions = captions_of(make_data(splits, collate=caption_batch).train_reader)
    vocabulary = Vocabulary.build(
        (text for texts in captions for text in texts), min_count=config.sentences.min_count
    )
    notices, facts, vectors = vocabulary.notices(max_length=config.decoding.max_length), {}, None
    if config.vectors.use != "random":
        vectors = read_word_vectors(config.vectors.file, vocabulary, seed=seed)
        notices = (*notices, *vectors.notices())
        facts = {"word_vectors": {**vars(config.vectors), "coverage": vectors.coverage}}
    splits = replace(splits, facts={**splits.facts, **facts}, notices=(*splits.notices, *notices))
    encode = partial(caption_batch, encode=vocabulary.encode, captions_per_image=config.sentences.per_image)
    attention, critic = config.attention, config.self_critical
    rnn = config.rnn if vectors is None else replace(config.rnn, embed=vectors.table.shape[1])
    task = Captioner(
        config.backbone,
        **config.task_options(),
        vocabulary=vocabulary,
        image_size=config.image_size,
        decoder=config.decoder,
        reduction=attention.reduction or None,
        output_stride=attention.output_stride or None,
        positions=attention.positions and config.decoder not in ("show_and_tell", "fc"),
        **vars(rnn),
        attention=rnn.hidden,
        vectors=vectors,
        freeze_vectors=config.vectors.use == "frozen",
        label_smoothing=config.sentences.label_smoothing,
        scheduled_sampling=config.sentences.scheduled_sampling,
        coverage=attention.coverage,
        self_critical=None if critic.start_images is None else replace(critic, seed=critic.seed + seed),
        decoding=config.decoding,
        frequency=training_frequency(captions),
    )
    callbacks = [CaptionGrounding(folder, splits.classes), Preview(folder, CaptionPreview())]
    return fit(config, task, make_data(splits, collate=encode), folder=folder, callbacks=callbacks)


def _coco(config: Config, *, decoder: Any) -> Config:
    """Sizes for photographs: about 113,000 training images of five captions, 10,000 words."""
    config.image_size, config.batch_size, config.epochs = 224, 64, 30
    config.sentences = SentenceConfig(per_image=5, label_smoothing=0.1)
    config.rnn = replace(config.rnn, embed=512, hidden=512, dropout=0.5)
    config.attention = replace(config.attention, positions=False)
    config.decoding = replace(config.decoding, beams=5)
    config.decoder, config.init, config.backbone = decoder, "pretrained", "timm/resnet101"
    config.lr = 5e-4
    config.optim = OptimConfig(schedule="cosine", warmup=0.02, weight_decay=0.0, clip_norm=1.0)
    return config


def show_and_tell(config: Config) -> Config:
    """Variant: the image is the first word, the CNN is frozen.

    COCO, Karpathy's test split: about CIDEr 79 and BLEU-4 26 with a frozen CNN (aaronma2020/caption_zoo);
    the paper's 27.7 (Vinyals et al., CVPR 2015) fine-tuned it in the end. About 8 hours on one current GPU.
    """
    return _coco(config, decoder="show_and_tell")


def show_attend_tell(config: Config) -> Config:
    """Variant: soft attention with a gate and the doubly stochastic term, the CNN is frozen.

    COCO: BLEU-4 24.3 on its own split (Xu et al., ICML 2015, VGG features). Cost as `show_and_tell`, and a
    third more for the attention.
    """
    config = _coco(config, decoder="show_attend_tell")
    config.attention = replace(config.attention, coverage=1.0)
    return config


def finetune_cnn(config: Config) -> Config:
    """Variant: Show and Tell whose CNN joins in after a third of the training.

    COCO, Karpathy's test split: CIDEr 94.7, BLEU-4 30.0, about 16 CIDEr above the frozen CNN
    (aaronma2020/caption_zoo). About three times the cost of `show_and_tell`.
    """
    config = show_and_tell(config)
    config.transfer = TransferConfig(unfreeze_at=((1_130_000, 0),), backbone_lr_scale=0.02)
    return config


def att2in_scst(config: Config) -> Config:
    """Variant: Att2in, then self-critical on CIDEr-D for the last third, at a tenth of the rate.

    COCO, Karpathy's test split: CIDEr 104 to 106 with grid features (FC 104.5, ruotianluo's model zoo; 106.3
    in Rennie et al., CVPR 2017, which fine-tunes no CNN). Self-critical images cost about twice the others.
    """
    config = _coco(config, decoder="att2in")
    config.epochs, config.sentences = 45, replace(config.sentences, scheduled_sampling=0.25)
    config.self_critical = replace(config.self_critical, start_images=3_390_000)
    config.optim = replace(config.optim, schedule="steps", milestones_before_end=(1_695_000,), clip_norm=0.1)
    return config


def words(config: Config) -> Config:
    """Variant: random, pretrained and frozen word vectors, in turn; give `--vectors.file FILE`."""
    config.vectors, config.init = replace(config.vectors, use="all"), "pretrained"
    return config


VARIANTS = (show_and_tell, show_attend_tell, att2in_scst, words, finetune_cnn)
PATHS = ("data", "init", "image_folder")  # settings that name a file or a folder


def check(config: Config) -> None:
    """Refuse word vectors that cannot be read, before anything runs."""
    if config.vectors.use != "random":
        from visionkit.text import check_word_vectors

        if not config.vectors.file:
            raise InputError(f"--vectors.use {config.vectors.use} needs a file. Give --vectors.file FILE.")
        check_word_vectors(config.vectors.file)


def main(config: Config) -> Path:
    """Run every combination that `config` spans, then compare them; return the folder of it all."""
    from visionkit.run import run_recipe

    check(config)
    config.out, vectors = config.out or "runs/caption", config.vectors
    uses = ("random", "pretrained", "frozen") if vectors.use == "all" else (vectors.use,)
    for use in uses:
        out = str(Path(config.out) / use) if len(uses) > 1 else config.out
        one = replace(config, vectors=replace(vectors, use=use), out=out)
        run_recipe(one, train, paths=PATHS)
    return Path(config.out)


if __name__ == "__main__":
    launch(main, Config, variants=VARIANTS, doc=__doc__, prog="caption.py")
