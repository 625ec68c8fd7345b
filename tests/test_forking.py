"""Forked processes: one that hangs before its first line is ended and forked again."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from visionkit import forking
from visionkit.data.pack.writer import _pool
from visionkit.forking import CheckedForkContext, worker_context


def hanging(path: Path, times: int) -> type[multiprocessing.process.BaseProcess]:
    """Return processes of which the first ones hang in their fork, and leave a line in a file."""

    class Hanging(CheckedForkContext.Process):
        def _bootstrap(self, *args, **kwargs):
            begun = path.read_text().count("\n") if path.is_file() else 0
            with path.open("a") as file:
                file.write("begun\n")
            if begun < times:
                time.sleep(600)
            return super()._bootstrap(*args, **kwargs)

    return Hanging


def test_a_loader_whose_worker_hangs_in_its_fork_gets_another_one(tmp_path, monkeypatch):
    monkeypatch.setattr(forking, "SECONDS", 2.0)
    context = CheckedForkContext()
    context.Process = hanging(tmp_path / "begun", 1)
    loader = DataLoader(list(range(6)), batch_size=2, num_workers=2, multiprocessing_context=context)
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5]]
    assert (tmp_path / "begun").read_text().count("\n") == 3


def test_a_process_that_never_begins_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(forking, "SECONDS", 0.2)
    process = hanging(tmp_path / "begun", 99)(target=print)
    with pytest.raises(RuntimeError, match="4 of them hung before their first line"):
        process.start()
    assert (tmp_path / "begun").read_text().count("\n") == forking.ATTEMPTS


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
