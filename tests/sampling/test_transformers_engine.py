"""Sampling: a row's tokens depend on its prompt and seed alone, and follow the model's distribution."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from sampled_rows import CPU, MANY_ENDS, Recorder, batches, make_requests, same_tokens, sampled, within
from zero_tables import plain_logprobs

from hir_core.sampling import draw as draw_module
from hir_core.sampling import transformers_engine
from hir_core.sampling.completions import Request, row_seed
from hir_core.sampling.draw import Limits, draw
from hir_core.sampling.stop_texts import StopTexts


@pytest.fixture(scope="module", params=["llama", "t5"])
def model(request, build_model):
    """A random model; Llama's weights are three times as large, so that its distributions differ between prompts."""
    return build_model(request.param, sharpness=3.0 if request.param == "llama" else 1.0)


# --- rows and batches ------------------------------------------------------------------------------------------------


def test_a_row_draws_the_same_tokens_in_any_batch(model):
    """1,000 rows in batches of 1,200 tokens, of 9,000 tokens, and of one prompt each, in reverse order."""
    limits, requests = Limits(1.0, 8, MANY_ENDS, 0), make_requests(250)
    small, large = sampled(model, requests, limits, 1200), sampled(model, requests, limits, 9000)
    assert len(small) == 1000
    assert same_tokens(small, large) >= 999
    single = {}
    for request in requests[::-5]:
        single |= sampled(model, [request], limits)
    assert same_tokens(single, {key: large[key] for key in single}) == len(single) == 200


def test_samples_of_a_prompt_differ_and_prompts_differ(model):
    completions = sampled(model, make_requests(20), Limits(1.0, 8, (1,), 0))
    assert len({completion.token_ids for completion in completions.values()}) == 80


def test_equal_seeds_give_equal_tokens_and_other_seeds_others(model):
    limits, requests = Limits(1.0, 8, (1,), 0), make_requests(20)
    assert same_tokens(sampled(model, requests, limits), sampled(model, requests, limits)) == 80
    other = [Request(r.key, r.prompt_ids, tuple(seed + 1 for seed in r.seeds)) for r in requests]
    assert same_tokens(sampled(model, requests, limits), sampled(model, other, limits)) < 4


@pytest.mark.parametrize("below", [0.0, 1.1])
def test_dropping_ended_rows_from_the_batch_changes_nothing(below, model, monkeypatch):
    limits, requests = Limits(1.0, 12, MANY_ENDS, 0), make_requests(50)
    usual = sampled(model, requests, limits)
    monkeypatch.setattr(transformers_engine, "REFILL_BELOW", below)
    assert same_tokens(usual, sampled(model, requests, limits)) == 200


def test_ranks_that_wait_for_each_other_draw_what_each_would_draw_alone(model):
    """Streamed weights: this rank has ended long before the other, and keeps making forward passes."""
    limits, requests, other_is_unfinished = Limits(1.0, 12, MANY_ENDS, 0), make_requests(3, k=2), iter([True] * 12)

    def any_rank_is_unfinished(is_unfinished: bool) -> bool:
        return next(other_is_unfinished, False) or is_unfinished

    alone = list(transformers_engine.complete(model, requests, limits, CPU))
    together = list(transformers_engine.complete(model, requests, limits, CPU, None, any_rank_is_unfinished))
    assert together == alone
    assert next(other_is_unfinished, None) is None


# --- tokens and log-probabilities ------------------------------------------------------------------------------------


def test_greedy_decoding_gives_what_transformers_generates(model):
    requests = make_requests(30, k=1)
    completions = sampled(model, requests, Limits(0.0, 10, (1,), 0), 600)
    for request in requests:
        generated = model.generate(
            torch.tensor([request.prompt_ids]), do_sample=False, max_new_tokens=10, eos_token_id=1, pad_token_id=0
        )[0].tolist()
        expected = generated[1:] if model.config.is_encoder_decoder else generated[len(request.prompt_ids) :]
        assert list(completions[request.key, 0].token_ids) == expected


def test_logprobs_are_those_of_one_plain_forward_pass(model):
    requests = make_requests(40, k=2)
    completions = sampled(model, requests, Limits(1.0, 8, (1,), 0))
    for request in requests:
        for k in range(2):
            completion = completions[request.key, k]
            with torch.no_grad():
                expected = plain_logprobs(model, request.prompt_ids, completion.token_ids)
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, rtol=0, atol=2e-5)


