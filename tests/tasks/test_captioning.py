"""The captioner: learns, speaks, reloads, refuses; learns from its own sentences as the arithmetic says."""

from __future__ import annotations

import socket
import sys
from itertools import product
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from captioning_tiny import FLAT, WORDS, Bright, Tiny, captioner, data, trainer

from visionkit.config import TransferConfig
from visionkit.errors import DataError, InputError
from visionkit.metrics import CiderD
from visionkit.nn.captioning.rnn_cores import CORES
from visionkit.run import load_checkpoint
from visionkit.tasks import Captioner, Decoding, SelfCritical
from visionkit.tasks.captioning.self_critical import SelfCritic, keyed_uniforms, training_frequency
from visionkit.text.word_vectors import read_word_vectors


class Pooled(nn.Module):
    """A user's own vector."""

    dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 6)

    def forward(self, images):
        return self.layer(images.mean((2, 3)) - 0.5).tanh()


def batch(*, several: int = 2, count: int = 6):
    module = data(batch_size=count, several=several)
    return module.collate([module.splits.val[index] for index in range(count)])


@pytest.mark.parametrize("decoder", CORES)
def test_each_decoder_learns_speaks_and_reloads(decoder, tmp_path):
    made = Tiny() if decoder in ("show_attend_tell", "att2in", "up_down") else Pooled()
    task = captioner(decoder, made, lr=1e-2, dropout=0.0, scheduled_sampling=0.1, label_smoothing=0.05)
    run = trainer(max_steps=180, check_val_every_n_epoch=20)
    run.fit(task, datamodule=data())
    scores = {name: float(value) for name, value in run.callback_metrics.items()}
    assert scores["val/bleu1"] > 0.9, "three brightnesses are told apart"
    said = task.predict_step(batch())
    assert [prediction.id for prediction in said] == [f"2-{index}" for index in range(6)]
    assert all(kind in said[place].caption for place, kind in enumerate(("dark", "grey", "bright")))
    assert said[0].tokens == tuple(said[0].caption.split())
    assert (said[0].attention is None) == isinstance(made, Pooled)
    if said[0].attention is not None:
        assert said[0].attention.shape == (len(said[0].tokens) + 1, 2, 2)
        assert torch.allclose(said[0].attention.sum((1, 2)), torch.ones(len(said[0].tokens) + 1))
    run.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="your own module"):
        Captioner.load_from_checkpoint(tmp_path / "a.ckpt")
    again = Captioner.load_from_checkpoint(tmp_path / "a.ckpt", backbone=type(made)())
    assert again.vocabulary == WORDS
    assert [p.caption for p in again.predict_step(batch()["images"])] == [p.caption for p in said]
    assert [p.log_prob for p in again.predict_step(batch())] == pytest.approx([p.log_prob for p in said])


def test_the_chosen_map_is_the_grid_and_n_best_is_ordered():
    task = captioner(reduction=2, decoding=Decoding(beams=4, n_best=3, max_length=6))
    said = task.predict_step(batch())[0]
    assert said.attention.shape[1:] == (4, 4)
    assert captioner(positions=True)._encode(batch()["images"])[0][0, :, -2:].tolist() == [
        [-1, -1], [-1, 1], [1, -1], [1, 1]
    ]  # fmt: skip
    with pytest.raises(InputError, match="for decoders that attend to a map"):
        captioner("fc", Pooled(), positions=True)
    assert len({text for text, _ in said.n_best}) == 3
    assert [p for _, p in said.n_best] == sorted((p for _, p in said.n_best), reverse=True)
    assert said.n_best[0] == (said.caption, said.log_prob)
    with pytest.raises(InputError, match=r"reduction to be one of the backbone's \[2, 4\], but got 8"):
        captioner(reduction=8)


