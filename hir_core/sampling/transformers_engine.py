"""Draws completions from a `transformers` model, causal or encoder-decoder, under any ZeRO stage.

Batches are cut by a token budget from prompts sorted by length; the k samples of a prompt share one prefill; rows that
have ended leave the batch. Random numbers belong to the row, so neither the batch nor the world size that a row falls
into changes what is drawn. Reads prompt ids, returns token ids with log-probabilities; leaves tables to the job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hir_core.modeling import data_parallel

COMPACT_BELOW = 0.5
"""Ended rows are dropped from the batch once fewer than this share of it is still being written."""


@dataclass(frozen=True)
class Request:
    """One prompt to continue, and the seed of each of its samples."""

    key: str
    prompt_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    against_ids: tuple[int, ...] = ()
    """The same query under the instruction that guidance pushes away from; read only where there is guidance."""


@dataclass(frozen=True)
class Completion:
    """One sample: its tokens, the end-of-sequence token included where one was drawn, and their log-probabilities."""

    key: str
    k: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool


@dataclass(frozen=True)
class Limits:
    """What ends and what shapes an output: temperature 0 is greedy; `end_ids` are every token that ends one.

    `guidance` w draws from log p(. | prompt) + w (log p(. | prompt) - log p(. | against)), normalised (Sanchez et al.
    2023, arXiv 2306.17806); 0 is the model's own distribution. Log-probabilities are always the model's own.
    """

    temperature: float
    max_new_tokens: int
    end_ids: tuple[int, ...]
    pad_id: int
    guidance: float = 0.0


def row_seed(*parts: object) -> int:
    """A 64-bit seed from what names a row, the same on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big")


def batches(requests: Sequence[Request], max_new_tokens: int, batch_tokens: int) -> list[list[Request]]:
    """Requests by falling length, cut so that rows times their longest sequence stay within the token budget."""
    return data_parallel.batches(
        sorted(requests, key=lambda request: request.key),
        lambda request: len(request.prompt_ids) + max_new_tokens,
        batch_tokens,
        lambda request: len(request.seeds),
    )


def complete(
    model: Any,
    requests: Sequence[Request],
    limits: Limits,
    device: torch.device,
    anyone: Callable[[bool], bool] | None = None,
) -> list[Completion]:
    """Completes one batch of prompts.

    Args:
        anyone: given where ranks share streamed weights and must therefore make the same number of forward passes:
            tells whether any rank still writes, given whether this one does. All ranks call `complete` together then.
    """
    decoding = _Decoding(model, requests, limits, device)
    goes_on = anyone or bool
    while goes_on(decoding.is_writing):
        decoding.draw()
        if decoding.step < limits.max_new_tokens and (anyone or decoding.is_writing):
            decoding.forward()
    return list(decoding.completions())


class _Decoding:
    """The state of one batch while it is written: caches, masks, and which row is whose.

    B rows are in the batch; `rows` [B] says which completion each of them writes.
    """

    def __init__(self, model: Any, requests: Sequence[Request], limits: Limits, device: torch.device) -> None:
        self.requests, self.limits, self.device = requests, limits, device
        self.owners = [(n, k) for n, request in enumerate(requests) for k in range(len(request.seeds))]
        uniforms = [_uniforms(requests[n].seeds[k], limits.max_new_tokens) for n, k in self.owners]
        self.uniforms = torch.tensor(np.array(uniforms), device=device)
        self.tokens: list[list[int]] = [[] for _ in self.owners]
        self.logprobs: list[list[float]] = [[] for _ in self.owners]
        self.writing = torch.ones(len(self.owners), dtype=torch.bool, device=device)
        self.rows = torch.arange(len(self.owners), device=device)
        self.ends = torch.tensor(limits.end_ids, device=device)
        self.last = torch.full_like(self.rows, limits.pad_id)
        self.step = 0
        prompts = [[request.prompt_ids for request in requests]]
        if limits.guidance:
            prompts.append([request.against_ids for request in requests])
        repeats = torch.tensor([len(request.seeds) for request in requests], device=device)
        stream = _EncoderDecoderStream if model.config.is_encoder_decoder else _CausalStream
        self.streams = [stream(model) for _ in prompts]
        self.logits = [
            stream.prefill(read, limits.pad_id, device, repeats)
            for stream, read in zip(self.streams, prompts, strict=True)
        ]

    @property
    def is_writing(self) -> bool:
        return self.step < self.limits.max_new_tokens and bool(self.writing.any())

    def draw(self) -> None:
        """Draws one token for every row; those of ended rows are thrown away."""
        self.last, logprobs = draw(self.logits, self.uniforms[self.rows, self.step], self.limits)
        drawn = zip(self.rows.tolist(), self.writing.tolist(), self.last.tolist(), logprobs.tolist(), strict=True)
        for row, is_writing, token, logprob in drawn:
            if is_writing:
                self.tokens[row].append(token)
                self.logprobs[row].append(logprob)
        self.writing &= ~torch.isin(self.last, self.ends)
        self.step += 1

    def forward(self) -> None:
        """Makes the forward pass for the next token, without the rows that have ended once they are many."""
        self._compact()
        self.logits = [stream.next(self.last) for stream in self.streams]

    def _compact(self) -> None:
        kept = torch.nonzero(self.writing)[:, 0]
        if 0 < len(kept) < COMPACT_BELOW * len(self.writing):
            for stream in self.streams:
                stream.select(kept)
            self.rows, self.writing, self.last = self.rows[kept], self.writing[kept], self.last[kept]

    def completions(self) -> Iterator[Completion]:
        for (n, k), tokens, logprobs in zip(self.owners, self.tokens, self.logprobs, strict=True):
            ended = bool(tokens) and tokens[-1] in self.limits.end_ids
            yield Completion(self.requests[n].key, k, tuple(tokens), tuple(logprobs), ended)


