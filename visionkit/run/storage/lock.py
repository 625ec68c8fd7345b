"""A lock on a run's folder, so that one command at a time trains there; it ends with its holder.

The operating system's lock (`flock`) ends with the process, whatever ended it. It may not reach other
machines, so the file also names its holder, and is touched as long as that runs: a holder on another machine
counts as long as the file is fresh. A holder of the same SLURM job is this one before a requeue, and gone.
The data workers of a killed holder keep its lock until they notice, some seconds later: they are waited for.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from visionkit.errors import InputError
from visionkit.files import WINDOWS, local_path, process_exists, unwritable
from visionkit.printable import printable

__all__ = ["FILE", "hold", "is_held"]

FILE = "run.lock"
# Windows has none: the content of the file decides.
FCNTL: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None
TOUCH = 30.0  # seconds between signs of life
STALE = 180.0  # seconds without one after which a holder on another machine counts as gone
# Seconds for what a killed holder left behind to end: data workers look for their parent every five.
LINGER = 30.0
QUIET = 3.0  # seconds after which this wait is announced
_HELD: set[Path] = set()


@contextlib.contextmanager
def hold(folders: Sequence[str | Path]) -> Iterator[None]:
    """Hold the locks of run folders; those that this process, or one it was forked from, holds are skipped.

    Args:
        folders: The runs' folders; made where they are not there, and removed again if they stay empty.

    Raises:
        InputError: Another process trains there; names it, its machine and since when. Or a folder is an
            address of another machine.
        RunError: A folder cannot be made or written.
    """
    resolved = dict.fromkeys(local_path(folder, "a folder").resolve() for folder in folders)
    missing = [path for path in resolved if path not in _HELD]
    taken: list[tuple[Path, int, bool]] = []
    done = threading.Event()
    try:
        for folder in missing:
            new = not folder.exists()
            try:
                taken.append((folder, _take(folder), new))
            except OSError as error:
                if new:
                    with contextlib.suppress(OSError):
                        folder.rmdir()
                raise unwritable(folder, error) from error
            _HELD.add(folder)
        if taken:
            files = [folder / FILE if WINDOWS else handle for folder, handle, _ in taken]
            threading.Thread(target=_touch, args=(files, done), daemon=True).start()
        yield
    finally:
        done.set()
        for folder, handle, new in taken:
            _HELD.discard(folder)
            _give_back(folder, handle)
            if new:
                with contextlib.suppress(OSError):
                    folder.rmdir()  # only if nothing was written


def is_held(folder: str | Path) -> bool:
    """Return whether somebody trains in a run's folder, by what its lock file says; nothing is locked.

    Args:
        folder: The run's folder.
    """
    path = Path(folder) / FILE
    try:
        content = json.loads(path.read_bytes()[:65536])
        age = time.time() - path.stat().st_mtime
    except (OSError, ValueError):
        return False
    if isinstance(content, dict) and content.get("host") == socket.gethostname():
        return _runs(content.get("pid"))
    return age < STALE


def _take(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    began, announced = time.monotonic(), False
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        locked = _lock(handle)
        if locked is False:
            holder = _read(handle)
            os.close(handle)
            gone = holder.get("host") == socket.gethostname() and not _runs(holder.get("pid"))
            waited = time.monotonic() - began
            if gone and waited < LINGER:
                if waited >= QUIET and not announced:
                    announced = True
                    sys.stderr.write(_waiting(folder, holder))
                time.sleep(0.1)
                continue
            raise _refusal(folder, holder, gone=gone)
        # Its holder may have removed the file between our opening and locking it: then it guards nothing.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                break
        os.close(handle)
    holder = _read(handle)
    if holder and _lives(holder, folder, known=bool(locked)):
        os.close(handle)
        raise _refusal(folder, holder)
    text = json.dumps(_me()) + "\n"
    try:
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, text.encode())
    except OSError:  # a full disk takes the name, and not the text
        _give_back(folder, handle)
        raise
    return handle


def _give_back(folder: Path, handle: int) -> None:
    steps: list[Callable[[], object]] = [(folder / FILE).unlink, partial(os.close, handle)]
    if WINDOWS:  # which removes no file that is open
        steps.reverse()
    for step in steps:
        with contextlib.suppress(OSError):
            step()


def _lock(handle: int) -> bool | None:
    """Return whether this process now holds the lock; None where the file system has no locks."""
    if FCNTL is None:
        return None
    try:
        FCNTL.flock(handle, FCNTL.LOCK_EX | FCNTL.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _me() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "slurm_job": os.environ.get("SLURM_JOB_ID", ""),
        "command": " ".join(sys.argv)[:500],
    }


def _read(handle: int) -> dict[str, Any]:
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        content = json.loads(os.read(handle, 65536) or b"{}")
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _lives(holder: dict[str, Any], folder: Path, *, known: bool) -> bool:
    """Return whether a holder runs although its lock was free; `known`: the file system has locks."""
    mine = _me()
    if holder.get("slurm_job") and holder["slurm_job"] == mine["slurm_job"]:
        return False
    if holder.get("host") == mine["host"]:
        if known or holder.get("pid") == mine["pid"]:
            return False
        return _runs(holder.get("pid"))
    return _age(folder) < STALE


def _runs(pid: Any) -> bool:
    return isinstance(pid, int) and process_exists(pid)


def _age(folder: Path) -> float:
    # By the clock of the file system, which may be another machine's.
    probe = folder / f".{FILE}-{os.getpid()}"
    try:
        probe.touch()
        return probe.stat().st_mtime - (folder / FILE).stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _touch(files: Sequence[int | Path], done: threading.Event) -> None:
    while not done.wait(TOUCH):
        for file in files:
            with contextlib.suppress(OSError):
                os.utime(file)


def _waiting(folder: Path, holder: dict[str, Any]) -> str:
    return printable(
        f"{folder}: process {holder.get('pid')}, which trained there, has ended; waiting up to "
        f"{LINGER:.0f} seconds for its data workers to end too.\n"
    )


def _refusal(folder: Path, holder: dict[str, Any], *, gone: bool = False) -> InputError:
    who = "another process"
    if holder:
        since = f" since {holder.get('since')}" if holder.get("since") else ""
        who = f"process {holder.get('pid')} on {holder.get('host')}{since}"
    if gone:
        who = f"what {who} left running (it has ended itself)"
    here = not holder or holder.get("host") == socket.gethostname()
    wait = "" if here else f" If that machine is gone, wait {STALE / 60:.0f} minutes or remove the file."
    ahead = 0.0 if here else -_age(folder)
    if ahead > TOUCH:
        wait = (
            f" Its last sign of life lies {ahead / 60:.0f} minutes in the future: the clocks of the machines "
            "differ, so waiting does not help. If that machine is gone, remove the file."
        )
    return InputError(
        f"{folder} is being written by {who} ({FILE} there). Two commands cannot write there: wait until "
        f"it has ended, or give another --out.{wait}"
    )
