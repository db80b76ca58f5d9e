"""The check of a whole run against its manifests, for `hir verify`: files, row counts, keys, and parents of every row.

Reads every file of the run and writes nothing. Every problem is reported with the version it lies in; a damaged version
does not keep the others from being checked. Tables are first read in a process with limited memory: a run may come from
elsewhere, and its digests, which whoever made it has computed, do not say that its files are harmless.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import polars as pl

from hir_core.errors import HirError, StoreError
from hir_core.parquet_trial import unreadable
from hir_core.store.adapters import base_of
from hir_core.store.manifest import Manifest, Part, schema_of
from hir_core.store.store import Store
from hir_core.store.validation import check_table
from hir_core.store.version import VersionRef, is_optimizer_state

if TYPE_CHECKING:
    import dataframely as dy

PARENT_ROWS = {
    "samples": {"prompt_id": "prompts"},
    "rewards": {"sample_id": "samples"},
    "instructions": {"sample_id": "samples"},
    "triples": {"prompt_id": "prompts", "sample_id": "samples"},
    "evaluations": {"prompt_id": "prompts"},
}
"""By stage, the columns that hold the key of another table's row, each with the stage of that table."""
KEYS_SHOWN = 3


class Problem(TypedDict):
    """Something that is wrong, and the version it lies in."""

    version: str
    problem: str


class RunCheck(TypedDict):
    """What a run holds, and its problems: none means that the run is undamaged. Plain JSON values.

    `versions`, `files` and `bytes` are those that manifests name, without the released weights of old models.
    """

    run: str
    versions: int
    files: int
    bytes: int
    problems: list[Problem]


def check_run(store: Store) -> RunCheck:
    """The problems of every version of a run, in the order of the iterations."""
    problems: list[Problem] = []
    parts: list[Part] = []
    refs = sorted(store.versions(), key=lambda ref: ref.iteration)
    harmful = _harmful_parts(store, refs)
    for ref in refs:
        try:
            released = store.released(ref)
            parts += [part for part in store.manifest(ref).parts if part.name not in released]
        except StoreError as error:
            problems.append({"version": str(ref), "problem": str(error)})
        else:
            found = harmful.get(str(ref)) or check_version(store, ref, harmful)
            problems += [{"version": str(ref), "problem": problem} for problem in found]
    return {
        "run": store.run_dir.resolve().name,
        "versions": len(refs),
        "files": len(parts),
        "bytes": sum(part.bytes for part in parts),
        "problems": problems,
    }


def _harmful_parts(store: Store, refs: Sequence[VersionRef]) -> dict[str, list[str]]:
    """The versions with files that are as their manifest says and cannot be read with limited memory, each with why."""
    versions: dict[Path, VersionRef] = {}
    for ref in refs:
        with suppress(StoreError):  # a model, or a damaged version, which has other problems
            versions |= dict.fromkeys(store.parts(ref), ref)
    problems: dict[str, list[str]] = {}
    for path, problem in unreadable(versions).items():
        problems.setdefault(str(versions[path]), []).append(f"{path.name} cannot be read: {problem}")
    return problems


def check_version(store: Store, ref: VersionRef, harmful: Container[str] = ()) -> Iterator[str]:
    """The problems of a version whose manifest can be read; none where it is undamaged.

    Args:
        harmful: versions whose files must not be read.
    """
    manifest = store.manifest(ref)
    if unread := [name for name in manifest.parents if name in harmful]:
        yield f"it was not checked, because it is made from {', '.join(unread)}, whose files cannot be read"
        return
    gone = [name for name in manifest.parents if not _exists(store, name)]
    if gone:
        yield f"it is made from {', '.join(gone)}, which no longer exists"
    try:
        store.verify(ref)
        if (schema := schema_of(manifest)) is None:
            if not gone and not _has_lost_weights(store, ref):
                store.folder(base_of(store, ref))  # that of an adapter must have its weights
            return
        yield from _wrong_counts(store, ref, manifest, schema)
    except HirError as error:
        yield str(error)
        return
    if ref.stage in ("samples", "evaluations"):
        models = sorted(store.table(ref).select(pl.col("model").unique()).collect()["model"])
        if strangers := [model for model in models if model not in manifest.parents]:
            yield f"rows name {', '.join(strangers)} as their model, but no such model is a parent"
    for column, stage in PARENT_ROWS.get(ref.stage, {}).items():
        yield from _unknown_keys(store, ref, manifest, column, stage)


def _has_lost_weights(store: Store, model: VersionRef) -> bool:
    return not all(map(is_optimizer_state, store.released(model)))


def _exists(store: Store, name: str) -> bool:
    try:
        store.resolve(name)
    except StoreError:
        return False
    return True


def _wrong_counts(store: Store, ref: VersionRef, manifest: Manifest, schema: type[dy.Schema]) -> Iterator[str]:
    """Row counts other than the manifest's.

    Raises:
        HirError: columns are not those of the stage's schema, rows break its rules, or several rows share a key.
    """
    paths = store.parts(ref)
    counts = check_table(schema, ref, paths)
    expected = {part.name: part.rows for part in manifest.parts}
    for path, count in zip(paths, counts, strict=True):
        if expected[path.name] != count:
            yield f"{path.name} has {count} rows, expected {expected[path.name]}"
    if sum(counts) != manifest.rows:
        yield f"its parts have {sum(counts)} rows together, expected {manifest.rows}"


def _unknown_keys(store: Store, ref: VersionRef, manifest: Manifest, column: str, stage: str) -> Iterator[str]:
    """The keys in a column that no row of a parent has; a damaged parent has its own problems instead."""
    parents = manifest.parents_of(stage)
    try:
        tables = [store.table(store.resolve(name)).select(column) for name in parents]
    except StoreError:
        return
    known = set(pl.concat(tables).collect()[column]) if tables else set()
    named = store.table(ref).select(pl.col(column).drop_nulls()).collect()[column]
    if unknown := sorted(set(named) - known):
        listed = ", ".join(map(repr, unknown[:KEYS_SHOWN])) + (", …" if len(unknown) > KEYS_SHOWN else "")
        place = f"no row of {' or '.join(parents)}" if parents else f"rows of {stage}, but it has no such parent"
        yield f"{len(unknown)} key(s) in {column} name {place}: {listed}"
