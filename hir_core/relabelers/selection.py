"""Which labeled samples are trained on, and with what weight: the same choices for every relabeler.

Reads and returns one row per sample with `prompt_id`, `is_correct`, `instruction`, `completion_ids` and `rejected`
(why it is left out, null where it is not); adds `weight` and `given`, the tokens that are not predicted. Whatever is
left out here has its reason too.
"""

from __future__ import annotations

import polars as pl

from hir_core.config import SelectConfig
from hir_core.schemas import content_key

ALL_WRONG, ALL_RIGHT = "prompt all wrong", "prompt all right"
DUPLICATE = "duplicate of another output"
TOO_MANY = "too many of its instruction"


def select(labeled: pl.DataFrame, selection: SelectConfig, correct: str) -> pl.DataFrame:
    """Rejects what the selection leaves out, and gives every other row its weight and where its target begins.

    Args:
        correct: the instruction that is sampled and tested under.
    """
    labeled = _reject(labeled, _one_sided(selection))
    if selection.deduplicate:
        first = pl.struct("prompt_id", "instruction", "query", "completion_ids").is_first_distinct()
        labeled = _reject(labeled, pl.when(~first).then(pl.lit(DUPLICATE)))
    if selection.others_per_correct is not None:
        labeled = _drop_surplus(labeled, correct, selection.others_per_correct)
    counts, kinds = pl.len().over("instruction"), pl.col("instruction").n_unique()
    weight = pl.len() / (kinds * counts) if selection.balance else pl.lit(1.0)
    kept = labeled.filter(pl.col("rejected").is_null()).with_columns(weight=weight.cast(pl.Float64))
    kept = kept.with_columns(given=_given(kept, selection.sub_outputs))
    return pl.concat([kept, labeled.filter(pl.col("rejected").is_not_null())], how="diagonal").sort("sample_id")


def _reject(labeled: pl.DataFrame, reason: pl.Expr) -> pl.DataFrame:
    """Rejects for a reason (null: none), found among the rows that are not rejected yet."""
    kept = labeled.filter(pl.col("rejected").is_null()).with_columns(rejected=reason)
    return pl.concat([kept, labeled.filter(pl.col("rejected").is_not_null())]).sort("sample_id")


def _one_sided(selection: SelectConfig) -> pl.Expr:
    is_correct = pl.col("is_correct")
    reason = pl.lit(None, dtype=pl.String)
    if "all_wrong" in selection.drop_prompts:
        reason = pl.when(~is_correct.any().over("prompt_id")).then(pl.lit(ALL_WRONG)).otherwise(reason)
    if "all_right" in selection.drop_prompts:
        reason = pl.when(is_correct.all().over("prompt_id")).then(pl.lit(ALL_RIGHT)).otherwise(reason)
    return reason


def _drop_surplus(labeled: pl.DataFrame, correct: str, others_per_correct: float) -> pl.DataFrame:
    """Keeps of every other instruction only so many rows per row of the correct one, chosen by a hash of their ids.

    Where the correct one has none, there is no number to go by, and all are kept.
    """
    kept = labeled.filter(pl.col("rejected").is_null())
    most = kept.filter(pl.col("instruction") == correct).height * others_per_correct or kept.height
    order = pl.Series("order", [content_key("surplus", key) for key in labeled["sample_id"]], dtype=pl.String)
    rank = pl.col("order").rank("ordinal").over("instruction")
    surplus = pl.when((rank > most) & (pl.col("instruction") != correct)).then(pl.lit(TOO_MANY))
    return _reject(labeled.with_columns(order), surplus).drop("order")


def _given(kept: pl.DataFrame, share: float) -> pl.Series:
    """How many tokens of each output are given: 0, or for a share 1 to all but the last, by a hash of their ids."""
    rows = zip(kept["sample_id"].to_list(), kept["completion_ids"].list.len().to_list(), strict=True)
    return pl.Series([_cut(key, length or 0, share) for key, length in rows], dtype=pl.Int64)


def _cut(key: str | None, length: int, share: float) -> int:
    if length < 2 or share == 0:
        return 0
    digits = content_key("sub-output", key)
    is_cut, place = int(digits[:8], 16) / 16**8 < share, int(digits[8:], 16)
    return 1 + place % (length - 1) if is_cut else 0
