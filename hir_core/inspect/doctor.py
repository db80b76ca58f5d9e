"""The checks of `hir doctor` on this machine and in the folder of a run; `flows` adds those of Prefect's flow runs.

Of the machine: installed releases, C++ compiler, build locks, disk space, shared memory, vLLM's environment. Of a run:
versions without parents, foreign files, stale locks and drafts, and what killed processes left. A finding has a
`repair` only where no run can lose anything by it: a draft that the next `hir run` may continue has none. While a
process writes to a run, its locks and drafts are no findings. Reads names, manifests and lock files; damage inside
committed files is left to `hir_core.inspect.verify`, which has to read them all. Nothing is changed before `repair` is
called.
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

from hir_core.config import RunConfig
from hir_core.errors import ConfigError, StoreError
from hir_core.launch.attention import check_attention
from hir_core.launch.build_locks import clear_build_locks, extensions_dir, stale_build_locks
from hir_core.launch.devices import find_devices, find_place
from hir_core.launch.vllm_environment import check_vllm, import_problem
from hir_core.store.branches import BRANCHES
from hir_core.store.gc import GONE, leftovers, sweep
from hir_core.store.locks import exclusive, is_held, signature
from hir_core.store.manifest import STAGES, VERSION_ID
from hir_core.store.plain_files import not_plain
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

DISTRIBUTION = "hir"
REINSTALL = "in hir's folder: pip install -e ."
MIN_DISK_BYTES = 2_000_000_000
MIN_SHM_BYTES = 64 * 2**20
"""Enough for what the ranks of one machine exchange on CPUs."""
MIN_SHM_BYTES_GPU = 2**30
"""NCCL maps buffers for every pair of GPUs; containers start with 64 MiB."""
SHM = Path("/dev/shm")
DRAFTS = (".draft-", ".commit-")
LOCK = ".lock"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, where it is, and what to do about it."""

    what: str
    where: str
    do: str
    repair: Callable[[], object] | None = None
    """Repairs it without harm to any run; None where a person has to decide."""


# --- this machine ----------------------------------------------------------------------------------------------------


def check_installation(runs_dir: Path) -> list[Finding]:
    """What would stop or endanger any run on this machine."""
    folders = [_nearest_folder(runs_dir), Path(tempfile.gettempdir())]
    return [
        *_packages(),
        *_compiler(),
        *(
            Finding(
                "a build of an operator was killed and left its lock; the next build would wait for it without end",
                str(lock),
                "delete it; a launch does so by itself",
                clear_build_locks,
            )
            for lock in stale_build_locks()
        ),
        *(finding for folder in dict.fromkeys(folders) for finding in _disk(folder)),
        *_shared_memory(),
    ]


def missing_extras() -> dict[str, list[str]]:
    """The packages that are not installed by hir's extra; nothing is wrong as long as no config needs them."""
    if _installed(DISTRIBUTION) is None:
        return {}
    extras = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    missing: dict[str, list[str]] = {}
    for requirement in _requirements():
        marker = requirement.marker
        if marker is None or requirement.name == DISTRIBUTION or _installed(requirement.name) is not None:
            continue
        for extra in map(str, extras):
            if extra != "dev" and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
                missing.setdefault(extra, []).append(requirement.name)
    return missing


def _packages() -> Iterator[Finding]:
    """Whether Python and every required package are of a release that hir supports."""
    if _installed(DISTRIBUTION) is None:
        yield Finding("hir itself is not installed, so the releases that it needs are unknown", "Python", REINSTALL)
        return
    (supported,) = importlib.metadata.metadata(DISTRIBUTION).get_all("Requires-Python") or [""]
    if not SpecifierSet(supported).contains(platform.python_version(), prereleases=True):
        what = f"Python is {platform.python_version()}, expected {supported}"
        yield Finding(what, "Python", "make another environment")
    for requirement in _requirements():
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue  # of an extra, or of another platform
        version = _installed(requirement.name)
        if version is None:
            yield Finding(f"{requirement.name} is not installed, expected {requirement}", "Python packages", REINSTALL)
        elif not requirement.specifier.contains(version, prereleases=True):
            what = f"{requirement.name} is {version}, expected {requirement.specifier}"
            yield Finding(what, "Python packages", f'pip install "{requirement.name}{requirement.specifier}"')


