"""The loss of hindsight instruction relabeling, computed from one forward pass per micro-batch.

    L = L_supervised + alpha * L_contrastive + beta * L_entropy + gamma * L_exclusion

The first three are those of section 3 of Zhang et al., 'Hindsight Instruction Relabeling', ICML 2023, arXiv 2302.05206.
The last one teaches the model not to write the outputs that are excluded: either it is the divergence from the
model's own distribution without them (see `exclusion`), or unlikelihood (Welleck et al. 2020, arXiv 1908.04319). Each
term is a sum divided by a total of the whole optimizer step, so that micro-batch size, accumulation and world size do
not change it. The model's part is in `triple_loss`. Shapes are those of `batches`: B rows,
T tokens; S sequences; Q positions, W targets of each; M target tokens, R triples, N instructions; E excluded outputs,
D soft targets with K tokens; V vocabulary, H hidden size.
Holds no data and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hir_core.training.batches import Batch
from hir_core.training.examples import Totals

TERMS = ("loss", "supervised", "contrastive", "entropy", "exclusion")
"""The keys of `loss_terms`: the weighted sum and its terms."""
SMALLEST_REST = 1e-7
"""Smallest probability of all tokens that a soft target does not name: less is rounding in fp32."""


@dataclass(frozen=True)
class TokenStats:
    """Statistics of the distribution at each of M target tokens, in nats."""

    logprobs: Tensor
    """[M]: log p(target)."""
    mean_logprobs: Tensor | None
    """[M]: the mean of log p(v) over the vocabulary; None where label smoothing is 0."""
    entropies: Tensor
    """[M]"""
    soft_logprobs: Tensor | None = None
    """[K]: log p of the tokens of soft targets; None where there are none."""


@dataclass(frozen=True)
class Coefficients:
    """Weights of the terms."""

    label_smoothing: float
    """The paper's epsilon."""
    contrastive: float
    """The paper's alpha."""
    entropy: float
    """The paper's beta."""
    contrastive_smoothing: float = 0.0
    """Share of the contrast's target that goes to the other instructions, in equal parts.

    The published code has 0.2; the paper's formula has none.
    """
    contrastive_per_token: bool = False
    """Whether the contrast compares mean log-probabilities, as the published code does, or sums, as in the paper."""
    exclusion: float = 0.0
    """Gamma."""
    is_unlikelihood: bool = False
    """Whether the exclusion term is unlikelihood; else it is the divergence from soft targets."""


def loss_terms(stats: TokenStats, batch: Batch, totals: Totals, coefficients: Coefficients) -> dict[str, Tensor]:
    """This micro-batch's share of the step's terms and of their weighted sum, `loss`.

    supervised  = sum over target tokens of (1 - eps) * -log p(target) + eps * -mean_v log p(v), divided by tokens
    contrastive = sum over triples of logsumexp_k P_k - (1 - s) P_own - s mean_{k not own} P_k, where
                  P_k = log P(output | query_k, instruction_k), divided by triples; exactly 0 without contrast
    entropy     = sum over target tokens of the distribution's negative entropy, divided by tokens
    exclusion   = sum over soft targets of w KL(q || p), divided by prompts with excluded outputs: the mean over these
                  prompts of R() KL(p* || p); or, as unlikelihood,
                  sum over excluded outputs of -r log(1 - p(output)), divided by the same

    The exclusion term is 0 where its coefficient is. eps is `label_smoothing`, s is
    `contrastive_smoothing`; each token and triple counts with its triple's weight, w, q and r are those of `exclusion`.
    """
    triples = len(batch.weights)
    own = batch.target_rows < triples
    weights = batch.weights[batch.triples[batch.target_rows[own]]]
    eps = coefficients.label_smoothing
    smoothed = -(1 - eps) * stats.logprobs[own]
    if stats.mean_logprobs is not None:
        smoothed = smoothed - eps * stats.mean_logprobs[own]
    terms = {
        "supervised": (weights * smoothed).sum() / totals.tokens,
        "contrastive": (batch.weights * contrastive(stats.logprobs, batch, coefficients)).sum() / totals.triples,
        "entropy": -(weights * stats.entropies[own]).sum() / totals.tokens,
        "exclusion": stats.logprobs.new_zeros(()),
    }
    if coefficients.exclusion and coefficients.is_unlikelihood:
        terms["exclusion"] = unlikelihood(stats, batch) / totals.excluding_prompts
    elif coefficients.exclusion and stats.soft_logprobs is not None:
        terms["exclusion"] = divergence(stats.soft_logprobs, batch) / totals.excluding_prompts
    loss = terms["supervised"]
    for name in ("contrastive", "entropy", "exclusion"):
        if coefficient := getattr(coefficients, name):  # what has no weight needs no gradient
            loss = loss + coefficient * terms[name]
    return {"loss": loss, **terms}


def divergence(soft_logprobs: Tensor, batch: Batch) -> Tensor:
    """Sum over the batch's soft targets of w KL(q || p), in nats; the tokens that a target does not name count as one.

    By the log sum inequality this is at most the divergence of the whole distributions, and equal to it where all
    tokens are named or where p divides the rest as q does.

    Args:
        soft_logprobs: [K], as in `TokenStats`.
    """
    q, log_p = batch.soft_probabilities, soft_logprobs
    named = log_p.new_zeros(len(batch.soft_rests)).index_add(0, batch.soft_numbers, log_p.exp())
    log_rest = (1 - named).clamp(min=SMALLEST_REST).log()
    of_tokens = torch.xlogy(q, q) - q * log_p
    of_rests = torch.xlogy(batch.soft_rests, batch.soft_rests) - batch.soft_rests * log_rest
    return (batch.soft_weights * of_rests.index_add(0, batch.soft_numbers, of_tokens)).sum()


def unlikelihood(stats: TokenStats, batch: Batch) -> Tensor:
    """Sum over the batch's excluded outputs of -r log(1 - p(output)), in nats."""
    sequences = stats.logprobs.new_zeros(len(batch.triples)).index_add(0, batch.target_rows, stats.logprobs)
    # 1 - p is computed without cancellation; an output that is certain has a large, but finite, loss and gradient.
    left = -torch.expm1(sequences[batch.excluded_sequences].clamp(max=-SMALLEST_REST))
    return -(batch.removed_shares * left.log()).sum()


def contrastive(logprobs: Tensor, batch: Batch, coefficients: Coefficients) -> Tensor:
    """Cross-entropy [R] of each triple's own instruction among its instructions, in log space throughout.

    Args:
        logprobs: [M], of the target tokens.
    """
    sequences = logprobs.new_zeros(len(batch.triples)).index_add(0, batch.target_rows, logprobs)  # [S]
    if coefficients.contrastive_per_token:
        sequences = sequences / torch.bincount(batch.target_rows, minlength=len(sequences))
    triples = len(batch.weights)
    # [R, N], one row per triple, padded with minus infinity: over a single own sequence logsumexp is exactly its value.
    counts = torch.bincount(batch.triples, minlength=triples)
    table = logprobs.new_full((triples, int(counts.max())), float("-inf"))
    order = torch.argsort(batch.triples, stable=True)
    starts = counts.cumsum(0) - counts
    columns = torch.arange(len(order), device=order.device) - starts.repeat_interleave(counts)
    table = table.index_put((batch.triples[order], columns), sequences[order])
    own = sequences[:triples]
    others = own.new_zeros(triples).index_add(0, batch.triples[triples:], sequences[triples:])
    shift = coefficients.contrastive_smoothing * (own - others / (counts - 1).clamp(min=1)) * (counts > 1)
    return torch.logsumexp(table, dim=-1) - own + shift
