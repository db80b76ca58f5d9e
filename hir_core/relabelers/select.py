"""Selection of the labeled samples to train on, and their weights: the section `select`, the same for every relabeler.

Reads and returns one row per sample with `prompt_id`, `is_correct`, `instruction`, `contrast`, `completion_ids`,
`rejected` (why it is left out; null where it is kept), `weight` (the factor of its loss as a demonstration; 0: it is
none) and `removed` (more than 0: the output is ruled out). Adds `prefix_length`, the number of tokens at the beginning
of the output that are given and not predicted. What is left out here has its reason too. What is selected are
demonstrations: an output that is ruled out stays so, with the weight 0 where it is too many as a demonstration.
"""

from __future__ import annotations

from itertools import repeat

import polars as pl

from hir_core.config import SelectConfig
from hir_core.schemas import content_keys

ALL_WRONG, ALL_RIGHT = "all samples of the prompt wrong", "all samples of the prompt right"
DUPLICATE = "duplicate of another output"
TOO_MANY = "limit of others_per_correct"
_IS_TAUGHT, _IS_RULED_OUT = pl.col("weight") > 0, pl.col("removed") > 0


def select(labeled: pl.DataFrame, selection: SelectConfig, correct: str) -> pl.DataFrame:
    """Rejects what the selection leaves out, and gives every other row its weight and its prefix length.

    With `balance`, a row's weight w becomes w W / (I V): W is the sum of all weights, I the number of instructions that
    are demonstrated, and V the sum of the weights of the row's instruction.

    Args:
        correct: the instruction for sampling and evaluation.
    """
    # An output that is ruled out is not right, also where it has no score because it names no answer.
    is_correct, one_sided = pl.col("is_correct") & ~_IS_RULED_OUT, pl.lit(None, dtype=pl.String)
    if "all_wrong" in selection.drop_prompts:
        one_sided = pl.when(~is_correct.any().over("prompt_id")).then(pl.lit(ALL_WRONG)).otherwise(one_sided)
    if "all_right" in selection.drop_prompts:
        one_sided = pl.when(is_correct.all().over("prompt_id")).then(pl.lit(ALL_RIGHT)).otherwise(one_sided)
    labeled = _reject(labeled, one_sided)
    if selection.deduplicate:
        output = pl.struct("prompt_id", "instruction", "query", "completion_ids", _IS_RULED_OUT.alias("is_ruled_out"))
        labeled = _reject(labeled, pl.when(~output.is_first_distinct()).then(pl.lit(DUPLICATE)))
    if selection.others_per_correct is not None:
        labeled = _drop_surplus(labeled, correct, selection.others_per_correct)
    kept = labeled.filter(pl.col("rejected").is_null())
    if selection.balance:
        weight, instructions = pl.col("weight"), pl.col("instruction").filter(_IS_TAUGHT).n_unique()
        balanced = weight * weight.sum() / (instructions * weight.sum().over("instruction"))
        kept = kept.with_columns(weight=pl.when(_IS_TAUGHT).then(balanced).otherwise(0.0))
    prefix_length = _prefix_lengths(kept, selection.sub_outputs)
    kept = kept.with_columns(prefix_length=pl.when(_IS_RULED_OUT).then(0).otherwise(prefix_length))
    return pl.concat([kept, labeled.filter(pl.col("rejected").is_not_null())], how="diagonal").sort("sample_id")


def _reject(labeled: pl.DataFrame, reason: pl.Expr) -> pl.DataFrame:
    """Rejects the rows for which there is a reason; it is computed over the rows that are not rejected yet."""
    kept = labeled.filter(pl.col("rejected").is_null()).with_columns(rejected=reason)
    return pl.concat([kept, labeled.filter(pl.col("rejected").is_not_null())]).sort("sample_id")


def _drop_surplus(labeled: pl.DataFrame, correct: str, others_per_correct: float) -> pl.DataFrame:
    """Keeps of every other instruction only so many rows per row of the correct one, chosen by a hash of their ids.

    Where the correct instruction has no row, all rows are kept. Rows count that demonstrate their instruction; of those
    that are too many, the ones that are ruled out as well stay as that alone.
    """
    kept, is_correct = labeled.filter(pl.col("rejected").is_null()), pl.col("instruction") == correct
    most = kept.filter(is_correct & _IS_TAUGHT).height * others_per_correct or kept.height
    keys = content_keys(repeat("surplus", kept.height), kept["sample_id"].to_list())
    kept = kept.with_columns(pl.Series("order", list(keys), dtype=pl.String))
    rank = pl.when(_IS_TAUGHT).then("order").rank("ordinal").over("instruction")
    kept = kept.with_columns(is_surplus=~is_correct & (rank > most)).drop("order")
    kept = kept.with_columns(
        rejected=pl.when(pl.col("is_surplus") & ~_IS_RULED_OUT).then(pl.lit(TOO_MANY)),
        weight=pl.when("is_surplus").then(0.0).otherwise("weight"),
        contrast=pl.when("is_surplus").then(pl.col("contrast").list.head(0)).otherwise("contrast"),
    )
    rejected = labeled.filter(pl.col("rejected").is_not_null())
    return pl.concat([kept.drop("is_surplus"), rejected]).sort("sample_id")


def _prefix_lengths(kept: pl.DataFrame, share: float) -> pl.Series:
    """0, or for a share of the samples 1 to all but the last token, drawn by a hash of the sample's id."""
    if share == 0:
        return pl.Series("prefix_length", [0], dtype=pl.Int64).new_from_index(0, kept.height)
    keys = content_keys(repeat("sub-output", kept.height), kept["sample_id"].to_list())
    lengths = kept["completion_ids"].list.len().to_list()
    prefixes = [_prefix_length(digits, length or 0, share) for digits, length in zip(keys, lengths, strict=True)]
    return pl.Series("prefix_length", prefixes, dtype=pl.Int64)


def _prefix_length(digits: str, length: int, share: float) -> int:
    if length < 2:
        return 0
    is_cut, position = int(digits[:8], 16) / 16**8 < share, int(digits[8:], 16)
    return 1 + position % (length - 1) if is_cut else 0
