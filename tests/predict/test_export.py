"""An exported file gives what its task gives; what cannot be exported is named, and nothing is left."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch

from visionkit import cli
from visionkit.data.transforms.saved import transform_from
from visionkit.errors import DataError, InputError, RunError
from visionkit.predict import load
from visionkit.predict.export import describe_file, export, exporter, read_metadata
from visionkit.predict.export.check import compare
from visionkit.predict.export.onnx_writer import to_onnx, to_program
from visionkit.predict.export.state_file import read_state
from visionkit.predict.predictor import Predictor, TaskModel
from visionkit.predict.trained_files import SUFFIXES
from visionkit.run.config import RunConfig
from visionkit.run.training.device_policy import choose_policy
from visionkit.tasks import Classifier

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
pytest.importorskip("onnxscript", reason="the extra `export` is not installed")

from tests.page.handmade import binary_segmenter, classifier, detector, segmenter  # noqa: E402
from tests.predict.exported_tasks import MAKE, exported_task  # noqa: E402
from tests.predict.small_detectors import NAMES  # noqa: E402

QUICK = ("single", "segmentation", "captioning")  # the other kinds are exported in the slow suite


def _predictor(task):
    facts = task.model_facts
    policy = choose_policy(RunConfig(accelerator="cpu", precision="32-true"), task)
    return Predictor(
        TaskModel(task, policy),
        facts=facts,
        kind="any",
        class_names=NAMES,
        transform=transform_from(facts["preprocess"]),
    )


@pytest.fixture(scope="module")
def traced():
    """Programs and models by network and input."""
    return {}


@pytest.fixture
def once(traced, monkeypatch):
    """Trace and translate a network to ONNX for the first of the tests that ask for this only."""

    def program(graph, example, *, dynamic_size):
        # Networks of equal weights may differ in a setting, as the targets of a classifier do.
        plain = [
            {name: value for name, value in vars(each).items() if isinstance(value, (str, int, float, tuple))}
            for each in graph.modules()
        ]
        digest = hashlib.sha256(repr(plain).encode())
        for name, value in graph.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
        key = (type(graph), digest.hexdigest(), tuple(example.shape), example.dtype, dynamic_size)
        if key not in traced:
            traced[key] = to_program(graph, example, dynamic_size=dynamic_size)
        return traced[key]

    def model(program, outputs, *, dynamic_size):
        key = (id(program), outputs, dynamic_size)
        if key not in traced:
            traced[key] = to_onnx(program, outputs, dynamic_size=dynamic_size).SerializeToString()
        return onnx.ModelProto.FromString(traced[key])

    monkeypatch.setattr(exporter, "to_program", program)
    monkeypatch.setattr(exporter, "to_onnx", model)


@pytest.fixture(scope="module")
def images():
    """Smooth images of three sizes."""
    draw = torch.Generator().manual_seed(1)
    made = []
    for height, width in ((70, 90), (64, 64), (120, 81)):
        coarse = torch.rand(1, 3, 6, 6, generator=draw)
        large = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
        made.append((large[0] * 255).byte())
    return made


def _values(prediction):
    return {name: value for name, value in vars(prediction).items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize(
    ("kind", "uint8"),
    [
        *(pytest.param(kind, False, marks=[pytest.mark.slow] * (kind not in QUICK)) for kind in MAKE),
        pytest.param("single", True, marks=pytest.mark.slow),  # the first step is the same for all kinds
    ],
)
def test_the_file_predicts_what_the_task_predicts(kind, uint8, images, tmp_path, once):
    task = exported_task(kind)
    made = export(task, tmp_path / "model.onnx", uint8=uint8, images=images)
    free = task.model_facts["preprocess"]["name"] not in ("CenterCrop", "KeypointCrop")
    assert made.metadata["dynamic"] == {"batch": True, "size": free}, made.notes
    predictor, truth = load(made.path), _predictor(task)
    assert predictor.kind == made.metadata["kind"]
    ours, theirs = predictor([*images, images[0]]), truth([*images, images[0]])
    for one, other in zip(ours, theirs, strict=True):
        assert type(one.prediction) is type(other.prediction)
        assert one.id == other.id
        for name, value in _values(other.prediction).items():
            limit = 1e-3 if name == "boxes" else 1e-4
            torch.testing.assert_close(getattr(one.prediction, name), value, atol=limit, rtol=1e-4)
    if kind == "captioning":
        assert [one.prediction.caption for one in ours] == [one.prediction.caption for one in theirs]
    described = describe_file(made.path)
    assert described["backbone"] == "timm/test_resnet"
    assert made.metadata["check"]["largest_difference"]
    model = onnx.load(made.path)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]


@pytest.mark.parametrize(
    "kind",
    ["single", *(pytest.param(name, marks=pytest.mark.slow) for name in ("segmentation", "captioning"))],
)
def test_a_program_and_a_state_dict_give_what_the_task_gives(kind, images, tmp_path):
    task = exported_task(kind)
    program = export(task, tmp_path / "model.pt2", format="torch", images=images)
    assert read_metadata(program.path)["check"]["batches"]
    size = tuple(program.metadata.get("size", (64, 64)))
    batch = torch.cat([torch.nn.functional.interpolate(image[None].float(), size=size) for image in images])
    with torch.no_grad():
        outputs = torch.export.load(program.path).module()(batch / 255)
    first = outputs[0] if isinstance(outputs, tuple) else outputs
    assert len(first) == 3
    state = export(task, tmp_path / "model.safetensors", format="safetensors")
    back, metadata = read_state(state.path)
    assert metadata["data"] == {"name": "x"}
    ours, theirs = _predictor(task)(images), load(state.path, device="cpu", precision="32-true")(images)
    for one, other in zip(ours, theirs, strict=True):
        for name, value in _values(one.prediction).items():
            assert torch.equal(getattr(other.prediction, name), value), name
    assert type(back) is type(task)
    assert all(describe_file(each.path)["kind"].startswith(metadata["kind"]) for each in (program, state))


def test_a_file_that_differs_is_not_left(images, tmp_path, monkeypatch, once):
    task = exported_task("single")
    before = tmp_path / "model.onnx"
    before.write_bytes(b"the one before")
    monkeypatch.setattr("visionkit.predict.export.check.TOLERANCE", -1.0)
    with pytest.raises(RunError, match="probabilities by"):
        export(task, before, images=images)
    assert before.read_bytes() == b"the one before"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_differences_of_detections_are_found():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    scores, labels = torch.tensor([0.9, 0.9]), torch.tensor([1, 0])
    expected = {"boxes": [boxes], "scores": [scores], "labels": [labels]}

    def padded(boxes, labels, count=2):
        zeros = torch.zeros(1, 3, 4)
        zeros[0, :2] = boxes
        out = torch.zeros(1, 3, dtype=torch.int64)
        out[0, :2] = labels
        both = torch.zeros(1, 3)
        both[0, :2] = scores
        return {"boxes": zeros, "scores": both, "labels": out, "count": torch.tensor([count])}

    assert compare(expected, padded(boxes, labels)) == {"boxes": 0, "scores": 0, "labels": 0}
    assert compare(expected, padded(boxes.flip(0), labels.flip(0)))["boxes"] == 0  # equal scores
    assert compare(expected, padded(boxes + 1, labels))["boxes"] == 1
    assert compare(expected, padded(boxes, 1 - labels))["boxes"] == 20
    assert compare(expected, padded(boxes, labels, count=1))["labels"] == float("inf")


def _bessel(matrix):
    return torch.special.bessel_j0(matrix).sum((1, 2))


def _by_value(matrix):
    return matrix.sum((1, 2)) * (2 if matrix.sum() > 0 else 1)


def _odd(layer):
    """A backbone of a user with a layer `(B, 4, 4) -> (B,)`."""

    class Odd(torch.nn.Module):
        levels = ()
        dim = 4

        def forward(self, images):
            return layer(images[:, 0, :4, :4])[:, None].expand(-1, 4)

    return Odd()


def test_formats_that_a_task_cannot_have_are_refused(images, tmp_path):
    """Those of the page are refused, and no others; ONNX and programs that are made are in other tests."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "export.md").read_text(encoding="utf-8")
    table = page.partition("## Formats")[2].partition("## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    refused = {
        (row[0].split(",")[0], name)
        for row in rows[2:]
        for name, cell in zip(SUFFIXES, row[1:], strict=True)
        if cell.startswith("refused")
    }
    assert refused == {("detector", "torch")}
    for task in (exported_task("detection"), exported_task("masks")):
        with pytest.raises(InputError, match=r"A detector is not exported as a program.*Use onnx"):
            export(task, tmp_path / "x.pt2", format="torch", images=images)
        assert list(tmp_path.iterdir()) == []
        made = export(task, tmp_path / "x.safetensors", format="safetensors")
        assert made.speed == {}
        back, _ = read_state(made.path)
        assert all(torch.equal(value, task.state_dict()[key]) for key, value in back.state_dict().items())
        made.path.unlink()


