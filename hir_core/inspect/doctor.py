"""What is left lying about in a run: orphans, stale drafts and locks, leftovers of removals and of killed writers.

A draft is not stale while somebody writes to the run. One that the next `hir run` may continue is told, never deleted:
only what nobody can take up again has a `mend`. Reads names, manifests and lock files; leaves damage inside committed
files to `soundness`, which has to read them all.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from hir_core.errors import StoreError
from hir_core.launch.build_locks import clear_build_locks, extensions_dir, stale_build_locks
from hir_core.launch.devices import find_devices
from hir_core.store.branches import BRANCHES
from hir_core.store.gc import GONE, leftovers, sweep
from hir_core.store.locks import exclusive, is_held, signature
from hir_core.store.manifest import STAGES, VERSION_ID
from hir_core.store.store import Store
from hir_core.store.version import VersionRef


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    what: str
    where: str
    do: str
    mend: Callable[[], object] | None = None
    """Sets it right, where that cannot harm anything; None where a person has to decide."""


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


DRAFTS = (".draft-", ".commit-")
LOCK = ".lock"


def check_upkeep(run_dir: Path) -> list[Finding]:
    """Everything that lies about in a run; what belongs to a writer who is at work is not told."""
    found = [*_orphans(Store(run_dir)), *_strangers(run_dir)]
    if not _is_written(run_dir):
        found += [*_stale_locks(run_dir), *_drafts(run_dir), *_leftovers(run_dir), *_litter(run_dir)]
    return found


def _is_written(run_dir: Path) -> bool:
    lock = run_dir / LOCK
    return signature(lock) is not None and is_held(lock)


def _orphans(store: Store) -> Iterator[Finding]:
    """Versions that cannot say what they are, or whose parents are gone."""
    there = {str(ref): ref for ref in store.versions()}
    for name, ref in there.items():
        try:
            parents = store.manifest(ref).parents
            store.released(ref)
        except StoreError as error:
            what = str(error).removeprefix(f"{name}: ").partition(";")[0]
            yield Finding(what, str(ref.path), "restore it from a copy, or delete it and run the same config again")
            continue
        gone = [parent for parent in parents if parent not in there]
        if gone:
            what = f"it is made from {', '.join(gone)}, of which there is nothing left"
            yield Finding(what, str(ref.path), "run the config again that made it, restore a copy, or delete it")


def _strangers(run_dir: Path) -> Iterator[Finding]:
    for stage in _stages(run_dir):
        for path in sorted(stage.iterdir()):
            if not path.name.startswith(".") and not (VERSION_ID.fullmatch(path.name) and path.is_dir()):
                yield Finding(f"it is no version of {stage.name}", str(path), "move it out of the run")


def _stale_locks(run_dir: Path) -> Iterator[Finding]:
    """Lock files that a killed process signed: the kernel has freed them, but they tell of a writer who is gone."""
    for lock in [run_dir / LOCK, *(stage / LOCK for stage in _stages(run_dir))]:
        signed = signature(lock)
        if signed is not None and not is_held(lock):
            what = f"a lock that nobody holds is still signed ({signed})"
            yield Finding(what, str(lock), "nothing: the next writer signs it anew", partial(_take, lock))


def _take(lock: Path) -> None:
    """Holds a lock for a moment, which leaves it unsigned."""
    with exclusive(lock, wait=False):
        pass


def _drafts(run_dir: Path) -> Iterator[Finding]:
    noted = _changed(run_dir / BRANCHES) if (run_dir / BRANCHES).exists() else 0.0
    for stage in _stages(run_dir):
        for path in sorted(path for path in stage.iterdir() if path.name.startswith(DRAFTS) and path.is_dir()):
            ref = VersionRef(stage.name, path.name.partition("-")[2], stage / path.name.partition("-")[2])
            files = [file for file in path.rglob("*") if file.is_file()]
            mend = partial(_delete, run_dir, path, _changed(path))
            if ref.path.exists():
                yield Finding(f"a draft of {ref}, which is there", str(path), "delete it", mend)
            elif not files:
                yield Finding(f"an empty draft of {ref}, whose writer is gone", str(path), "delete it", mend)
            elif _changed(path) < noted:
                what = f"a draft of {ref} with {len(files)} files, which a later run has passed by"
                yield Finding(what, str(path), "delete it", mend)
            else:
                what = f"a draft of {ref} with {len(files)} files, whose writer is gone"
                yield Finding(what, str(path), "run the same config again, which goes on from it, or delete it")


def _delete(run_dir: Path, path: Path, changed: float) -> None:
    """Deletes a draft, unless somebody has taken it up since it was looked at."""
    with exclusive(run_dir / LOCK, wait=False):
        if path.exists() and _changed(path) == changed:
            shutil.rmtree(path)


def _leftovers(run_dir: Path) -> Iterator[Finding]:
    for path in leftovers(run_dir):
        what = "a version that was removed" if path.name.startswith(GONE) else "weights that were released"
        yield Finding(
            f"{what}, but not deleted: a removal was killed", str(path), "delete it", partial(_sweep, run_dir)
        )


def _sweep(run_dir: Path) -> None:
    with exclusive(run_dir / LOCK, wait=False):
        sweep(run_dir)


def _litter(run_dir: Path) -> Iterator[Finding]:
    for folder in [run_dir, *_stages(run_dir)]:
        for path in sorted(folder.glob(".*.tmp")):
            yield Finding("a file that a killed writer began", str(path), "delete it", partial(_unlink, run_dir, path))


def _unlink(run_dir: Path, path: Path) -> None:
    with exclusive(run_dir / LOCK, wait=False):
        path.unlink(missing_ok=True)


def _stages(run_dir: Path) -> list[Path]:
    return [run_dir / stage for stage in STAGES if (run_dir / stage).is_dir()]


def _changed(path: Path) -> float:
    """When a file, or anything in a folder, was last changed."""
    return max(place.stat().st_mtime for place in [path, *path.rglob("*")])
