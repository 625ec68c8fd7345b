"""What is seen while runs train: a line a validation, bars on a terminal, `log.txt`, the time left."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.run.tiny import TinyTask, tiny_data
from visionkit.errors import PreemptedError, RunError
from visionkit.run.config import RunConfig
from visionkit.run.feedback.board import Board
from visionkit.run.feedback.log_file import RunLog
from visionkit.run.feedback.pace import Pace, duration, time_left
from visionkit.run.feedback.state import RunState, shown_to
from visionkit.run.processes.stop import write_now
from visionkit.run.sweep.arms import run_recipe
from visionkit.run.sweep.jobs import Job
from visionkit.run.sweep.train_runs import _passing_over
from visionkit.run.training.fit import fit

LINE = re.compile(
    r"epoch (\d)/3  images (\d+)  train/loss [\d.]+  val/top1 0\.\d{3}( \(best\))?"
    r"  [\d.]+ s(, [\d.]+ s left)?"
)


class Logged(TinyTask):
    """A task that logs its loss, as those of the library do."""

    def on_train_epoch_end(self):
        self.log_dict({"train/loss": float(self.seen[-1][2])}, on_step=False, on_epoch=True)


class StopsAfterOne(Callback):
    def on_train_epoch_end(self, trainer, module):
        trainer.should_stop = True


class Warns(Callback):
    def on_train_start(self, trainer, module):
        warnings.warn("look at this", UserWarning, stacklevel=1)


def settings(out, **more):
    plain = {"accelerator": "cpu", "precision": "32-true", "progress": False, "epochs": 3, "devices": "1"}
    return RunConfig(**plain | more, out=str(out))


def train(config, folder, *callbacks):
    torch.manual_seed(0)
    return fit(config, Logged(), tiny_data(), folder=folder, callbacks=callbacks)


def lines_of(text):
    return [line for line in text.splitlines() if "val/top1" in line and "epoch " in line]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_line_for_each_validation_on_the_screen_and_in_the_log_of_each_run(tmp_path, capfd, jobs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 2)
        run_recipe(settings(tmp_path / "x", jobs=jobs, seeds=[0]), train)
    out = capfd.readouterr().out
    first = out.splitlines()[0]
    assert first.startswith("2 runs (pretrained and scratch, seed 0) in ")
    shown = lines_of(out)
    assert len(shown) == 6
    assert all(LINE.search(line) for line in shown), shown
    assert out.count("1 of 2 runs") == out.count("2 of 2 runs") == 1
    for number, name in enumerate(("pretrained-f1-s0", "scratch-f1-s0"), start=1):
        log = (tmp_path / "x" / name / "log.txt").read_text()
        assert "Logged over" in log
        of_run = lines_of(log)
        assert [LINE.search(line).group(1, 2) for line in of_run] == [("1", "28"), ("2", "56"), ("3", "84")]
        assert "(best)" in of_run[0]
        assert " left" not in of_run[-1]
        prefix = f"[{number}/2] {name}  " if jobs == 2 else "  "
        assert all(prefix + line in shown for line in of_run)
        assert log.splitlines()[-1].startswith("ended 20")


def test_the_log_holds_warnings_how_the_run_ended_and_every_start(tmp_path, capsys):
    class Breaks(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 2:
                raise RunError("The loss was nan.")

    with pytest.warns(UserWarning, match="look at this"), pytest.raises(RunError):
        train(settings(tmp_path), tmp_path / "a", Breaks(), Warns())
    log = (tmp_path / "a" / "log.txt").read_text()
    assert "UserWarning: look at this" in log
    assert len(lines_of(log)) == 2
    assert "RunError: The loss was nan." in log
    assert "Traceback" not in log
    train(settings(tmp_path), tmp_path / "a", StopsAfterOne())
    log = (tmp_path / "a" / "log.txt").read_text()
    assert [line.split()[0] for line in log.splitlines() if line.startswith(("sta", "end", "sto"))] == [
        "started", "stopped", "started", "ended",
    ]  # fmt: skip
    assert "continuing from last.ckpt" in log
    assert len(lines_of(log)) == 3
    assert "stopped early" not in log, "its last epoch was the last one"
    train(settings(tmp_path), tmp_path / "b", StopsAfterOne())
    assert "stopped early, after 28 of 84 images" in (tmp_path / "b" / "log.txt").read_text()
    assert "stopped early, after 28 of 84 images" in capsys.readouterr().out


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path, capsys):
    (tmp_path / "log.txt").mkdir()
    with RunLog(tmp_path) as log, shown_to(Board({tmp_path.name: 1.0}, terminal=False)):
        log.show("a banner")
        log.line("a line")
    assert capsys.readouterr().out == "a banner\n  a line\n"
    with RunLog(tmp_path / "other", first=False) as log:
        log.show("of another process")
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "other").exists()


def state(name, images, left=None, **more):
    return RunState(name=name, epoch=1, epochs=6, images=images, planned=100, left=left, **more)


def test_a_state_as_a_line_and_beside_its_bar():
    full = RunState(
        "a", 3, 6, 2976, 5952, loss=0.9123, score=("val/top1", 0.431), best=True, seconds=126, left=240
    )
    assert full.line() == (
        "epoch 3/6  images 2,976  train/loss 0.912  val/top1 0.431 (best)  2.1 min, 4.0 min left"
    )
    assert full.bar() == "epoch 3/6  train/loss 0.912  val/top1 0.431  4.0 min left"
    assert state("a", 3, doing="validating").bar() == "epoch 1/6  validating"
    assert state("a", 3, score=("val/loss", 3e-5)).line() == "epoch 1/6  images 3  val/loss 3e-05  0.0 s"
    assert [duration(x) for x in (1, 41, 150, 4000, 8000, 80000)] == [
        "1.0 s", "41 s", "2.5 min", "67 min", "2.2 h", "22 h",
    ]  # fmt: skip


def test_pace_is_of_the_window_and_begins_anew_with_less():
    pace = Pace(window=10)
    pace.add(0, 0.0)
    assert pace.rate is None
    assert pace.left(100) is None
    for second in range(1, 21):
        pace.add(10 * second, float(second))
    assert pace.rate == 10
    for second in range(21, 40):
        pace.add(200 + (second - 20), float(second))
    assert pace.rate == 1
    assert pace.left(319) == 100
    assert pace.left(5) == 0
    assert pace.left(None) is None
    pace.add(7, 40.0)
    assert pace.rate is None


def test_the_time_left_of_all_runs_puts_what_waits_where_something_ends():
    assert time_left([10.0, 30.0], [], 2) == 30
    assert time_left([10.0, 30.0], [15.0], 2) == 30
    assert time_left([10.0, 30.0], [25.0], 2) == 35
    assert time_left([10.0], [5.0, 5.0], 1) == 20
    assert time_left([], [], 2) == 0


def test_the_time_left_of_a_command_is_measured_on_the_runs_it_has_begun(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("visionkit.run.feedback.board.time.monotonic", lambda: now[0])
    board = Board({"a": 0.5, "b": 1.0, "c": 1.0}, jobs=1, terminal=False)
    assert board.left() is None
    board.begin("a")
    now[0] = 10.0
    board.show_state(state("a", 50, left=10.0))
    assert board.left() == 10 + 40 + 40
    now[0] = 25.0
    board.end("a")
    assert board.left() == 50 + 50
    board.begin("b")
    assert board.left() == 50 + 50, "what has not shown how fast it is goes as those before"
    assert board.summary() == "1 of 3 runs, 100 s left"


def test_a_run_that_is_asked_to_stop_is_not_counted_as_done(tmp_path):
    board = Board({"a": 1.0, "b": 1.0}, terminal=False)
    jobs = [Job(name, tmp_path / name, dict) for name in ("a", "b")]
    failures = []
    with _passing_over(jobs[0], failures, board, first=True, alone=True):
        raise RunError("it failed")
    assert [str(error) for error in failures] == ["it failed"]
    assert board.summary() == "1 of 2 runs", "passed over: the command goes on to the next"
    stop = _passing_over(jobs[1], failures, board, first=True, alone=True)
    with pytest.raises(PreemptedError), stop:
        raise PreemptedError("asked to stop")
    assert board.summary() == "1 of 2 runs"


def test_bars_on_a_terminal_stay_below_the_lines_and_what_signals_say(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Board({"a": 1.0, "b": 1.0}, titles={"a": "[1/2] a"}, jobs=2, terminal=True) as board:
        board.begin("a")
        board.show_state(state("a", 50, left=10.0))
        board.show_line("a", "epoch 1/6")
        write_now("\nInterrupted\n")
        board.draw(now=True)
        board.end("a")
    captured = capsys.readouterr()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", captured.err)
    assert "[1/2] a  epoch 1/6" in captured.out + shown
    assert "Interrupted" in shown
    assert re.search(r"a +\S+ +0%  ?starting", shown)
    assert re.search(r"a .* 50%  ?epoch 1/6  10 s left", shown)
    assert re.search(r"all 2 runs .* 0 of 2 runs", shown)
    write_now("")  # to standard error again


def test_the_first_line_comes_before_the_long_imports(tmp_path):
    import subprocess

    code = (
        "import sys\n"
        "from visionkit.run import RunConfig, run_recipe\n"
        "from visionkit.run.sweep import arms\n"
        "arms._print = lambda text: (print(text, 'torch' in sys.modules), sys.exit())\n"
        f"run_recipe(RunConfig(out={str(tmp_path / 'x')!r}, seeds=[3], fractions=[0.1, 1]), None)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=root,
        check=False,
    )
    assert done.stdout == (
        f"4 runs (pretrained and scratch, seed 3, fractions 0.1 1) in {tmp_path / 'x'}. "
        "Loading libraries and data. False\n"
    ), done.stderr
