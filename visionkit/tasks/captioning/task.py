"""Images to sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.compat import trainer_of
from visionkit.config import OptimConfig, TransferConfig
from visionkit.metrics import CaptionScores, RunningSums
from visionkit.metrics.cider import DocumentFrequency
from visionkit.nn.captioning.attention import doubly_stochastic
from visionkit.nn.captioning.decoder import CaptionDecoder, TeacherForcingOutput
from visionkit.nn.captioning.decoding import Decoded
from visionkit.nn.captioning.grid import FeatureGrid
from visionkit.nn.captioning.prepacked import PackedCopy
from visionkit.nn.captioning.recurrent import CellKind
from visionkit.optim import images_per_step, total_images
from visionkit.rng import seeded_from_run
from visionkit.task_config import Decoding, SelfCritical
from visionkit.tasks.backbones import BackboneBuilder
from visionkit.tasks.batch_norm import explained
from visionkit.tasks.batch_parts import is_empty, read_images
from visionkit.tasks.captioning.batch import CaptionParts, read_captions
from visionkit.tasks.captioning.generate import caption_cross_entropy, generate, special_tokens_of
from visionkit.tasks.captioning.prediction import CaptionPrediction, caption_predictions
from visionkit.tasks.captioning.self_critical import make_critic, require_critic
from visionkit.tasks.captioning.settings import check_settings
from visionkit.tasks.extra_metrics import Metrics
from visionkit.tasks.fine_tune import take_heads
from visionkit.tasks.hooks import TaskHooks
from visionkit.tasks.saved_settings import config_from
from visionkit.text.tokenize import tokenize
from visionkit.text.vocabulary import Vocabulary
from visionkit.text.word_vectors import WordVectors
from visionkit.transfer import apply_transfer
from visionkit.types import Init

__all__ = ["Captioner"]

_TRANSFER = TransferConfig()
_OPTIM = OptimConfig()
_DECODING = Decoding()
_ATTENDS = ("show_attend_tell", "att2in", "up_down")


class Captioner(TaskHooks):
    """Describe an image in a sentence.

    A batch is a dict with `images` `(B, 3, H, W)` uint8 or float in [0, 1], `tokens` `(B, L)` or `(B, K, L)`
    int64 (`<bos> words <eos> <pad>`; K sentences of an image that is encoded once), `references` (every
    sentence of each image, text) and, if images have names, `ids` of any kind; or a pair
    `(images, tokens)`.

    Logged: `train/loss` (and `train/reward`, once self-critical) every `log_every_n_steps` updates and at the
    end of an epoch; for `val` and `test`: `loss` (cross-entropy a word), `bleu1` .. `bleu4`, `rouge_l`,
    `cider` (document frequencies of the references, as in published tables) and `cider_d` (of `frequency`).

    Args:
        backbone: A name (`visionkit.backbones.list_backbones`), or your own module with `levels` (for
            decoders that attend) or `dim`.
        init: "pretrained", "scratch", other pretrained weights of the backbone by name
            ("timm/resnet50.tv_in1k"), or a path to weights (a file, a run, a published folder; a trained task
            of the same classes gives its head too); for your own module, which of the two its weights are.
        vocabulary: The words, from the training captions only.
        decoder: "show_attend_tell", "att2in" and "up_down" attend to a grid; "show_and_tell" and "fc" take
            the pooled vector.
        reduction: Which map is the grid, for decoders that attend; the coarsest if not given.
        output_stride: Coarsest reduction, by dilation: deep features on a finer grid.
        positions: Whether each cell of the grid also holds its position (not in the papers; for "left of").
        cell: "lstm" or "gru".
        embed: Width of embedded words.
        hidden: Width of the state.
        attention: Hidden size of the attention.
        dropout: Fraction of embedded words and outputs dropped while training.
        vectors: Word vectors to begin with (`visionkit.text.word_vectors.read_word_vectors`).
        freeze_vectors: Keep them as they are.
        transfer: Initialisation and freezing.
        optim: Optimiser settings.
        lr: Peak learning rate of everything but the backbone.
        label_smoothing: Fraction of each word's target spread over all words.
        scheduled_sampling: Fraction of input words that are drawn from the model at the end of training; it
            rises evenly from 0 (Bengio et al. 2015). Draws follow torch's seed.
        coverage: Weight of the term by which attention covers every cell once (Xu et al. 2015).
        self_critical: If given: learn from sampled sentences, from a number of images on.
        decoding: Beam search and lengths.
        frequency: Document frequencies of the training captions (`training_frequency` makes them), for
            `cider_d` and self-critical training. They are data: checkpoints do not hold them.
        in_channels: Channels of the images; trained input layers are adapted.
        image_size: Side, or `(H, W)`, of the images: a network of fixed size is built for it.
        mean: Mean per channel of images in [0, 1], in place of the backbone's.
        std: Deviation per channel, likewise.
        backbone_options: Further arguments of timm's or torchvision's function, such as `drop_path_rate`.
        metrics: Metrics of your own (a `torchmetrics.MetricCollection`, or metrics by name), logged as
            `val/NAME` and `test/NAME` beside the task's; they get captions, and lists of
            references. No checkpoint holds them.
        origin: Where the weights came from, as a checkpoint remembers it; leave it out.

    Raises:
        InputError: Settings that do not fit together, or a backbone that cannot serve the decoder.
    """

    monitor = ("val/cider", "max")
    truth = "tokens"
    scored = ("scores", "eval_sums")
    eval_sums: RunningSums
    scores: CaptionScores

    def __init__(
        self,
        backbone: str | nn.Module | Mapping[str, Any],
        *,
        init: Init,
        vocabulary: Vocabulary | dict[str, Any],
        decoder: str = "show_attend_tell",
        reduction: int | None = None,
        output_stride: int | None = None,
        positions: bool = False,
        cell: CellKind = "lstm",
        embed: int = 512,
        hidden: int = 512,
        attention: int = 512,
        dropout: float = 0.5,
        vectors: WordVectors | Tensor | None = None,
        freeze_vectors: bool = False,
        transfer: TransferConfig = _TRANSFER,
        optim: OptimConfig = _OPTIM,
        lr: float = 5e-4,
        label_smoothing: float = 0.0,
        scheduled_sampling: float = 0.0,
        coverage: float = 0.0,
        self_critical: SelfCritical | dict[str, Any] | None = None,
        decoding: Decoding | dict[str, Any] = _DECODING,
        frequency: DocumentFrequency | None = None,
        in_channels: int = 3,
        image_size: int | Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        metrics: Metrics | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        arguments = dict(locals())
        super().__init__()
        words = vocabulary if isinstance(vocabulary, Vocabulary) else Vocabulary.from_dict(vocabulary)
        self.vocabulary, self.lr = words, lr
        self.optim = config_from(OptimConfig, optim, name="optim")
        self.decoding = config_from(Decoding, decoding, name="decoding")
        self.self_critical = (
            None if self_critical is None else config_from(SelfCritical, self_critical, name="self_critical")
        )
        check_settings(
            self.decoding, self.self_critical, label_smoothing=label_smoothing,
            scheduled_sampling=scheduled_sampling, coverage=coverage, lr=lr,
        )  # fmt: skip
        builder = BackboneBuilder.of("captioning", arguments)
        attends = decoder in _ATTENDS
        maps = builder.caption_maps(reduction, output_stride=output_stride) if attends else builder.encoder()
        self._take_backbone(builder, maps)
        self.grid = FeatureGrid(self.backbone, attends=attends, reduction=reduction, positions=positions)
        table = vectors.table if isinstance(vectors, WordVectors) else vectors
        if table is None and freeze_vectors and origin:
            table = torch.zeros(len(words), embed)  # the checkpoint fills it
        with seeded_from_run():  # not from what the backbone left of the seed: the arms begin alike
            self.decoder = CaptionDecoder(
                decoder, channels=self.grid.channels, words=len(words), embed=embed, hidden=hidden,
                attention=attention, cell=cell, dropout=dropout, vectors=table, freeze_vectors=freeze_vectors,
            )  # fmt: skip
        apply_transfer(self.backbone, builder.init, self.transfer)
        self.label_smoothing, self.scheduled_sampling = label_smoothing, scheduled_sampling
        self.coverage = coverage if attends else 0.0
        self.special_tokens = special_tokens_of(words, bad_endings=self.decoding.bad_endings)
        self.frequency = frequency
        self.critic = make_critic(words, frequency, self.self_critical, max_length=self.decoding.max_length)
        self.loss_terms = {}
        self.train_sums = RunningSums(("loss", "count", "reward", "rewarded"))
        self.scores, self.eval_sums = self._make_scores().values()
        self._take_metrics(metrics)
        self._packed = PackedCopy()
        self._images_per_step, self._total_images = 0, 0.0
        del arguments["vectors"], arguments["frequency"]
        configs = {"optim": self.optim, "decoding": self.decoding, "self_critical": self.self_critical}
        saved = builder.saved(self.backbone) | configs
        self._save_settings(arguments, vocabulary=words.to_dict(), **saved)
        self.init_note = take_heads(self, init)

    def forward(self, images: Any, tokens: Tensor) -> TeacherForcingOutput:
        """Predict each word of `tokens` `(B * K, L)` from the true words before it (teacher forcing).

        Args:
            images: `(B, 3, H, W)` uint8 or float in [0, 1]; or one image, or a list of images of one size
                (`visionkit.tasks.image_inputs`).
            tokens: Ids of words, from `<bos>` to `<eos>`, padded.
        """
        return self._teacher_forcing(self._encode(images)[0], tokens)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the backbone in place, with the arguments of `torch.compile`."""
        self.backbone.compile(*args, **kwargs)

    @explained
    def training_step(self, batch: Any, batch_index: int) -> dict[str, Tensor]:
        """Return the loss of a batch, with its terms."""
        parts = read_captions(batch, self.vocabulary)
        seen = self._images_seen()
        grid, _ = self._encode(parts.images)
        if self.self_critical is not None and self.self_critical.begun(seen):
            terms = {"reward": self._self_critical_loss(grid, parts)}
        else:
            total = self._total_images
            fraction = self.scheduled_sampling * min(1.0, seen / total) if total else 0.0
            output = self._teacher_forcing(grid, parts.tokens, sampled=fraction)
            terms = {"words": caption_cross_entropy(output, smoothing=self.label_smoothing)}
            if self.coverage and output.attention is not None:
                terms["coverage"] = self.coverage * doubly_stochastic(output.attention.float(), output.valid)
        loss = self._sum_loss(terms)
        self._log_training(loss=loss.detach() * len(parts.images), count=len(parts.images))
        return {**self.loss_terms, "loss": loss}

    def _evaluate(self, batch: Any) -> list[CaptionPrediction] | None:
        if is_empty(batch):
            return None
        parts = read_captions(batch, self.vocabulary)
        grid, shape = self._encode(parts.images)
        output = self._teacher_forcing(grid, parts.tokens)
        self.eval_sums.add(
            loss=caption_cross_entropy(output) * len(output.targets), count=len(output.targets)
        )
        decoded = self._generate(grid)
        predictions = caption_predictions(decoded, self.vocabulary, grid=shape, ids=parts.ids)
        references = [[tokenize(text) for text in captions] for captions in parts.references]
        self.scores.update([item.tokens for item in predictions], references, parts.ids or None)
        self.extra.update([item.caption for item in predictions], [list(r) for r in parts.references])
        return predictions

    def predict_step(
        self, batch: Any, batch_index: int = 0, dataloader_idx: int = 0
    ) -> list[CaptionPrediction]:
        """Return one caption an image, with its alternatives and attention, on the host.

        Args:
            batch: Images of one size as `(B, C, H, W)` or a list, or one image; tensors, numpy arrays or PIL
                images; or a batch as in training, with or without captions.
            batch_index: Not used.
            dataloader_idx: Not used.

        Raises:
            InputError: The images differ in size, or their pixels are not what the task takes.
        """
        if is_empty(batch):
            return []
        images, ids = read_images(batch, self)
        with self._predicting():
            grid, shape = self._encode(images)
            decoded = self._generate(grid, n_best=self.decoding.n_best)
        return caption_predictions(decoded, self.vocabulary, grid=shape, ids=ids)

    def on_train_start(self) -> None:
        """Find how many images an update and the complete training have."""
        total = total_images(self.trainer)
        self._images_per_step = images_per_step(self.trainer)
        self._total_images = 0.0 if total == float("inf") else total

    def on_validation_start(self) -> None:
        """Evaluate the same running statistics on every process, and the weights as they are now."""
        super().on_validation_start()
        self._packed.clear()

    def on_validation_end(self) -> None:
        """Free the packed weights."""
        self._packed.clear()

    on_test_start = on_test_end = on_predict_start = on_predict_end = on_validation_end

    def _read(self, batch: Any) -> CaptionParts:
        return read_captions(batch, self.vocabulary)

    def _encode(self, images: Any) -> tuple[Tensor, tuple[int, int]]:
        """Return the grid (B, L, C) and its height and width."""
        features = self.backbone(self.normalize(self._as_batch(images)))
        grid: tuple[Tensor, tuple[int, int]] = self.grid(features)
        return grid

    def _teacher_forcing(self, grid: Tensor, tokens: Tensor, *, sampled: float = 0.0) -> TeacherForcingOutput:
        output: TeacherForcingOutput = self.decoder(grid, tokens, sampled=sampled)
        return output

    def _generate(self, grid: Tensor, *, n_best: int = 1) -> Decoded:
        """Return sentences of a grid (B, L, C).

        While the Trainer validates, tests or predicts no weight changes: they are packed once.
        """
        decoder, trainer = self.decoder, trainer_of(self)
        if trainer is not None and (trainer.evaluating or trainer.sanity_checking or trainer.predicting):
            rows = len(grid) * self.decoding.beams * self.decoding.groups
            decoder = self._packed.of(decoder, rows=rows)
        return generate(decoder, grid, self.special_tokens, self.decoding, n_best=n_best)

    def _self_critical_loss(self, grid: Tensor, parts: CaptionParts) -> Tensor:
        """Return the self-critical loss, and add up its reward."""
        ids = parts.ids or [f"{self.global_rank}/{row}" for row in range(len(parts.images))]
        trainer = trainer_of(self)
        update = 0 if trainer is None else trainer.global_step
        critic = require_critic(self.critic)
        result = critic.loss(self.decoder, grid, parts.references, update=update, ids=ids)
        self.train_sums.add(reward=result.reward * len(parts.images), rewarded=len(parts.images))
        return result.loss

    def _images_seen(self) -> float:
        """Return the images seen before this update: a function of its number, so nothing is saved."""
        trainer = trainer_of(self)
        return 0.0 if trainer is None else float(trainer.global_step * self._images_per_step)

    def _training_means(self, sums: dict[str, Tensor]) -> dict[str, float]:
        means = super()._training_means(sums)
        if sums["rewarded"]:
            means["train/reward"] = (sums["reward"] / sums["rewarded"]).item()
        return means

    def _make_scores(self) -> dict[str, Any]:
        return {"scores": CaptionScores(self.frequency), "eval_sums": RunningSums(("loss", "count"))}

    def _gather_rows(self) -> Mapping[str, Any]:
        return self.scores.image_rows()

    def _compute_scores(self) -> dict[str, float]:
        values = super()._compute_scores()
        sums = self.eval_sums.reduce()
        self.eval_sums.reset()
        if not values:
            return {}
        if sums["count"]:
            values["loss"] = sums["loss"] / sums["count"]
        return values
