"""The soft targets of excluded outputs are the model conditioned on not writing them, by brute force over all outputs.

Over a vocabulary of five tokens every output of up to three tokens is written down with its probability, so that the
conditioned distribution is known exactly.
"""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
import transformers

from hir_core.training import teacher
from hir_core.training.batches import BatchLayout
from hir_core.training.example_table import ExampleTable
from hir_core.training.examples import Example, Exclusion, step_totals
from hir_core.training.exclusion import LARGEST_REMOVED, NextToken, ScoredOutput, SoftTarget, soft_targets
from hir_core.training.losses import Coefficients
from hir_core.training.packing import Packing
from hir_core.training.triple_loss import TripleLoss

TOKENS, END, LONGEST = range(5), 0, 3
CPU = torch.device("cpu")
Output = tuple[int, ...]
ONLY_EXCLUSION = Coefficients(label_smoothing=0.0, contrastive=0.0, entropy=0.0, exclusion=1.0)


def is_whole(output: Output) -> bool:
    return len(output) == LONGEST or END in output


OUTPUTS = [
    output
    for length in range(1, LONGEST + 1)
    for output in itertools.product(TOKENS, repeat=length)
    if is_whole(output) and END not in output[:-1]
]
PREFIXES = [
    prefix for length in range(LONGEST) for prefix in itertools.product(TOKENS, repeat=length) if END not in prefix
]


def random_policy(seed: int, sharpness: float = 1.5) -> dict[Output, torch.Tensor]:
    """The logits [5] of the next token after each prefix."""
    draws = torch.Generator().manual_seed(seed)
    return {prefix: sharpness * torch.randn(5, generator=draws, dtype=torch.float64) for prefix in PREFIXES}


def next_probabilities(policy: Mapping[Output, torch.Tensor], prefix: Output) -> list[float]:
    return torch.softmax(policy[prefix], -1).tolist()


def output_logprob(policy: Mapping[Output, torch.Tensor], output: Output) -> torch.Tensor:
    logprobs = [torch.log_softmax(policy[output[:place]], -1)[token] for place, token in enumerate(output)]
    return torch.stack(logprobs).sum()


def scored(policy: Mapping[Output, torch.Tensor], output: Output, removed: float, top: int) -> ScoredOutput:
    logprobs, next_tokens = [], []
    for place, token in enumerate(output):
        probabilities = next_probabilities(policy, output[:place])
        logprobs.append(math.log(probabilities[token]))
        likeliest = sorted(TOKENS, key=lambda token: -probabilities[token])[:top]
        next_tokens.append(NextToken(tuple(likeliest), tuple(probabilities[token] for token in likeliest)))
    return ScoredOutput(output, removed, tuple(logprobs), tuple(next_tokens))


def conditioned(policy: Mapping[Output, torch.Tensor], removed: Mapping[Output, float]) -> dict[Output, float]:
    """p*(o) of every output, by the definition."""
    left = {
        output: math.exp(output_logprob(policy, output).item()) * (1 - removed.get(output, 0.0)) for output in OUTPUTS
    }
    return {output: value / sum(left.values()) for output, value in left.items()}


def passing(distribution: Mapping[Output, float], prefix: Output) -> float:
    """The probability that an output begins with the prefix."""
    return sum(value for output, value in distribution.items() if output[: len(prefix)] == prefix)


def by_prefix(outputs: Sequence[ScoredOutput]) -> dict[Output, SoftTarget]:
    """The soft targets of outputs; each prefix has exactly one."""
    found: dict[Output, SoftTarget] = {}
    for output, targets in zip(outputs, soft_targets(outputs), strict=True):
        assert len(targets) == len(output.target_ids)
        for place, target in enumerate(targets):
            if target is not None:
                assert output.target_ids[:place] not in found
                found[output.target_ids[:place]] = target
    return found


def drawn_exclusions(seed: int, kind: str) -> dict[Output, float]:
    """Some outputs and the shares that are removed of each: all of it, the same part, or parts that differ."""
    draw = random.Random(seed)
    chosen = draw.sample(OUTPUTS, draw.randint(1, 12))
    share = {"hard": lambda: 1.0, "soft": lambda: 0.6, "graded": draw.random}[kind]
    return {output: share() for output in chosen}


