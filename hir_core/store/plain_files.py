"""Opening and writing files of a run without following links: what lies there may have been put by somebody else.

A run that was copied from elsewhere, or into which others may write, can hold a link, a named pipe or a device where
hir has a file of its own. Opened like any other file, a link leads a write, or a deletion, to another file of the user,
and a pipe is waited for without end. Used by the driver and by ranks, so it imports nothing heavy. Raises StoreError.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from hir_core.errors import StoreError

_REMEDY = "a run holds plain files of its own only; remove it"


@contextmanager
def open_folder(path: Path) -> Iterator[int]:
    """A descriptor of a folder: what is done by it stays in this folder, even if somebody puts another in its place.

    A link in the folder's place is followed only if this user has made it, or root.

    Raises:
        StoreError: it is the link of another user.
        OSError: there is no such folder, or it may not be read.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW)
    except OSError:
        refuse_link_of_others(path)
        descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def refuse_link_of_others(path: Path) -> None:
    """Checks that a path is no symbolic link, or one that this user or root has made.

    Raises:
        StoreError: another user has made it.
    """
    with suppress(FileNotFoundError):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode) and status.st_uid not in (0, os.geteuid()):
            raise StoreError(f"{path} is a symbolic link of another user, which is not followed: choose another folder")


def open_plain(path: Path, mode: str = "r") -> io.FileIO:
    """Opens a plain file; a link, a pipe, a device or a folder in its place is neither followed nor waited for.

    Args:
        mode: `r`, `w`, `a` or `a+`. To be written to, a file must not have a second name (a hard link) either, which
            may be that of any file of the user.

    Raises:
        StoreError: something else lies there.
        OSError: the file cannot be opened.
    """
    with open_folder(path.parent) as folder:
        return io.FileIO(path.name, mode, opener=partial(_open_plain, path, folder))


def _open_plain(path: Path, folder: int, name: str, flags: int) -> int:
    is_written = bool(flags & (os.O_WRONLY | os.O_RDWR))
    try:
        descriptor = os.open(
            name, (flags & ~os.O_TRUNC) | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666, dir_fd=folder
        )
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StoreError(f"{path} is a symbolic link: {_REMEDY}") from None
        if error.errno in (errno.ENXIO, errno.EISDIR):  # ENXIO: a pipe that nobody reads, or a socket
            raise StoreError(f"{path} is no file: {_REMEDY}") from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise StoreError(f"{path} is no file: {_REMEDY}")
    if is_written and status.st_nlink > 1:
        os.close(descriptor)
        raise StoreError(f"{path} is a hard link, so it may be another file as well: {_REMEDY}")
    if flags & os.O_TRUNC:  # only now that it is known to be a file of ours
        os.ftruncate(descriptor, 0)
    return descriptor


def write_whole(path: Path, write: Callable[[BinaryIO], object], *, is_synced: bool = True) -> None:
    """Writes a file under a hidden name in its folder and renames it: what lies at its name is replaced, not followed.

    Args:
        write: writes the content.
        is_synced: whether the content is on disk before the file has its name, so that it survives a power cut.

    Raises:
        StoreError: the folder is a link of another user.
        OSError: the file cannot be written.
    """
    # Must not end in `.parquet`: polars' globs, unlike a shell's, match hidden files too.
    temporary = f".{path.name}.{secrets.token_hex(4)}.tmp"
    with open_folder(path.parent) as folder:

        def create(name: str, flags: int) -> int:
            return os.open(name, flags, 0o666, dir_fd=folder)

        try:
            with io.BufferedWriter(io.FileIO(temporary, "x", opener=create)) as file:
                write(file)
                file.flush()
                if is_synced:
                    os.fsync(file.fileno())
            os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)


def delete_half_written(folder: Path) -> None:
    """Deletes what killed processes were writing in a run's folder, or ranks in the folder of a launch."""
    for path in (*folder.glob(".*.json.*"), *folder.glob("logs/.*.stack.*")):
        path.unlink(missing_ok=True)


def refuse_what_is_not_plain(path: Path) -> None:
    """Checks that at and below a path lie plain files and folders only; nothing needs to lie there.

    Raises:
        StoreError: names the first link, pipe, socket or device.
    """
    for place in not_plain(path):
        raise StoreError(f"{place} is {'a symbolic link' if place.is_symlink() else 'no file'}: {_REMEDY}")


def not_plain(path: Path) -> Iterator[Path]:
    """What lies at or below a path and is neither a plain file nor a folder: links, named pipes, sockets, devices."""
    waiting = [path]
    while waiting:
        place = waiting.pop()
        with suppress(FileNotFoundError):  # a process that writes to the run may move it meanwhile
            mode = place.lstat().st_mode
            if stat.S_ISDIR(mode):
                with os.scandir(place) as entries:
                    waiting += [Path(entry.path) for entry in entries if not entry.is_file(follow_symlinks=False)]
            elif not stat.S_ISREG(mode):
                yield place
