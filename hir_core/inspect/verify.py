"""Whether a run is what its manifests say: every file, count and key, every parent of a version and of a row.

Reads everything and writes nothing. A problem is told of the version it lies in, and none hides another's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from hir_core.errors import HirError, StoreError
from hir_core.schemas import SCHEMAS
from hir_core.store.manifest import Manifest, Part, table_schema
from hir_core.store.store import Store
from hir_core.store.validation import check_table
from hir_core.store.version import VersionRef

PARENT_ROWS = {
    "samples": {"prompt_id": "prompts"},
    "rewards": {"sample_id": "samples"},
    "instructions": {"sample_id": "samples"},
    "triples": {"prompt_id": "prompts", "sample_id": "samples"},
    "evaluations": {"prompt_id": "prompts"},
}
"""In which table the row stands that a column names, by stage and column."""
KEYS_SHOWN = 3


def check_run(store: Store) -> dict[str, Any]:
    """What a run holds and what is wrong with it, as plain JSON values.

    Returns:
        `run`; how many `versions`, `files` and `bytes` the manifests speak of, weights that were released aside;
        `problems`, each with the `version` it lies in and what is wrong there; none means that the run is sound.
    """
    problems, parts, refs = [], list[Part](), _versions(store)
    for ref in refs:
        try:
            parts += _parts(store, ref)
        except StoreError as error:
            problems.append({"version": str(ref), "problem": str(error)})
        else:
            problems += [{"version": str(ref), "problem": text} for text in check_version(store, ref)]
    return {
        "run": store.run_dir.resolve().name,
        "versions": len(refs),
        "files": len(parts),
        "bytes": sum(part.bytes for part in parts),
        "problems": problems,
    }


def check_version(store: Store, ref: VersionRef) -> Iterator[str]:
    """What is wrong with a version whose manifest can be read; nothing where it is sound."""
    manifest = store.manifest(ref)
    gone = [name for name in manifest.parents if not _is_there(store, name)]
    if gone:
        yield f"it is made from {', '.join(gone)}, of which there is nothing left"
    try:
        store.verify(ref)
    except StoreError as error:
        yield str(error)
        return
    if ref.stage not in SCHEMAS:
        return
    try:
        yield from _counts(store, ref, manifest)
    except HirError as error:
        yield str(error)
        return
    yield from _writers(store, ref, manifest)
    for column, stage in PARENT_ROWS.get(ref.stage, {}).items():
        yield from _strangers(store, ref, manifest, column, stage)


def _parts(store: Store, ref: VersionRef) -> list[Part]:
    gone = store.released(ref)
    return [part for part in store.manifest(ref).parts if part.name not in gone]


def _versions(store: Store) -> list[VersionRef]:
    return sorted(store.versions(), key=lambda ref: ref.iteration)


def _is_there(store: Store, name: str) -> bool:
    try:
        store.resolve(name)
    except StoreError:
        return False
    return True


def _counts(store: Store, ref: VersionRef, manifest: Manifest) -> Iterator[str]:
    """Whether keys are unique, rows keep the rules of their schema, and are as many as the manifest says."""
    paths = store.parts(ref)
    if manifest.table_schema == table_schema(ref.stage):
        counts = check_table(SCHEMAS[ref.stage], ref, paths)
    else:  # another release's columns: what they had to be is not known here
        counts = [pl.scan_parquet(path).select(pl.len()).collect().item() for path in paths]
    told = {part.name: part.rows for part in manifest.parts}
    for path, count in zip(paths, counts, strict=True):
        if told[path.name] != count:
            yield f"{path.name} has {count} rows, expected {told[path.name]}"
    if sum(counts) != manifest.rows:
        yield f"its parts have {sum(counts)} rows together, expected {manifest.rows}"
    keys = store.table(ref).select(SCHEMAS[ref.stage].primary_key()).collect()
    if twice := int(keys.is_duplicated().sum()):
        yield f"{twice} rows share their key with another"


def _writers(store: Store, ref: VersionRef, manifest: Manifest) -> Iterator[str]:
    """Whether the model that rows name is a parent."""
    if ref.stage not in ("samples", "evaluations"):
        return
    named = sorted(store.table(ref).select(pl.col("model").unique()).collect()["model"])
    if strangers := [name for name in named if name not in manifest.parents]:
        yield f"rows name {', '.join(strangers)} as their model, which it is not made from"


def _strangers(store: Store, ref: VersionRef, manifest: Manifest, column: str, stage: str) -> Iterator[str]:
    """Whether every row that a column names stands in a parent; a parent that is damaged is told for itself."""
    parents = manifest.parents_of(stage)
    try:
        tables = [store.table(store.resolve(name)).select(column) for name in parents]
    except StoreError:
        return
    known = set(pl.concat(tables).collect()[column]) if tables else set()
    named = store.table(ref).select(pl.col(column).drop_nulls()).collect()[column]
    strangers = sorted(set(named) - known)
    if strangers:
        shown = ", ".join(repr(key) for key in strangers[:KEYS_SHOWN]) + (", …" if len(strangers) > KEYS_SHOWN else "")
        yield f"{len(strangers)} {column} name no row of {' or '.join(parents) or f'any {stage}'}: {shown}"