def _requirements() -> list[Requirement]:
    return [Requirement(line) for line in importlib.metadata.requires(DISTRIBUTION) or []]


def _installed(package: str) -> str | None:
    """The installed release of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _compiler() -> Iterator[Finding]:
    """What is missing to build DeepSpeed's small C++ operator, unless it is built already."""
    if any(extensions_dir().glob("**/*.so")):
        return
    compiler = os.environ.get("CXX", "c++")
    for program, do in ((compiler, "install a C++ compiler, as in apt install g++"), ("ninja", "pip install ninja")):
        if shutil.which(program) is None:
            what = f"there is no program `{program}`, with which DeepSpeed builds an operator on first use"
            yield Finding(what, "PATH", do)


def _disk(folder: Path) -> Iterator[Finding]:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        do = "get permission to write, or set runs_dir to another folder"
        yield Finding(f"nothing can be written: {error.strerror}", str(folder), do)
    free = shutil.disk_usage(folder).free
    if free < MIN_DISK_BYTES:
        what = f"{free / 1e9:.1f} GB of disk are free, expected {MIN_DISK_BYTES / 1e9:.0f} or more"
        yield Finding(what, str(folder), "free some disk space: `hir gc` removes what no run uses any more")


def _shared_memory() -> Iterator[Finding]:
    expected = MIN_SHM_BYTES_GPU if len(find_devices().gpus) > 1 else MIN_SHM_BYTES
    if not os.access(SHM, os.W_OK):
        yield Finding("there is no shared memory to write to", str(SHM), "mount a tmpfs there")
    elif (free := shutil.disk_usage(SHM).free) < expected:
        what = f"{free / 2**20:.0f} MiB of shared memory are free, expected {expected / 2**20:.0f} or more"
        yield Finding(what, str(SHM), "give the container more, as in docker run --shm-size=8g")


