"""Caption images, from pretrained weights and from scratch, and say what the weights were worth.

python recipes/caption.py                                        # embedded scenes, both arms, two seeds
python recipes/caption.py --data flickr8k/ --backbone timm/resnet50 --init pretrained --image_size 224
python recipes/caption.py --data dataset_coco.json --image_folder coco/ --variant show_attend_tell
torchrun --nproc-per-node 8 recipes/caption.py --data coco/ --devices 8 --variant finetune_cnn
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from visionkit.config import OptimConfig, TransferConfig
from visionkit.run import RunConfig, launch, setting

if TYPE_CHECKING:
    from visionkit.data import Splits


@dataclass
class Config(RunConfig):
    """What `caption.py` can be told."""

    image_folder: str = setting("", "the folder of the images, where it is not beside the captions")
    decoder: Literal["show_attend_tell", "show_and_tell", "fc", "att2in", "up_down"] = setting(
        "show_attend_tell", "show_attend_tell | show_and_tell | fc | att2in | up_down"
    )
    cell: Literal["lstm", "gru"] = setting("lstm", "lstm | gru", rare=True)
    reduction: int = setting(16, "input pixels per cell of the attended map; 0: the coarsest", min=0)
    output_stride: int = setting(
        0, "dilate the backbone to this reduction for attention; 0: as it is", rare=True, min=0
    )
    positions: bool = setting(True, "cells of the map also say where they lie (not in the papers)", rare=True)
    embed: int = setting(128, "width of embedded words", rare=True, min=1)
    hidden: int = setting(256, "width of the decoder's state", min=1)
    dropout: float = setting(0.3, "share of embedded words and outputs dropped", min=0, below=1)
    captions: int = setting(4, "captions taught for each image each time it is seen", min=1)
    least: int = setting(5, "how often a word must occur in the training captions", rare=True, min=1)
    label_smoothing: float = setting(
        0.0, "share of each word's target spread over all words", rare=True, min=0, below=1
    )
    scheduled_sampling: float = setting(
        0.0, "share of own words as input at the end of training", min=0, max=1
    )
    coverage: float = setting(0.0, "weight of the term that asks to look everywhere once", rare=True, min=0)
    critic_from: int = setting(0, "images after which CIDEr-D is rewarded (self-critical); 0: never", min=0)
    baseline: Literal["greedy", "mean", "beam"] = setting(
        "mean", "of the reward: greedy | mean | beam", rare=True
    )
    draws: int = setting(5, "sentences drawn for each image, self-critical", rare=True, min=1)
    beams: int = setting(3, "open sentences of the beam search in evaluation", min=1)
    longest: int = setting(20, "most words of a caption", rare=True, min=1)
    vectors: str = setting(
        "", "file of word vectors: GloVe, word2vec (text or binary) or fastText's .vec, compressed or not"
    )
    words: Literal["random", "pretrained", "frozen", "all"] = setting(
        "random", "random | pretrained | frozen word vectors, or all, one after another"
    )
    crop: float = setting(
        1.0, "least area of a random crop of training images; 1: whole images", rare=True, above=0, max=1
    )
    train_size: int = setting(2000, "scenes only: images in the training split", rare=True, min=2)
    val_size: int = setting(300, "scenes only: images in the validation split", rare=True, min=1)


def main(config: Config) -> Path:
    """Run every arm, seed and fraction of `config`, then compare them; return the folder of it all."""
    from visionkit.errors import InputError
    from visionkit.run import run_recipe

    config.out = config.out or "runs/caption"
    if config.words != "random" and not config.vectors:
        raise InputError(f"--words {config.words} needs a file of word vectors. Give --vectors FILE.")
    if config.words != "random":
        from visionkit.text import check_word_vectors

        check_word_vectors(config.vectors)  # before anything runs
    if config.words != "all":
        return run_recipe(config, train, paths=("data", "init", "image_folder"))
    for words in ("random", "pretrained", "frozen"):
        one = dataclasses.replace(config, words=words, out=str(Path(config.out) / words))
        run_recipe(one, train, paths=("data", "init", "image_folder"))
    return Path(config.out)


def train(config: Config, folder: Path) -> dict[str, Any]:
    """Train one run in `folder` and return its result."""
    from visionkit.data import DataModule, caption_batch, captions_of, classification_eval
    from visionkit.run import CaptionFacts, CaptionPreview, Preview, fit
    from visionkit.tasks import Captioner, Decoding, SelfCritical, training_frequency
    from visionkit.text import Vocabulary, read_word_vectors

    splits = open_splits(config)
    make_data = partial(
        DataModule,
        batch_size=config.batch_size,
        train_transform=train_geometry(config),
        eval_transform=classification_eval(config.image_size),
        seed=config.seeds[0],
        fraction=config.fractions[0],
        workers=config.workers,
    )
    # The words come from the captions that are trained on: a smaller fraction has fewer of them.
    captions = captions_of(make_data(splits, collate=caption_batch).train_reader)
    vocabulary = Vocabulary.build((text for texts in captions for text in texts), min_count=config.least)
    splits = dataclasses.replace(
        splits, notices=(*splits.notices, *vocabulary.notices(max_length=config.longest))
    )
    vectors = None
    if config.words != "random":
        vectors = read_word_vectors(config.vectors, vocabulary, seed=config.seeds[0])
        found = {"file": config.vectors, "coverage": vectors.coverage, "use": config.words}
        splits = dataclasses.replace(
            splits,
            facts={**splits.facts, "word_vectors": found},
            notices=(*splits.notices, *vectors.notices()),
        )
    data = make_data(
        splits, collate=partial(caption_batch, encode=vocabulary.encode, captions_per_image=config.captions)
    )
    critic = SelfCritical(config.critic_from, config.baseline, config.draws, seed=config.seeds[0])
    task = Captioner(
        config.backbone,
        init=config.init,
        vocabulary=vocabulary,
        image_size=config.image_size,
        decoder=config.decoder,
        reduction=config.reduction or None,
        output_stride=config.output_stride or None,
        positions=config.positions and config.decoder not in ("show_and_tell", "fc"),
        cell=config.cell,
        embed=config.embed if vectors is None else vectors.table.shape[1],
        hidden=config.hidden,
        attention=config.hidden,
        dropout=config.dropout,
        vectors=vectors,
        freeze_vectors=config.words == "frozen",
        transfer=config.transfer,
        optim=config.optim,
        lr=config.lr,
        label_smoothing=config.label_smoothing,
        scheduled_sampling=config.scheduled_sampling,
        coverage=config.coverage,
        self_critical=critic if config.critic_from else None,
        decoding=Decoding(beams=config.beams, longest=config.longest),
        frequency=training_frequency(captions),
    )
    callbacks = [CaptionFacts(folder, splits.classes), Preview(folder, CaptionPreview())]
    return fit(config, task, data, folder=folder, callbacks=callbacks)


def open_splits(config: Config) -> Splits:
    """Return the splits that `--data` names."""
    from visionkit.data import OpenOptions, SceneSizes, open_dataset

    sizes = SceneSizes(config.image_size, config.train_size, config.val_size)
    options = OpenOptions(images=config.image_folder, max_dropped=config.max_dropped, scenes=sizes)
    return open_dataset(config.data, "captioning", options)


def train_geometry(config: Config) -> Any:
    """Return the training geometry; never a mirror, which would make "left of" untrue."""
    from visionkit.data import Compose, DrawCaptions, RandomResizedCrop, Resize

    if config.crop < 1:
        return Compose((DrawCaptions(), RandomResizedCrop(config.image_size, scale=(config.crop, 1.0))))
    return Compose((DrawCaptions(), Resize((config.image_size, config.image_size))))


def _coco(config: Config) -> Config:
    """Sizes for photographs: about 113,000 training images of five captions, 10,000 words."""
    config.image_size, config.batch_size, config.captions, config.epochs = 224, 64, 5, 30
    config.embed = config.hidden = 512
    config.dropout, config.label_smoothing, config.beams, config.lr = 0.5, 0.1, 5, 5e-4
    config.backbone, config.positions = "timm/resnet101", False
    config.optim = OptimConfig(schedule="cosine", warmup=0.02, weight_decay=0.0, clip_norm=1.0)
    return config


def show_and_tell(config: Config) -> Config:
    """Variant: the image is the first word, the CNN is frozen.

    COCO, Karpathy's test split: about CIDEr 79 and BLEU-4 26 with a frozen CNN (aaronma2020/caption_zoo);
    BLEU-4 27.7 is the paper's (Vinyals et al., CVPR 2015), whose CNN was fine-tuned in the end. About 8 hours
    on one current GPU at 224 pixels, most of it the frozen CNN.
    """
    config = _coco(config)
    config.decoder, config.init = "show_and_tell", "pretrained"
    return config


def show_attend_tell(config: Config) -> Config:
    """Variant: soft attention with a gate and the doubly stochastic term, the CNN is frozen.

    COCO: BLEU-4 24.3 on its own split (Xu et al., ICML 2015, VGG features). Cost as `show_and_tell`, and a
    third more for the attention.
    """
    config = _coco(config)
    config.decoder, config.coverage, config.init = "show_attend_tell", 1.0, "pretrained"
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
    in Rennie et al., CVPR 2017, which fine-tunes no CNN). Self-critical images cost about twice taught ones.
    """
    config = _coco(config)
    config.decoder, config.init, config.epochs, config.scheduled_sampling = "att2in", "pretrained", 45, 0.25
    config.critic_from = 3_390_000
    config.optim = OptimConfig(
        schedule="steps", tails=(1_695_000,), gamma=0.1, warmup=0.02, weight_decay=0.0, clip_norm=0.1
    )
    return config


def words(config: Config) -> Config:
    """Variant: random, pretrained, and pretrained-and-frozen word vectors, one after another.

    Give `--vectors glove.6B.300d.txt`. The coverage of the vocabulary is in each result.
    """
    config.words, config.init = "all", "pretrained"
    return config


VARIANTS = (show_and_tell, show_attend_tell, att2in_scst, words, finetune_cnn)

if __name__ == "__main__":
    launch(main, Config, variants=VARIANTS, doc=__doc__, prog="caption.py")
