"""Drafts: versions in the making. A commit checks, digests and renames; before it nothing is visible, after it all is.

    <stage>/.draft-<iteration>-<hash>/      work in progress; its finished parts survive a crash
    <stage>/.commit-<iteration>-<hash>/     the same folder while it is being committed

Writes parts and manifests. Which drafts there are is up to the store, what a table may hold to `schemas`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
from pydantic import ValidationError

from hir_core.errors import SchemaError, StoreError
from hir_core.schemas import SCHEMAS
from hir_core.store.files import finished_parts, read_json, sync, write_json, write_part
from hir_core.store.locks import exclusive
from hir_core.store.manifest import Identity, Manifest, Part, code_version, utc_now
from hir_core.store.validation import check_columns, check_table
from hir_core.store.version import MANIFEST, VersionRef, digests, problems_of, visible_files


class Draft:
    """A version in the making: fill its folder with parts, then commit it. Made by `Store.draft`.

    Attributes:
        path: the folder to write to; it is gone after the commit.
        identity: what decides the version.
        ref: what it will be.
    """

    def __init__(self, ref: VersionRef, identity: Identity) -> None:
        self.ref = ref
        self.identity = identity
        stage_dir = ref.path.parent
        self.path = stage_dir / f".draft-{ref.id}"
        self.sealed_path = stage_dir / f".commit-{ref.id}"
        self.stage_lock = stage_dir / ".lock"

    def parts(self) -> list[Path]:
        """What is finished: a table's parts (unreadable ones are deleted, to be redone), or a model's files."""
        return finished_parts(self.path) if self._schema else visible_files(self.path)

    def write(self, name: str, frame: pl.DataFrame) -> Path:
        """Writes one part of the table; a part of that name is replaced.

        Raises:
            SchemaError: a column is missing, unknown or of the wrong type.
            StoreError: the part cannot be written, for example because the draft was committed or discarded.
        """
        schema = SCHEMAS[self.ref.stage]
        check_columns(schema, frame.schema, f"{self.ref} part-{name}.parquet")
        columns = [column for column in schema.column_names() if column in frame.columns]
        return write_part(self.path, name, frame.select(columns))

    def discard(self) -> None:
        """Deletes the draft and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def commit(
        self,
        *,
        rows_in: int | None = None,
        rejected: Mapping[str, int] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> VersionRef:
        """Makes the draft a version, and returns its reference; if the version is there already, drops the draft.

        A failed commit leaves the draft as it was; a killed one leaves it to the next `Store.draft`.

        Args:
            rows_in: rows that the stage was given, each of which must be in the table or in `rejected`.
            rejected: rows not kept, counted by reason.
            metrics: timings, tokens, losses and the like, as JSON values; NaN becomes null.

        Raises:
            SchemaError: names the part, and the column, rule or key.
            StoreError: rows are unaccounted for, the draft holds what no version may, or it is gone.
        """
        facts = {"rows_in": rows_in, "rejected": dict(rejected or {}), "metrics": dict(metrics or {})}
        with exclusive(self.stage_lock, wait=True):
            if self.ref.path.exists():
                self.discard()
                return self.ref
            self._seal()
            try:
                self._finish(facts)
                self.sealed_path.rename(self.ref.path)
                for folder in (self.ref.path.parent, self.ref.path.parent.parent):
                    sync(folder)
            finally:
                if self.sealed_path.exists():
                    self.sealed_path.rename(self.path)
        return self.ref

    @property
    def _schema(self) -> type[dy.Schema] | None:
        return SCHEMAS.get(self.ref.stage)

    def _seal(self) -> None:
        """Takes the folder's name away, so that no rank that outlived its launch can change what is being digested."""
        if self.sealed_path.exists():  # a committer died since this draft was opened
            return
        try:
            self.path.rename(self.sealed_path)
        except FileNotFoundError:
            raise StoreError(f"the draft of {self.ref} is gone from {self.path}: open it again and redo it") from None

    def _finish(self, facts: Mapping[str, Any]) -> None:
        """Checks and syncs the sealed draft, and writes its manifest last."""
        folder = self.sealed_path
        _remove_litter(folder)
        files = visible_files(folder)
        rows = self._rows(files)
        for path in files:
            sync(path)
        manifest = self._manifest(files, rows, facts)
        write_json(folder / MANIFEST, manifest.sealed())
        sync(folder)

    def _rows(self, files: Sequence[Path]) -> Sequence[int | None]:
        if self._schema is None:
            return [None] * len(files)
        try:
            return check_table(self._schema, self.ref, files)
        except SchemaError as error:
            raise SchemaError(f"{error}; mend its source, delete {self.path}, and run again") from None

    def _manifest(self, files: Sequence[Path], rows: Sequence[int | None], facts: Mapping[str, Any]) -> Manifest:
        parts = tuple(
            Part(name=path.name, rows=count, bytes=path.stat().st_size, sha256=digest)
            for path, count, digest in zip(files, rows, digests(files), strict=True)
        )
        try:
            return Manifest(
                **self.identity.model_dump(),
                id=self.ref.id,
                code_version=code_version(),
                created=utc_now(after=self._last_commit()),
                parts=parts,
                rows=sum(count or 0 for count in rows) if self._schema else None,
                **facts,
            )
        except ValidationError as error:
            raise StoreError(f"{self.ref} cannot be committed: {problems_of(error)}") from None

    def _last_commit(self) -> str | None:
        """When the last fork of this version was committed: the one committed last is meant by `@latest`."""
        moments = list[str]()
        for path in self.ref.path.parent.glob(f"{self.ref.iteration:04d}-*/{MANIFEST}"):
            with suppress(OSError, StoreError, ValidationError):  # a damaged fork is told where it is read
                moments.append(Manifest.model_validate(read_json(path)).created)
        return max(moments, default=None)


def _remove_litter(folder: Path) -> None:
    """Deletes what killed writers left, and the manifest of a commit that never ended."""
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name == MANIFEST:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
