"""What is left lying about in a run: orphans, stale drafts and locks, leftovers of removals and of killed writers.

A draft is not stale while somebody writes to the run. One that the next `hir run` may continue is told, never deleted:
only what nobody can take up again has a `mend`. Reads names, manifests and lock files; leaves damage inside committed
files to `soundness`, which has to read them all.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hir_core.errors import StoreError
from hir_core.findings import Finding
from hir_core.lines import LINES
from hir_core.locks import exclusive, is_held, signature
from hir_core.manifest import STAGES, VERSION_ID
from hir_core.removing import GONE, leftovers, sweep
from hir_core.store import Store
from hir_core.versions import StageRef

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
            store.let_go(ref)
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
    noted = _changed(run_dir / LINES) if (run_dir / LINES).exists() else 0.0
    for stage in _stages(run_dir):
        for path in sorted(path for path in stage.iterdir() if path.name.startswith(DRAFTS) and path.is_dir()):
            ref = StageRef(stage.name, path.name.partition("-")[2], stage / path.name.partition("-")[2])
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
        what = "a version that was removed" if path.name.startswith(GONE) else "weights that were let go"
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
