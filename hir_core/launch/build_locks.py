"""Build locks of C++ operators that a killed build left behind: `hir doctor` lists them, a launch deletes them.

torch builds DeepSpeed's operators on first use, which takes minutes, and holds a lock file meanwhile. Where the build
is killed the file stays, and every later launch waits for it without a message and without end. Reads /proc to see
which locks a living process holds; deletes the others. A lock of another user is left alone, because that user's
processes cannot be seen. So is one to which a link leads: others may write to the folder of builds.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from hir_core.store.plain_files import open_folder


def clear_build_locks() -> list[Path]:
    """Deletes this user's build locks that no living process of this machine holds, and returns them."""
    stale = stale_build_locks()
    for lock in stale:
        with suppress(FileNotFoundError), open_folder(lock.parent) as folder:
            os.unlink(lock.name, dir_fd=folder)
    return stale


def stale_build_locks() -> list[Path]:
    """This user's build locks that no living process of this machine holds."""
    root = extensions_dir()
    locks = [lock for pattern in ("*/lock", "*/*/lock") for lock in root.glob(pattern) if _is_own(lock, root)]
    open_files = _open_files() if locks else set()
    return [lock for lock in locks if str(lock) not in open_files]  # a running build keeps its lock file open


def _is_own(lock: Path, root: Path) -> bool:
    """Whether a lock is a plain file of this user, to which no link leads."""
    if any(folder.is_symlink() for folder in lock.parents if folder.is_relative_to(root)):
        return False
    try:
        status = lock.lstat()
    except FileNotFoundError:  # its build has ended just now
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def extensions_dir() -> Path:
    """The folder in which torch keeps the operators that it has built."""
    home = Path.home() / ".cache" / "torch_extensions"
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR", home)).resolve()


def _open_files() -> set[str]:
    """Paths of all files that processes of this user have open."""
    paths = set()
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            paths.add(str(descriptor.readlink()))
        except OSError:  # the process has ended, or belongs to another user
            continue
    return paths
