"""What each of a prompt's samples says of the policy where they were drawn without replacement.

Independent samples of a policy stand for equal shares of it. Drawn without replacement, an unlikely output is among the
samples more often than its probability says. With outputs o_1, ..., o_n in the order in which they were drawn,

    share(o_i) = (left_i + (n - i) p(o_i)) / n,    left_i = 1 - p(o_1) - ... - p(o_(i-1))

so that the sum of share(o) f(o) is an unbiased estimate of the policy's mean of any f (Des Raj 1956, "Some estimators
in sampling with varying probabilities without replacement"). The shares of a prompt add up to 1; where every output is
unlikely, as long ones are, they are equal. A model that is sure of its output repeats it where nothing but rounding is
left: p(o_i) counts as no more than left_i, so that the repetition has no share.

Holds expressions over tables of samples with `prompt_id`, `model`, `k` and `probability`: what one model drew for a
prompt belongs together. Reads and writes nothing. How such samples are drawn is left to `sampling.distinct`.
"""

from __future__ import annotations

import polars as pl

PROBABILITY = pl.col("logprobs").cast(pl.List(pl.Float64)).list.sum().exp().clip(upper_bound=1.0).alias("probability")
"""exp of the sum of a sample's log-probabilities; rounding must not make it more than 1."""
SMALLEST = 1e-9
"""Smallest share, so that a sample that is right can be taught even if nothing but rounding was left for it."""
_DRAW = ("prompt_id", "model")


def share() -> pl.Expr:
    """The share of its prompt's policy that a sample stands for."""
    probability, samples = pl.col("probability"), pl.len().over(_DRAW)
    before = (probability.cum_sum() - probability).over(_DRAW, order_by="k")
    left, after = (1 - before).clip(lower_bound=0.0), samples - pl.col("k").rank("ordinal").over(_DRAW)
    return ((left + after * pl.min_horizontal(probability, left)) / samples).clip(lower_bound=SMALLEST)


def shared_weight() -> pl.Expr:
    """The `weight` of the samples that are kept, shared out by their `share`.

    Those that a prompt has for one instruction and query count as one sample together: what they teach is the policy
    given that its output follows the instruction, whatever the probability of that was.
    """
    is_taught = pl.col("weight") > 0
    taught = pl.when(is_taught).then(pl.col("share")).otherwise(0.0)
    of_all = taught.sum().over(*_DRAW, "instruction", "query")
    return pl.when(is_taught).then(pl.col("weight") * taught / of_all).otherwise("weight").alias("weight")
