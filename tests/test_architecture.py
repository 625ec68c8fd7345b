"""The house rules hold for the package, and a planted fault proves that each of them bites."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house_rules import (
    ALLOWED_CALLS,
    LAYERS,
    OPEN_KEYWORDS,
    PACKAGE,
    ROOT,
    RULES,
    Rule,
    all_lists,
    annotated,
    banned_words,
    crowded_folders,
    documented,
    forbidden_calls,
    import_cycles,
    layer_order,
    long_files,
    other_habits,
    page_imports,
    parse,
    private_touches,
    public_surface,
    repeated_logic,
    stray_fragments,
)
from tests.syntax import dotted, walk

PLANTED = [
    (layer_order, "data/bad.py", "from visionkit.tasks import Classifier\n", "later layer"),
    (layer_order, "data/bad.py", "from ..backbones import create\n", "may not import visionkit.backbones"),
    (layer_order, "nn/bad.py", "from visionkit.backbones.registry import resolve\n", "may import only"),
    (layer_order, "tasks/bad.py", "def f():\n    import recipes.classify\n", "imports recipes"),
    (layer_order, "stray.py", "", "stands in no layer"),
    (
        import_cycles,
        "nn/a.py",
        "from visionkit.nn.b import x\n",
        "visionkit.nn.a -> visionkit.nn.b -> visionkit.nn.a",
    ),
    (import_cycles, "nn/a.py", "from .b import x\n", "visionkit.nn.a -> visionkit.nn.b -> visionkit.nn.a"),
    (
        import_cycles,
        "nn/a.py",
        "def f():\n    from visionkit.nn.b import x\n",
        "visionkit.nn.a -> visionkit.nn.b -> visionkit.nn.a",
    ),
    (crowded_folders, " ".join(f"nn/m{number}.py" for number in range(15)), "", "nn: 16 modules"),
    (banned_words, "nn/bad.py", "def f(picture): ...\n", "picture: for 'picture' say 'image'"),
    (banned_words, "nn/bad.py", "class LeastScore: ...\n", "for 'least' say 'min'"),
    (banned_words, "nn/bad.py", "loss_tally = 1\n", "for 'tally'"),
    (
        stray_fragments,
        "nn/bad.py",
        "x = (\n    'a string of many words that '\n    f'goes '\n    'on and on'\n)\n",
        "stands alone",
    ),
    (long_files, "nn/bad.py", "\n" * 401, "401 lines"),
    (all_lists, "nn/bad.py", "x = 1\n", "no __all__"),
    (all_lists, "nn/bad.py", "__all__ = ['b', 'a']\na = b = 1\n", "not sorted"),
    (all_lists, "nn/bad.py", "__all__ = ['gone']\n", "names gone"),
    (documented, "nn/bad.py", "'''Doc.'''\n__all__ = ['f']\ndef f() -> None: ...\n", "f has no docstring"),
    (documented, "nn/bad.py", "__all__ = []\n", "no docstring"),
    (annotated, "nn/bad.py", "__all__ = ['f']\ndef f(x) -> None: ...\n", "lacks annotations: x"),
    (annotated, "nn/bad.py", "__all__ = ['f']\ndef f(x: int): ...\n", "lacks annotations: return"),
    (
        annotated,
        "nn/bad.py",
        "__all__ = ['A']\nclass A:\n  def f(self, **k: int) -> None: ...\n",
        "takes **k",
    ),
    (forbidden_calls, "nn/bad.py", "import torch\ntorch.load('x', weights_only=True)\n", "unpickles"),
    (forbidden_calls, "run/storage/checkpoint.py", "import torch\ntorch.load('x')\n", "without weights_only"),
    (forbidden_calls, "nn/bad.py", "import pickle\npickle.loads(b'')\n", "runs code"),
    (forbidden_calls, "nn/bad.py", "eval('1')\n", "runs code"),
    (forbidden_calls, "nn/bad.py", "from pickle import loads as read\nread(b'')\n", "pickle.loads"),
    (forbidden_calls, "nn/bad.py", "import torch as t\nf = t.load\n", "torch.load: unpickles"),
    (forbidden_calls, "nn/bad.py", "import torch\ngetattr(torch, 'load')('x')\n", "torch.load: unpickles"),
    (forbidden_calls, "nn/bad.py", "from yaml import full_load\nfull_load('1')\n", "safe_load"),
    (forbidden_calls, "nn/bad.py", "import builtins\nbuiltins.exec('1')\n", "runs code"),
    (forbidden_calls, "nn/bad.py", "import numpy as np\nnp.load('x', allow_pickle=True)\n", "allow_pickle"),
    (forbidden_calls, "nn/bad.py", "import yaml\nyaml.load('1')\n", "safe_load"),
    (forbidden_calls, "nn/bad.py", "archive.extractall('.')\n", "writes wherever"),
    (forbidden_calls, "nn/bad.py", "run('ls', shell=True)\n", "shell=True"),
    (forbidden_calls, "nn/bad.py", "def f(x):\n    assert x\n", "assert"),
    (
        private_touches,
        "run/bad.py",
        "def f(trainer):\n    trainer._signal_connector.x()\n",
        "_signal_connector",
    ),
    (private_touches, "nn/bad.py", "def f(m):\n    return getattr(m, '_hidden', None)\n", "_hidden"),
    (private_touches, "nn/bad.py", "def f(m):\n    m.__dict__['_modules'] = {}\n", "_modules"),
    (private_touches, "nn/bad.py", "from timm.models._registry import x\n", "_registry"),
    (private_touches, "nn/bad.py", "import torch\ntorch._C.x()\n", "_C is another"),
    (private_touches, "nn/bad.py", "from torch.nn.modules.utils import _pair\n", "_pair is another"),
    (other_habits, "nn/utils.py", "", "no utils"),
    (other_habits, "nn/bad.py", "def f(x=[]): ...\n", "mutable default"),
    (other_habits, "nn/bad.py", "def f():\n" + "    x = 1\n" * 51, "f (51)"),
    (
        repeated_logic,
        "tasks/a.py tasks/b.py",
        "def f(x):\n" + "".join(f"    x = g{number}(x)\n" for number in range(6)),
        "a.py ~ b.py share six lines",
    ),
    (public_surface, "../recipes/bad.py", "def f():\n    from visionkit.nn.b import y\n", "export y"),
    (public_surface, "../docs/how-to/bad.md", "from visionkit.nn import (\n    y,  # x\n)\n", "export y"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    assert len(parse(PACKAGE)) > 30, "the walk found the package"
    assert rule(PACKAGE) == []


@pytest.mark.parametrize(("rule", "path", "text", "named"), PLANTED)
def test_the_rule_bites(tmp_path: Path, rule: Rule, path: str, text: str, named: str) -> None:
    package = tmp_path / "visionkit"
    files = {"nn/b.py": "from visionkit.nn.a import y\n"} | dict.fromkeys(path.split(), text)
    for name, content in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(content)
    found = rule(package)
    assert any(named in item for item in found), found


def test_the_recipes_call_nothing_that_runs_what_a_file_says() -> None:
    assert len(parse(ROOT / "recipes")) >= 3
    assert forbidden_calls(ROOT / "recipes") == []


@pytest.mark.parametrize("folder", ["docs", "recipes", "tests"])
def test_files_beside_the_package_are_short_too(folder: str) -> None:
    assert len(list((ROOT / folder).rglob("*.py"))) >= 3
    assert long_files(ROOT / folder) == []


def test_the_walk_finds_the_imports_of_recipes_and_docs() -> None:
    seen = list(page_imports(ROOT))
    assert len({page for page, _, _ in seen}) >= 15
    assert sum(len(names) for _, _, names in seen) >= 100


def test_each_rule_has_a_planted_violation() -> None:
    assert {rule for rule, *_ in PLANTED} == set(RULES)


def test_allowed_calls_are_still_made() -> None:
    for path, name in ALLOWED_CALLS:
        calls = [dotted(n.func) for n in walk(parse(PACKAGE)[path]) if isinstance(n, ast.Call)]
        assert name in calls, f"{path} no longer calls {name}: take it off the list"


def test_lists_of_the_rules_name_what_is_there() -> None:
    """A layer or an exception under an old name would let through what it was meant to catch."""
    modules = {path.partition("/")[0].removesuffix(".py") for path in parse(PACKAGE)} - {"__init__"}
    assert sorted(name for names in LAYERS for name in names) == sorted(modules)
    open_functions = {
        f"{path}:{node.name}"
        for path, tree in parse(PACKAGE).items()
        for node in walk(tree)
        if isinstance(node, ast.FunctionDef) and node.args.kwarg
    }
    assert OPEN_KEYWORDS.keys() - open_functions == set()


@pytest.mark.slow  # half a minute; the session `types`, of every plain `nox`, says the same
def test_types_are_strict() -> None:
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache"), "-p", "visionkit"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_importing_the_package_or_any_module_of_compare_brings_no_torch() -> None:
    code = """if True:
        import importlib, pkgutil, sys
        import visionkit.cli, visionkit.compare, visionkit.config, visionkit.files, visionkit.types
        import visionkit.run.config
        walked = [m.name for m in pkgutil.walk_packages(visionkit.compare.__path__, "visionkit.compare.")]
        for name in walked:
            importlib.import_module(name)
        heavy = ("torch", "lightning", "timm", "torchvision")
        print([name for name in heavy if name in sys.modules], len(walked))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, _, walked = done.stdout.strip().rpartition(" ")
    assert heavy == "[]"
    assert int(walked) >= 20


def test_every_name_of_the_package_is_imported_when_used() -> None:
    import visionkit

    assert set(visionkit.__all__) <= set(dir(visionkit))
    for name in visionkit.__all__:
        value = getattr(visionkit, name)
        assert value.__name__ == name if name != "__version__" else isinstance(value, str)
    with pytest.raises(AttributeError, match="no attribute 'Clasifier'"):
        visionkit.Clasifier  # noqa: B018
