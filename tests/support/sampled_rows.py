"""Sampled rows for tests of the transformers engine: requests, their completions, and what the model computed."""

from collections.abc import Sequence

import numpy as np
import torch

from hir_core.sampling import transformers_engine
from hir_core.sampling.completions import Completion, Request, row_seed
from hir_core.sampling.draw import Limits

CPU = torch.device("cpu")
MANY_ENDS = tuple(range(1, 40))
"""End tokens, so many that rows of a batch end at very different times."""


def make_requests(count: int, k: int = 4, longest: int = 20) -> list[Request]:
    rng = np.random.default_rng(5)
    prompts = [tuple(rng.integers(40, 300, size=rng.integers(1, longest + 1)).tolist()) for _ in range(count)]
    seeds = [tuple(row_seed(1, n, sample) for sample in range(k)) for n in range(count)]
    return [Request(f"p{n:03}", prompts[n], seeds[n]) for n in range(count)]


def sampled(
    model, requests: Sequence[Request], limits: Limits, batch_tokens: int = 1200
) -> dict[tuple[str, int], Completion]:
    with torch.no_grad():
        work = batches(requests, limits.max_new_tokens, batch_tokens)
        return {(c.key, c.k): c for batch in work for c in transformers_engine.complete(model, batch, limits, CPU)}


def within(batch_tokens: int, new_tokens: int) -> transformers_engine.MostRows:
    """The rows that have at most so many tokens."""
    return lambda prompt: batch_tokens // (prompt + new_tokens)


def batches(requests: Sequence[Request], new_tokens: int, batch_tokens: int) -> list[list[Request]]:
    waiting, work = transformers_engine.longest_first(requests), []
    while waiting:
        work.append(transformers_engine.take_batch(waiting, within(batch_tokens, new_tokens)))
    return work


def same_tokens(first: dict[tuple[str, int], Completion], second: dict[tuple[str, int], Completion]) -> int:
    assert first.keys() == second.keys()
    return sum(first[key].token_ids == second[key].token_ids for key in first)


class Recorder:
    """A model's forward passes, by the shape of their ids."""

    def __init__(self, model, monkeypatch) -> None:
        self.shapes: list[tuple[int, int]] = []
        forward = model.forward

        def recorded(*given, **named):
            ids = named["decoder_input_ids"] if model.config.is_encoder_decoder else named["input_ids"]
            self.shapes.append(tuple(ids.shape))
            return forward(*given, **named)

        monkeypatch.setattr(model, "forward", recorded)

    @property
    def computed_tokens(self) -> int:
        return sum(rows for rows, width in self.shapes if width == 1)
