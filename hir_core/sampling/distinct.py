"""Sampling without replacement: the outputs of a prompt that were drawn before, and what of each token leads to others.

The first output of a prompt is drawn from the model's distribution p, the next one from p given that it is not the
first one, and so on: an output has a probability of p(o) / (1 - sum of p over the outputs before it). Token by token,
with R(s) the probability that an output which begins with s ends as one of those drawn before,

    q(v | s) is proportional to p(v | s) (1 - R(s v))

R follows from the log-probabilities with which they were drawn, so the rows are no more than those of independent
draws, but come one after another (Shi, Bieber and Sutton 2020, arXiv 2002.09067; for beams Kool et al. 2019, arXiv
1903.06059). What such outputs say of p is left to `relabelers.shares`; the draw itself to `draw`.

Shapes: B rows of the batch, J most outputs before a row's own, L most tokens of an output, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hir_core.sampling.completions import Output


class DrawnBefore:
    """The outputs of its prompt that were drawn before each row.

    `tokens` [B, J, L]; `rest` [B, J, L + 1], the log-probability of an output's tokens from each one on, 0 after them;
    `is_prefix` [B, J], whether a row's tokens are so far the beginning of the output; false where there is no output.
    """

    def __init__(self, tokens: Tensor, rest: Tensor, is_prefix: Tensor) -> None:
        self.tokens, self.rest, self.is_prefix = tokens, rest, is_prefix

    @classmethod
    def of(cls, outputs: Sequence[Sequence[Output]], most_tokens: int, device: torch.device) -> DrawnBefore:
        """Of rows that begin, by the outputs before each of them."""
        most = max(map(len, outputs))
        tokens = np.zeros((len(outputs), most, most_tokens), dtype=np.int64)
        rest = np.zeros((len(outputs), most, most_tokens + 1))
        for row, before in enumerate(outputs):
            for n, output in enumerate(before):
                length = len(output.token_ids)
                tokens[row, n, :length] = output.token_ids
                rest[row, n, :length] = np.cumsum(output.logprobs[::-1])[::-1]
        is_prefix = np.arange(most) < np.array([[len(before)] for before in outputs])
        return cls(*(torch.tensor(values, device=device) for values in (tokens, rest, is_prefix)))

    def left(self, places: Tensor, vocabulary: int) -> Tensor | None:
        """The share of each token's probability that leads to outputs that were not drawn before, [B, V]; None where no
        row has any before it.

        Args:
            places: [B], the number of each row's next token.
        """
        if not self.is_prefix.shape[1]:
            return None
        next_tokens, rests = self._at(self.tokens, places), self._at(self.rest, places + 1)
        taken = rests.exp() * self.is_prefix
        left = torch.ones(len(places), vocabulary, dtype=torch.float64, device=places.device)
        return left.scatter_add_(1, next_tokens, -taken).clamp_(min=0)

    def follow(self, places: Tensor, drawn: Tensor) -> None:
        """Takes note of the tokens [B] that the rows have drawn as those of these numbers."""
        self.is_prefix = self.is_prefix & (self._at(self.tokens, places) == drawn[:, None])

    def keep(self, rows: Tensor) -> DrawnBefore:
        """Of these rows only."""
        return DrawnBefore(self.tokens[rows], self.rest[rows], self.is_prefix[rows])

    def join(self, others: DrawnBefore) -> DrawnBefore:
        """Of these rows, and of the others after them."""
        most = max(self.is_prefix.shape[1], others.is_prefix.shape[1])
        pairs = zip(self._padded(most), others._padded(most), strict=True)
        return DrawnBefore(*(torch.cat(pair) for pair in pairs))

    def _padded(self, most: int) -> tuple[Tensor, Tensor, Tensor]:
        lack = most - self.is_prefix.shape[1]
        tokens, rest = (torch.nn.functional.pad(values, (0, 0, 0, lack)) for values in (self.tokens, self.rest))
        return tokens, rest, torch.nn.functional.pad(self.is_prefix, (0, lack))

    @staticmethod
    def _at(values: Tensor, places: Tensor) -> Tensor:
        """Of [B, J, L], each row's values at its place: [B, J]."""
        return values.gather(2, places[:, None, None].expand(-1, values.shape[1], 1))[:, :, 0]
