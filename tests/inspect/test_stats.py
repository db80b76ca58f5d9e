"""Figures of a table: counted by hand, and by Python's own statistics for lengths and histograms."""

import json
import math
import random
import statistics
from collections import Counter

import polars as pl
import pytest
from finished_run import COMPLETIONS, LONG, NASTY, RIGHT, WRONG, commit, damage, hir, ruling_out, triple

from hir_core.errors import VersionCorrupt, VersionNotFound
from hir_core.inspect.stats import lengths, scores, table_stats
from hir_core.store.manifest import value_counts
from hir_core.store.store import Store


@pytest.fixture
def store(small_run) -> Store:
    return small_run


def of(store: Store, text: str) -> dict:
    return table_stats(store, store.resolve(text))


# --- lengths and scores ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 100])
def test_lengths_are_those_of_a_sorted_list(count):
    texts = ["é" * random.Random(n).randrange(50) for n in range(count)]
    ordered = sorted(map(len, texts))
    stats = lengths(pl.Series([None, *texts]))
    assert (stats["min"], stats["median"], stats["max"]) == (ordered[0], statistics.median(ordered), ordered[-1])
    within = [length for length in ordered if sum(other <= length for other in ordered) >= 0.95 * count]
    assert stats["p95"] == min(within)
    assert stats == lengths(pl.Series([list(text) for text in texts], dtype=pl.List(pl.String)))


def test_values_that_are_all_null_have_no_lengths():
    assert lengths(pl.Series([None], dtype=pl.String)) is None
    rows = pl.DataFrame({"score": [None], "outcome": ["not_judged"]}, {"score": pl.Float64, "outcome": pl.String})
    assert scores(rows, 1.0)["histogram"] == []


def test_few_scores_are_counted_one_by_one():
    rows = pl.DataFrame({"score": [1.0, 0.0, None, 1.0, 0.5, None]})
    outcomes = ["scored", "scored", "not_judged", "scored", "scored", "no_answer"]
    stats = scores(rows.with_columns(outcome=pl.Series(outcomes)), 0.5)
    assert stats["histogram"] == [
        {"from": 0.0, "to": 0.0, "rows": 1},
        {"from": 0.5, "to": 0.5, "rows": 1},
        {"from": 1.0, "to": 1.0, "rows": 2},
    ]
    assert (stats["no_answer"], stats["not_judged"], stats["mean"], stats["share_correct"]) == (1, 1, 0.625, 0.5)


def test_many_scores_are_counted_in_ten_bars_that_hold_all():
    values = [random.Random(1).gauss(0, 1) for _ in range(7)] + [n / 100 for n in range(100)] + [-3.0, 5.0]
    bars = scores(pl.DataFrame({"score": values, "outcome": "scored"}))["histogram"]
    assert len(bars) == 10
    assert (bars[0]["from"], bars[-1]["to"]) == (-3.0, 5.0)
    for place, bar in enumerate(bars):
        is_last = place == 9
        inside = [v for v in values if bar["from"] <= v < bar["to"] or (is_last and v == bar["to"])]
        assert bar["rows"] == len(inside)
    assert sum(bar["rows"] for bar in bars) == len(values)


def test_rare_values_are_counted_together():
    values = [f"v{n}" for n in range(30) for _ in range(n + 1)]
    counts = value_counts(pl.Series("instruction", values), 3)
    assert counts == {"v29": 30, "v28": 29, "v27": 28, "other": sum(range(1, 28))}


# --- tables ----------------------------------------------------------------------------------------------------------


def test_samples_in_figures(store):
    stats = of(store, "samples@1")
    assert stats["rows"] == 6
    texts = [text for pair in COMPLETIONS[1].values() for text in pair]
    counted = {"min": 1, "median": statistics.median(map(len, texts)), "p95": 10_000, "max": 10_000}
    assert stats["columns"]["completion"] == {"nulls": 0, "unit": "characters", "lengths": counted}
    assert stats["columns"]["completion_ids"]["lengths"]["max"] == 9
    assert stats["columns"]["sample_id"] == {"nulls": 0}
    assert stats["duplicates"] == 1  # p2 was answered "3" twice; that p1 was answered "3" as well is no duplicate
    assert stats["finish_reasons"] == {"eos": 5, "length": 1}
    assert stats["instructions"] == {RIGHT: 6}


