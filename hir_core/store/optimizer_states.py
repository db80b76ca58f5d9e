"""The state of the optimizer beside a model: where the next training finds it, and when it is deleted.

A state is larger than its model, and only the next iteration reads it. Once that has made its model, the state is
deleted, as `gc` deletes weights: it is first recorded in the model's `.released.json`. That of iteration 0 is kept,
because runs with other settings start from it too. Raises VersionNotFound, VersionCorrupt and StoreError.
"""

from __future__ import annotations

from pathlib import Path

from hir_core.errors import RunLocked, StoreError
from hir_core.store.adapters import base_of
from hir_core.store.gc import release_files, sweep
from hir_core.store.manifest import utc_now
from hir_core.store.store import Store
from hir_core.store.version import VersionRef, is_optimizer_state


def optimizer_state(store: Store, model: VersionRef) -> Path | None:
    """The folder in which the state of a model's optimizer lies, verified; None where none was saved.

    Raises:
        VersionNotFound: there is no such version.
        VersionCorrupt: its files differ from its manifest.
        StoreError: the state was deleted, or the weights.
    """
    folder, gone = store.folder(model), store.released(model)
    names = [part.name for part in store.manifest(model).parts if is_optimizer_state(part.name)]
    if deleted := [gone[name] for name in names if name in gone]:
        is_whole = base_of(store, model) == model
        source = folder if is_whole else f"FOLDER, after `hir export {store.run_dir.name}/{model} FOLDER`"
        raise StoreError(
            f"{model} cannot be trained further: the state of its optimizer was deleted ({deleted[0]}); delete the "
            f"models of iterations 1 to {model.iteration} and run the config again, which makes them anew, or start "
            f"another run with model.source={source}"
        )
    return folder if names else None


def delete_earlier_states(store: Store, newest: VersionRef) -> None:
    """Deletes the states of the models that a model descends from, but for iteration 0; needs `store.lock()`.

    While another process reads the run, nothing is deleted: the call for the next model does it.

    Raises:
        StoreError: a file cannot be written.
    """
    model = newest
    try:
        while parents := store.parents(model, "models"):
            model = store.resolve(f"models/{parents[0].id}")
            gone = store.released(model)
            states = [part.name for part in parents[0].parts if is_optimizer_state(part.name)]
            names = [name for name in states if name not in gone]
            if model.iteration == 0 or not names:
                break
            with store.exclusive_access():
                release_files(model, names, f"{newest} was trained from it, {utc_now()}")
    except RunLocked:
        return
    sweep(store.run_dir)
