"""Every term of the loss has the value that the paper's formula gives by hand, however the logits are computed."""

import math
from dataclasses import replace

import pytest
import torch
import transformers

from hir_core.errors import ConfigError
from hir_core.training.batches import Batch, collate
from hir_core.training.examples import Example, Totals, step_totals
from hir_core.training.losses import Coefficients, TokenStats, contrastive, loss_terms
from hir_core.training.steps import contrast_in_batch
from hir_core.training.triple_loss import PositionStats, TripleLoss

PLAIN = Coefficients(label_smoothing=0.0, contrastive=0.0, entropy=0.0)
PAPER = Coefficients(label_smoothing=0.2, contrastive=1.0, entropy=0.001)
PUBLISHED = replace(PAPER, contrastive_smoothing=0.2, contrastive_per_token=True)


def example(target: tuple[int, ...], *prompts: tuple[int, ...], weight: float = 1.0, prefix=()) -> Example:
    return Example("key", prompts or ((5,),), tuple(prefix), target, weight)


def batch_of(*examples: Example, start: int | None = None) -> Batch:
    return collate(examples, pad_id=0, decoder_start_id=start)


def stats_of(logits: torch.Tensor, target_ids: torch.Tensor) -> TokenStats:
    """Of logits [M, V] that predict one target each."""
    logprobs, means, entropies = PositionStats.apply(logits, target_ids[:, None], True)
    return TokenStats(logprobs[:, 0], means, entropies)


# --- terms by hand ---------------------------------------------------------------------------------------------------


def test_the_statistics_of_a_coin():
    """p = (3/4, 1/4): log p0 = -0.28768, mean = (-0.28768 - 1.38629) / 2 = -0.83699, entropy = 0.56234."""
    found = stats_of(torch.tensor([[0.75, 0.25]]).log() + 7, torch.tensor([0]))
    assert found.logprobs.item() == pytest.approx(-0.28768, abs=1e-5)
    assert found.mean_logprobs.item() == pytest.approx(-0.83699, abs=1e-5)
    assert found.entropies.item() == pytest.approx(0.56234, abs=1e-5)


def test_label_smoothing_mixes_the_target_with_the_mean_over_the_vocabulary():
    """0.8 * 0.28768 + 0.2 * 0.83699 = 0.39754 for one token of the coin above."""
    batch, stats = batch_of(example((1,))), stats_of(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([0]))
    terms = loss_terms(stats, batch, Totals(1, 1), Coefficients(0.2, 0, 0))
    assert terms["supervised"].item() == pytest.approx(0.39754, abs=1e-5)
    assert terms["loss"].item() == terms["supervised"].item()


def test_supervised_is_what_torch_calls_cross_entropy_with_label_smoothing():
    logits, target = torch.randn(6, 11, generator=torch.manual_seed(1)), torch.arange(6)
    terms = loss_terms(stats_of(logits, target), batch_of(example(tuple(range(6)))), Totals(6, 1), PAPER)
    expected = torch.nn.functional.cross_entropy(logits, target, label_smoothing=0.2)
    torch.testing.assert_close(terms["supervised"], expected)


def test_contrastive_compares_outputs_not_tokens():
    """Own tokens log 1/2 + log 1/4, under the other instruction log 1/8 + log 1/8: P = 1/8 against 1/64.

    -log(1/8 / (1/8 + 1/64)) = log(9/8) = 0.11778. Per-token means would give log(1 + 0.354) = 0.303.
    """
    batch = batch_of(example((7, 1), (5,), (6,)))
    logprobs = torch.tensor([1 / 2, 1 / 4, 1 / 8, 1 / 8]).log()
    assert contrastive(logprobs, batch, PAPER).tolist() == pytest.approx([math.log(9 / 8)])


def test_contrastive_takes_any_number_of_instructions():
    """Three instructions under which the output has probabilities 1/2, 1/4 and 1/4: -log(1/2) = 0.69315."""
    batch = batch_of(example((1,), (5,), (6,), (7,)), example((1,), (8,), (9,)))
    logprobs = torch.tensor([1 / 2, 1 / 10, 1 / 4, 1 / 4, 3 / 10]).log()
    assert contrastive(logprobs, batch, PAPER).tolist() == pytest.approx([math.log(2), math.log(4)])


def test_contrastive_per_token_compares_means():
    """The outputs above, by their means of -1.03972 and -2.07944 nats: log(1 + e^-1.03972) = 0.30273."""
    batch = batch_of(example((7, 1), (5,), (6,)))
    logprobs = torch.tensor([1 / 2, 1 / 4, 1 / 8, 1 / 8]).log()
    per_token = replace(PAPER, contrastive_per_token=True)
    assert contrastive(logprobs, batch, per_token).tolist() == pytest.approx([0.30273], abs=1e-5)


def test_a_smoothed_contrast_gives_the_others_their_share():
    """Odds 1/2, 1/4, 1/4 with a share of 0.2 for the others: -0.8 log(1/2) - 0.2 log(1/4) = 0.83178."""
    smoothed, batch = replace(PAPER, contrastive_smoothing=0.2), batch_of(example((1,), (5,), (6,), (7,)))
    found = contrastive(torch.tensor([1 / 2, 1 / 4, 1 / 4]).log(), batch, smoothed)
    assert found.tolist() == pytest.approx([0.83178], abs=1e-5)


