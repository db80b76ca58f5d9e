"""A Slurm cluster of one node: this machine, by the programs that a distribution's packages install.

It is Slurm itself, so what a test runs is queued, started, requeued and ended as on any cluster. All of its files are
in one folder, its ports are free ones, and nothing of it is left at the end.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hir_core.launch.ports import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
STARTS_WITHIN_S = 60
CONFIG = """\
ClusterName=tests
SlurmctldHost={host}
SlurmUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
# A requeued job waits until old credentials have expired: 2 minutes by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
KillWait=60
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:2
"""


def missing() -> str:
    """Why there can be no cluster here; empty where there can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_search_path()) is None]
    if absent:
        return f"Slurm is not installed: no {', '.join(absent)}"
    return "" if os.geteuid() == 0 else "only root can start Slurm's node"


@dataclass(frozen=True)
class SlurmCluster:
    """A cluster that runs."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a login node has: the programs and where their settings are."""
        return os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _search_path()}

    def call(self, *command: str, cwd: Path | None = None) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def state(self, job: str) -> str:
        """The state of a job, such as `RUNNING`."""
        fields = dict(word.partition("=")[::2] for word in self.call("scontrol", "show", "job", job).split())
        return fields["JobState"]


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[SlurmCluster]:
    """A cluster whose files are in an empty folder; everything that it has started ends with it."""
    host = socket.gethostname().partition(".")[0]
    ports = {"controller_port": free_port(), "node_port": free_port()}
    cores = len(os.sched_getaffinity(0))
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, host=host, cores=cores, **ports))
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    cluster = SlurmCluster(folder)
    munge = ("munged", "--foreground", "--force", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket")
    munge += (f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in (munge, ("slurmctld", "-D"), ("slurmd", "-D", "-N", host)):
            with (folder / f"{command[0]}.out").open("wb") as log:
                processes.append(subprocess.Popen(command, env=cluster.environment, stdout=log, stderr=log))
            if command is munge:
                _wait_until((folder / "munge.socket").exists, folder)
        asked = {"env": cluster.environment, "capture_output": True, "text": True}
        _wait_until(lambda: "idle" in subprocess.run(["sinfo", "-h", "-o", "%t"], **asked).stdout.split(), folder)
        yield cluster
    finally:
        subprocess.run(["scancel", "--full", "--user=root"], env=cluster.environment, capture_output=True)
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until(is_true: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not is_true():
        assert time.monotonic() < deadline, _logs(folder)
        time.sleep(0.1)


def _logs(folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.out"))


def _search_path() -> str:
    """Daemons are in folders that are on root's search path only."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
