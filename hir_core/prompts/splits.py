"""Which side of the split a group of prompts stands on: train or test.

Whole groups are assigned, in an order given by a hash of seed and group, so the side does not depend on the order of
rows.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from hir_core.errors import ConfigError
from hir_core.prompts.items import Split
from hir_core.schemas import content_key


def assign_splits(groups: Iterable[str], test_share: float, seed: int) -> dict[str, Split]:
    """Assigns each group to a side: `test_share` of the groups, rounded, to test."""
    ordered = sorted(set(groups), key=lambda group: content_key(seed, group))
    held_out = round(test_share * len(ordered))
    return {group: "test" if place < held_out else "train" for place, group in enumerate(ordered)}


SHOWN = 3
# Sentence punctuation and blanks count as one blank. Operators and brackets stay: `5 - 3` is not `5 / 3`.
_INCIDENTAL = r"""[\s.,;:!?'"“”‘’…`]+"""
_TURN = pl.element().struct
# Not the system turn: the same question is the same under another one, as it is under another instruction.
_TURNS = pl.col("history").list.eval(pl.when(_TURN.field("role") != "system").then(_TURN.field("content")))
_ASKED = pl.concat_str(_TURNS.list.drop_nulls().list.join(" ").fill_null(""), "query", separator=" ")
_SHARED = {
    "group": pl.col("group"),
    "query": _ASKED.str.to_lowercase().str.replace_all(_INCIDENTAL, " ").str.strip_chars(),
}


def leaks(prompts: pl.DataFrame) -> pl.DataFrame:
    """Lists test prompts that share their group, or their normalised query, with a train prompt.

    Of a conversation the query is all that its user and its assistant said.

    Returns:
        `shared` (group or query), `train_id` and `test_id`, one row per leaked test prompt and kind, sorted.
    """
    return pl.concat([_sharing(prompts, kind, key) for kind, key in _SHARED.items()]).sort("shared", "test_id")


def check_leaks(prompts: pl.DataFrame) -> None:
    """Stops where a test prompt has leaked into training.

    Raises:
        ConfigError: counts first, then the first three of each kind with both prompt ids.
    """
    found = leaks(prompts)
    if found.is_empty():
        return
    leaked, tested = found["test_id"].n_unique(), prompts.filter(pl.col("split") == "test").height
    lines = [f"prompts: {leaked} of {tested} test prompts leak into train"]
    for kind, advice in _ADVICE.items():
        lines += _described(found.filter(pl.col("shared") == kind), kind, advice)
    raise ConfigError("\n".join(lines))


_ADVICE = {
    "group": "put every row of a group on one side, or rename groups that are not the same story",
    "query": "drop the copies, or give them one `group`",
}


def _sharing(prompts: pl.DataFrame, kind: str, key: pl.Expr) -> pl.DataFrame:
    keyed = prompts.select("prompt_id", "split", key=key)
    train = keyed.filter(pl.col("split") == "train").group_by("key").agg(train_id=pl.col("prompt_id").min())
    test = keyed.filter(pl.col("split") == "test").select("key", test_id="prompt_id")
    return test.join(train, on="key").select(pl.lit(kind).alias("shared"), "train_id", "test_id")


def _described(found: pl.DataFrame, kind: str, advice: str) -> list[str]:
    if found.is_empty():
        return []
    pairs = [f"    train {row['train_id']} · test {row['test_id']}" for row in found.head(SHOWN).iter_rows(named=True)]
    more = [f"    and {found.height - SHOWN} more"] if found.height > SHOWN else []
    return [f"  {found.height} share their {kind} with a train prompt: {advice}", *pairs, *more]
