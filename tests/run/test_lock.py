"""The lock of a run's folder: one holder, named to the other; free when that is gone, here or elsewhere."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from visionkit.errors import InputError, RunError
from visionkit.files import process_exists, unwritable
from visionkit.run.storage import lock
from visionkit.run.storage.lock import FILE, hold


def holder(folder, ready):
    """Hold a lock in another process until it is killed."""
    with hold([folder]):
        ready.set()
        time.sleep(300)


def holder_with_worker(folder, ready, worker):
    """Hold a lock, with a forked worker that keeps a copy of its handle and outlives it."""
    with hold([folder]):
        child = os.fork()
        if child == 0:
            time.sleep(300)
            os._exit(0)
        worker.value = child
        ready.set()
        time.sleep(300)


@pytest.fixture
def held(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=holder, args=(tmp_path / "run", ready), daemon=True)
    child.start()
    assert ready.wait(60)
    yield child
    child.kill()
    child.join()


def test_the_second_is_refused_and_told_who_holds_it(tmp_path, held):
    with pytest.raises(InputError, match=rf"is being written by process {held.pid} on .* since 20") as caught:
        hold([tmp_path / "run"]).__enter__()
    assert "another --out" in str(caught.value)
    assert os.uname().nodename in str(caught.value)
    with hold([tmp_path / "other"]):
        pass


def test_it_is_free_when_its_holder_is_gone_whatever_ended_it(tmp_path, held):
    os.kill(held.pid, signal.SIGKILL)
    held.join()
    assert (tmp_path / "run" / FILE).exists()
    with hold([tmp_path / "run"]):
        assert json.loads((tmp_path / "run" / FILE).read_text())["pid"] == os.getpid()
    assert not list((tmp_path / "run").iterdir())
    with hold([tmp_path / "new"]):
        assert (tmp_path / "new" / FILE).exists()
    assert not (tmp_path / "new").exists(), "a folder that was made for the lock alone is gone with it"


def test_workers_that_outlive_a_killed_holder_are_waited_for(tmp_path, monkeypatch, capsys):
    context = multiprocessing.get_context("fork")
    ready, worker = context.Event(), context.Value("i", 0)
    parent = context.Process(target=holder_with_worker, args=(tmp_path / "run", ready, worker), daemon=True)
    parent.start()
    assert ready.wait(60)
    parent.kill()
    parent.join()
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:  # the worker notices now
            os.kill(worker.value, signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(lock, "LINGER", 0.0)
        with pytest.raises(InputError, match=rf"what process {parent.pid} on .* left running"):
            hold([tmp_path / "run"]).__enter__()
    monkeypatch.setattr(lock.time, "sleep", sleep)
    monkeypatch.setattr(lock, "QUIET", 0.0)
    with hold([tmp_path / "run"]):
        assert len(waits) >= 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert f"run: process {parent.pid}, which trained there, has ended; waiting up to 30 seconds" in said


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells zombies")
def test_a_killed_holder_that_nobody_has_asked_for_is_gone(tmp_path, monkeypatch):
    context = multiprocessing.get_context("fork")
    ready, worker = context.Event(), context.Value("i", 0)
    parent = context.Process(target=holder_with_worker, args=(tmp_path / "run", ready, worker), daemon=True)
    parent.start()
    assert ready.wait(60)
    assert process_exists(parent.pid)
    os.kill(parent.pid, signal.SIGKILL)
    os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    os.kill(parent.pid, 0)
    assert not process_exists(parent.pid)
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: os.kill(worker.value, signal.SIGKILL))
    with hold([tmp_path / "run"]):
        assert json.loads((tmp_path / "run" / FILE).read_text())["pid"] == os.getpid()
    parent.join()


def test_what_one_holds_one_may_hold_again_and_in_forked_processes(tmp_path):
    with hold([tmp_path / "a", tmp_path / "b"]):
        (tmp_path / "a" / "kept").touch()
        with hold([tmp_path / "a"]):
            pass
        assert (tmp_path / "a" / FILE).exists()
        if (child := os.fork()) == 0:
            with hold([tmp_path / "a"]):
                os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "kept"]


def written(folder, *, age=0.0, **entries):
    folder.mkdir(exist_ok=True)
    entries = {"pid": 1, "host": "elsewhere", "since": "then", "slurm_job": ""} | entries
    (folder / FILE).write_text(json.dumps(entries))
    os.utime(folder / FILE, (time.time() - age, time.time() - age))


def test_a_holder_on_another_machine_is_believed_while_it_gives_signs_of_life(tmp_path, monkeypatch):
    written(tmp_path, age=lock.STALE / 2)
    for _ in range(2):  # asking is no sign of life
        with pytest.raises(InputError, match=r"process 1 on elsewhere since then.*wait 3 minutes or remove"):
            hold([tmp_path]).__enter__()
    written(tmp_path, age=2 * lock.STALE)
    with hold([tmp_path]):
        pass
    # A requeued SLURM job comes back on another machine: its holder is itself, before.
    written(tmp_path, slurm_job="77")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    with hold([tmp_path]):
        assert json.loads((tmp_path / FILE).read_text())["slurm_job"] == "77"


def test_without_locks_of_the_system_the_process_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "FCNTL", None)
    host = os.uname().nodename
    written(tmp_path, host=host, pid=os.getppid())
    with pytest.raises(InputError, match=f"process {os.getppid()} on {host}"):
        hold([tmp_path]).__enter__()
    written(tmp_path, host=host, pid=2**22 + 1)
    with hold([tmp_path]):
        pass
    (tmp_path / FILE).write_text("torn {")
    with hold([tmp_path]):
        pass


def test_a_clock_that_differs_is_said(tmp_path):
    written(tmp_path, age=-7200)
    with pytest.raises(InputError, match=r"120 minutes in the future: the clocks .* differ.*remove the file"):
        hold([tmp_path]).__enter__()
    written(tmp_path, age=-lock.TOUCH / 3)
    with pytest.raises(InputError, match="wait 3 minutes"):
        hold([tmp_path]).__enter__()


def test_one_folder_named_twice_is_held_once(tmp_path):
    with hold([tmp_path / "a", tmp_path / "b" / ".." / "a"]):
        assert (tmp_path / "a" / FILE).exists()
    assert not (tmp_path / "a").exists()


def test_places_that_cannot_be_written_are_said(tmp_path):
    (tmp_path / "afile").touch()
    (tmp_path / "taken" / FILE).mkdir(parents=True)
    for place, text in (
        ("afile", "afile is a file, not a folder"),
        ("afile/run", "afile is a file, not a folder"),
        ("taken", "Is a directory"),
    ):
        with pytest.raises(RunError, match=text) as caught:
            hold([tmp_path / place]).__enter__()
        assert "space" not in str(caught.value)
    full = unwritable(tmp_path / "new", OSError(errno.ENOSPC, "No space left on device"))
    assert "bytes are free). Free some space" in str(full)


def test_a_full_disk_leaves_no_lock(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock.os, "write", full)
    with pytest.raises(RunError, match="No space left"), hold([tmp_path / "run"]):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []
