# ruff: noqa: E501
"""All runs of a command: what fails is named and loses nothing that is finished; all arms of a folder are compared."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.run.make_runs import make_comparison, make_run
from visionkit.compare.comparison import compare
from visionkit.compare.report.report import write_report
from visionkit.compare.summary import summary_text
from visionkit.errors import InputError, PreemptedError, RunError
from visionkit.notices import Notice
from visionkit.run.config import RunConfig, to_dict
from visionkit.run.storage import lock
from visionkit.run.storage.result import TEST_FAILED
from visionkit.run.sweep import announce as announcing
from visionkit.run.sweep.arms import run_recipe
from visionkit.run.sweep.jobs import Job, run_jobs
from visionkit.run.sweep.runs import each_run


def config(out, **changes):
    settings = {"accelerator": "cpu", "devices": "1", "jobs": 1, "seeds": [0], "out": str(out)} | changes
    return RunConfig(**settings)


def faked(**outcomes):
    """A recipe's `train` that writes a finished run at once, or fails as told by its init."""

    def train(one, folder):
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(json.dumps(to_dict(one)))
        fault = outcomes.get(one.init)
        if isinstance(fault, Exception):
            raise fault
        made = make_run(
            folder.parent, one.init, one.seeds[0], changes=(fault or {}) | {"config": to_dict(one)}
        )
        (made / "config.yaml").write_text(json.dumps(to_dict(one)))
        return json.loads((made / "result.json").read_text())

    return train


def test_a_backbone_that_is_not_there_is_refused_once_and_before_any_run(tmp_path):
    def train(one, folder):
        raise AssertionError("a run was begun")

    with pytest.raises(InputError, match=r"Did you mean 'timm/resnet50'.*See `visionkit ls backbones`\."):
        run_recipe(config(tmp_path / "out", seeds=[0, 1], backbone="timm/resnt50"), train)
    assert not (tmp_path / "out").exists()


def test_a_third_init_in_the_same_folder_keeps_the_other_arms(tmp_path, capsys):
    run_recipe(config(tmp_path), faked())
    assert json.loads((tmp_path / "comparison.json").read_text())["arms"] == ["pretrained", "scratch"]
    (tmp_path / "mine.pth").touch()
    run_recipe(config(tmp_path, init=str(tmp_path / "mine.pth")), faked())
    assert json.loads((tmp_path / "comparison.json").read_text())["arms"] == [
        "pretrained",
        "mine.pth",
        "scratch",
    ]
    assert "One arm only" not in (tmp_path / "report.html").read_text()
    run_recipe(config(tmp_path, init="timm/resnet18.tv_in1k"), faked(), paths=("init",))
    table = json.loads((tmp_path / "comparison.json").read_text())
    assert table["arms"] == ["pretrained", "mine.pth", "resnet18.tv_in1k", "scratch"]
    # One that is no comparison with these is named, not mixed in and no reason to stop.
    (tmp_path / "other.pth").touch()
    run_recipe(config(tmp_path, init=str(tmp_path / "other.pth"), lr=0.5), faked())
    text = " ".join(capsys.readouterr().out.split())
    assert "left out:" in text
    assert "another comparison: lr: 0.5 in other-f1-s0, 0.001 in" in text
    assert json.loads((tmp_path / "comparison.json").read_text())["arms"] == ["other.pth"]


def test_weights_of_one_network_that_differ_in_their_tag_have_folders_of_their_own(tmp_path):
    names = "timm/resnet18.tv_in1k,timm/resnet18.a1_in1k"
    folders = [folder.name for _, folder in each_run(config(tmp_path, init=names))]
    assert folders == ["resnet18.tv_in1k-f1-s0", "resnet18.a1_in1k-f1-s0"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_arm_failed_and_the_report_is_there_and_says_so(tmp_path, jobs, capsys):
    fault = RunError("The loss was nan in update 7.")
    with pytest.raises(RunError, match="The loss was nan in update 7"):
        run_recipe(config(tmp_path, jobs=jobs, seeds=[0, 1]), faked(pretrained=fault))
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert [run["init"] for run in found["runs"]] == ["scratch", "scratch"]
    assert len(found["skipped"]) == 2
    assert all("failed: RunError: The loss was nan" in item["reason"] for item in found["skipped"])
    assert "The loss was nan" in (tmp_path / "report.html").read_text()
    assert not list(tmp_path.rglob(lock.FILE))
    # The same command continues where it was, and the old fault is no more.
    run_recipe(config(tmp_path, jobs=jobs, seeds=[0, 1]), faked())
    assert "finished before, kept" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "comparison.json").read_text())["runs"]) == 4


def test_what_was_asked_to_stop_or_never_began_makes_no_report(tmp_path):
    for fault in (PreemptedError("Asked to stop."), InputError("No such backbone.")):
        with pytest.raises(type(fault)):
            run_recipe(config(tmp_path), faked(pretrained=fault))
        assert not (tmp_path / "report.html").exists()


def test_what_went_wrong_beside_a_finished_run_is_kept_said_and_the_status(tmp_path, capsys):
    bad = {
        "problems": ["Previews failed: OSError: no space"],
        "stopped_early": {"images": 5, "planned_images": 6000},
    }
    with pytest.raises(
        RunError, match=r"(?s)Every run is finished.*pretrained, seed 0: Previews failed: OSError"
    ):
        run_recipe(config(tmp_path), faked(pretrained=bad))
    text = capsys.readouterr().out
    assert "Previews failed: OSError: no space" in text
    assert "stopped early: 5 of 6,000 images" in text
    report = (tmp_path / "report.html").read_text()
    assert "Previews failed: OSError: no space" in report
    assert "pretrained-f1-s0: stopped early, after 5 of 6,000 images" in report


