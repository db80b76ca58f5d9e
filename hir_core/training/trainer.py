"""Trains a model on triples: self-test, guard against stale weights, optimizer steps.

Reads Triples and the Samples that they come from; changes the weights of the engine that it is given. Leaves loading
and saving to the job, the loss to `losses`, the layout to `batches`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
import torch
from torch import distributed as dist

from hir_core.config import TrainingConfig
from hir_core.modeling import zero
from hir_core.modeling.rendering import Renderer
from hir_core.training.batches import (
    Example,
    Layout,
    contrast_in_batch,
    deal,
    make_example,
    plan_steps,
    step_totals,
)
from hir_core.training.losses import Coefficients


def train(
    engine: Any,
    examples: Sequence[Example],
    training: TrainingConfig,
    layout: Layout,
    seed: Sequence[int],
    on_step: Callable[[int, int, int, float], None],
) -> dict[str, float]:
    """Runs every optimizer step; returns the mean loss terms of the last pass over the triples, tokens and times.

    Args:
        engine: a DeepSpeed engine around `TripleLoss`.
        examples: the triples, in the same order on every rank.
        on_step: called after each step with steps done, steps in all, tokens so far, and the step's loss.
    """
    steps = plan_steps(len(examples), training, seed)
    engine.train()
    started, history, tokens, targets = time.monotonic(), [], 0, 0
    for number, rows in enumerate(steps):
        set_learning_rate(engine, training, number, len(steps))
        chosen = [examples[row] for row in rows]
        if training.contrastive > 0 and training.contrast == "batch":
            chosen = contrast_in_batch(chosen, training.contrast_ways)
        tokens += sum(len(example.prompts) * example.length for example in chosen)
        targets += sum(len(example.target_ids) for example in chosen)
        history.append(_optimizer_step(engine, chosen, training, layout))
        on_step(number + 1, len(steps), tokens, history[-1]["loss"])
    seconds = time.monotonic() - started
    last = history[-math.ceil(len(examples) / training.batch_size) :]
    means = {name: sum(terms[name] for terms in last) / len(last) for name in last[0]}
    return {
        **means,
        "steps": len(steps),
        "target_tokens": targets,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
    }


def learning_rate(training: TrainingConfig, step: int, steps: int) -> float:
    """Learning rate of an optimizer step (from 0): linear warm-up, then constant, linear or cosine down to 0."""
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    share = (step - training.warmup_steps) / max(1, steps - training.warmup_steps)
    falls = {"constant": 1.0, "linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}
    return training.learning_rate * falls[training.schedule]


def set_learning_rate(engine: Any, training: TrainingConfig, step: int, steps: int) -> None:
    """Gives the engine's optimizer the learning rate of this step."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate(training, step, steps)


def _optimizer_step(
    engine: Any, examples: Sequence[Example], training: TrainingConfig, layout: Layout
) -> dict[str, float]:
    """One step on the given triples, all ranks together."""
    world_size, rank = dist.get_world_size(), dist.get_rank()
    count = zero.accumulation_steps(training, world_size)
    totals = step_totals(examples)
    # DeepSpeed averages over ranks and micro-batches, but each term is already divided by the whole step's totals.
    scale = float(world_size * count)
    sums = torch.zeros(4, dtype=torch.float64)
    for group in deal(range(len(examples)), [example.length for example in examples], world_size, count)[rank]:
        batch = layout.collate([examples[row] for row in group] or [without_weight(examples[0])])
        loss, terms = engine(batch, totals, scale)
        engine.backward(loss)
        engine.step()
        sums += torch.stack([terms[name] for name in TERMS]).double().cpu()
    summed = sums.to(layout.device, dtype=torch.float32)
    dist.all_reduce(summed)
    return {**dict(zip(TERMS, summed.tolist(), strict=True)), "grad_norm": float(engine.get_global_grad_norm() or 0.0)}


TERMS = ("loss", "supervised", "contrastive", "entropy")


def without_weight(example: Example) -> Example:
    """The example as a place-holder: it keeps ranks in step and adds nothing to loss or gradient."""
    return Example(example.key, example.prompts, example.prefix_ids, example.target_ids, weight=0.0)


# --- before the first step -------------------------------------------------------------------------------------------


def read_examples(triples: pl.DataFrame, renderer: Renderer, training: TrainingConfig) -> list[Example]:
    """All triples, tokenised, in the order of their ids: the same list on every rank and in every attempt."""
    with_contrast = training.contrastive > 0 and training.contrast == "instructions"
    return [make_example(row, renderer, with_contrast=with_contrast) for row in triples.sort("triple_id").to_dicts()]


def coefficients(training: TrainingConfig) -> Coefficients:
    """The loss weights that a config asks for."""
    return Coefficients(
        training.label_smoothing,
        training.contrastive,
        training.entropy,
        training.contrastive_smoothing,
        training.contrastive_per == "token",
    )