def test_several_captions_of_an_image_are_taught_as_if_each_came_alone():
    task = captioner(coverage=0.5).eval()
    together = batch(several=2)
    apart = {
        **together,
        "images": together["images"].repeat_interleave(2, 0),
        "tokens": together["tokens"].flatten(0, 1),
        "references": [r for r in together["references"] for _ in range(2)],
        "ids": [f"{name}/{k}" for name in together["ids"] for k in range(2)],
    }
    with torch.no_grad():
        one, other = task.training_step(together, 0), task.training_step(apart, 0)
    assert set(one) == {"loss", "words", "coverage"}
    assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-5)
    assert float(one["loss"]) == pytest.approx(float(one["words"] + one["coverage"]), rel=1e-6)
    plain = task.training_step((together["images"], together["tokens"]), 0)
    assert float(plain["loss"].detach()) == pytest.approx(float(one["loss"]), rel=1e-6)


def test_training_through_the_switch_resumes_bit_for_bit(tmp_path):
    """Teacher forcing for 8 images, self-critical from then on; stopped and continued on either side."""

    def make():
        return captioner(
            self_critical=SelfCritical(start_images=8, samples=2),
            scheduled_sampling=0.5,
            coverage=0.1,
            dropout=0.3,
        )

    whole = make()
    trainer(max_steps=5, limit_val_batches=0).fit(whole, datamodule=data())
    wanted = whole.state_dict()
    for stop in (1, 3):
        part = make()
        run = trainer(max_steps=stop, limit_val_batches=0)
        # The ramp of scheduled sampling belongs to the whole training, so a part must know its length.
        part.on_train_start = lambda part=part: vars(part).update(_images_per_step=4, _total_images=20.0)
        run.fit(part, datamodule=data())
        run.save_checkpoint(tmp_path / f"{stop}.ckpt")
        rest = make()
        trainer(max_steps=5, limit_val_batches=0).fit(
            rest, datamodule=data(), ckpt_path=tmp_path / f"{stop}.ckpt"
        )
        assert all(torch.equal(value, wanted[name]) for name, value in rest.state_dict().items()), stop
    assert whole.loss_terms.keys() == {"loss", "reward"}


def test_word_vectors_start_stay_and_reload(tmp_path):
    (tmp_path / "glove.txt").write_text(
        "".join(
            f"{word} {' '.join(str(i + k / 8) for k in range(8))}\n"
            for i, word in enumerate(["a", "it", "is", "of"])
        )
    )
    vectors = read_word_vectors(tmp_path / "glove.txt", WORDS)
    assert vectors.coverage == pytest.approx(3 / 7)
    free, frozen = captioner(vectors=vectors), captioner(vectors=vectors, freeze_vectors=True)
    start = frozen.decoder.words.weight.clone()
    assert torch.equal(start[WORDS.id("it")], vectors.table[WORDS.id("it")])
    for task, moves in ((free, True), (frozen, False)):
        run = trainer(max_steps=3, limit_val_batches=0)
        run.fit(task, datamodule=data())
        assert torch.equal(task.decoder.words.weight, start) is not moves
    run.save_checkpoint(tmp_path / "a.ckpt")
    again = Captioner.load_from_checkpoint(tmp_path / "a.ckpt", backbone=Tiny())
    assert torch.equal(again.decoder.words.weight, start)
    assert not again.decoder.words.weight.requires_grad


def test_both_arms_begin_with_the_same_decoder():
    made = []
    for waste in (0, 1000):
        torch.manual_seed(3)
        torch.rand(waste)
        task = Captioner(Tiny(), init="scratch", vocabulary=WORDS, embed=8, hidden=8, attention=8)
        made.append(torch.cat([value.flatten() for value in task.decoder.parameters()]))
    assert torch.equal(*made)


