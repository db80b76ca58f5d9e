"""Selection of the labeled samples to train on, and their weights: the section `select`, the same for every relabeler.

Works on one row per sample with `prompt_id`, `is_correct`, `instruction`, `contrast`, `completion_ids`, `rejected` (why
it is left out; null where it is kept), `weight` (the factor of its loss as a demonstration; 0: it is none) and
`removed` (more than 0: the output is ruled out). What is left out here has its reason too. What is selected are
demonstrations: an output that is ruled out stays so, with the weight 0 where it is too many as a demonstration.

`kept_of_prompts` needs whole prompts only. `limited_and_balanced` compares the rows of all prompts, and needs few
columns of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import repeat

import polars as pl

from hir_core.config import SelectConfig
from hir_core.schemas import content_keys

ALL_WRONG, ALL_RIGHT = "all samples of the prompt wrong", "all samples of the prompt right"
DUPLICATE = "duplicate of another output"
TOO_MANY = "limit of others_per_correct"
_IS_TAUGHT, _IS_RULED_OUT = pl.col("weight") > 0, pl.col("removed") > 0
_IS_TOO_MANY = pl.col("is_surplus") & ~_IS_RULED_OUT


def kept_of_prompts(labeled: pl.DataFrame, selection: SelectConfig) -> tuple[pl.DataFrame, Counter[str]]:
    """The rows that are kept of whole prompts, in the same order, and how many others there are, by reason.

    Adds `prefix_length`, the number of tokens at the beginning of the output that are given and not predicted.
    """
    rejected = Counter[str]()
    kept = without_rejected(labeled, rejected)
    # An output that is ruled out is not right, also where it has no score because it names no answer.
    is_correct, one_sided = pl.col("is_correct") & ~_IS_RULED_OUT, pl.lit(None, dtype=pl.String)
    if "all_wrong" in selection.drop_prompts:
        one_sided = pl.when(~is_correct.any().over("prompt_id")).then(pl.lit(ALL_WRONG)).otherwise(one_sided)
    if "all_right" in selection.drop_prompts:
        one_sided = pl.when(is_correct.all().over("prompt_id")).then(pl.lit(ALL_RIGHT)).otherwise(one_sided)
    if selection.drop_prompts:
        kept = without_rejected(kept.with_columns(rejected=one_sided), rejected)
    if selection.deduplicate:
        output = pl.struct("prompt_id", "instruction", "query", "completion_ids", _IS_RULED_OUT.alias("is_ruled_out"))
        duplicate = pl.when(~output.is_first_distinct()).then(pl.lit(DUPLICATE))
        kept = without_rejected(kept.with_columns(rejected=duplicate), rejected)
    prefix_length = _prefix_lengths(kept, selection.sub_outputs)
    return kept.with_columns(prefix_length=pl.when(_IS_RULED_OUT).then(0).otherwise(prefix_length)), rejected


def without_rejected(rows: pl.DataFrame, rejected: Counter[str]) -> pl.DataFrame:
    """The rows that are not rejected, without that column; counts the others by reason."""
    reasons = rows["rejected"].drop_nulls()
    rejected.update(dict(reasons.value_counts().iter_rows()))
    kept = rows.drop("rejected")
    return kept if reasons.is_empty() else kept.filter(rows["rejected"].is_null())


def compares_prompts(selection: SelectConfig) -> bool:
    """Whether the rows of all prompts must be known to select some or weight them."""
    return selection.balance or selection.others_per_correct is not None


def compared_columns(kept: pl.DataFrame, selection: SelectConfig) -> pl.DataFrame:
    """What `limited_and_balanced` needs to know of kept rows."""
    columns = kept.select("sample_id", "instruction", "weight", "removed")
    if selection.others_per_correct is None:
        return columns
    keys = content_keys(repeat("surplus", kept.height), kept["sample_id"].to_list())
    return columns.with_columns(order=pl.Series(list(keys), dtype=pl.String).str.to_integer(base=16, dtype=pl.UInt64))


def limited_and_balanced(
    slices: Sequence[pl.DataFrame], selection: SelectConfig, correct: str
) -> Iterator[pl.DataFrame]:
    """The columns `weight` and `is_surplus` of all kept rows, in the slices and the order in which they are given.

    A row is surplus if there are too many of its instruction. With `balance`, a row's weight w becomes w W / (I V): W
    is the sum of all weights, I the number of instructions that are demonstrated, and V the sum of the weights of the
    row's instruction.

    Args:
        slices: the compared columns of all kept rows.
        correct: the instruction for sampling and evaluation.
    """
    rows = pl.concat(slices).with_row_index("row").sort("sample_id").with_columns(is_surplus=pl.lit(value=False))
    if selection.others_per_correct is not None:
        rows = _with_surplus(rows, correct, selection.others_per_correct)
    if selection.balance:
        weight, instructions = pl.col("weight"), pl.col("instruction").filter(_IS_TAUGHT).n_unique()
        kept = weight.filter(~_IS_TOO_MANY)
        balanced = weight * kept.sum() / (instructions * kept.sum().over("instruction"))
        rows = rows.with_columns(weight=pl.when(_IS_TAUGHT).then(balanced).otherwise(0.0))
    decided, start = rows.sort("row").select("weight", "is_surplus"), 0
    for frame in slices:
        yield decided.slice(start, frame.height)
        start += frame.height


def apply(decided: pl.DataFrame, kept: pl.DataFrame, rejected: Counter[str]) -> pl.DataFrame:
    """The kept rows with the weights of `limited_and_balanced`, without those that are too many; counts these."""
    rows = kept.drop("weight").hstack(decided).with_columns(rejected=pl.when(_IS_TOO_MANY).then(pl.lit(TOO_MANY)))
    contrast = pl.when("is_surplus").then(pl.col("contrast").list.head(0)).otherwise("contrast")
    return without_rejected(rows.with_columns(contrast=contrast).drop("is_surplus"), rejected)


def _with_surplus(rows: pl.DataFrame, correct: str, others_per_correct: float) -> pl.DataFrame:
    """Marks as surplus all but so many rows of every other instruction per row of the correct one, chosen by `order`.

    Where the correct instruction has no row, no row is. Rows count that demonstrate their instruction; of those that
    are too many, the ones that are ruled out as well stay as that alone: with the weight 0.
    """
    is_correct = pl.col("instruction") == correct
    most = rows.filter(is_correct & _IS_TAUGHT).height * others_per_correct or rows.height
    rank = pl.when(_IS_TAUGHT).then("order").rank("ordinal").over("instruction")
    rows = rows.with_columns(is_surplus=~is_correct & (rank > most).fill_null(value=False))
    return rows.with_columns(weight=pl.when("is_surplus").then(0.0).otherwise("weight"))


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
