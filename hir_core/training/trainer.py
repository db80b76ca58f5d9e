"""The training of a model on triples: examples, optimizer steps and learning rates, for a job's train step.

Reads Triples; changes the weights of the DeepSpeed engine. Loading and saving are left to `worker.job`, the loss to
`losses`, the layout of a batch to `batches`, the checks before the first step to `preflight`.
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
from hir_core.launch.job_spec import TrainResult
from hir_core.modeling import zero
from hir_core.modeling.rendering import Renderer
from hir_core.progress import Progress
from hir_core.training.batches import (
    BatchLayout,
    Example,
    assign_micro_batches,
    contrast_in_batch,
    make_example,
    plan_steps,
    step_totals,
)
from hir_core.training.losses import TERMS, Coefficients

# --- before the first step -------------------------------------------------------------------------------------------


def read_examples(triples: pl.DataFrame, renderer: Renderer, training: TrainingConfig) -> list[Example]:
    """All triples, tokenised, in the order of their ids: the same list on every rank and in every attempt."""
    with_contrast = training.contrastive > 0 and training.contrast == "instructions"
    return [make_example(row, renderer, with_contrast=with_contrast) for row in triples.sort("triple_id").to_dicts()]


def coefficients(training: TrainingConfig) -> Coefficients:
    """The weights of the loss terms, from the config."""
    return Coefficients(
        training.label_smoothing,
        training.contrastive,
        training.entropy,
        training.contrastive_smoothing,
        training.contrastive_per == "token",
    )


# --- steps -----------------------------------------------------------------------------------------------------------


def train(
    engine: Any,
    examples: Sequence[Example],
    training: TrainingConfig,
    layout: BatchLayout,
    seed: Sequence[int],
    on_progress: Callable[[Progress], None],
) -> TrainResult:
    """Makes every optimizer step; returns the mean loss terms of the last epoch, tokens and times.

    Args:
        engine: a DeepSpeed engine around `TripleLoss`.
        examples: the triples, in the same order on every rank.
        seed: of the shuffles.
        on_progress: called after each step.
    """
    steps = plan_steps(len(examples), training, seed)
    engine.train()
    started, history, tokens, target_tokens = time.monotonic(), [], 0, 0
    for number, rows in enumerate(steps):
        set_learning_rate(engine, training, number, len(steps))
        step_examples = [examples[row] for row in rows]
        if training.contrastive > 0 and training.contrast == "batch":
            step_examples = contrast_in_batch(step_examples, training.contrast_ways)
        tokens += sum(len(example.prompts) * example.length for example in step_examples)
        target_tokens += sum(len(example.target_ids) for example in step_examples)
        history.append(_optimizer_step(engine, step_examples, training, layout))
        seconds, loss = time.monotonic() - started, history[-1]["loss"]
        on_progress(Progress("train", number + 1, len(steps), "steps", tokens=tokens, seconds=seconds, loss=loss))
    seconds = time.monotonic() - started
    last_epoch = history[-math.ceil(len(examples) / training.batch_size) :]
    means = {name: sum(terms[name] for terms in last_epoch) / len(last_epoch) for name in last_epoch[0]}
    return {
        "loss": means["loss"],
        "supervised": means["supervised"],
        "contrastive": means["contrastive"],
        "entropy": means["entropy"],
        "grad_norm": means["grad_norm"],
        "steps": len(steps),
        "target_tokens": target_tokens,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
    }


def set_learning_rate(engine: Any, training: TrainingConfig, step: int, steps: int) -> None:
    """Gives the engine's optimizer the learning rate of this step."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate(training, step, steps)


def learning_rate(training: TrainingConfig, step: int, steps: int) -> float:
    """Learning rate of an optimizer step (from 0): linear warm-up, then constant, or linear or cosine decay to 0.

    After the warm-up: lr, lr (1 - s) or lr (1 + cos(pi s)) / 2,
    with s = (step - warmup_steps) / (steps - warmup_steps).
    """
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    share = (step - training.warmup_steps) / max(1, steps - training.warmup_steps)
    factors = {"constant": 1.0, "linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}
    return training.learning_rate * factors[training.schedule]


def _optimizer_step(
    engine: Any, examples: Sequence[Example], training: TrainingConfig, layout: BatchLayout
) -> dict[str, float]:
    """One step on the examples, all ranks together; returns the loss terms and the norm of the gradient."""
    world_size, rank = dist.get_world_size(), dist.get_rank()
    count = zero.accumulation_steps(training, world_size)
    totals = step_totals(examples)
    # DeepSpeed averages over ranks and micro-batches, but each term is already divided by the whole step's totals.
    scale = float(world_size * count)
    sums = torch.zeros(len(TERMS), dtype=torch.float64)
    lengths = [example.length for example in examples]
    for group in assign_micro_batches(range(len(examples)), lengths, world_size, count)[rank]:
        batch = layout.collate([examples[row] for row in group] or [placeholder(examples[0])])
        loss, terms = engine(batch, totals, scale)
        engine.backward(loss)
        engine.step()
        sums += torch.stack([terms[name] for name in TERMS]).double().cpu()
    summed = sums.to(layout.device, dtype=torch.float32)
    dist.all_reduce(summed)
    return {**dict(zip(TERMS, summed.tolist(), strict=True)), "grad_norm": float(engine.get_global_grad_norm() or 0.0)}


def placeholder(example: Example) -> Example:
    """The example with weight 0: it keeps the ranks in step and adds nothing to loss or gradient."""
    return Example(example.key, example.prompts, example.prefix_ids, example.target_ids, weight=0.0)
