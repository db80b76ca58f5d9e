"""The hosts of a run, in its driver: started, waited for, given jobs, and ended with the run.

The driver is the head (see `head`), and on every machine that runs ranks, this one included, there is a host process
(see `host`). Who starts these is up to the settings: the driver does with ssh for each line of a hostfile, or with one
`srun`; or a cluster has started them as it has started the driver. They stay for the whole run, each launch starts
ranks anew, and a host that is gone is started once more for the next launch. Writes `head.json` and `hosts.log` into
the run's folder `launches`, and what joined into `logs/launcher.log` of the job.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hir_core.config import LaunchConfig
from hir_core.errors import ConfigError, JobFailed
from hir_core.launch.commands import forwarded_env, python_path
from hir_core.launch.devices import is_here, read_hostfile
from hir_core.launch.failures import read_tail
from hir_core.launch.head import Head, JoinedHost
from hir_core.launch.head_file import HeadFile, delete_head_file, head_file, own_addresses, write_head_file
from hir_core.launch.host import SEE_JOB_S
from hir_core.launch.messages import SILENCE_S, Ask, Prepare, Start, Stop
from hir_core.launch.monitor import launcher_log
from hir_core.launch.node_rank import find_node_rank
from hir_core.launch.processes import STOP_S, LocalProcesses, Loss, start_supervised
from hir_core.launch.slurm import PROCESSES, allocated_nodes, srun_command
from hir_core.store.plain_files import open_plain

ALL = -1
"""In place of the number of a host: all of them."""
TELL_AFTER_S = 15.0
"""A wait for hosts that ends within this time needs no words."""
GOODBYE_S = 10.0
"""How long hosts that join late are waited for at the end of a run, and host processes of this machine to end."""


class Hosts:
    """The hosts of a run; none where it runs on this machine alone.

    Use it as a context manager: hosts that a cluster has started can join from its beginning, and end with it.

    Args:
        config: the settings.
        folder: the run's folder.
    """

    def __init__(self, config: LaunchConfig, folder: Path) -> None:
        self._config, self._folder = config, folder.resolve()
        self._head: Head | None = None
        self._starters: dict[int, LocalProcesses] = {}

    def __enter__(self) -> Hosts:
        if self._config.launcher == "external":
            self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(is_done=kind is None)

    def start(self, job_dir: Path, module: str, on_wait: Callable[[str], None]) -> HostProcesses:
        """Starts the ranks of a job on all hosts.

        Args:
            on_wait: is told of the hosts that are waited for.

        Raises:
            ConfigError: a host cannot run its ranks, or does not see the job's folder.
            JobFailed: a host does not join in time, or is lost.
        """
        head = self._open()
        self._start_missing(head)
        hosts = self._joined(head, on_wait)
        lines = "".join(f"{host}, {host.hello.slots} ranks\n" for host in hosts)
        with open_plain(launcher_log(job_dir), "a") as log:
            log.write(f"{lines}What their launchers print is in host-N.log.\n".encode())
        port = self._prepare(head, hosts, job_dir)
        start = Start(
            job_dir=str(job_dir),
            module=module,
            slots=[host.hello.slots for host in hosts],
            master_addr=self._config.master_addr or _master_address(hosts),
            master_port=self._config.port or port,
            collective_timeout_s=self._config.collective_timeout_s,
            grace_s=self._config.grace_s,
        )
        for host in hosts:
            host.start(start)
        return HostProcesses(head, hosts)

    def close(self, *, is_done: bool) -> None:
        """Ends the hosts.

        Args:
            is_done: whether the run is complete: then the processes that a cluster has started end well.
        """
        head, self._head = self._head, None
        if head is None:
            return
        deadline = time.monotonic() + GOODBYE_S
        if is_done and self._config.launcher == "external":
            with head.changed:  # of a run that had nothing to do
                head.changed.wait_for(lambda: not head.missing(), GOODBYE_S)
        head.close(is_done=is_done)
        while any(starter.poll() is None for starter in self._starters.values()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for starter in self._starters.values():
            starter.stop()
        self._starters.clear()
        delete_head_file(head_file(self._folder))

    def _open(self) -> Head:
        """The head, which listens from now on."""
        if self._head is None:
            config = self._config
            if config.hostfile is not None:
                nodes = len(read_hostfile(config.hostfile))
            else:
                nodes = allocated_nodes(config) if config.launcher == "slurm" else find_node_rank(config).nodes
            self._head = head = Head(nodes)
            own = own_addresses()
            addresses = own if config.master_addr is None or config.launcher == "slurm" else (config.master_addr, *own)
            env = {} if config.hostfile is None else forwarded_env(config.env)
            content = HeadFile(addresses=addresses, port=head.port, key=head.key.hex(), env=env)
            write_head_file(head_file(self._folder), content)
            self._start_missing(head)
        return self._head

    def _start_missing(self, head: Head) -> None:
        """Starts the hosts that are not there, as far as they are this process's to start."""
        missing = head.missing()
        for node, command in self._commands():
            its_hosts = range(head.nodes) if node == ALL else (node,)
            lost = [host for host in its_hosts if host in missing and head.has_known(host)]
            starter = self._starters.get(node)
            if starter is not None and starter.poll() is None and not lost:
                continue
            if starter is not None:
                starter.stop()
                head.lose(its_hosts, "it is started anew")
            env = os.environ | {"PYTHONPATH": python_path(), PROCESSES: _number(self._config)}
            path = head_file(self._folder)
            self._starters[node] = start_supervised(path.with_name("hosts.log"), command, env, 0, path)

    def _commands(self) -> Iterator[tuple[int, list[str]]]:
        """The commands that start hosts, each with the number of its host, or ALL."""
        host = [sys.executable, "-m", "hir_core.launch.host"]
        if self._config.launcher == "slurm":
            yield ALL, [*srun_command(self._config), *host]
        elif self._config.launcher == "external":
            yield 0, [*host, "0", _number(self._config)]
        elif self._config.hostfile is not None:
            for node, (name, slots) in enumerate(read_hostfile(self._config.hostfile).items()):
                command = [*host, str(node), str(slots)]
                yield node, command if is_here(name) else _by_ssh(name, command)

    def _joined(self, head: Head, on_wait: Callable[[str], None]) -> list[JoinedHost]:
        """All hosts, once they have joined."""
        limit_s = self._config.join_timeout_s
        begun = time.monotonic()
        is_queued = self._config.launcher == "slurm" and "SLURM_JOB_ID" not in os.environ
        told: list[int] = []
        while len(hosts := head.hosts()) < head.nodes:
            missing = head.missing()
            if missing != told and time.monotonic() > begun + TELL_AFTER_S:
                told = missing
                on_wait(f"waits for host {_listed(missing)}")
            with head.changed:
                head.changed.wait(0.2)
            if any(starter.poll() is not None for node, starter in self._starters.items() if node in (ALL, *missing)):
                raise self._not_joined(f"what starts host {_listed(missing)} has ended")
            if time.monotonic() > begun + limit_s and not is_queued:
                raise self._not_joined(
                    f"host {_listed(missing)} did not join within launch.join_timeout_s = {limit_s:g} s"
                )
        for host in hosts:
            if host.hello.problem:
                raise ConfigError(f"launch: {host}: {host.hello.problem}")
        return hosts

    def _not_joined(self, reason: str) -> JobFailed:
        log = head_file(self._folder).with_name("hosts.log")
        tail = read_tail(log).splitlines()[-10:] if log.exists() else []
        return JobFailed(f"the launch cannot start: {reason}", log=log if tail else None, tail=tail)

    def _prepare(self, head: Head, hosts: Sequence[JoinedHost], job_dir: Path) -> int:
        """Waits until all hosts see the job; returns a port that is free on host 0."""
        digest = hashlib.sha256((job_dir / "job.json").read_bytes()).hexdigest()
        for host in hosts:
            host.prepare(Prepare(str(job_dir), digest))
        with head.changed:
            head.changed.wait_for(
                lambda: all(host.prepared is not None or host.loss is not None for host in hosts), SEE_JOB_S + SILENCE_S
            )
        for host in hosts:
            if host.loss is not None:
                raise JobFailed(host.loss.reason, is_lost=True)
            if host.prepared is None or host.prepared.problem:
                problem = "does not answer" if host.prepared is None else host.prepared.problem
                raise ConfigError(f"launch: {host} {problem}")
        assert hosts[0].prepared is not None
        return hosts[0].prepared.port


