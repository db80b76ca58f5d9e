"""The main memory that processes on this machine can still allocate, that this one has held, and their memory cgroup.

Reads /proc and the cgroup's limits, as those of a container. A kernel that counts memory differently, or a
cgroup that cannot be read, sets no limit here. Imports no torch; the memory of GPUs is read by `modeling.zero`.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

OWN_STATUS, OWN_REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
CGROUPS, OWN_CGROUPS, MEMINFO = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/meminfo")


def available_bytes() -> int:
    """What the kernel says is available, or what the cgroup leaves of its limit where that is less; 0: unknown."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", MEMINFO.read_text(), re.MULTILINE)
    return max(0, min([int(found[1]) * 1024 if found else 0, *_cgroup_rooms()]))


def cgroup_files(name: str, name_in_version_1: str) -> Iterator[Path]:
    """The files of these names in this process's memory cgroup and in all above it, the narrowest first.

    A container may find its own cgroup at the root, under a path that does not exist there.
    """
    for line in OWN_CGROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, file = CGROUPS, name
        elif "memory" in controllers.split(","):
            root, file = CGROUPS / "memory", name_in_version_1
        else:
            continue
        folder = root / path.lstrip("/")
        yield from (place / file for place in (folder, *folder.parents) if place.is_relative_to(root))


def _cgroup_rooms() -> Iterator[int]:
    """What each cgroup leaves of its limit: the limit less what is used, of which unused cached files do not count."""
    for file in cgroup_files("memory.max", "memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such file, or `max` in it
            limit = int(file.read_text())
            used = int(file.with_name(_USED[file.name]).read_text())
            cached = re.search(r"^(?:total_)?inactive_file (\d+)$", file.with_name("memory.stat").read_text(), re.M)
            yield limit - used + (int(cached[1]) if cached else 0)


_USED = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}


def release_heap() -> None:
    """Gives memory that was freed, and that the C library keeps for later, back to the machine.

    It keeps pieces of up to 32 MB: of a model that has been read and partitioned, as much as the partitions take.
    """
    with suppress(AttributeError, OSError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


def resident_peak() -> int:
    """The most that this process has held, pages of mapped files included; 0: unknown."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", OWN_STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def forget_resident_peak() -> None:
    """Has `resident_peak` begin anew, once a model is loaded.

    Its files are mapped: the pages that were read count for the process, though the kernel drops them before memory
    runs out. See `clear_refs` in proc(5).
    """
    with suppress(OSError):  # a kernel that cannot
        OWN_REFERENCES.write_text("5")
