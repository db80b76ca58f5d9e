"""TCP ports of this machine: whether one can be used, and one that nothing uses."""

from __future__ import annotations

import socket


def is_free(port: int) -> bool:
    """Whether a process of this machine can listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just closed can be used again
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(address: str = "127.0.0.1") -> int:
    """A port on which nothing listens at this moment: of 127.0.0.1, or of all addresses of this machine, if empty."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