class HostProcesses:
    """The processes of one launch on several hosts; see `processes.Processes`.

    Attributes:
        ranks: how many ranks there are.
    """

    def __init__(self, head: Head, hosts: Sequence[JoinedHost]) -> None:
        self._head, self._hosts = head, hosts
        self.ranks = sum(host.hello.slots for host in hosts)

    def poll(self) -> int | None:
        """See `Processes`; the first error counts."""
        if any(host.code is None and host.loss is None for host in self._hosts):
            return None
        codes = [1 if host.code is None else host.code for host in self._hosts]
        return next(filter(None, codes), 0)

    def ask_to_end(self) -> None:
        """See `Processes`."""
        self._send_all(Ask())

    def stop(self) -> None:
        """See `Processes`; a host that does not answer in time is lost, and ends them by itself."""
        self._send_all(Stop())
        with self._head.changed:
            self._head.changed.wait_for(lambda: self.poll() is not None, STOP_S + 2.0)
        for host in self._hosts:
            if host.code is None:
                host.lose("it does not answer")

    def loss(self) -> Loss | None:
        """See `Processes`."""
        losses = [host.loss for host in self._hosts if host.loss is not None]
        return min(losses, key=lambda loss: loss.time, default=None)

    def has_failed(self) -> bool:
        """See `Processes`."""
        return any(host.loss is not None or host.code for host in self._hosts)

    def clock_lead_s(self, node: int) -> float:
        """See `Processes`."""
        return self._hosts[node].clock_lead_s

    def _send_all(self, message: Ask | Stop) -> None:
        for host in self._hosts:
            if host.code is None:
                host.send(message)


def _master_address(hosts: Sequence[JoinedHost]) -> str:
    """The address of host 0, as other hosts reach it."""
    own = own_addresses()
    if hosts[0].address not in own:
        return hosts[0].address
    # Host 0 is this machine, which may have addresses that others cannot reach: what one of them has reached it by.
    return next((host.head_address for host in hosts if host.address not in own), hosts[0].address)


def _by_ssh(name: str, command: Sequence[str]) -> list[str]:
    """The command that runs another one on a host, in the same folder.

    ssh joins its arguments into one line for the shell of that host, so they are quoted for it.
    """
    there = ["exec", "env", f"--chdir={Path.cwd()}", f"PYTHONPATH={python_path()}", *command]
    return ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", name, shlex.join(there)]


def _number(config: LaunchConfig) -> str:
    return "0" if config.processes == "auto" else str(config.processes)


def _listed(nodes: Sequence[int]) -> str:
    return ", ".join(map(str, nodes))
