"""Removes what `retaining` has sorted out, so that a kill at any moment leaves no version that is half there.

    <stage>/.gone-<iteration>-<hash>/           a version on its way out: hidden by one rename, then deleted
    models/<iteration>-<hash>/.let-go.json      which files of a model go, and why: written before the first one is

Children are hidden before the versions that they are made from. Whatever a kill leaves, `sweep` deletes. The caller
holds the run's lock; readers keep removal away (see `locks`), and who opened a file before goes on reading it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from hir_core.errors import StoreError
from hir_core.locks import exclusive
from hir_core.manifest import STAGES, VERSION_ID, utc_now
from hir_core.parts import sync, write_json
from hir_core.retaining import WEIGHTS, Kept, Sorted
from hir_core.store import Store
from hir_core.versions import LET_GO, StageRef, let_go

GONE = ".gone-"


def remove(store: Store, found: Sorted) -> None:
    """Removes the versions and weights that were sorted out; call it below `store.lock()`, under which they were.

    Raises:
        RunLocked: somebody reads the run now; nothing was removed.
        StoreError: something cannot be written.
    """
    sweep(store.run_dir)
    if found.is_nothing:
        return
    with store.unread():
        for removed in found.removed:
            _hide(removed.ref)
        for kept in found.emptied:
            _note(kept, f"retention of {found.rules}, {utc_now()}")
    sweep(store.run_dir)


def leftovers(run_dir: Path) -> list[Path]:
    """What a removal that was killed has hidden or noted, and not deleted."""
    return [*_hidden(run_dir), *_let_go_but_there(run_dir)]


def sweep(run_dir: Path) -> list[Path]:
    """Deletes the leftovers of a run, and returns them; call it below the run's lock."""
    found = leftovers(run_dir)
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found


def _hide(ref: StageRef) -> None:
    stage = ref.path.parent
    with exclusive(stage / ".lock", wait=True):  # no commit of this version meanwhile
        try:
            ref.path.rename(stage / f"{GONE}{ref.id}")
        except OSError as error:
            raise StoreError(f"cannot remove {ref.path}: {error.strerror}; what is left of the run is whole") from None
        sync(stage)  # on disk before a parent goes


def _note(kept: Kept, why: str) -> None:
    folder = kept.ref.path
    write_json(folder / LET_GO, let_go(folder) | dict.fromkeys(kept.weights, why))
    sync(folder)


def _hidden(run_dir: Path) -> Iterator[Path]:
    for stage in STAGES:
        yield from sorted(path for path in (run_dir / stage).glob(f"{GONE}*") if path.is_dir())


def _let_go_but_there(run_dir: Path) -> Iterator[Path]:
    for note in sorted((run_dir / "models").glob(f"*/{LET_GO}")):
        if VERSION_ID.fullmatch(note.parent.name):
            names = [name for name in let_go(note.parent) if name.endswith(WEIGHTS) and "/" not in name]
            yield from (path for name in names if (path := note.parent / name).is_file())
