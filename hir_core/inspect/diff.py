"""How two versions of a stage differ: rows by what they are about, scores and instructions by how they shift.

Rows of two iterations have no key in common, so they are matched by their prompt and, where a sample is their origin,
by its k. What names a row or a version, and the random numbers and probabilities behind a text, are not compared.
Reads both tables, verified, and the samples and prompts that they are made from.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from hir_core.errors import ConfigError, VersionNotFound
from hir_core.inspect.stats import scores, with_task
from hir_core.schemas import SCHEMAS, as_declared
from hir_core.store.manifest import value_counts
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

Facts = dict[str, Any]
NOT_COMPARED = frozenset({"sample_id", "triple_id", "model", "seed", "logprobs"})
EXAMPLES = 5
_IDS = ("prompt_id", "sample_id", "triple_id")
_OF_SAMPLES = ["prompt_id", "k", "place"]
_THERE = "there"
_B = "_of_b"


class Side(NamedTuple):
    """One of the two versions, and the run that it lies in."""

    store: Store
    ref: VersionRef


def difference(a: Side, b: Side, key: str | None = None) -> Facts:
    """How the table of b differs from that of a, as plain JSON values.

    Args:
        a: what is compared with.
        b: what is compared.
        key: of a prompt, sample or triple, or its first digits: adds the rows about it, in full.

    Returns:
        `differs`; `rows` of a and of b; how many are the `same`, `changed`, `added` and `removed`; `columns`: in how
        many rows each has changed; `missing`: columns that a or b lacks and the other has; `examples` of changed rows;
        and of a and b, where the stage has them, `instructions` and `score`, with how many scores went `up` and `down`;
        `of_key`, the rows about `key`: what they are about, which side has them, and the values in a and b of the
        columns that have changed (of all, where only one side has the row).

    Raises:
        ConfigError: the two are of different stages.
        VersionNotFound: there is no such version, it holds no table, or neither has a row of this key.
        VersionCorrupt: one, or what it is made from, is damaged.
    """
    if a.ref.stage != b.ref.stage:
        raise ConfigError(f"{a.ref} and {b.ref} hold different things: give two versions of one stage")
    tables = [_table(side) for side in (a, b)]
    compared = [name for name in _compared(a.ref.stage) if all(name in table.columns for table in tables)]
    there = [[name for name in _compared(a.ref.stage) if name in table.columns] for table in tables]
    rows = _matched(tables[0], tables[1], compared)
    both, changed = rows.filter(pl.col("side") == "both"), rows.filter(pl.col("changed").list.len() > 0)
    counts = {
        "same": both.height - changed.height,
        "changed": changed.height,
        "added": rows.filter(pl.col("side") == "b").height,
        "removed": rows.filter(pl.col("side") == "a").height,
    }
    return {
        "a": str(a.ref),
        "b": str(b.ref),
        "differs": rows.height > counts["same"] or there[0] != there[1],
        "rows": [table.height for table in tables],
        **counts,
        "columns": value_counts(changed["changed"].explode(), len(compared)),
        "missing": {"a": [n for n in there[1] if n not in there[0]], "b": [n for n in there[0] if n not in there[1]]},
        "examples": [_told(row, row["changed"]) for row in changed.head(EXAMPLES).to_dicts()],
        **_shift(tables, both, [side.store.manifest(side.ref).config.get("threshold") for side in (a, b)]),
        **({} if key is None else {"of_key": _of_key(rows, key, compared)}),
    }


def _table(side: Side) -> pl.DataFrame:
    """A side's rows, with `place` telling apart those that are about the same sample, the newest first."""
    found = with_task(side.store, side.ref)
    table = as_declared(SCHEMAS[side.ref.stage], found)
    if "k" not in table.columns:
        return table
    newest = table.sort("order", *SCHEMAS[side.ref.stage].primary_key(), descending=[True, False], nulls_last=True)
    return newest.with_columns(place=pl.int_range(pl.len()).over("prompt_id", "k"))


def _compared(stage: str) -> list[str]:
    return [name for name in SCHEMAS[stage].column_names() if name not in {*NOT_COMPARED, "prompt_id", "k"}]


def _matched(a: pl.DataFrame, b: pl.DataFrame, compared: list[str]) -> pl.DataFrame:
    """One row for each that a or b has: which `side` has it, and which columns have `changed` where both do."""
    about = _OF_SAMPLES if "k" in a.columns else ["prompt_id"]
    kept = [*about, *compared, *(name for name in _IDS if name in a.columns and name not in about)]
    sides = [table.select(kept).with_columns(pl.lit(value=True).alias(_THERE)) for table in (a, b)]
    rows = sides[0].join(sides[1], on=about, how="full", coalesce=True, nulls_equal=True, suffix=_B)
    in_a, in_b = pl.col(_THERE).fill_null(value=False), pl.col(_THERE + _B).fill_null(value=False)
    differs = [pl.when(pl.col(name).ne_missing(pl.col(name + _B))).then(pl.lit(name)) for name in compared]
    return rows.with_columns(
        side=pl.when(in_a & in_b).then(pl.lit("both")).when(in_a).then(pl.lit("a")).otherwise(pl.lit("b")),
        changed=pl.when(in_a & in_b)
        .then(pl.concat_list(differs).list.drop_nulls())
        .otherwise(pl.lit([], pl.List(pl.String))),
    ).sort(about)


def _shift(tables: list[pl.DataFrame], both: pl.DataFrame, thresholds: list[float | None]) -> Facts:
    facts: Facts = {}
    if all("instruction" in table.columns for table in tables):
        facts["instructions"] = {side: value_counts(t["instruction"]) for side, t in zip("ab", tables, strict=True)}
    if all("score" in table.columns for table in tables):
        told = zip("ab", tables, thresholds, strict=True)
        facts["score"] = {side: scores(table["score"], threshold) for side, table, threshold in told}
        facts["score"]["up"] = both.filter(pl.col("score" + _B) > pl.col("score")).height
        facts["score"]["down"] = both.filter(pl.col("score" + _B) < pl.col("score")).height
    return facts


def _told(row: Facts, columns: list[str]) -> Facts:
    """A matched row: what it is about, which side has it, and values of some columns on either."""
    about = {name: row[name] for name in ("prompt_id", "k") if name in row}
    return {
        "about": about,
        "side": row["side"],
        "values": {name: {"a": row[name], "b": row[name + _B]} for name in columns},
    }


def _of_key(rows: pl.DataFrame, key: str, compared: list[str]) -> list[Facts]:
    """The rows one of whose keys, on either side, is this one; without any, those whose key begins with it."""
    ids = [name for name in rows.columns if name.removesuffix(_B) in _IDS]
    for fits in ([pl.col(name) == key for name in ids], [pl.col(name).str.starts_with(key) for name in ids]):
        if found := rows.filter(pl.any_horizontal(fits)).to_dicts():
            return [_told(row, row["changed"] if row["side"] == "both" else compared) for row in found]
    raise VersionNotFound(f"neither version has a row about `{key}`: expected a prompt_id, sample_id or triple_id")
