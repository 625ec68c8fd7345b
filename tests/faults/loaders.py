"""Every public function of the package that takes a path, found by its signature, and how each is called."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import lightning

import visionkit

PATH_NAMES = {"path", "root", "folder", "file", "checkpoint_path", "argv", "files", "folders"}
# Functions with a path that load nothing, each with its reason; these are not called.
NO_LOADERS = {
    "visionkit.backbones.tracing:trunk": "the name of a submodule",
    "visionkit.run.training.banner:banner_text": "names a folder in a text",
    "visionkit.run.training.run_facts:run_result": "states what a finished run found",
    "visionkit.commands.trained.watch:main": "serves until Ctrl-C; `WatchServer` is called",
    "visionkit.predict.export.check_images:check_images": "the folder of a run, which was loaded",
    "visionkit.predict.export.exporter:export": "the source is read by `load_task`, the file is written",
    "visionkit.predict.export.onnx_model:open_session": "called by `OnnxModel`",
    "visionkit.predict.export.state_file:write_state": "writes",
    "visionkit.predict.writers.earlier:check_free": "looks for names; opens nothing",
    "visionkit.predict.writers.output_files:GrowingFile.__init__": "writes",
    "visionkit.predict.writers.output_files:write_small": "writes",
    "visionkit.predict.writers.writers:open_writers": "writes",
    "visionkit.predict.evaluation.arms:finished_runs": "lists folders; opens nothing",
    "visionkit.predict.evaluation.arms:write_arms": "writes",
    "visionkit.predict.evaluation.result:free_folder": "looks for names; opens nothing",
    "visionkit.predict.evaluation.figures:draw_scores": "writes",
    "visionkit.predict.evaluation.figures:image_callbacks": "names where files are written",
    "visionkit.predict.evaluation.subject:open_subject": "called by `evaluate`",
    "visionkit.backbones.sources.trained:check_digest": "reads bytes and interprets none",
    "visionkit.files:is_free": "looks for names; opens nothing",
    "visionkit.files:local_path": "looks at the name",
    "visionkit.files:is_address": "looks at the name",
    "visionkit.files:remove_parts": "removes temporary files",
    "visionkit.files:flush": "writes",
    "visionkit.files:new_folder": "writes",
    "visionkit.tasks.hub:HubMixin.save_pretrained": "writes",
    "visionkit.predict.share.timm_weights:timm_weights": "writes",
    "visionkit.predict.share.timm_weights:check_timm_file": "names a file that will be written",
    "visionkit.files:write_atomic": "writes",
    "visionkit.drawing.panels:save_image": "writes",
    "visionkit.files:write_text": "writes",
    "visionkit.files:file_digest": "reads bytes and interprets none",
    "visionkit.run.storage.disk:write_file": "writes",
    "visionkit.run.storage.disk:check_writable": "writes",
    "visionkit.compare.report.plot_style:to_png": "writes",
    "visionkit.compare.report.plot_style:to_svg": "writes",
    "visionkit.compare.report.run_curves:draw_run_curves": "writes; what it shows was read by `compare`",
    "visionkit.run.training.reader_files:write_curves": "writes; what it shows was read by `compare`",
    "visionkit.run.training.reader_files:write_data_file": "writes; `read_card` reads",
    "visionkit.run.training.reader_files:write_result_files": "writes",
    "visionkit.run.callbacks.finite_guard:FiniteGuard.__init__": "names where batches are written",
    "visionkit.run.previews.callback:Preview.__init__": "names where images are written",
    "visionkit.run.previews.filters:FilterImage.__init__": "names where an image is written",
    "visionkit.compare.report.report:write_report": "writes; what it shows was read by `compare`",
    "visionkit.run.storage.result:write_result": "writes",
    "visionkit.run.callbacks.save_checkpoints:SaveCheckpoints.__init__": "where checkpoints are written",
    "visionkit.run.callbacks.skipped_samples:SkippedSamples.__init__": "names where lines are written",
    "visionkit.run.callbacks.metrics_csv:MetricsCSVLogger.__init__": "names where rows are written",
    "visionkit.run.callbacks.clock:Clock.__init__": "names where rows are written",
    "visionkit.run.callbacks.wide_table:WideTable.__init__": "names where rows are written",
    "visionkit.run.feedback.log_file:RunLog.__init__": "names where lines are written",
    "visionkit.run.sweep.find:find_for_arms": "names folders in a text",
    "visionkit.compare.resampling.image_scores:write_image_scores": "writes",
    "visionkit.run.previews.embedding:NeighborPreview.__init__": "names where images are written",
    "visionkit.run.advice.vectors:image_vectors": "called by `advise_data`",
    "visionkit.run.probing.page:write_probe": "writes",
    "visionkit.run.probing.stored_features:features_folder": "names a folder",
    "visionkit.run.probing.stored_features:stored_features": "called by `probe`",
    "visionkit.run.map.map_config:planned": "names folders",
    "visionkit.compare.map.plan:write_plan": "writes",
    "visionkit.commands.inspecting.image_arguments:read": "an image, which `read_image` reads",
    "visionkit.commands.inspecting.image_arguments:read_mask": "an image, which `read_image` reads",
    "visionkit.commands.inspecting.image_arguments:write_image": "writes",
    "visionkit.commands.inspecting.image_arguments:write_tensor": "writes",
    "visionkit.interpret.arithmetic.measured_field:measure_noise": "its network is read by `open_subject`",
    "visionkit.run.sweep.plan:measure": "calls the recipe's function",
    "visionkit.run.sweep.train_runs:train_runs": "calls the recipe's function",
    "visionkit.run.sweep.train_one:train_one": "calls the recipe's function; writes why there is no result",
    "visionkit.run.training.find:find_settings": "writes",
    "visionkit.run.training.trainer:build_trainer": "names where a Trainer writes",
    "visionkit.run.callbacks.trackers:make_logger": "names where a logger writes",
    "visionkit.run.previews.caption_grounding:CaptionGrounding.__init__": "names where a file is written",
    "visionkit.predict.trained_files:find_trained": "called by `load_task` and `describe_trained`",
    "visionkit.tasks.backbones:BackboneBuilder.__init__": "called by the tasks",
    "visionkit.tasks.classification.head:make_head": "called by Classifier",
    "visionkit.tasks.detection.from_torchvision:read_detector": "called by Detector.from_torchvision",
    "visionkit.tasks.segmentation.from_torchvision:read_network": "called by Segmenter.from_torchvision",
    "visionkit.transfer:apply_transfer": "asks what an init implies",
    "visionkit.transfer:is_trained": "asks what an init implies",
    "visionkit.transfer:resolve_transfer": "asks what an init implies",
    "visionkit.data.error_list:ErrorList.__init__": "names a file in texts",
    "visionkit.data.formats.masks.cityscapes:cityscapes_labels": "called by `cityscapes_masks`",
    "visionkit.data.formats.masks.pairs:match_keys": "pairs names; opens nothing",
    "visionkit.data.formats.masks.reader:mask_splits": "takes what the layouts found",
    "visionkit.data.formats.keypoints.table:PointTable.__init__": "takes rows that were read",
    "visionkit.data.formats.coco.boxes:image_errors": "called by `check_coco`",
    "visionkit.data.formats.coco.reader:CocoReader.of_scan": "takes a file that was scanned",
    "visionkit.data.formats.folder.reader:folder_splits": "takes readers that were made",
    "visionkit.data.formats.huggingface.classes:read_huggingface_classes": "called by `open_dataset`",
    "visionkit.data.formats.labelme:count_left_out": "takes files that were read",
    "visionkit.data.formats.labelme:labelme_errors": "takes files that were read",
    "visionkit.data.formats.masks.cityscapes:cityscapes_notices": "takes what the layout found",
    "visionkit.data.formats.masks.sources:layout_notices": "takes what the layout found",
    "visionkit.data.formats.split_notices:overlap_notices": "compares names; opens nothing",
    "visionkit.data.formats.split_notices:split_notices": "takes readers that were made",
    "visionkit.data.formats.split_notices:unread_folder_notices": "lists folders; opens nothing",
    "visionkit.data.formats.split_records:split_records": "the path is named in errors",
    "visionkit.data.formats.yolo.layout:label_file": "called by `yolo`",
    "visionkit.data.formats.box_records:BoxReader.__init__": "called by the readers of boxes",
    "visionkit.data.formats.box_records:box_splits": "takes what the readers of boxes found",
    "visionkit.data.formats.captions.text_files:read_caption_lists": "called by `caption_data`",
    "visionkit.data.formats.yolo.data_yaml:class_names": "takes a document that was read",
    "visionkit.data.splits:holdout": "the path is named in errors",
    "visionkit.data.formats.box_splits:validation_split": "the path is named in errors",
    "visionkit.files:unwritable": "the path is named in errors",
    "visionkit.files:writing": "the path is named in errors",
    "visionkit.notices:check_notices": "the path is named in errors",
    "visionkit.data.read_image:to_rgb": "takes a decoded image",
    "visionkit.data.formats.csv.rows:row_notices": "takes rows that were read",
    "visionkit.data.formats.csv.rows:targets_of": "takes rows that were read",
    "visionkit.data.formats.csv.targets:target_parser": "takes rows that were read",
    "visionkit.data.formats.masks.read_mask:size_error": "called by `MaskReader`",
    "visionkit.data.formats.masks.read_mask:to_classes": "takes a decoded mask",
    "visionkit.data.formats.webdataset.reader:ShardReader.__init__": "called by `webdataset`",
    "visionkit.data.formats.packs:read_pack": "called by `open_dataset`",
    "visionkit.data.pack.index:open_index": "called by `open_pack`",
    "visionkit.data.pack.cache:ShardCache.__init__": "names where shards are fetched to",
    "visionkit.data.pack.cache:fetch_file": "writes bytes and interprets none",
    "visionkit.data.pack.reader:check_fields": "the path is named in errors",
    "visionkit.data.pack.reader:packed_splits": "takes readers that were made",
    "visionkit.data.pack.stream:StreamedReader.__init__": "called by `open_stream`",
    "visionkit.data.pack.stream:check_stream": "calls `open_stream`",
    "visionkit.data.pack.stream:open_stream": "opens no path; `open_pack` reads the same files",
    "visionkit.data.pack.layout:md5": "reads bytes and interprets none",
    "visionkit.data.pack.tar:map_shard": "reads bytes and interprets none",
    "visionkit.data.pack.record:unreadable": "the path is named in errors",
    "visionkit.data.pack.writer:pack": "writes what its reader reads",
    "visionkit.text.read_text:decode_text": "decodes bytes; the path is named in errors",
    "visionkit.data.pack.layout:write_index": "writes",
    "visionkit.data.pack.layout:write_list": "writes",
    "visionkit.data.pack.reader:PackedReader.__init__": "called by `open_pack`",
    "visionkit.retrieval.baselines:run_encoder": "read by `load_encoder`",
    "visionkit.retrieval.baselines:compared_runs": "reads what the command has just written",
    "visionkit.retrieval.baselines:trained_scores": "read by `compared_runs`",
    "visionkit.retrieval.baselines:write_scores": "writes",
    "visionkit.retrieval.build:build_index": "reads by `open_dataset`, `load_encoder` and `read_shard`",
    "visionkit.retrieval.gallery:gallery_items": "the data are read by `open_dataset`",
    "visionkit.retrieval.index:Index.__init__": "called by `load_index`",
    "visionkit.retrieval.layout:is_index": "looks for a name; opens nothing",
    "visionkit.retrieval.layout:write_shard": "writes",
    "visionkit.retrieval.sheet:file_card": "shows an image, which `read_image` reads",
    "visionkit.retrieval.sheet:write_duplicates": "writes",
    "visionkit.retrieval.sheet:write_sheet": "writes",
}


def _values() -> dict[str, Callable[[str], Any]]:
    """A value for each required parameter that is no path, by its name (or entry.name)."""
    from tests.run.tiny import TinyTask, tiny_data
    from visionkit.backbones.registry import resolve
    from visionkit.backbones.sources.base import ModelSpec
    from visionkit.data.formats.captions.collector import CaptionCollector
    from visionkit.data.formats.masks.label_map import LabelMap
    from visionkit.data.formats.open import OpenOptions
    from visionkit.data.formats.source import Source
    from visionkit.data.splits import Splits
    from visionkit.notices import NoticeCounter
    from visionkit.predict.page import Runtime
    from visionkit.run.config import RunConfig
    from visionkit.tasks import Classifier
    from visionkit.text.vocabulary import Vocabulary

    run = RunConfig(accelerator="cpu", progress=False, resume="require")
    return {
        "backbone": lambda _: "timm/test_resnet",
        "boxes": lambda _: Source(lambda _: Splits({}, {}, ("x",)), lambda _: []),
        "by": lambda _: ["lr"],
        "config": lambda entry: run if entry.endswith(":fit") else RunConfig,
        "counter": lambda _: NoticeCounter(),
        "channels": lambda _: 3,
        "data": lambda _: tiny_data(),
        "dropped": lambda _: _faults(),
        "errors": lambda _: _faults(),
        "collector": lambda _: CaptionCollector(Path("x"), max_dropped=1.0),
        "image_size": lambda _: 32,
        "kind": lambda _: Classifier,
        "labels": lambda _: LabelMap.of(("a", "b")),
        "levels": lambda _: ("pooled",),
        "load": lambda _: lambda recipe: None,
        "main": lambda _: lambda config: None,
        "name": lambda entry: {
            "visionkit.tasks.detection.task:Detector.from_torchvision": "fasterrcnn_resnet50_fpn",
            "visionkit.tasks.segmentation.task:Segmenter.from_torchvision": "fcn_resnet50",
        }.get(entry, "timm/test_resnet"),
        "max_dropped": lambda _: 0.1,
        "names": lambda _: ["x"],
        "notes": lambda _: _faults(),
        "num_classes": lambda _: 3,
        "skeleton": lambda _: ["nose", "tail"],
        "options": lambda _: OpenOptions(target=None),
        "outlines": lambda _: True,
        "report": lambda _: lambda text: None,
        "runtime": lambda _: Runtime("1.30.0", b"", b""),
        "row": lambda _: {"image": "figures/val/000.png"},
        "sections": lambda _: ("images", "annotations"),
        "source": lambda _: resolve("timm/test_resnet", ModelSpec(""))[0],
        "spec": lambda _: resolve("timm/test_resnet", ModelSpec(""))[1],
        "split": lambda _: "val",
        "task": lambda entry: (
            "classification" if "FolderData" in entry or "webdataset" in entry else TinyTask()
        ),
        "vocabulary": lambda _: Vocabulary(["a", "dog"]),
        "weights_only": lambda _: True,
        "which": lambda _: "best",
    }


def _faults() -> Any:
    return importlib.import_module("visionkit.data.formats.coco.records").ErrorList("x")


def is_path(parameter: inspect.Parameter) -> bool:
    kind = str(parameter.annotation)
    if "Callable" in kind:
        return False
    return "Path" in kind or kind == "Init" or parameter.name in PATH_NAMES


def entries(left_out: Collection[str] = tuple(NO_LOADERS)) -> dict[str, Any]:
    """The public functions, constructors and methods with a path among their parameters, by full name."""
    found: dict[str, Any] = {}
    for module in pkgutil.walk_packages(visionkit.__path__, "visionkit."):
        if "_recipes" in module.name:
            continue
        loaded = importlib.import_module(module.name)
        for name in getattr(loaded, "__all__", ()):
            value = getattr(loaded, name, None)
            if getattr(value, "__module__", None) != module.name:
                continue
            for label, call in _calls(name, value):
                full = f"{module.name}:{label}"
                if full in left_out:
                    continue
                if any(is_path(parameter) for parameter in inspect.signature(call).parameters.values()):
                    found[full] = (full, call)
    return found


def _calls(name: str, value: Any) -> list[tuple[str, Any]]:
    if inspect.isfunction(value):
        return [(name, value)]
    if not inspect.isclass(value) or issubclass(value, BaseException):
        return []
    made: list[tuple[str, Any]] = []
    if not dataclasses.is_dataclass(value) and "__init__" in vars(value):  # a dataclass only keeps values
        made.append((f"{name}.__init__", value))
    for label in dir(value):
        inherited = label == "load_from_checkpoint" and issubclass(value, lightning.LightningModule)
        if label.startswith("_") or not (label in vars(value) or inherited):
            continue
        member = getattr(value, label)
        if inspect.ismethod(member):
            made.append((f"{name}.{label}", member))
        elif inspect.isfunction(member) and ("__init__" not in vars(value) or label == "load_checkpoint"):
            made.append((f"{name}.{label}", _bound(value, label)))
    return made


def _bound(kind: type, label: str) -> Any:
    try:
        return getattr(kind(), label)
    except TypeError:
        return lambda: None


def missing_values(entry: tuple[str, Any]) -> list[str]:
    """Required parameters that are neither paths nor have a value here."""
    known = _values()
    return [parameter.name for parameter in _required(entry) if parameter.name not in known]


def _required(entry: tuple[str, Any]) -> list[inspect.Parameter]:
    return [
        parameter
        for parameter in inspect.signature(entry[1]).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and not is_path(parameter)
    ]


def attempts(entry: tuple[str, Any], file: Path | str, folder: Path | str) -> list[Callable[[], Any]]:
    """The calls that give a function a hostile file, and a folder that is full of it, for its paths."""
    full, call = entry
    values = _values()
    wanted = inspect.signature(call).parameters
    made = []
    for path in (file, folder):
        settings: dict[str, Any] = {p.name: values[p.name](full) for p in _required(entry)}
        for name, parameter in wanted.items():
            if is_path(parameter) and (
                parameter.default is parameter.empty or name in ("argv", "init", "hparams_file")
            ):
                settings[name] = _path(full, name, path)
        if "hparams_file" in wanted:
            made.append(lambda settings=settings, path=path: call(**settings, hparams_file=path))
        made.append(lambda settings=settings: _used(call(**settings)))
    return made


def _path(full: str, name: str, path: Path | str) -> Any:
    if name == "folder" and full.endswith(":publish"):
        return f"{path}-published"
    if name in ("files", "folders"):
        return [path]
    if name == "argv":
        verb = full.split(":")[0].rsplit(".", 1)[1]
        if verb == "cli":
            return ["check", str(path)]
        if verb in ("command_line", "launch"):
            return ["--config", str(path)]
        if verb == "publish":
            return [str(path), f"{path}-published"]
        if verb == "run":
            return ["classify", "--config", str(path)]
        if verb == "index":
            return [str(path), "--backbone", str(path), "--out", f"{tempfile.mkdtemp()}/index"]
        if verb == "search":
            return [str(path), str(path)]
        if verb == "page":
            return [str(path), f"{tempfile.mkdtemp()}/page", "--runtime", str(path)]
        return [str(path)]
    if full.endswith(":write_page") and name == "folder":
        return f"{tempfile.mkdtemp()}/page"
    return path


def _used(made: Any) -> Any:
    """Take the first sample of what a function gave, where it gave a reader."""
    for reader in (made, getattr(made, "train", None)):
        if (
            hasattr(reader, "__getitem__")
            and hasattr(reader, "__len__")
            and not isinstance(reader, str | dict)
        ):
            for index in range(min(3, len(reader))):
                _ = reader[index]
    return made
