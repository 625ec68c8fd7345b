"""The house rules: each a function over a tree that returns what breaks it."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from tests.house_measures import bound as names_bound_by
from tests.house_measures import long_functions, repeated_logic, split_words
from tests.private_names import names_of_others
from tests.string_fragments import stray_fragments
from tests.syntax import dotted, parse_file, walk

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "visionkit"
# A module may import those of the same or an earlier layer.
LAYERS = (
    ("errors", "printable"), ("files", "rng", "distributed", "compat", "forking"),
    ("types", "config", "task_config", "pixels", "notices"), ("text", "drawing"), ("backbones",), ("nn",),
    ("metrics",), ("data",), ("optim",), ("transfer",), ("tasks",), ("compare",), ("run",),
    ("predict",), ("retrieval",), ("interpret",), ("watch",), ("commands",), ("cli",),
)  # fmt: skip
# What a layer may not import although it stands earlier.
APART = {"data": {"backbones", "nn"}, "metrics": {"backbones", "nn", "data"}}
# nn may take the protocol of levels from backbones, and nothing else.
NARROW = {("nn", "backbones"): {"visionkit.backbones.level"}}
MAX_LINES = 400
MAX_MODULES = 15  # in one folder
# Everyday words in names of code for which the field has a term, with that term.
BANNED_WORDS = {
    "picture": "image", "pictures": "images", "thaw": "unfreeze", "tally": "running sums", "taps": "hooks",
    "marks": "special tokens", "said": "predictions", "say": "generate", "told": "messages", "tell": "check",
    "wish": "request", "door": "reader", "honest": "exact", "crooked": "unaligned", "strange": "unexpected",
    "lacking": "missing", "brought": "resolved", "taught": "teacher forcing", "looks": "attention",
    "kin": "related", "wanted": "expected, targets", "kept": "remaining, saved", "several": "multiple",
    "least": "min", "most": "max", "spare": "unused", "share": "fraction", "shares": "fractions",
    "goes": "runs", "stands": "is", "found": "detections, matches, names: what was found",
    "place": "index, position, path",
}  # fmt: skip
# Calls that read or run what a file says. Each exception has its reason.
FORBIDDEN_CALLS = {
    "torch.load": "unpickles: use visionkit.run.storage.checkpoint or visionkit.backbones.weights",
    "pickle.load": "runs code", "pickle.loads": "runs code", "eval": "runs code", "exec": "runs code",
    "yaml.load": "runs code: use safe_load", "yaml.unsafe_load": "runs code",
    "os.system": "a shell", "marshal.loads": "runs code",
    "yaml.full_load": "gives functions: use safe_load", "yaml.load_all": "runs code: use safe_load_all",
    "pickle.Unpickler": "runs code", "marshal.load": "runs code", "shelve.open": "unpickles",
    "torch.serialization.load": "unpickles", "torch.jit.load": "runs code", "torch.hub.load": "runs code",
    "torch.export.load": "unpickles", "torch.package.PackageImporter": "runs code", "os.popen": "a shell",
    "joblib.load": "unpickles", "dill.load": "unpickles", "dill.loads": "unpickles",
    "cloudpickle.load": "unpickles", "cloudpickle.loads": "unpickles", "subprocess.getoutput": "a shell",
}  # fmt: skip
ALLOWED_CALLS = {
    ("run/storage/checkpoint.py", "torch.load"): "the one loader of checkpoints; weights_only=True",
    ("backbones/weights.py", "torch.load"): "the one reader of weights; weights_only=True",
}
# Public functions that take **kwargs, each with its reason.
OPEN_KEYWORDS = {
    "metrics/running_sums.py:add": "the names are those that the sums were made with; others are refused",
    **dict.fromkeys(
        (
            f"metrics/{name}.py:__init__"
            for name in (
                *("base", "captioning", "classification", "detection", "segmentation"),
                *("embedding/images", "embedding/retrieval", "embedding/verification"),
                *("keypoints/average_precision", "keypoints/distances"),
            )
        ),
        "the settings of torchmetrics.Metric, which refuses others",
    ),
    "tasks/hooks.py:load_from_checkpoint": "overrides Lightning's method of that signature",
    **{
        f"tasks/hub.py:{name}": "overrides huggingface_hub's method of that signature"
        for name in ("save_pretrained", "from_pretrained", "generate_model_card", "__new__")
    },
    **{
        f"tasks/{name}/task.py:compile": "overrides torch's method of that signature"
        for name in ("captioning", "detection", "keypoints", "segmentation")
    },
}
Tree = dict[str, ast.Module]
Rule = Callable[[Path], list[str]]


@cache
def parse(package: Path) -> Tree:
    """Every module below `package`, by its path relative to it; not `__main__.py`, which only starts."""
    return {
        path.relative_to(package).as_posix(): parse_file(path)
        for path in sorted(package.rglob("*.py"))
        if "_recipes" not in path.parts and path.name != "__main__.py"
    }


def module_name(path: str) -> str:
    parts = path.removesuffix(".py").split("/")
    return ".".join(["visionkit", *(parts[:-1] if parts[-1] == "__init__" else parts)])


def imports(tree: ast.AST, path: str, *, types: bool = True) -> Iterator[tuple[str, int]]:
    """Imported modules with line, in functions too; without `types`, not those of TYPE_CHECKING blocks."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            if types:
                yield from imports(ast.Module(node.body, []), path, types=types)
            yield from imports(ast.Module(node.orelse, []), path, types=types)
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module_name(path).split(".")
                keep = len(here) - node.level + (1 if path.endswith("__init__.py") else 0)
                base = ".".join([*here[:keep], *([node.module] if node.module else [])])
            # `from package import module` may import the module itself: name both.
            yield base, node.lineno
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)
        else:
            yield from imports(node, path, types=types)


