"""`Draft`, a version that is being written: a folder of parts, and the commit that checks it and makes it a version.

    <stage>/.draft-<iteration>-<hash>/      work in progress; its finished parts survive a crash
    <stage>/.commit-<iteration>-<hash>/     the same folder during its commit
    <stage>/<iteration>-<hash>/             the version, visible from one rename on

Writes parts and manifests; raises SchemaError and StoreError. Drafts are opened by `Store.draft`; what a table may hold
is declared in `schemas`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
from pydantic import ValidationError

from hir_core.errors import SchemaError, StoreError
from hir_core.store.files import finished_parts, list_parts, read_json, sync, write_json, write_part, writing
from hir_core.store.locks import exclusive
from hir_core.store.manifest import Identity, Manifest, Part, code_version, schema_of, utc_now
from hir_core.store.plain_files import open_folder
from hir_core.store.validation import check_columns, check_table
from hir_core.store.version import MANIFEST, VersionRef, digests, problems_of, visible_files

if TYPE_CHECKING:
    import dataframely as dy


class _Outcome(NamedTuple):
    """What a stage reports about its work, for the manifest: fields of `Manifest`."""

    rows_in: int | None
    rejected: dict[str, int]
    metrics: dict[str, Any]


class Draft:
    """A version that is being written: parts are written to its folder, then it is committed. Made by `Store.draft`.

    Attributes:
        path: the folder to write to; the commit moves it.
        identity: what decides the content of the version.
        ref: the version that it will be.
    """

    def __init__(self, ref: VersionRef, identity: Identity) -> None:
        self.ref = ref
        self.identity = identity
        stage_dir = ref.path.parent
        self.path = stage_dir / f".draft-{ref.id}"
        self.sealed_path = stage_dir / f".commit-{ref.id}"
        self.stage_lock = stage_dir / ".lock"

    def parts(self) -> list[Path]:
        """The finished files: a table's parts (unreadable ones are deleted, to be redone), or a model's files."""
        return finished_parts(self.path) if self._schema else visible_files(self.path)

    def write(self, name: str, frame: pl.DataFrame) -> Path:
        """Writes one part of the table and returns its path; replaces an existing part of that name.

        Raises:
            SchemaError: a column is missing, unknown or of the wrong type.
            StoreError: the part cannot be written, for example because the draft was committed or discarded.
        """
        schema = self._schema
        assert schema is not None, "a model has no table"
        check_columns(schema, frame.schema, f"{self.ref} part-{name}.parquet")
        return write_part(self.path, name, frame.select(schema.column_names()))

    def delete_parts(self) -> None:
        """Deletes the parts of an earlier attempt, for work that begins anew."""
        for path in list_parts(self.path):
            path.unlink()

    @contextmanager
    def working_folder(self) -> Iterator[Path]:
        """An empty folder for intermediate files, which is deleted at the end; no version holds it.

        Raises:
            StoreError: it cannot be made.
        """
        folder = self.path / ".work"
        shutil.rmtree(folder, ignore_errors=True)  # that of a process that was killed
        with writing(folder):
            folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def discard(self) -> None:
        """Deletes the draft with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def commit(
        self,
        *,
        rows_in: int | None = None,
        rejected: Mapping[str, int] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> VersionRef:
        """Checks the draft, makes it a version, and returns its reference; if that version exists, discards the draft.

        A failed commit leaves the draft as it was; after a killed one `Store.draft` restores it.

        Args:
            rows_in: number of rows that the stage was given; each must be in the table or counted in `rejected`.
            rejected: number of rows that were not kept, by reason.
            metrics: timings, tokens, losses and the like, as JSON values; NaN becomes null.

        Raises:
            SchemaError: the table breaks its schema; names the part, and the column, rule or key.
            StoreError: rows are unaccounted for, the draft contains something that a version may not, or it is gone.
        """
        outcome = _Outcome(rows_in, dict(rejected or {}), dict(metrics or {}))
        with exclusive(self.stage_lock, wait=True):
            if self.ref.path.exists():
                self.discard()
                return self.ref
            # Renamed first, so that a rank that outlived its launch cannot change files while they are digested.
            if not self.sealed_path.exists():  # it exists if an earlier commit was killed after this draft was opened
                try:
                    self.path.rename(self.sealed_path)
                except FileNotFoundError:
                    raise StoreError(
                        f"the draft of {self.ref} is gone from {self.path}: open it again and redo it"
                    ) from None
            try:
                self._finish(outcome)
                self.sealed_path.rename(self.ref.path)
                for folder in (self.ref.path.parent, self.ref.path.parent.parent):
                    sync(folder)
            finally:
                if self.sealed_path.exists():
                    self.sealed_path.rename(self.path)
        return self.ref

    @property
    def _schema(self) -> type[dy.Schema] | None:
        return schema_of(self.identity)

    def _finish(self, outcome: _Outcome) -> None:
        """Checks and syncs the sealed draft, and writes its manifest last."""
        folder = self.sealed_path
        with open_folder(folder) as sealed, os.scandir(sealed) as entries:
            for entry in list(entries):  # checkpoints, what killed writers left, the manifest of an unfinished commit
                if entry.name.startswith(".") or entry.name == MANIFEST:
                    remove = shutil.rmtree if entry.is_dir(follow_symlinks=False) else os.unlink
                    remove(entry.name, dir_fd=sealed)
        files = visible_files(folder)
        rows: Sequence[int | None] = [None] * len(files)
        if self._schema is not None:
            try:
                rows = check_table(self._schema, self.ref, files)
            except SchemaError as error:
                raise SchemaError(
                    f"{error}; correct the data or function that it comes from, delete {self.path}, and run again"
                ) from None
        for path in files:
            sync(path)
        write_json(folder / MANIFEST, self._manifest(files, rows, outcome).model_dump())
        sync(folder)

    def _manifest(self, files: Sequence[Path], rows: Sequence[int | None], outcome: _Outcome) -> Manifest:
        parts = tuple(
            Part(name=path.name, rows=count, bytes=path.stat().st_size, sha256=digest)
            for path, count, digest in zip(files, rows, digests(files), strict=True)
        )
        try:
            return Manifest.sealed(
                **self.identity.model_dump(),
                id=self.ref.id,
                code_version=code_version(),
                created=utc_now(after=self._last_commit()),
                parts=parts,
                rows=sum(count or 0 for count in rows) if self._schema else None,
                **outcome._asdict(),
            )
        except ValidationError as error:
            raise StoreError(f"{self.ref} cannot be committed: {problems_of(error)}") from None

    def _last_commit(self) -> str | None:
        """The time of the last commit among this version's forks; ours must be later, since `@latest` is the last."""
        times: list[str] = []
        for path in self.ref.path.parent.glob(f"{self.ref.iteration:04d}-*/{MANIFEST}"):
            with suppress(OSError, StoreError, ValidationError):  # a damaged fork is reported when it is read
                times.append(Manifest.model_validate(read_json(path)).created)
        return max(times, default=None)
