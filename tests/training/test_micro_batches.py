"""Micro-batches hold every example once, are within their limit as they are laid out, and keep the ranks in step."""

import itertools
import random
from collections import Counter

import pytest
import torch

from hir_core.training.batches import BatchLayout
from hir_core.training.examples import Example
from hir_core.training.micro_batches import assign_micro_batches
from hir_core.training.packing import Packing

CPU = torch.device("cpu")
LAYOUTS = {
    "rows": BatchLayout(0, (1,), None, CPU),
    "packed": BatchLayout(0, (1,), None, CPU, packing=Packing(256)),
    "one row": BatchLayout(0, (1,), None, CPU, packing=Packing(256, is_one_row=True)),
    "one after the other": BatchLayout(
        0, (1,), None, CPU, packing=Packing(256, is_one_row=True, shares_beginnings=False)
    ),
    "encoder-decoder": BatchLayout(0, (1,), 0, CPU),
}


def of_lengths(lengths: list[int]) -> list[Example]:
    """Examples with different prompts of one token."""
    return [Example(str(n), ((n,),), (), (1,) * (length - 1), 1.0) for n, length in enumerate(lengths)]


def random_examples(seed: int) -> list[Example]:
    """Up to 40: one to six outputs for a prompt, under one to three instructions, some with a prefix."""
    draw = random.Random(seed)
    examples: list[Example] = []
    for _ in range(draw.randint(1, 10)):
        prompts = tuple(
            tuple(draw.randrange(5, 300) for _ in range(draw.randint(1, 40))) for _ in range(draw.randint(1, 3))
        )
        for _ in range(draw.randint(1, 6)):
            ids = tuple(draw.randrange(5, 300) for _ in range(draw.randint(1, 40)))
            prefix = (7,) * draw.choice((0, 0, 3))
            examples.append(Example(str(len(examples)), prompts, prefix, ids, 1.0))
    draw.shuffle(examples)
    return examples[:40]


def tokens_of(examples: list[Example], layout: BatchLayout) -> int:
    """What a model is given: of an encoder-decoder, the encoder's input and the decoder's."""
    batch = layout.collate(examples)
    return batch.input_ids.numel() + (0 if batch.decoder_input_ids is None else batch.decoder_input_ids.numel())


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("seed", range(12))
def test_every_example_is_in_one_micro_batch_that_is_within_the_limit_or_alone(kind, seed):
    """Packed rows are about equally long, and padded a little beyond it."""
    examples, layout = random_examples(seed), LAYOUTS[kind]
    for world_size, limit in itertools.product((1, 2, 3), (1, 150, 400, 10**6)):
        assigned = assign_micro_batches(examples, world_size, limit, layout)
        assert len(assigned) == world_size
        assert len({len(groups) for groups in assigned}) == 1
        assert Counter(n for groups in assigned for group in groups for n in group) == Counter(range(len(examples)))
        for group in (group for groups in assigned for group in groups if len(group) > 1):
            found = tokens_of([examples[n] for n in group], layout)
            assert found <= limit * (1.1 if kind == "packed" else 1)


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("seed", range(6))
def test_no_other_division_in_this_order_has_fewer_or_a_smaller_largest_micro_batch(kind, seed):
    """By brute force over all divisions of a few examples; the sizes are those of the layout without packed padding."""
    layout, examples = LAYOUTS[kind], random_examples(seed)[:7]
    [[order]] = assign_micro_batches(examples, 1, 10**6, layout)

    def size(numbers: list[int]) -> int:
        chosen = [examples[n] for n in numbers]
        outputs = [len(e.prefix_ids) + len(e.target_ids) for e in chosen for _ in e.prompts]
        prompts = [len(prompt) for prompt in {prompt for e in chosen for prompt in e.prompts}]
        if kind in ("packed", "one row"):
            return sum(prompts) + sum(outputs)
        if kind == "one after the other":
            return sum(len(prompt) for e in chosen for prompt in e.prompts) + sum(outputs)
        if kind == "encoder-decoder":
            return len(prompts) * max(prompts) + len(outputs) * max(outputs)
        return len(outputs) * max(e.length for e in chosen)

    def division(cuts: tuple[int, ...]) -> list[list[int]]:
        return [order[start:end] for start, end in itertools.pairwise((0, *cuts, len(order)))]

    def largest(parts: list[list[int]]) -> int:
        """Of the parts that could be smaller: one example has the size that it has."""
        return max((size(part) for part in parts if len(part) > 1), default=0)

    places = range(1, len(order))
    every = [division(cuts) for n in range(len(order)) for cuts in itertools.combinations(places, n)]
    for world_size, limit in itertools.product((1, 2, 3), (1, 60, 150, 300)):
        assigned = assign_micro_batches(examples, world_size, limit, layout)
        found = [group for groups in zip(*assigned, strict=True) for group in groups]
        assert [n for group in found for n in group] == order
        fewest = min(len(parts) for parts in every if largest(parts) <= limit)
        assert len(found) == -(-fewest // world_size) * world_size
        assert largest(found) == min(largest(parts) for parts in every if len(parts) <= len(found))


def test_a_step_that_one_rank_could_take_at_once_is_divided_over_all_of_them():
    assigned = assign_micro_batches(of_lengths([2] * 6), 2, 100, LAYOUTS["rows"])
    assert [[len(group) for group in groups] for groups in assigned] == [[3], [3]]


def test_examples_of_similar_length_share_a_micro_batch():
    examples = of_lengths([2, 9, 3, 8, 4, 7])
    assert assign_micro_batches(examples, 1, 18, LAYOUTS["rows"]) == [[[1], [3, 5], [4, 2, 0]]]


def test_ranks_without_an_example_have_an_empty_micro_batch():
    assert assign_micro_batches(of_lengths([5, 5]), 3, 1, LAYOUTS["rows"]) == [[[0]], [[1]], [[]]]


def test_examples_with_equal_prompts_follow_one_another():
    """Own and contrast prompts are the same two for the examples 0, 2 and 3, in any order."""
    prompts = [((5,), (6,)), ((7,),), ((6,), (5,)), ((5,), (6,)), ((8,),)]
    lengths = [4, 3, 1, 2, 2]
    examples = [Example(str(n), prompts[n], (), (9,) * lengths[n], 1.0) for n in range(5)]
    assert assign_micro_batches(examples, 1, 100, LAYOUTS["rows"]) == [[[0, 3, 2, 1, 4]]]


def test_a_prompt_with_several_outputs_counts_once_where_it_is_read_once():
    """Four outputs of two tokens for a prompt of 30."""
    examples = [Example(str(n), ((3,) * 30,), (), (9, 10 + n), 1.0) for n in range(4)]
    counts = {kind: len(assign_micro_batches(examples, 1, 40, layout)[0]) for kind, layout in LAYOUTS.items()}
    assert counts == {"rows": 4, "packed": 1, "one row": 1, "one after the other": 4, "encoder-decoder": 1}