def test_a_smoothed_contrast_stops_pulling_at_its_odds():
    """With 0.2 the gradient is 0 where the own instruction is log(0.8 / 0.2) = 1.38629 nats ahead."""
    logprobs = torch.tensor([-1.0, -1.0 - math.log(4)], requires_grad=True)
    contrastive(logprobs, batch_of(example((1,), (5,), (6,))), PUBLISHED).sum().backward()
    assert logprobs.grad.tolist() == pytest.approx([0, 0], abs=1e-6)


def test_in_a_batch_every_output_is_contrasted_with_the_other_queries():
    """Four outputs, of which two answer the same prompt: the others' prompts, each once, own first, in blocks of 3."""
    step = [example((n,), prompt) for n, prompt in enumerate([(5,), (6,), (5,), (7,)])]
    contrasted = [example.prompts for example in contrast_in_batch(step, ways=3)]
    assert contrasted == [((5,), (6,)), ((6,), (5,)), ((5,), (6,)), ((7,),)]


def test_the_in_batch_contrast_is_the_papers_formula():
    """P_ik = log P(o_i | q_k, p_k) of three pairs: -log(exp P_ii / sum_k exp P_ik), by hand for each row of the table.

    Rows (1/2, 1/4, 1/4), (1/8, 1/2, 3/8) and (1/10, 1/10, 4/5): -log of 1/2, 1/2 and 4/5.
    """
    batch = batch_of(*contrast_in_batch([example((1,), (5,)), example((2,), (6,)), example((3,), (7,))], ways=3))
    logprobs = torch.tensor([1 / 2, 1 / 2, 4 / 5, 1 / 4, 1 / 4, 1 / 8, 3 / 8, 1 / 10, 1 / 10]).log()
    found = contrastive(logprobs, batch, PAPER).tolist()
    assert found == pytest.approx([math.log(2), math.log(2), -math.log(4 / 5)])


def test_contrastive_survives_outputs_that_no_float_could_hold():
    """Sums of -2,000 and -2,003 nats, whose exponentials are 0: log(1 + e^-3) = 0.04859."""
    logprobs = torch.tensor([-2000.0, -2003.0])
    assert contrastive(logprobs, batch_of(example((1,), (5,), (6,))), PAPER).item() == pytest.approx(0.04859, abs=1e-4)


def test_contrastive_is_exactly_zero_without_a_contrast():
    logprobs = (torch.randn(5) * 30).requires_grad_()
    found = contrastive(logprobs, batch_of(example((1, 2, 3)), example((4, 5))), PUBLISHED)
    assert found.tolist() == [0.0, 0.0]
    found.sum().backward()
    assert logprobs.grad.tolist() == [0.0] * 5


def test_entropy_is_negative_and_counts_the_own_instruction_only():
    """Two tokens of entropy 0.3 and 0.5 under the own instruction, 9 under the other: -(0.3 + 0.5) / 2."""
    stats = TokenStats(torch.zeros(4), torch.zeros(4), torch.tensor([0.3, 0.5, 9.0, 9.0]))
    terms = loss_terms(stats, batch_of(example((7, 1), (5,), (6,))), Totals(2, 1), Coefficients(0, 0, 2.0))
    assert terms["entropy"].item() == pytest.approx(-0.4)
    assert terms["loss"].item() == pytest.approx(-0.8)


def test_weights_scale_triples_and_totals_are_those_of_the_whole_step():
    """Weight 1 with one token at 2 nats, weight 3 with two tokens at 1 nat each; 7 weighted tokens, 4 weighted triples.

    supervised = (1 * 2 + 3 * (1 + 1)) / 7 = 8/7; contrastive = (1 * log 2 + 3 * 0) / 4.
    """
    examples = [example((1,), (5,), (6,), weight=1.0), example((7, 1), weight=3.0)]
    stats = TokenStats(torch.tensor([-2.0, -1.0, -1.0, -2.0]), torch.zeros(4), torch.zeros(4))
    totals = step_totals(examples)
    assert totals == Totals(tokens=7, triples=4)
    terms = loss_terms(stats, batch_of(*examples), totals, Coefficients(0, 0.5, 0))
    assert terms["supervised"].item() == pytest.approx(8 / 7)
    assert terms["contrastive"].item() == pytest.approx(math.log(2) / 4)
    assert terms["loss"].item() == pytest.approx(8 / 7 + 0.5 * math.log(2) / 4)


@pytest.mark.parametrize("coefficients", [PAPER, PUBLISHED], ids=["as in the paper", "as published"])
def test_gradients_of_the_whole_loss_are_those_of_finite_differences(coefficients):
    examples = [example((1, 2), (5,), (6,), (7,), weight=0.5), example((3,), (5,), (6,)), example((4, 5, 6))]
    batch, totals = batch_of(*examples), step_totals(examples)
    logits = torch.randn(len(batch.target_ids), 9, generator=torch.manual_seed(2), dtype=torch.float64)
    batch = Batch(**{**vars(batch), "weights": batch.weights.double()})

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return loss_terms(stats_of(logits, batch.target_ids), batch, totals, coefficients)["loss"]

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())


