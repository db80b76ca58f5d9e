"""The training of a model on triples: examples, optimizer steps and learning rates, for a job's train step.

Reads Triples; changes the weights of the DeepSpeed engine. Loading and saving are left to `worker.job`, the loss to
`losses`, the layout of a batch to `batches`, the checks before the first step to `preflight`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import distributed as dist

from hir_core.config import TrainingConfig, WarmStartConfig
from hir_core.errors import NumericalError
from hir_core.launch.job_spec import TrainResult
from hir_core.modeling import zero
from hir_core.modeling.rendering import Renderer
from hir_core.progress import Progress
from hir_core.store.training_log import TrainingStep
from hir_core.training.batches import BatchLayout
from hir_core.training.checkpoints import Checkpoints, Record
from hir_core.training.example_table import ExampleTable
from hir_core.training.examples import Example, RememberedPrompts, make_example, placeholder, step_totals
from hir_core.training.losses import TERMS, Coefficients
from hir_core.training.micro_batches import assign_micro_batches
from hir_core.training.steps import examples_of_step, plan_steps

READ_AT_ONCE = 1024
"""Triples that are there as Python objects while all are read."""
NAMED = 4
"""Triples that a message names."""
_NAMES = {
    "contrastive": "contrastive term",
    "entropy": "entropy term",
    "exclusion": "exclusion term",
    "grad_norm": "norm of the gradient",
}

# --- before the first step -------------------------------------------------------------------------------------------


def read_examples(triples: pl.DataFrame, renderer: Renderer, training: TrainingConfig) -> ExampleTable:
    """All triples, tokenised, in the order of their ids: the same table on every rank and in every attempt."""
    with_contrast = training.contrastive > 0 and training.contrast == "instructions"
    prompts, order = RememberedPrompts(renderer), triples["triple_id"].arg_sort()
    parts = (triples[order[start : start + READ_AT_ONCE]] for start in range(0, len(order), READ_AT_ONCE))
    rows = (row for part in parts for row in part.iter_rows(named=True))
    return ExampleTable.of(make_example(row, prompts, with_contrast=with_contrast) for row in rows)


def coefficients(training: TrainingConfig) -> Coefficients:
    """The weights of the loss terms, from the config."""
    return Coefficients(
        training.label_smoothing,
        training.contrastive,
        training.entropy,
        training.contrastive_smoothing,
        training.contrastive_per == "token",
        training.exclusion,
        training.exclusion_loss == "unlikelihood",
    )


# --- steps -----------------------------------------------------------------------------------------------------------


class Trained(NamedTuple):
    """What came of a training."""

    result: TrainResult
    """Means over the last epoch, and totals."""
    steps: list[TrainingStep]
    """Every optimizer step, those before a checkpoint included."""


def train(
    engine: Any,
    examples: ExampleTable,
    training: TrainingConfig,
    layout: BatchLayout,
    seed: Sequence[int],
    on_progress: Callable[[Progress], None],
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Makes every optimizer step that is not in a checkpoint; returns the result, and every step since the beginning.

    Args:
        engine: a DeepSpeed engine around `TripleLoss`.
        examples: the triples, in the same order on every rank.
        seed: of the shuffles.
        on_progress: called after each step.
        checkpoints: those of this training; None: there are none.

    Raises:
        NumericalError: a loss, the gradient, or what the trained model makes of the last step's rows is not finite. All
            ranks raise it together.
    """
    steps = plan_steps(examples, training, seed)
    record = Record() if checkpoints is None else checkpoints.restore(len(steps))
    engine.train()
    started = time.monotonic() - record.seconds
    for number in range(len(record.history), len(steps)):
        step = _measured_step(
            engine, examples_of_step(examples, steps[number], training), training, layout, number, len(steps)
        )
        record.add(step, seconds=time.monotonic() - started)
        done = Progress("train", step.step, len(steps), "steps", record.tokens, record.seconds, step.loss)
        on_progress(done)
        if checkpoints is not None:
            checkpoints.after_step(record)
    _check_trained_model(engine, examples_of_step(examples, steps[-1], training), training, layout)
    result = _result(record, steps_of_epoch=math.ceil(len(examples) / training.batch_size), started=started)
    return Trained(result, record.history)


def _result(record: Record, steps_of_epoch: int, started: float) -> TrainResult:
    """Means over the last epoch, totals, and the time since `started`, in seconds of the monotonic clock."""
    last_epoch, seconds = record.history[-steps_of_epoch:], time.monotonic() - started

    def mean(name: str) -> float:
        return sum(float(getattr(step, name)) for step in last_epoch) / len(last_epoch)

    return {
        "loss": mean("loss"),
        "supervised": mean("supervised"),
        "contrastive": mean("contrastive"),
        "entropy": mean("entropy"),
        "exclusion": mean("exclusion"),
        "grad_norm": mean("grad_norm"),
        "steps": len(record.history),
        "target_tokens": record.target_tokens,
        "tokens": record.tokens,
        "seconds": seconds,
        "tokens_per_s": record.tokens / seconds,
    }


def set_learning_rate(engine: Any, training: TrainingConfig, step: int, steps: int) -> float:
    """Gives the engine's optimizer the learning rate of this step, and returns it."""
    rate = learning_rate(training, step, steps)
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    return rate


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