def test_logprobs_are_at_temperature_one_whatever_the_rows_were_drawn_at(model):
    request = make_requests(1, k=1)
    cold = sampled(model, request, Limits(0.0, 4, (1,), 0))["p000", 0]
    with torch.no_grad():
        expected = plain_logprobs(model, request[0].prompt_ids, cold.token_ids)
    assert cold.logprobs == pytest.approx(expected.tolist(), abs=2e-5)


def test_an_output_ends_with_the_first_end_token_or_at_the_limit(model):
    completions = sampled(model, make_requests(50), Limits(1.0, 6, MANY_ENDS, 0)).values()
    assert {completion.finish_reason for completion in completions} == {"eos", "length"}
    for completion in completions:
        ends = [token in MANY_ENDS for token in completion.token_ids]
        assert len(completion.logprobs) == len(ends) <= 6
        assert not any(ends[:-1])
        assert ends[-1] == (completion.finish_reason == "eos")
        assert ends[-1] or len(ends) == 6


# --- stop texts ------------------------------------------------------------------------------------------------------


def with_stop(tokenizer, limits: Limits, *texts: str) -> tuple[Limits, StopTexts]:
    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True))

    stop = StopTexts(texts, decode, tokenizer.all_special_ids)
    return dataclasses.replace(limits, has_stopped=stop.has_stopped), stop


def test_an_output_ends_where_its_text_first_holds_a_stop_text(build_model, tokenizer, monkeypatch):
    """As the same draws without stop texts, each cut after the token that completes one: in batches of any size."""
    model, plain = build_model("llama", sharpness=3.0), Limits(1.0, 24, (1,), 0)
    limits, stop = with_stop(tokenizer, plain, "s", "in", "do")
    requests, reasons = make_requests(60), Counter()
    expected = {}
    for key, whole in sampled(model, requests, plain).items():
        texts = [tokenizer.decode(whole.token_ids[:n], skip_special_tokens=True) for n in range(1, 25)]
        at = next((n for n, text in enumerate(texts, start=1) if any(one in text for one in stop.texts)), None)
        if at is not None:
            whole = dataclasses.replace(
                whole, token_ids=whole.token_ids[:at], logprobs=whole.logprobs[:at], finish_reason="stop"
            )
        expected[key] = whole.token_ids
        reasons[whole.finish_reason] += 1
    assert min(reasons[reason] for reason in ("eos", "stop", "length")) > 5
    for batch_tokens, steps in ((1200, 1), (10**6, 1), (900, 4)):
        monkeypatch.setattr(transformers_engine, "STEPS_BETWEEN_READS", {"cpu": steps})
        drawn = sampled(model, requests, limits, batch_tokens)
        assert sum(drawn[key].token_ids == ids for key, ids in expected.items()) >= len(expected) - 1
        assert Counter(one.finish_reason for one in drawn.values()) == reasons