def layer(module: str) -> int | None:
    parts = module.split(".")
    if parts[0] != "visionkit" or len(parts) < 2:
        return None
    return next((number for number, names in enumerate(LAYERS) if parts[1] in names), None)


def layer_order(package: Path) -> list[str]:
    found = []
    for path, tree in parse(package).items():
        mine = layer(module_name(path))
        if mine is None:
            if path != "__init__.py":
                found.append(f"{path}: stands in no layer")
            continue
        own = module_name(path).split(".")[1]
        for name, line in imports(tree, path):
            if name.split(".")[0] == "recipes":
                found.append(f"{path}:{line}: the library imports recipes")
            if name.split(".")[0] != "visionkit":
                continue
            theirs, other = layer(name), name.split(".")[1:2]
            narrow = NARROW.get((own, *other)) if other else None
            if theirs is not None and theirs > mine:
                found.append(f"{path}:{line}: {own} imports {name} of a later layer")
            elif other and other[0] in APART.get(own, ()):
                found.append(f"{path}:{line}: {own} may not import {name}")
            elif narrow and not any(name == allowed or name.startswith(f"{allowed}.") for allowed in narrow):
                found.append(f"{path}:{line}: {own} may import only {', '.join(sorted(narrow))}, not {name}")
    return found


def import_cycles(package: Path) -> list[str]:
    trees = parse(package)
    names = {module_name(path) for path in trees}
    graph = {
        module_name(path): sorted(
            {n for n, _ in imports(tree, path, types=False) if n in names} - {module_name(path)}
        )
        for path, tree in trees.items()
    }
    # `from package import name` reaches the package's __init__, which imports its modules: that is no cycle
    # of meaning if the importer lies inside the package and names the module itself.
    for name, targets in graph.items():
        graph[name] = [t for t in targets if not name.startswith(f"{t}.")]
    found, done = [], set()

    def follow(name: str, trail: list[str]) -> None:
        if name in trail:
            found.append(" -> ".join([*trail[trail.index(name) :], name]))
            return
        if name not in done:
            for target in graph[name]:
                follow(target, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        follow(name, [])
    return found


def long_files(package: Path) -> list[str]:
    return [
        f"{path.relative_to(package)}: {count} lines"
        for path in sorted(package.rglob("*.py"))
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    ]


def crowded_folders(package: Path) -> list[str]:
    folders = Counter(path.rpartition("/")[0] for path in parse(package) if not path.endswith("__init__.py"))
    return [
        f"{name or package.name}: {count} modules"
        for name, count in sorted(folders.items())
        if count > MAX_MODULES
    ]


def banned_words(package: Path) -> list[str]:
    found = []
    for path, tree in parse(package).items():
        for node in walk(tree):
            for name in names_bound_by(node):
                for word in split_words(name):
                    if word in BANNED_WORDS:
                        line = getattr(node, "lineno", 0)
                        found.append(f"{path}:{line}: {name}: for {word!r} say {BANNED_WORDS[word]!r}")
    return found


def exports(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and target.id == "__all__" and isinstance(value, ast.List):
            return [str(item.value) for item in value.elts if isinstance(item, ast.Constant)]
    return None


def all_lists(package: Path) -> list[str]:
    found = []
    for path, tree in parse(package).items():
        names = exports(tree)
        if path.endswith("__init__.py") and not tree.body[1:]:
            continue  # a folder with a name, and nothing to export
        if names is None:
            found.append(f"{path}: no __all__")
            continue
        # ruff's order: constants, classes, functions, each by name.
        key = lambda name: (not name.isupper(), not name[:1].isupper(), name)  # noqa: E731
        if names != sorted(names, key=key):
            found.append(f"{path}: __all__ is not sorted")
        defined = {name for node in walk(tree) for name in bound(node)}
        lazy = any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)
        found += [
            f"{path}: __all__ names {name}, which is not there"
            for name in names
            if name not in defined and not lazy
        ]
    return found


def bound(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def public(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.ClassDef, bool]]:
    """Exported functions and classes, and the public methods of exported classes (True: a method)."""
    names = set(exports(tree) or ())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names:
            yield node, False
            if isinstance(node, ast.ClassDef):
                for item in node.body:
                    if isinstance(item, ast.FunctionDef) and (
                        not item.name.startswith("_") or item.name == "__init__"
                    ):
                        yield item, True


def documented(package: Path) -> list[str]:
    found = []
    for path, tree in parse(package).items():
        if not ast.get_docstring(tree):
            found.append(f"{path}: no docstring")
        for node, _ in public(tree):
            overload = any("overload" in ast.dump(d) or "setter" in ast.dump(d) for d in node.decorator_list)
            if node.name != "__init__" and not overload and not ast.get_docstring(node):
                found.append(f"{path}:{node.lineno}: {node.name} has no docstring")
    return found


def annotated(package: Path) -> list[str]:
    found = []
    for path, tree in parse(package).items():
        for node, method in public(tree):
            if not isinstance(node, ast.FunctionDef):
                continue
            spec = node.args
            named = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *filter(None, (spec.vararg,))]
            static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
            named = named[1:] if method and not static else named
            bare = [item.arg for item in named if item.annotation is None]
            if bare or node.returns is None:
                what = ", ".join(bare) or "return"
                found.append(f"{path}:{node.lineno}: {node.name} lacks annotations: {what}")
            if spec.kwarg is not None and f"{path}:{node.name}" not in OPEN_KEYWORDS:
                found.append(f"{path}:{node.lineno}: {node.name} takes **{spec.kwarg.arg}")
    return found


