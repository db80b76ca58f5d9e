"""Packed rows hold every sequence, attend as single sequences do, and change no loss and no gradient."""

import dataclasses
import itertools
import logging
import random
from collections.abc import Sequence

import pytest
import torch
import transformers
from attention_stand_ins import STAND_INS

from hir_core.config import TrainingConfig
from hir_core.training.batches import BatchLayout, collate
from hir_core.training.example_table import ExampleTable
from hir_core.training.examples import Example, step_totals
from hir_core.training.losses import Coefficients
from hir_core.training.masks import BLOCK, added_mask, block_mask
from hir_core.training.packing import (
    ROOT,
    Packing,
    Rows,
    build_tries,
    cheapest_rows,
    cost,
    packed_rows,
    row_per_sequence,
)
from hir_core.training.packing_check import choose_layout, packing_of
from hir_core.training.steps import plan_steps
from hir_core.training.triple_loss import TripleLoss

PAPER = Coefficients(label_smoothing=0.2, contrastive=1.0, entropy=0.001)
CPU = torch.device("cpu")
ALWAYS, NEVER = 10**9, 1e-9
"""Hidden sizes at which attention costs nothing, so that all equal beginnings are shared, and nearly everything."""


# --- tries and rows --------------------------------------------------------------------------------------------------


def random_sequences(seed: int) -> list[list[int]]:
    """Up to 12 sequences over three tokens: many are equal, or begin alike, or are the beginning of another."""
    draw = random.Random(seed)
    return [[draw.randrange(3) for _ in range(draw.randint(1, 7))] for _ in range(draw.randint(1, 12))]


def ways_from_root(parents: Sequence[int]) -> list[list[int]]:
    """Of every node: the nodes from the root to it."""
    ways: list[list[int]] = []
    for node, parent in enumerate(parents):
        ways.append([*(ways[parent] if parent != ROOT else []), node])
    return ways


@pytest.mark.parametrize("hidden_size", [ALWAYS, 1, NEVER])
@pytest.mark.parametrize("seed", range(30))
def test_a_trie_has_every_sequence_as_a_way_from_a_root(seed, hidden_size):
    sequences = random_sequences(seed)
    tries = build_tries(sequences, hidden_size)
    assert sorted(number for trie in tries for number in trie.paths) == list(range(len(sequences)))
    for trie in tries:
        ways = ways_from_root(trie.parents)
        assert trie.depths() == [len(way) - 1 for way in ways]
        for number, path in trie.paths.items():
            assert [trie.tokens[node] for node in path] == list(sequences[number])
            assert path == ways[path[-1]]
        for node, end in enumerate(trie.ends()):
            assert [below for below, way in enumerate(ways) if node in way] == list(range(node, end))


@pytest.mark.parametrize("seed", range(30))
def test_without_a_cost_of_attention_equal_beginnings_are_there_once(seed):
    sequences = random_sequences(seed)
    beginnings = {tuple(sequence[:end]) for sequence in sequences for end in range(1, len(sequence) + 1)}
    assert sum(len(trie.tokens) for trie in build_tries(sequences, ALWAYS)) == len(beginnings)


def ends_of(rows: Rows) -> torch.Tensor:
    return torch.tensor([[*row, *[0] * (rows.width - len(row))] for row in rows.ends])


PACK = {
    "packed": Packing(16).rows,
    "cheapest": Packing(16).cheapest_rows,
    "one row": Packing(16, is_one_row=True).rows,
    "one after the other": Packing(16, is_one_row=True, shares_beginnings=False).rows,
}


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
@pytest.mark.parametrize("seed", range(30))
def test_the_mask_of_packed_rows_shows_each_token_its_own_sequence(pack, seed):
    """In order, at their positions, and nothing else: brute force over all pairs of tokens."""
    sequences = random_sequences(seed)
    rows = pack(sequences)
    ends = ends_of(rows)
    attends = added_mask(ends, torch.float32)[:, 0] == 0
    for sequence, places in zip(sequences, rows.places, strict=True):
        row = places[0][0]
        for n, (own_row, column) in enumerate(places):
            seen = attends[row, column].nonzero()[:, 0].tolist()
            assert own_row == row
            assert [rows.tokens[row][c] for c in seen] == list(sequence[: n + 1])
            assert [rows.positions[row][c] for c in seen] == list(range(n + 1))


