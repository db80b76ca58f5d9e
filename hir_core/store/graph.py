"""Versions and their parents as a graph.

Reads manifests through the store; writes nothing.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from hir_core.schemas import SCHEMAS
from hir_core.store.manifest import Manifest
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

Facts = dict[str, Any]


class VersionGraph:
    """Which versions of a run are made from which.

    Args:
        store: a run none of whose manifests is damaged.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.refs = {str(ref): ref for ref in store.versions()}
        self.manifests: dict[str, Manifest] = {name: store.manifest(ref) for name, ref in self.refs.items()}
        self.below: dict[str, list[VersionRef]] = {}
        for name, manifest in self.manifests.items():
            for parent in dict.fromkeys(manifest.parents):
                self.below.setdefault(parent, []).append(self.refs[name])

    def children(self, ref: VersionRef, stage: str) -> list[VersionRef]:
        """The versions of a stage that are made from this one, in the order of the loop."""
        return [child for child in self.below.get(str(ref), []) if child.stage == stage]

    def parents(self, ref: VersionRef, stage: str) -> list[VersionRef]:
        """The versions of a stage that this one is made from and that are still there."""
        named = self.manifests[str(ref)].parents_of(stage)
        return [self.refs[name] for name in named if name in self.refs]

    def rows(self, ref: VersionRef, where: pl.Expr) -> list[Facts]:
        """The rows of a version that fit, each with the version's name."""
        (key,) = SCHEMAS[ref.stage].primary_key()
        found = self.store.table(ref).filter(where).sort(key).collect().to_dicts()
        return [{"version": str(ref), **row} for row in found]
