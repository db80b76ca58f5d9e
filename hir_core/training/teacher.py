"""The model at the start of training, asked once about every excluded output: it is the teacher of `exclusion`.

Forward passes without gradient over the excluded outputs, shared by the ranks; afterwards every rank holds the soft
targets of all of them, since each optimizer step divides the examples anew. Writes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import distributed as dist

from hir_core.training.batches import BatchLayout
from hir_core.training.example_table import ExampleTable, SoftTargetBuilder
from hir_core.training.examples import Example, placeholder
from hir_core.training.exclusion import NextToken, ScoredOutput, soft_targets
from hir_core.training.micro_batches import assign_micro_batches
from hir_core.training.triple_loss import TripleLoss

OUTPUTS_AT_ONCE = 128
"""Outputs of each rank, or a few more, that are scored before their soft targets are computed."""


def with_soft_targets(
    module: TripleLoss, examples: ExampleTable, layout: BatchLayout, most_tokens: int, top: int
) -> ExampleTable:
    """The examples, those of excluded outputs with their soft targets. All ranks call it together.

    Args:
        examples: in the same order on every rank.
        most_tokens: of a forward pass.
        top: likeliest tokens of each distribution that are kept one by one.
    """
    prompts = examples.excluded_by_prompt()
    if not prompts:
        return examples
    builder = SoftTargetBuilder(len(examples))
    for together in _at_once(prompts, OUTPUTS_AT_ONCE * dist.get_world_size()):
        outputs = iter(
            _scored([examples[n] for numbers in together for n in numbers], module, layout, most_tokens, top)
        )
        for numbers in together:
            targets = soft_targets([next(outputs) for _ in numbers])
            for number, of_output in zip(numbers, targets, strict=True):
                builder.add(number, of_output)
    return examples.with_soft_targets(builder.finish())


def _at_once(prompts: Iterable[list[int]], least: int) -> Iterator[list[list[int]]]:
    """Consecutive prompts together, so that they have at least so many outputs; the last ones may have fewer."""
    together: list[list[int]] = []
    for numbers in prompts:
        together.append(numbers)
        if sum(map(len, together)) >= least:
            yield together
            together = []
    if together:
        yield together


def _scored(
    examples: Sequence[Example], module: TripleLoss, layout: BatchLayout, most_tokens: int, top: int
) -> list[ScoredOutput]:
    """Log-probability and distribution of every token of every output, the same on all ranks.

    Args:
        examples: excluded outputs.
    """
    alone = [dataclasses.replace(e, prompts=(e.exclusion_prompt,), exclusion=None) for e in examples]
    world_size, rank = dist.get_world_size(), dist.get_rank()
    ends = torch.tensor([len(example.target_ids) for example in examples]).cumsum(0).tolist()
    starts = [0, *ends[:-1]]
    logprobs = torch.zeros(ends[-1], dtype=torch.float32, device=layout.device)
    top = min(top, module.vocabulary)
    tokens = torch.zeros(ends[-1], top, dtype=torch.int32, device=layout.device)
    top_logprobs = torch.zeros(ends[-1], top, dtype=torch.float32, device=layout.device)
    module.eval()
    for group in assign_micro_batches(alone, world_size, most_tokens, layout)[rank]:
        # A rank without rows makes the forward pass too: under ZeRO-3 the others wait for it.
        with torch.no_grad():
            made = module.next_tokens(layout.collate([alone[n] for n in group] or [placeholder(alone[0])]), top)
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
        ScoredOutput(e.target_ids, e.exclusion.removed, tuple(by_token[start:end]), tuple(distributions[start:end]))
        for e, start, end in zip(examples, starts, ends, strict=True)
        if e.exclusion is not None
    ]
