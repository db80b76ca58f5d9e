"""The sampling engine on `transformers`: completions of a causal or encoder-decoder model, under any ZeRO stage.

Prompts are sorted by length and batched by a token budget; the k samples of a prompt share one prefill; rows that have
ended are dropped from the batch. Every row has a seed of its own, so neither its batch nor the world size changes its
tokens. Takes prompt ids and returns token ids with log-probabilities; tables are left to `worker.job`.

Shapes: B rows of the batch, T prompt tokens, V vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hir_core.errors import NumericalError
from hir_core.modeling import data_parallel

COMPACT_BELOW = 0.5
"""Ended rows are dropped from the batch once fewer than this share of its rows is unfinished."""


@dataclass(frozen=True)
class Request:
    """One prompt to complete, and the seed of each of its samples."""

    key: str
    prompt_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    against_ids: tuple[int, ...] = ()
    """The prompt with the instruction that guidance pushes away from; used only with guidance."""


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
    """How tokens are drawn, and when an output ends."""

    temperature: float
    """0 is greedy decoding."""
    max_new_tokens: int
    end_ids: tuple[int, ...]
    """Every token that ends an output."""
    pad_id: int
    guidance: float = 0.0
    """The w of log p(. | prompt) + w (log p(. | prompt) - log p(. | against)), normalised, from which tokens are drawn.

    Sanchez et al. 2023, arXiv 2306.17806. 0 is the model's own distribution; log-probabilities are always the model's.
    """


def row_seed(*parts: object) -> int:
    """A 64-bit seed from the values that identify a row, the same on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big")


def batches(requests: Sequence[Request], max_new_tokens: int, batch_tokens: int) -> list[list[Request]]:
    """Batches of requests by falling length, each of at most `batch_tokens` tokens with padding, or of one prompt."""
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
    any_rank_is_unfinished: Callable[[bool], bool] | None = None,
) -> list[Completion]:
    """Completes one batch of prompts.

    Args:
        any_rank_is_unfinished: only for streamed weights, where all ranks call `complete` together and must make the
            same number of forward passes: whether any rank has unfinished rows, called with whether this one has.

    Raises:
        NumericalError: the model's logits for an output are not finite; names its prompt.
    """
    decoding = _Decoding(model, requests, limits, device)
    continues = any_rank_is_unfinished or bool
    while continues(decoding.is_unfinished):
        decoding.draw()
        if decoding.step < limits.max_new_tokens and (any_rank_is_unfinished or decoding.is_unfinished):
            decoding.forward()
    return list(decoding.completions())


class _Decoding:
    """The state of one batch while it is completed: caches, masks, and the completion of each row.

    `owners` has request and sample number of each completion. `rows` [B] has the completion of each row that is still
    in the batch, `unfinished` [B] whether it has not ended, `last` [B] its last token.
    """

    def __init__(self, model: Any, requests: Sequence[Request], limits: Limits, device: torch.device) -> None:
        self.requests, self.limits, self.device = requests, limits, device
        self.owners = [(n, k) for n, request in enumerate(requests) for k in range(len(request.seeds))]
        generators = [np.random.Generator(np.random.Philox(key=requests[n].seeds[k])) for n, k in self.owners]
        uniforms = [generator.random(limits.max_new_tokens) for generator in generators]
        self.uniforms = torch.tensor(np.array(uniforms), device=device)
        self.tokens: list[list[int]] = [[] for _ in self.owners]
        self.logprobs: list[list[float]] = [[] for _ in self.owners]
        self.unfinished = torch.ones(len(self.owners), dtype=torch.bool, device=device)
        self.rows = torch.arange(len(self.owners), device=device)
        self.ends = torch.tensor(limits.end_ids, device=device)
        self.last = torch.full_like(self.rows, limits.pad_id)
        self.step = 0
        prompts = [[request.prompt_ids for request in requests]]
        if limits.guidance:
            prompts.append([request.against_ids for request in requests])
        repeats = torch.tensor([len(request.seeds) for request in requests], device=device)
        decoder = _EncoderDecoder if model.config.is_encoder_decoder else _CausalDecoder
        self.decoders = [decoder(model) for _ in prompts]
        self.logits = [
            decoder.prefill(prompt_ids, limits.pad_id, device, repeats)
            for decoder, prompt_ids in zip(self.decoders, prompts, strict=True)
        ]

    @property
    def is_unfinished(self) -> bool:
        return self.step < self.limits.max_new_tokens and bool(self.unfinished.any())

    def draw(self) -> None:
        """Draws one token for every row; those of ended rows are discarded."""
        self.last, logprobs = draw(self.logits, self.uniforms[self.rows, self.step], self.limits)
        drawn = zip(self.rows.tolist(), self.unfinished.tolist(), self.last.tolist(), logprobs.tolist(), strict=True)
        for row, is_unfinished, token, logprob in drawn:
            if is_unfinished:
                if not math.isfinite(logprob):
                    raise self._no_probabilities(row)
                self.tokens[row].append(token)
                self.logprobs[row].append(logprob)
        self.unfinished &= ~torch.isin(self.last, self.ends)
        self.step += 1

    def _no_probabilities(self, row: int) -> NumericalError:
        n, k = self.owners[row]
        return NumericalError(
            f"prompt {self.requests[n].key}: the model gives no probabilities for token {self.step + 1} of output {k}: "
            "its logits hold NaN or infinity, so its training went wrong or its numbers are too large for their type: "
            "lower training.learning_rate or warm_start.learning_rate, or choose another model"
        )

    def forward(self) -> None:
        """Makes the forward pass for the next token; first drops the ended rows once they are many."""
        kept = torch.nonzero(self.unfinished)[:, 0]
        if 0 < len(kept) < COMPACT_BELOW * len(self.unfinished):
            for decoder in self.decoders:
                decoder.select(kept)
            self.rows, self.unfinished, self.last = self.rows[kept], self.unfinished[kept], self.last[kept]
        self.logits = [decoder.next(self.last) for decoder in self.decoders]

    def completions(self) -> Iterator[Completion]:
        for (n, k), tokens, logprobs in zip(self.owners, self.tokens, self.logprobs, strict=True):
            ended = bool(tokens) and tokens[-1] in self.limits.end_ids
            yield Completion(self.requests[n].key, k, tuple(tokens), tuple(logprobs), ended)