def test_a_test_split_that_failed_is_evaluated_again_by_the_same_command(tmp_path):
    with pytest.raises(RunError, match="could not be evaluated"):
        run_recipe(config(tmp_path), faked(scratch={"problems": [f"{TEST_FAILED}: DataError: b.png"]}))
    calls = []
    plain = faked()
    run_recipe(config(tmp_path), lambda one, folder: calls.append(one.init) or plain(one, folder))
    assert calls == ["scratch"]


def test_the_same_command_twice_at_once_is_refused_with_the_holder(tmp_path):
    code = "import sys; from visionkit.run.storage.lock import hold; h = hold([sys.argv[1]]); h.__enter__(); print('held', flush=True); input()"
    place = tmp_path / "scratch-f1-s0"
    command = [sys.executable, "-c", code, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"scratch-f1-s0 is being written by process {other.pid} on "):
            run_recipe(config(tmp_path), faked())
        other.stdin.write("\n")
    assert not (tmp_path / "pretrained-f1-s0").exists()


def test_other_settings_are_refused_with_the_way_to_go_on(tmp_path):
    run_recipe(config(tmp_path), faked())
    folder = tmp_path / "scratch-f1-s0"
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.ckpt").touch()
    (folder / "config.yaml").write_text(json.dumps(to_dict(config(tmp_path, init="scratch"))))
    with pytest.raises(InputError, match=r"epochs was 6, is 7.*lr was 0.001, is 0.01") as caught:
        run_recipe(config(tmp_path, init="scratch", epochs=7, lr=0.01), faked())
    assert f"new run: --init {folder}/checkpoints/best.ckpt --out OTHER_FOLDER" in str(caught.value)


def test_notices_of_runs_in_their_own_processes_are_shown_once_a_command(tmp_path, capsys):
    notice = Notice("boxes without an area left out", 3, 60, "a.json: 17:\n no area")

    def call():
        announcing.announce(announcing.notice_lines([notice]))
        return {}

    announcing._SEEN.clear()
    run_jobs(
        [Job(str(n), tmp_path / str(n), call) for n in range(3)], jobs=2, threads=1, finished=lambda *_: None
    )
    shown = capsys.readouterr().out
    assert (
        shown == "  notice    boxes without an area left out: 3 of 60 (5.00%). First: a.json: 17: no area\n"
    )
    assert announcing.announce(announcing.notice_lines([notice])) == []


def test_notices_are_in_the_table_the_report_and_the_comparison(tmp_path):
    notice = Notice("boxes left out", 3, 60, "a.json: 17").as_dict()
    data = {"name": "d", "classes": ["a"], "fingerprint": "f", "notices": [notice]}
    for init in ("pretrained", "scratch"):
        make_run(tmp_path, init, changes={"data": data})
    found = compare([tmp_path])
    line = "boxes left out: 3 of 60 (5.00%). First: a.json: 17"
    assert f"data: {line}" in summary_text(found)
    assert write_report(found, tmp_path).read_text().count(line) == 2
    assert found.to_dict()["data"]["notices"] == [notice]


def test_a_notice_of_a_choice_reads_in_the_report_as_on_the_screen(tmp_path):
    notice = Notice("labels are read as classes", 1, 0, "column 'label':\n3 words")
    data = {"name": "d", "classes": ["a"], "fingerprint": "f", "notices": [notice.as_dict()]}
    for init in ("pretrained", "scratch"):
        make_run(tmp_path, init, changes={"data": data})
    (line,) = announcing.notice_lines([notice])
    assert line == "labels are read as classes: column 'label': 3 words"
    assert compare([tmp_path]).notices() == [line]


def test_the_report_of_a_finished_command_names_a_part_that_fails(tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise ZeroDivisionError("no ink")

    monkeypatch.setattr("visionkit.compare.report.figures.curves.learning_curves.learning_curves", broken)
    with pytest.raises(RunError, match=r"(?s)learning curves of 1: ZeroDivisionError: no ink"):
        run_recipe(config(tmp_path), faked())
    assert "Pretrained is ahead of scratch" in capsys.readouterr().out
    report = (tmp_path / "report.html").read_text()
    assert "Could not be drawn: learning curves of 1: ZeroDivisionError: no ink" in report
    assert "Loss of every arm" in report
    assert json.loads((tmp_path / "comparison.json").read_text())["problems"]


def test_a_glob_of_a_comparison_folder_is_compared(tmp_path):
    make_comparison(tmp_path)
    for name in ("comparison.json", "report.html", "notes.txt"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "figures").mkdir()
    assert len(compare(sorted(tmp_path.iterdir())).records) == 4
    with pytest.raises(InputError, match=r"notes\.txt is not a folder"):
        compare([tmp_path / "notes.txt"])


def test_what_is_not_there_is_told_before_a_folder_is_made(tmp_path):
    (tmp_path / "afile").touch()
    walked = 0
    for out, more, text in (
        ("runs", {"data": "nope"}, "--data nope: there is no file or folder"),
        ("runs", {"init": "file.pt"}, "--init file.pt: there is no file or folder"),
        ("runs", {"init": "pretraind"}, "mean 'pretrained'"),
        ("afile", {}, "afile is a file, not a folder"),
        ("afile/runs", {}, "afile is a file, not a folder"),
    ):
        with pytest.raises(InputError, match=text):
            run_recipe(config(tmp_path / out, **more), faked(), paths=("data", "init"))
        assert [path.name for path in tmp_path.iterdir()] == ["afile"]
        walked += 1
    assert walked == 5