@pytest.mark.parametrize("kind", ["hard", "soft", "graded"])
def test_targets_are_the_conditioned_distribution_by_brute_force(kind):
    """To 1e-6: the next-token distributions of p*, and R() times its probability at each prefix, in 60 random cases."""
    compared = 0
    for seed in range(60):
        policy, removed = random_policy(seed), drawn_exclusions(seed, kind)
        total = sum(r * math.exp(output_logprob(policy, output).item()) for output, r in removed.items())
        if total > LARGEST_REMOVED:
            removed = {output: r * LARGEST_REMOVED / total for output, r in removed.items()}
        total = min(total, LARGEST_REMOVED)
        star = conditioned(policy, removed)
        targets = by_prefix([scored(policy, output, r, top=5) for output, r in drawn_exclusions(seed, kind).items()])
        assert set(targets) >= {output[:place] for output in removed for place in range(len(output))} - {
            prefix for prefix in PREFIXES if passing(star, prefix) < 1e-5
        }
        for prefix, target in targets.items():
            assert target.weight == pytest.approx(total * passing(star, prefix), abs=1e-6)
            assert target.rest == pytest.approx(0, abs=1e-9)
            for token, probability in zip(target.tokens, target.probabilities, strict=True):
                expected = passing(star, (*prefix, token)) / passing(star, prefix)
                assert probability == pytest.approx(expected, abs=1e-6)
                compared += 1
    assert compared > 500


def test_tokens_that_are_not_kept_are_one_sum():
    policy, removed = random_policy(3), {(1, 0): 1.0, (1, 2, 0): 1.0, (3, 4, 4): 0.5}
    star = conditioned(policy, removed)
    targets = by_prefix([scored(policy, output, r, top=1) for output, r in removed.items()])
    for prefix, target in targets.items():
        of_named = [passing(star, (*prefix, token)) / passing(star, prefix) for token in target.tokens]
        assert target.probabilities == pytest.approx(of_named, abs=1e-9)
        assert target.rest == pytest.approx(1 - sum(of_named), abs=1e-9)
        assert {output[len(prefix)] for output in removed if output[: len(prefix)] == prefix} <= set(target.tokens)
    assert any(target.rest > 0.1 for target in targets.values())


def test_a_prompt_whose_whole_probability_is_excluded_keeps_a_part_of_it():
    """Nothing would be left to learn from: at most 95 % are removed, from every output the same share."""
    policy = random_policy(5)
    targets = by_prefix([scored(policy, output, 1.0, top=5) for output in OUTPUTS])
    for prefix, target in targets.items():  # what is left is the distribution that was there
        now = next_probabilities(policy, prefix)
        assert target.probabilities == pytest.approx([now[token] for token in target.tokens], abs=1e-6)


# --- the loss --------------------------------------------------------------------------------------------------------


def tiny_model(architecture: str) -> torch.nn.Module:
    """A random model in float64 whose vocabulary is the five tokens."""
    torch.manual_seed(4)
    if architecture == "llama":
        sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = transformers.LlamaConfig(vocab_size=5, max_position_embeddings=16, pad_token_id=0, **sizes)
        model = transformers.LlamaForCausalLM(config)
    else:
        sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
        config = transformers.T5Config(vocab_size=5, pad_token_id=0, decoder_start_token_id=0, **sizes)
        model = transformers.T5ForConditionalGeneration(config)
    for parameter in model.parameters():
        parameter.data *= 4
    return model.double().eval()


def excluded(prompt: Output, output: Output, removed: float = 1.0) -> Example:
    return Example(f"{prompt}{output}", (prompt,), (), output, 0.0, Exclusion(0, removed, share=1.0))


def policy_of(model: torch.nn.Module, layout: BatchLayout, prompt: Output) -> dict[Output, torch.Tensor]:
    """The model's logits after every prefix."""
    policy = {}
    for prefix in PREFIXES:
        if layout.decoder_start_id is None:
            logits = model(torch.tensor([[*prompt, *prefix]])).logits
        else:
            start = torch.tensor([[layout.decoder_start_id, *prefix]])
            logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=start).logits
        policy[prefix] = logits[0, -1]
    return policy


WRONG = {(1, 2): [(1, 0), (1, 2, 0), (3, 0), (1, 2, 3)], (4, 1): [(0,), (2, 2, 2)]}
"""By prompt, the outputs that are excluded."""


