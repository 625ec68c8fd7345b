"""A process that has everything imported and forks a child for each start, so that a start costs no import.

It forks before any thread exists, each child in a session of its own. A child is started, killed and waited
for by the test as any other process would be; what its function returns lies beside its log as JSON.

python -m tests.zygote     # speaks JSON lines over its standard input and output
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
HUNG = "hung"


class Child:
    """One forked process."""

    def __init__(self, zygote: Zygote, pid: int, log: Path) -> None:
        self.zygote, self.pid, self.log = zygote, pid, log
        self._handle = os.pidfd_open(pid)
        self.code: int | None = None

    def kill(self, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def running(self) -> bool:
        return self.code is None and not select.select([self._handle], [], [], 0)[0]

    def wait(self, timeout: float = 600.0) -> int | str:
        """Return the exit status (minus the signal's number), or "hung" after a kill at the time-out."""
        if self.code is None:
            late = not select.select([self._handle], [], [], timeout)[0]
            if late:
                os.killpg(self.pid, signal.SIGKILL)
            self.code = self.zygote.ask({"wait": self.pid})
            os.close(self._handle)
            if late:
                return HUNG
        return self.code

    def cpu(self) -> float:
        """Seconds of processor time so far, of the child alone."""
        with contextlib.suppress(OSError, IndexError):
            fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def result(self) -> Any:
        return json.loads(self.log.with_suffix(".json").read_text())


class Zygote:
    """The test's side."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="zygote-"))
        self.count = 0
        environment = {**os.environ, **ONE_THREAD, "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.zygote"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.threads = self._answer()["threads"]

    def start(
        self, function: str, *args: Any, env: dict[str, str] | None = None, whole_end: bool = False
    ) -> Child:
        """Fork a child that runs a function: "module:function", or a name in `tests.faults.children*`.

        The module is imported in the child, after its environment is set. With `whole_end` the child ends
        as a program does: functions of `atexit` are called, and Python takes everything down.
        """
        self.count += 1
        log = self.folder / f"{self.count}.log"
        asked = {"function": function, "args": args, "env": env or {}, "log": str(log)}
        pid = self.ask({**asked, "whole_end": whole_end})
        return Child(self, pid, log)

    def run(
        self, function: str, *args: Any, timeout: float = 600.0, env: dict[str, str] | None = None
    ) -> Any:
        """Run a child to its end and return its result; fail with its log when it ends otherwise."""
        child = self.start(function, *args, env=env)
        code = child.wait(timeout)
        assert code == 0, f"{function}{args} ended with {code}:\n{child.said()[-4000:]}"
        return child.result()

    def ranks(
        self, function: str, size: int, *args: Any, timeout: float = 240.0, torchrun: bool = False
    ) -> list[Any]:
        """Run the processes of a group to their ends and return their results.

        Args:
            function: As `start` takes it; called with the rank first, under `torchrun` with `args` alone.
            size: Processes.
            args: Plain values.
            timeout: Seconds for each.
            torchrun: Set the variables that torchrun sets.
        """
        if torchrun:
            children = self.world(function, size, *args)
        else:
            children = [self.start(function, rank, *args) for rank in range(size)]
        codes = [child.wait(timeout) for child in children]
        assert codes == [0] * size, f"{function}: {codes}\n" + "\n".join(c.said()[-4000:] for c in children)
        return [child.result() for child in children]

    def world(
        self,
        function: str,
        size: int,
        *args: Any,
        env: dict[str, str] | None = None,
        whole_end: bool = False,
    ) -> list[Child]:
        """Start one child a process of a group, with the variables that torchrun sets."""
        port = str(free_port())
        return [
            self.start(
                function,
                *args,
                env={
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(size),
                    "LOCAL_WORLD_SIZE": str(size),
                    "GROUP_RANK": "0",
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": port,
                    "TORCHELASTIC_RUN_ID": "faults",
                    **(env or {}),
                },
                whole_end=whole_end,
            )
            for rank in range(size)
        ]

    def ask(self, what: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self._answer()["value"]

    def close(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the zygote ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


def program(path: str, *words: str) -> None:
    """Be `python PATH WORDS...`, in a child."""
    sys.argv = [path, *words]
    runpy.run_path(path, run_name="__main__")


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def serve() -> None:
    """Answer the test, one line at a time, until it closes the pipe."""
    gc.disable()  # what is imported stays: looking it over meanwhile costs a fifth more
    modules = [importlib.import_module(f"tests.faults.{name}") for name in ("children", "children_data")]
    functions = {name: value for module in modules for name, value in vars(module).items()}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    gc.enable()
    gc.collect()
    gc.freeze()  # no collection of a child walks what was imported
    answer(threads=len(list(Path("/proc/self/task").iterdir())))
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            answer(value=os.waitstatus_to_exitcode(status))
            continue
        pid = os.fork()
        if pid == 0:
            answers.close()
            code = _child(functions, asked)
            if asked["whole_end"]:
                sys.exit(code)
            os._exit(code)
        answer(value=pid)


def _child(functions: dict[str, Any], asked: dict[str, Any]) -> int:
    code = 1
    try:
        os.setsid()
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(asked["env"])
        module, _, name = asked["function"].rpartition(":")
        function = getattr(importlib.import_module(module), name) if module else functions[name]
        value = function(*asked["args"])
        Path(asked["log"]).with_suffix(".json").write_text(json.dumps(value))
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve()
