"""Checks before the first optimizer step: end-of-text and padding labels, prompt rendering, lengths, log-probabilities.

Raises JobFailed or ConfigError where training would learn from something else than what was sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import torch
from torch import distributed as dist

from hir_core.config import TrainingConfig
from hir_core.errors import TrainingError
from hir_core.modeling.models import context_length
from hir_core.modeling.rendering import Renderer
from hir_core.training.batches import (
    Example,
    Layout,
    deal,
)
from hir_core.training.losses import TripleLoss

GUARD_ROWS = 64
"""Samples whose log-probabilities are compared before training."""


def self_test(
    examples: Sequence[Example], triples: pl.DataFrame, samples: pl.DataFrame | None, renderer: Renderer, layout: Layout
) -> None:
    """Checks, on the real data, what silently ruins models when it is wrong.

    Targets reach the loss to the token, each predicted from the one before it; an end-of-sequence token where and only
    where the output ended; padding nowhere; and prompts render to the tokens that were sampled under.

    Args:
        samples: with the `query` and the `history` of their prompts; None for demonstrations.

    Raises:
        TrainingError: naming the first row that fails.
    """
    shown = sorted(examples, key=lambda example: example.length)
    shown = [*shown[:GUARD_ROWS], *shown[-GUARD_ROWS:]]
    for start in range(0, len(shown), 8):
        _check_targets(shown[start : start + 8], layout)
    ends = dict(triples.select("triple_id", "ends").iter_rows())
    for example in examples:
        where = [n for n, token in enumerate(example.target_ids) if token in layout.end_ids]
        if where != ([len(example.target_ids) - 1] if ends[example.key] else []):
            taught = "is taught where the output did not end" if where else "is missing where the output ended"
            raise TrainingError(f"triple {example.key}: the end-of-sequence token {taught}")
    if samples is not None:
        _check_rendering(samples.sort("sample_id").head(GUARD_ROWS), renderer)


def check_lengths(examples: Sequence[Example], model: Any) -> None:
    """Raises TrainingError where a triple is longer than the model's context."""
    limit = context_length(model)
    longest = max(examples, key=lambda example: example.length)
    if limit is not None and longest.length > limit:
        raise TrainingError(f"triple {longest.key} has {longest.length} tokens, the model's context {limit}")


def _check_targets(examples: Sequence[Example], layout: Layout) -> None:
    batch = layout.collate(examples)
    inputs = batch.input_ids if batch.decoder_input_ids is None else batch.decoder_input_ids
    rows = [(example, example.prompts[0]) for example in examples]
    rows += [(example, prompt) for example in examples for prompt in example.prompts[1:]]
    named = f"triple {examples[0].key} or its neighbours"
    counts = [len(example.target_ids) for example, _ in rows]
    targets = [token for example, _ in rows for token in example.target_ids]
    if batch.target_mask.sum(-1).tolist() != counts or batch.target_ids.tolist() != targets:
        raise TrainingError(f"the targets of {named} do not reach the loss as sampled")
    starts = [prompt if layout.decoder_start_id is None else (layout.decoder_start_id,) for _, prompt in rows]
    given = [(*start, *example.prefix_ids) for start, (example, _) in zip(starts, rows, strict=True)]
    before = [token for known, (row, _) in zip(given, rows, strict=True) for token in (known[-1], *row.target_ids[:-1])]
    if inputs.masked_select(batch.target_mask).tolist() != before:
        raise TrainingError(f"a target of {named} is predicted from the wrong place")


def _check_rendering(samples: pl.DataFrame, renderer: Renderer) -> None:
    # By what the prompt asked, not by the triple's query: a relabeler may have asked something else in hindsight.
    for row in samples.iter_rows(named=True):
        if renderer.prompt_ids(row["instruction"], row["query"], row["history"]) != row["prompt_ids"]:
            raise TrainingError(
                f"the prompt of sample {row['sample_id']} renders to other tokens than were sampled under"
            )


def logprob_gap(module: TripleLoss, samples: pl.DataFrame, layout: Layout, micro_batch_size: int) -> float:
    """Mean absolute gap, in nats per token, between this model's and the sampler's log-probabilities.

    Weights that are stale, a mask that is off or a prompt that drifted all show here. All ranks call it together.
    """
    rows = samples.filter(pl.col("completion_ids").list.len() > 0).sort("sample_id").head(GUARD_ROWS).to_dicts()
    world_size, rank = dist.get_world_size(), dist.get_rank()
    count = -(-len(rows) // (world_size * micro_batch_size))
    lengths = [len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows]
    summed = torch.zeros(2, device=layout.device)
    module.eval()
    for group in deal(range(len(rows)), lengths, world_size, count)[rank]:
        chosen = [rows[n] for n in group]
        with torch.no_grad():
            stats = module.target_stats(layout.collate([_as_sampled(row) for row in chosen or rows[:1]]))
        stored = torch.tensor([value for row in chosen for value in row["logprobs"]], device=layout.device)
        summed += torch.tensor(
            [(stats.logprobs[: len(stored)] - stored).abs().sum(), len(stored)], device=layout.device
        )
    dist.all_reduce(summed)
    return float(summed[0] / summed[1])


def check_logprobs(module: TripleLoss, samples: pl.DataFrame, layout: Layout, training: TrainingConfig) -> float:
    """Returns the gap of `logprob_gap`, and stops where it is larger than the config allows.

    Raises:
        TrainingError: the model that is about to be trained is not the one that wrote the samples.
    """
    gap = logprob_gap(module, samples, layout, training.micro_batch_size)
    if not gap <= training.logprob_tolerance:
        raise TrainingError(
            f"the model's log-probabilities are {gap:.3f} nats per token off the sampler's, more than "
            f"training.logprob_tolerance={training.logprob_tolerance}: stale weights, a broken mask or a drifted prompt"
        )
    return gap


def _as_sampled(row: dict[str, Any]) -> Example:
    return Example(row["sample_id"], (tuple(row["prompt_ids"]),), (), tuple(row["completion_ids"]), 1.0)
