"""Checks before the first optimizer step: targets, end-of-sequence tokens, prompts, lengths and log-probabilities.

Compares the triples with the samples that they come from, and the model with the one that sampled. Raises TrainingError
where training would learn something else than what was sampled. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import distributed as dist

from hir_core.config import TrainingConfig
from hir_core.errors import TrainingError
from hir_core.modeling.models import context_length
from hir_core.modeling.rendering import Renderer
from hir_core.training.batches import BatchLayout
from hir_core.training.example_table import ExampleTable
from hir_core.training.examples import Example
from hir_core.training.micro_batches import assign_micro_batches
from hir_core.training.triple_loss import TripleLoss

GUARD_ROWS = 64
"""Samples that are compared before training; of the examples, as many of the shortest and of the longest."""


def compared_samples(samples: pl.DataFrame) -> pl.DataFrame:
    """The samples that the checks compare: `GUARD_ROWS` of them, and as many with tokens where some have none."""
    ordered = samples.sort("sample_id")
    with_tokens = ordered.filter(pl.col("completion_ids").list.len() > 0).head(GUARD_ROWS)
    return pl.concat([ordered.head(GUARD_ROWS), with_tokens]).unique("sample_id", keep="first", maintain_order=True)


def check_triples(
    examples: ExampleTable,
    triples: pl.DataFrame,
    samples: pl.DataFrame | None,
    renderer: Renderer,
    layout: BatchLayout,
) -> None:
    """Checks on the real data for mistakes that ruin a model without any error.

    Every target reaches the loss and is predicted from the token before it; padding does not reach it; an
    end-of-sequence token is a target where and only where the output ended; and prompts render to the tokens under
    which the outputs were sampled.

    Args:
        samples: with the `query` and the `history` of their prompts; None for demonstrations.

    Raises:
        TrainingError: names the first row that fails.
    """
    by_length = examples.lengths.argsort(kind="stable").tolist()
    checked = [*by_length[:GUARD_ROWS], *by_length[-GUARD_ROWS:]]
    for start in range(0, len(checked), 8):
        _check_targets([examples[number] for number in checked[start : start + 8]], layout)
    _check_ends(examples, triples.select("triple_id", "ends").sort("triple_id")["ends"].to_numpy(), layout)
    if samples is None:
        return
    # With the instruction and query of the prompt, not of the triple: a relabeler may have changed them in hindsight.
    for sample in samples.sort("sample_id").head(GUARD_ROWS).iter_rows(named=True):
        if renderer.prompt_ids(sample["instruction"], sample["query"], sample["history"]) != sample["prompt_ids"]:
            raise TrainingError(
                f"the prompt of sample {sample['sample_id']} now renders to other tokens than when it was sampled"
            )


def _check_ends(examples: ExampleTable, ended: NDArray[np.bool_], layout: BatchLayout) -> None:
    """Raises TrainingError unless an end-of-sequence token is the last target of each output that ended, and no other.

    Args:
        ended: of each example, whether its output ended.
    """
    targets = examples.targets
    places = np.flatnonzero(np.isin(targets.values, layout.end_ids))
    of_examples = np.searchsorted(targets.ends, places, side="right") - 1
    is_last = np.zeros(len(examples), bool)
    is_last[of_examples] = places == targets.ends[of_examples + 1] - 1
    counts = np.bincount(of_examples, minlength=len(examples))
    wrong = np.flatnonzero((counts != ended) | (ended & ~is_last))
    if wrong.size:
        first = int(wrong[0])
        taught = "is a target, but the output was cut off" if counts[first] else "is no target, but the output ended"
        raise TrainingError(f"triple {examples.keys[first]}: the end-of-sequence token {taught}")


def _check_targets(examples: Sequence[Example], layout: BatchLayout) -> None:
    """Raises TrainingError where a batch of the examples has other targets, or predicts one from the wrong position."""
    batch = layout.collate(examples)
    inputs = batch.input_ids if batch.decoder_input_ids is None else batch.decoder_input_ids
    sequences = [(example, example.prompts[0]) for example in examples]
    sequences += [(example, prompt) for example in examples for prompt in example.prompts[1:]]
    names = f"triple {examples[0].key} or its neighbours"
    counts = [len(example.target_ids) for example, _ in sequences]
    targets = [token for example, _ in sequences for token in example.target_ids]
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    if batch.target_rows.tolist() != rows or batch.target_ids.tolist() != targets:
        raise TrainingError(f"the target tokens of {names} in the batch differ from the sampled ones")
    tokens_before_targets = []
    for example, prompt in sequences:
        start = prompt if layout.decoder_start_id is None else (layout.decoder_start_id,)
        tokens_before_targets += [[*start, *example.prefix_ids][-1], *example.target_ids[:-1]]
    if inputs.flatten()[batch.target_positions].tolist() != tokens_before_targets:
        raise TrainingError(f"a target token of {names} is predicted from the wrong position")


def too_long_triples(examples: ExampleTable, model: Any) -> list[str]:
    """The ids of the triples that are longer than the model's context.

    Raises:
        TrainingError: all of them are.
    """
    limit, lengths = context_length(model), examples.lengths
    if limit is None:
        return []
    if lengths.min() > limit:
        raise TrainingError(
            f"every triple is longer than the model's context of {limit} tokens, the shortest has {lengths.min()}: "
            "shorten the prompts, or choose a model with a larger context"
        )
    return list(examples.keys.filter(pl.Series(lengths > limit)))


def check_logprobs(module: TripleLoss, samples: pl.DataFrame, layout: BatchLayout, training: TrainingConfig) -> float:
    """The result of `logprob_gap`, where it is at most what the config allows.

    Raises:
        TrainingError: it is larger: the model that is about to be trained is not the one that sampled.
    """
    gap = logprob_gap(module, samples, layout, training.micro_batch_tokens)
    if not gap <= training.logprob_tolerance:
        raise TrainingError(
            f"the model's log-probabilities are {gap:.3f} nats per token off the sampler's, more than "
            f"training.logprob_tolerance={training.logprob_tolerance}: other weights, attention mask or prompt"
        )
    return gap


def logprob_gap(module: TripleLoss, samples: pl.DataFrame, layout: BatchLayout, most_tokens: int) -> float:
    """Mean absolute difference, in nats per token, between this model's and the sampler's log-probabilities.

    Stale weights, a wrong mask and a prompt that changed since sampling all make it large. All ranks call it together.

    Args:
        most_tokens: of a forward pass.
    """
    rows = samples.filter(pl.col("completion_ids").list.len() > 0).sort("sample_id").head(GUARD_ROWS).to_dicts()
    examples = [Example(row["sample_id"], (tuple(row["prompt_ids"]),), (), tuple(row["completion_ids"]), 1.0)
                for row in rows]  # fmt: skip
    world_size, rank = dist.get_world_size(), dist.get_rank()
    sums = torch.zeros(2, device=layout.device)  # absolute differences, tokens
    module.eval()
    for group in assign_micro_batches(examples, world_size, most_tokens, layout)[rank]:
        with torch.no_grad():
            # A rank without rows makes the forward pass too: under ZeRO-3 the others wait for it.
            stats = module.target_stats(layout.collate([examples[n] for n in group] or examples[:1]))
        stored = torch.tensor([value for n in group for value in rows[n]["logprobs"]], device=layout.device)
        difference = (stats.logprobs[: len(stored)] - stored).abs().sum()
        sums += torch.tensor([difference, len(stored)], device=layout.device)
    dist.all_reduce(sums)
    return float(sums[0] / sums[1])
