"""Trains a model on triples: self-test, guard against stale weights, optimizer steps.

Reads Triples and the Samples that they come from; changes the weights of the engine that it is given. Leaves loading
and saving to the job, the loss to `losses`, the layout to `batches`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from torch import distributed as dist

from hir_core import zero
from hir_core.batches import Batch, Example, collate, contrast_in_batch, deal, make_example, plan_steps, step_totals
from hir_core.errors import TrainingError
from hir_core.losses import Coefficients, TripleLoss
from hir_core.models import context_length
from hir_core.rendering import Renderer
from hir_core.sections import TrainingConfig

GUARD_ROWS = 64
"""Samples whose log-probabilities are compared before training."""


@dataclass(frozen=True)
class Layout:
    """What a batch needs to know of the model: padding and end tokens, decoder start (encoder-decoders), device."""

    pad_id: int
    end_ids: tuple[int, ...]
    """Every token that ends an output."""
    decoder_start_id: int | None
    device: torch.device

    def collate(self, examples: Sequence[Example]) -> Batch:
        """One micro-batch on the device."""
        return collate(examples, self.pad_id, self.decoder_start_id).to(self.device)


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


def coefficients(training: TrainingConfig) -> Coefficients:
    """The loss weights that a config asks for."""
    return Coefficients(
        training.label_smoothing,
        training.contrastive,
        training.entropy,
        training.contrastive_smoothing,
        training.contrastive_per == "token",
    )
