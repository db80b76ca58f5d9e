"""Forward passes of causal and encoder-decoder models over a batch whose rows come and go, one new token per row.

A decoder holds the key-value cache of its rows. What is drawn from its logits is left to `transformers_engine`.

Shapes: B rows of the batch, C columns of the cache (one for each token), V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hir_core.sampling import block_cache
from hir_core.sampling.row_attention import reads_used_columns


def _cache_of(output: Any) -> dict[str, Any]:
    """The cache of a forward pass, under the argument name of the next one: transformers 5.24 renamed it."""
    name = "cache" if "cache" in output else "past_key_values"
    return {name: output[name]}


@dataclass
class ReadPrompts:
    """Prompts that a model has read, with which rows begin; P of them."""

    logits: Tensor
    """[P, V], of the first token."""
    lengths: Tensor
    """[P], tokens that are in the decoder's cache."""
    cache: dict[str, Any]
    encoded: Any = None
    """What an encoder has made of them."""
    mask: Tensor | None = None
    """[P, longest prompt], 1 where an encoder's tokens are."""


Beginning = tuple[ReadPrompts, Tensor]
"""Read prompts, and the one of them with which each new row begins."""


class CausalDecoder:
    """A decoder-only model. Every row's last token is in the last column; `lengths` [B] are the tokens of each row.

    Rows can join a batch whose other rows are longer: their prompts are read apart, and their keys and values copied
    in beside the others. This takes a cache in blocks (`takes_more`); with any other one a batch ends before the next.
    """

    def __init__(self, model: Any, pad_id: int, device: torch.device) -> None:
        self.model, self.pad_id, self.device = model, pad_id, device
        self.takes_more = False
        self.columns = 0
        self.lengths = torch.zeros(0, dtype=torch.long, device=device)
        self.cache: dict[str, Any] = {}

    def read(self, prompts: Sequence[Sequence[int]]) -> ReadPrompts:
        """Reads each prompt once."""
        width = max(map(len, prompts))
        ids = torch.tensor([[self.pad_id] * (width - len(p)) + list(p) for p in prompts], device=self.device)
        lengths = torch.tensor([len(p) for p in prompts], device=self.device)
        mask = _mask(lengths, width)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        output = self.model(**inputs, use_cache=True, logits_to_keep=1)
        return ReadPrompts(output.logits[:, -1], lengths, _cache_of(output))

    def enter(self, beginnings: Sequence[Beginning], kept: Tensor, *, is_last_use: bool = True) -> Tensor:
        """Adds rows after the kept ones; returns the logits [rows, V] of their first tokens.

        Args:
            beginnings: one of them unless `takes_more`.
            kept: the rows that stay; none unless `takes_more`.
            is_last_use: whether no more rows begin with the read prompts, so that their cache can be used up.
        """
        self.lengths = torch.cat([self.lengths[kept], *(prompts.lengths[order] for prompts, order in beginnings)])
        self.columns = int(self.lengths.max())
        caches = [(cache, order) for prompts, order in beginnings for cache in prompts.cache.values()]
        if len(kept):
            (mine,) = self.cache.values()
            block_cache.replace_rows(mine, kept, self.columns, caches)
        else:
            self._begin(beginnings[0][0], caches, is_last_use=is_last_use)
        return torch.cat([prompts.logits.index_select(0, order) for prompts, order in beginnings])

    def _begin(self, prompts: ReadPrompts, caches: Sequence[tuple[Any, Tensor]], *, is_last_use: bool) -> None:
        """Makes rows of these caches the batch."""
        (name,), (cache, order), others = prompts.cache, caches[0], caches[1:]
        self.takes_more = block_cache.can_be_in_blocks(cache) and not _has_chunks(self.model)
        if self.takes_more:
            cache = cache if is_last_use else block_cache.with_own_layers(cache)
            block_cache.to_blocks(cache, order, self.columns, others)
        else:
            cache = cache if is_last_use else copy.deepcopy(cache)
            cache.reorder_cache(order)
        self.cache = {name: cache}

    def next(self, tokens: Tensor, unfinished: Tensor) -> Tensor:
        """Logits [B, V] after one more token per row.

        Args:
            unfinished: [B], the rows that have not ended; the others no longer count as growing, so that their
                positions stay within the context of the model.
        """
        positions = self.lengths[:, None]
        self.lengths = self.lengths + unfinished
        self.columns += 1
        with reads_used_columns(self.lengths.tolist()) if self.device.type == "cpu" else nullcontext():
            output = self.model(
                input_ids=tokens[:, None],
                attention_mask=_mask(self.lengths, self.columns),
                position_ids=positions,
                use_cache=True,
                **self.cache,
            )
        self.cache = _cache_of(output)
        return output.logits[:, -1]  # type: ignore[no-any-return]

    def forget(self) -> None:
        """Forgets all but the last token of each row, where all have ended and only keep up with other ranks."""
        self.lengths = torch.ones_like(self.lengths)
        self.columns = 1
        if self.takes_more:
            (cache,) = self.cache.values()
            block_cache.replace_rows(cache, torch.arange(len(self.lengths), device=self.device), self.columns)

    def keep(self, rows: Tensor) -> None:
        """Keeps only these rows of the batch."""
        self.lengths = self.lengths[rows]
        (cache,) = self.cache.values()
        if self.takes_more:
            self.columns = int(self.lengths.max())
            block_cache.replace_rows(cache, rows, self.columns)
        else:
            cache.reorder_cache(rows)