def origins(tree: ast.AST) -> dict[str, str]:
    """What each imported name of a module stands for, so that no alias hides a call."""
    known = {}
    for node in walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return known


def named(node: ast.AST, known: dict[str, str]) -> str:
    """The full name that a name, an attribute or a `getattr` of a constant stands for."""
    if isinstance(node, ast.Call) and dotted(node.func) == "getattr" and len(node.args) >= 2:
        owner, label = node.args[:2]
        return f"{named(owner, known)}.{label.value}" if isinstance(label, ast.Constant) else ""
    if not isinstance(node, ast.Attribute | ast.Name):
        return ""
    first, dot, rest = dotted(node).partition(".")
    return known.get(first, first) + dot + rest


def forbidden_calls(package: Path) -> list[str]:
    found = []
    for path, tree in parse(package).items():
        known = origins(tree)
        for node in walk(tree):
            # Not only calls: what is kept under another name can be called later.
            reference = named(node, known).removeprefix("builtins.")
            if reference in FORBIDDEN_CALLS and (path, reference) not in ALLOWED_CALLS:
                found.append(f"{path}:{node.lineno}: {reference}: {FORBIDDEN_CALLS[reference]}")
            if isinstance(node, ast.Assert):
                found.append(f"{path}:{node.lineno}: assert: raise an error that says what to do")
            if not isinstance(node, ast.Call):
                continue
            name = named(node.func, known) or dotted(node.func)
            if name.endswith(".extractall") or name.endswith("_load_from_bytes"):
                found.append(f"{path}:{node.lineno}: {name}: writes wherever the archive says")
            for keyword in node.keywords:
                truth = isinstance(keyword.value, ast.Constant) and keyword.value.value
                if (keyword.arg, truth) in (("shell", True), ("weights_only", False), ("allow_pickle", True)):
                    found.append(f"{path}:{node.lineno}: {name}({keyword.arg}={truth})")
            if name == "torch.load" and not any(k.arg == "weights_only" for k in node.keywords):
                found.append(f"{path}:{node.lineno}: torch.load without weights_only=True")
    return found


