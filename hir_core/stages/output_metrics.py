"""What is measured of outputs for manifests: how many are cut off, empty or repeated, how varied they are, and pass@k.

Reads parts of Samples, a few columns at a time. What is odd about the numbers is said by `inspect.diagnostics`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl


def output_metrics(parts: Sequence[Path], *, are_distinct: bool = False) -> dict[str, Any]:
    """The measurements of outputs.

    Args:
        parts: files of Samples.
        are_distinct: whether the samples of a prompt were drawn without replacement. `mean_logprob` is then that of the
            first ones, which are drawn as if there were no others.

    Returns:
        `cut_off`, outputs that reached the limit of new tokens before they ended; `empty`, those without a visible
        character; `repeated`, those equal to an earlier output of their prompt; and `mean_logprob`, the mean
        log-probability of a token in nats, None without tokens. Its negative estimates the entropy of a token where
        outputs are drawn from all tokens at temperature 1.
    """
    logprobs = pl.col("logprobs").filter(pl.col("k") == 0) if are_distinct else pl.col("logprobs")
    text = pl.struct("prompt_id", pl.col("completion").hash())
    counts = pl.scan_parquet(list(parts)).select(
        cut_off=(pl.col("finish_reason") == "length").sum(),
        empty=(pl.col("completion").str.strip_chars() == "").sum(),
        repeated=pl.len().cast(pl.Int64) - text.n_unique(),
        logprob=logprobs.list.sum().cast(pl.Float64).sum(),
        tokens=logprobs.list.len().sum(),
    )
    row = counts.collect().row(0, named=True)
    mean = row["logprob"] / row["tokens"] if row["tokens"] else None
    return {**{name: row[name] for name in ("cut_off", "empty", "repeated")}, "mean_logprob": mean}


def pass_at(rewards: pl.DataFrame, threshold: float) -> dict[str, float]:
    """The share of prompts of which at least one of k samples is correct, by k: 1, 2, 4, ... and all samples.

    The unbiased estimate from n samples of a prompt, of which c are correct, 1 - C(n - c, k) / C(n, k), averaged over
    the prompts that have k samples or more (Chen et al. 2021, arXiv 2107.03374).

    Args:
        rewards: rows with `prompt_id` and `score`; a sample without a score is not correct.
        threshold: the score of a correct sample.
    """
    counts = rewards.group_by("prompt_id").agg(n=pl.len(), c=is_correct(threshold).sum())
    groups = counts.group_by("n", "c").len().sort("n", "c").rows()
    most = max((n for n, _, _ in groups), default=0)
    ks = sorted({most, *(2**power for power in range(most.bit_length()))} - {0})
    return {str(k): _mean_pass_at([group for group in groups if group[0] >= k], k) for k in ks if k <= most}


def is_correct(threshold: float) -> pl.Expr:
    """Whether a score is that of a correct sample; false where there is none."""
    return (pl.col("score") >= threshold).fill_null(value=False)


def _mean_pass_at(groups: Sequence[tuple[int, int, int]], k: int) -> float:
    """The mean over prompts, which are given as numbers of samples, of correct ones, and of prompts with these."""
    passes = sum(prompts * (1 - math.comb(n - c, k) / math.comb(n, k)) for n, c, prompts in groups)
    return passes / sum(prompts for _, _, prompts in groups)