def test_what_cannot_be_exported_is_named(images, tmp_path, monkeypatch):
    task = exported_task("detection")
    for format, name, why in (
        ("tflite", "x.tflite", "Unknown export format"),
        ("onnx", "x.pt", r"ends in \.onnx"),
        ("torch", "x.pt2", "detector"),
        ("onnx", "none/x.onnx", "Expected a folder"),
    ):
        with pytest.raises(InputError, match=why):
            export(task, tmp_path / name, format=format, images=images)
    with pytest.raises(InputError, match="there is nothing"):
        export(tmp_path / "no_run", tmp_path / "x.onnx")

    for layer, why in ((_bessel, "No ONNX function .*bessel_j0"), (_by_value, "data-dependent")):
        odd = Classifier(_odd(layer), init="scratch", num_classes=2)
        with pytest.raises(InputError, match=f"over 'module:Odd' cannot be exported as onnx: .*{why}"):
            export(odd, tmp_path / "x.onnx", images=images)
    (tmp_path / "x.onnx").mkdir()
    with pytest.raises(InputError, match="but it is a folder"):
        export(task, tmp_path / "x.onnx", images=images)
    (tmp_path / "x.onnx").rmdir()
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(InputError, match=r'"\.\[export\]"'):
        export(task, tmp_path / "x.onnx", images=images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["onnx", "torch", "safetensors"])
