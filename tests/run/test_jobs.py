"""Runs side by side, a process each: what comes back, and what happens when one fails or all must stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from unittest import mock

import psutil
import pytest
import torch

from visionkit.errors import InputError, PreemptedError, RunError
from visionkit.run.config import RunConfig
from visionkit.run.sweep import jobs
from visionkit.run.sweep.jobs import Job, choose_jobs, run_jobs


def job(name, call, tmp_path):
    return Job(name, tmp_path / name, call)


def gather(todo, at_a_time=2):
    results = {}
    run_jobs(
        todo, jobs=at_a_time, threads=1, finished=lambda job, result: results.update({job.title: result})
    )
    return results


def test_each_result_comes_back_and_each_log_is_kept(tmp_path):
    def call(number):
        def work():
            print("hello from", number)
            os.system(f"echo shell {number}")
            return {"number": number, "pid": os.getpid(), "threads": torch.get_num_threads()}

        return work

    found = gather([job(f"run{n}", call(n), tmp_path) for n in range(5)])
    assert [found[f"run{n}"]["number"] for n in range(5)] == list(range(5))
    assert len({result["pid"] for result in found.values()} | {os.getpid()}) == 6
    assert {result["threads"] for result in found.values()} == {1}
    for n in range(5):
        log = (tmp_path / f"run{n}" / "log.txt").read_text()
        assert f"hello from {n}" in log
        assert f"shell {n}" in log


def refuse():
    raise InputError("Expected a folder, but got nothing.")


def break_down():
    raise ZeroDivisionError("by nothing")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        (refuse, InputError, "bad: Expected a folder, but got nothing"),
        (break_down, RunError, "bad: ZeroDivisionError: by nothing"),
        (die, RunError, "bad: ended by signal 9"),
    ],
)
def test_a_run_that_fails_is_named_and_the_others_finish(fault, kind, text, tmp_path):
    found = {}
    todo = [job("bad", fault, tmp_path), *(job(f"good{n}", lambda: {"ok": 1}, tmp_path) for n in range(3))]
    with pytest.raises(kind, match=text) as caught:
        run_jobs(todo, jobs=2, threads=1, finished=lambda job, result: found.update({job.title: result}))
    assert str(tmp_path / "bad" / "log.txt") in str(caught.value)
    assert sorted(found) == ["good0", "good1", "good2"]
    if fault is break_down:
        assert "Traceback" in (tmp_path / "bad" / "log.txt").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_reaches_every_run_and_starts_no_more(number, tmp_path):
    def wait_for_signal():
        got = []
        for one in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(one, lambda n, frame: got.append(n))
        (tmp_path / str(os.getpid())).touch()
        while not got:
            time.sleep(0.02)
        raise PreemptedError("Asked to stop: saved.")

    def ask():
        while sum(path.name.isdigit() for path in tmp_path.iterdir()) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    asker = threading.Thread(target=ask)
    asker.start()
    ended = KeyboardInterrupt if number == signal.SIGINT else PreemptedError
    with pytest.raises(ended, match=None if number == signal.SIGINT else "saved"):
        gather([job(f"run{n}", wait_for_signal, tmp_path) for n in range(3)])
    asker.join()
    assert not (tmp_path / "run2").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_interrupt_ends_runs_that_do_not_listen(tmp_path):
    def deaf():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (tmp_path / str(os.getpid())).touch()
        time.sleep(300)

    def ask():
        while sum(path.name.isdigit() for path in tmp_path.iterdir()) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)
        while "Ctrl-C again" not in (tmp_path / "said").read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    (tmp_path / "said").touch()
    with mock.patch.object(jobs, "write_now", lambda text: (tmp_path / "said").write_text(text)):
        asker = threading.Thread(target=ask)
        asker.start()
        with pytest.raises(KeyboardInterrupt):
            gather([job(f"run{n}", deaf, tmp_path) for n in range(2)])
        asker.join()
    assert "at once" in (tmp_path / "said").read_text()


def wait_in_two(folder):
    """Start two runs that never end, in a process of its own."""

    def work():
        (Path(folder) / f"pid-{os.getpid()}").touch()
        time.sleep(300)

    run_jobs([Job(str(n), Path(folder) / str(n), work) for n in range(2)], jobs=2, threads=1, finished=print)


def test_runs_end_with_their_parent(zygote, tmp_path):
    parent = zygote.start("tests.run.test_jobs:wait_in_two", str(tmp_path))
    try:
        until = time.monotonic() + 120
        while len(pids := [int(p.name[4:]) for p in tmp_path.glob("pid-*")]) < 2:
            assert time.monotonic() < until
            assert parent.running(), parent.said()
            time.sleep(0.05)
    finally:
        parent.kill()
    assert parent.wait() == -signal.SIGKILL
    until = time.monotonic() + 120
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < until, "a run outlives its parent"
        time.sleep(0.1)


def test_how_many_at_a_time(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    plain = RunConfig(accelerator="cpu", devices="1")
    assert choose_jobs(plain, 2)[:2] == (2, 4)
    assert choose_jobs(plain, 16)[:2] == (4, 2)
    assert choose_jobs(RunConfig(accelerator="cpu", devices="1", jobs=8), 16)[:2] == (8, 1)
    assert choose_jobs(RunConfig(accelerator="cpu", devices="1", jobs=1), 16)[:2] == (1, 8)
    assert choose_jobs(RunConfig(accelerator="cpu", devices="2"), 16)[:2] == (1, 8)
    with pytest.raises(InputError, match="--jobs 1, but got 2"):
        choose_jobs(RunConfig(accelerator="cpu", devices="2", jobs=2), 16)
    with pytest.raises(InputError, match="0 \\(auto\\) or more"):
        choose_jobs(RunConfig(accelerator="cpu", devices="1", jobs=-1), 16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert choose_jobs(plain, 16)[:2] == (1, 1)