def test_rewards_in_figures_by_the_tasks_of_their_samples(store):
    stats = of(store, "rewards@1")
    assert (stats["score"]["not_judged"], stats["score"]["share_correct"]) == (1, 3 / 6)
    by_task = {task: (facts["rows"], facts["score"]["share_correct"]) for task, facts in stats["tasks"].items()}
    assert by_task == {"sums": (4, 3 / 4), "words": (2, 0.0)}


def test_triples_and_prompts_in_figures(store):
    triples, prompts = of(store, "triples@1"), of(store, "prompts@0")
    assert triples["instructions"] == {RIGHT: 3, WRONG: 2}
    assert triples["tasks"]["words"]["instructions"] == {WRONG: 1}
    assert prompts["splits"] == {"train": 3, "test": 1}
    assert prompts["columns"]["metadata"] == {"nulls": 4, "unit": "characters", "lengths": None}
    assert of(store, "evaluations@2")["score"]["share_correct"] == 1.0


def test_the_share_of_right_answers_is_what_the_loop_says(store):
    """As `Run.score` counts it: of all rows, those that reach the threshold."""
    rows = store.table(store.resolve("rewards@1")).collect()["score"].to_list()
    assert of(store, "rewards@1")["score"]["share_correct"] == sum(s is not None and s >= 1 for s in rows) / len(rows)


def test_demonstrations_have_figures_without_samples(store):
    sample = {"sample_id": "s", "prompt_id": "p1", "completion": "2", "completion_ids": [], "finish_reason": "eos"}
    row = triple(sample, True) | {"sample_id": None, "target_ids": None}
    ref = commit(store, "triples", 0, [store.resolve("prompts@0")], [row])
    assert table_stats(store, ref)["columns"]["target_ids"] == {"nulls": 1, "unit": "tokens", "lengths": None}


def test_figures_need_a_table_and_what_it_is_made_from(store):
    with pytest.raises(VersionNotFound, match="holds no table"):
        of(store, "models@1")
    damage(store.parts(store.resolve("samples@1"))[0])
    with pytest.raises(VersionCorrupt, match="samples/0001-"):
        of(store, "rewards@1")


# --- the command -----------------------------------------------------------------------------------------------------


def test_stats_are_drawn(store):
    lines = hir("stats", "rewards@2").splitlines()
    assert lines[0].endswith(" · 6 rows")
    assert any(
        line.startswith("score       mean 0.667 · 66.7% reach 1 · 0 without an answer · 0 not judged") for line in lines
    )
    bars = Counter({line.split()[0]: line.count("█") for line in lines if "█" in line})
    assert bars == {"0": 12, "1": 24}
    assert lines[-2:] == [f"sums      4       0.750    {75.0}%", f"words     2       0.500    {50.0}%"]


def test_stats_let_nothing_act_on_the_terminal(store):
    sample = {"sample_id": "s", "prompt_id": "p1", "completion": LONG, "completion_ids": [], "finish_reason": "eos"}
    rows = [triple(sample, True) | {"sample_id": None, "triple_id": str(n), "instruction": NASTY * n} for n in (1, 99)]
    commit(store, "triples", 0, [store.resolve("prompts@0")], rows)
    shown = hir("stats", "triples@0")
    assert r"red \x1b[31m\x00 \u202eback\nline" in shown
    assert not any(mark in shown for mark in "\x1b\x00\u202e")
    assert max(map(len, shown.splitlines())) <= 100


def test_stats_as_json_are_the_figures(store):
    assert json.loads(hir("stats", "small/samples@1", "--json")) == of(store, "samples@1")
    assert math.isclose(json.loads(hir("stats", "rewards@2", "--json"))["score"]["mean"], 4 / 6)


def test_an_output_that_is_only_ruled_out_follows_no_instruction(store):
    figures = table_stats(store, version := ruling_out(store))
    assert (figures["instructions"], figures["only_ruled_out"]) == ({RIGHT: 3, WRONG: 1}, 1)
    assert "\nonly ruled out  1\n" in hir("stats", str(version))
    assert of(store, "triples@2")["only_ruled_out"] == 0
    assert "only ruled out" not in hir("stats", "triples@2")