def test_a_full_disk_is_named_and_nothing_is_left(format, images, tmp_path, monkeypatch, request):
    if format == "onnx":
        request.getfixturevalue("once")

    write = Path.write_bytes

    def full(self, content):
        write(self, bytes(content)[:100])
        if len(content) > 100:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    file = tmp_path / f"x{SUFFIXES[format]}"
    with pytest.raises(RunError, match=r"write into .* No space left on device .* are free"):
        export(exported_task("single"), file, format=format, images=images)
    assert list(tmp_path.iterdir()) == []


THEIRS = {
    "format": 1,
    "kind": "detection",
    "class_names": [],
    "preprocess": {},
    "input": {"dtype": "float32", "channels": 3},
    "outputs": ["y"],
}


def test_a_file_of_others_is_refused(tmp_path):
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    file = tmp_path / "theirs.onnx"
    onnx.save(model, file)
    with pytest.raises(DataError, match="Expected a file that visionkit exported"):
        load(file)
    for metadata, why in (
        ("{", "no JSON"),
        ("[]", "Expected metadata"),
        ('{"kind": "detection"}', "format 1"),
        ('{"kind": "detection", "format": 1}', "preprocess"),
        (json.dumps(THEIRS | {"input": {"dtype": "uint8"}}), "number of channels"),
        (json.dumps(THEIRS | {"kind": "segmentation"}), "views"),
        (json.dumps(THEIRS | {"kind": "captioning"}), "vocabulary"),
        (json.dumps(THEIRS), "its input"),
    ):
        del model.metadata_props[:]
        entry = model.metadata_props.add()
        entry.key, entry.value = "visionkit", metadata
        onnx.save(model, file)
        with pytest.raises(DataError, match=why):
            load(file)
    file.write_bytes(b"\x00text")
    with pytest.raises(DataError, match=r"theirs\.onnx"):
        load(file)
    for name in ("x.safetensors", "x.pt2"):
        (tmp_path / name).write_bytes(b"text")
        with pytest.raises(DataError, match="damaged"):
            read_metadata(tmp_path / name)
    with pytest.raises(InputError, match="there is none"):
        read_metadata(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="Unknown ending"):
        read_metadata(tmp_path / "none.txt")
    with pytest.raises(InputError, match="address"):
        read_metadata("http://localhost/x.onnx")


