"""What torchmetrics promises of a metric holds for each of ours: anybody's module can use it."""

from __future__ import annotations

import copy
import pickle
import warnings

import lightning
import pytest
import torch
import torchmetrics
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)

from tests.metrics.metric_cases import CASES, IMAGES, MetricCase, hexes
from visionkit import metrics
from visionkit.errors import InputError

EVERY = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def _at_once(case: MetricCase) -> dict[str, str]:
    metric = case.build()
    metric.update(*case.batch(*range(IMAGES)))
    return hexes(metric.compute())


def test_the_cases_are_all_metrics_of_the_library() -> None:
    exported = [getattr(metrics, name) for name in metrics.__all__]
    kinds = {kind for kind in exported if isinstance(kind, type) and issubclass(kind, torchmetrics.Metric)}
    assert {type(case.build()) for case in CASES} | {metrics.ScoreMetric} == kinds
    assert len(CASES) == 12
    assert len(kinds) == 12


@EVERY
def test_batches_sum_to_the_data_set_and_reset_forgets(case: MetricCase) -> None:
    metric, expected = case.build(), _at_once(case)
    assert len(expected) == case.names == len(metric.names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # compute before update
        empty = hexes(metric.compute())
    assert set(empty) == set(expected)
    for begin, end in ((0, 1), (1, 5), (5, IMAGES)):
        value = metric(*case.batch(*range(begin, end)))  # the batch's own
        assert set(value) == set(expected)
    assert hexes(metric.compute()) == expected
    assert hexes(metric.compute_floats()) == expected
    assert all(value.dtype == torch.float64 and value.ndim == 0 for value in metric.compute().values())
    metric.reset()
    assert metric.update_count == 0
    metric.update(*case.batch(*range(IMAGES)))
    assert hexes(metric.compute()) == expected


@EVERY
def test_one_score_by_name_is_a_scalar(case: MetricCase) -> None:
    monitored = case.build().monitor[0]
    metric = case.build(score=monitored)
    metric.update(*case.batch(*range(IMAGES)))
    assert float(metric.compute()).hex() == _at_once(case)[monitored]
    assert metric.higher_is_better == (metric.monitor[1] == "max")
    with pytest.raises(InputError, match="Unknown score 'mapp'"):
        case.build(score="mapp")


@EVERY
def test_states_merge_copy_pickle_and_are_saved(case: MetricCase) -> None:
    first, second = case.build(), case.build()
    first.update(*case.batch(*range(4)))
    second.update(*case.batch(*range(4, IMAGES)))
    first.merge_state(second)
    others = [first.clone(), pickle.loads(pickle.dumps(first)), copy.deepcopy(first)]
    assert not first.state_dict()
    first.persistent(True)
    loaded = case.build()
    loaded.persistent(True)
    loaded.load_state_dict(first.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the loaded one was not updated
        assert hexes(loaded.compute()) == _at_once(case)
    for metric in (first, *others):
        assert hexes(metric.compute()) == _at_once(case)
    others[0].reset()
    assert others[0].update_count == 0
    assert first.update_count > 0


@EVERY
def test_states_move_with_the_module_and_keep_their_types(case: MetricCase) -> None:
    module = torch.nn.Module()
    module.metric = case.build()
    module.metric.update(*case.batch(0, 1))

    def kinds() -> dict[str, list[torch.dtype]]:
        return {
            name: [v.dtype for v in (value if isinstance(value, list) else [value])]
            for name, value in module.metric.metric_state.items()
        }

    before = kinds()
    module.half().to(torch.float16).to("cpu", torch.bfloat16)
    assert kinds() == before
    module.metric.update(*case.batch(*range(2, IMAGES)))
    assert hexes(module.metric.compute()) == _at_once(case)
    assert not list(module.buffers()), "a buffer would be overwritten by DDP's broadcast"
    assert module.to("meta").metric.device.type == "meta"


@EVERY
def test_an_epoch_in_inference_mode_leaves_states_that_can_be_added_to(case: MetricCase) -> None:
    metric = case.build()
    with torch.inference_mode():
        metric.update(*case.batch(0, 1, 2))
        metric.compute()
        metric.reset()
    metric.update(*case.batch(*range(IMAGES)))
    assert hexes(metric.compute()) == _at_once(case)


@pytest.mark.dist
@pytest.mark.parametrize("world", [2, 3])
def test_more_processes_give_the_scores_of_one(zygote, tmp_path, world: int) -> None:
    told = zygote.ranks("tests.metrics.contract_worker:main", world, str(tmp_path), world)
    assert len(told) == world
    assert all(each == told[0] for each in told)
    assert len(told[0]) == len(CASES)
    for case in CASES:
        metric = case.build()
        metric.update(*case.batch(0))
        first, both, gathered = told[0][case.name]
        assert first == hexes(metric.compute())
        assert both == gathered == _at_once(case)


def test_collections_hold_them_beside_those_of_torchmetrics() -> None:
    case = CASES[0]
    collection = torchmetrics.MetricCollection(
        {
            "all": case.build(),
            "f1": case.build(score="macro_f1"),
            "accuracy": MulticlassAccuracy(6, average="micro"),
        },
        prefix="val/",
    )
    for positions in ((0, 1, 2, 3), (4, 5, 6, 7, 8)):
        collection.update(*case.batch(*positions)[:2])
    values = collection.compute()
    assert set(values) == {f"val/{n}" for n in ("top1", "top5", "macro_f1", "ece", "f1", "accuracy")}
    assert values["val/f1"] == values["val/macro_f1"]
    assert float(values["val/accuracy"]) == pytest.approx(float(values["val/top1"]), abs=1e-6)
    assert len(collection.compute_groups) == 2, "the first two share their states"
    collection.reset()
    collection.update(*case.batch(*range(IMAGES))[:2])
    assert collection.compute() == values


class _Stock(lightning.LightningModule):
    """Somebody's module: one scalar of each metric by `self.log`, and all by `self.log_dict`."""

    def __init__(self) -> None:
        super().__init__()
        self.scalars = torch.nn.ModuleList(c.build(score=c.build().monitor[0]) for c in CASES)
        self.full = torch.nn.ModuleList(case.build() for case in CASES)
        scores = {f"collected/{n}": CASES[0].build(score=n) for n in ("top1", "macro_f1")}
        self.collection = torchmetrics.MetricCollection(scores)

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        positions = batch.tolist()
        for case, scalar, full in zip(CASES, self.scalars, self.full):
            scalar.update(*case.batch(*positions))
            full.update(*case.batch(*positions))
            self.log(f"{case.name}/monitored", scalar, on_step=False, on_epoch=True)
        self.collection.update(*CASES[0].batch(*positions))
        self.log_dict(self.collection)

    def on_validation_epoch_end(self) -> None:
        for case, full in zip(CASES, self.full):
            self.log_dict({f"{case.name}/{n}": value for n, value in full.compute().items()})
            full.reset()


def test_a_stock_module_logs_them() -> None:
    module = _Stock()
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False, max_epochs=1
    )
    loader = torch.utils.data.DataLoader(torch.arange(IMAGES), batch_size=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few workers
        for _ in range(2):  # the second epoch begins anew
            logged = trainer.validate(module, loader, verbose=False)[0]
    assert len(logged) == sum(case.names + 1 for case in CASES) + 2
    for case in CASES:
        expected = {name: float.fromhex(value) for name, value in _at_once(case).items()}
        for name, value in {**expected, "monitored": expected[case.build().monitor[0]]}.items():
            assert logged[f"{case.name}/{name}"] == pytest.approx(value, nan_ok=True, abs=1e-12)
    assert logged["collected/top1"] == logged["single label/top1"]


def test_the_same_quantities_equal_those_of_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(3)
    logits, classes = (
        torch.randn(80, 11, generator=generator),
        torch.randint(0, 11, (80,), generator=generator),
    )
    labels = (torch.rand(80, 11, generator=generator) < 0.3).int()
    pred_maps, target_maps = torch.randint(0, 5, (2, 6, 16, 16), generator=generator)
    target_maps[:, :3] = 255
    ours = metrics.SingleLabelScores(11), metrics.MultiLabelScores(11), metrics.SegmentationMetric(5)
    preds_and_targets = (logits, classes), (logits, labels), (pred_maps, target_maps)
    theirs = (
        {
            "top1": MulticlassAccuracy(11, average="micro"),
            "top5": MulticlassAccuracy(11, average="micro", top_k=5),
            "macro_f1": MulticlassF1Score(11, average="macro"),
            "ece": MulticlassCalibrationError(11, n_bins=15, norm="l1"),
        },
        {
            "map": MultilabelAveragePrecision(11, average="macro"),
            "micro_f1": MultilabelF1Score(11, average="micro"),
            "macro_f1": MultilabelF1Score(11, average="macro"),
        },
        {"miou": MulticlassJaccardIndex(5, ignore_index=255)},
    )
    compared = 0
    for metric, arguments, references in zip(ours, preds_and_targets, theirs):
        metric.update(*arguments)
        scores = metric.compute()
        for name, reference in references.items():
            reference.update(*(logits.sigmoid(), labels) if reference is theirs[1].get(name) else arguments)
            assert float(scores[name]) == pytest.approx(float(reference.compute()), abs=1e-5), name
            compared += 1
    assert compared == 8


def test_regression_equals_torchmetrics_and_logits_are_class_maps() -> None:
    generator = torch.Generator().manual_seed(4)
    preds, target = torch.randn(2, 50, generator=generator)
    metric = metrics.RegressionScores(1)
    metric.update(preds, target)
    references = {
        "mae": torchmetrics.MeanAbsoluteError(),
        "rmse": torchmetrics.MeanSquaredError(squared=False),
        "r2": torchmetrics.R2Score(),
    }
    scores = metric.compute()
    assert set(scores) == set(references), "no losses, no loss"
    for name, reference in references.items():
        assert float(scores[name]) == pytest.approx(float(reference(preds, target)), abs=1e-5), name
    logits, maps = torch.randn(2, 4, 8, 8, generator=generator), torch.randint(0, 4, (2, 8, 8))
    first, second = metrics.SegmentationMetric(4), metrics.SegmentationMetric(4)
    first.update(logits, maps)
    second.update(logits.argmax(1), maps)
    assert hexes(first.compute()) == hexes(second.compute())


def test_sentences_are_tokenized_and_images_need_no_names() -> None:
    words, sentences = metrics.CaptionScores(), metrics.CaptionScores()
    words.update([["a", "red", "dog"], ["a", "tree"]], [[["a", "dog"]], [["the", "tree"]]])
    sentences.update(["A red dog."], [["A dog!"]])
    sentences.update(["a tree"], [["the tree"]])
    assert hexes(words.compute()) == hexes(sentences.compute())
    preds, targets, ids = CASES[4].arguments
    named, unnamed = metrics.CocoAP("abcd"), metrics.CocoAP("abcd")
    named.update(preds, targets, list(range(len(ids))))
    for position in range(len(ids)):
        unnamed.update(preds[position : position + 1], targets[position : position + 1])
    assert named.result() == unnamed.result()
    assert named.result().images == len(ids)
