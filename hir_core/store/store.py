"""The store: a run directory of immutable versions, the drafts that become versions, and the lock of its one writer.

    runs/<name>/.lock                                   who writes
    runs/<name>/<stage>/<iteration>-<hash>/             a version: part-*.parquet (models: their files), manifest.json
    runs/<name>/<stage>/.draft-<iteration>-<hash>/      work in progress; its finished parts survive a crash
    runs/<name>/<stage>/.commit-<iteration>-<hash>/     the same folder while it is being committed

A version appears by one rename, checked and with its manifest written, or it does not appear; there is no other way
in. Readers wait for no writer; that they are there keeps `removing` away. What the tables hold is up to `schemas`, what
is done to make them to `stages`.
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
from hir_core.store.version import (
    MANIFEST,
    VersionRef,
    difference,
    digests,
    problems_of,
    released,
    remedy,
    visible_files,
)

if TYPE_CHECKING:
    from hir_core.store.draft import Draft


_REFERENCE = re.compile(rf"(?P<stage>\w+)(@(?P<iteration>\d{{1,9}}|latest)|/(?P<id>{VERSION_ID.pattern}))", re.ASCII)


class Store:
    """One run's versions.

    Args:
        run_dir: the run's folder; it need not exist yet.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._reader = Reader(run_dir)

    # --- writing ---

    @contextmanager
    def lock(self, *, wait: bool = False) -> Iterator[None]:
        """Makes this process the run's only writer, and creates the run's folder.

        The kernel frees the lock when the process ends, however it ends; no child keeps it.

        Args:
            wait: until a process that holds it has ended, instead of refusing.

        Raises:
            RunLocked: another process holds it; says which.
            StoreError: the folder cannot be written, its file system has no locks, or what launches left is a link.
        """
        with exclusive(self.run_dir / ".lock", wait=wait):
            launches = self.run_dir / "launches"
            for path in (launches, *launches.glob("*")):  # jobs are written, and their models deleted, in there
                _refuse_link(path)
            yield

    @contextmanager
    def exclusive_access(self) -> Iterator[None]:
        """Keeps readers out for the moment that it takes to remove something; who has this very store may go on.

        Raises:
            RunLocked: somebody else reads a version of the run now.
            StoreError: the run's folder cannot be locked.
        """
        with self._reader.exclusive():
            yield

    def draft(self, identity: Identity) -> Draft:
        """The draft of a version: an earlier one with its finished parts, or an empty one.

        Raises:
            StoreError: the run's folder cannot be written, or holds a link where a folder should be.
        """
        draft = self._draft(identity)
        for path in (draft.ref.path, draft.path, draft.sealed_path):
            self._refuse_links(path)
        with exclusive(draft.stage_lock, wait=True):
            if draft.sealed_path.exists():  # a commit died; whatever appeared at the old name since is a stray's
                shutil.rmtree(draft.path, ignore_errors=True)
                draft.sealed_path.rename(draft.path)
            draft.path.mkdir(exist_ok=True)
        return draft

    def draft_path(self, identity: Identity) -> Path:
        """Where the draft of a version is, or would be; opens none."""
        return self._draft(identity).path

    # --- finding ---

    def find(self, identity: Identity) -> VersionRef | None:
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

    def versions(self, stage: str | None = None) -> list[VersionRef]:
        """All committed versions, or those of one stage, in the order of the loop; reads folder names only.

        Raises:
            StoreError: a stage's folder is a link.
        """
        return [ref for name in STAGES if stage in (None, name) for ref in self._versions_of(name)]

    def resolve(self, text: str) -> VersionRef:
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

    def manifest(self, ref: VersionRef) -> Manifest:
        """What is known about a version.

        Raises:
            VersionNotFound: there is no such version.
            VersionCorrupt: its manifest is missing, unreadable, or another version's.
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
        """Why each file of a version that `hir gc` has released is no longer there, by name; empty but for old models.

        Raises:
            VersionNotFound: there is no such version.
            StoreError: the note that says so is damaged.
        """
        return released(self._folder(ref))

    def verify(self, ref: VersionRef) -> None:
        """Returns if a version's files are exactly those of its manifest, byte for byte, but for weights released.

        A digest is computed once per process and file, and again only when the file changes.

        Raises:
            VersionNotFound: there is no such version.
            VersionCorrupt: names every file that is missing, too many or different, and how.
        """
        self._verified(ref)

    def table(self, ref: VersionRef) -> pl.LazyFrame:
        """A version's table, verified; polars promises no row order, so sort where order matters.

        Raises:
            VersionNotFound: there is no such version, or it is a model, which holds no table.
            VersionCorrupt: its files are not what its manifest says.
        """
        return pl.scan_parquet(self.parts(ref))

    def parts(self, ref: VersionRef) -> list[Path]:
        """The files of a version's table, verified, by name: this order, and that within each, is the table's.

        Raises:
            VersionNotFound: there is no such version, or it is a model, which holds no table.
            VersionCorrupt: its files are not what its manifest says.
        """
        if ref.stage == "models":
            raise VersionNotFound(f"{ref} holds no table: a model is opened by its folder")
        manifest = self._verified(ref)
        return sorted(self._folder(ref) / part.name for part in manifest.parts)

    def folder(self, ref: VersionRef) -> Path:
        """A version's folder, verified and whole: what `transformers` loads a model from.

        Raises:
            VersionNotFound: there is no such version.
            VersionCorrupt: its files are not what its manifest says.
            StoreError: it is a model whose weights were released.
        """
        self._verified(ref)
        folder = self._folder(ref)
        if gone := self.released(ref):
            raise StoreError(
                f"{ref} is needed for its weights, which `hir gc` has released ({next(iter(gone.values()))}); to "
                f"remake them delete {folder} and run the config again that made it, or start from one that has them"
            )
        return folder

    def _verified(self, ref: VersionRef) -> Manifest:
        self._reader.begin()
        manifest, folder = self.manifest(ref), self._folder(ref)
        expected = {part.name: part for part in manifest.parts}
        found = {path.name: path for path in visible_files(folder)}
        problems = [f"{name} is missing" for name in sorted(expected.keys() - found.keys() - self.released(ref).keys())]
        problems += [f"{name} does not belong to it" for name in sorted(found.keys() - expected.keys())]
        common = sorted(expected.keys() & found.keys())
        for name, digest in zip(common, digests([found[name] for name in common]), strict=True):
            problems += difference(expected[name], found[name], digest)
        if problems:
            raise VersionCorrupt(f"{ref} differs from its manifest: {'; '.join(problems)}{remedy(folder)}")
        return manifest

    # --- names and places ---

    def _draft(self, identity: Identity) -> Draft:
        from hir_core.store.draft import Draft

        return Draft(self._ref(identity.stage, identity.id), identity)

    def _ref(self, stage: str, version_id: str) -> VersionRef:
        return VersionRef(stage, version_id, self.run_dir / stage / version_id)

    def _folder(self, ref: VersionRef) -> Path:
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


def _refuse_link(place: Path) -> None:
    if place.is_symlink():
        raise StoreError(f"{place} is a symbolic link: a run holds its own files; move them here")