def _measured_step(
    engine: Any, examples: Sequence[Example], training: TrainingConfig, layout: BatchLayout, number: int, steps: int
) -> TrainingStep:
    """One step on the examples at its learning rate, all ranks together, with what it computed and what it took.

    Args:
        number: that of the step, from 0.
        steps: of the whole training.
    """
    started, step = time.monotonic(), number + 1
    rate = set_learning_rate(engine, training, number, steps)
    tokens = sum(len(example.prompts) * example.length for example in examples)
    made = _optimizer_step(engine, examples, training, layout, f"optimizer step {step} of {steps}")
    seconds = time.monotonic() - started
    return TrainingStep(
        step=step,
        learning_rate=rate,
        **made,
        tokens=tokens,
        target_tokens=sum(len(example.target_ids) for example in examples),
        seconds=seconds,
        tokens_per_s=tokens / seconds,
    )


def _optimizer_step(
    engine: Any, examples: Sequence[Example], training: TrainingConfig, layout: BatchLayout, step: str
) -> dict[str, Any]:
    """One step on the examples, all ranks together; returns loss terms, norm of the gradient, and peak of memory.

    Args:
        step: its name, for messages.
    """
    world_size, rank = dist.get_world_size(), dist.get_rank()
    totals = step_totals(examples)
    # DeepSpeed averages over ranks, but each term is already divided by the whole step's totals.
    scale = float(world_size)
    groups = assign_micro_batches(examples, world_size, training.micro_batch_tokens, layout)[rank]
    rows = []
    for number, group in enumerate(groups, 1):
        # Their number differs between steps, so DeepSpeed is told which is the last, after which the weights change.
        engine.set_gradient_accumulation_boundary(is_boundary=number == len(groups))
        batch = layout.collate([examples[row] for row in group] or [placeholder(examples[0])])
        loss, terms = engine(batch, totals, scale)
        engine.backward(loss)
        engine.step()
        rows.append(torch.stack([terms[name] for name in TERMS]).double().cpu())
    # The terms, whose sum is wanted, and each rank's peak of memory in a place of its own: one collective for both.
    shared = torch.zeros(len(TERMS) + world_size, dtype=torch.float32, device=layout.device)
    shared[: len(TERMS)] = torch.stack(rows).sum(0)
    shared[len(TERMS) + rank] = zero.peak_bytes_of_this_rank(layout.device)
    dist.all_reduce(shared)
    sums, peaks = shared[: len(TERMS)].tolist(), shared[len(TERMS) :].tolist()
    made = {**dict(zip(TERMS, sums, strict=True)), "grad_norm": float(engine.get_global_grad_norm() or 0.0)}
    # Numbers that are the same on all ranks, so all of them stop. DeepSpeed has -1 for a norm that is not finite.
    problems = [f"the {_NAMES.get(name, name)} is {value}" for name, value in made.items() if not math.isfinite(value)]
    if problems or made["grad_norm"] < 0:
        is_sound = [bool(terms.isfinite().all()) for terms in rows]
        of = _keys(examples, groups, is_sound, layout.device)
        raise NumericalError(f"{step}: {(problems or ['the gradient is not finite'])[0]}, in {of}: {advice(training)}")
    return {**made, "peak_bytes": int(max(peaks))}


def _check_trained_model(
    engine: Any, examples: Sequence[Example], training: TrainingConfig, layout: BatchLayout
) -> None:
    """Raises NumericalError where the last step left a model that gives no finite loss, which no later step shows.

    One forward pass of each rank, on its first micro-batch of that step; all ranks call it together.
    """
    world_size, rank = dist.get_world_size(), dist.get_rank()
    groups = assign_micro_batches(examples, world_size, training.micro_batch_tokens, layout)[rank][:1]
    engine.eval()
    with torch.no_grad():
        batch = layout.collate([examples[row] for row in groups[0]] or [placeholder(examples[0])])
        loss, _ = engine(batch, step_totals(examples), 1.0)
    total = loss.detach().float().clone()
    dist.all_reduce(total)
    if not math.isfinite(total):
        of = _keys(examples, groups, [bool(loss.isfinite())], layout.device)
        raise NumericalError(f"after the last optimizer step: the loss is {float(total)}, in {of}: {advice(training)}")


def _keys(examples: Sequence[Example], groups: Sequence[list[int]], is_sound: Sequence[bool], device: Any) -> str:
    """The triples in unsound micro-batches of any rank, in words; where there are none, all those of the step.

    Args:
        groups: this rank's micro-batches, as row numbers.
    """
    marks = torch.zeros(len(examples), device=device)
    for group, sound in zip(groups, is_sound, strict=True):
        marks[group] = float(not sound)
    dist.all_reduce(marks)
    keys = [example.key for example, mark in zip(examples, marks.tolist(), strict=True) if mark]
    keys = sorted({*(keys or (example.key for example in examples))})
    return f"a batch with triple {', '.join(keys[:NAMED])}" + (f" and {len(keys) - NAMED} more" if keys[NAMED:] else "")


def advice(training: TrainingConfig) -> str:
    """What a user can do about numbers that are not finite."""
    section = "warm_start" if isinstance(training, WarmStartConfig) else "training"
    return f"nothing of this training was kept; lower {section}.learning_rate, which is {training.learning_rate:g}"