def draw(logits: Sequence[Tensor], uniforms: Tensor, limits: Limits) -> tuple[Tensor, Tensor]:
    """One token per row and its log-probability in the model's own distribution at temperature 1, both [B].

    A row's token is where its uniform number falls in its cumulative distribution, in double precision: one random
    number per token, and tiny differences in logits almost never move it to a neighbour.

    Args:
        logits: [B, V] under the prompts and, with guidance, under what it pushes away from.
    """
    logprobs = torch.log_softmax(logits[0].float(), dim=-1)
    scores = logits[0]
    if limits.guidance:
        scores = logprobs + limits.guidance * (logprobs - torch.log_softmax(logits[1].float(), dim=-1))
    if limits.temperature == 0:
        tokens = scores.argmax(-1)
    else:
        cumulative = torch.softmax(scores.double() / limits.temperature, dim=-1).cumsum(-1)
        goals = uniforms.double() * cumulative[:, -1]
        tokens = torch.searchsorted(cumulative, goals[:, None], right=True)[:, 0].clamp(max=scores.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def _uniforms(seed: int, count: int) -> Any:
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def _cache_of(found: Any) -> dict[str, Any]:
    """The keys and values of a pass, under the name that the next pass takes them by: transformers 5.24 renamed it."""
    name = "cache" if "cache" in found else "past_key_values"
    return {name: found[name]}


def _select(cache: dict[str, Any], rows: Tensor) -> None:
    for held in cache.values():
        held.batch_select_indices(rows)


class _CausalStream:
    """Forward passes of a decoder-only model over left-padded prompts and a growing cache."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def prefill(self, prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device, repeats: Tensor) -> Tensor:
        """Reads the prompts once, then gives each of its samples a copy of the cache; returns logits [B, V]."""
        width = max(map(len, prompts))
        ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        found = self.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
        order = torch.arange(len(prompts), device=device).repeat_interleave(repeats)
        self.cache = _cache_of(found)
        _select(self.cache, order)
        self.mask = mask[order]
        return found.logits[order, -1]  # type: ignore[no-any-return]

    def next(self, tokens: Tensor) -> Tensor:
        """Logits [B, V] after one more token per row."""
        positions = self.mask.sum(-1, keepdim=True)
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=-1)
        found = self.model(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=positions,
            use_cache=True,
            **self.cache,
        )
        self.cache = _cache_of(found)
        return found.logits[:, -1]  # type: ignore[no-any-return]

    def select(self, rows: Tensor) -> None:
        """Keeps only the given rows of the batch."""
        _select(self.cache, rows)
        self.mask = self.mask[rows]


class _EncoderDecoderStream:
    """Forward passes of an encoder-decoder: the prompt goes through the encoder once."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def prefill(self, prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device, repeats: Tensor) -> Tensor:
        """Encodes the prompts once, then gives each of its samples a copy; returns logits [B, V]."""
        width = max(map(len, prompts))
        ids = torch.tensor([list(p) + [pad_id] * (width - len(p)) for p in prompts], device=device)
        mask = torch.tensor([[1] * len(p) + [0] * (width - len(p)) for p in prompts], device=device)
        self.encoded = self.model.get_encoder()(input_ids=ids, attention_mask=mask)
        self.mask = mask
        self.cache: dict[str, Any] = {}
        start = torch.full((len(prompts),), self.model.config.decoder_start_token_id, device=device)
        logits = self.next(start)
        order = torch.arange(len(prompts), device=device).repeat_interleave(repeats)
        self.select(order)
        return logits[order]

    def next(self, tokens: Tensor) -> Tensor:
        """Logits [B, V] after one more token per row."""
        found = self.model(
            encoder_outputs=self.encoded,
            attention_mask=self.mask,
            decoder_input_ids=tokens[:, None],
            use_cache=True,
            **self.cache,
        )
        self.cache = _cache_of(found)
        return found.logits[:, -1]  # type: ignore[no-any-return]

    def select(self, rows: Tensor) -> None:
        """Keeps only the given rows of the batch, or repeats them."""
        _select(self.cache, rows)
        self.mask = self.mask[rows]
        self.encoded.last_hidden_state = self.encoded.last_hidden_state[rows]
