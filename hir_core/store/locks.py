"""Locks: one writer at a time, who signs the lock's file; any number of readers, who keep away whoever removes.

The kernel frees a lock when its holder ends. Writes the lock files only; what they protect is up to the store.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import socket
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hir_core.errors import RunLocked, StoreError
from hir_core.store.manifest import utc_now

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


class Reader:
    """Somebody who reads a folder's files: from `begin` on until it is dropped, nobody else has the folder `exclusive`.

    Readers share the folder, sign nothing and write nothing, and wait for nothing but the moment of a removal.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handle: int | None = None

    def begin(self) -> None:
        """Takes the folder, where there is one and its file system has locks; once is enough."""
        if self._handle is not None:
            return
        try:
            self._handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return
        weakref.finalize(self, os.close, self._handle)
        self._share()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keeps all other readers out for the moment that it takes to remove something.

        Raises:
            RunLocked: another one reads now.
            StoreError: the folder cannot be locked.
        """
        self.begin()
        try:
            if self._handle is None:
                raise FileNotFoundError(errno.ENOENT, "no such folder")
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._share()
            raise RunLocked(f"{self.folder} is being read by another process: nothing was removed; try again") from None
        except OSError as error:
            raise StoreError(f"cannot lock {self.folder}: {error.strerror}; put the run where locks work") from None
        try:
            yield
        finally:
            self._share()

    def _share(self) -> None:
        assert self._handle is not None
        with contextlib.suppress(OSError):  # without locks a reader has to do without
            fcntl.flock(self._handle, fcntl.LOCK_SH)


def signature(path: Path) -> str | None:
    """Who signed a lock file, as a person reads it; None where nobody did or there is no such file."""
    try:
        with io.FileIO(path) as handle:
            return _holder(handle) if handle.read(1) else None
    except OSError:
        return None


def is_held(path: Path) -> bool:
    """Whether somebody holds a lock file now; takes it for a moment, so ask only of one that is signed."""
    with io.FileIO(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


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
