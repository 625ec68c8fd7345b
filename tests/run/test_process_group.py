"""How a process takes leave of the others: once, in good order, or not at all."""

from __future__ import annotations

import pytest

from tests.processes import gloo_threads, together
from tests.run.tiny import TinyTask, tiny_data
from visionkit.errors import RunError
from visionkit.run import RunConfig
from visionkit.run.processes import lifetime
from visionkit.run.training.fit import fit


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