@pytest.mark.parametrize("stop_text", ["\n\n", "Stop", "né 😀", "a" * 30, " b"])
def test_a_stop_text_is_found_across_tokens_whatever_stands_before_it(tokenizer, stop_text):
    """The 300 tokens of this tokenizer are mostly bytes, so that a stop text has many tokens."""
    _, stop = with_stop(tokenizer, Limits(1.0, 1, (), 0), stop_text, "never")
    for before in ("", "é", "plums figs", "😀" * 40):
        ids = tokenizer.encode(f"{before}{stop_text}xyz", add_special_tokens=False)
        ids.insert(len(ids) // 2, tokenizer.pad_token_id)  # a control token has no text
        found = [n for n in range(1, len(ids) + 1) if stop.has_stopped(ids[:n])]
        full = [n for n in range(1, len(ids) + 1) if stop_text in tokenizer.decode(ids[:n], skip_special_tokens=True)]
        assert found[0] == full[0]
        assert stop.without_stop(f"{before}{stop_text}xyz never") == before


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_tokens", [1, 200, 1000, 10**6])
def test_a_batch_stays_within_its_tokens_unless_it_is_one_prompt(batch_tokens):
    requests = make_requests(100)
    work = batches(requests, 8, batch_tokens)
    assert sorted(request.key for batch in work for request in batch) == [request.key for request in requests]
    for batch in work:
        tokens = sum(len(r.seeds) for r in batch) * (max(len(r.prompt_ids) for r in batch) + 8)
        assert tokens <= batch_tokens or len(batch) == 1
    if batch_tokens == 10**6:
        assert len(work) == 1


def test_the_longest_prompts_come_first():
    """So that a batch that is too large for the memory fails in the first minute, not in the last hour."""
    lengths = [len(request.prompt_ids) for batch in batches(make_requests(100), 8, 500) for request in batch]
    assert lengths == sorted(lengths, reverse=True)


# --- one draw --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1.0, [0.4, 0.3, 0.2, 0.1, 0.0]), (0.5, [16 / 30, 9 / 30, 4 / 30, 1 / 30, 0.0])],
)
def test_tokens_are_drawn_as_often_as_their_probability_says(temperature, expected):
    """At temperature 1/2 probabilities are squared and normalised: 16, 9, 4 and 1 of 30.

    Chi-square of 20,000 draws with 3 degrees of freedom is below 16.27 in 999 of 1,000 cases; a token of probability 0
    is never drawn.
    """
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0]).log().expand(20_000, -1)
    uniforms = torch.tensor(np.random.default_rng(7).random(20_000))
    tokens, logprobs = draw(logits, uniforms, Limits(temperature, 1, (), 0))
    counts = torch.bincount(tokens, minlength=5).numpy()
    assert counts[4] == 0
    expected_counts = 20_000 * np.array(expected[:4])
    assert ((counts[:4] - expected_counts) ** 2 / expected_counts).sum() < 16.27
    torch.testing.assert_close(logprobs, logits[0, tokens])


def test_the_ends_of_the_unit_interval_draw_the_first_and_last_possible_token():
    logits = torch.tensor([[0.0, 0.5, 0.5, 0.0]]).log().expand(2, -1)
    tokens, _ = draw(logits, torch.tensor([0.0, np.nextafter(1.0, 0.0)]), Limits(1.0, 1, (), 0))
    assert tokens.tolist() == [1, 2]


def drawable(probabilities: list[float], top_p: float | None, top_k: int | None, min_p: float | None) -> set[int]:
    """The tokens that may be drawn, by the words of the settings; no two probabilities are equal."""
    order = sorted(range(len(probabilities)), key=lambda token: -probabilities[token])[:top_k]
    if top_p is not None:
        sums = np.cumsum([probabilities[token] for token in order])
        order = order[: 1 + int(np.argmax(sums >= top_p * sums[-1]))]
    return {token for token in order if min_p is None or probabilities[token] >= min_p * max(probabilities)}


def test_only_the_tokens_that_the_settings_allow_are_drawn_as_often_as_their_probability_says(monkeypatch):
    rng = np.random.default_rng(3)
    for number in range(60):
        monkeypatch.setattr(draw_module, "FEW", (2, 5, 1024)[number % 3])
        weights = rng.dirichlet(np.full(12, 0.5))
        chosen = (float(rng.uniform(0.05, 1.0)), int(rng.integers(1, 15)), float(rng.uniform(0.01, 1.0)))
        top_p, top_k, min_p = (None if rng.random() < 0.4 else value for value in chosen)
        temperature = float(rng.choice([0.5, 1.0, 2.0]))
        limits = Limits(temperature, 1, (), 0, top_p=top_p, top_k=top_k, min_p=min_p)
        logits = torch.tensor(weights).log().expand(3000, -1)
        tokens, logprobs = draw(logits, torch.linspace(0, 1 - 1e-9, 3000, dtype=torch.float64), limits)
        tempered = weights ** (1 / temperature) / (weights ** (1 / temperature)).sum()
        allowed = drawable(tempered.tolist(), top_p, top_k, min_p)
        shares = np.where([token in allowed for token in range(12)], tempered, 0.0)
        shares /= shares.sum()
        counts = torch.bincount(tokens, minlength=12).numpy() / 3000
        assert set(np.flatnonzero(counts)) <= allowed, number
        assert np.abs(counts - shares).max() < 1e-3, number
        torch.testing.assert_close(logprobs, torch.tensor(np.log(weights)).float()[tokens])  # of the whole distribution


