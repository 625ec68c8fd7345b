"""Measure the layout and the names of the code: `python -m tests.house_measures`.

Sizes and repeated lines are counted in the sources, words against the installed sources of the libraries that
readers know, and the length of the way from a recipe to a step by running one.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from types import FrameType
from typing import Any

from tests.syntax import parse_file, walk

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "visionkit"
FIELD = ("torch", "torchvision", "timm", "lightning", "torchmetrics")
SHARED_LINES = 6
LONG_FUNCTION = 50


def sources(package: Path) -> list[Path]:
    """The modules of a package, without its tests."""
    left_out = {"testing", "tests", "_recipes"}
    return sorted(p for p in package.rglob("*.py") if not left_out & set(p.relative_to(package).parts))


def words(package: Path) -> Counter[str]:
    """How often each word occurs in the names that a package binds (functions, arguments, variables)."""
    counted: Counter[str] = Counter()
    for path in sources(package):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            counted.update(word for name in bound(node) for word in split_words(name))
    return counted


def bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.id if isinstance(node, ast.Name) else node.attr


def split_words(name: str) -> list[str]:
    parts = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+", name)
    return [part.lower() for part in parts if len(part) > 1]


def unknown_words(ours: Counter[str], known: set[str]) -> tuple[float, Counter[str]]:
    """The share of a package's words that the others never use, and those words."""
    strange = Counter({word: count for word, count in ours.items() if word not in known})
    return strange.total() / ours.total(), strange


def largest_folder(package: Path) -> tuple[str, int]:
    folders = Counter(path.parent for path in sources(package) if path.name != "__init__.py")
    folder, count = folders.most_common(1)[0]
    return folder.relative_to(package.parent).as_posix(), count


