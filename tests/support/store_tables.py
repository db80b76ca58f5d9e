"""Small versions for tests of the store, and scripts that work on a store in separate processes."""

import sys
from pathlib import Path

import polars as pl

from hir_core.schemas import Rewards
from hir_core.store.manifest import identity
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

SAMPLES = "samples/0003-ab12cd34"
THIS = identity("rewards", 3, {"type": "exact_match"}, [SAMPLES])
MODEL = identity("models", 1, {}, [])


def rewards(rows: int, prefix: str = "s") -> pl.DataFrame:
    schema = Rewards.create_empty().schema
    keys = pl.DataFrame({"sample_id": [f"{prefix}{n}" for n in range(rows)]})
    rest = {"reward": "exact", "outcome": "scored", "score": 1.0, "reason": "", "parts": []}
    return keys.with_columns(pl.lit(value, schema[name]).alias(name) for name, value in rest.items())


def commit(store: Store, version=THIS, **parts: pl.DataFrame) -> VersionRef:
    draft = store.draft(version)
    for name, frame in (parts or {"a": rewards(3, "a"), "b": rewards(2, "b")}).items():
        draft.write(name, frame)
    return draft.commit()


def commit_model(store: Store) -> None:
    """Commits a model as ranks do: whatever an earlier attempt left is written anew."""
    draft = store.draft(MODEL)
    for path in draft.path.iterdir():
        path.unlink()
    (draft.path / "config.json").write_bytes(b"{}")
    (draft.path / "model.safetensors").write_bytes(bytes(1000))
    draft.commit(metrics={"loss": 0.5})


def fork(store: Store, iteration: int, **config) -> VersionRef:
    return commit(store, identity("rewards", iteration, config, [SAMPLES]))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- processes that race and die -------------------------------------------------------------------------------------

PRELUDE = """
import os, signal, subprocess, sys, time
from pathlib import Path
sys.path[:0] = {places!r}
from store_tables import THIS, Store, commit, commit_model, rewards
store = Store(Path(sys.argv[1]))
"""


def script(body: str, *arguments: object) -> list[str]:
    prelude = PRELUDE.format(places=[str(Path(__file__).parent), str(Path(__file__).parents[2])])
    return [sys.executable, "-c", prelude + body, *map(str, arguments)]