def test_a_named_backbone_is_frozen_unfrozen_and_pooled():
    task = Captioner(
        "timm/resnet10t", init="scratch", vocabulary=WORDS, decoder="fc", embed=8, hidden=8, optim=FLAT
    )
    assert task.backbone.dim == 512
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert len(task.predict_step(images)) == 2
    attending = Captioner(
        "timm/resnet10t", init="scratch", vocabulary=WORDS, reduction=16, embed=8, hidden=8, attention=8
    )
    assert attending.predict_step(images)[0].attention.shape[1:] == (4, 4)
    assert [level.reduction for level in attending.backbone.levels] == [2, 4, 8, 16]
    with pytest.raises(InputError, match=r"reduction to be one of 'timm/resnet10t''s \[2, 4, 8, 16, 32\]"):
        Captioner("timm/resnet10t", init="scratch", vocabulary=WORDS, reduction=64)
    with pytest.raises(InputError, match="would freeze random weights"):
        Captioner(
            "timm/resnet10t", init="scratch", vocabulary=WORDS, transfer=TransferConfig(freeze_through="all")
        )


def test_a_checkpoint_speaks_on_a_machine_without_a_network(tmp_path, monkeypatch):
    """Its vocabulary, its settings and its weights are in the file; what trained it is remembered."""
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "weights.pt")
    task = Captioner(
        "timm/resnet10t", init=str(tmp_path / "weights.pt"), vocabulary=WORDS, reduction=4, embed=8, hidden=8,
        attention=8, optim=FLAT, frequency=training_frequency(Bright(24, 1).captions),
        self_critical=SelfCritical(samples=2), decoding=Decoding(beams=2, n_best=2, max_length=5),
    )  # fmt: skip
    run = trainer(max_steps=1, limit_val_batches=0)
    run.fit(task, datamodule=data())
    run.save_checkpoint(tmp_path / "a.ckpt")
    (tmp_path / "weights.pt").unlink()
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("it asked the network"))
    raw = load_checkpoint(tmp_path / "a.ckpt")
    assert raw["hyper_parameters"]["vocabulary"] == WORDS.to_dict()
    assert raw["hyper_parameters"]["init"] == "scratch"
    assert "frequency" not in raw["hyper_parameters"]
    again = Captioner.load_from_checkpoint(tmp_path / "a.ckpt")
    assert again.backbone.weights.source == "file"
    assert again.self_critical == SelfCritical(samples=2)
    said, now = task.predict_step(batch()), again.predict_step(batch())
    assert [p.n_best for p in now] == [p.n_best for p in said]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing to be at least 0 and below 1"),
        ({"scheduled_sampling": -0.1}, "scheduled_sampling to be"),
        ({"coverage": -1.0}, "coverage to be at least 0"),
        ({"decoding": Decoding(beams=0)}, r"decoding\.beams to be at least 1, but got 0"),
        ({"decoding": {"groups": 0}}, r"decoding\.groups to be at least 1"),
        ({"decoding": Decoding(max_length=1)}, r"decoding\.max_length to be at least 2"),
        ({"decoding": Decoding(diversity=-1.0)}, r"decoding\.diversity to be at least 0"),
        ({"self_critical": SelfCritical(temperature=0.0)}, r"self_critical\.temperature to be above 0"),
        ({"self_critical": SelfCritical(start_images=-1)}, r"self_critical\.start_images to be at least 0"),
        ({"decoding": Decoding(beams=2, n_best=3)}, r"n_best to be in 1 \.\. beams \* groups = 2"),
        ({"decoding": {"beam": 3}}, "Did you mean 'beams'"),
        ({"self_critical": SelfCritical(samples=1)}, "samples for baseline 'mean' to be at least 2"),
        ({"self_critical": SelfCritical(baseline="gready")}, "Did you mean 'greedy'"),
        ({"vocabulary": {"schema": 9, "words": []}}, "schema"),
        ({"decoder": "up-down"}, "Did you mean 'up_down'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    decoder = settings.pop("decoder", "show_attend_tell")
    with pytest.raises(InputError, match=words):
        captioner(decoder, Pooled() if decoder == "up-down" else None, **settings)


def test_batches_that_cannot_be_right_are_named():
    task, good = captioner(), batch(several=1)
    with pytest.raises(InputError, match="'tokens'"):
        task.training_step({"images": good["images"], "ids": good["ids"]}, 0)
    with pytest.raises(InputError, match=r"tokens to be int64 \(6, L\) or \(6, K, L\)"):
        task.training_step({**good, "tokens": good["tokens"].float()}, 0)
    wrong = good["tokens"].clone()
    wrong[4, 1] = 99
    with pytest.raises(DataError, match=r"2-4, field 'tokens'.*encode"):
        task.training_step({**good, "tokens": wrong}, 0)
    for bad in ([], [3], "text"):
        with pytest.raises(DataError, match="2-1, field 'references'"):
            task.training_step(
                {**good, "references": [good["references"][0], bad, *good["references"][2:]]}, 0
            )
    with pytest.raises(InputError, match="document frequencies of the training captions"):
        captioner(self_critical=SelfCritical(), frequency=None).training_step(good, 0)


def critic(**settings):
    return SelfCritic(
        WORDS, training_frequency(Bright(24, 1).captions), SelfCritical(**settings),
        special_tokens=captioner(decoding=Decoding(bad_endings=True)).special_tokens, max_length=4,
    )  # fmt: skip


def test_rewards_count_the_end_as_a_word():
    judge = critic()
    end, first = WORDS.eos, WORDS.encode("a dark image")[1:]
    tokens = torch.tensor([[first, [*first[:3], 0]]])  # whole, and broken off before the end
    from visionkit.nn.captioning.decoding import Decoded

    whole, broken = judge.rewards(Decoded(tokens, torch.zeros(1, 2), None), [["a dark image"]])[0]
    assert end in first
    assert whole > broken
    said = [[*(["a", "dark", "image"]), "<eos>"]]
    assert whole == CiderD(judge.cider.frequency)(said, [said])[0]


@pytest.mark.parametrize("baseline", ["greedy", "mean", "beam"])
def test_the_loss_is_the_policy_gradient_of_its_draws(baseline):
    """Each draw's log-probability, found word by word, times its reward over the baseline."""
    task, judge = captioner("att2in"), critic(baseline=baseline, samples=3, seed=5)
    parts = batch()
    grid, _ = task._encode(parts["images"])
    found = judge.loss(task.decoder, grid, parts["references"], update=7, ids=parts["ids"])
    task.decoder.eval()
    drawn = [
        _draw(task.decoder, grid[row : row + 1], keyed_uniforms(5, 7, [parts["ids"][row]], 3, 4), judge)
        for row in range(6)
    ]
    rewards = torch.tensor(
        [
            [
                judge.cider([judge._words(said)], [[judge._reference(t) for t in texts]])[0]
                for said, _ in several
            ]
            for several, texts in zip(drawn, parts["references"], strict=True)
        ]
    )
    log_probs = torch.stack([torch.stack([p for _, p in several]) for several in drawn])
    if baseline == "mean":
        held = (rewards.sum(1, keepdim=True) - rewards) / 2
        wanted = -((rewards - held) * log_probs).mean()
        assert float(found.loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-4)
        grads = torch.autograd.grad(wanted, list(task.decoder.parameters()), retain_graph=True)
        ours = torch.autograd.grad(found.loss, list(task.decoder.parameters()))
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(grads, ours, strict=True))
    assert found.reward == pytest.approx(float(rewards.mean()), rel=1e-5)
    assert judge.loss(task.decoder, grid, parts["references"], update=7, ids=parts["ids"]).loss == found.loss
    other = judge.loss(task.decoder, grid, parts["references"], update=8, ids=parts["ids"])
    assert other.loss != found.loss, "another update draws other sentences"


