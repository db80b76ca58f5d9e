"""What every sampling engine takes and returns: prompts with the seeds of their rows, and completed rows.

An engine takes `Request`s and yields `Completion`s, those of one prompt together and in order, as prompts are finished.
Which rows end an output is the same for all engines: `Output.add`. The engines are `transformers_engine` and
`vllm_engine`; tables are left to `worker.samples`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from hir_core.sampling.draw import Limits

FinishReason = Literal["eos", "stop", "length"]
"""What ended an output: the model, a stop text, or the limit of new tokens."""


@dataclass(frozen=True)
class Request:
    """One prompt to complete, and the seed of each of its samples."""

    key: str
    prompt_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    first: int = 0
    """The number k of the first sample, where the samples of a prompt are drawn in several parts."""
    distinct: bool = False
    """Whether no sample may repeat an earlier one, so that they are drawn one after another."""

    @property
    def rows(self) -> int:
        """How many rows of a batch the prompt takes; the one of a distinct sample is begun from a second one."""
        return min(len(self.seeds), 2) if self.distinct else len(self.seeds)


@dataclass(frozen=True)
class Completion:
    """One sample: its tokens, those that ended it included, and their log-probabilities."""

    key: str
    k: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason


def row_seed(*parts: object) -> int:
    """A 64-bit seed from the values that identify a row, the same on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big")


@dataclass
class Output:
    """One sample while it is completed."""

    request: Request
    k: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    """None until it is finished."""

    @property
    def length(self) -> int:
        """Tokens of its prompt and its own so far."""
        return len(self.request.prompt_ids) + len(self.token_ids)

    def add(self, token_ids: Iterable[int], logprobs: Iterable[float], limits: Limits) -> None:
        """Adds drawn tokens up to the one that ends the output; any after that were drawn before it was read."""
        for token_id, logprob in zip(token_ids, logprobs, strict=True):
            self.token_ids.append(token_id)
            self.logprobs.append(logprob)
            if token_id in limits.end_ids:
                self.finish_reason = "eos"
            elif limits.has_stopped is not None and limits.has_stopped(self.token_ids):
                self.finish_reason = "stop"
            elif len(self.token_ids) == limits.max_new_tokens:
                self.finish_reason = "length"
            if self.finish_reason is not None:
                return

    def completion(self) -> Completion:
        assert self.finish_reason is not None
        return Completion(self.request.key, self.k, tuple(self.token_ids), tuple(self.logprobs), self.finish_reason)
