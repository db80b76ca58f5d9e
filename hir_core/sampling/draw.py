"""How tokens are drawn from logits: `Limits`, the settings of a step's draws, and `draw`, one token for each row.

What a row's random numbers are, and when its output has ended, is left to `transformers_engine`.

Shapes: B rows of the batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FEW = 1024
"""Tokens that are sorted at first on a CPU."""
LEAST_LEFT = 1e-9
"""Share of the probability below which what may be drawn is nothing but rounding."""
HasStopped = Callable[[Sequence[int]], bool]
"""Whether an output of these tokens ends with its last one, because a stop text is complete."""


@dataclass(frozen=True)
class Limits:
    """How tokens are drawn, and when an output ends."""

    temperature: float
    """0 is greedy decoding."""
    max_new_tokens: int
    end_ids: tuple[int, ...]
    """Every token that ends an output."""
    pad_id: int
    top_p: float | None = None
    """Share of the probability that the likeliest tokens must reach together; None: all tokens."""
    top_k: int | None = None
    """How many of the likeliest tokens; None: all tokens."""
    min_p: float | None = None
    """Least probability of a token, as a share of the likeliest one's; None: all tokens."""
    has_stopped: HasStopped | None = None
    """None: no text ends an output."""

    @property
    def leaves_tokens_out(self) -> bool:
        """Whether some tokens are never drawn, though they have a probability."""
        return (self.top_p, self.top_k, self.min_p) != (None, None, None)


def draw(logits: Tensor, uniforms: Tensor, limits: Limits, left: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token per row, and its log-probability in the model's own distribution at temperature 1, both [B].

    The log-probability is that of the whole distribution, whatever temperature and whichever tokens are drawn from: it
    is what training computes for the same token. It is NaN where nothing can be drawn, because logits are NaN or
    infinite. Minus infinity rules a token out.

    A token is drawn by inverting the row's cumulative distribution at its uniform number, in double precision:
    this takes one random number per token, and tiny differences in logits almost never change the token.

    Args:
        logits: [B, V]
        uniforms: [B], in [0, 1).
        left: [B, V], the share of each token's probability that may be drawn; None: all of it. Where next to nothing
            may be drawn, it does not count.
    """
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    if limits.temperature == 0:
        tokens = logits.argmax(-1)
        basis = logits.gather(-1, tokens[:, None])[:, 0]
    else:
        scaled = logits.double() if limits.temperature == 1 else logits.double() / limits.temperature
        probabilities = torch.softmax(scaled, dim=-1)
        if limits.leaves_tokens_out:
            least = least_drawn(probabilities, limits)
            probabilities = probabilities.masked_fill_(probabilities < least[:, None], 0.0)
        if left is not None:
            whole, probabilities = probabilities, probabilities * left
            has_some = probabilities.sum(-1) > LEAST_LEFT * whole.sum(-1)
            probabilities = torch.where(has_some[:, None], probabilities, whole)
        cumulative = probabilities.cumsum(-1)
        basis = cumulative[:, -1]
        points = uniforms.double() * basis
        tokens = torch.searchsorted(cumulative, points[:, None], right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    drawn = logprobs.gather(-1, tokens[:, None])[:, 0]
    return tokens, drawn.masked_fill(~basis.isfinite(), torch.nan)


def least_drawn(probabilities: Tensor, limits: Limits) -> Tensor:
    """The least probability of a token that may be drawn, [B]; tokens that are as likely as it may be drawn too.

    First the `top_k` likeliest tokens are taken, of these the fewest likeliest ones that together have `top_p` of
    their probability (Holtzman et al. 2020, arXiv 1904.09751), and of these the ones that have at least `min_p` of the
    probability of the likeliest (Nguyen et al. 2025, arXiv 2407.01082).

    Args:
        probabilities: [B, V], at the temperature of the draw.
    """
    if limits.top_k is not None:
        ordered = probabilities.topk(min(limits.top_k, probabilities.shape[-1]), dim=-1).values
        least, whole = ordered[:, -1], ordered.sum(-1, keepdim=True)
    else:
        ordered = _likeliest(probabilities, limits.top_p or 0.0)
        least, whole = torch.zeros_like(ordered[:, 0]), torch.ones_like(ordered[:, :1])
    if limits.top_p is not None:
        before = (ordered.cumsum(-1) < limits.top_p * whole).sum(-1, keepdim=True)
        least = torch.maximum(least, ordered.gather(-1, before.clamp(max=ordered.shape[-1] - 1))[:, 0])
    if limits.min_p is not None:
        least = torch.maximum(least, limits.min_p * ordered[:, 0])
    return least


def _likeliest(probabilities: Tensor, share: float) -> Tensor:
    """The probabilities of the likeliest tokens, by falling probability: at least one, and of each row this share.

    Sorting a large vocabulary takes a CPU longer than anything else here, so a few tokens are tried first. On a GPU it
    is the look at whether they suffice that takes long.
    """
    if not share:
        return probabilities.amax(-1, keepdim=True)
    if probabilities.device.type == "cpu" and probabilities.shape[-1] > FEW:
        few = probabilities.topk(FEW, dim=-1).values
        if bool((few.cumsum(-1)[:, -1] >= share).all()):
            return few
    return probabilities.sort(dim=-1, descending=True).values
