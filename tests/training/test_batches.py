"""Every triple is trained on once per epoch, to the token, and no way of cutting a step into pieces changes it."""

from typing import Any

import pytest
import torch

from hir_core.config import TrainingConfig
from hir_core.modeling.rendering import Renderer
from hir_core.training.batches import BatchLayout, collate
from hir_core.training.example_table import ExampleTable
from hir_core.training.examples import Example, RememberedPrompts, make_example, placeholder, step_totals
from hir_core.training.losses import Coefficients
from hir_core.training.micro_batches import assign_micro_batches
from hir_core.training.steps import plan_steps
from hir_core.training.triple_loss import TripleLoss

PAPER = Coefficients(label_smoothing=0.2, contrastive=1.0, entropy=0.001)


# --- targets and masks -----------------------------------------------------------------------------------------------


def test_causal_layout_to_the_token():
    """Each triple's own sequence first, then the contrasts; a target is predicted from the token before it."""
    first = Example("a", ((10, 11), (12,)), (20,), (30, 31), 1.0)
    second = Example("b", ((13, 14, 15),), (), (32,), 0.5)
    batch = collate([first, second], pad_id=0, decoder_start_id=None)
    assert batch.input_ids.tolist() == [[10, 11, 20, 30], [13, 14, 15, 0], [12, 20, 30, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0]]
    assert batch.target_positions.tolist() == [2, 3, 6, 9, 10]
    assert batch.target_ids.tolist() == [30, 31, 32, 30, 31]
    assert batch.target_rows.tolist() == [0, 0, 1, 2, 2]
    assert batch.triples.tolist() == [0, 1, 0]
    assert batch.weights.tolist() == [1.0, 0.5]
    assert batch.decoder_input_ids is None


