"""Whether this machine can run hir: releases of what it depends on, a compiler, room, and leave to write.

Reads the installed packages' metadata, which imports none of them: a broken one could not be imported. Writes a file
for a moment where a run would write. Leaves Prefect's database to `flows`.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from hir_core.build_locks import clear_build_locks, extensions_dir, stale_build_locks
from hir_core.devices import find_devices
from hir_core.findings import Finding

DISTRIBUTION = "hir"
REINSTALL = "in hir's folder: pip install -e ."
MIN_DISK_BYTES = 2_000_000_000
MIN_SHM_BYTES = 64 * 2**20
"""What the ranks of one machine exchange on CPUs fits."""
MIN_SHM_BYTES_GPU = 2**30
"""NCCL maps buffers for every pair of GPUs; containers start with 64 MiB."""
SHM = Path("/dev/shm")


def check_installation(runs_dir: Path) -> list[Finding]:
    """What stops or endangers a run on this machine, whichever run it is."""
    places = [_nearest(runs_dir), Path(tempfile.gettempdir())]
    return [
        *_packages(),
        *_compiler(),
        *_build_locks(),
        *(finding for place in dict.fromkeys(places) for finding in _room(place)),
        *_shared_memory(),
    ]


def missing_extras() -> dict[str, list[str]]:
    """The packages of each of hir's extras that are not installed; no fault, so long as no config asks for them."""
    found: dict[str, list[str]] = {}
    for requirement in _requirements():
        for extra in _extras():
            if requirement.marker is not None and requirement.name != DISTRIBUTION:
                is_its = requirement.marker.evaluate({"extra": extra}) and not requirement.marker.evaluate(
                    {"extra": ""}
                )
                if is_its and _installed(requirement.name) is None:
                    found.setdefault(extra, []).append(requirement.name)
    return found


def _packages() -> Iterator[Finding]:
    """Whether Python and every package are of a release that hir was made for."""
    if _installed(DISTRIBUTION) is None:
        yield Finding("hir itself is not installed, so nothing says which releases it needs", "Python", REINSTALL)
        return
    (asked,) = importlib.metadata.metadata(DISTRIBUTION).get_all("Requires-Python") or [""]
    if not SpecifierSet(asked).contains(platform.python_version(), prereleases=True):
        yield Finding(f"Python is {platform.python_version()}, expected {asked}", "Python", "make another environment")
    for requirement in _requirements():
        if not _is_always(requirement):
            continue
        version = _installed(requirement.name)
        if version is None:
            yield Finding(f"{requirement.name} is not installed, expected {requirement}", "Python packages", REINSTALL)
        elif not requirement.specifier.contains(version, prereleases=True):
            what = f"{requirement.name} is {version}, expected {requirement.specifier}"
            yield Finding(what, "Python packages", f'pip install "{requirement.name}{requirement.specifier}"')


def _requirements() -> list[Requirement]:
    asked = importlib.metadata.requires(DISTRIBUTION) if _installed(DISTRIBUTION) is not None else None
    return [Requirement(line) for line in asked or []]


def _is_always(requirement: Requirement) -> bool:
    """Whether it is needed without any extra, and on this machine."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _extras() -> list[str]:
    found = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    return [str(extra) for extra in found if extra != "dev"]


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _compiler() -> Iterator[Finding]:
    """DeepSpeed builds a small C++ operator on first use, unless it is built already."""
    if any(extensions_dir().glob("**/*.so")):
        return
    compiler = os.environ.get("CXX", "c++")
    for program, do in ((compiler, "install a C++ compiler, as in apt install g++"), ("ninja", "pip install ninja")):
        if shutil.which(program) is None:
            what = f"no program `{program}`, with which DeepSpeed builds an operator on first use"
            yield Finding(what, "PATH", do)


def _build_locks() -> Iterator[Finding]:
    for lock in stale_build_locks():
        what = "a build of an operator was killed; whoever builds next would wait for it"
        yield Finding(what, str(lock), "delete it; a launch does so by itself", clear_build_locks)


def _room(place: Path) -> Iterator[Finding]:
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        yield Finding(f"nothing can be written: {error.strerror}", str(place), "get leave to write, or set runs_dir")
    free = shutil.disk_usage(place).free
    if free < MIN_DISK_BYTES:
        what = f"{free / 1e9:.1f} GB of disk are free, expected {MIN_DISK_BYTES / 1e9:.0f} or more"
        yield Finding(what, str(place), "make room: `hir gc` removes what no run uses any more")


def _shared_memory() -> Iterator[Finding]:
    least = MIN_SHM_BYTES_GPU if len(find_devices().gpus) > 1 else MIN_SHM_BYTES
    if not os.access(SHM, os.W_OK):
        yield Finding("there is no shared memory to write to", str(SHM), "mount a tmpfs there")
    elif (free := shutil.disk_usage(SHM).free) < least:
        what = f"{free / 2**20:.0f} MiB of shared memory are free, expected {least / 2**20:.0f} or more"
        yield Finding(what, str(SHM), "give the container more, as in docker run --shm-size=8g")


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    place = path.resolve()
    while not place.is_dir():
        place = place.parent
    return place
