"""A row by its key, for `hir row` and `hir trace`: the run that holds it, and its newest version there.

Reads the tables of prompts, samples and triples, their digests checked. Raises VersionNotFound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl

from hir_core.errors import VersionNotFound
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

KEYS = {"prompts": "prompt_id", "samples": "sample_id", "triples": "triple_id"}
"""The stages whose rows can be looked up, each with the column of its key, in the order of the search."""
KEY_EXPECTED = "expected a prompt_id, sample_id or triple_id, or the first characters of one, as `hir head` shows them"
CANDIDATES_SHOWN = 5
Row = dict[str, Any]
"""A row of a table, by column."""


class FoundRow(NamedTuple):
    """A row that was looked up by its key, in the last version that holds it."""

    version: VersionRef
    row: Row


def run_of_row(stores: Sequence[Store], text: str) -> Store:
    """The run that holds a row with this key, or with one that begins with it.

    Args:
        stores: one run or several; a single one is returned as it is.

    Raises:
        VersionNotFound: none of them holds such a row, or several do.
    """
    if len(stores) == 1:
        return stores[0]
    holders = [store for store in stores if next(_versions_with(store, text), None) is not None]
    names = [store.run_dir.name for store in holders or stores]
    if not holders:
        raise VersionNotFound(f"no row of {', '.join(names)} has the key `{text}`; {KEY_EXPECTED}")
    if len(holders) > 1:
        raise VersionNotFound(
            f"{len(names)} runs hold `{text}`: {', '.join(names)}; put one in front, as in {names[0]}/{text}"
        )
    return holders[0]


def find_row(store: Store, text: str) -> FoundRow:
    """The prompt, sample or triple with this key, or whose key begins with it.

    Raises:
        VersionNotFound: no row has this key, or several keys begin with it.
    """
    matches = list(_versions_with(store, text))
    candidates = sorted({key for _, keys in matches for key in keys})
    if not candidates:
        raise VersionNotFound(f"no prompt, sample or triple of {store.run_dir} has the key `{text}`; {KEY_EXPECTED}")
    if text not in candidates and len(candidates) > 1:
        more = ", …" if len(candidates) > CANDIDATES_SHOWN else ""
        listed = ", ".join(candidates[:CANDIDATES_SHOWN])
        raise VersionNotFound(
            f"{len(candidates)} keys begin with `{text}`: {listed}{more}; give more characters of one"
        )
    key = text if text in candidates else candidates[0]
    stage = next(ref.stage for ref, keys in matches if key in keys)
    last = [ref for ref, keys in matches if ref.stage == stage and key in keys][-1]
    (row,) = store.table(last).filter(pl.col(KEYS[stage]) == key).collect().to_dicts()
    return FoundRow(last, row)


def _versions_with(store: Store, text: str) -> Iterator[tuple[VersionRef, set[str]]]:
    """The versions of a run with keys that begin with a text, and these keys; none for an empty text."""
    for ref in (ref for stage in KEYS for ref in store.versions(stage) if text):
        column = pl.col(KEYS[ref.stage])
        keys = set(store.table(ref).select(column).filter(column.str.starts_with(text)).collect().to_series())
        if keys:
            yield ref, keys
