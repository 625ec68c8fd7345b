"""What every test stands on: no network, one thread (or VISIONKIT_TEST_THREADS), seeds, real data."""

# ruff: noqa: E402
from __future__ import annotations

import gc
import os
import random
import signal
import socket
import sys
from pathlib import Path

gc.disable()  # until the tests are collected: what is imported stays, and looking it over costs a fifth more

ROOT = Path(__file__).resolve().parents[1]

# The suite starts processes that import torch: without compiled files each spends seconds on compiling it.
if sys.dont_write_bytecode:  # nothing is written beside the sources; pytest's own folder takes the files
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(ROOT / ".pytest_cache" / "bytecode")
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": sys.pycache_prefix}

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(int(os.environ.get("VISIONKIT_TEST_THREADS", "1")))

# No test depends on how fast the machine is.
settings.register_profile("any_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_machine")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: the tests press Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

LOCAL = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    try:
        return (yield)
    finally:
        gc.set_threshold(10_000)  # at Python's 700 collections take three times as long in sum
        gc.enable()
        gc.freeze()  # the modules stay to the end: a full collection need not walk them each time


@pytest.fixture(autouse=True, scope="module")
def _small_heap():
    """Keep what lives on after a file out of later collections, which else grow to a second each."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Refuse every connection that would leave this machine, so that a test which downloads fails."""
    connect = socket.socket.connect

    def guarded(self, address):
        inner = self.family == getattr(socket, "AF_UNIX", None)
        if inner or str(address[0]) in LOCAL or str(address[0]).startswith("127."):
            return connect(self, address)
        raise AssertionError(f"A test tried to reach {address}: tests never use the network.")

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def zygote():
    """A warm process that forks a child for each start, so that a process of a test costs no import."""
    from tests.zygote import Zygote

    made = Zygote()
    assert made.threads == 1, "a process with threads must not fork"
    yield made
    made.close()


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images with labels, boxes and masks; tests that need them skip where they are absent."""
    place = Path(os.environ.get("VISIONKIT_DATA", ROOT.parent / "shared" / "data"))
    if not place.is_dir():
        pytest.skip(f"real data is absent: {place} (set VISIONKIT_DATA)")
    return place
