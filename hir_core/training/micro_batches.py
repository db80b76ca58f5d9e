"""The division of an optimizer step's examples into micro-batches of limited size, the same number for every rank.

Every rank computes the same division from the same examples, without communication. A micro-batch is measured by the
tokens of its forward pass, in the layout that `batches` gives it. Which examples a step has is decided in `steps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hir_core.training.batches import BatchLayout
from hir_core.training.examples import Example


def assign_micro_batches(
    examples: Sequence[Example], world_size: int, most_tokens: int, layout: BatchLayout
) -> list[list[list[int]]]:
    """Divides the examples among the ranks, and those of each rank into micro-batches: `result[rank][n]` has numbers.

    Examples of similar length share a micro-batch, so that there is little padding, and those with equal prompts follow
    one another. There are as few micro-batches as the limit allows, as many for every rank, and with that number the
    largest is as small as it can be in this order. So the ranks have about equally much to do at any time. The last
    ones are empty where the examples do not fill them.

    Args:
        most_tokens: the largest number of tokens of a micro-batch; an example that has more is one by itself.
        layout: decides how many tokens the examples of a micro-batch have together.
    """
    ordered = _longest_first(examples)
    shapes = _shapes([examples[number] for number in ordered])
    ends = _ends(shapes, most_tokens, layout)
    count = -(-len(ends) // world_size) * world_size
    if count > 1:
        ends = _ends(shapes, _smallest_limit(shapes, most_tokens, layout, count), layout)
    ends += [len(ordered)] * (count - len(ends))
    micro_batches = [ordered[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return [micro_batches[rank::world_size] for rank in range(world_size)]


def _longest_first(examples: Sequence[Example]) -> list[int]:
    """The examples' numbers: those with equal prompts together, and the group with the longest example first."""
    groups: dict[frozenset[tuple[int, ...]], list[int]] = {}
    for number, example in enumerate(examples):
        groups.setdefault(frozenset(example.prompts), []).append(number)
    for numbers in groups.values():
        numbers.sort(key=lambda number: -examples[number].length)
    longest_first = sorted(groups.values(), key=lambda numbers: -examples[numbers[0]].length)
    return [number for numbers in longest_first for number in numbers]


@dataclass(frozen=True)
class _Shape:
    """What an example adds to a micro-batch."""

    prompts: tuple[tuple[int, int], ...]
    """A number for each prompt, equal where prompts are equal, and its tokens."""
    output: int
    """Tokens after each prompt."""


def _shapes(examples: Sequence[Example]) -> list[_Shape]:
    numbers: dict[tuple[int, ...], int] = {}
    return [
        _Shape(
            tuple((numbers.setdefault(prompt, len(numbers)), len(prompt)) for prompt in example.prompts),
            len(example.prefix_ids) + len(example.target_ids),
        )
        for example in examples
    ]


@dataclass
class _Size:
    """The tokens of a micro-batch to which one example after the other is added."""

    layout: BatchLayout
    prompts: set[int] = field(default_factory=set)
    prompt_tokens: int = 0
    """Of all different prompts together."""
    sequence_prompt_tokens: int = 0
    """Of the prompts of all sequences together."""
    output_tokens: int = 0
    """Of all sequences without their prompts together."""
    sequences: int = 0
    longest: int = 0
    """Tokens of the longest sequence."""
    longest_prompt: int = 0
    longest_output: int = 0

    def add(self, shape: _Shape) -> None:
        for number, length in shape.prompts:
            self.sequence_prompt_tokens += length
            if number not in self.prompts:
                self.prompts.add(number)
                self.prompt_tokens += length
            self.longest_prompt = max(self.longest_prompt, length)
            self.longest = max(self.longest, length + shape.output)
        self.sequences += len(shape.prompts)
        self.output_tokens += len(shape.prompts) * shape.output
        self.longest_output = max(self.longest_output, shape.output)

    @property
    def tokens(self) -> int:
        """Of the forward pass: padding is counted where each sequence has a row, and not in packed rows."""
        if self.layout.decoder_start_id is not None:  # the encoder reads each prompt once
            return len(self.prompts) * self.longest_prompt + self.sequences * self.longest_output
        packing = self.layout.packing
        if packing is None:
            return self.sequences * self.longest
        return self.output_tokens + (self.prompt_tokens if packing.shares_beginnings else self.sequence_prompt_tokens)


def _ends(shapes: Sequence[_Shape], most_tokens: int, layout: BatchLayout) -> list[int]:
    """Where each micro-batch ends, if it has as many of the shapes, in their order, as the limit allows."""
    ends, size = [], _Size(layout)
    for number, shape in enumerate(shapes):
        size.add(shape)
        if size.tokens > most_tokens and size.sequences > len(shape.prompts):
            ends.append(number)
            size = _Size(layout)
            size.add(shape)
    return [*ends, len(shapes)]


def _smallest_limit(shapes: Sequence[_Shape], most_tokens: int, layout: BatchLayout, count: int) -> int:
    """The smallest limit with which there are at most `count` micro-batches, by halving the range of it."""
    too_small, enough = 0, most_tokens
    while enough - too_small > 1:
        limit = (too_small + enough) // 2
        if len(_ends(shapes, limit, layout)) <= count:
            enough = limit
        else:
            too_small = limit
    return enough
