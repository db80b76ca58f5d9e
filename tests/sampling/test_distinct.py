"""Distinct samples: never drawn twice, with the probabilities of draws without replacement, whatever the batch."""

import dataclasses
import math
from collections import Counter

import pytest
import torch
import transformers
from sampled_rows import CPU, MANY_ENDS, Recorder, make_requests, same_tokens, sampled, within
from zero_tables import plain_logprobs

from hir_core.config.sampling import SamplingConfig
from hir_core.sampling import transformers_engine
from hir_core.sampling.completions import Request, row_seed
from hir_core.sampling.draw import Limits

LIMITS = Limits(1.0, 3, (1,), 0)


def distinct(requests):
    return [dataclasses.replace(request, distinct=True) for request in requests]


@pytest.fixture(scope="module", params=["llama", "t5"])
def model(request, build_model):
    """Sharp enough that independent samples of a prompt are often equal."""
    return build_model(request.param, sharpness=12.0 if request.param == "llama" else 4.0)


@pytest.fixture(scope="module")
def small_model():
    """Five tokens, so that all outputs of up to three tokens can be listed."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=5, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(12)
    return model


@torch.no_grad()
def all_outputs(model, prompt: tuple[int, ...]) -> dict[tuple[int, ...], float]:
    """The probability of every output."""
    found = {}
    unfinished: list[tuple[int, ...]] = [()]
    while unfinished:
        output = unfinished.pop()
        for token in range(5):
            longer = (*output, token)
            if token == 1 or len(longer) == LIMITS.max_new_tokens:
                found[longer] = math.exp(float(plain_logprobs(model, prompt, longer).sum()))
            else:
                unfinished.append(longer)
    assert sum(found.values()) == pytest.approx(1, abs=1e-4)
    return found


def test_pairs_have_the_probability_of_draws_without_replacement(small_model):
    """p(a) p(b) / (1 - p(a)), from 20,000 prompts that are all the same; independent pairs would be far from it."""
    prompt, count = (2, 3, 4), 20_000
    p = all_outputs(small_model, prompt)
    assert 0.2 < max(p.values()) < 0.9
    seeds = [tuple(row_seed(1, n, k) for k in range(2)) for n in range(count)]
    requests = [Request(f"{n:05}", prompt, seeds[n], distinct=True) for n in range(count)]
    drawn = sampled(small_model, requests, LIMITS, 10**6)
    pairs = Counter((drawn[r.key, 0].token_ids, drawn[r.key, 1].token_ids) for r in requests)
    expected = {(a, b): p[a] * p[b] / (1 - p[a]) for a in p for b in p if a != b}
    assert sum(expected.values()) == pytest.approx(1, abs=1e-3)
    assert pairs.keys() <= expected.keys()
    distance = sum(abs(pairs[pair] / count - share) for pair, share in expected.items()) / 2
    independent = sum(abs(pairs[a, b] / count - p[a] * p[b]) for a in p for b in p) / 2
    assert distance < 0.03
    assert independent > 0.15


def test_all_outputs_are_drawn_once_and_then_repeated_without_an_error(small_model):
    """85 outputs of up to three tokens; the probability of the last ones is rounding."""
    prompt = (2, 3, 4)
    p = all_outputs(small_model, prompt)
    request = Request("p", prompt, tuple(row_seed(2, k) for k in range(len(p) + 5)), distinct=True)
    completions = list(transformers_engine.complete(small_model, [request], LIMITS, CPU))
    outputs = [completion.token_ids for completion in completions]
    likely = {output for output, share in p.items() if share > 1e-4}
    assert likely <= set(outputs[: len(p)]) <= p.keys()
    assert len(set(outputs[: len(likely)])) == len(likely)
    assert len(outputs) == len(p) + 5
    assert all(math.isfinite(logprob) for completion in completions for logprob in completion.logprobs)


def test_no_output_is_repeated_and_the_first_is_the_independent_one(model):
    limits, requests = Limits(1.0, 8, MANY_ENDS, 0), make_requests(60)
    independent, drawn = sampled(model, requests, limits), sampled(model, distinct(requests), limits)
    assert independent.keys() == drawn.keys()
    for request in requests:
        assert len({drawn[request.key, k].token_ids for k in range(4)}) == 4
        assert drawn[request.key, 0].token_ids == independent[request.key, 0].token_ids
        for k in range(4):
            expected = plain_logprobs(model, request.prompt_ids, drawn[request.key, k].token_ids)
            torch.testing.assert_close(
                torch.tensor(drawn[request.key, k].logprobs), expected.detach(), rtol=1e-3, atol=1e-3
            )
    assert len({(key, row.token_ids) for (key, _), row in independent.items()}) < 240


def test_distinct_rows_draw_the_same_tokens_in_any_batch(model, monkeypatch):
    """Also where prompts enter while others are drawn, and where several tokens are drawn before one is read."""
    limits, requests = Limits(1.0, 8, MANY_ENDS, 0), distinct(make_requests(100))
    usual = sampled(model, requests, limits, 10**6)
    for batch_tokens, steps in ((1, 1), (400, 1), (1200, 4)):
        monkeypatch.setattr(transformers_engine, "STEPS_BETWEEN_READS", {"cpu": steps})
        completions = list(transformers_engine.complete(model, requests, limits, CPU, within(batch_tokens, 8)))
        assert same_tokens(usual, {(c.key, c.k): c for c in completions}) >= 398
        keys = [completion.key for completion in completions]
        assert keys == [key for key in dict.fromkeys(keys) for _ in range(4)]


def test_each_prompt_is_read_once_and_the_rows_stay_within_the_budget(model, monkeypatch):
    requests = distinct(make_requests(60))
    record = Recorder(model, monkeypatch)
    limits = Limits(1.0, 8, MANY_ENDS, 0)
    list(transformers_engine.complete(model, requests, limits, CPU, within(400, 8)))
    shortest = min(len(request.prompt_ids) for request in requests) + 8
    assert max(rows for rows, _ in record.shapes) <= 400 // shortest
    if not model.config.is_encoder_decoder:
        read = sum(rows * width for rows, width in record.shapes if width > 1)
        assert read < 1.5 * sum(len(request.prompt_ids) for request in requests)


def test_ranks_that_wait_for_each_other_draw_distinct_outputs(model):
    limits, requests, other_is_unfinished = Limits(1.0, 6, MANY_ENDS, 0), distinct(make_requests(3)), iter([True] * 200)

    def any_rank_is_unfinished(is_unfinished: bool) -> bool:
        return next(other_is_unfinished, False) or is_unfinished

    alone = list(transformers_engine.complete(model, requests, limits, CPU))
    together = list(transformers_engine.complete(model, requests, limits, CPU, None, any_rank_is_unfinished))
    assert together == alone


def test_a_rank_that_waits_stays_within_the_positions_of_its_model():
    """BART's decoder has 16 positions; the other rank draws 60 tokens more."""
    torch.manual_seed(1)
    config = transformers.BartConfig(
        vocab_size=300, d_model=16, max_position_embeddings=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16,
        decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2, pad_token_id=0, bos_token_id=0,
        eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    bart, others = transformers.AutoModelForSeq2SeqLM.from_config(config).eval(), iter([True] * 60)
    limits, requests = Limits(1.0, 6, MANY_ENDS, 0), distinct(make_requests(3, longest=10))

    def any_rank_is_unfinished(is_unfinished: bool) -> bool:
        return next(others, False) or is_unfinished

    alone = list(transformers_engine.complete(bart, requests, limits, CPU))
    assert list(transformers_engine.complete(bart, requests, limits, CPU, None, any_rank_is_unfinished)) == alone


def test_prompts_are_let_go_once_their_last_output_is_begun(model, monkeypatch):
    """Those of independent samples at once."""
    kept = []
    enter = transformers_engine._Batch._enter

    def entered(batch, *given):
        enter(batch, *given)
        kept.append([prompt.read is not None for prompt in batch.open_prompts])

    monkeypatch.setattr(transformers_engine._Batch, "_enter", entered)
    limits = Limits(1.0, 8, MANY_ENDS, 0)
    list(transformers_engine.complete(model, make_requests(20), limits, CPU, within(400, 8)))
    assert len(kept) > 2
    assert not any(map(any, kept))
    kept.clear()
    list(transformers_engine.complete(model, distinct(make_requests(20)), limits, CPU, within(400, 8)))
    assert any(map(any, kept))
    assert not any(kept[-1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.7}, "or temperature"),
        ({"top_p": 0.9, "top_k": 1}, "or top_p and top_k"),
        ({"min_p": 1.0}, "or min_p"),
        ({"engine": {"type": "vllm", "release": "0.32.0", "python": "/x"}}, "vLLM cannot draw distinct outputs"),
    ],
)
def test_distinct_outputs_are_drawn_from_the_models_own_distribution(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(distinct=True, **settings)
    assert SamplingConfig(distinct=True, temperature=1.0).distinct
    assert "distinct" not in SamplingConfig().fingerprint()
