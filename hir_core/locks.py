"""Locks on files: one holder at a time, who signs the file; the kernel frees a lock when its holder ends.

Writes the lock files only; what they protect is up to the store.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hir_core.errors import RunLocked, StoreError
from hir_core.manifest import utc_now

_HELD: set[io.FileIO] = set()


def _let_go_in_child() -> None:
    # A forked child shares the parent's lock and would keep it after the parent's death. (exec closes it by itself.)
    for handle in _HELD:
        handle.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


@contextmanager
def exclusive(path: Path, *, wait: bool) -> Iterator[None]:
    """Holds a lock file, whose content says by whom; creates its folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = io.FileIO(path, "a+")
    except OSError as error:
        raise StoreError(f"cannot write to {path.parent}: {error.strerror}") from None
    with handle:
        _take(handle, path, wait)
        _HELD.add(handle)
        try:
            _sign(handle, path)
            yield
        finally:
            _HELD.discard(handle)
            if not handle.closed:  # closed: this is a forked child on its way out, and the lock its parent's
                handle.truncate(0)


def _take(handle: io.FileIO, path: Path, wait: bool) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise RunLocked(
            f"{path.parent} is being written by another process ({_holder(handle)}): wait for it or stop it"
        ) from None
    except OSError as error:
        raise StoreError(f"cannot lock {path}: {error.strerror}; put the run on a file system with locks") from None


def _sign(handle: io.FileIO, path: Path) -> None:
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": utc_now()}
    try:
        handle.truncate(0)
        handle.write(json.dumps(holder).encode())
    except OSError as error:
        raise StoreError(f"cannot write to {path}: {error.strerror}") from None


def _holder(handle: io.FileIO) -> str:
    handle.seek(0)
    try:
        holder = json.loads(handle.read())
        return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # caught between its lock and its signature
        return "which has not signed yet"
