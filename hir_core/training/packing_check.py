"""The choice between packed rows and a row per sequence, made before the first step on the real model and data.

Packed rows (see `packing`) are used where they save work and the model computes the same in them. Writes one line to
the log of the launch where a model does not.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed as dist

from hir_core.config import TrainingConfig
from hir_core.modeling import zero
from hir_core.modeling.attention import implementation
from hir_core.training.batches import BatchLayout
from hir_core.training.example_table import ExampleTable
from hir_core.training.examples import Example
from hir_core.training.micro_batches import assign_micro_batches
from hir_core.training.packing import Packing
from hir_core.training.steps import examples_of_step, plan_steps
from hir_core.training.triple_loss import TripleLoss

logger = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.bfloat16: 0.025, torch.float16: 0.025}
"""The largest result of `_largest_gap` that is taken for rounding, by the dtype of the weights: SmolLM2-135M has 0.008
in bf16."""

COMPARED = 4
"""Examples of the first step that are compared: a mistake in the mask shows in each, and more take time."""


def choose_layout(
    module: TripleLoss, examples: ExampleTable, layout: BatchLayout, training: TrainingConfig, seed: Sequence[int]
) -> BatchLayout:
    """The layout with packed rows where they save work in the first step and change nothing, else as it is.

    Compared are, on every rank, examples of its first micro-batch of the first step, and the longest of all examples.
    All ranks call it together.

    Args:
        examples: all triples, in the same order on every rank.
        seed: of the shuffles.
    """
    config = module.model.config.get_text_config()
    if config.is_encoder_decoder:
        return layout
    world_size, rank = dist.get_world_size(), dist.get_rank()
    step = examples_of_step(examples, plan_steps(examples, training, seed)[0], training)
    packed = dataclasses.replace(layout, packing=packing_of(implementation(module.model), config.hidden_size))
    groups = assign_micro_batches(step, world_size, training.micro_batch_tokens, packed)[rank]
    saves = any(packed.collate([step[n] for n in group]).position_ids is not None for group in groups if group)
    if not _on_any_rank(saves, layout):
        return layout
    longest = examples[int(examples.lengths.argmax())]
    problem = packing_problem(module.model, longest.length)
    if problem is None:
        first = [step[n] for n in groups[0][:COMPARED]] or step[:1]
        gap = _largest_gap(module, (first, [longest]), packed)
        if gap > TOLERANCE[module.model.dtype]:
            problem = f"its log-probabilities are {gap:.1%} off in rows of several outputs"
    if problem is None:
        return packed
    if rank == 0:
        logger.warning("%s: %s, so every output is trained in a row of its own", type(module.model).__name__, problem)
    return layout


def packing_of(attention: str, hidden_size: int) -> Packing:
    """The rows that suit an implementation of attention: flash_attention_2 computes no beginning for several outputs.

    Args:
        hidden_size: of the model.
    """
    skips_blocks = attention in ("flex_attention", "flash_attention_2")
    return Packing(hidden_size, is_one_row=skips_blocks, shares_beginnings=attention != "flash_attention_2")


def packing_problem(model: Any, longest: int) -> str | None:
    """Why the model cannot be given packed rows, as far as its class and config say; None: it can.

    Args:
        longest: tokens of the longest sequence.
    """
    config, attention = model.config.get_text_config(), implementation(model)
    if attention not in ("sdpa", "eager", "flex_attention", "flash_attention_2"):
        return f"its attention, {attention}, takes no mask of one's own"
    if not model._supports_attention_backend or "position_ids" not in inspect.signature(model.forward).parameters:
        return "it takes no mask of one's own"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if others := kinds - {"full_attention", "sliding_attention", "chunked_attention"}:
        return f"it has layers of {', '.join(sorted(others))}"
    # The mask of packed rows has no windows; flash_attention_2 takes none, and has sliding windows of its own.
    limits = (
        ("attention_chunk_size",) if attention == "flash_attention_2" else ("attention_chunk_size", "sliding_window")
    )
    windows = [getattr(config, name, None) for name in limits]
    if any(window is not None and window < longest for window in windows):
        return f"its attention reaches {min(window for window in windows if window)} tokens back, fewer than {longest}"
    return None


def _largest_gap(module: TripleLoss, micro_batches: Sequence[Sequence[Example]], packed: BatchLayout) -> float:
    """The largest mean difference per target token that packed rows make on any rank.

    In nats, divided by one plus the nats of the token itself: the rounding of logits grows with them, so that unlikely
    tokens differ by a tenth of a nat in bf16 although nothing is wrong.
    """
    gaps = []
    module.eval()
    for examples in micro_batches:
        with torch.no_grad():
            first, second = (module.target_stats(batch).logprobs.float() for batch in packed.both_layouts(examples))
        gaps.append((first - second).abs() / (1 - first))
    largest = torch.cat(gaps).mean().nan_to_num(nan=torch.inf)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return float(largest)


def _on_any_rank(value: bool, layout: BatchLayout) -> bool:
    """Whether it is true on any rank, the same on all of them."""
    return zero.min_over_ranks(int(not value), layout.device) == 0
