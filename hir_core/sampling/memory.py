"""The memory estimate of sampling: whether the weights fit whole on every rank, or are streamed layer by layer.

Compares the bytes of the weights with the free memory of the rank that has least. Only ZeRO-3 has a choice: elsewhere
every rank holds the whole weights anyway.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from hir_core.modeling import zero


class SamplingWeights(NamedTuple):
    """The model to sample from."""

    model: Any
    is_streamed: bool
    """Whether each forward pass gathers the weights layer by layer: then all ranks must make the same number."""
    reason: str
    """How the weights are held and why, as one line for a person."""


def sampling_weights(model: Any, choice: str, device: torch.device) -> SamplingWeights:
    """The model to sample from: the loaded one, or under ZeRO-3 perhaps a whole copy of it.

    Args:
        choice: `gather`, `stream`, or `auto`: gather where the whole weights take at most half of the free memory.
    """
    if not zero.is_partitioned(model):
        return SamplingWeights(model.eval(), False, "every rank holds the whole weights")
    size, free = zero.parameter_bytes(model), zero.min_over_ranks(zero.free_bytes(device), device)
    sizes = f"{size / 1e9:.2f} of {free / 1e9:.1f} GB free"
    if choice == "stream" or (choice == "auto" and size > free / 2):
        return SamplingWeights(model.eval(), True, f"weights streamed layer by layer ({sizes})")
    return SamplingWeights(zero.gathered_copy(model, device), False, f"weights gathered once ({sizes})")