@pytest.mark.parametrize(("architecture", "packed"), [("llama", None), ("llama", Packing(10**6)), ("t5", None)])
def test_at_the_start_the_gradient_is_that_of_the_excluded_probability(architecture, packed, alone):
    """Of -R log(1 - p(W)) with R = p(W) held, the mean over prompts, through teacher, batches, one forward pass."""
    model = tiny_model(architecture)
    layout = BatchLayout(0, (END,), 0 if architecture == "t5" else None, CPU, packed)
    module = TripleLoss(model, ONLY_EXCLUSION, logits_chunk=3)
    plain = ExampleTable.of(excluded(prompt, output) for prompt, outputs in WRONG.items() for output in outputs)
    examples = list(teacher.with_soft_targets(module, plain, layout, most_tokens=12, top=5))
    loss, terms = module(layout.collate(examples), step_totals(examples), 1.0)
    model.zero_grad()
    loss.backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    policies = {prompt: policy_of(model, layout, prompt) for prompt in WRONG}
    excluded_probability = {
        prompt: torch.stack([output_logprob(policies[prompt], output) for output in outputs]).exp().sum()
        for prompt, outputs in WRONG.items()
    }
    expected = torch.stack([-p.detach() * torch.log1p(-p) for p in excluded_probability.values()]).mean()
    # At the start KL(p* || p) is -log(1 - p(W)) as well.
    assert terms["exclusion"].item() == pytest.approx(expected.item(), abs=2e-6)
    expected.backward()
    for gradient, parameter in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, atol=2e-6, rtol=1e-4)


def test_training_on_nothing_else_reaches_the_conditioned_distribution(alone):
    """After 400 steps the model's outputs have p* for their probabilities, the excluded ones nearly none."""
    model, layout = tiny_model("llama"), BatchLayout(0, (END,), None, CPU, Packing(10**6))
    module = TripleLoss(model, ONLY_EXCLUSION, logits_chunk=64)
    prompt = (1, 2)
    star = conditioned(policy_of(model, layout, prompt), dict.fromkeys(WRONG[prompt], 1.0))
    plain = ExampleTable.of(excluded(prompt, output) for output in WRONG[prompt])
    examples = list(teacher.with_soft_targets(module, plain, layout, most_tokens=12, top=5))
    adam = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(400):
        adam.zero_grad()
        module(layout.collate(examples), step_totals(examples), 1.0)[0].backward()
        adam.step()
    trained = policy_of(model, layout, prompt)
    for prefix in {output[:place] for output in WRONG[prompt] for place in range(len(output))}:
        if passing(star, prefix) > 0.01:
            found = next_probabilities(trained, prefix)
            expected = [passing(star, (*prefix, token)) / passing(star, prefix) for token in TOKENS]
            assert found == pytest.approx(expected, abs=0.02)


def test_unlikelihood_is_the_log_of_what_is_left():
    """The sum over the excluded outputs of -r log(1 - p), divided by the prompts."""
    model, layout = tiny_model("llama"), BatchLayout(0, (END,), None, CPU)
    module = TripleLoss(model, replace(ONLY_EXCLUSION, is_unlikelihood=True), logits_chunk=64)
    examples = list(ExampleTable.of(excluded(p, output, 0.5) for p, outputs in WRONG.items() for output in outputs))
    _, terms = module(layout.collate(examples), step_totals(examples), 1.0)
    expected = sum(
        -0.5 * math.log1p(-math.exp(output_logprob(policy_of(model, layout, prompt), output).item()))
        for prompt, outputs in WRONG.items()
        for output in outputs
    )
    assert terms["exclusion"].item() == pytest.approx(expected / 2, abs=1e-6)


@pytest.mark.parametrize("form", ["conditioned", "unlikelihood"])
def test_micro_batches_and_other_triples_of_a_step_change_nothing(form, alone):
    """The exclusion term of a step is the sum over its micro-batches, beside triples that are taught, in any layout."""
    model, layout = tiny_model("llama"), BatchLayout(0, (END,), None, CPU)
    coefficients = replace(ONLY_EXCLUSION, contrastive=0.5, entropy=0.1, is_unlikelihood=form == "unlikelihood")
    module = TripleLoss(model, coefficients, logits_chunk=64)
    taught = [Example("a", ((1, 2),), (), (2, 0), 1.0), Example("b", ((4, 1), (4, 2)), (3,), (1, 0), 2.0)]
    both = Example("c", ((3, 3), (4, 1)), (), (2, 0), 0.5, Exclusion(1, 1.0, share=1.0))
    plain = [excluded(prompt, output) for prompt, outputs in WRONG.items() for output in outputs]
    table = ExampleTable.of([*taught, both, *plain])
    examples = list(teacher.with_soft_targets(module, table, layout, 12, top=2))
    totals, packed = step_totals(examples), replace(layout, packing=Packing(10**6))
    whole = module(layout.collate(examples), totals, 1.0)[1]
    assert whole["exclusion"] > 0.005
    for lay_out in (layout, packed):
        for size in (1, 2, 3, 9):
            parts = [
                module(lay_out.collate(examples[start : start + size]), totals, 1.0)[1]
                for start in range(0, len(examples), size)
            ]
            for name, value in whole.items():
                assert sum(part[name].item() for part in parts) == pytest.approx(value.item(), abs=1e-6)
