# ruff: noqa: E501
"""The command line: quick help, nearest names, honest exit statuses, no traceback without --debug."""

from __future__ import annotations

import itertools
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.run.make_runs import make_comparison, make_run
from visionkit import cli
from visionkit.commands.recipes import find_recipe, list_applications, list_recipes, summary
from visionkit.data import FORMATS
from visionkit.errors import InputError

HELP = [
    ["--help"],
    *([verb, "--help"] for verb in cli.VERBS),
    *(["run", name, "--help"] for name in (*list_recipes(), *list_applications())),
]
HEAVY = {"torch", "torchvision", "lightning", "timm", "torchmetrics", "matplotlib", "scipy", "pandas"}
SCRIPT = "import sys; from visionkit import cli; code = cli.main(sys.argv[1:]); heavy = {'torch', 'lightning', 'timm'}; sys.stderr.write(f'heavy: {sorted(heavy & set(sys.modules))}'); sys.exit(code)"


# One process for all, one after the other: what one of them imported, the next would still show.
EVERY_HELP = """
import contextlib, io, json, sys
from visionkit import cli
told = []
for args in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = cli.main(args)
    told.append([code, said.getvalue(), sorted({name.partition(".")[0] for name in sys.modules}), len(sys.modules)])
json.dump(told, sys.stdout)
"""


def run_all(commands: list[list[str]], root: Path) -> list:
    """Run commands in one process; return status, output, packages and the number of modules after each."""
    done = subprocess.run(
        [sys.executable, "-c", EVERY_HELP],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=root,
        check=True,
    )
    return json.loads(done.stdout)


def test_data_are_checked_and_packed_without_lightning(root, tmp_path) -> None:
    for split, name in itertools.product(("train", "val"), ("ant", "bee")):
        (tmp_path / "photos" / split / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / split / name / "1.png")
    commands = [["check", "photos"], ["pack", "photos", "--out", "photos.pack"], ["check", "photos.pack"]]
    commands = [[str(tmp_path / word) if "photos" in word else word for word in one] for one in commands]
    told = run_all(commands, root)
    assert [code for code, *_ in told] == [0, 0, 0]
    assert "2 train, 2 val, 0 test: 0 errors" in told[0][1]
    assert HEAVY & set(told[-1][2]) == {"torch"}


def test_help_is_short_and_imports_little(root) -> None:
    told = run_all(HELP, root)
    assert len(told) == len(HELP) > 10
    for args, (code, said, packages, modules) in zip(HELP, told, strict=True):
        assert code == 0, args
        assert 4 < len(said.splitlines()) <= 60, args
        assert not HEAVY & set(packages), args
        assert modules < 400, args
    assert len(told[0][2]) > 10  # the list of packages is one