def test_encoder_decoder_layout_to_the_token():
    """The prompt goes to the encoder; prefix and targets to the decoder, after its start token."""
    first = Example("a", ((10, 11), (12,)), (20,), (30, 31), 1.0)
    second = Example("b", ((13, 14, 15),), (), (32,), 0.5)
    batch = collate([first, second], pad_id=0, decoder_start_id=9)
    assert batch.input_ids.tolist() == [[10, 11, 0], [13, 14, 15], [12, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert batch.encoder_rows.tolist() == [0, 1, 2]
    assert batch.decoder_input_ids.tolist() == [[9, 20, 30], [9, 0, 0], [9, 20, 30]]
    assert batch.target_positions.tolist() == [1, 2, 3, 7, 8]
    assert batch.target_ids.tolist() == [30, 31, 32, 30, 31]


@pytest.mark.parametrize("start", [None, 9])
def test_a_padding_token_inside_an_output_is_a_target_and_padding_is_not(start):
    """Masks come from lengths: a model may share its padding token with the end-of-sequence token."""
    batch = collate([Example("a", ((5,),), (), (7, 0), 1.0), Example("b", ((5, 6, 7),), (), (0,), 1.0)], 0, start)
    assert len(batch.target_places) == 3
    assert batch.target_ids.tolist() == [7, 0, 0]


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_padding_changes_no_log_probability(architecture, build_model):
    model, start = build_model(architecture), 0 if architecture == "t5" else None
    module = TripleLoss(model, PAPER, 64)
    examples = [Example("a", ((5, 6, 7, 8), (9,)), (21,), (30, 31), 1.0), Example("b", ((13,),), (), (32,) * 6, 1.0)]
    together = module.target_stats(collate(examples, 0, start)).logprobs
    first, second = (module.target_stats(collate([example], 0, start)).logprobs for example in examples)
    torch.testing.assert_close(together, torch.cat([first[:2], second, first[2:]]), rtol=1e-5, atol=1e-6)


def row(**changes: Any) -> dict[str, Any]:
    values = {"triple_id": "t", "instruction": "Do it.", "contrast": ["Do not."], "query": "two figs", "output": "nine"}
    return {
        **values,
        "history": None,
        "prefix_ids": [],
        "target_ids": [7, 8],
        "weight": 2.0,
        "excluded_from": None,
        **changes,
    }


def test_sampled_tokens_are_trained_on_as_they_were_sampled(tokenizer):
    """Cut off by the length limit, so without an end-of-sequence token; the output's text is not used."""
    example = make_example(row(prefix_ids=[4]), RememberedPrompts(Renderer(tokenizer, None)), with_contrast=True)
    assert (example.prefix_ids, example.target_ids, example.weight) == ((4,), (7, 8), 2.0)
    assert len(example.prompts) == 2
    assert tokenizer.decode(example.prompts[1]) == "Do not.\ntwo figs\n"
    assert example.length == len(example.prompts[1]) + 1 + 2


def test_a_written_output_is_tokenised_and_ends(tokenizer):
    example = make_example(row(target_ids=None), RememberedPrompts(Renderer(tokenizer, None)), with_contrast=False)
    assert tokenizer.decode(example.target_ids) == "nine<|end|>"
    assert len(example.prompts) == 1


def table_of(count: int) -> ExampleTable:
    """Examples with different prompts of one token."""
    return ExampleTable.of(Example(str(n), ((n,),), (), (1,), 1.0) for n in range(count))


# --- steps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (8, 8), (3, 64), (65, 64)])
def test_each_epoch_holds_every_row_once_in_an_order_of_its_own(count, batch_size):
    steps = plan_steps(table_of(count), TrainingConfig(batch_size=batch_size, epochs=3), seed=(1, 2))
    per_epoch = -(-count // batch_size)
    epochs = [steps[n * per_epoch : (n + 1) * per_epoch] for n in range(3)]
    for epoch in epochs:
        assert sorted(row for step in epoch for row in step) == list(range(count))
        assert [len(step) for step in epoch[:-1]] == [batch_size] * (per_epoch - 1)
    if count > 8:
        assert epochs[0] != epochs[1] != epochs[2]


def test_the_plan_follows_from_the_seed():
    training = TrainingConfig(batch_size=8, epochs=2)
    assert (
        list(plan_steps(table_of(40), training, (1, 2)))
        == list(plan_steps(table_of(40), training, (1, 2)))
        != list(plan_steps(table_of(40), training, (1, 3)))
    )


@pytest.mark.parametrize("count", [3, 16, 40])
def test_a_number_of_steps_walks_through_as_many_epochs_as_it_takes(count):
    steps = plan_steps(table_of(count), TrainingConfig(batch_size=8, epochs=99, steps=7), (1,))
    assert len(steps) == 7
    assert list(steps) == plan_steps(table_of(count), TrainingConfig(batch_size=8, epochs=7), (1,))[:7]


# --- gradients of a step ---------------------------------------------------------------------------------------------


def random_examples(count: int) -> list[Example]:
    generator = torch.Generator().manual_seed(3)

    def random_ids(most: int) -> tuple[int, ...]:
        size = int(torch.randint(1, most + 1, (), generator=generator))
        return tuple(torch.randint(2, 300, (size,), generator=generator).tolist())

    prompts = [tuple(random_ids(9) for _ in range(1 + n % 3)) for n in range(count)]
    return [
        Example(str(n), prompts[n], random_ids(2) if n % 4 == 0 else (), random_ids(6), 0.5 + n % 2)
        for n in range(count)
    ]


def step_gradient(model, examples: list[Example], world_size: int, most_tokens: int, start: int | None):
    """Loss and gradients of one optimizer step, averaged over ranks as DeepSpeed does, and its micro-batches."""
    module, layout = TripleLoss(model, PAPER, 8), BatchLayout(0, (1,), start, torch.device("cpu"))
    totals, assigned = step_totals(examples), assign_micro_batches(examples, world_size, most_tokens, layout)
    losses = torch.zeros(())
    for groups in assigned:
        for group in groups:
            group_examples = [examples[n] for n in group] or [placeholder(examples[0])]
            loss, terms = module(layout.collate(group_examples), totals, float(world_size))
            (loss / world_size).backward()
            losses = losses + terms["loss"]
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    return losses, gradients, assigned


@pytest.mark.parametrize("architecture", ["llama", "t5"])
@pytest.mark.parametrize("rows", [8, 5])
def test_ranks_and_micro_batches_do_not_change_the_gradient_of_a_step(architecture, rows, build_model):
    """With 5 rows for 6 ranks, one of these has a placeholder of weight 0."""
    model, start = build_model(architecture).double(), 0 if architecture == "t5" else None
    examples = random_examples(rows)
    loss, gradients, [whole] = step_gradient(model, examples, 1, 10**6, start)
    assert len(whole) == 1
    for world_size, most_tokens in ((1, 40), (2, 10**6), (2, 40), (3, 1), (6, 1)):
        other_loss, other_gradients, assigned = step_gradient(model, examples, world_size, most_tokens, start)
        assert len(assigned) * len(assigned[0]) > 1
        torch.testing.assert_close(other_loss, loss, rtol=1e-6, atol=0)
        torch.testing.assert_close(other_gradients, gradients, rtol=1e-6, atol=1e-9)


def test_a_placeholder_adds_exactly_nothing(build_model):
    examples = random_examples(3)
    module = TripleLoss(build_model("llama"), PAPER, 8)
    loss, terms = module(collate([placeholder(examples[1])], 0, None), step_totals(examples), 2.0)
    loss.backward()
    assert {name: term.item() for name, term in terms.items()} == dict.fromkeys(terms, 0.0)
    assert all(not parameter.grad.any() for parameter in module.parameters())
