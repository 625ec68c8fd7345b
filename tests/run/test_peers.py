"""A process that the others have given up is ended; one that ends by itself is left alone."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from visionkit.run.processes import lifetime
from visionkit.run.processes.launcher import store_key
from visionkit.run.processes.lifetime import RankWatchdog


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