def _draw(decoder, grid, numbers, judge):
    """Draw one sentence at a time, one word at a time; return (ids, log-probability) of each."""
    several = []
    for row in numbers:
        memory, state = decoder.start(grid)
        word, said, total = torch.tensor([WORDS.bos]), [], grid.new_zeros(())
        for number in row:
            log_probs, state, _ = decoder.step(word, state, memory)
            barred = judge.special_tokens.mask(log_probs, word)[0].log_softmax(-1)
            sums = barred.detach().exp().double().cumsum(0)
            chosen = int((sums <= number * sums[-1]).sum())
            total, word = total + barred[chosen], torch.tensor([chosen])
            said.append(chosen)
            if chosen == WORDS.eos:
                break
        several.append((said, total))
    return several


def test_learning_from_own_sentences_raises_their_expected_reward():
    """The expectation over every sentence of up to three words, before and after."""
    task, judge = captioner("show_and_tell", Pooled(), dropout=0.0), critic(baseline="mean", samples=8)
    judge.max_length = 3
    parts = batch(count=3)
    optimizer = torch.optim.Adam(task.parameters(), lr=2e-2)

    def expectation() -> float:
        with torch.no_grad():
            grid, _ = task._encode(parts["images"])
            total = 0.0
            sayable = [i for i in range(len(WORDS)) if i not in (WORDS.pad, WORDS.bos, WORDS.unk)]
            for words in product(sayable, repeat=3):
                if WORDS.eos in words[:-1]:
                    cut = words.index(WORDS.eos) + 1
                    if any(word != WORDS.eos for word in words[cut:]):
                        continue  # a sentence that has ended is counted once
                    words = words[:cut]
                tokens = torch.tensor([[WORDS.bos, *words]] * 3)
                taught = task.decoder(grid, tokens)
                log_probs = judge._masked(taught.logits).log_softmax(-1)
                chance = log_probs.gather(1, taught.targets[:, None]).view(3, -1).sum(1).exp()
                for row in range(3):
                    cut_refs = [judge._reference(t) for t in parts["references"][row]]
                    total += float(chance[row]) * judge.cider([judge._words(list(words))], [cut_refs])[0]
        return total / 3

    before = expectation()
    for update in range(25):
        grid, _ = task._encode(parts["images"])
        loss = judge.loss(task.decoder, grid, parts["references"], update=update, ids=parts["ids"]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert expectation() > 1.3 * before


@pytest.mark.dist
def test_two_processes_make_the_update_of_one(zygote, tmp_path):
    from tests.tasks.self_critical_worker import train

    zygote.ranks("tests.tasks.self_critical_worker:main", 2, str(tmp_path), torchrun=True)
    left, right = (torch.load(tmp_path / f"2-{rank}.pt", weights_only=True) for rank in (0, 1))
    for baseline in ("mean", "greedy"):
        one = train(baseline)
        assert len(one["rewards"]) == 3
        assert left[baseline]["rewards"] == pytest.approx(one["rewards"], rel=1e-12)
        assert right[baseline]["rewards"] == left[baseline]["rewards"]
        # The same terms in another order, in 64 bits: each sum is off by its number of terms (below 10^5)
        # times 2^-53 of their sizes, and advantages may cancel to a thousandth: 10^-8 in all.
        assert len(one["gradients"]) == len(left[baseline]["gradients"]) == 3
        for alone, ours in zip(one["gradients"], left[baseline]["gradients"], strict=True):
            largest = max(float(value.abs().max()) for value in alone.values())
            assert largest > 1e-3
            assert alone.keys() == ours.keys()
            for name, value in alone.items():
                assert value.dtype == torch.float64
                assert float((ours[name] - value).abs().max()) < 1e-8 * largest, name
        for name, value in one["weights"].items():
            assert torch.equal(left[baseline]["weights"][name], right[baseline]["weights"][name])
            assert torch.allclose(left[baseline]["weights"][name], value, rtol=0, atol=1e-8), name