def test_a_token_as_likely_as_the_last_that_may_be_drawn_may_be_drawn_too():
    """Whichever of them a sort puts first: that may depend on the batch."""
    logits = torch.tensor([0.4, 0.2, 0.2, 0.2]).log().expand(1000, -1)
    uniforms = torch.linspace(0, 1 - 1e-9, 1000, dtype=torch.float64)
    for restricted in ({"top_k": 2}, {"top_p": 0.5}):
        tokens, _ = draw(logits, uniforms, Limits(1.0, 1, (), 0, **restricted))
        assert set(tokens.tolist()) == {0, 1, 2, 3}
    unlikely = {"top_k": 1, "top_p": 0.01, "min_p": 1.0}
    assert set(draw(logits, uniforms, Limits(1.0, 1, (), 0, **unlikely))[0].tolist()) == {0}


def test_what_may_be_drawn_of_logits_that_are_not_finite_is_nothing():
    logits = torch.tensor([[0.0, torch.nan, 1.0], [0.0, torch.inf, 1.0], [-torch.inf, 0.0, -torch.inf]])
    limits = Limits(1.0, 1, (), 0, top_p=0.9, top_k=2, min_p=0.1)
    tokens, logprobs = draw(logits, torch.full((3,), 0.5), limits)
    assert logprobs.isnan().tolist() == [True, True, False]
    assert (tokens[2], logprobs[2]) == (1, 0.0)


def next_logprobs(model, prompt: tuple[int, ...], output: tuple[int, ...]) -> torch.Tensor:
    inputs = {"input_ids": torch.tensor([[*prompt, *output]])}
    if model.config.is_encoder_decoder:
        start = model.config.decoder_start_token_id
        inputs = {"input_ids": torch.tensor([prompt]), "decoder_input_ids": torch.tensor([[start, *output]])}
    with torch.no_grad():
        return model(**inputs).logits[0, -1].log_softmax(-1)


def test_row_seeds_do_not_depend_on_the_machine():
    """The first 16 digits of what `printf '0\\x1f1\\x1fabc\\x1f2' | sha256sum` prints, as a number."""
    assert row_seed(0, 1, "abc", 2) == 2011317004417459587
    assert len({row_seed(1, n, k) for n in range(50) for k in range(4)}) == 200


# --- rows that take the places of ended ones -------------------------------------------------------------------------


@pytest.mark.parametrize("batch_tokens", [1, 400, 1200, 10**6])
def test_rows_that_enter_later_draw_the_same_tokens_and_stay_within_the_budget(model, batch_tokens, monkeypatch):
    """A model that must wait for a batch to end draws the same; budget: rows times the longest prompt and output."""
    limits, requests = Limits(1.0, 24, MANY_ENDS, 0), make_requests(60)
    usual = sampled(model, requests, limits, 900)
    record = Recorder(model, monkeypatch)
    completions = list(transformers_engine.complete(model, requests, limits, CPU, within(batch_tokens, 24)))
    assert same_tokens(usual, {(c.key, c.k): c for c in completions}) >= 239
    most = max(rows for rows, width in record.shapes)
    shortest = min(len(request.prompt_ids) for request in requests) + 24
    assert most <= max(4, batch_tokens // shortest)
    keys = [completion.key for completion in completions]
    assert keys == [key for key in dict.fromkeys(keys) for _ in range(4)]  # the outputs of a prompt together


def test_places_of_ended_rows_are_taken(build_model, monkeypatch):
    """Few of the computed tokens are of rows that have ended; batch by batch, more than half of them are."""
    model = build_model("llama")
    limits, requests = Limits(1.0, 40, tuple(range(1, 20)), 0), make_requests(150)
    record = Recorder(model, monkeypatch)
    completions = list(transformers_engine.complete(model, requests, limits, CPU, within(64 * 60, 40)))
    drawn = sum(len(completion.token_ids) for completion in completions)
    assert drawn < record.computed_tokens < 1.5 * drawn


def test_finished_prompts_are_yielded_while_others_are_drawn(model, monkeypatch):
    record = Recorder(model, monkeypatch)
    passes_before = []
    for _ in transformers_engine.complete(
        model, make_requests(60), Limits(1.0, 24, MANY_ENDS, 0), CPU, within(900, 24)
    ):
        passes_before.append(len(record.shapes))
    assert passes_before[0] < len(record.shapes) / 2


def test_no_requests_give_no_completions(model):
    assert list(transformers_engine.complete(model, [], Limits(1.0, 24, MANY_ENDS, 0), CPU, within(900, 24))) == []
