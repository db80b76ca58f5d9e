"""`Store`, the folder of a run: immutable versions, drafts that become versions, and the lock of the one writer.

    runs/<name>/.lock                                   held and signed by the process that writes to the run
    runs/<name>/<stage>/<iteration>-<hash>/             a version: part-*.parquet (models: their files), manifest.json
    runs/<name>/<stage>/.draft-<iteration>-<hash>/      work in progress; its finished parts survive a crash
    runs/<name>/<stage>/.commit-<iteration>-<hash>/     the same folder during its commit

A version becomes visible by one rename, after it was checked and its manifest was written, and in no other way. Readers
never wait for the writer; while they read, `store.gc` removes nothing. Raises StoreError, VersionNotFound,
VersionCorrupt and RunLocked. Commits are in `store.draft`; the schemas of tables are in `schemas`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from pydantic import ValidationError

from hir_core.errors import StoreError, VersionCorrupt, VersionNotFound
from hir_core.store.files import read_json
from hir_core.store.locks import Reader, exclusive
from hir_core.store.manifest import STAGES, VERSION_ID, Identity, Manifest
from hir_core.store.plain_files import delete_half_written, refuse_what_is_not_plain
from hir_core.store.version import (
    MANIFEST,
    VersionRef,
    differences,
    digests,
    is_optimizer_state,
    problems_of,
    released,
    remedy,
    visible_files,
)

if TYPE_CHECKING:
    from hir_core.store.draft import Draft


_REFERENCE = re.compile(rf"(?P<stage>\w+)(@(?P<iteration>\d{{1,9}}|latest)|/(?P<id>{VERSION_ID.pattern}))", re.ASCII)


class Store:
    """The versions of one run.

    Args:
        run_dir: the run's folder; it need not exist yet.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._reader = Reader(run_dir)

    # --- writing ---

    @contextmanager
    def lock(self, *, wait: bool = False) -> Iterator[None]:
        """Makes this process the only writer of the run; creates the run's folder if it does not exist.

        The kernel frees the lock when the process ends, however it ends. Child processes do not keep it.

        Args:
            wait: until another process frees the lock, instead of refusing.

        Raises:
            RunLocked: another process holds it; says which.
            StoreError: the folder cannot be written, its file system has no locks, or in it lies a link, a pipe or a
                device, where files are written and deleted.
        """
        with exclusive(self.run_dir / ".lock", wait=wait):
            launches = self.run_dir / "launches"
            for path in (launches, *(self.run_dir / stage for stage in STAGES)):
                refuse_what_is_not_plain(path)
            for folder in (self.run_dir, *launches.glob("*")):
                delete_half_written(folder)
            yield

    @contextmanager
    def exclusive_access(self) -> Iterator[None]:
        """Keeps all readers out except those that use this store object, so that versions can be removed.

        Raises:
            RunLocked: another reader has opened a version of the run.
            StoreError: the run's folder cannot be locked.
        """
        with self._reader.exclusive():
            yield

    def draft(self, identity: Identity) -> Draft:
        """Opens the draft of a version: an earlier one with its finished parts, or a new one.

        Raises:
            StoreError: the run's folder cannot be written, or the draft contains something else than plain files.
        """
        draft = self._draft(identity)
        self._refuse_links(draft.ref.path)
        for path in (draft.path, draft.sealed_path):
            refuse_what_is_not_plain(path)
        with exclusive(draft.stage_lock, wait=True):
            if (
                draft.sealed_path.exists()
            ):  # a commit was killed; a folder at the old name is from a rank that outlived it
                shutil.rmtree(draft.path, ignore_errors=True)
                draft.sealed_path.rename(draft.path)
            draft.path.mkdir(exist_ok=True)
        return draft

    def draft_path(self, identity: Identity) -> Path:
        """The folder of a version's draft, whether it exists or not."""
        return self._draft(identity).path

    # --- looking up ---

    def find(self, identity: Identity) -> VersionRef | None:
        """The committed version of this identity, or None: whether its work is already done.

        Raises:
            VersionCorrupt: it exists, but its manifest is missing or damaged.
            StoreError: another identity has by chance the same id, or a folder is a symbolic link.
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

    def versions(self, stage: str | None = None) -> list[VersionRef]:
        """All committed versions, or those of one stage, in the order of the loop; reads folder names only.

        Raises:
            StoreError: the folder of a stage is a symbolic link.
        """
        return [ref for name in STAGES if stage in (None, name) for ref in self._versions_of(name)]

    def resolve(self, text: str) -> VersionRef:
        """The version of a reference: `samples@3`, `samples@latest` or `samples/0003-3fa1c2d4`.

        `@latest` is the last iteration, and of its forks (same iteration, other config) the one committed last. `@3` is
        refused if it has forks, because it does not say which of them is meant.

        Raises:
            VersionNotFound: there is no such version, or several; lists the existing ones.
            StoreError: the folder of the version or its stage is a symbolic link.
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

    def manifest(self, ref: VersionRef) -> Manifest:
        """The manifest of a version.

        Raises:
            VersionNotFound: there is no such version.
            VersionCorrupt: its manifest is missing, unreadable, or that of another version.
        """
        path = self._folder(ref) / MANIFEST
        try:
            manifest = Manifest.model_validate(read_json(path))
        except FileNotFoundError:
            raise VersionCorrupt(f"{ref}: {MANIFEST} is missing{remedy(path.parent)}") from None
        except ValidationError as error:
            raise VersionCorrupt(f"{ref}: {MANIFEST} is damaged: {problems_of(error)}{remedy(path.parent)}") from None
        except StoreError as error:
            raise VersionCorrupt(f"{ref}: {MANIFEST} is damaged: {error}{remedy(path.parent)}") from None
        except UnicodeEncodeError:  # raised where a key is one, as pydantic names the place of a problem
            raise VersionCorrupt(f"{ref}: {MANIFEST} is damaged: half of a character{remedy(path.parent)}") from None
        if (manifest.stage, manifest.id) != (ref.stage, ref.id):
            raise VersionCorrupt(f"{ref}: {MANIFEST} is that of {manifest.stage}/{manifest.id}{remedy(path.parent)}")
        return manifest

    def parents(self, ref: VersionRef, stage: str) -> list[Manifest]:
        """The manifests of a version's parents of one stage.

        Raises:
            StoreError: as `manifest`, of the version or of a parent.
        """
        return [self.manifest(self.resolve(name)) for name in self.manifest(ref).parents_of(stage)]

    def released(self, ref: VersionRef) -> dict[str, str]:
        """The deleted files of a version, by name, with the reason; empty for most versions.

        Raises:
            VersionNotFound: there is no such version.
            StoreError: `.released.json` is damaged.
        """
        return released(self._folder(ref))

    def verify(self, ref: VersionRef) -> None:
        """Checks that a version's files are those of its manifest, byte for byte; released weights may be missing.

        A file's digest is computed once per process, and again only if the file changes.

        Raises:
            VersionNotFound: there is no such version.
            VersionCorrupt: names every file that is missing, does not belong to it, or differs.
        """
        self._verified(ref)

    def table(self, ref: VersionRef) -> pl.LazyFrame:
        """The table of a version, verified. polars guarantees no row order: sort it if the order matters.

        Raises:
            VersionNotFound: there is no such version, or it is a model, which has no table.
            VersionCorrupt: its files differ from its manifest.
        """
        return pl.scan_parquet(self.parts(ref))

    def read(self, ref: VersionRef) -> pl.DataFrame:
        """The table of a version, verified and in memory, its rows in the table's order.

        Raises:
            VersionNotFound, VersionCorrupt: as `table`.
        """
        return pl.concat([pl.read_parquet(path) for path in self.parts(ref)])

    def parts(self, ref: VersionRef) -> list[Path]:
        """The files of a version's table, verified. In this order, by name, they contain the rows in the table's order.

        Raises:
            VersionNotFound: there is no such version, or it is a model, which has no table.
            VersionCorrupt: its files differ from its manifest.
        """
        if ref.stage == "models":
            raise VersionNotFound(f"{ref} holds no table: a model is opened by its folder")
        manifest = self._verified(ref)
        return sorted(self._folder(ref) / part.name for part in manifest.parts)

    def folder(self, ref: VersionRef) -> Path:
        """The folder of a version, verified, from which `transformers` can load a model.

        Raises:
            VersionNotFound: there is no such version.
            VersionCorrupt: its files differ from its manifest.
            StoreError: it is a model whose weights were released.
        """
        self._verified(ref)
        folder = self._folder(ref)
        if gone := [why for name, why in self.released(ref).items() if not is_optimizer_state(name)]:
            raise StoreError(
                f"{ref} is needed for its weights, which `hir gc` has deleted ({gone[0]}); to "
                f"make them again, delete {folder} and run its config, or start from a model that has its weights"
            )
        return folder

    def _verified(self, ref: VersionRef) -> Manifest:
        self._reader.begin()
        manifest, folder = self.manifest(ref), self._folder(ref)
        expected = {part.name: part for part in manifest.parts}
        present = {path.name: path for path in visible_files(folder)}
        missing = expected.keys() - present.keys() - self.released(ref).keys()
        problems = [f"{name} is missing" for name in sorted(missing)]
        problems += [f"{name} does not belong to it" for name in sorted(present.keys() - expected.keys())]
        common = sorted(expected.keys() & present.keys())
        for name, digest in zip(common, digests([present[name] for name in common]), strict=True):
            problems += differences(expected[name], present[name], digest)
        if problems:
            raise VersionCorrupt(f"{ref} differs from its manifest: {'; '.join(problems)}{remedy(folder)}")
        return manifest

    # --- names and folders ---

    def _draft(self, identity: Identity) -> Draft:
        from hir_core.store.draft import Draft

        return Draft(self._ref(identity.stage, identity.id), identity)

    def _ref(self, stage: str, version_id: str) -> VersionRef:
        return VersionRef(stage, version_id, self.run_dir / stage / version_id)

    def _folder(self, ref: VersionRef) -> Path:
        """The folder of a version in this run, whatever the path in its reference."""
        if ref.stage not in STAGES or not VERSION_ID.fullmatch(ref.id):
            raise VersionNotFound(f"`{ref}` names no version: expected stage/id, as in samples/0003-3fa1c2d4")
        path = self.run_dir / ref.stage / ref.id
        self._refuse_links(path)
        if not path.is_dir():
            raise VersionNotFound(f"no version {ref} in {self.run_dir}; {self._what_there_is(ref.stage)}")
        return path

    def _refuse_links(self, path: Path) -> None:
        for place in (path.parent, path):
            _refuse_link(place)

    def _versions_of(self, stage: str) -> list[VersionRef]:
        folder = self.run_dir / stage
        _refuse_link(folder)
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if VERSION_ID.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
        refs = [self._ref(stage, name) for name in names]
        return sorted(refs, key=lambda ref: (ref.iteration, ref.id))

    def _by_iteration(self, text: str, stage: str, iteration: str) -> VersionRef:
        versions = self._versions_of(stage)
        last = max((ref.iteration for ref in versions), default=0)
        wanted = last if iteration == "latest" else int(iteration)
        forks = [ref for ref in versions if ref.iteration == wanted]
        if not forks:
            raise VersionNotFound(f"no version `{text}` in {self.run_dir}; {self._what_there_is(stage)}")
        if len(forks) == 1:
            return forks[0]
        forks.sort(key=lambda ref: (self.manifest(ref).created, ref.id))
        if iteration == "latest":
            return forks[-1]
        names = ", ".join(f"{ref} (committed {self.manifest(ref).created})" for ref in forks)
        raise VersionNotFound(f"`{text}` names {len(forks)} versions, made from different configs: {names}; name one")

    def _what_there_is(self, stage: str) -> str:
        same = [str(ref) for ref in self._versions_of(stage)]
        if same:
            more = f", and {len(same) - 12} before" if len(same) > 12 else ""
            return f"there is {', '.join(same[-12:])}{more}"
        counts = Counter(ref.stage for ref in self.versions())
        others = ", ".join(f"{count} of {name}" for name, count in counts.items())
        return f"it has no {stage} yet" + (f", only {others}" if others else "")


def _refuse_link(place: Path) -> None:
    if place.is_symlink():
        raise StoreError(f"{place} is a symbolic link: a run holds its own files; move them here")
