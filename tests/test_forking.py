"""Forked processes: one that hangs before its first line is ended and forked again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.popen_fork import Popen

import pytest
from torch.utils.data import DataLoader

from visionkit import forking
from visionkit.data.pack.writer import _pool
from visionkit.forking import CheckedForkContext, worker_context


@pytest.fixture
def started(monkeypatch):
    """The processes that were started, and how many of the first hang, however slow the machine is."""
    children, hang, wait = [], [0], forking.wait

    def start(process):
        children.append(Popen(process))
        return children[-1]

    def begin(*args, **kwargs):
        return bootstrap(*args, **kwargs) if len(children) >= hang[0] else time.sleep(600)

    bootstrap = CheckedForkContext.Process._bootstrap
    monkeypatch.setattr(CheckedForkContext.Process, "_bootstrap", begin)
    monkeypatch.setattr(forking, "Popen", start)
    # One that hangs writes nothing however long one waits, and one that does not is waited for.
    patience = lambda ends, _: wait(ends, 0.1 if len(children) <= hang[0] else 600)  # noqa: E731
    monkeypatch.setattr(forking, "wait", patience)
    return children, hang


def test_a_loader_whose_worker_hangs_in_its_fork_gets_another_one(started):
    children, hang = started
    hang[0] = 1
    loader = DataLoader(
        list(range(6)), batch_size=2, num_workers=2, multiprocessing_context=CheckedForkContext()
    )
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5]]
    assert len(children) == 3


def test_a_process_that_never_begins_is_an_error(started):
    children, hang = started
    hang[0] = 99
    with pytest.raises(RuntimeError, match="4 of them hung before their first line"):
        CheckedForkContext().Process(target=print).start()
    assert [child.returncode for child in children] == [-signal.SIGKILL] * forking.ATTEMPTS


def test_a_process_begins_where_more_than_1023_files_are_open(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip("this system allows no process so many open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1200, hard))
    held = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while held[-1] < 1040:
            held.append(os.dup(held[0]))
        process = CheckedForkContext().Process(target=(tmp_path / "written").write_text, args=("yes",))
        process.start()
        process.join()
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (tmp_path / "written").read_text() == "yes"


def test_a_process_ends_as_any_other_does(tmp_path):
    process = CheckedForkContext().Process(target=(tmp_path / "written").write_text, args=("yes",))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "written").read_text() == "yes"
    broken = CheckedForkContext().Process(target=exit, args=(7,))
    broken.start()
    broken.join()
    assert broken.exitcode == 7


@pytest.mark.parametrize("own", [False, True])
def test_a_child_walks_nothing_of_its_parent_and_the_parent_all_of_its_own(tmp_path, own):
    """The suite freezes its modules: in a process of its own, where nothing or something is frozen."""
    code = f"""if True:
        import gc
        from pathlib import Path
        from visionkit.forking import CheckedForkContext

        objects = [[number] for number in range(1000)]
        if {own}:
            gc.freeze()
        objects += [[number] for number in range(1000)]
        before, tracked = gc.get_freeze_count(), len(gc.get_objects())

        def count():
            counts = gc.get_freeze_count(), len(gc.get_objects())
            Path({str(tmp_path / "child")!r}).write_text("%d %d" % counts)

        process = CheckedForkContext().Process(target=count)
        process.start()
        process.join()
        print(before, gc.get_freeze_count(), tracked, len(gc.get_objects()))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after, tracked, later = map(int, done.stdout.split())
    frozen, walked = map(int, (tmp_path / "child").read_text().split())
    assert later > 1000, "the parent walks what it walked"
    if own:  # a few of the frozen end by themselves
        assert before - 100 < frozen <= before
        assert before - 100 < after <= before
    else:
        assert before == after == 0
        assert frozen > 2000
        assert walked < tracked / 2


def kind_of_process() -> str:
    """Return the class of the process that this runs in."""
    return type(multiprocessing.current_process()).__name__


def test_the_workers_of_a_pack_are_such_processes():
    with _pool(1) as workers:
        assert workers.submit(kind_of_process).result() == CheckedForkContext.Process.__name__
    with _pool(0) as none:
        assert none is None


def test_another_start_method_is_left_alone(monkeypatch):
    assert isinstance(worker_context(), CheckedForkContext)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "spawn")
    assert worker_context() is None
