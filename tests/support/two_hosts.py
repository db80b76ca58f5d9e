"""Two hosts on this machine: network namespaces, each with its own host name, that a cable of two ends connects."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

ADDRESSES = {"near": "10.77.0.1", "far": "10.77.0.2"}


@dataclass(frozen=True)
class TwoHosts:
    """The hosts `near` and `far`.

    Args:
        number: tells them from those of other tests.
    """

    number: int

    def on(self, host: str, command: list[str], **options) -> subprocess.Popen[bytes]:
        """Starts a command on a host."""
        there = ["ip", "netns", "exec", self.name(host), "unshare", "--uts", "sh", "-c", f'hostname {host}; exec "$@"']
        return subprocess.Popen([*there, "sh", *command], **options)

    def name(self, host: str) -> str:
        """The name of a host's namespace."""
        return f"hir-{host}-{self.number}"

    def processes(self, host: str) -> list[int]:
        """The processes that live on a host."""
        found = subprocess.run(["ip", "netns", "pids", self.name(host)], capture_output=True, text=True, check=True)
        return list(map(int, found.stdout.split()))

    def cut(self) -> None:
        """Cuts the cable; nobody is told."""
        ip("-n", self.name("far"), "link", "set", "cable", "down")

    def mend(self) -> None:
        """Mends the cable."""
        ip("-n", self.name("far"), "link", "set", "cable", "up")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def two_hosts() -> Iterator[TwoHosts]:
    """The hosts, which are gone at the end with all of their processes."""
    hosts = TwoHosts(os.getpid())
    names = {host: hosts.name(host) for host in ADDRESSES}
    try:
        for name in names.values():
            ip("netns", "add", name)
        ends = ["cable", "netns", names["near"], "type", "veth", "peer", "name", "cable", "netns", names["far"]]
        ip("link", "add", *ends)
        for host, name in names.items():
            ip("-n", name, "addr", "add", f"{ADDRESSES[host]}/24", "dev", "cable")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "cable", "up")
        yield hosts
    finally:
        for host, name in names.items():
            for pid in hosts.processes(host):
                os.kill(pid, 9)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def why_not() -> str:
    """Why there can be no two hosts on this machine; empty where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need the program ip (iproute2)"
    name = f"hir-trial-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return f"network namespaces cannot be made here: {tried.stderr.strip()}" if tried.returncode else ""
