"""The memory of sampling: whether weights are held whole or streamed layer by layer, and how many rows fit at once.

Compares the estimates of `launch.memory_estimate` with the free memory of the rank that has least, so that all ranks
decide the same. Only ZeRO-3 has a choice of weights: elsewhere every rank holds the whole weights anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from hir_core.config.model_shape import ModelShape, shape_of_config
from hir_core.config.sampling import AUTO_TOKENS
from hir_core.errors import ConfigError
from hir_core.launch.job_spec import SampleStep
from hir_core.launch.memory_estimate import LEAST_ROWS, MARGIN, Strategy, rows_that_fit, sampling_row_bytes
from hir_core.modeling import zero
from hir_core.sampling.completions import Request


class SamplingWeights(NamedTuple):
    """The model to sample from."""

    model: Any
    is_streamed: bool
    """Whether each forward pass gathers the weights layer by layer: then all ranks must make the same number."""
    reason: str
    """How the weights are held and why, as one line for a person."""


class RowEstimate:
    """Bytes that a row of a sample step takes, as a function of the longest prompt.

    Args:
        shape: of the model; None: not known, and a row's bytes with it.
        weight_bytes: of one weight.
    """

    def __init__(self, shape: ModelShape | None, weight_bytes: int, step: SampleStep) -> None:
        self.shape, self.weight_bytes, self.step = shape, weight_bytes, step

    @classmethod
    def of(cls, model: Any, step: SampleStep) -> RowEstimate:
        """The estimate for a loaded model, by its config."""
        parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
        try:
            shape = shape_of_config(model.config.to_dict(), parameters)
        except ConfigError:  # an architecture whose layers are described in other words
            shape = None
        return cls(shape, model.dtype.itemsize, step)

    def row_bytes(self, prompt: int) -> int:
        """Bytes of one row; 0 where the model's shape is not known.

        Args:
            prompt: tokens of the longest prompt.
        """
        if self.shape is None:
            return 0
        step, is_sorted = self.step, self.step.top_p is not None and self.step.top_k is None
        output = step.max_new_tokens
        copies = 1 if step.distinct else step.k
        return sampling_row_bytes(self.shape, self.weight_bytes, prompt, output, copies=copies, is_sorted=is_sorted)


def sampling_weights(
    model: Any, step: SampleStep, requests: Sequence[Request], device: torch.device
) -> SamplingWeights:
    """The model to sample from: the loaded one, or under ZeRO-3 perhaps a whole copy of it.

    With `zero3_weights: auto` the weights are gathered where they fit into the free memory together with `LEAST_ROWS`
    rows of the longest prompt.

    Args:
        requests: of all ranks.
    """
    if not zero.is_partitioned(model):
        return SamplingWeights(model.eval(), False, "every rank holds the whole weights")
    size, free = zero.parameter_bytes(model), free_on_all_ranks(device)
    rows = LEAST_ROWS * RowEstimate.of(model, step).row_bytes(longest_prompt(requests))
    sizes = f"{size / 1e9:.2f} of {free / 1e9:.1f} GB free"
    if step.zero3_weights == "stream" or (step.zero3_weights == "auto" and size + rows > free * (1 - MARGIN)):
        return SamplingWeights(model.eval(), True, f"weights streamed layer by layer ({sizes})")
    return SamplingWeights(zero.gathered_copy(model, device), False, f"weights gathered once ({sizes})")


def longest_prompt(requests: Sequence[Request]) -> int:
    """Tokens of the longest prompt; 1 where there is none."""
    return max((len(request.prompt_ids) for request in requests), default=1)


def free_on_all_ranks(device: torch.device) -> int:
    """The free memory of the rank that has least, with what its allocator holds in reserve; all ranks call it."""
    zero.release_reserve()
    return zero.min_over_ranks(zero.free_bytes(device), device)


class BatchLimit:
    """How many rows are completed at once.

    A number of `sampling.batch_tokens` is kept to. With `auto` it is what fits into the free memory, on a CPU at most
    `AUTO_TOKENS` tokens: more rows are not faster there. After memory ran out it is half of what it was.

    Args:
        estimate: of a row's memory.
        kept_free: bytes that streamed weights need beside the batch.
    """

    def __init__(self, estimate: RowEstimate, device: torch.device, kept_free: int = 0) -> None:
        self.estimate, self.device, self.kept_free = estimate, device, kept_free
        tokens = estimate.step.batch_tokens
        self.is_auto = tokens == "auto" and estimate.shape is not None
        self.most_tokens: float = AUTO_TOKENS if tokens == "auto" else tokens
        if self.is_auto and device.type != "cpu":
            self.most_tokens = math.inf
        self.most_rows: float = math.inf
        """Less than infinite after memory ran out."""
        self.free = 0

    def measure(self) -> None:
        """Reads how much memory is free; all ranks call it together, before a batch."""
        if self.is_auto:
            self.free = free_on_all_ranks(self.device) - self.kept_free

    def rows(self, prompt: int) -> int:
        """Most rows of a batch whose longest prompt has so many tokens; at least 1."""
        most = min(self.most_rows, self.most_tokens // (prompt + self.estimate.step.max_new_tokens))
        if self.is_auto:
            most = min(most, rows_that_fit(self.free, self.estimate.row_bytes(prompt)))
        return max(1, int(most))

    def halve(self, rows: int) -> None:
        """Allows half of the rows with which memory ran out."""
        self.most_rows = max(1, rows // 2)


def streamed_bytes(model: Any, settings: dict[str, Any]) -> int:
    """What ZeRO-3 gathers at a time while weights are streamed, by DeepSpeed's settings."""
    strategy = Strategy.of(settings)
    return min(zero.parameter_bytes(model), strategy.live * int(model.dtype.itemsize))


def smaller_batches(batch_limit: BatchLimit, requests: Sequence[Request], device: torch.device) -> str | None:
    """To how many rows the batches of any rank were halved, and what to set; None where memory did not run out.

    All ranks call it together.

    Args:
        requests: of all ranks.
    """
    unlimited = 2**62
    rows = zero.min_over_ranks(int(min(batch_limit.most_rows, unlimited)), device)
    if rows >= unlimited:
        return None
    tokens = rows * (longest_prompt(requests) + batch_limit.estimate.step.max_new_tokens)
    return f"memory ran out, so batches were halved to {rows:,} rows: set sampling.batch_tokens={tokens}"