@pytest.mark.parametrize("seed", range(10))
def test_the_blocks_of_flex_attention_hide_and_show_what_the_mask_does(seed):
    """Computed blocks are those that show something, and whole ones are shown whole."""
    draw = random.Random(seed)
    longest = draw.choice((20, 200, 400))
    outputs = [[0] * draw.randrange(longest), [1] * draw.randrange(longest), [2] * draw.randrange(longest)]
    sequences = [draw.choice(outputs) + [3 + n] * draw.randint(1, longest) for n in range(draw.randint(1, 9))]
    ends = ends_of(Packing(16, is_one_row=draw.random() < 0.5).rows(sequences))
    expected = added_mask(ends, torch.float32)[:, 0] == 0
    mask, tokens = block_mask(ends), torch.arange(ends.shape[1])
    padding = (0, -len(tokens) % BLOCK, 0, -len(tokens) % BLOCK)
    blocks = torch.nn.functional.pad(expected, padding).unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK))
    assert mask.shape == (len(ends), 1, len(tokens), len(tokens))
    assert torch.equal(mask.to_dense()[:, 0].bool(), blocks.any(4).any(2))
    for row, count, chosen in zip(blocks, mask.full_kv_num_blocks[:, 0], mask.full_kv_indices[:, 0], strict=True):
        whole = torch.zeros(len(chosen), len(chosen), dtype=torch.bool)
        for query, (keys, number) in enumerate(zip(chosen, count, strict=True)):
            whole[query, keys[:number].long()] = True
        assert torch.equal(whole, row.all(3).all(1))
    for row in range(len(ends)):
        assert torch.equal(mask.mask_mod(torch.tensor(row), None, tokens[:, None], tokens[None, :]), expected[row])


def test_one_row_has_no_padding_and_shares_beginnings_where_attention_can():
    sequences = [[1, 2, 3, 4], [1, 2, 3, 5, 6], [7], [7]]
    shared = packing_of("flex_attention", 16).rows(sequences)
    assert shared.tokens == [[1, 2, 3, 4, 5, 6, 7]]
    assert shared.positions == [[0, 1, 2, 3, 3, 4, 0]]
    separate = packing_of("flash_attention_2", 16).rows(sequences)
    assert separate.tokens == [[1, 2, 3, 4, 1, 2, 3, 5, 6, 7, 7]]
    assert separate.positions == [[0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 0]]
    assert packing_of("sdpa", 16) == packing_of("eager", 16) == Packing(16)


def work(rows: Rows, hidden_size: int) -> float:
    return len(rows.tokens) * cost(rows.width, hidden_size)


@pytest.mark.parametrize("seed", range(30))
def test_the_cheapest_rows_never_cost_more_than_a_row_per_sequence_or_per_trie(seed):
    sequences = random_sequences(seed)
    cheapest = work(cheapest_rows(sequences, 16), 16)
    assert cheapest <= work(row_per_sequence(sequences), 16)
    assert cheapest <= work(packed_rows(sequences, 16), 16)


def test_uneven_sequences_fill_their_rows():
    """One of 200 tokens and fifty of 40 that begin differently: 2,200 tokens, of which at most 5 % are padding."""
    sequences = [list(range(1000, 1200)), *([n] * 40 for n in range(50))]
    rows = packed_rows(sequences, 256)
    assert len(rows.tokens) * rows.width < 1.05 * 2200
    assert len(rows.tokens) > 5


def test_a_long_output_is_not_put_beside_others_to_save_a_short_prompt():
    """Three outputs of 100 tokens after one of 2: attention over 302 tokens costs more than 4 tokens."""
    outputs = [[1, 2, *[n] * 100] for n in (3, 4, 5)]
    assert len(build_tries(outputs, hidden_size=16)) == 3
    prompts = [[*range(100), n] for n in (103, 104, 105)]
    assert len(build_tries(prompts, hidden_size=16)) == 1


# --- losses ----------------------------------------------------------------------------------------------------------


def prompt_group(seed: int, prompts: int = 2, outputs: int = 4) -> list[Example]:
    """Some outputs for each prompt, some with a contrast or a prefix, some equal, some of which begin alike."""
    draw = random.Random(seed)
    examples = []
    for _ in range(prompts):
        right, wrong = (tuple(draw.randrange(5, 300) for _ in range(draw.randint(3, 20))) for _ in range(2))
        for n in range(outputs):
            output = tuple(draw.randrange(5, 8) for _ in range(draw.randint(1, 5)))
            contrasts = ((right, wrong), (wrong, right), (right,))[n % 3]
            prefix = (9, 10) if n % 4 == 3 else ()
            examples.append(Example(str(len(examples)), contrasts, prefix, output, 0.5 + n % 2))
    return examples