def test_as_many_helps_as_verbs_and_recipes() -> None:
    assert len(HELP) == 1 + 20 + len(list_recipes()) + len(list_applications())
    assert {"apps/faces", "apps/templates", "apps/whales"} <= set(list_applications())
    assert {"classify", "compare"} <= set(list_recipes())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["comapre"], "Unknown verb 'comapre'. Did you mean 'compare' or 'map'?"),
        (["ls", "recipies"], "Unknown kind of thing to list 'recipies'. Did you mean 'recipes'?"),
        (["compare", "x", "--alow", "lr"], "Unknown option '--alow'. Did you mean '--allow'? See visionkit compare --help."),
        (["compare"], "the following arguments are required: FOLDER"),
        (["cp", "clasify", "x.py"], "Unknown recipe 'clasify'. Did you mean 'classify'?"),
        (["run", "templates"], "Unknown recipe 'templates'. Did you mean 'apps/templates'?"),
        (["run", "clasify"], "Unknown recipe 'clasify'. Did you mean 'classify'?"),
        (["run", "--lr", "1"], "Expected a recipe first, but got '--lr'"),
        (["check", "nowhere"], "got 'nowhere': nothing there"),
        (["compare", "nowhere"], "nowhere does not exist"),
    ],
)  # fmt: skip
def test_a_wrong_word_gets_the_nearest_and_status_2(args, said, capsys) -> None:
    assert cli.main(args) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.startswith("visionkit: ")
    assert "Traceback" not in err
    assert cli.main([*args, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_what_was_not_foreseen_is_status_1(monkeypatch, capsys) -> None:
    def fail(argv):
        raise ZeroDivisionError("by zero")

    monkeypatch.setitem(cli.VERBS, "ls", (fail, ""))
    assert cli.main(["ls"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: by zero" in err
    assert "--debug" in err
    assert "Traceback" not in err


def test_version_and_bare_call(capsys) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("visionkit 0.")
    assert cli.main([]) == 0
    assert "usage: visionkit VERB" in capsys.readouterr().out


def test_ls_names_recipes_and_data(capsys) -> None:
    assert cli.main(["ls"]) == 0
    out = capsys.readouterr().out
    assert "classify" in out
    assert "visionkit ls data" in out
    assert cli.main(["ls", "data"]) == 0
    out = capsys.readouterr().out
    assert "scenes" in out
    assert all(each.name in out for each in FORMATS)
    assert len(FORMATS) >= 7
    assert cli.main(["ls", "recipes", "comp"]) == 0
    assert "classify" not in capsys.readouterr().out


def test_ls_and_describe_backbones(capsys) -> None:
    assert cli.main(["ls", "backbones", "*lite0", "--source", "packaged"]) == 0
    assert capsys.readouterr().out == "packaged/efficientnet_lite0\n"
    assert cli.main(["ls", "backbones", "--source", "tim"]) == 2
    assert "'timm'" in capsys.readouterr().err
    assert cli.main(["describe", "packaged/efficientnet_lite0"]) == 0
    assert "packaged/efficientnet_lite0" in capsys.readouterr().out
    assert cli.main(["describe", "timm/resnet50", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [level["reduction"] for level in table["levels"]][-1] == 32
    assert cli.main(["describe", "timm/resnet5O"]) == 2
    assert "timm/resnet50" in capsys.readouterr().err


def test_cp_writes_a_recipe_once(tmp_path, capsys) -> None:
    target = tmp_path / "mine.py"
    assert cli.main(["cp", "classify", str(target)]) == 0
    assert target.read_text() == find_recipe("classify").read_text()
    assert cli.main(["cp", "classify", str(target)]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert cli.main(["cp", "classify", str(tmp_path)]) == 0
    assert (tmp_path / "classify.py").exists()
    assert cli.main(["cp", "classify", str(tmp_path / "no" / "x.py")]) == 2
    assert find_recipe(str(target)) == target.resolve()
    assert summary(target)


ALONE = """
import contextlib, io, runpy, sys
for name in sys.argv[1:]:
    out, sys.argv, sys.path[0] = io.StringIO(), [name, "--help"], name.rpartition("/")[0]
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        runpy.run_path(name, run_name="__main__")
    print("OK" if "usage:" in out.getvalue() and "--backbone" in out.getvalue() else name)
"""


def test_every_recipe_works_as_a_copy_alone(tmp_path, capsys) -> None:
    copies = []
    for name in (*list_recipes(), *list_applications()):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        copies.append(str(folder / "mine.py"))
        assert cli.main(["cp", name, copies[-1]]) == 0
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *copies], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout.split() == ["OK"] * len(copies), done.stdout + done.stderr
    assert len(copies) >= 5


def test_compare_takes_the_recipe_beside_it_and_both_arms_only(tmp_path, monkeypatch) -> None:
    (tmp_path / "classify.py").write_text(
        find_recipe("classify").read_text().replace('("basic", "basic', '("trivial", "basic')
    )
    copy = tmp_path / "compare.py"
    copy.write_text(find_recipe("compare").read_text())
    monkeypatch.setitem(sys.modules, "classify", None)
    monkeypatch.delitem(sys.modules, "classify")
    made = runpy.run_path(str(copy))
    assert made["Config"]().augment == "trivial"
    with pytest.raises(InputError, match="Expected both arms, but got --init scratch"):
        made["main"](made["Config"](init="scratch"))


def test_run_starts_a_file_as_python_would(tmp_path, capsys) -> None:
    script = tmp_path / "mine.py"
    script.write_text("import sys\nprint(__name__, sys.argv[1:])\nsys.exit(int(sys.argv[1]))\n")
    before = list(sys.argv)
    assert cli.main(["run", str(script), "3", "--lr", "1"]) == 3
    assert capsys.readouterr().out == "__main__ ['3', '--lr', '1']\n"
    assert sys.argv == before
    assert cli.main(["run", str(script), "0"]) == 0
    for args in (["--debug", "run", str(script), "0"], ["run", "--debug", str(script), "0"]):
        assert cli.main(args) == 0
        assert capsys.readouterr().out.endswith("__main__ ['0']\n")
    assert cli.main(["run", str(script), "0", "--debug"]) == 0
    assert capsys.readouterr().out == "__main__ ['0', '--debug']\n"


def test_compare_prints_and_writes_where_told(tmp_path, capsys) -> None:
    make_comparison(tmp_path / "runs")
    assert cli.main(["compare", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert "Pretrained" in out
    assert "Nothing was written" in out
    assert not (tmp_path / "runs" / "report.html").exists()
    assert cli.main(["compare", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").exists()
    make_run(tmp_path / "runs", "scratch", 7, config={"lr": 3.0})
    assert cli.main(["compare", str(tmp_path / "runs")]) == 2
    err = capsys.readouterr().err
    assert "lr: 0.001 in pretrained-f1-s0, 3.0 in scratch-f1-s7" in err
    assert cli.main(["compare", str(tmp_path / "runs"), "--allow", "lr"]) == 0


def test_check_reads_a_folder_and_names_faults(tmp_path, capsys) -> None:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / split / name / f"{number}.png")
    assert cli.main(["check", str(tmp_path)]) == 0
    assert "no errors" in capsys.readouterr().out
    torn = tmp_path / "train" / "dog" / "1.png"
    torn.write_bytes(torn.read_bytes()[:40])
    assert cli.main(["check", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "a folder for each class, 4 train, 4 val, 0 test: 1 error" in said.out
    assert str(torn) in said.out
    assert "1 error. Repair or remove" in said.err


def test_check_names_every_fault_at_once_of_tables_boxes_and_masks(tmp_path, capsys) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    table = tmp_path / "t.csv"
    table.write_text("path,label\na.png,x\nnone.png,y\n../out.png,x\n")
    assert cli.main(["check", str(table)]) == 2
    said = capsys.readouterr()
    assert "none.png" in said.out
    assert "out.png" in said.out
    voc = tmp_path / "voc"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (voc / part).mkdir(parents=True)
    for name in ("train", "val"):
        (voc / "ImageSets/Main" / f"{name}.txt").write_text(f"{name}\n")
        (voc / "Annotations" / f"{name}.xml").write_text("<annotation><object></annotation>")
    assert cli.main(["check", str(voc)]) == 2
    said = capsys.readouterr()
    assert "Pascal VOC boxes, not readable: 2 errors" in said.out
    assert "train.xml" in said.out
    assert "val.xml" in said.out


@pytest.mark.parametrize("writes", ["write_text", "write_bytes"])
def test_a_full_disk_is_named_and_nothing_half_written_is_left(tmp_path, capsys, monkeypatch, writes) -> None:
    make_comparison(tmp_path / "runs")
    before = sorted(tmp_path.rglob("*"))
    write = getattr(Path, writes)

    def full(self, content, **more):
        write(self, content[:50], **more)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, writes, full)
    verbs = [["compare", tmp_path / "runs", "--out", tmp_path / "out"]]
    verbs += [["cp", "classify", tmp_path / "mine.py"]] if writes == "write_text" else []
    for words in verbs:
        assert cli.main([*map(str, words)]) == 1
        assert "No space left on device" in (err := capsys.readouterr().err)
        assert "Free some space" in err
        assert sorted(tmp_path.rglob("*")) == before


def test_names_in_a_check_are_shown_without_what_a_terminal_obeys(tmp_path, capsys) -> None:
    for name in ("red\x1b[31m", "plain"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / name / f"{number}.png")
    assert cli.main(["check", str(tmp_path), "--stats"]) == 0
    said = capsys.readouterr().out
    assert r"red\x1b[31m" in said
    assert "\x1b" not in said
    (tmp_path / "plain" / "no\x1b[31m.png").write_text("no image")
    assert cli.main(["check", str(tmp_path)]) == 2
    said = capsys.readouterr().out
    assert r"no\x1b[31m.png" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_was_closed_before_the_start_is_no_fault(monkeypatch, capsys, name) -> None:
    monkeypatch.setattr(sys, name, None)
    assert cli.main(["ls", "recipes"]) == 0
    assert cli.main(["chek"]) == 2
    getattr(sys, name).close()


def test_a_name_is_shown_without_what_a_terminal_obeys(capsys) -> None:
    assert cli.main(["watch", "red\x1b[31m\x07", "--no_browser"]) == 2
    assert r"red\x1b[31m\x07 does not exist" in capsys.readouterr().err


def test_tune_starts_a_command_in_its_place_with_what_is_set_kept(root, monkeypatch, capsys) -> None:
    monkeypatch.setenv("MALLOC_TOP_PAD_", "7")
    words = [
        "tune",
        "sh",
        "-c",
        "echo $MALLOC_MMAP_THRESHOLD_ $MALLOC_TRIM_THRESHOLD_ $MALLOC_TOP_PAD_; exit 3",
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, cwd=root, check=False
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout.split() == ["4294967296", "17179869184", "7"]
    assert cli.main(["tune", "no-such-program"]) == 2
    assert "no 'no-such-program'" in capsys.readouterr().err


def test_a_terminal_is_told_that_libraries_are_loaded_before_they_are(tmp_path, capsys, monkeypatch):
    verbs = [["predict", "nowhere", "a.png", "--out", str(tmp_path / "out")], ["evaluate", "nowhere"]]
    for args in verbs:
        assert cli.main(args) == 2
        assert "loading libraries" not in capsys.readouterr().err
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        assert cli.main(args) == 2
        assert capsys.readouterr().err.startswith(f"visionkit {args[0]}: loading libraries.\nvisionkit: ")
        assert cli.main([args[0], "--help"]) == 0
        assert capsys.readouterr().err == ""
        monkeypatch.undo()
