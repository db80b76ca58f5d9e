"""Forward passes of causal and encoder-decoder models over a batch whose rows come and go, one new token per row.

A decoder holds the key-value cache of its rows. What is drawn from its logits is left to `transformers_engine`.

Shapes: B rows of the batch, C columns of the cache (one for each token), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hir_core.sampling import block_cache


def _cache_of(output: Any) -> dict[str, Any]:
    """The cache of a forward pass, under the argument name of the next one: transformers 5.24 renamed it."""
    name = "cache" if "cache" in output else "past_key_values"
    return {name: output[name]}


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

    def enter(self, prompts: Sequence[Sequence[int]], repeats: Tensor, kept: Tensor) -> Tensor:
        """Reads each prompt once and adds its samples as rows after the kept ones; returns their logits [rows, V].

        Args:
            repeats: samples of each prompt.
            kept: the rows that stay; none unless `takes_more`.
        """
        width = max(map(len, prompts))
        ids = torch.tensor([[self.pad_id] * (width - len(p)) + list(p) for p in prompts], device=self.device)
        lengths = torch.tensor([len(p) for p in prompts], device=self.device)
        mask = _mask(lengths, width)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        output = self.model(**inputs, use_cache=True, logits_to_keep=1)
        order = torch.arange(len(prompts), device=self.device).repeat_interleave(repeats)
        self._add(_cache_of(output), lengths, order, kept)
        return output.logits[:, -1].index_select(0, order)  # type: ignore[no-any-return]

    def _add(self, entering: dict[str, Any], lengths: Tensor, order: Tensor, kept: Tensor) -> None:
        self.lengths = torch.cat([self.lengths[kept], lengths[order]])
        self.columns = int(self.lengths.max())
        (cache,) = entering.values()
        if len(kept):
            (mine,) = self.cache.values()
            block_cache.replace_rows(mine, kept, self.columns, (cache, order))
            return
        self.cache = entering
        self.takes_more = block_cache.can_be_in_blocks(cache) and not _has_chunks(self.model)
        if self.takes_more:
            block_cache.to_blocks(cache, order, self.columns)
        else:
            cache.reorder_cache(order)

    def next(self, tokens: Tensor, unfinished: Tensor) -> Tensor:
        """Logits [B, V] after one more token per row.

        Args:
            unfinished: [B], the rows that have not ended; the others no longer count as growing, so that their
                positions stay within the context of the model.
        """
        positions = self.lengths[:, None]
        self.lengths = self.lengths + unfinished
        self.columns += 1
        output = self.model(
            input_ids=tokens[:, None],
            attention_mask=_mask(self.lengths, self.columns),
            position_ids=positions,
            use_cache=True,
            **self.cache,
        )
        self.cache = _cache_of(output)
        return output.logits[:, -1]  # type: ignore[no-any-return]

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

    def enter(self, prompts: Sequence[Sequence[int]], repeats: Tensor, kept: Tensor) -> Tensor:
        """Encodes each prompt once and makes its samples the rows of the batch; returns their logits [B, V].

        Args:
            repeats: samples of each prompt.
            kept: the rows that stay, which are none.
        """
        if len(kept):
            raise ValueError("the rows of an encoder-decoder enter together, when all others have left")
        width = max(map(len, prompts))
        ids = torch.tensor([list(p) + [self.pad_id] * (width - len(p)) for p in prompts], device=self.device)
        self.mask = torch.tensor([[1] * len(p) + [0] * (width - len(p)) for p in prompts], device=self.device)
        self.encoded = self.model.get_encoder()(input_ids=ids, attention_mask=self.mask)
        self.cache: dict[str, Any] = {}
        self.columns = 0
        start = torch.full((len(prompts),), self.model.config.decoder_start_token_id, device=self.device)
        logits = self.next(start, torch.ones_like(start))
        order = torch.arange(len(prompts), device=self.device).repeat_interleave(repeats)
        (cache,) = self.cache.values()
        self.is_in_blocks = block_cache.can_be_in_blocks(cache.self_attention_cache)
        if self.is_in_blocks:
            block_cache.to_blocks(cache.self_attention_cache, order, self.columns)
        else:
            cache.self_attention_cache.reorder_cache(order)
        self._select_encoded(order)
        return logits.index_select(0, order)

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
