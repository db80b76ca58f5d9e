"""`VersionGraph`: the versions of a run with their parents and children, for `hir gc` and the inspections.

Reads all manifests of the run through the store. Raises VersionCorrupt if one is damaged.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from hir_core.schemas import SCHEMAS
from hir_core.store.manifest import Manifest
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

Row = dict[str, Any]
"""A row of a table, as values by column."""
"""A row of a table with the name of its version under `version`."""


class VersionGraph:
    """Which versions of a run are made from which others. Versions are named as `stage/id`.

    Args:
        store: the run.

    Attributes:
        refs: all versions by name, in the order of the loop.
        manifests: their manifests by name.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.refs = {str(ref): ref for ref in store.versions()}
        self.manifests: dict[str, Manifest] = {name: store.manifest(ref) for name, ref in self.refs.items()}
        self._children: dict[str, list[VersionRef]] = {}
        for name, manifest in self.manifests.items():
            for parent in dict.fromkeys(manifest.parents):
                self._children.setdefault(parent, []).append(self.refs[name])

    def children(self, ref: VersionRef, stage: str) -> list[VersionRef]:
        """The versions of a stage that are made directly from this one, in the order of the loop."""
        return [child for child in self._children.get(str(ref), []) if child.stage == stage]

    def parents(self, ref: VersionRef, stage: str) -> list[VersionRef]:
        """The versions of a stage that this one is made directly from and that still exist."""
        names = self.manifests[str(ref)].parents_of(stage)
        return [self.refs[name] for name in names if name in self.refs]

    def rows(self, ref: VersionRef, where: pl.Expr) -> list[Row]:
        """The rows of a version for which `where` holds, sorted by key, each with the version's name."""
        (key,) = SCHEMAS[ref.stage].primary_key()
        rows = self.store.table(ref).filter(where).sort(key).collect().to_dicts()
        return [{"version": str(ref), **row} for row in rows]
