"""Messages between the head of a launch and a host, over one TCP connection of which both ends know a key.

Each side sends a random number. From these and the key, which is never sent, follows a key for the connection, and
every message carries a code made with it (HMAC-SHA256) of its content, its number and its direction. So a message can
be neither made up, changed, repeated nor taken from another connection by somebody who does not know the key. The
content is not encrypted, and holds no secret. `messages` says what is sent; `head` and `host` are the two ends.
"""

from __future__ import annotations

import hmac
import secrets
import select
import socket
import threading
import time
from contextlib import suppress
from typing import Literal

from hir_core.launch.messages import Message, decoded, encoded

End = Literal["head", "host"]
LONGEST_MESSAGE = 65536
"""Bytes of a line. A peer that sends more without an end of line is cut off."""
NONCE_DIGITS = 64
SEND_TIMEOUT_S = 5.0


class Channel:
    """One end of a connection.

    Args:
        connection: it is closed with this object.
        end: which end this is.

    Raises:
        ConnectionError: the peer has closed the connection, or does not follow the protocol.
        TimeoutError: it has not sent its random number in time.
    """

    def __init__(self, connection: socket.socket, key: bytes, end: End, timeout_s: float) -> None:
        self._socket, self._end = connection, end
        self._received = bytearray()
        self._sent_count = self._received_count = 0
        self._sending = threading.Lock()
        connection.settimeout(SEND_TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        nonce = secrets.token_hex(NONCE_DIGITS // 2).encode()
        connection.sendall(nonce + b"\n")
        other = self._line(timeout_s, NONCE_DIGITS)
        if other is None:
            raise TimeoutError("the peer sends nothing")
        if len(other) != NONCE_DIGITS:
            raise ConnectionError("the peer does not follow the protocol")
        nonces = (nonce, other) if end == "head" else (other, nonce)
        self._key = hmac.digest(key, b"hir launch 1" + b"".join(nonces), "sha256")

    def send(self, message: Message) -> None:
        """Sends a message; may be called from several threads.

        Raises:
            OSError: the connection is closed, or the peer reads nothing.
        """
        content = encoded(message)
        with self._sending:
            self._socket.sendall(self._code(self._end, self._sent_count, content) + b" " + content + b"\n")
            self._sent_count += 1

    def receive(self, timeout_s: float) -> Message | None:
        """The next message; None where none has come in time.

        Raises:
            ConnectionError: the peer has closed the connection, or does not know the key.
            OSError: the connection is closed.
        """
        line = self._line(timeout_s, LONGEST_MESSAGE)
        if line is None:
            return None
        code, _, content = line.partition(b" ")
        sender: End = "host" if self._end == "head" else "head"
        if not hmac.compare_digest(code, self._code(sender, self._received_count, content)):
            raise ConnectionError("the peer does not know the key of this launch")
        self._received_count += 1
        return decoded(content)

    @property
    def peer_address(self) -> str:
        """The address of the other end."""
        return _plain(self._socket.getpeername()[0])

    @property
    def own_address(self) -> str:
        """The address of this end."""
        return _plain(self._socket.getsockname()[0])

    def close(self) -> None:
        """Closes the connection; a `receive` of another thread ends."""
        with suppress(OSError):  # the peer has closed it
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _code(self, sender: End, number: int, content: bytes) -> bytes:
        return hmac.digest(self._key, f"{sender} {number} ".encode() + content, "sha256").hex().encode()

    def _line(self, timeout_s: float, longest: int) -> bytes | None:
        """The next line; None where it is not whole in time: what has come of it is kept."""
        deadline = time.monotonic() + timeout_s
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > longest:
                raise ConnectionError("the peer does not follow the protocol")
            if not self._is_readable(deadline - time.monotonic()):
                return None
            data = self._socket.recv(16384)
            if not data:
                raise ConnectionError("the connection was closed")
            self._received += data
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def _is_readable(self, timeout_s: float) -> bool:
        if self._socket.fileno() < 0:
            raise ConnectionError("the connection was closed")
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout_s) * 1000))


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")
