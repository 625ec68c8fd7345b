"""How the processes of a run end: with their parent, when the others gave them up, and in good order."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from tests.processes import gloo_threads, together
from tests.run.tiny import TinyTask, tiny_data
from visionkit.errors import RunError
from visionkit.run import RunConfig
from visionkit.run.processes import lifetime
from visionkit.run.processes.launcher import store_key
from visionkit.run.processes.lifetime import RankWatchdog
from visionkit.run.training.fit import fit


class EndedError(Exception):
    """In place of the end of this process."""


class Gone:
    """A store whose process has ended."""

    def check(self, *_):
        raise RuntimeError("Connection reset by peer")

    set = check


@pytest.fixture
def watch(monkeypatch):
    def end(status):
        raise EndedError(status)

    monkeypatch.setattr(lifetime, "STORE_POLL", 0.01)
    monkeypatch.setattr(lifetime, "GRACE", 0.05)
    monkeypatch.setattr(lifetime.os, "_exit", end)
    made = RankWatchdog()
    made._store, made._key = dist.HashStore(), store_key("lost", 0)
    return made


def test_a_process_that_was_given_up_ends_and_says_by_whom(watch, capsys):
    other = RankWatchdog()
    other._store, other._key = watch._store, watch._key
    other.give_up(0)
    with pytest.raises(EndedError, match="1"):
        watch._watch(1)
    assert "Process 1 is silent, and process 0 has given it up" in capsys.readouterr().err


def test_a_process_without_the_first_one_ends(watch, capsys):
    watch._store = Gone()
    with pytest.raises(EndedError, match="1"):
        watch._watch(1)
    assert "the process that started the run is gone" in capsys.readouterr().err
    watch.give_up(1)  # nobody can read it any more


def test_a_process_that_ends_by_itself_in_time_is_left_alone(watch, capsys, monkeypatch):
    monkeypatch.setattr(lifetime, "GRACE", 30.0)
    watch._store.set(watch._key, "0")
    check = watch._store.check

    class Ending:
        get = watch._store.get

        def check(self, keys):
            watch.on_exception(None, None, RuntimeError("lost"))
            return check(keys)

    watch._store = Ending()
    watch._watch(1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("ending", ["teardown", "on_exception"])
def test_no_thread_is_left_in_the_store_when_the_run_is_over(watch, monkeypatch, ending):
    monkeypatch.setattr(lifetime, "STORE_POLL", 5.0)
    store = SimpleNamespace(clone=lambda: watch._store)
    monkeypatch.setattr(lifetime, "world_size", lambda: 2)
    monkeypatch.setattr(lifetime, "default_store", lambda: store)
    watch.on_train_start(SimpleNamespace(world_size=2, global_rank=1), None)
    (thread,) = (one for one in threading.enumerate() if one.name == "visionkit-watchdog")
    assert thread.is_alive()
    getattr(watch, ending)(None, None, "fit")
    assert not thread.is_alive()


def test_each_start_by_torchrun_asks_under_a_key_of_its_own(monkeypatch):
    before = store_key("lost", 3)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert len({before, store_key("lost", 3), store_key("stop", 3), store_key("lost", 4)}) == 4


class Exits:
    """Stands in for `atexit`."""

    def __init__(self):
        self.calls = []

    def register(self, call):
        self.calls.append(call)

    def unregister(self, call):
        self.calls = [one for one in self.calls if one != call]


@pytest.fixture
def exits(monkeypatch):
    monkeypatch.setattr(lifetime, "atexit", Exits())
    return lifetime.atexit


def test_leave_is_called_once_at_exit_and_not_after_an_abrupt_end(exits):
    lifetime.destroy_group_at_exit()
    lifetime.destroy_group_at_exit()
    assert exits.calls == [lifetime.destroy_group]
    lifetime.keep_group_at_exit()
    assert exits.calls == []


def test_a_group_is_left_with_none_of_its_threads(tmp_path, exits):
    lifetime.destroy_group()  # without a group there is nothing to do
    with together(tmp_path, 0, 1):
        pass
    assert gloo_threads() == []
    with pytest.raises(ValueError, match="planted"), together(tmp_path / "..", 0, 1):
        raise ValueError("planted")
    assert exits.calls == []
    lifetime.destroy_group()
    assert gloo_threads() == []


class Failing(TinyTask):
    error = Exception()

    def training_step(self, batch, batch_idx):
        raise self.error


@pytest.mark.parametrize(("error", "left"), [(RunError("agreed"), True), (ValueError("on this one"), False)])
def test_an_error_that_all_agreed_on_ends_in_good_order(tmp_path, exits, error, left):
    lifetime.destroy_group_at_exit()
    task = Failing()
    task.error = error
    config = RunConfig(accelerator="cpu", precision="32-true", progress=False, epochs=1)
    config.seeds, config.fractions, config.init = [5], [1.0], "scratch"
    with pytest.raises(type(error)):
        fit(config, task, tiny_data(), folder=tmp_path / "run")
    assert exits.calls == [lifetime.destroy_group] * left


@pytest.fixture
def parent(monkeypatch):
    """This process's parent, whatever the kernel offers; what would end the process raises `EndedError`."""
    calls = []

    def end(status):
        calls.append(status)
        raise EndedError(status)

    monkeypatch.setattr(lifetime.os, "_exit", end)
    monkeypatch.setattr(
        lifetime.threading, "Thread", lambda **made: SimpleNamespace(start=lambda: calls.append(made))
    )
    return SimpleNamespace(pid=lifetime.os.getppid(), calls=calls)


def library(**functions):
    return lambda _: SimpleNamespace(**functions)


def test_the_kernel_ends_a_process_with_its_parent_or_a_thread_does(parent, monkeypatch):
    asked = []
    monkeypatch.setattr(lifetime.ctypes, "CDLL", library(prctl=lambda *args: asked.append(args) or 0))
    lifetime.die_with_parent(parent.pid)
    assert asked == [(1, 9)]
    assert parent.calls == []
    with pytest.raises(EndedError):
        lifetime.die_with_parent(parent.pid + 1)  # it was gone before the kernel was asked
    for absent in (library(), library(prctl=lambda *_: -1)):
        parent.calls.clear()
        monkeypatch.setattr(lifetime.ctypes, "CDLL", absent)
        lifetime.die_with_parent(parent.pid)
        (thread,) = parent.calls
        monkeypatch.setattr(lifetime.os, "getppid", iter([parent.pid, 1]).__next__)
        monkeypatch.setattr(lifetime, "PARENT_POLL", 0.0)
        with pytest.raises(EndedError):
            thread["target"](*thread["args"])
        monkeypatch.setattr(lifetime.os, "getppid", lambda: parent.pid)


def test_only_processes_that_were_announced_die_with_their_launcher(parent, monkeypatch):
    asked = []
    monkeypatch.setattr(lifetime, "die_with_parent", asked.append)
    monkeypatch.delenv(lifetime.PARENT, raising=False)
    lifetime.die_with_launcher()
    monkeypatch.setenv(lifetime.PARENT, str(parent.pid + 1))
    lifetime.die_with_launcher()
    assert asked == []
    monkeypatch.setenv(lifetime.PARENT, str(parent.pid))
    lifetime.die_with_launcher()
    assert asked == [parent.pid]