def private_touches(package: Path) -> list[str]:
    return names_of_others(parse(package))


def other_habits(package: Path) -> list[str]:
    found = long_functions(package)
    found += [
        f"{path}: no utils" for path in parse(package) if re.search(r"(^|/)(utils?|helpers?|misc)\.py$", path)
    ]
    for path, tree in parse(package).items():
        for node in walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
                if any(isinstance(d, ast.List | ast.Dict | ast.Set) for d in defaults):
                    found.append(f"{path}:{node.lineno}: {node.name} has a mutable default")
    return found


_IMPORT = re.compile(r"^ *from (visionkit[\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)


def page_imports(root: Path) -> Iterator[tuple[Path, str, list[str]]]:
    """Each import from visionkit in a recipe or a docs page: the file, the module and the names."""
    pages = [path for folder in ("recipes", "docs") for path in (root / folder).rglob("*.*")]
    for page in sorted(path for path in (*pages, root / "README.md") if path.suffix in (".py", ".md")):
        for module, names in _IMPORT.findall(page.read_text(encoding="utf-8")) if page.exists() else ():
            # A comment ends a line; `as` gives a name that only the page knows.
            yield page, module, re.findall(r"\w+", re.sub(r"#[^\n]*|\bas \w+", "", names.strip("()")))


def public_surface(package: Path) -> list[str]:
    """What recipes and docs import must be exported by a package, so that the reference describes it."""
    found = []
    for page, module, names in page_imports(package.parent):
        base = package.parent.joinpath(*module.split("."))
        single = module.count(".") == 1 and not base.is_dir()
        home = base.with_suffix(".py") if single else base / "__init__.py"
        exported = (exports(parse_file(home)) or []) if home.exists() else []
        where = page.relative_to(package.parent)
        found += [f"{where}: {module} does not export {name}" for name in names if name not in exported]
    return found


RULES: tuple[Rule, ...] = (
    layer_order, import_cycles, long_files, crowded_folders, banned_words, stray_fragments, all_lists,
    documented, annotated, forbidden_calls, private_touches, other_habits, public_surface, repeated_logic,
)  # fmt: skip
