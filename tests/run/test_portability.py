"""A recipe trains without what Windows lacks, and a Mac's GPU is asked for by name."""

from __future__ import annotations

import ctypes
import json
import multiprocessing.context
import os
import signal
import sys
from pathlib import Path

import psutil  # noqa: F401  before the process says that it is no Linux
import pytest
import torch

from tests.zygote import program
from visionkit.errors import InputError
from visionkit.run.config import RunConfig
from visionkit.run.training.device_policy import choose_policy

MODULES = ("fcntl", "grp", "pwd", "resource", "syslog", "termios", "tty")
SIGNALS = ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2")
CALLS = (
    "fork", "forkpty", "getpgid", "getuid", "geteuid", "killpg", "mkfifo", "nice", "pread", "pwrite",
    "setpgid", "setsid", "sysconf", "uname", "WNOHANG", "O_DIRECTORY", "O_NOFOLLOW",
)  # fmt: skip
CLASSES = ("ForkContext", "ForkProcess", "ForkServerContext", "ForkServerProcess")


def like_windows() -> None:
    """Take visionkit, and what Windows lacks, out of this process: a child that was forked."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "visionkit"]:
        del sys.modules[name]
    sys.modules |= dict.fromkeys(MODULES)  # importing one of them raises
    for module, names in ((signal, SIGNALS), (os, CALLS), (multiprocessing.context, CLASSES)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    kill, unlink, utime, library = os.kill, os.unlink, os.utime, ctypes.CDLL

    def guarded_kill(pid, number):
        assert number, "there number 0 is Ctrl-C"
        kill(pid, number)

    def guarded_utime(path, *args, **named):
        assert not isinstance(path, int), "there it takes no open file"
        utime(path, *args, **named)

    def guarded_unlink(path, **named):
        files = [file.resolve() for file in Path("/proc/self/fd").iterdir()]
        if Path(path).name == "run.lock" and Path(path).resolve() in files:
            raise PermissionError(path)
        unlink(path, **named)

    def guarded_library(name=None, *args, **named):
        if name is None:
            raise TypeError("there it takes a name")
        return library(name, *args, **named)

    os.kill, os.utime, os.unlink, ctypes.CDLL = guarded_kill, guarded_utime, guarded_unlink, guarded_library
    import visionkit.files

    visionkit.files.WINDOWS = True


def recipe(*words: str) -> None:
    """Be `python recipes/classify.py WORDS...` there."""
    like_windows()
    sys.platform = "windows"  # not "win32", at which torch would look for DLLs
    program("recipes/classify.py", *words)


def test_a_recipe_helps_and_trains_without_posix(zygote, tmp_path):
    start = "tests.run.test_portability:recipe"
    shown = zygote.start(start, "--help")
    words = "--scenes.train_size=16 --scenes.val_size=8 --image_size=32 --batch_size=8 --epochs=1 --seeds=0"
    network = ("--backbone=timm/test_resnet", "--init=scratch")
    child = zygote.start(start, *words.split(), *network, f"--out={tmp_path}")
    assert shown.wait() == 0, shown.said()
    assert "--accelerator" in shown.said()
    assert child.wait() == 0, child.said()[-3000:]
    run = tmp_path / "scratch-f1-s0"
    assert json.loads((run / "result.json").read_text())["peak_memory_mb"] > 10
    assert not (run / "run.lock").exists()
    assert (tmp_path / "report.html").is_file()


def test_a_macs_gpu_is_asked_for_by_name(monkeypatch):
    with pytest.raises(InputError, match=r"Apple GPU \(MPS\) for --accelerator mps, but found none\. Use"):
        choose_policy(RunConfig(accelerator="mps"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    policy = choose_policy(RunConfig(accelerator="mps"))
    assert (policy.accelerator, policy.device, policy.precision) == ("mps", "mps", "32-true")
    assert not policy.channels_last
    assert choose_policy(RunConfig(accelerator="auto")).accelerator == "cpu"
    with pytest.raises(InputError, match="Use --accelerator cpu or mps"):
        choose_policy(RunConfig(accelerator="gpu"))
    with pytest.raises(InputError, match="at most 32 bits"):
        choose_policy(RunConfig(accelerator="mps", precision="64-true"))