def test_views_and_names_of_an_altered_file_are_refused(tmp_path, images):
    wrong = [
        (segmenter, {"views": {"scale": [1.0]}}, "its views are not scales"),
        (segmenter, {"views": {"windows": {"size": 3}}}, "its views are not scales"),
        (segmenter, {"views": {"scales": []}}, "its views are not scales"),
        (segmenter, {"class_names": ["a"]}, "3 names, one a class"),
        (classifier, {"class_names": ["a", "b"]}, "3 names, one a class"),
    ]
    for make, more, why in wrong:
        with pytest.raises(DataError, match=why):
            load(make(tmp_path / "x.onnx", **more), device="cpu")
    predictor = load(detector(tmp_path / "x.onnx"), device="cpu")
    predictor.model.metadata["class_names"] = ["a"]
    with pytest.raises(InputError, match=r"labels beyond its 1 class names \(a\)"):
        predictor(images[0])


def test_predict_writes_what_exported_files_give(tmp_path, images, capsys):
    """Masks and numbers too, in every format that their kind has."""
    from PIL import Image

    Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    files = {
        "masks": detector(tmp_path / "masks.onnx", masks=True),
        "binary": binary_segmenter(tmp_path / "binary.onnx", ["dark", "bright"]),
        "regression": export(exported_task("regression"), tmp_path / "regression.onnx", images=images).path,
    }
    rows = {}
    for name, file in files.items():
        words = ["predict", file, tmp_path / "a.png", "--out", tmp_path / name, "--formats", "all"]
        assert cli.main([*map(str, words), "--device", "cpu"]) == 0, capsys.readouterr().err
        rows[name] = json.loads((tmp_path / name / "predictions.jsonl").read_text())
    assert len(rows["masks"]["masks"]) == 2
    results = json.loads((tmp_path / "masks" / "coco" / "predictions.json").read_text())
    assert [row["segmentation"] for row in results] == rows["masks"]["masks"]
    assert {row["name"] for row in rows["binary"]["classes"]} <= {"dark", "bright"}
    assert (tmp_path / "binary" / "masks" / "masks" / "a.png").stat().st_size
    assert max(rows["regression"]["values"]) > 1000  # the units of the targets
    assert (tmp_path / "regression" / "predictions.csv").read_text().startswith("image,a,b,c\n")


def test_the_verb_says_what_it_wrote(images, tmp_path, capsys, once):
    from PIL import Image

    from visionkit.run.storage.checkpoint import AtomicCheckpointIO

    task = exported_task("single")
    content = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    content["pytorch-lightning_version"] = "2.6.0"
    task.on_save_checkpoint(content)
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "runs" / "one" / "checkpoints" / "best.ckpt")
    (tmp_path / "photos").mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "photos" / f"{index}.png")
    assert cli.main(["export", str(tmp_path / "runs"), "--images", str(tmp_path / "photos")]) == 0
    said = capsys.readouterr().out
    assert "holds one run: one" in said
    assert "model.onnx" in said
    assert "largest difference" in said
    assert re.search(r"for one image on one thread, .* file [\d.]+ ms, task [\d.]+ ms", said)
    assert cli.main(["describe", str(tmp_path / "runs" / "model.onnx"), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["classes"] == list(NAMES)
    assert described["kind"] == "classification single"
    assert cli.main(["export", str(tmp_path), "--format", "tflite"]) == 2
    assert "Known: onnx, safetensors, torch" in capsys.readouterr().err
