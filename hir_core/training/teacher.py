"""The model at the start of training, asked once about every excluded output: it is the teacher of `exclusion`.

One forward pass without gradient over the excluded outputs, shared by the ranks; afterwards every rank holds the soft
targets of all of them, since each optimizer step divides the examples anew. Writes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import distributed as dist

from hir_core.training.batches import BatchLayout
from hir_core.training.examples import Example, assign_micro_batches, placeholder
from hir_core.training.exclusion import NextToken, ScoredOutput, soft_targets
from hir_core.training.triple_loss import TripleLoss


def with_soft_targets(
    module: TripleLoss, examples: Sequence[Example], layout: BatchLayout, micro_batch_size: int, top: int
) -> list[Example]:
    """The examples, those of excluded outputs with their soft targets. All ranks call it together.

    Args:
        examples: in the same order on every rank.
        top: likeliest tokens of each distribution that are kept one by one.
    """
    excluded = [(n, e, e.exclusion) for n, e in enumerate(examples) if e.exclusion is not None]
    if not excluded:
        return list(examples)
    alone = [dataclasses.replace(e, prompts=(e.exclusion_prompt,), exclusion=None) for _, e, _ in excluded]
    scores = _score(alone, module, layout, micro_batch_size, top)
    by_prompt: dict[tuple[int, ...], list[tuple[int, ScoredOutput]]] = {}
    for (number, example, exclusion), (logprobs, next_tokens) in zip(excluded, scores, strict=True):
        output = ScoredOutput(example.target_ids, exclusion.removed, logprobs, next_tokens)
        by_prompt.setdefault(example.exclusion_prompt, []).append((number, output))
    targets = {
        number: of_output
        for outputs in by_prompt.values()
        for (number, _), of_output in zip(outputs, soft_targets([output for _, output in outputs]), strict=True)
    }
    result = list(examples)
    for number, example, exclusion in excluded:
        result[number] = dataclasses.replace(example, exclusion=dataclasses.replace(exclusion, targets=targets[number]))
    return result


def _score(
    examples: Sequence[Example], module: TripleLoss, layout: BatchLayout, micro_batch_size: int, top: int
) -> list[tuple[tuple[float, ...], tuple[NextToken, ...]]]:
    """Log-probability and distribution of every token of every output, the same on all ranks."""
    world_size, rank = dist.get_world_size(), dist.get_rank()
    count = -(-len(examples) // (world_size * micro_batch_size))
    ends = torch.tensor([len(example.target_ids) for example in examples]).cumsum(0).tolist()
    starts = [0, *ends[:-1]]
    logprobs = torch.zeros(ends[-1], dtype=torch.float32, device=layout.device)
    top = min(top, module.vocabulary)
    tokens = torch.zeros(ends[-1], top, dtype=torch.int32, device=layout.device)
    top_logprobs = torch.zeros(ends[-1], top, dtype=torch.float32, device=layout.device)
    module.eval()
    for group in assign_micro_batches(examples, world_size, count)[rank]:
        # A rank without rows makes the forward pass too: under ZeRO-3 the others wait for it.
        with torch.no_grad():
            made = module.next_tokens(layout.collate([examples[n] for n in group] or [placeholder(examples[0])]), top)
        if group:
            places = torch.cat([torch.arange(starts[n], ends[n]) for n in group]).to(layout.device)
            logprobs[places], tokens[places], top_logprobs[places] = made
    for values in (logprobs, tokens, top_logprobs):
        dist.all_reduce(values)  # every token was filled in by one rank
    distributions = [
        NextToken(tuple(ids), tuple(probabilities))
        for ids, probabilities in zip(tokens.tolist(), top_logprobs.double().exp().tolist(), strict=True)
    ]
    by_token = logprobs.tolist()
    return [
        (tuple(by_token[start:end]), tuple(distributions[start:end])) for start, end in zip(starts, ends, strict=True)
    ]
