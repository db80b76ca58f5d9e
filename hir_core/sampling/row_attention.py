"""The attention of one new token per row on a CPU, which reads for each group of rows only the columns that it has.

The rows of a batch are aligned at their last token, so the first columns of a row that is shorter than the longest are
empty. The attention of torch reads them all the same, and takes several times as long in bf16. Here rows of similar
length are computed together. Scores are in 32 bits or more. Whatever else a model adds to its scores is left to the
standard attention, and so is every GPU, on which this was not measured.

Shapes: B rows of the batch, H heads, G groups of them with the same keys, C columns of the cache, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

TOGETHER = 16
"""Rows that are computed at once."""
REPLACED = "sdpa"
"""The implementation of attention in whose place it is used."""
_NOT_COMPUTED = ("position_bias", "softcap", "s_aux")
"""What some models add to their scores."""


@contextmanager
def reads_used_columns(lengths: Sequence[int]) -> Iterator[None]:
    """A context in which models attend so, from the one new token of each row.

    Args:
        lengths: of the rows [B], with the new token. Fast where neighbours have similar lengths.
    """
    standard = ALL_ATTENTION_FUNCTIONS[REPLACED]
    ALL_ATTENTION_FUNCTIONS[REPLACED] = _attention(standard, lengths)
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS[REPLACED] = standard


def _attention(standard: Callable[..., Any], lengths: Sequence[int]) -> Callable[..., Any]:
    """An attention function of transformers, which leaves to the standard one what it does not compute."""
    starts = range(0, len(lengths), TOGETHER)
    groups = [(slice(start, start + TOGETHER), max(lengths[start : start + TOGETHER])) for start in starts]

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        is_one_token = len(query) == len(lengths) and query.shape[2] == 1
        is_plain = all(options.get(name) is None for name in _NOT_COMPUTED)
        if not (is_one_token and is_plain and (attention_mask is None or attention_mask.dtype == torch.bool)):
            return standard(module, query, key, value, attention_mask, **options)  # type: ignore[no-any-return]
        scaling = options.get("scaling") or query.shape[-1] ** -0.5
        exact = torch.promote_types(query.dtype, torch.float32)
        queries = query.reshape(len(query), key.shape[1], -1, query.shape[-1]).to(exact) * scaling  # [B, H / G, G, D]
        outputs = []
        for rows, columns in groups:
            used = None if attention_mask is None else attention_mask[rows, :, :, -columns:]
            outputs.append(attend_to(queries[rows], key[rows, :, -columns:], value[rows, :, -columns:], used))
        return torch.cat(outputs).flatten(1, 2)[:, None], None  # [B, 1, H, D]

    return attend


def attend_to(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Means of values, weighted by the softmax of scores: [B, H / G, G, D].

    Args:
        queries: [B, H / G, G, D], scaled; scores have their precision.
        keys: [B, H / G, C, D]; `values` likewise.
        mask: [B, 1, 1, C], whether a column is attended to; None: all are.
    """
    scores = queries @ keys.to(queries.dtype).transpose(-1, -2)
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    return scores.softmax(-1).to(values.dtype) @ values
