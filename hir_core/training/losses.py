"""The loss of hindsight relabeling, computed from one forward pass per sequence.

L = L_supervised + alpha * L_contrastive + beta * L_entropy (Zhang et al. 2023, arXiv 2302.05206, section 3), each
term a sum divided by the totals of the whole optimizer step, so that micro-batch size, accumulation and world size
leave it unchanged. Holds no data and writes nothing; `TripleLoss` is the module that the engine trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hir_core.errors import ConfigError
from hir_core.training.batches import Batch, Totals


@dataclass(frozen=True)
class TokenStats:
    """What the loss needs to know of each target token's distribution; three vectors of N target tokens, in nats.

    `logprobs`: of the target; `mean_logprobs`: averaged over the V tokens of the vocabulary; `entropies`.
    """

    logprobs: Tensor
    mean_logprobs: Tensor
    entropies: Tensor


@dataclass(frozen=True)
class Coefficients:
    """Weights of the terms: the paper's alpha (`contrastive`), beta (`entropy`) and its label smoothing.

    `contrastive_smoothing` is the share of the contrast's target that the other instructions have, all alike;
    `contrastive_per_token` contrasts mean instead of summed log-probabilities. Both as in the published code, which
    has 0.2 and means; the paper's formula has neither.
    """

    label_smoothing: float
    contrastive: float
    entropy: float
    contrastive_smoothing: float = 0.0
    contrastive_per_token: bool = False


def token_stats(logits: Tensor, target_ids: Tensor) -> TokenStats:
    """Statistics of `logits` [N, V] at `target_ids` [N], in fp32 or better."""
    logprobs = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    entropies = -(logprobs.exp() * logprobs).sum(-1)
    return TokenStats(logprobs.gather(-1, target_ids[:, None])[:, 0], logprobs.mean(-1), entropies)


def loss_terms(stats: TokenStats, batch: Batch, totals: Totals, coefficients: Coefficients) -> dict[str, Tensor]:
    """This micro-batch's share of the step's `supervised`, `contrastive`, `entropy` and weighted `loss`.

    supervised  = sum over target tokens of (1 - eps) * -log p(target) + eps * -mean_v log p(v), divided by tokens
    contrastive = sum over triples of logsumexp_k P_k - (1 - s) P_own - s mean_{k not own} P_k, where
                  P_k = log P(output | query_k, instruction_k), divided by triples; exactly 0 without contrast
    entropy     = sum over target tokens of the distribution's negative entropy, divided by tokens
    """
    triples = len(batch.weights)
    own = batch.target_rows < triples
    weights = batch.weights[batch.triples[batch.target_rows[own]]]
    eps = coefficients.label_smoothing
    smoothed = -(1 - eps) * stats.logprobs[own] - eps * stats.mean_logprobs[own]
    terms = {
        "supervised": (weights * smoothed).sum() / totals.tokens,
        "contrastive": (batch.weights * contrastive(stats.logprobs, batch, coefficients)).sum() / totals.triples,
        "entropy": -(weights * stats.entropies[own]).sum() / totals.tokens,
    }
    weighted = coefficients.contrastive * terms["contrastive"] + coefficients.entropy * terms["entropy"]
    return {"loss": terms["supervised"] + weighted, **terms}


def contrastive(logprobs: Tensor, batch: Batch, coefficients: Coefficients) -> Tensor:
    """Cross-entropy of each triple's own instruction among its instructions, [R]; in log space throughout."""
    sequences = logprobs.new_zeros(len(batch.triples)).index_add(0, batch.target_rows, logprobs)
    if coefficients.contrastive_per_token:
        sequences = sequences / torch.bincount(batch.target_rows, minlength=len(sequences))
    triples = len(batch.weights)
    # One row per triple, padded with minus infinity: over a single own sequence logsumexp is exactly its own value.
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


class TripleLoss(nn.Module):
    """Wraps a causal or encoder-decoder model so that its logits exist at target positions only, a chunk at a time.

    The hidden states that would enter the model's output head are caught there, cut to the target positions, and put
    through the head in chunks that are recomputed in the backward pass; memory does not grow with vocabulary times
    sequence. The model's own forward still passes one position through the head: its logits must equal ours, so a
    model that does more after its head than we know of is refused instead of trained wrongly.
    """

    def __init__(self, model: Any, coefficients: Coefficients, logits_chunk: int) -> None:
        super().__init__()
        self.model = model
        self.coefficients = coefficients
        self.logits_chunk = logits_chunk

    def forward(self, batch: Batch, totals: Totals, scale: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss times `scale`, to go backward from, and its unscaled terms, detached."""
        terms = loss_terms(self.target_stats(batch), batch, totals, self.coefficients)
        return terms["loss"] * scale, {name: term.detach() for name, term in terms.items()}

    def target_stats(self, batch: Batch) -> TokenStats:
        """Statistics of every target token of the batch."""
        hidden, expected = self._hidden(batch)
        *stats, first_logits = self._through_head(hidden, batch.target_ids)
        self._check_head(first_logits, expected)
        return TokenStats(*stats)

    def _through_head(self, hidden: Tensor, target_ids: Tensor) -> tuple[Tensor, ...]:
        """The three statistics [N] of hidden states [N, H], and the logits [V] of the first.

        One call of the head, however many chunks: ZeRO-3 gathers a module's weights, in forward and backward, with a
        collective per call, and ranks with different numbers of targets would wait for each other for ever.
        """
        head = self.model.get_output_embeddings()
        multiply = head.forward

        def stats(hidden: Tensor, target_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            found = token_stats(self._logits(multiply(hidden)), target_ids)
            return found.logprobs, found.mean_logprobs, found.entropies

        def in_chunks(hidden: Tensor) -> tuple[Tensor, ...]:
            spans = [slice(start, start + self.logits_chunk) for start in range(0, len(hidden), self.logits_chunk)]
            chunks = [checkpoint(stats, hidden[span], target_ids[span], use_reentrant=False) for span in spans]
            with torch.no_grad():
                first_logits = self._logits(multiply(hidden[:1]))[0]
            return *(torch.cat(column) for column in zip(*chunks, strict=True)), first_logits

        head.forward = in_chunks
        try:
            return head(hidden)  # type: ignore[no-any-return]
        finally:
            head.forward = multiply

    def _logits(self, logits: Tensor) -> Tensor:
        """What the model makes of its head's output."""
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        scale = getattr(self.model.config, "logit_scale", None)
        logits = logits if scale is None else logits * scale
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Hidden states [N, H] that enter the head at target positions, and the model's own logits [V] of the first."""
        caught: list[Tensor] = []

        def cut(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            caught.append(args[0][batch.target_mask])
            return (caught[0][:1].detach()[None],)

        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
        if batch.decoder_input_ids is not None:
            inputs["decoder_input_ids"] = batch.decoder_input_ids
        handle = self.model.get_output_embeddings().register_forward_pre_hook(cut, prepend=True)
        try:
            logits = self.model(**inputs).logits
        finally:
            handle.remove()
        first_logits: Tensor = logits.detach()[0, 0]
        return caught[0], first_logits

    def _check_head(self, found: Tensor, expected: Tensor) -> None:
        if not torch.allclose(found.float(), expected.float(), rtol=1e-2, atol=1e-2, equal_nan=True):
            kind = type(self.model).__name__
            raise ConfigError(f"{kind} changes its logits after the output head in a way that hir does not know")
