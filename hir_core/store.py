"""The store: a run directory of immutable versions, the drafts that become versions, and the lock of its one writer.

    runs/<name>/.lock                                   who writes
    runs/<name>/<stage>/<iteration>-<hash>/             a version: part-*.parquet (models: their files), manifest.json
    runs/<name>/<stage>/.draft-<iteration>-<hash>/      work in progress; its finished parts survive a crash
    runs/<name>/<stage>/.commit-<iteration>-<hash>/     the same folder while it is being committed

A version appears by one rename, checked and with its manifest written, or it does not appear; there is no other way
in. Readers need no lock. What the tables hold is up to `schemas`, what is done to make them to `stages`.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
from pydantic import ValidationError

from hir_core.errors import RunLocked, SchemaError, StoreError, VersionCorrupt, VersionNotFound
from hir_core.manifest import STAGES, VERSION_ID, Identity, Manifest, Part, code_version, utc_now
from hir_core.parts import ROW_GROUP_ROWS, finished_parts, list_parts, read_json, sync, write_json, write_part
from hir_core.schemas import SCHEMAS

MANIFEST = "manifest.json"
_REFERENCE = re.compile(rf"(?P<stage>\w+)(@(?P<iteration>\d{{1,9}}|latest)|/(?P<id>{VERSION_ID.pattern}))", re.ASCII)


@dataclass(frozen=True)
class StageRef:
    """A version, committed or to be, by name: pass this between stages, never a frame."""

    stage: str
    id: str
    path: Path

    @property
    def iteration(self) -> int:
        """The round of the loop that it belongs to."""
        return int(self.id.partition("-")[0])

    def __str__(self) -> str:
        return f"{self.stage}/{self.id}"


class Store:
    """One run's versions.

    Args:
        run_dir: the run's folder; it need not exist yet.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    # --- writing ---

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Makes this process the run's only writer, and creates the run's folder.

        The kernel frees the lock when the process ends, however it ends; no child keeps it.

        Raises:
            RunLocked: another process holds it; says which.
            StoreError: the folder cannot be written, or its file system has no locks.
        """
        with _exclusive(self.run_dir / ".lock", wait=False):
            yield

    def draft(self, identity: Identity) -> Draft:
        """The draft of a version: an earlier one with its finished parts, or an empty one.

        Raises:
            StoreError: the run's folder cannot be written, or holds a link where a folder should be.
        """
        draft = Draft(self._ref(identity.stage, identity.id), identity)
        for path in (draft.ref.path, draft.path, draft.sealed_path):
            self._refuse_links(path)
        with _exclusive(draft.stage_lock, wait=True):
            if draft.sealed_path.exists():  # a commit died; whatever appeared at the old name since is a stray's
                shutil.rmtree(draft.path, ignore_errors=True)
                draft.sealed_path.rename(draft.path)
            draft.path.mkdir(exist_ok=True)
        return draft

    # --- finding ---

    def find(self, identity: Identity) -> StageRef | None:
        """The committed version of this identity, or None: the answer to "already done?".

        Raises:
            VersionCorrupt: it is there, but its manifest is missing or damaged.
            StoreError: another identity has, by chance, the same id; or a link is in the way.
        """
        ref = self._ref(identity.stage, identity.id)
        self._refuse_links(ref.path)
        if not ref.path.exists():
            return None
        if self.manifest(ref).identity != identity:
            raise StoreError(
                f"{ref} is the work of another config or other parents, whose id happens to be the same; "
                f"change `seed` by one, or move {ref.path} away"
            )
        return ref

    def versions(self, stage: str | None = None) -> list[StageRef]:
        """All committed versions, or those of one stage, in the order of the loop; reads folder names only.

        Raises:
            StoreError: a stage's folder is a link.
        """
        return [ref for name in STAGES if stage in (None, name) for ref in self._versions_of(name)]

    def resolve(self, text: str) -> StageRef:
        """The version that a person means by `samples@3`, `samples@latest` or `samples/0003-3fa1c2d4`.

        `@latest` is the last iteration, and of its forks (same iteration, other config) the one committed last. `@3`
        with forks is refused: which experiment is meant is not ours to guess.

        Raises:
            VersionNotFound: no such version, or several; lists what there is.
            StoreError: the version is, or lies behind, a link.
        """
        match = _REFERENCE.fullmatch(text)
        if match is None or match["stage"] not in STAGES:
            raise VersionNotFound(
                f"`{text}` names no version: expected stage@iteration, stage@latest or stage/id, as in samples@3; "
                f"stages are {', '.join(STAGES)}"
            )
        if match["id"]:
            ref = self._ref(match["stage"], match["id"])
            self._folder(ref)
            return ref
        return self._by_iteration(text, match["stage"], match["iteration"])

    # --- reading ---

    def manifest(self, ref: StageRef) -> Manifest:
        """What is known about a version.

        Raises:
            VersionNotFound: there is no such version.
            VersionCorrupt: its manifest is missing, unreadable, or another version's.
        """
        path = self._folder(ref) / MANIFEST
        try:
            manifest = Manifest.model_validate(read_json(path))
        except FileNotFoundError:
            raise VersionCorrupt(f"{ref}: {MANIFEST} is missing{_remedy(path.parent)}") from None
        except ValidationError as error:
            raise VersionCorrupt(f"{ref}: {MANIFEST} is damaged: {_problems(error)}{_remedy(path.parent)}") from None
        except StoreError as error:
            raise VersionCorrupt(f"{ref}: {MANIFEST} is damaged: {error}{_remedy(path.parent)}") from None
        if (manifest.stage, manifest.id) != (ref.stage, ref.id):
            raise VersionCorrupt(f"{ref}: {MANIFEST} is that of {manifest.stage}/{manifest.id}{_remedy(path.parent)}")
        return manifest

    def verify(self, ref: StageRef) -> None:
        """Returns if a version's files are exactly those of its manifest, byte for byte.

        A digest is computed once per process and file, and again only when the file changes.

        Raises:
            VersionNotFound: there is no such version.
            VersionCorrupt: names every file that is missing, too many or different, and how.
        """
        self._verified(ref)

    def table(self, ref: StageRef) -> pl.LazyFrame:
        """A version's table, verified; polars promises no row order, so sort where order matters.

        Raises:
            VersionNotFound: there is no such version.
            VersionCorrupt: its files are not what its manifest says.
            StoreError: it is a model, which holds no table.
        """
        if ref.stage not in SCHEMAS:
            raise StoreError(f"{ref} holds no table: expected a version of {', '.join(SCHEMAS)}")
        manifest = self._verified(ref)
        return pl.scan_parquet([self._folder(ref) / part.name for part in manifest.parts])

    def folder(self, ref: StageRef) -> Path:
        """A version's folder, verified: what `transformers` loads a model from.

        Raises:
            VersionNotFound: there is no such version.
            VersionCorrupt: its files are not what its manifest says.
        """
        self._verified(ref)
        return self._folder(ref)

    def _verified(self, ref: StageRef) -> Manifest:
        manifest, folder = self.manifest(ref), self._folder(ref)
        expected = {part.name: part for part in manifest.parts}
        found = {path.name: path for path in _visible_files(folder)}
        problems = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
        problems += [f"{name} does not belong to it" for name in sorted(found.keys() - expected.keys())]
        common = sorted(expected.keys() & found.keys())
        for name, digest in zip(common, _digests([found[name] for name in common]), strict=True):
            problems += _difference(expected[name], found[name], digest)
        if problems:
            raise VersionCorrupt(f"{ref} differs from its manifest: {'; '.join(problems)}{_remedy(folder)}")
        return manifest

    # --- names and places ---

    def _ref(self, stage: str, version_id: str) -> StageRef:
        return StageRef(stage, version_id, self.run_dir / stage / version_id)

    def _folder(self, ref: StageRef) -> Path:
        """Where a version lies in this run, whatever path its reference carries."""
        if ref.stage not in STAGES or not VERSION_ID.fullmatch(ref.id):
            raise VersionNotFound(f"`{ref}` names no version: expected stage/id, as in samples/0003-3fa1c2d4")
        path = self.run_dir / ref.stage / ref.id
        self._refuse_links(path)
        if not path.is_dir():
            raise VersionNotFound(f"no version {ref} in {self.run_dir}; {self._what_there_is(ref.stage)}")
        return path

    def _refuse_links(self, path: Path) -> None:
        for place in (path.parent, path):
            if place.is_symlink():
                raise StoreError(f"{place} is a symbolic link: a run holds its own files; move them here")

    def _versions_of(self, stage: str) -> list[StageRef]:
        folder = self.run_dir / stage
        if folder.is_symlink():
            raise StoreError(f"{folder} is a symbolic link: a run holds its own files; move them here")
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if VERSION_ID.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
        refs = [self._ref(stage, name) for name in names]
        return sorted(refs, key=lambda ref: (ref.iteration, ref.id))

    def _by_iteration(self, text: str, stage: str, iteration: str) -> StageRef:
        there = self._versions_of(stage)
        if not there:
            raise VersionNotFound(f"no version `{text}` in {self.run_dir}; {self._what_there_is(stage)}")
        wanted = there[-1].iteration if iteration == "latest" else int(iteration)
        found = [ref for ref in there if ref.iteration == wanted]
        if not found:
            raise VersionNotFound(f"no version `{text}` in {self.run_dir}; {self._what_there_is(stage)}")
        if len(found) == 1:
            return found[0]
        found.sort(key=lambda ref: (self.manifest(ref).created, ref.id))
        if iteration == "latest":
            return found[-1]
        forks = ", ".join(f"{ref} (committed {self.manifest(ref).created})" for ref in found)
        raise VersionNotFound(f"`{text}` names {len(found)} versions, made from different configs: {forks}; name one")

    def _what_there_is(self, stage: str) -> str:
        same = [str(ref) for ref in self._versions_of(stage)]
        if same:
            more = f", and {len(same) - 12} before" if len(same) > 12 else ""
            return f"there is {', '.join(same[-12:])}{more}"
        counts = Counter(ref.stage for ref in self.versions())
        others = ", ".join(f"{count} of {name}" for name, count in counts.items())
        return f"it has no {stage} yet" + (f", only {others}" if others else "")


class Draft:
    """A version in the making: fill its folder with parts, then commit it. Made by `Store.draft`.

    Attributes:
        path: the folder to write to; it is gone after the commit.
        identity: what decides the version.
        ref: what it will be.
    """

    def __init__(self, ref: StageRef, identity: Identity) -> None:
        self.ref = ref
        self.identity = identity
        stage_dir = ref.path.parent
        self.path = stage_dir / f".draft-{ref.id}"
        self.sealed_path = stage_dir / f".commit-{ref.id}"
        self.stage_lock = stage_dir / ".lock"

    def parts(self) -> list[Path]:
        """What is finished: a table's parts (unreadable ones are deleted, to be redone), or a model's files."""
        return finished_parts(self.path) if self._schema else _visible_files(self.path)

    def write(self, name: str, frame: pl.DataFrame) -> Path:
        """Writes one part of the table; a part of that name is replaced.

        Raises:
            SchemaError: a column is missing, unknown or of the wrong type.
            StoreError: the part cannot be written, for example because the draft was committed or discarded.
        """
        schema = SCHEMAS[self.ref.stage]
        _check_columns(schema, frame.schema, f"{self.ref} part-{name}.parquet")
        return write_part(self.path, name, frame.select(schema.column_names()))

    def discard(self) -> None:
        """Deletes the draft and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def commit(
        self,
        *,
        rows_in: int | None = None,
        rejected: Mapping[str, int] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> StageRef:
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
        with _exclusive(self.stage_lock, wait=True):
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
        files = _visible_files(folder)
        rows = self._rows(files)
        for path in files:
            sync(path)
        manifest = self._manifest(files, rows, facts)
        write_json(folder / MANIFEST, manifest.model_dump())
        sync(folder)

    def _rows(self, files: Sequence[Path]) -> Sequence[int | None]:
        if self._schema is None:
            return [None] * len(files)
        try:
            return _check_table(self._schema, self.ref, files)
        except SchemaError as error:
            raise SchemaError(f"{error}; mend its source, delete {self.path}, and run again") from None

    def _manifest(self, files: Sequence[Path], rows: Sequence[int | None], facts: Mapping[str, Any]) -> Manifest:
        parts = tuple(
            Part(name=path.name, rows=count, bytes=path.stat().st_size, sha256=digest)
            for path, count, digest in zip(files, rows, _digests(files), strict=True)
        )
        try:
            return Manifest(
                **self.identity.model_dump(),
                id=self.ref.id,
                code_version=code_version(),
                created=utc_now(),
                parts=parts,
                rows=sum(count or 0 for count in rows) if self._schema else None,
                **facts,
            )
        except ValidationError as error:
            raise StoreError(f"{self.ref} cannot be committed: {_problems(error)}") from None


# --- files -----------------------------------------------------------------------------------------------------------


def _visible_files(folder: Path) -> list[Path]:
    """A folder's files by name, hidden ones and the manifest aside: all of them parts.

    Raises:
        StoreError: it holds a folder or a link, neither of which a version may.
    """
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name != MANIFEST)
    for path in paths:
        if path.is_symlink() or not path.is_file():
            kind = "symbolic link" if path.is_symlink() else "folder"
            raise StoreError(f"{path} is a {kind}: a version holds plain files only; remove it")
    return paths


