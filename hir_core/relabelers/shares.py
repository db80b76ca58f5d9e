"""What each of a prompt's samples says of the policy where they were drawn without replacement.

Independent samples of a policy stand for equal shares of it. Drawn without replacement, an unlikely output is among the
samples more often than its probability says. With outputs o_1, ..., o_n in the order in which they were drawn,

    share(o_i) = ((1 - p(o_1) - ... - p(o_(i-1))) + (n - i) p(o_i)) / n

so that the sum of share(o) f(o) is an unbiased estimate of the policy's mean of any f (Des Raj 1956, "Some estimators
in sampling with varying probabilities without replacement"). The shares of a prompt add up to 1; where every output is
unlikely, as long ones are, they are equal.

Holds expressions over tables of samples with `prompt_id`, `k` and `probability`. Reads and writes nothing. How such
samples are drawn is left to `sampling.distinct`.
"""

from __future__ import annotations

import polars as pl

PROBABILITY = pl.col("logprobs").cast(pl.List(pl.Float64)).list.sum().exp().clip(upper_bound=1.0).alias("probability")
"""exp of the sum of a sample's log-probabilities; rounding must not make it more than 1."""
SMALLEST = 1e-9
"""Smallest share: where earlier samples have all of the probability, nothing but rounding is left."""


def share() -> pl.Expr:
    """The share of its prompt's policy that a sample stands for."""
    probability, samples = pl.col("probability"), pl.len().over("prompt_id")
    up_to = probability.cum_sum().over("prompt_id", order_by="k")
    before, after = up_to - probability, samples - pl.col("k").rank("ordinal").over("prompt_id")
    return (((1 - before).clip(lower_bound=0.0) + after * probability) / samples).clip(lower_bound=SMALLEST)


def with_shared_weights(labeled: pl.DataFrame) -> pl.DataFrame:
    """The labeled samples of whole prompts, the `weight` of those that a prompt has for one instruction shared out.

    They count as one sample together, each in proportion to its share of the policy: what they teach is the policy
    given that its output follows the instruction, whatever the probability of that was.
    """
    is_taught = pl.col("rejected").is_null() & (pl.col("weight") > 0)
    labeled = labeled.with_columns(share=pl.when(is_taught).then(share()).otherwise(0.0))
    of_all = pl.col("share").sum().over("prompt_id", "instruction", "query")
    weight = pl.when(is_taught).then(pl.col("weight") * pl.col("share") / of_all).otherwise("weight")
    return labeled.with_columns(weight=weight).drop("share")