def _mask(lengths: Tensor, columns: int) -> Tensor:
    """1 in the columns that hold a row's tokens, its last `lengths` ones, and 0 before them: [B, columns]."""
    return (torch.arange(columns, 0, -1, device=lengths.device) <= lengths[:, None]).long()


def _has_chunks(model: Any) -> bool:
    """Whether layers attend within chunks counted from a row's first token, which shifting a row would break."""
    return getattr(model.config.get_text_config(), "attention_chunk_size", None) is not None


class EncoderDecoder:
    """An encoder-decoder; the prompts go through the encoder once. All rows of a batch begin together."""

    takes_more = False

    def __init__(self, model: Any, pad_id: int, device: torch.device) -> None:
        self.model, self.pad_id, self.device = model, pad_id, device
        self.columns = 0
        self.is_in_blocks = False
        self.mask: Any = None

    def read(self, prompts: Sequence[Sequence[int]]) -> ReadPrompts:
        """Encodes each prompt once, and reads the token with which every output begins."""
        width = max(map(len, prompts))
        ids = torch.tensor([list(p) + [self.pad_id] * (width - len(p)) for p in prompts], device=self.device)
        mask = torch.tensor([[1] * len(p) + [0] * (width - len(p)) for p in prompts], device=self.device)
        encoded = self.model.get_encoder()(input_ids=ids, attention_mask=mask)
        start = torch.full((len(prompts), 1), self.model.config.decoder_start_token_id, device=self.device)
        output = self.model(encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=start, use_cache=True)
        return ReadPrompts(output.logits[:, -1], torch.ones_like(start[:, 0]), _cache_of(output), encoded, mask)

    def enter(self, beginnings: Sequence[Beginning], kept: Tensor, *, is_last_use: bool = True) -> Tensor:
        """Makes the samples of read prompts the rows of the batch; returns the logits [B, V] of their first tokens.

        Args:
            beginnings: one.
            kept: the rows that stay, which are none.
            is_last_use: whether no more rows begin with the read prompts.
        """
        if len(kept) or len(beginnings) > 1:
            raise ValueError("the rows of an encoder-decoder enter together, when all others have left")
        ((prompts, order),) = beginnings
        self.cache = prompts.cache if is_last_use else copy.deepcopy(prompts.cache)
        self.encoded, self.mask, self.columns = copy.copy(prompts.encoded), prompts.mask, 1
        (cache,) = self.cache.values()
        self.is_in_blocks = block_cache.can_be_in_blocks(cache.self_attention_cache)
        if self.is_in_blocks:
            block_cache.to_blocks(cache.self_attention_cache, order, self.columns)
        else:
            cache.self_attention_cache.reorder_cache(order)
        self._select_encoded(order)
        return prompts.logits.index_select(0, order)

    def next(self, tokens: Tensor, _unfinished: Tensor) -> Tensor:
        """Logits [B, V] after one more token per row."""
        self.columns += 1
        output = self.model(
            encoder_outputs=self.encoded,
            attention_mask=self.mask,
            decoder_input_ids=tokens[:, None],
            use_cache=True,
            **self.cache,
        )
        self.cache = _cache_of(output)
        return output.logits[:, -1]  # type: ignore[no-any-return]

    def forget(self) -> None:
        """Forgets all but the last token of each row, where all have ended and only keep up with other ranks."""
        self.columns = 1
        if self.is_in_blocks:
            (cache,) = self.cache.values()
            every = torch.arange(len(self.mask), device=self.device)
            block_cache.replace_rows(cache.self_attention_cache, every, self.columns)

    def keep(self, rows: Tensor) -> None:
        """Keeps only these rows of the batch."""
        (cache,) = self.cache.values()
        if self.is_in_blocks:
            block_cache.replace_rows(cache.self_attention_cache, rows, self.columns)
        else:
            cache.self_attention_cache.reorder_cache(rows)
        self._select_encoded(rows)

    def _select_encoded(self, rows: Tensor) -> None:
        """Keeps these rows of the encoded prompts; a row that is named more than once is repeated."""
        (cache,) = self.cache.values()
        cache.cross_attention_cache.reorder_cache(rows)
        self.mask = self.mask[rows]
        self.encoded.last_hidden_state = self.encoded.last_hidden_state[rows]
