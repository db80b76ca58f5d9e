"""The main memory that is left: what the kernel says, or less where a cgroup has a limit."""

import platform
import re
from pathlib import Path

import pytest

from hir_core.launch import host_memory

GB = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Writes files of a machine with 8 GB available; returns what is found to be available in GB."""
    monkeypatch.setattr(host_memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(host_memory, "OWN_CGROUPS", tmp_path / "self")
    monkeypatch.setattr(host_memory, "MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:    7812500 kB\n")

    def available(own: str) -> float:
        (tmp_path / "self").write_text(own)
        return host_memory.available_bytes() / GB

    def write(folder: str, limit: str, used: int, cached: int, *, version: int = 2) -> None:
        place = tmp_path / "cgroup" / folder
        place.mkdir(parents=True, exist_ok=True)
        names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        (place / names[0]).write_text(limit)
        (place / names[1]).write_text(str(used))
        (place / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")

    available.write = write
    return available


def test_without_limits_it_is_what_the_kernel_says(machine):
    assert machine("0::/\n") == 8.0
    machine.write("a/b", "max\n", 3 * GB, 0)
    assert machine("0::/a/b\n") == 8.0


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_leaves_its_limit_less_what_is_used_and_cannot_be_dropped(machine, version):
    root = "memory/" if version == 1 else ""
    machine.write(f"{root}a/b", str(5 * GB), 3 * GB, GB, version=version)
    own = "4:memory:/a/b\n" if version == 1 else "0::/a/b\n"
    assert machine(own) == 3.0
    machine.write(f"{root}a", str(4 * GB), 3 * GB, 0, version=version)  # the one above it has less left
    assert machine(own) == 1.0
    machine.write(f"{root}a", str(2 * GB), 3 * GB, 0, version=version)
    assert machine(own) == 0.0


def test_a_container_finds_its_own_cgroup_at_the_root(machine):
    machine.write("", str(2 * GB), GB, 0)
    assert machine("0::/elsewhere/deep\n") == 1.0


def test_this_machine_has_memory():
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < host_memory.available_bytes() <= total


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to give memory back")
def test_freed_memory_that_the_c_library_keeps_is_given_back():
    """Blocks that are too small to be mapped on their own, below one that stays in use."""
    before = anonymous_bytes()
    blocks = [b"x" * 100_000 for _ in range(1000)]
    last = blocks[-1]
    del blocks
    assert anonymous_bytes() - before > 80_000_000, "the C library gave the memory back by itself"
    host_memory.release_heap()
    assert anonymous_bytes() - before < 20_000_000
    assert len(last) == 100_000


def test_a_peak_is_kept_until_it_is_forgotten():
    host_memory.forget_resident_peak()
    before = host_memory.resident_peak()
    assert len(b"x" * 200_000_000) == 200_000_000
    assert host_memory.resident_peak() - before > 150_000_000
    host_memory.forget_resident_peak()
    assert host_memory.resident_peak() - before < 50_000_000


def anonymous_bytes() -> int:
    """Memory of this process that is no file's."""
    return 1024 * int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
