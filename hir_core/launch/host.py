"""A host of a run, which starts ranks when the head says so, and ends them when the head is gone.

    python -m hir_core.launch.host [NODE SLOTS]

Whoever starts it (`hosts`, with ssh or srun) gives it the content of `head.json` as its standard input. On a host that
a cluster has started, `serve_run` does the same within `hir run`. It keeps one connection to the head (see `channel`).
Each launch runs below a supervisor, which ends every process of the launch when this process does. Where the connection
is closed, or nothing is heard for `SILENCE_S`, the launch is ended, and so is this process. Writes `logs/host-N.log`
into the job's folder; a request to end (SIGTERM, SIGINT) is passed on to the ranks, who may save their work first.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

from hir_core.config import LaunchConfig
from hir_core.errors import ConfigError, HirError, JobFailed
from hir_core.launch.channel import Channel
from hir_core.launch.commands import host_command, host_env
from hir_core.launch.devices import Devices, find_devices
from hir_core.launch.end_requests import ASKS
from hir_core.launch.head_file import HeadFile, head_file, interface_of, is_loopback, read_head_file
from hir_core.launch.messages import (
    ALIVE_EVERY_S,
    SILENCE_S,
    Alive,
    Ask,
    Ended,
    Goodbye,
    Hello,
    Leaving,
    Message,
    Prepare,
    Prepared,
    Start,
    Stop,
    Welcome,
)
from hir_core.launch.node_rank import NodeRank, find_node_rank
from hir_core.launch.ports import free_port
from hir_core.launch.processes import LocalProcesses, start_supervised
from hir_core.launch.slurm import PROCESSES

CONNECT_S = 3.0
"""How long one address of the head is tried."""
POLL_S = 0.1
SEE_JOB_S = 90.0
"""How long the folder of a job may take to be seen here: NFS looks for new files once a minute."""


class Host:
    """This process as a host of a run.

    Args:
        channel: the connection to the head, which has let this host join.
        node: the number of this host.
        devices: those of this host.
    """

    def __init__(self, channel: Channel, node: int, devices: Devices) -> None:
        self._channel, self._node, self._devices = channel, node, devices
        self._launch: LocalProcesses | None = None
        self._awaited: Prepare | None = None
        self._awaited_until = 0.0
        self._asked = 0
        self._has_said_that_it_leaves = False
        self._heard_at = self._told_at = time.monotonic()

    def serve(self) -> int:
        """Obeys the head until the run is over, and returns an exit code.

        Raises:
            JobFailed: the head is gone; no rank is left here.
        """
        for number in ASKS:
            signal.signal(number, self._note_request)
        try:
            while not (self._has_said_that_it_leaves and self._launch is None):
                message = self._next_message()
                if isinstance(message, Goodbye):
                    return 0
                self._obey(message)
                self._look_for_job()
                self._look_after_launch()
                if self._asked and not self._has_said_that_it_leaves:
                    self._has_said_that_it_leaves = True
                    self._channel.send(Leaving(self._asked))
        except OSError as error:
            reason = f"host {self._node} ({socket.gethostname()}): the head of the run is gone: {error}"
            raise JobFailed(reason, is_lost=True) from None
        finally:
            if self._launch is not None:
                self._launch.stop()
            self._channel.close()
        return 128 + self._asked

    def _next_message(self) -> Message | None:
        """What the head says, if it does so soon; raises ConnectionError where it has been silent for too long."""
        message = self._channel.receive(POLL_S)
        now = time.monotonic()
        if message is not None:
            self._heard_at = now
        elif now - self._heard_at > SILENCE_S:
            raise ConnectionError(f"nothing was heard from it for {SILENCE_S:g} s")
        if now - self._told_at >= ALIVE_EVERY_S:
            self._told_at = now
            self._channel.send(Alive(time.time()))
        return message

    def _note_request(self, number: int, _frame: object) -> None:
        if not self._asked and self._launch is not None:
            self._launch.ask_to_end()
        self._asked = number

    def _obey(self, message: Message | None) -> None:
        if isinstance(message, Prepare):
            self._awaited, self._awaited_until = message, time.monotonic() + SEE_JOB_S
        elif isinstance(message, Start):
            self._start(message)
        elif isinstance(message, Ask) and self._launch is not None:
            self._launch.ask_to_end()
        elif isinstance(message, Stop) and self._launch is not None:
            self._launch.begin_to_stop()

    def _look_for_job(self) -> None:
        """Answers the head once this host sees the job that is to be started."""
        if self._awaited is None:
            return
        job = Path(self._awaited.job_dir, "job.json")
        problem = ""
        try:
            if hashlib.sha256(job.read_bytes()).hexdigest() != self._awaited.digest:
                problem = f"sees another {job} than the head: is runs_dir the same folder on all hosts?"
        except OSError as error:
            problem = f"cannot read {job}: {error.strerror}: runs_dir must be a folder that all hosts see"
        if not problem or time.monotonic() > self._awaited_until:
            self._awaited = None
            self._channel.send(Prepared(free_port(""), problem))

    def _start(self, start: Start) -> None:
        job_dir = Path(start.job_dir)
        env = host_env(start, self._node, self._devices, self._interface(start.master_addr))
        command = host_command(start, self._node, self._devices)
        self._launch = start_supervised(job_dir / "logs" / f"host-{self._node}.log", command, env, start.grace_s)

    def _interface(self, master_addr: str) -> str | None:
        """The network interface of this host over which it reaches the others."""
        if is_loopback(master_addr):
            return None
        return interface_of(master_addr) or interface_of(self._channel.own_address)

    def _look_after_launch(self) -> None:
        """Reports the end of the launch."""
        if self._launch is not None and (code := self._launch.poll()) is not None:
            self._launch = None
            self._channel.send(Ended(code))


def join(head: HeadFile, hello: Hello) -> Channel:
    """A connection to the head over the first of its addresses at which it answers.

    Raises:
        ConfigError: it does not let this host join.
        OSError: it answers at none.
    """
    problem: OSError = ConnectionError("it has no address")
    for address in head.addresses:
        connection = None
        try:
            connection = socket.create_connection((address, head.port), CONNECT_S)
            channel = Channel(connection, bytes.fromhex(head.key), "host", CONNECT_S)
            channel.send(hello)
            welcome = channel.receive(CONNECT_S)
            if not isinstance(welcome, Welcome):
                raise ConnectionError("it does not answer")
        except OSError as error:
            problem = error
            if connection is not None:
                connection.close()
            continue
        if welcome.problem:
            channel.close()
            raise ConfigError(f"launch: {welcome.problem}")
        return channel
    raise problem


def find_slots(processes: int | str, devices: Devices) -> tuple[int, str]:
    """The ranks of this host, and why it cannot run so many, if it cannot."""
    slots = len(devices.gpus) or 1 if isinstance(processes, str) else processes
    if slots <= devices.slots:
        return slots, ""
    return slots, f"{slots} ranks are asked for, and it has {devices.slots} {devices.slot_name}"


def serve_run(config: LaunchConfig, folder: Path, place: NodeRank) -> int:
    """Serves the head of a run, which a cluster has started on another host, and returns an exit code.

    Args:
        config: the settings.
        folder: the run's folder, as the head sees it.
        place: the place of this process.

    Raises:
        ConfigError: the head does not let this host join.
        JobFailed: the head does not answer within `launch.join_timeout_s`, or is gone.
    """
    devices = find_devices()
    slots, problem = find_slots(config.processes, devices)
    hello = Hello(place.node, socket.gethostname(), slots, problem)
    path = head_file(folder.resolve())
    deadline = time.monotonic() + config.join_timeout_s
    said = f"{path} does not exist: runs_dir must be a folder that all hosts see"
    while time.monotonic() < deadline:
        if (head := read_head_file(path)) is not None:  # it may be that of an earlier run
            try:
                channel = join(head, hello)
            except OSError as error:
                said = f"{', '.join(head.addresses)}, port {head.port}: {error}"
            else:
                return Host(channel, place.node, devices).serve()
        time.sleep(0.5)
    limit = f"launch.join_timeout_s = {config.join_timeout_s:g} s"
    raise JobFailed(f"host {place.node}: the head of the run did not answer within {limit}: {said}")


def main() -> int:
    """Serves the head that has started this process."""
    head = HeadFile.model_validate_json(sys.stdin.readline())
    os.environ.update(head.env)
    devices = find_devices()
    if len(sys.argv) > 1:
        node, processes = int(sys.argv[1]), int(sys.argv[2])
    else:
        node = find_node_rank(LaunchConfig(launcher="external")).node
        processes = int(os.environ.get(PROCESSES) or 0)
    slots, problem = find_slots(processes or "auto", devices)
    channel = join(head, Hello(node, socket.gethostname(), slots, problem))
    return Host(channel, node, devices).serve()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (HirError, OSError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        sys.exit(1)