def _remove_litter(folder: Path) -> None:
    """Deletes what killed writers left, and the manifest of a commit that never ended."""
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name == MANIFEST:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


_KNOWN_DIGESTS: dict[tuple[int, ...], str] = {}


def _digest(path: Path) -> str:
    stat = path.stat()
    # Not by name: the rename of a commit must not cost a second reading of a large model.
    key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if key not in _KNOWN_DIGESTS:
        with path.open("rb") as file:
            _KNOWN_DIGESTS[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _KNOWN_DIGESTS[key]


def _digests(paths: Sequence[Path]) -> list[str]:
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing lets go of the interpreter lock
        return list(pool.map(_digest, paths))


def _difference(part: Part, path: Path, digest: str) -> list[str]:
    size = path.stat().st_size
    if size != part.bytes:
        return [f"{part.name} has {size} bytes, expected {part.bytes}"]
    if digest != part.sha256:
        return [f"{part.name} has sha256 {digest[:12]}…, expected {part.sha256[:12]}…"]
    return []


def _remedy(folder: Path) -> str:
    return f"; restore it from a copy, or delete {folder} and run again to remake it"


def _problems(error: ValidationError) -> str:
    found = error.errors(include_url=False)
    texts = [(".".join(str(step) for step in p["loc"]), p["msg"].removeprefix("Value error, ")) for p in found]
    return "; ".join(f"{place}: {message}" if place else message for place, message in texts)


# --- checks of a table -----------------------------------------------------------------------------------------------


def _check_table(schema: type[dy.Schema], ref: StageRef, paths: Sequence[Path]) -> list[int]:
    """Returns the rows of each part, if together they are a table of this schema; never loads more than its keys."""
    for path in paths:
        if path not in list_parts(path.parent):
            raise StoreError(f"{ref}: only part-*.parquet may lie in a table's draft; remove {path.name}")
        with _readable(ref, path):
            _check_columns(schema, pl.read_parquet_schema(path), f"{ref} {path.name}")
    _check_keys(schema, ref, paths)
    return [_check_rows(schema, ref, path) for path in paths]


@contextmanager
def _readable(ref: StageRef, path: Path) -> Iterator[None]:
    try:
        yield
    except pl.exceptions.PolarsError as error:
        raise StoreError(f"{ref} {path.name} cannot be read: {str(error).splitlines()[0]}; delete it") from None


def _check_columns(schema: type[dy.Schema], found: Mapping[str, Any], where: str) -> None:
    expected = {name: column.dtype for name, column in schema.columns().items()}
    problems = [f"column `{name}` is missing" for name in expected if name not in found]
    problems += [f"column `{name}` is unknown" for name in found if name not in expected]
    problems += [
        f"column `{name}` is {found[name]}, expected {dtype}"
        for name, dtype in expected.items()
        if name in found and found[name] != dtype
    ]
    if problems:
        raise SchemaError(f"{where} does not fit {schema.__name__}: {'; '.join(problems)}")


def _check_keys(schema: type[dy.Schema], ref: StageRef, paths: Sequence[Path]) -> None:
    """Returns if there is a part, and no two rows of the table share a key; only the key is read."""
    if not paths:
        raise SchemaError(f"{ref} has no part: even an empty table needs one with the columns of {schema.__name__}")
    key = schema.primary_key()
    keys = pl.concat([_read_columns(ref, path, key) for path in paths])
    twice = keys.filter(keys.is_duplicated()).unique()
    if twice.is_empty():
        return
    first = twice.sort(key).head(1)
    holders = [path.name for path in paths if not _read_columns(ref, path, key).join(first, on=key).is_empty()]
    raise SchemaError(
        f"{ref}: {twice.height} key(s) of {schema.__name__} stand in several rows, "
        f"the first {_key_text(schema, first)} in {', '.join(holders)}"
    )


def _check_rows(schema: type[dy.Schema], ref: StageRef, path: Path) -> int:
    """Returns a part's rows if each keeps the rules of its schema; reads one row group at a time."""
    with _readable(ref, path):
        scan = pl.scan_parquet(path)
        rows = int(scan.select(pl.len()).collect().item())
        for start in range(0, rows, ROW_GROUP_ROWS):
            _, failure = schema.filter(scan.slice(start, ROW_GROUP_ROWS).collect())
            if broken := failure.counts():
                rules = ", ".join(f"`{rule.replace('|', ' ')}` in {count}" for rule, count in broken.items())
                raise SchemaError(
                    f"{ref} {path.name} breaks rules of {schema.__name__} in rows from {start}: {rules}, "
                    f"the first {_key_text(schema, failure.invalid())}"
                )
    return rows


def _read_columns(ref: StageRef, path: Path, columns: list[str]) -> pl.DataFrame:
    with _readable(ref, path):
        return pl.read_parquet(path, columns=columns)


def _key_text(schema: type[dy.Schema], rows: pl.DataFrame) -> str:
    return ", ".join(f"{name} {rows[name][0]!r}" for name in schema.primary_key())


# --- locks -----------------------------------------------------------------------------------------------------------

_HELD: set[io.FileIO] = set()


def _let_go_in_child() -> None:
    # A forked child shares the parent's lock and would keep it after the parent's death. (exec closes it by itself.)
    for handle in _HELD:
        handle.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


@contextmanager
def _exclusive(path: Path, *, wait: bool) -> Iterator[None]:
    """Holds a lock file, whose content says by whom; creates its folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = io.FileIO(path, "a+")
    except OSError as error:
        raise StoreError(f"cannot write to {path.parent}: {error.strerror}") from None
    with handle:
        _take(handle, path, wait)
        _HELD.add(handle)
        try:
            handle.truncate(0)
            handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": utc_now()}).encode())
            yield
        finally:
            _HELD.discard(handle)
            if not handle.closed:  # closed: this is a forked child on its way out, and the lock its parent's
                handle.truncate(0)


def _take(handle: io.FileIO, path: Path, wait: bool) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise RunLocked(
            f"{path.parent} is being written by another process ({_holder(handle)}): wait for it or stop it"
        ) from None
    except OSError as error:
        raise StoreError(f"cannot lock {path}: {error.strerror}; put the run on a file system with locks") from None


def _holder(handle: io.FileIO) -> str:
    handle.seek(0)
    try:
        holder = json.loads(handle.read())
        return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # caught between its lock and its signature
        return "which has not signed yet"
