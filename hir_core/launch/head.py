"""The head of a run on several hosts: it listens in the driver, and follows each host that has joined.

A thread accepts connections, and one more for each of them speaks with the host: both sides say every 2 s that they are
there, and a host that has been silent for `SILENCE_S` is lost, as is one whose connection is closed. Whoever does not
know the key is cut off within seconds, and never keeps a host from joining. `hosts` starts the hosts and gives them
jobs; the other end is in `host`.
"""

from __future__ import annotations

import secrets
import signal
import socket
import threading
import time
from collections.abc import Collection
from contextlib import suppress

from hir_core.launch.channel import Channel
from hir_core.launch.messages import (
    ALIVE_EVERY_S,
    SILENCE_S,
    Alive,
    Ended,
    Goodbye,
    Hello,
    Leaving,
    Message,
    Prepare,
    Prepared,
    Start,
    Welcome,
)
from hir_core.launch.processes import Loss

JOIN_S = 10.0
"""A connection on which nobody has shown by then that he knows the key is closed."""
MOST_STRANGERS = 64
"""Connections that may be about to show it at a time; of more, the oldest is closed."""


class JoinedHost:
    """A host that has joined, as the driver sees it.

    Args:
        changed: is notified of everything that this host reports.

    Attributes:
        hello: what it has said of itself.
        loss: how it was lost; None while it is there.
        prepared: its answer to the latest `Prepare`.
        code: exit code of its part of the latest launch; None while that runs.
        clock_lead_s: by how much its clock is ahead of this machine's.
    """

    def __init__(self, hello: Hello, channel: Channel, changed: threading.Condition) -> None:
        self.hello, self._channel, self._changed = hello, channel, changed
        self.loss: Loss | None = None
        self.prepared: Prepared | None = None
        self.code: int | None = None
        self.clock_lead_s = 0.0
        self._is_clock_known = False
        self._leaves = ""
        self.address, self.head_address = channel.peer_address, channel.own_address

    def __str__(self) -> str:
        return f"host {self.hello.node} ({self.hello.name}, {self.address})"

    def prepare(self, message: Prepare) -> None:
        """Has it look for a job's folder."""
        self.prepared = None
        self.send(message)

    def start(self, message: Start) -> None:
        """Has it start its ranks."""
        self.code = None
        self.send(message)

    def send(self, message: Message) -> None:
        """Sends a message; a host that cannot be reached is lost."""
        if self.loss is None:
            try:
                self._channel.send(message)
            except OSError as error:
                self.lose(f"it cannot be reached: {error}")

    def lose(self, reason: str) -> None:
        """Takes it for lost, and closes the connection, upon which it ends its ranks."""
        with self._changed:
            if self.loss is None:
                self.loss = Loss(self.hello.node, f"{self} is lost: {self._leaves or reason}", time.monotonic())
            self._changed.notify_all()
        self._channel.close()

    def follow(self) -> None:
        """Speaks with it until it is lost."""
        heard = told = time.monotonic()
        while self.loss is None:
            try:
                message = self._channel.receive(ALIVE_EVERY_S / 2)
            except OSError as error:
                return self.lose(str(error))
            now = time.monotonic()
            if message is not None:
                heard = now
                self._note(message)
            elif now - heard > SILENCE_S:
                return self.lose(f"nothing was heard from it for {SILENCE_S:g} s")
            if now - told >= ALIVE_EVERY_S:
                told = now
                self.send(Alive(time.time()))
        return None

    def _note(self, message: Message) -> None:
        with self._changed:
            if isinstance(message, Prepared):
                self.prepared = message
            elif isinstance(message, Ended):
                self.code = message.code
            elif isinstance(message, Leaving):
                name = f"signal {message.signal} ({signal.strsignal(message.signal)})"
                self._leaves = f"it was asked to end with {name}, by somebody or by the cluster"
            elif isinstance(message, Alive):
                # Of what a message took on its way, the clocks seem to differ by less: the largest lead is the best.
                lead = message.clock - time.time()
                self.clock_lead_s = max(self.clock_lead_s, lead) if self._is_clock_known else lead
                self._is_clock_known = True
            self._changed.notify_all()


class Head:
    """Listens for the hosts of a run.

    Args:
        nodes: how many there are.

    Attributes:
        nodes: the same.
        key: what a host has to know to join.
        port: the TCP port on which this listens.
        changed: is notified when a host joins or reports something.
    """

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.key = secrets.token_bytes(32)
        self.changed = threading.Condition(threading.RLock())
        self._hosts: dict[int, JoinedHost] = {}
        self._strangers: dict[socket.socket, None] = {}
        if socket.has_dualstack_ipv6():
            self._listener = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
        else:
            self._listener = socket.create_server(("", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True, name="hir-head").start()

    def hosts(self) -> list[JoinedHost]:
        """The hosts that are there, in order of their numbers."""
        with self.changed:
            return [host for _, host in sorted(self._hosts.items()) if host.loss is None]

    def missing(self) -> list[int]:
        """Numbers of the hosts that are not there."""
        there = {host.hello.node for host in self.hosts()}
        return [node for node in range(self.nodes) if node not in there]

    def has_known(self, node: int) -> bool:
        """Whether a host has joined, be it there or not."""
        with self.changed:
            return node in self._hosts

    def lose(self, nodes: Collection[int], reason: str) -> None:
        """Takes hosts for lost, and forgets them."""
        for host in self.hosts():
            if host.hello.node in nodes:
                host.lose(reason)
        with self.changed:
            self._hosts = {node: host for node, host in self._hosts.items() if node not in nodes}

    def close(self, *, is_done: bool) -> None:
        """Ends the connections.

        Args:
            is_done: whether the run is complete: then the hosts end as well as it does.
        """
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # close alone does not wake the thread that accepts
        self._listener.close()
        for host in self.hosts():
            if is_done:
                host.send(Goodbye())
            host.lose("the run has ended")
        with self.changed:
            for connection in list(self._strangers):
                _cut(connection)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._listener.fileno() < 0:
                    return
                time.sleep(0.1)  # too many open files, or a connection that was gone at once
                continue
            with self.changed:
                self._strangers[connection] = None
                if len(self._strangers) > MOST_STRANGERS:
                    oldest = next(iter(self._strangers))
                    del self._strangers[oldest]
                    _cut(oldest)
            threading.Thread(target=self._admit, args=(connection,), daemon=True, name="hir-host").start()

    def _admit(self, connection: socket.socket) -> None:
        """Lets a host join that knows the key, and follows it."""
        host = None
        try:
            channel = Channel(connection, self.key, "head", JOIN_S)
            hello = channel.receive(JOIN_S)
            if isinstance(hello, Hello):
                host = self._join(hello, channel)
        except OSError:
            pass  # a stranger
        finally:
            with self.changed:
                self._strangers.pop(connection, None)
            if host is None:
                connection.close()
        if host is not None:
            host.follow()

    def _join(self, hello: Hello, channel: Channel) -> JoinedHost | None:
        if not 0 <= hello.node < self.nodes:
            channel.send(Welcome(f"this is host {hello.node}, and the run has {self.nodes}, counted from 0"))
            return None
        channel.send(Welcome())
        host = JoinedHost(hello, channel, self.changed)
        with self.changed:
            earlier = self._hosts.get(hello.node)
            self._hosts[hello.node] = host
            self.changed.notify_all()
        if earlier is not None:
            earlier.lose("it has joined anew")
        return host


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
