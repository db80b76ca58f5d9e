"""The locks that a killed build of a C++ operator leaves behind.

torch builds DeepSpeed's operators on first use (minutes) under a lock file that every later launch waits for, silently
and without end; a build that was interrupted never removes it. Deletes such files; reads /proc to see who builds.
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
    held = _open_files() if locks else set()
    return [lock for lock in locks if str(lock) not in held]  # the builder keeps its lock open


def extensions_dir() -> Path:
    """Where torch keeps the operators that it has built."""
    home = Path.home() / ".cache" / "torch_extensions"
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR", home)).resolve()


def _open_files() -> set[str]:
    found = set()
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            found.add(str(handle.readlink()))
        except OSError:  # the process ended, or belongs to somebody else
            continue
    return found