def loss_and_gradients(model, batch, totals, coefficients=PAPER):
    loss, terms = TripleLoss(model, coefficients, 3)(batch, totals, 1.0)
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    return terms, gradients


def small(kind: str, **changes):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=300, n_embd=16, n_layer=2, n_head=2, **changes)
        return transformers.GPT2LMHeadModel(config).eval()  # it has dropout
    if kind == "gemma2":
        config = transformers.Gemma2Config(vocab_size=300, num_key_value_heads=1, head_dim=8, **sizes, **changes)
        return transformers.Gemma2ForCausalLM(config)
    config = transformers.Qwen3Config(vocab_size=300, num_key_value_heads=1, head_dim=8, **sizes, **changes)
    return transformers.Qwen3ForCausalLM(config)


def use(model, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a model an implementation of attention, or a stand-in for one that needs a GPU."""
    if attention in STAND_INS:
        STAND_INS[attention](monkeypatch)
        model.config._attn_implementation = attention
    else:
        model.set_attn_implementation(attention)


@pytest.mark.parametrize(
    ("kind", "attention"),
    [
        ("llama", "sdpa"),
        ("llama", "eager"),
        ("llama", "flex_attention"),
        ("llama", "flash_attention_2"),
        ("gpt2", "sdpa"),
        ("gemma2", "eager"),
        ("qwen3", "sdpa"),
        ("qwen3", "flex_attention"),
        ("qwen3", "flash_attention_2"),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_packed_rows_give_the_losses_and_gradients_of_a_row_per_output(kind, attention, seed, build_model, monkeypatch):
    model = build_model("llama") if kind == "llama" else small(kind)
    examples = prompt_group(seed)
    totals = step_totals(examples)
    single = collate(examples, 0, None)
    packed = collate(examples, 0, None, packing_of(attention, ALWAYS).rows)
    assert packed.input_ids.numel() < single.input_ids.numel()
    expected, expected_gradients = loss_and_gradients(model, single, totals)
    use(model, attention, monkeypatch)
    found, gradients = loss_and_gradients(model, packed, totals)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-5)


def test_an_encoder_reads_equal_prompts_once_with_the_losses_of_single_examples(build_model):
    model, examples = build_model("t5").double(), prompt_group(3)
    batch, totals = collate(examples, 0, 0), step_totals(examples)
    assert len(batch.input_ids) == len({prompt for e in examples for prompt in e.prompts}) < len(examples)
    found, gradients = loss_and_gradients(model, batch, totals)
    singles = [loss_and_gradients(model, collate([example], 0, 0), totals) for example in examples]
    assert found["loss"].item() == pytest.approx(sum(terms["loss"].item() for terms, _ in singles), rel=1e-6)
    summed = {name: sum(single[name] for _, single in singles) for name in gradients}
    torch.testing.assert_close(gradients, summed, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("off", ["label_smoothing", "contrastive", "entropy"])
def test_a_term_without_weight_is_reported_and_needs_no_gradient(off, build_model):
    """The loss is the weighted sum of the reported terms, and its gradient that of the other terms alone."""
    model, examples = build_model("llama").double(), prompt_group(4)
    coefficients = Coefficients(**{**vars(PAPER), off: 0.0})
    batch, totals = collate(examples, 0, None), step_totals(examples)
    terms, gradients = loss_and_gradients(model, batch, totals, coefficients)
    nearly = Coefficients(**{**vars(PAPER), off: 1e-12})
    near_terms, near_gradients = loss_and_gradients(model, batch, totals, nearly)
    torch.testing.assert_close(terms, near_terms, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradients, near_gradients, rtol=1e-6, atol=1e-9)
    assert terms["entropy"].item() < 0


# --- prompts of a step -----------------------------------------------------------------------------------------------


def test_prompts_are_shuffled_with_all_their_triples():
    examples = ExampleTable.of(
        Example(f"{p}-{n}", ((p,), (50 + p,)), (), (n,), 1.0) for p, n in itertools.product(range(10), range(4))
    )
    training = TrainingConfig(batch_size=8, epochs=2, shuffle="prompts")
    steps = list(plan_steps(examples, training, (1,)))
    for epoch in (steps[:5], steps[5:]):
        assert sorted(row for step in epoch for row in step) == list(range(40))
        assert all(len({examples[row].prompts for row in step}) == 2 for step in epoch)
    assert steps[:5] != steps[5:]
    assert steps != list(plan_steps(examples, TrainingConfig(batch_size=8, epochs=2), (1,)))


def test_shuffled_prompts_make_other_versions_and_shuffled_triples_the_same_as_ever():
    assert TrainingConfig().fingerprint() == TrainingConfig(shuffle="triples").fingerprint()
    assert "shuffle" not in TrainingConfig().fingerprint()
    assert TrainingConfig(shuffle="prompts").fingerprint()["shuffle"] == "prompts"


def test_prompts_that_are_contrasted_with_each_other_are_not_put_together():
    with pytest.raises(ValueError, match="`contrast: batch` needs different ones"):
        TrainingConfig(shuffle="prompts", contrast="batch")
    TrainingConfig(shuffle="prompts", contrast="batch", contrastive=0.0)


# --- check before training -------------------------------------------------------------------------------------------


def layout_for(model, examples) -> BatchLayout:
    training = TrainingConfig(batch_size=8, shuffle="prompts")
    table, layout = ExampleTable.of(examples), BatchLayout(0, (1,), None, CPU)
    return choose_layout(TripleLoss(model, PAPER, 64), table, layout, training, (1,))


def with_attention(model, attention: str):
    """A model whose config names an implementation of attention that is not there."""
    model.config._attn_implementation = attention
    return model


def long_prompts(outputs: int = 4) -> list[Example]:
    prompts = [tuple(range(5 + p, 35 + p)) for p in range(2)]
    return [
        Example(f"{p}-{n}", (prompt,), (), (40 + n, 50, 51), 1.0)
        for p, prompt in enumerate(prompts)
        for n in range(outputs)
    ]


@pytest.mark.usefixtures("alone")
def test_a_model_that_takes_any_mask_is_trained_in_packed_rows(build_model, caplog):
    model = build_model("llama", sharpness=3.0)
    assert layout_for(model, long_prompts()).packing == Packing(16)
    assert caplog.messages == []


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("attention", STAND_INS)
def test_a_model_whose_attention_needs_no_padding_is_compared_and_packed(attention, build_model, caplog, monkeypatch):
    model = build_model("llama", sharpness=3.0)
    use(model, attention, monkeypatch)
    assert layout_for(model, long_prompts()).packing == packing_of(attention, 16)
    assert not [record for record in caplog.records if record.name.startswith("hir_core")]


@pytest.mark.usefixtures("alone")
def test_where_packing_saves_nothing_it_is_not_tried(build_model, caplog):
    model = build_model("llama")
    assert layout_for(model, long_prompts(outputs=1)[:1]).packing is None
    assert caplog.messages == []


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: small("gemma2", sliding_window=16), "its attention reaches 16 tokens back, fewer than 33"),
        (lambda: with_attention(small("qwen3"), "flash_attention_3"), "its attention, flash_attention_3, takes"),
        (
            lambda: transformers.FalconForCausalLM(
                transformers.FalconConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
            ),
            "it takes no mask of one's own",
        ),
    ],
    ids=["window", "attention", "no mask"],
)
def test_models_that_cannot_be_packed_keep_a_row_per_output_and_one_line_says_so(make, reason, caplog):
    with caplog.at_level(logging.WARNING):
        assert layout_for(make(), long_prompts()).packing is None
    [message] = caplog.messages
    assert reason in message
    assert message.endswith("every output is trained in a row of its own")


@pytest.mark.usefixtures("alone")
def test_a_model_that_computes_something_else_in_packed_rows_is_found(build_model, caplog):
    """Here one that counts positions itself, along the row."""
    model = build_model("llama", sharpness=3.0)
    forward = model.model.forward
    model.model.forward = lambda *args, position_ids=None, **inputs: forward(*args, **inputs)
    assert layout_for(model, long_prompts()).packing is None
    assert "% off in rows of several outputs" in caplog.text


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("sharpness", [6.0, 20.0])
@pytest.mark.parametrize("is_wrong", [False, True], ids=["right", "wrong positions"])
def test_in_bf16_rounding_is_told_from_a_wrong_position(is_wrong, sharpness, build_model, caplog):
    """However far the distributions are from flat, for likely outputs and unlikely ones."""
    model = build_model("llama", sharpness=sharpness).bfloat16()
    examples = long_prompts()
    for n in (0, 4):
        likely = model.generate(torch.tensor([examples[n].prompts[0]]), max_new_tokens=3, do_sample=False)[0, -3:]
        examples[n] = dataclasses.replace(examples[n], target_ids=tuple(likely.tolist()))
    if is_wrong:
        forward = model.model.forward
        model.model.forward = lambda *args, position_ids=None, **inputs: forward(*args, **inputs)
    assert (layout_for(model, examples).packing is None) == is_wrong
    assert ("% off in rows of several outputs" in caplog.text) == is_wrong
