"""Images to sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.config import OptimConfig, TransferConfig
from visionkit.metrics import CaptionScores, RunningSums
from visionkit.metrics.cider import DocumentFrequency
from visionkit.nn import Normalize
from visionkit.nn.captioning.attention import doubly_stochastic
from visionkit.nn.captioning.decoder import CaptionDecoder, TeacherForcingOutput
from visionkit.nn.captioning.recurrent import CellKind
from visionkit.optim import images_per_step, total_images
from visionkit.rng import seeded_from_run
from visionkit.tasks.batch_norm import explained
from visionkit.tasks.batch_parts import is_empty, read_parts
from visionkit.tasks.captioning.batch import CaptionParts, read_captions
from visionkit.tasks.captioning.generate import caption_cross_entropy, marks_of, say
from visionkit.tasks.captioning.prediction import CaptionPrediction, caption_predictions
from visionkit.tasks.captioning.prepacked_decoder import Speaker
from visionkit.tasks.captioning.self_critical import make_critic, need
from visionkit.tasks.captioning.settings import Decoding, SelfCritical, check_settings, settings_from
from visionkit.tasks.captioning.source import build_caption_source, grid_place, to_grid
from visionkit.tasks.image_inputs import image_stack
from visionkit.tasks.image_spec import ImageSpec, saved_origin
from visionkit.tasks.wiring import optim_from, plain_settings
from visionkit.text.tokenize import tokenize
from visionkit.text.vocabulary import Vocabulary
from visionkit.text.word_vectors import WordVectors
from visionkit.transfer import apply_transfer, resolve_transfer, transfer_from
from visionkit.types import Init

__all__ = ["Captioner"]

_TRANSFER = TransferConfig()
_OPTIM = OptimConfig()
_DECODING = Decoding()
_SUMS = ("loss", "count", "reward", "rewarded")
_ATTENDS = ("show_attend_tell", "att2in", "up_down")


class Captioner(Speaker):
    """Say in a sentence what an image shows.

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
        init: "pretrained", "scratch", or a path to weights; for your own module, which of the two its
            weights are.
        vocabulary: The words, from the training captions only.
        decoder: "show_attend_tell", "att2in" and "up_down" look at a grid; "show_and_tell" and "fc" see the
            pooled vector.
        reduction: Which map is the grid, for decoders that attend; the coarsest if not given.
        output_stride: Coarsest reduction, by dilation: deep features on a finer grid.
        positions: Whether the grid's cells also say where they lie (not in the papers; for "left of").
        cell: "lstm" or "gru".
        embed: Width of embedded words.
        hidden: Width of the state.
        attention: Width in which grid and state meet.
        dropout: Share of embedded words and outputs dropped while training.
        vectors: Word vectors to begin with (`visionkit.text.word_vectors.read_word_vectors`).
        freeze_vectors: Keep them as they are.
        transfer: What is done with the weights.
        optim: How parameters move.
        lr: Peak learning rate of everything but the backbone.
        label_smoothing: Share of each word's target spread over all words.
        scheduled_sampling: Share of input words that the model says itself, at the end of training; it rises
            evenly from 0 (Bengio et al. 2015). Draws follow torch's seed.
        coverage: Weight of the term that asks to look everywhere once (Xu et al. 2015).
        self_critical: When given: learn from own sentences, from an image count on.
        decoding: How sentences are found.
        frequency: Document frequencies of the training captions (`training_frequency` makes them), for
            `cider_d` and self-critical training. They are data: checkpoints do not hold them.
        in_channels: Channels of the images; trained input layers are adapted.
        image_size: Side, or `(H, W)`, of the images: a network of fixed size is built for it.
        mean: Mean per channel of images in [0, 1], in place of the backbone's.
        std: Deviation per channel, likewise.
        origin: Where the weights came from, as a checkpoint remembers it; leave it out.

    Raises:
        InputError: Settings that do not fit together, or a backbone that cannot serve the decoder.
    """

    monitor = ("val/cider", "max")
    truth = "tokens"
    scored = ("scores", "eval_sums")
    scores: CaptionScores
    eval_sums: RunningSums

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
        origin: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        words = vocabulary if isinstance(vocabulary, Vocabulary) else Vocabulary.from_dict(vocabulary)
        self.vocabulary, self.lr = words, lr
        self.optim, self.decoding = optim_from(optim), settings_from(Decoding, decoding)
        self.self_critical = None if self_critical is None else settings_from(SelfCritical, self_critical)
        check_settings(
            self.decoding,
            self.self_critical,
            label_smoothing=label_smoothing,
            scheduled_sampling=scheduled_sampling,
            coverage=coverage,
            lr=lr,
        )
        brought = origin["init"] if origin else init
        spec = ImageSpec(in_channels, image_size, mean, std)
        self.transfer = resolve_transfer("captioning", brought, transfer_from(transfer))
        attends = decoder in _ATTENDS
        self.backbone = build_caption_source(
            backbone,
            init=init,
            transfer=self.transfer,
            attends=attends,
            reduction=reduction,
            output_stride=output_stride,
            images=spec,
            origin=origin,
        )
        self.normalize = Normalize(self.backbone.mean, self.backbone.std)
        made = grid_place(self.backbone, attends=attends, reduction=reduction, positions=positions)
        self.positions, (channels, self._place) = positions, made
        table = vectors.table if isinstance(vectors, WordVectors) else vectors
        if table is None and freeze_vectors and origin:
            table = torch.zeros(len(words), embed)  # the checkpoint fills it
        # Drawn from torch's seed alone, not from what the backbone left of it: the arms begin alike.
        with seeded_from_run():
            self.decoder = CaptionDecoder(
                decoder, channels=channels, words=len(words), embed=embed, hidden=hidden, attention=attention,
                cell=cell, dropout=dropout, vectors=table, freeze_vectors=freeze_vectors,
            )  # fmt: skip
        apply_transfer(self.backbone, brought, self.transfer)
        self.label_smoothing, self.scheduled_sampling = label_smoothing, scheduled_sampling
        self.coverage = coverage if attends else 0.0
        self.marks = marks_of(words, bad_endings=self.decoding.bad_endings)
        self.frequency = frequency
        self.critic = make_critic(words, frequency, self.self_critical, longest=self.decoding.longest)
        self.said: list[CaptionPrediction] = []
        self.loss_terms: dict[str, Tensor] = {}
        self.tally = RunningSums(_SUMS)
        self.scores, self.eval_sums = self._make_scores().values()
        self._images = (0, 0.0)
        self.save_hyperparameters(plain_settings({
            **spec.settings(backbone), "init": "scratch", "origin": saved_origin(self.backbone, brought),
            "vocabulary": words.to_dict(),
            "decoder": decoder, "reduction": reduction, "output_stride": output_stride,
            "positions": positions, "cell": cell, "embed": embed, "hidden": hidden, "attention": attention,
            "dropout": dropout, "freeze_vectors": freeze_vectors, "transfer": self.transfer,
            "optim": self.optim, "lr": lr, "label_smoothing": label_smoothing,
            "scheduled_sampling": scheduled_sampling, "coverage": coverage,
            "self_critical": self.self_critical, "decoding": self.decoding,
        }))  # fmt: skip

    def forward(self, images: Any, tokens: Tensor) -> TeacherForcingOutput:
        """Teach: predict each word of `tokens` `(B * K, L)` from the true words before it.

        Args:
            images: `(B, 3, H, W)` uint8 or float in [0, 1]; or one image, or a list of images of one size
                (`visionkit.tasks.image_inputs`).
            tokens: Ids of words, from `<bos>` to `<eos>`, padded.
        """
        taught: TeacherForcingOutput = self.decoder(self._encode(images)[0], tokens)
        return taught

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the backbone in place, with the arguments of `torch.compile`."""
        self.backbone.compile(*args, **kwargs)

    @explained
    def training_step(self, batch: Any, batch_index: int) -> dict[str, Tensor]:
        """Return the loss of a batch, with its terms."""
        parts = read_captions(batch, self.vocabulary)
        seen = self._seen()
        grid, _ = self._encode(parts.images)
        if self.self_critical is not None and seen >= self.self_critical.at:
            terms = {"reward": self._criticize(grid, parts)}
        else:
            total = self._images[1]
            share = self.scheduled_sampling * min(1.0, seen / total) if total else 0.0
            taught: TeacherForcingOutput = self.decoder(grid, parts.tokens, sampled=share)
            terms = {"words": caption_cross_entropy(taught, smoothing=self.label_smoothing)}
            if self.coverage and taught.attention is not None:
                terms["coverage"] = self.coverage * doubly_stochastic(taught.attention.float(), taught.valid)
        loss = torch.stack(list(terms.values())).sum()
        self.loss_terms = {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}
        self._count(loss.detach(), len(parts.images))
        return {**self.loss_terms, "loss": loss}

    def _evaluate(self, batch: Any) -> None:
        self.said = []
        if is_empty(batch):
            return
        parts = read_captions(batch, self.vocabulary)
        grid, shape = self._encode(parts.images)
        taught: TeacherForcingOutput = self.decoder(grid, parts.tokens)
        self.eval_sums.add(
            loss=caption_cross_entropy(taught) * len(taught.targets), count=len(taught.targets)
        )
        decoded = say(self.speaker(len(grid)), grid, self.marks, self.decoding)
        self.said = caption_predictions(decoded, self.vocabulary, grid=shape, ids=parts.ids)
        references = [[tokenize(sentence) for sentence in several] for several in parts.references]
        self.scores.update([said.tokens for said in self.said], references, parts.ids or None)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means."""
        epoch = self.tally.close_epoch()
        if epoch["count"]:
            self.log_dict(_means(epoch), on_step=False, on_epoch=True)

    def predict_step(
        self, batch: Any, batch_index: int = 0, dataloader_idx: int = 0
    ) -> list[CaptionPrediction]:
        """Return one typed prediction an image, on the host.

        Args:
            batch: Images `(B, 3, H, W)`; one image or a list of images of one size, as tensors, numpy arrays
                or PIL images; or a batch as in training, with or without captions.
            batch_index: Not used.
            dataloader_idx: Not used.

        Raises:
            InputError: The images differ in size, or their pixels are not what the task takes.
        """
        if is_empty(batch):
            return []
        given, _, ids = read_parts(batch, self.truth, needed=False)
        images = image_stack(given, channels=self.channels, device=self.device)
        was = self.training
        with torch.inference_mode():
            self.eval()
            grid, shape = self._encode(images)
            decoded = say(
                self.speaker(len(grid)), grid, self.marks, self.decoding, n_best=self.decoding.n_best
            )
        self.train(was)
        return caption_predictions(decoded, self.vocabulary, grid=shape, ids=ids)

    def on_train_start(self) -> None:
        """Learn how many images an update and the whole training have."""
        total = total_images(self.trainer)
        self._images = (images_per_step(self.trainer), 0.0 if total == float("inf") else total)

    def _read(self, batch: Any) -> CaptionParts:
        return read_captions(batch, self.vocabulary)

    def _encode(self, images: Any) -> tuple[Tensor, tuple[int, int]]:
        """Return the grid (B, L, C) and its height and width."""
        if not isinstance(images, Tensor) or images.ndim != 4:
            images = image_stack(images, channels=self.channels, device=self.device)
        return to_grid(self.backbone(self.normalize(images)), self._place, positions=self.positions)

    def _criticize(self, grid: Tensor, parts: CaptionParts) -> Tensor:
        """Return the self-critical loss, and count its reward."""
        ids = parts.ids or [f"{self.global_rank}/{row}" for row in range(len(parts.images))]
        update = 0 if self._trainer is None else self.trainer.global_step
        found = need(self.critic).loss(self.decoder, grid, parts.references, update=update, ids=ids)
        self.tally.add(reward=found.reward * len(parts.images), rewarded=len(parts.images))
        return found.loss

    def _seen(self) -> float:
        """Return the images seen before this update: a function of its number, so nothing is saved."""
        return 0.0 if self._trainer is None else float(self.trainer.global_step * self._images[0])

    @torch.no_grad()
    def _count(self, loss: Tensor, size: int) -> None:
        self.tally.add(loss=loss * size, count=size)
        trainer: Any = self._trainer
        if trainer is None or not trainer.log_every_n_steps or trainer.is_last_batch:
            return
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:
            self.log_dict(_means(self.tally.close_window()), on_step=True, on_epoch=False)

    def _make_scores(self) -> dict[str, Any]:
        return {"scores": CaptionScores(self.frequency), "eval_sums": RunningSums(("loss", "count"))}

    def _scores_now(self) -> dict[str, float]:
        values = self.scores.compute_floats()
        self.scores.reset()
        sums = self.eval_sums.reduce()
        self.eval_sums.reset()
        if not values:
            return {}
        if sums["count"]:
            values["loss"] = sums["loss"] / sums["count"]
        return values


def _means(sums: dict[str, Tensor]) -> dict[str, float]:
    means = {"train/loss": (sums["loss"] / sums["count"]).item()}
    if sums["rewarded"]:
        means["train/reward"] = (sums["reward"] / sums["rewarded"]).item()
    return means