def logic_lines(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    """Lines of a function without signature, docstring, blank lines and comments."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    if not body:
        return 0
    inside = lines[body[0].lineno - 1 : node.end_lineno]
    return sum(1 for line in inside if line.strip() and not line.strip().startswith("#"))


def long_functions(package: Path) -> list[str]:
    found = []
    for path in sources(package):
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in walk(parse_file(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = logic_lines(node, lines)
                if count > LONG_FUNCTION:
                    found.append(f"{path.relative_to(package).as_posix()}:{node.name} ({count})")
    return found


def repeated_runs(folder: Path, lines_of: Callable[[Path], list[str]]) -> list[str]:
    """Pairs of files below a folder that share six or more lines in a row."""
    kept = {path: lines_of(path) for path in sources(folder)}
    found = []
    for one, other in combinations(sorted(kept), 2):
        runs = {tuple(kept[one][i : i + SHARED_LINES]) for i in range(len(kept[one]) - SHARED_LINES + 1)}
        theirs = kept[other]
        if any(tuple(theirs[i : i + SHARED_LINES]) in runs for i in range(len(theirs) - SHARED_LINES + 1)):
            found.append(f"{one.relative_to(folder)} ~ {other.relative_to(folder)}")
    return found


def repeated_logic(package: Path) -> list[str]:
    """What the tasks do in the same way stands once, in their hooks."""
    return [f"{pair} share six lines" for pair in repeated_runs(package / "tasks", logic_only)]


def logic_only(path: Path) -> list[str]:
    """The lines inside of functions and methods, without signatures and docstrings."""
    text = path.read_text(encoding="utf-8")
    lines, inside = text.splitlines(), set[int]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            inside |= {number for part in body for number in range(part.lineno, (part.end_lineno or 0) + 1)}
    kept = (" ".join(lines[number - 1].split()) for number in sorted(inside))
    return [line for line in kept if len(line) > 1 and not line.startswith("#")]


def code_lines(path: Path) -> list[str]:
    """The lines of a file without imports, comments and blank ones; signatures and docstrings count."""
    lines = (" ".join(line.split()) for line in path.read_text(encoding="utf-8").splitlines())
    skipped = ("import ", "from ", "#", '"""')
    return [line for line in lines if len(line) > 1 and not line.startswith(skipped)]


class Trace:
    """Own files in which a function ran, and the own frames of the stack when `reached` first says so."""

    def __init__(self, reached: Callable[[FrameType], bool]) -> None:
        self.reached = reached
        self.files: set[str] = set()
        self.stack: list[str] = []

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if self.stack or event != "call":
            return
        if own(frame) and frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # no body of a module or a class
            self.files.add(frame.f_code.co_filename)
        if self.reached(frame):
            caller: FrameType | None = frame
            while caller is not None:
                if own(caller):
                    name = Path(caller.f_code.co_filename).relative_to(ROOT).as_posix()
                    self.stack.insert(0, f"{name}:{caller.f_code.co_name}")
                caller = caller.f_back

    def run(self, work: Callable[[], object]) -> None:
        sys.setprofile(self)
        try:
            work()
        finally:
            sys.setprofile(None)


def own(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return name.startswith((str(PACKAGE), str(ROOT / "recipes")))


def recipe_to_step() -> Trace:
    """Run `recipes/classify.py` on scenes up to its first optimiser step."""
    import torch

    step = torch.optim.Adam.step.__code__, torch.optim.AdamW.step.__code__
    trace = Trace(lambda frame: frame.f_code in step or frame.f_code.co_name == "adamw")
    with tempfile.TemporaryDirectory() as out:
        arguments = "--init scratch --seeds 0 --epochs 1 --batch_size 8 --jobs 1"
        arguments += " --scenes.train_size 16 --scenes.val_size 8"
        argv = [*arguments.split(), "--image_size", "32", "--progress", "false", "--out", out]
        sys.argv = ["classify.py", *argv]
        spec = importlib.util.spec_from_file_location("__main__", ROOT / "recipes" / "classify.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        main_module = sys.modules["__main__"]
        sys.modules["__main__"] = module  # where the parser looks for the types of the recipe's settings
        try:
            with contextlib.suppress(SystemExit):
                trace.run(lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
        finally:
            sys.modules["__main__"] = main_module
    return trace


def coco_to_loss() -> Trace:
    """Open a COCO file, make a batch, and compute a loss."""
    import torch

    from tests.data.test_open import coco
    from visionkit.data import DataModule, list_batch, open_dataset
    from visionkit.data.transforms.detection import detection_eval, detection_train
    from visionkit.tasks import Detector

    torch.manual_seed(0)
    task = Detector("timm/test_resnet", init="scratch", num_classes=1, pyramid_channels=16)
    trace = Trace(lambda frame: False)
    with tempfile.TemporaryDirectory() as folder:
        coco(Path(folder))

        def work() -> None:
            splits = open_dataset(folder, "detection")
            data = DataModule(
                splits, batch_size=2, train_transform=detection_train(64), eval_transform=detection_eval(64),
                collate=list_batch,
            )  # fmt: skip
            batch = next(iter(data.train_dataloader()))
            task.training_step(batch, 0)

        trace.run(work)
    return trace


def main() -> None:
    """Print the table."""
    vocabulary = {name: words(Path(importlib.util.find_spec(name).origin).parent) for name in FIELD}  # type: ignore
    ours, strange = unknown_words(words(PACKAGE), set().union(*vocabulary.values()))
    peers = {
        name: unknown_words(
            vocabulary[name], set().union(*(vocabulary[other] for other in FIELD if other != name))
        )[0]
        for name in ("torchmetrics", "timm")
    }
    folder, modules = largest_folder(PACKAGE)
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in sources(PACKAGE))
    step, loss = recipe_to_step(), coco_to_loss()
    long, logic = long_functions(PACKAGE), repeated_runs(PACKAGE / "tasks", logic_only)
    repeated = repeated_runs(PACKAGE / "tasks", code_lines)
    rows = {
        "modules in the largest flat folder": f"{modules} ({folder})",
        "lines, files": f"{lines:,}, {len(sources(PACKAGE))}",
        "words of names unknown to the field": f"{ours:.1%} "
        + f"({', '.join(f'{name} {share:.1%}' for name, share in peers.items())}); most used: "
        + ", ".join(f"{word} {count}" for word, count in strange.most_common(12)),
        "own frames from recipe to optimiser step": f"{len(step.stack)}: {' > '.join(step.stack)}",
        "own files run before step 1": str(len(step.files)),
        "own files from a COCO file to a loss": str(len(loss.files)),
        f"functions above {LONG_FUNCTION} lines of logic": f"{len(long)}: {', '.join(long)}",
        "pairs of files in tasks/ that share six lines": f"{len(repeated)}: {', '.join(repeated)}",
        "of these, six lines of logic": f"{len(logic)}: {', '.join(logic)}",
    }
    for name, value in rows.items():
        print(f"{name:<48} {value}")


if __name__ == "__main__":
    main()
