"""Build locks of C++ operators that a killed build left behind: `hir doctor` lists them, a launch deletes them.

torch builds DeepSpeed's operators on first use, which takes minutes, and holds a lock file meanwhile. Where the build
is killed the file stays, and every later launch waits for it without a message and without end. Reads /proc to see
which locks a living process holds; deletes the others.
"""

from __future__ import annotations

import os
from pathlib import Path


def clear_build_locks() -> list[Path]:
    """Deletes the build locks that no living process of this machine holds, and returns them."""
    stale = stale_build_locks()
    for lock in stale:
        lock.unlink(missing_ok=True)
    return stale


def stale_build_locks() -> list[Path]:
    """The build locks that no living process of this machine holds."""
    root = extensions_dir()
    locks = [*root.glob("*/lock"), *root.glob("*/*/lock")]
    open_files = _open_files() if locks else set()
    return [lock for lock in locks if str(lock) not in open_files]  # a running build keeps its lock file open


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