def _nearest_folder(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    folder = path.resolve()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def check_needs(config: RunConfig) -> Iterator[Finding]:
    """What a config needs beyond hir's installation and is not here: for its attention, and for vLLM.

    Of vLLM, where the config samples with it: its environment, its release, and its imports.
    """
    place, vllm = find_place(config.launch), config.sampling.vllm
    try:
        check_attention(config.model, place)
    except ConfigError as error:
        what, _, do = str(error).rpartition(": ")
        yield Finding(what, "model.attention", do)
    if vllm is None:
        return
    try:
        check_vllm(vllm, place)
    except ConfigError as error:
        what, _, do = str(error).rpartition(": ")
        yield Finding(what, str(vllm.python), do)
        return
    if problem := import_problem(vllm):
        do = f"install vLLM {vllm.release} anew, in an environment that holds nothing else"
        yield Finding(f"vLLM cannot be imported: {problem}", str(vllm.python), do)


# --- the folder of a run ---------------------------------------------------------------------------------------------


def check_upkeep(run_dir: Path) -> list[Finding]:
    """Orphans, foreign files and leftovers in the folder of a run, without what belongs to a process that writes."""
    if links := list(_not_plain(run_dir)):
        return links  # nothing else is looked at, and nothing repaired: it could be in another folder
    findings = [*_orphans(Store(run_dir)), *_foreign_files(run_dir)]
    lock = run_dir / LOCK
    is_written = signature(lock) is not None and is_held(lock)
    if not is_written:
        findings += [*_stale_locks(run_dir), *_drafts(run_dir), *_leftovers(run_dir)]
    return findings


def _not_plain(run_dir: Path) -> Iterator[Finding]:
    """Links, pipes and devices where hir reads, writes and deletes files of its own."""
    for name in (LOCK, BRANCHES, "launches", *STAGES):
        for path in not_plain(run_dir / name):
            what = "a symbolic link" if path.is_symlink() else "a pipe or a device"
            what = f"{what} in a run, which holds files of its own only"
            yield Finding(what, str(path), "find out who made it, and remove it")


def _orphans(store: Store) -> Iterator[Finding]:
    """Versions whose manifest cannot be read, or whose parents no longer exist."""
    refs = {str(ref): ref for ref in store.versions()}
    for name, ref in refs.items():
        try:
            parents = store.manifest(ref).parents
            store.released(ref)
        except StoreError as error:
            what = str(error).removeprefix(f"{name}: ").partition(";")[0]
            yield Finding(what, str(ref.path), "restore it from a copy, or delete it and run the same config again")
            continue
        gone = [parent for parent in parents if parent not in refs]
        if gone:
            what = f"it is made from {', '.join(gone)}, which no longer exists"
            do = "run the config again that made the missing version, restore that from a copy, or delete this one"
            yield Finding(what, str(ref.path), do)


def _foreign_files(run_dir: Path) -> Iterator[Finding]:
    for stage in _stages(run_dir):
        for path in sorted(stage.iterdir()):
            if not path.name.startswith(".") and not (VERSION_ID.fullmatch(path.name) and path.is_dir()):
                yield Finding(f"not a version of {stage.name}", str(path), "move it out of the run")


def _stale_locks(run_dir: Path) -> Iterator[Finding]:
    """Lock files that a killed process signed: the kernel released them, but they still name that process."""
    for lock in [run_dir / LOCK, *(stage / LOCK for stage in _stages(run_dir))]:
        signed = signature(lock)
        if signed is not None and not is_held(lock):
            what = f"a lock file names a process that no longer holds it ({signed})"
            unsign = _under_lock(lock, lambda: None)  # a lock that was held for a moment is left unsigned
            yield Finding(what, str(lock), "nothing: the next process that writes to the run takes the lock", unsign)


def _drafts(run_dir: Path) -> Iterator[Finding]:
    """Drafts of versions whose process is gone; one that the next run may continue has no repair."""
    last_run = _changed(run_dir / BRANCHES) if (run_dir / BRANCHES).exists() else 0.0
    for stage in _stages(run_dir):
        for path in sorted(path for path in stage.iterdir() if path.name.startswith(DRAFTS) and path.is_dir()):
            version_id = path.name.partition("-")[2]
            ref = VersionRef(stage.name, version_id, stage / version_id)
            files = sum(file.is_file() for file in path.rglob("*"))
            delete = _under_lock(run_dir / LOCK, partial(_delete_unchanged, path, _changed(path)))
            if ref.path.exists():
                yield Finding(f"a draft of {ref}, which is committed", str(path), "delete it", delete)
            elif not files:
                yield Finding(f"an empty draft of {ref}, whose process is gone", str(path), "delete it", delete)
            elif _changed(path) < last_run:
                what = f"a draft of {ref} with {files} files, which a later run did not continue"
                yield Finding(what, str(path), "delete it", delete)
            else:
                what = f"a draft of {ref} with {files} files, whose process is gone"
                yield Finding(what, str(path), "run the same config again, which continues it, or delete it")


def _leftovers(run_dir: Path) -> Iterator[Finding]:
    """What a killed removal did not delete, and temporary files of killed processes."""
    lock = run_dir / LOCK
    for path in leftovers(run_dir):
        removed = "a removed version" if path.name.startswith(GONE) else "removed weights"
        what = f"{removed} whose files are still there: a removal was killed"
        yield Finding(what, str(path), "delete it", _under_lock(lock, partial(sweep, run_dir)))
    for folder in [run_dir, *_stages(run_dir)]:
        for path in sorted(folder.glob(".*.tmp")):
            delete = _under_lock(lock, partial(path.unlink, missing_ok=True))
            yield Finding("a temporary file of a killed process", str(path), "delete it", delete)


def _under_lock(lock: Path, action: Callable[[], object]) -> Callable[[], None]:
    """The action with the lock held, which fails where another process holds it by then."""

    def repair() -> None:
        with exclusive(lock, wait=False):
            action()

    return repair


def _delete_unchanged(path: Path, changed: float) -> None:
    """Deletes a draft, unless a process has continued it since it was found."""
    if path.exists() and _changed(path) == changed:
        shutil.rmtree(path)


def _stages(run_dir: Path) -> list[Path]:
    return [run_dir / stage for stage in STAGES if (run_dir / stage).is_dir()]


def _changed(path: Path) -> float:
    """When a file, or any file in a folder, was last changed; in seconds since 1970."""
    return max(place.stat().st_mtime for place in [path, *path.rglob("*")])
