"""The attention mask of packed rows, in the form that each implementation of attention takes.

All forms say the same: token n of a row attends to itself and to each m < n with n < attended_until[m]. Which rows
there are is decided in `packing`. Shapes: B rows, T tokens of the longest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Tokens on each side of the blocks that flex_attention computes or skips."""


def attention_mask(attended_until: Tensor, implementation: str, dtype: torch.dtype) -> Tensor | BlockMask | None:
    """The mask that an implementation takes; None: it sees from positions that start anew where a sequence begins.

    Args:
        attended_until: [B, T], as in `Batch`.
        implementation: its name in `transformers`.
        dtype: of the model.
    """
    if implementation == "flash_attention_2":
        return None
    return block_mask(attended_until) if implementation == "flex_attention" else added_mask(attended_until, dtype)


def added_mask(attended_until: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask [B, 1, T, T] that is added to attention scores: 0 where a token attends, else the lowest number."""
    columns = torch.arange(attended_until.shape[1], device=attended_until.device)
    attends = (columns[None, :] <= columns[:, None]) & (columns[:, None] < attended_until[:, None, :])
    attends |= columns[None, :] == columns[:, None]  # padding, whose softmax must be finite
    lowest = torch.finfo(dtype).min
    return torch.zeros(attends.shape, dtype=dtype, device=columns.device).masked_fill(~attends, lowest)[:, None]


def block_mask(attended_until: Tensor) -> BlockMask:
    """The mask as flex_attention takes it: the blocks that are computed, and what a token attends to within them.

    Made from the blocks' bounds, so that it takes (T / BLOCK)^2 numbers, and nothing is compiled for it.
    """
    tokens = attended_until.shape[1]
    until = nn.functional.pad(attended_until, (0, -tokens % BLOCK))  # tokens after a row's end are attended by none

    def attends(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & ((query < until[row, key]) | (key == query))

    of_blocks = until.view(len(until), -1, BLOCK)
    numbers = torch.arange(of_blocks.shape[1], device=until.device)
    first = numbers[:, None] * BLOCK  # query of a block
    is_before = numbers[None, :] < numbers[:, None]
    is_computed = is_before & (of_blocks.amax(-1)[:, None] > first)
    is_whole = is_before & (of_blocks.amin(-1)[:, None] >= first + BLOCK)  # all its queries attend to all its keys
    is_partial = (is_computed & ~is_whole) | (numbers[None, :] == numbers[:, None])
    return BlockMask.from_kv_blocks(
        *_counted(is_partial), *_counted(is_whole), BLOCK_SIZE=BLOCK, mask_mod=attends, seq_lengths=(tokens, tokens)
    )


def _counted(is_chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Of each block of queries: how many blocks of keys are chosen [B, 1, Q], and all blocks, those first [B, 1, Q, K].

    Args:
        is_chosen: [B, Q, K].
    """
    chosen = is_chosen[:, None].int()
    return chosen.sum(-1, dtype=torch.int32), chosen.argsort(dim=-1, descending=True, stable=True).int()
