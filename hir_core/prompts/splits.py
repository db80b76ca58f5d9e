"""The train and test split: assigning groups of prompts to it, and finding test prompts that leak into train.

Whole groups are assigned, in the order of a hash of seed and group, so that the split does not depend on the order of
the rows.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from hir_core.errors import ConfigError
from hir_core.prompts.items import Split
from hir_core.schemas import content_key


def assign_splits(groups: Iterable[str], test_share: float, seed: int) -> dict[str, Split]:
    """The split of each group: `test_share` of the groups, rounded to a whole number, are test."""
    ordered = sorted(set(groups), key=lambda group: content_key(seed, group))
    test_count = round(test_share * len(ordered))
    return {group: "test" if index < test_count else "train" for index, group in enumerate(ordered)}


# --- leaks -----------------------------------------------------------------------------------------------------------

EXAMPLES_SHOWN = 3
# Runs of blanks and sentence punctuation count as one blank. Operators and brackets stay: `5 - 3` is not `5 / 3`.
_INCIDENTAL = r"""[\s.,;:!?'"“”‘’…`]+"""
_TURN = pl.element().struct
# System turns are left out: a question that is asked under another system prompt is the same question.
_SPOKEN_TURNS = pl.col("history").list.eval(pl.when(_TURN.field("role") != "system").then(_TURN.field("content")))
_CONVERSATION = pl.concat_str(_SPOKEN_TURNS.list.drop_nulls().list.join(" ").fill_null(""), "query", separator=" ")
_COMPARED_BY = {
    "group": pl.col("group"),
    "query": _CONVERSATION.str.to_lowercase().str.replace_all(_INCIDENTAL, " ").str.strip_chars(),
}
_ADVICE = {
    "group": "put every row of a group on one side, or rename groups that are not the same story",
    "query": "drop the copies, or give them one `group`",
}


def leaks(prompts: pl.DataFrame) -> pl.DataFrame:
    """The test prompts that share their group, or their normalised query, with a train prompt.

    The normalised query of a conversation includes the earlier turns of its user and its assistant.

    Returns:
        `shared` (group or query), `train_id` and `test_id`, one row per leaked test prompt and kind, sorted.
    """
    found = []
    for kind, key in _COMPARED_BY.items():
        keyed = prompts.select("prompt_id", "split", key=key)
        train = keyed.filter(pl.col("split") == "train").group_by("key").agg(train_id=pl.col("prompt_id").min())
        test = keyed.filter(pl.col("split") == "test").select("key", test_id="prompt_id")
        found.append(test.join(train, on="key").select(pl.lit(kind).alias("shared"), "train_id", "test_id"))
    return pl.concat(found).sort("shared", "test_id")


def check_leaks(prompts: pl.DataFrame) -> None:
    """Raises an error where a test prompt leaks into train.

    Raises:
        ConfigError: the counts, then the first three pairs of each kind with both prompt ids.
    """
    leaked = leaks(prompts)
    if leaked.is_empty():
        return
    test_count = prompts.filter(pl.col("split") == "test").height
    lines = [f"prompts: {leaked['test_id'].n_unique()} of {test_count} test prompts leak into train"]
    for (kind,), pairs in leaked.group_by("shared", maintain_order=True):
        lines.append(f"  {pairs.height} share their {kind} with a train prompt: {_ADVICE[str(kind)]}")
        examples = pairs.head(EXAMPLES_SHOWN).iter_rows(named=True)
        lines += [f"    train {pair['train_id']} · test {pair['test_id']}" for pair in examples]
        lines += [f"    and {pairs.height - EXAMPLES_SHOWN} more"] if pairs.height > EXAMPLES_SHOWN else []
    raise ConfigError(*lines)