def draw(logits: Sequence[Tensor], uniforms: Tensor, limits: Limits) -> tuple[Tensor, Tensor]:
    """One token per row, and its log-probability in the model's own distribution at temperature 1, both [B].

    The log-probability is NaN where nothing can be drawn, because logits are NaN or infinite. Minus infinity rules a
    token out.

    A token is drawn by inverting the row's cumulative distribution at its uniform number, in double precision: this
    takes one random number per token, and tiny differences in logits almost never change the token.

    Args:
        logits: [B, V] under the prompts and, with guidance, [B, V] under the prompts that it pushes away from.
        uniforms: [B], in [0, 1).
    """
    logprobs = torch.log_softmax(logits[0].float(), dim=-1)
    scores = logits[0]
    if limits.guidance:
        pushed = limits.guidance * (logprobs - torch.log_softmax(logits[1].float(), dim=-1))
        scores = (logprobs + pushed).masked_fill(logprobs == -torch.inf, -torch.inf)
    if limits.temperature == 0:
        tokens = scores.argmax(-1)
        basis = scores.gather(-1, tokens[:, None])[:, 0]
    else:
        cumulative = torch.softmax(scores.double() / limits.temperature, dim=-1).cumsum(-1)
        basis = cumulative[:, -1]
        points = uniforms.double() * basis
        tokens = torch.searchsorted(cumulative, points[:, None], right=True)[:, 0].clamp(max=scores.shape[-1] - 1)
    drawn = logprobs.gather(-1, tokens[:, None])[:, 0]
    return tokens, drawn.masked_fill(~basis.isfinite(), torch.nan)


def _cache_of(output: Any) -> dict[str, Any]:
    """The cache of a forward pass, under the argument name of the next one: transformers 5.24 renamed it."""
    name = "cache" if "cache" in output else "past_key_values"
    return {name: output[name]}


def _select(cache: dict[str, Any], rows: Tensor) -> None:
    for keys_and_values in cache.values():
        keys_and_values.batch_select_indices(rows)


class _CausalDecoder:
    """Forward passes of a decoder-only model over left-padded prompts, with a growing cache."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def prefill(self, prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device, repeats: Tensor) -> Tensor:
        """Reads each prompt once, then gives each of its samples a copy of the cache; returns logits [B, V].

        Args:
            repeats: samples of each prompt.
        """
        width = max(map(len, prompts))
        ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        output = self.model(**inputs, use_cache=True, logits_to_keep=1)
        order = torch.arange(len(prompts), device=device).repeat_interleave(repeats)
        self.cache = _cache_of(output)
        _select(self.cache, order)
        self.mask = mask[order]
        return output.logits[order, -1]  # type: ignore[no-any-return]

    def next(self, tokens: Tensor) -> Tensor:
        """Logits [B, V] after one more token per row."""
        positions = self.mask.sum(-1, keepdim=True)
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=-1)
        output = self.model(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=positions,
            use_cache=True,
            **self.cache,
        )
        self.cache = _cache_of(output)
        return output.logits[:, -1]  # type: ignore[no-any-return]

    def select(self, rows: Tensor) -> None:
        """Keeps only these rows of the batch."""
        _select(self.cache, rows)
        self.mask = self.mask[rows]


class _EncoderDecoder:
    """Forward passes of an encoder-decoder; the prompts go through the encoder once."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def prefill(self, prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device, repeats: Tensor) -> Tensor:
        """Encodes each prompt once, then gives each of its samples a copy; returns logits [B, V].

        Args:
            repeats: samples of each prompt.
        """
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
        output = self.model(
            encoder_outputs=self.encoded,
            attention_mask=self.mask,
            decoder_input_ids=tokens[:, None],
            use_cache=True,
            **self.cache,
        )
        self.cache = _cache_of(output)
        return output.logits[:, -1]  # type: ignore[no-any-return]

    def select(self, rows: Tensor) -> None:
        """Keeps only these rows of the batch; a row that is named more than once is repeated."""
        _select(self.cache, rows)
        self.mask = self.mask[rows]
        self.encoded.last_hidden_state = self.encoded.last_hidden_state[rows]
