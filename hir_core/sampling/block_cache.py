"""Key-value caches with room for the next tokens: the cache of a prefill, its layers exchanged for ones in blocks.

The layers of `transformers` are copied whole for every token. These are allocated `BLOCK` columns at a time, and
attention reads a view of the used columns. Only layers of full and of sliding attention can be exchanged; others, such
as those of state-space models, keep what `transformers` gives them (`can_be_in_blocks`).

Shapes: B rows of the batch, H heads, C columns (one for each token), D head size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

Rows = tuple[DynamicLayer, Tensor]
"""Rows of a layer, by their indices."""
BLOCK = 64
"""Columns that are allocated at a time: each time all others are copied."""


class BlockLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """Keys and values of one layer; `keys` and `values` [B, H, C, D] are views of the used columns of its buffers."""

    def __init__(self, prefilled: DynamicLayer) -> None:
        super().__init__()
        self.buffers: list[Tensor] = [prefilled.keys, prefilled.values]
        self.is_initialized, self.device = True, prefilled.keys.device
        self._use(prefilled.keys.shape[-2])

    def _use(self, columns: int) -> None:
        self.keys, self.values = (buffer[:, :, :columns] for buffer in self.buffers)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Writes the states of new tokens into the next columns; returns all keys and values."""
        used, new = self.keys.shape[-2], key_states.shape[-2]
        if used + new > self.buffers[0].shape[-2]:
            every = torch.arange(len(key_states), device=key_states.device)
            self.replace_rows(every, used, room=max(BLOCK, new))
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, used : used + new] = states
        self._use(used + new)
        return self.keys, self.values

    def replace_rows(self, kept: Tensor, columns: int, entering: Sequence[Rows] = (), room: int = BLOCK) -> None:
        """Keeps these rows, in this order, and puts the entering ones after them.

        Args:
            columns: the used columns afterwards. Every row stays aligned at its last token: too few columns cut off
                its first ones, and more are left empty before them.
            entering: rows of other layers.
            room: free columns afterwards.
        """
        keys = [(self.keys, kept), *((layer.keys, rows) for layer, rows in entering)]
        values = [(self.values, kept), *((layer.values, rows) for layer, rows in entering)]
        # One after the other, and the old one let go, so that only one is held twice.
        del self.keys, self.values
        for n, sources in enumerate((keys, values)):
            self.buffers[n] = _right_aligned(sources, columns, room)
            sources.clear()
        self._use(columns)


class SlidingBlockLayer(BlockLayer):
    """A layer whose tokens attend to the last `sliding_window` tokens only."""

    is_sliding = True

    def __init__(self, prefilled: DynamicSlidingWindowLayer) -> None:
        super().__init__(prefilled)
        self.sliding_window = prefilled.sliding_window

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Writes the states of new tokens into the next columns; returns the keys and values that they can see."""
        keys, values = super().update(key_states, value_states)
        visible = self.sliding_window - 1 + key_states.shape[-2]
        return keys[:, :, -visible:], values[:, :, -visible:]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many columns the next `query_length` tokens can see, and the first of them."""
        first = max(self.get_seq_length() - self.sliding_window + 1, 0)
        return self.get_seq_length() + query_length - first, first


def _right_aligned(sources: Sequence[tuple[Tensor, Tensor]], columns: int, room: int) -> Tensor:
    """The chosen rows of each [B, H, C, D], below each other, the last used column of each in column `columns` - 1."""
    states = sources[0][0]
    rows = sum(len(chosen) for _, chosen in sources)
    result = states.new_empty(rows, states.shape[1], columns + room, states.shape[3])
    start = 0
    for states, chosen in sources:
        width = min(columns, states.shape[2])
        last = states[:, :, states.shape[2] - width :].index_select(0, chosen)
        destination = result[start : start + len(chosen)]
        # Nothing attends to the columns before a row's first token, but a NaN there would spread all the same.
        destination[:, :, : columns - width] = 0
        destination[:, :, columns - width : columns] = last
        start += len(chosen)
    return result


_IN_BLOCKS = {DynamicLayer: BlockLayer, DynamicSlidingWindowLayer: SlidingBlockLayer}


def can_be_in_blocks(cache: Cache) -> bool:
    """Whether every layer is one of full or sliding attention, and is filled."""
    return all(type(layer) in _IN_BLOCKS and layer.is_initialized for layer in cache.layers)


def to_blocks(cache: Cache, order: Tensor, columns: int, others: Sequence[tuple[Cache, Tensor]] = ()) -> None:
    """Exchanges the layers of a prefill's cache; its rows become those in `order`, which may repeat them, and after
    them rows of the other prefills' caches."""
    for n, layer in enumerate(cache.layers):
        cache.layers[n] = _IN_BLOCKS[type(layer)](layer)
        cache.layers[n].replace_rows(order, columns, [(other.layers[n], rows) for other, rows in others])


def replace_rows(cache: Cache, kept: Tensor, columns: int, entering: Sequence[tuple[Cache, Tensor]] = ()) -> None:
    """Keeps these rows of a cache in blocks, and adds rows of prefills' caches; see `BlockLayer`."""
    for n, layer in enumerate(cache.layers):
        layer.replace_rows(kept, columns, [(other.layers[n], rows) for other, rows in entering])


def with_own_layers(cache: Cache) -> Cache:
    """The same layers in a list of its own, so that exchanging them leaves the cache as it is."""
    copied = copy.copy(cache)
    copied.layers = list(cache.layers)
    return copied