# --- logits in chunks ------------------------------------------------------------------------------------------------

EXAMPLES = (
    example((20, 21, 1), (5, 6, 7), (8, 9), weight=2.0),
    example((22,), (10, 11, 12, 13), prefix=(30, 31)),
    example((23, 24, 25, 26, 1), (14,), (15, 16, 17), (18, 19)),
)


def full_logits_loss(model, batch: Batch) -> torch.Tensor:
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if batch.decoder_input_ids is not None:
        inputs = {name: values[batch.encoder_rows] for name, values in inputs.items()}
        inputs["decoder_input_ids"] = batch.decoder_input_ids
    stats = stats_of(model(**inputs).logits.flatten(0, 1)[batch.target_positions], batch.target_ids)
    return loss_terms(stats, batch, step_totals(EXAMPLES), PAPER)["loss"]


def gradients(model) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    return found


def flan_like(model):
    """A T5 with a separate head, whose input is not scaled."""
    model.config.scale_decoder_outputs = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape))
    return model


def gemma(**settings):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma2Config(vocab_size=300, num_key_value_heads=1, head_dim=8, **sizes, **settings)
    return transformers.Gemma2ForCausalLM(config)


def cohere(scale: float):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return transformers.CohereForCausalLM(transformers.CohereConfig(vocab_size=300, logit_scale=scale, **sizes))


@pytest.mark.parametrize("chunk", [1, 3, 10**6])
@pytest.mark.parametrize("kind", ["llama", "t5", "flan t5", "gemma, capped", "cohere, scaled"])
def test_logits_in_chunks_give_the_loss_and_gradients_of_full_logits(kind, chunk, build_model):
    models = {
        "llama": lambda: build_model("llama"),
        "t5": lambda: build_model("t5"),
        "flan t5": lambda: flan_like(build_model("t5")),
        "gemma, capped": lambda: gemma(final_logit_softcapping=0.5),
        "cohere, scaled": lambda: cohere(0.3),
    }
    model = models[kind]().double().eval()
    batch = batch_of(*EXAMPLES, start=0 if "t5" in kind else None)
    expected = full_logits_loss(model, batch)
    expected.backward()
    expected_gradients = gradients(model)
    loss, terms = TripleLoss(model, PAPER, chunk)(batch, step_totals(EXAMPLES), 1.0)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)  # weights and totals are fp32
    torch.testing.assert_close(gradients(model), expected_gradients, rtol=1e-6, atol=1e-9)
    assert terms["loss"].item() == loss.item()


def test_t5_with_tied_embeddings_scales_what_enters_its_head(build_model):
    """So that the test above would see a head that is fed the unscaled states."""
    model = build_model("t5")
    batch = batch_of(*EXAMPLES, start=0)
    states: list[torch.Tensor] = []
    model.decoder.register_forward_hook(lambda *found: states.append(found[2].last_hidden_state))
    hidden, _ = TripleLoss(model, PAPER, 8)._hidden(batch)
    torch.testing.assert_close(hidden, states[0].flatten(0, 1)[batch.positions] * 16**-0.5)


def test_the_head_is_called_as_often_for_many_targets_as_for_one(build_model):
    """Under ZeRO-3 each call is a collective: ranks with more targets would wait for the others for ever."""
    model, calls = build_model("llama"), []
    model.get_output_embeddings().register_forward_hook(lambda *_: calls.append(1))
    for few_or_many in ((example((1,)),), EXAMPLES):
        loss, _ = TripleLoss(model, PLAIN, 1)(batch_of(*few_or_many), Totals(1, 1), 1.0)
        loss.backward()
    assert len(calls) == 4


def test_the_scale_changes_the_gradient_and_not_the_reported_terms(build_model):
    module, batch = TripleLoss(build_model("llama"), PAPER, 4), batch_of(*EXAMPLES)
    loss, terms = module(batch, step_totals(EXAMPLES), 8.0)
    assert loss.item() == pytest.approx(8 * terms["loss"].item(), rel=1e-6)
    assert not any(term.requires_grad for term in terms.values())


def test_a_model_that_changes_its_logits_in_an_unknown_way_is_refused():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = transformers.GraniteForCausalLM(transformers.GraniteConfig(vocab_size=300, logits_scaling=8.0, **sizes))
    model.get_output_embeddings().weight.data *= 10
    with pytest.raises(ConfigError, match="GraniteForCausalLM changes its logits after the output head"):
        TripleLoss(model, PLAIN, 4)(batch_of(*EXAMPLES), Totals(1, 1), 1.0)


def test_the_models_own_head_is_left_as_it_was(build_model):
    model = build_model("llama")
    before = model(torch.tensor([[5, 6, 7]])).logits
    TripleLoss(model, PLAIN, 1)(batch_of(*EXAMPLES), Totals(1, 1), 1.0)
    torch.testing.assert_close(model(torch.tensor([[5, 6, 7]])).logits, before, rtol=0, atol=0)
