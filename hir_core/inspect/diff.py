"""The difference between two versions of a stage, for `hir diff`: changed rows, and shifts of scores and instructions.

Rows of two iterations share no key, so they are matched by their prompt and, where they come from a sample, by its `k`.
Columns that name a row or a version, seeds and probabilities of outputs are not compared. Reads both tables, their
digests checked, and the samples and prompts that they are made from. Writes nothing.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import polars as pl
from polars import selectors

from hir_core.errors import ConfigError, VersionNotFound
from hir_core.inspect.stats import Scores, followed, scores, with_task
from hir_core.schemas import SCHEMAS
from hir_core.store.manifest import value_counts
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

NOT_COMPARED = frozenset({"sample_id", "triple_id", "model", "seed", "logprobs", "probability"})
EXAMPLES = 5
_KEYS = ("prompt_id", "sample_id", "triple_id")
_EXISTS = "exists"
_B = "_of_b"
"""What follows the name of a column of b in the table of matched rows."""


class Side(NamedTuple):
    """One of the two versions, and the run that it lies in."""

    store: Store
    ref: VersionRef


class Values(TypedDict):
    """A column's value on either side; None also where that side does not have the row."""

    a: Any
    b: Any


class RowDifference(TypedDict):
    """A matched row: the prompt (and `k`) it is about, which side has it, and its values by column."""

    about: dict[str, Any]
    side: Literal["a", "b", "both"]
    values: dict[str, Values]


class Counts(TypedDict):
    """How often each instruction stands on either side; of triples in demonstrations only."""

    a: dict[str, int]
    b: dict[str, int]


class ScoreShift(TypedDict):
    """The scores on either side, and how many matched scores went up and down."""

    a: Scores
    b: Scores
    up: int
    down: int


class Difference(TypedDict):
    """How the table of b differs from that of a, as plain JSON values.

    `rows` are the row counts of a and b; `columns` has the number of changed rows by column; `examples` are the first
    changed rows. `instructions` and `score` are there where the stage has such a column. `of_key` is there where a key
    was given: the rows about it, with the columns that changed, or with all columns where only one side has the row.
    """

    a: str
    b: str
    differs: bool
    rows: list[int]
    same: int
    changed: int
    added: int
    removed: int
    columns: dict[str, int]
    examples: list[RowDifference]
    instructions: NotRequired[Counts]
    score: NotRequired[ScoreShift]
    of_key: NotRequired[list[RowDifference]]


def difference(a: Side, b: Side, key: str | None = None) -> Difference:
    """How the table of b differs from that of a.

    Args:
        a: the version to compare with.
        b: the version to compare.
        key: the key of a prompt, sample or triple, or the first characters of one: adds all rows about it.

    Raises:
        ConfigError: the two versions are of different stages.
        VersionNotFound: there is no such version, it holds no table, or neither side has a row of this key.
        VersionCorrupt: one of them, or a version that it is made from, is damaged.
    """
    if a.ref.stage != b.ref.stage:
        raise ConfigError(f"{a.ref} and {b.ref} are of different stages: give two versions of one stage")
    in_a, in_b = _table(a), _table(b)
    compared = [name for name in SCHEMAS[a.ref.stage].column_names() if name not in {*NOT_COMPARED, "prompt_id", "k"}]
    rows = _matched(in_a, in_b, compared)
    both, changed = rows.filter(pl.col("side") == "both"), rows.filter(pl.col("changed").list.len() > 0)
    found: Difference = {
        "a": str(a.ref),
        "b": str(b.ref),
        "differs": bool(rows.height > both.height or changed.height),
        "rows": [in_a.height, in_b.height],
        "same": both.height - changed.height,
        "changed": changed.height,
        "added": rows.filter(pl.col("side") == "b").height,
        "removed": rows.filter(pl.col("side") == "a").height,
        "columns": value_counts(changed["changed"].explode(), len(compared)),
        "examples": [_row_difference(row, row["changed"]) for row in changed.head(EXAMPLES).to_dicts()],
    }
    if "instruction" in compared:
        found["instructions"] = {
            "a": value_counts(followed(in_a)["instruction"]),
            "b": value_counts(followed(in_b)["instruction"]),
        }
    if "score" in compared:
        found["score"] = {
            "a": scores(in_a, a.store.manifest(a.ref).config.get("threshold")),
            "b": scores(in_b, b.store.manifest(b.ref).config.get("threshold")),
            "up": both.filter(pl.col("score" + _B) > pl.col("score")).height,
            "down": both.filter(pl.col("score" + _B) < pl.col("score")).height,
        }
    if key is not None:
        found["of_key"] = _rows_of_key(rows, key, compared)
    return found


def _table(side: Side) -> pl.DataFrame:
    """A side's rows; `place` numbers those about one sample, the newest first, so that each has its partner."""
    table = with_task(side.store, side.ref)
    if "k" not in table.columns:
        return table
    newest = table.sort("order", *SCHEMAS[side.ref.stage].primary_key(), descending=[True, False], nulls_last=True)
    return newest.with_columns(place=pl.int_range(pl.len()).over("prompt_id", "k"))


def _matched(a: pl.DataFrame, b: pl.DataFrame, compared: list[str]) -> pl.DataFrame:
    """One row for each that a or b has: which `side` has it and, where both have it, which columns `changed`."""
    about = ["prompt_id", "k", "place"] if "k" in a.columns else ["prompt_id"]
    kept = [*about, *compared, *(name for name in _KEYS if name in a.columns and name not in about)]
    # As texts: with stop texts an output can end in one way more, and enums of other values are not compared.
    as_text = selectors.enum().cast(pl.String)
    sides = [table.select(kept).with_columns(as_text, pl.lit(value=True).alias(_EXISTS)) for table in (a, b)]
    rows = sides[0].join(sides[1], on=about, how="full", coalesce=True, nulls_equal=True, suffix=_B)
    in_a, in_b = pl.col(_EXISTS).fill_null(value=False), pl.col(_EXISTS + _B).fill_null(value=False)
    changed = [pl.when(pl.col(name).ne_missing(pl.col(name + _B))).then(pl.lit(name)) for name in compared]
    return rows.with_columns(
        side=pl.when(in_a & in_b).then(pl.lit("both")).when(in_a).then(pl.lit("a")).otherwise(pl.lit("b")),
        changed=pl.when(in_a & in_b)
        .then(pl.concat_list(changed).list.drop_nulls())
        .otherwise(pl.lit([], pl.List(pl.String))),
    ).sort(about)


def _row_difference(row: dict[str, Any], columns: list[str]) -> RowDifference:
    return {
        "about": {name: row[name] for name in ("prompt_id", "k") if name in row},
        "side": row["side"],
        "values": {name: {"a": row[name], "b": row[name + _B]} for name in columns},
    }


def _rows_of_key(rows: pl.DataFrame, key: str, compared: list[str]) -> list[RowDifference]:
    """The rows with this key on either side; where there is none, those with a key that begins with it."""
    names = [name for name in rows.columns if name.removesuffix(_B) in _KEYS]
    for matches in ([pl.col(name) == key for name in names], [pl.col(name).str.starts_with(key) for name in names]):
        if of_key := rows.filter(pl.any_horizontal(matches)).to_dicts():
            return [_row_difference(row, row["changed"] if row["side"] == "both" else compared) for row in of_key]
    raise VersionNotFound(f"neither version has a row about `{key}`: expected a prompt_id, sample_id or triple_id")
