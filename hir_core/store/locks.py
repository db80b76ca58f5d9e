"""File locks of a run: a lock file for its one writer, and a shared lock on its folder for readers.

Any number of processes may read at the same time as the writer. Readers only exclude the removal of versions. The
kernel frees a lock when the process that holds it ends. Writes lock files; raises RunLocked and StoreError.
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
from hir_core.store.plain_files import open_plain

_SIGNATURE = b'{"pid": '
"""The beginning of what a lock file holds while its lock is held, or after its process was killed."""
_SIGNATURE_BYTES = 4096
_HELD: set[io.FileIO] = set()
"""The open files of the locks that this process holds."""


def _close_in_forked_child() -> None:
    # A forked child shares its parent's locks and would keep them after the parent's death. (exec closes them itself.)
    for handle in _HELD:
        handle.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_close_in_forked_child)


@contextmanager
def exclusive(path: Path, *, wait: bool) -> Iterator[None]:
    """Holds an exclusive lock on a file, in which this process signs; creates the file and its folder.

    Args:
        path: the lock file.
        wait: until another process frees the lock, instead of refusing.

    Raises:
        RunLocked: another process holds it; says which.
        StoreError: the file cannot be written, is not a lock file, or its file system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open_plain(path, "a+")
    except OSError as error:
        raise StoreError(f"cannot write to {path.parent}: {error.strerror}") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise RunLocked(
                f"{path.parent} is being written by another process ({_holder(handle)}): wait for it or stop it"
            ) from None
        except OSError as error:
            raise StoreError(f"cannot lock {path}: {error.strerror}; put the run on a file system with locks") from None
        _refuse_what_is_no_lock(handle, path)
        _HELD.add(handle)
        try:
            _sign(handle, path)
            yield
        finally:
            _HELD.discard(handle)
            if not handle.closed:  # it is closed in a forked child that exits; the lock is its parent's
                handle.truncate(0)


class Reader:
    """A shared lock on a folder, held from `begin` until the object is deleted: it keeps others from `exclusive`.

    Readers write nothing and never wait for each other or for the writer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handle: int | None = None

    def begin(self) -> None:
        """Takes the shared lock, unless it is held, the folder does not exist or its file system has no locks."""
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
        """Holds the lock exclusively, so that something can be removed; afterwards shares it again.

        Raises:
            RunLocked: another reader holds it.
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
        with contextlib.suppress(OSError):  # on a file system without locks readers are not protected
            fcntl.flock(self._handle, fcntl.LOCK_SH)


def signature(path: Path) -> str | None:
    """The process that signed a lock file, as text for messages; None without a signature or a file.

    Raises:
        StoreError: it is no plain file.
    """
    try:
        with open_plain(path) as handle:
            return _holder(handle) if handle.read(1) else None
    except OSError:
        return None


def is_held(path: Path) -> bool:
    """Whether a process holds a lock file now. Takes the lock for a moment itself, so call it for signed files only."""
    with open_plain(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _refuse_what_is_no_lock(handle: io.FileIO, path: Path) -> None:
    """Checks that a file may be emptied: one that holds anything else than a signature is not hir's."""
    handle.seek(0)
    if not _SIGNATURE.startswith(handle.read(len(_SIGNATURE))):
        raise StoreError(f"{path} holds something else than a lock of hir: move it away")


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
        holder = json.loads(handle.read(_SIGNATURE_BYTES))
        return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError, RecursionError):  # it has taken the lock and not signed yet
        return "its pid is not recorded yet"
