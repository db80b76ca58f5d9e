"""Mixtures: weights decide how often each task is sampled, and no prompt of a task waits for long."""

from collections import Counter

import polars as pl
import pytest

from hir_core.config import SamplingConfig
from hir_core.config.load import parse_config
from hir_core.errors import ConfigError
from hir_core.prompts.mixture import check_mix, choose_prompts
from hir_core.schemas import content_key


def train(**sizes):
    rows = [{"prompt_id": content_key(task, n), "task": task} for task, size in sizes.items() for n in range(size)]
    return pl.DataFrame(rows, schema={"prompt_id": pl.String, "task": pl.String})


def tasks_of(prompts):
    return Counter(prompts["task"])


@pytest.mark.parametrize(
    ("count", "seed", "iteration", "digest"),
    [
        (None, 0, 1, "aec8611c223a6300"),
        (4, 0, 1, "3cc5c75465ed038d"),
        (7, 3, 9, "3b4b017f922d45b4"),
    ],
)
def test_without_a_mix_the_choice_is_what_it_always_was(count, seed, iteration, digest):
    chosen = choose_prompts(train(sums=8, words=4), count, seed, iteration)["prompt_id"].to_list()
    assert content_key(chosen) == digest


@pytest.mark.parametrize(
    ("mix", "count", "expected"),
    [
        ({"sums": 1, "words": 1}, 8, {"sums": 4, "words": 4}),
        ({"sums": 3, "words": 1}, 8, {"sums": 6, "words": 2}),
        ({"sums": 0.75, "words": 0.25}, 8, {"sums": 6, "words": 2}),
        ({"sums": 0, "words": 2.5}, 8, {"words": 8}),
    ],
)
def test_every_iteration_holds_the_weights(mix, count, expected):
    prompts = train(sums=50, words=11)
    for iteration in range(1, 30):
        assert tasks_of(choose_prompts(prompts, count, 0, iteration, mix)) == expected


@pytest.mark.parametrize(
    "mix", [{"a": 1, "b": 1, "c": 1}, {"a": 0.05, "b": 0.3, "c": 0.65}, {"a": 1e-2, "b": 7, "c": 2}]
)
def test_shares_that_are_no_whole_numbers_even_out(mix):
    prompts, seen = train(a=40, b=40, c=40), Counter()
    whole = sum(mix.values())
    for iteration in range(1, 61):
        chosen = tasks_of(choose_prompts(prompts, 7, 1, iteration, mix))
        assert sum(chosen.values()) == 7
        seen += chosen
        assert all(abs(seen[task] - 7 * iteration * weight / whole) < 1.5 for task, weight in mix.items())


def test_a_task_however_light_has_its_turn():
    turns = [choose_prompts(train(a=9, b=9), 2, 0, n, {"a": 1, "b": 99}) for n in range(1, 101)]
    assert sum((tasks_of(chosen) for chosen in turns), Counter()) == {"a": 2, "b": 198}


def test_no_prompt_of_a_task_waits_longer_than_its_shuffle():
    prompts, mix = train(sums=20, words=9), {"sums": 1, "words": 1}
    chosen = [set(choose_prompts(prompts, 8, 5, n, mix)["prompt_id"]) for n in range(1, 46)]
    for task, size in (("sums", 20), ("words", 9)):
        ids = set(prompts.filter(pl.col("task") == task)["prompt_id"])
        for shuffle in range(9):  # positions `size * shuffle` to `size * (shuffle + 1)` of the walk, 4 an iteration
            first, last = size * shuffle // 4, -(-size * (shuffle + 1) // 4)
            assert ids <= set.union(*chosen[first:last])
        visits = Counter(key for keys in chosen[: size * 4] for key in keys if key in ids)
        assert max(visits.values()) - min(visits.values()) <= 4


def test_an_iteration_never_asks_a_prompt_twice_and_lacks_none():
    for n in range(1, 40):
        chosen = choose_prompts(train(a=5, b=30), 8, 2, n, {"a": 1, "b": 1})
        assert (chosen["prompt_id"].n_unique(), tasks_of(chosen)) == (8, {"a": 4, "b": 4})


def test_a_mix_is_decided_by_seed_and_iteration_alone():
    prompts, mix = train(a=30, b=30), {"a": 2, "b": 1}
    chosen = choose_prompts(prompts, 6, 3, 4, mix)
    assert chosen.equals(choose_prompts(prompts.reverse(), 6, 3, 4, dict(reversed(mix.items()))))
    assert chosen.equals(choose_prompts(prompts, 6, 3, 4, {"a": 4.0, "b": 2.0}))
    assert not chosen.equals(choose_prompts(prompts, 6, 4, 4, mix))
    assert not chosen.equals(choose_prompts(prompts, 6, 3, 5, mix))


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"sums": 1, "word": 1}, "sampling.mix: no train prompts of a task `word`; did you mean `words`"),
        ({"sums": 1, "words": 1, "dates": 1}, "of a task `dates`; there are sums, words"),
        ({"sums": 1}, "sampling.mix: no weight for words: give one, 0 to leave a task out"),
        ({"sums": 1, "words": 3}, "words should have 6 of an iteration's 8 prompts, but there are 5 of it: lower"),
    ],
)
def test_a_mix_that_the_prompts_cannot_give_is_refused(mix, message):
    with pytest.raises(ConfigError, match=message):
        check_mix(train(sums=20, words=5), 8, mix)
    check_mix(train(sums=20, words=5), 8, {"sums": 3, "words": 5})
    check_mix(train(sums=20, words=5), 8, {"sums": 3, "words": 0})


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"mix": {"a": 1}}, "sampling: sampling.mix shares out sampling.prompts: set sampling.prompts"),
        ({"mix": {"a": 0}, "prompts": 4}, "sampling: mix leaves every task out"),
        ({"mix": {"a": -1}, "prompts": 4}, "sampling.mix.a: expected at least 0"),
        ({"mix": {"a": float("nan")}, "prompts": 4}, "sampling.mix.a: "),
        ({"mix": {"a": "much"}, "prompts": 4}, "sampling.mix.a: expected a number"),
    ],
)
def test_a_mix_without_meaning_is_refused(sampling, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({"run": "r", "iterations": 1, "model": {"source": "a/b"}, "sampling": sampling,
                      "prompts": [{"path": "a.jsonl"}]})  # fmt: skip


def test_the_mix_decides_what_samples_are_called():
    light, heavy = (SamplingConfig(prompts=4, mix={"a": weight, "b": 1}).fingerprint() for weight in (1, 2))
    assert light != heavy
    assert light["mix"] == {"a": 1, "b": 1}
