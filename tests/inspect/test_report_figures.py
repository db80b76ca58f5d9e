"""The figures of a report against plain reads of the same Parquet files, and the history that they follow."""

import math
import random
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from finished_run import RIGHT, WRONG, commit, damage, drawn, prompt, trained
from report_runs import TESTED, evaluated, judged, make_run, triple

from hir_core.errors import VersionCorrupt
from hir_core.inspect.history import history
from hir_core.inspect.report import Report, build_report
from hir_core.store.graph import VersionGraph
from hir_core.store.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_run(tmp_path_factory.mktemp("reported"))


@pytest.fixture(scope="module")
def report(store) -> Report:
    return build_report(store)


def rows_of(store: Store, stage: str, iteration: int) -> list[dict[str, Any]]:
    """A table as anybody reads it, by Python."""
    (folder,) = store.run_dir.glob(f"{stage}/{iteration:04}-*")
    return [row for path in sorted(folder.glob("*.parquet")) for row in pl.read_parquet(path).to_dicts()]


# --- figures ---------------------------------------------------------------------------------------------------------


def test_samples_are_counted_as_their_table_has_them(store, report):
    assert list(report.samples) == [1, 2]
    for n, samples in report.samples.items():
        rows = rows_of(store, "samples", n)
        lengths = sorted(len(row["completion_ids"]) for row in rows)
        assert (samples.rows, samples.prompts) == (len(rows), len({row["prompt_id"] for row in rows}))
        assert samples.distinct == len({(row["prompt_id"], row["completion"]) for row in rows})
        assert samples.finish_reasons == Counter(row["finish_reason"] for row in rows)
        assert (samples.tokens_each["min"], samples.tokens_each["max"]) == (lengths[0], lengths[-1])


def test_scores_share_their_bars_over_all_iterations(store, report):
    assert report.score_bins == ((0.0, 0.0), (0.25, 0.25), (1.0, 1.0))
    for n, rewards in report.rewards.items():
        scores = [row["score"] for row in rows_of(store, "rewards", n)]
        assert rewards.histogram == tuple(scores.count(bar) for bar in (0.0, 0.25, 1.0))
        assert (rewards.right, rewards.not_judged) == (scores.count(1.0), scores.count(None))
        assert sum(rewards.histogram) + rewards.not_judged == rewards.rows


def test_prompts_are_mixed_where_their_samples_are_right_and_wrong(report):
    """1: p1 is [1, 0], p2 [0.25, null], p3 [0, 0]. 2: p1 is [1, 1], p2 [0.25, 1], p3 [null, 0]."""
    assert [samples.mixed_prompts for samples in report.samples.values()] == [1, 1]


def test_an_output_is_learned_from_where_a_triple_demonstrates_it_or_rules_it_out(store, report):
    assert sorted(report.triples) == [1, 2]
    for n, triples in report.triples.items():
        judged, used = learned_outputs(store, n)
        assert (triples.judged_outputs, triples.outputs_with_gradient) == (len(judged), len(used) / len(judged))
        assert triples.only_ruled_out == 1


def learned_outputs(store, n):
    """The distinct judged outputs of an iteration and those before it, and those of them that have a gradient."""
    samples, rewards = ([row for i in range(1, n + 1) for row in rows_of(store, t, i)] for t in ("samples", "rewards"))
    of_sample = {row["sample_id"]: (row["prompt_id"], tuple(row["completion_ids"])) for row in samples}
    judged = {of_sample[row["sample_id"]] for row in rewards if row["outcome"] != "not_judged"}
    triples = [row for row in rows_of(store, "triples", n) if row["weight"] > 0 or row["removed"] > 0]
    return judged, judged & {of_sample[row["sample_id"]] for row in triples}


def test_instructions_are_counted_with_how_many_of_their_outputs_are_right(store, report):
    right = {row["sample_id"] for n in (1, 2) for row in rows_of(store, "rewards", n) if (row["score"] or 0) >= 1}
    for n, triples in report.triples.items():
        rows = rows_of(store, "triples", n)
        for counted in triples.instructions:
            mine = [row for row in rows if row["instruction"] == counted.instruction and row["weight"] > 0]
            assert counted.name == {RIGHT: "correct", WRONG: "wrong"}[counted.instruction]
            assert (counted.rows, counted.right) == (len(mine), sum(row["sample_id"] in right for row in mine))
        demonstrations = sum(counted.rows for counted in triples.instructions)
        assert demonstrations + triples.only_ruled_out + 1 == triples.rows_in  # one is not judged


def test_accuracies_and_changed_answers_are_those_of_the_tables(store, report):
    tables = {n: [row for row in rows_of(store, "evaluations", n) if row["task"] == "sums"] for n in TESTED}
    right = {n: {row["prompt_id"] for row in rows if row["score"] == 1} for n, rows in tables.items()}
    assert list(report.evaluations) == list(TESTED)
    for n, evaluation in report.evaluations.items():
        assert evaluation.overall["accuracy"] == len(right[n]) / 12
    changes = {"became_right": 6, "became_wrong": 0, "stayed_right": 3, "stayed_wrong": 3}
    assert asdict(report.answers) == changes
    risen = right[2] - right[0] | {"tw0", "tw1"}
    assert {changed.prompt_id for changed in report.picks.changed} <= risen


def test_measurements_are_passed_on_and_missing_ones_are_none(report):
    first, second, _ = report.models.values()
    assert (first.loss, second.loss, second.step_seconds, second.peak_bytes) == (None, 1.0, 1.5, 2e9)
    assert second.tokens_per_s is None


# --- rows worth reading ----------------------------------------------------------------------------------------------


def test_the_best_and_worst_outputs_are_of_prompts_of_their_own(report):
    last = report.picks.iterations[-1]
    assert [sample.score for sample in last.best] == [1.0, 1.0, 0.0]
    assert [sample.score for sample in last.worst] == [0.0, 0.25, 1.0]
    assert [sample.sample_id for sample in last.unscored] == ["s2p30"]
    wrong = last.worst[0]
    assert (wrong.asked.instruction.text, wrong.asked.query.text) == (RIGHT, "1 + 3?")
    assert [triple.instruction.text for triple in wrong.became] == [WRONG]
    assert [(triple.weight, triple.excluded_from.text, triple.removed) for triple in wrong.became] == [(0, RIGHT, 0.75)]
    assert math.isclose(wrong.logprob, -0.5)


def test_long_texts_are_cut_and_say_by_how_much(report):
    completions = [sample.completion for sample in report.picks.iterations[0].worst]
    long = next(text for text in completions if text.more)
    assert (len(long.text), len(long.text) + long.more) == (600, 10_000)


# --- the history -----------------------------------------------------------------------------------------------------


def copy_of(store: Store, folder: Path) -> Store:
    return Store(Path(shutil.copytree(store.run_dir, folder / "small")))


def test_forks_stay_out_and_are_named(store, tmp_path):
    here = copy_of(store, tmp_path)
    main = here.resolve("models@2")
    before, triples = (here.resolve(name) for name in here.manifest(main).parents)
    fork = trained(here, 3, [before, triples], loss=9.0)
    assert build_report(here).model == str(fork)  # the newest
    assert build_report(here).forks == (str(main),)
    up_to_main = build_report(here, main)
    assert (up_to_main.model, up_to_main.forks) == (str(main), (str(fork),))
    assert all(str(fork) != version.version for version in up_to_main.versions)


def test_what_of_the_next_iteration_is_there_belongs_to_the_history(store, tmp_path):
    here = copy_of(store, tmp_path)
    prompts, model = here.resolve("prompts@0"), here.resolve("models@2")
    samples = commit(here, "samples", 3, [prompts, model], drawn(1, model))
    assert [iteration.samples for iteration in history(VersionGraph(here))][-1] == samples
    last = build_report(here).iterations[-1]
    assert (last.iteration, last.samples.rows, last.rewards, last.model) == (3, 6, None, None)


def test_evaluations_under_other_settings_are_kept_apart(store, tmp_path):
    here = copy_of(store, tmp_path)
    prompts, model = here.resolve("prompts@0"), here.resolve("models@2")
    other = evaluated(here, 2, prompts, model, {"threshold": 1.0, "max_new_tokens": 99})
    report = build_report(here)
    assert report.iterations[-1].evaluation.version != str(other)
    assert [(point.iteration, point.version) for point in report.further[0].points] == [(2, str(other))]


# --- runs that have little -------------------------------------------------------------------------------------------


def test_a_run_that_was_only_begun_has_prompts_and_nothing_else(tmp_path):
    store = Store(tmp_path / "begun")
    commit(store, "prompts", 0, [], [prompt("p1", ("sums", "1 + 1?"))])
    report = build_report(store)
    assert (report.iterations, report.model, report.answers) == ((), None, None)
    assert report.prompts.tasks == {"sums": {"train": 1}}
    empty = build_report(Store(tmp_path / "nothing"))
    assert (empty.prompts, empty.seconds) == (None, None)


def test_where_nothing_was_judged_there_is_no_score(tmp_path):
    store = Store(tmp_path / "mute")
    prompts = commit(store, "prompts", 0, [], [prompt(f"p{n}", ("sums", "1?")) for n in (1, 2, 3)])
    model = trained(store, 0, [prompts])
    samples = commit(store, "samples", 1, [prompts, model], drawn(1, model))
    rows = [
        {"sample_id": s["sample_id"], "reward": "r", "outcome": "not_judged", "score": None, "reason": "?", "parts": []}
        for s in drawn(1, model)
    ]
    commit(store, "rewards", 1, [prompts, samples], rows, {"threshold": 1.0})
    report = build_report(store)
    assert report.score_bins == ()
    assert report.iterations[-1].rewards.mean is None
    examples = report.picks.iterations[0]
    assert (examples.best, examples.worst, len(examples.unscored)) == ((), (), 3)


def test_a_sample_without_tokens_has_no_log_probability(tmp_path):
    store = Store(tmp_path / "empty")
    prompts = commit(store, "prompts", 0, [], [prompt(f"p{n}", ("sums", "1?")) for n in (1, 2, 3)])
    model = trained(store, 0, [prompts])
    rows = [row | {"completion": "", "completion_ids": [], "logprobs": []} for row in drawn(1, model)]
    samples = commit(store, "samples", 1, [prompts, model], rows)
    commit(store, "rewards", 1, [prompts, samples], judged(rows, [1.0] * 6), {"threshold": 1.0})
    assert [sample.logprob for sample in build_report(store).picks.iterations[0].best] == [None] * 3


def test_there_is_no_report_of_a_damaged_version(store, tmp_path):
    here = copy_of(store, tmp_path)
    damage(here.parts(here.resolve("rewards@1"))[0])
    with pytest.raises(VersionCorrupt, match="rewards/0001-"):
        build_report(here)


def test_figures_are_plain_json(report):
    def assert_plain(value: object) -> None:
        if isinstance(value, dict):
            assert all(type(key) is str for key in value)
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for item in value:
                assert_plain(item)
        else:
            assert value is None or type(value) in (str, bool, int) or (type(value) is float and math.isfinite(value))

    assert_plain(asdict(report))


def test_many_different_scores_are_put_into_ten_bars(tmp_path):
    store = Store(tmp_path / "graded")
    prompts = commit(store, "prompts", 0, [], [prompt(f"p{n}", ("sums", "1?")) for n in (1, 2, 3)])
    model = trained(store, 0, [prompts])
    scores, numbers = [], random.Random(0)
    for iteration in (1, 2):
        samples = commit(store, "samples", iteration, [prompts, model], drawn(iteration, model))
        values = [numbers.gauss(0, 1) for _ in range(6)]
        rows = drawn(iteration, model)
        rewards = commit(store, "rewards", iteration, [prompts, samples], judged(rows, values), {"threshold": 1.0})
        triples = commit(store, "triples", iteration, [prompts, samples, rewards], [triple(rows[0], 1.0)])
        model = trained(store, iteration, [model, triples])
        scores.append(values)
    report = build_report(store)
    edges = report.score_bins
    assert len(edges) == 10
    assert (edges[0][0], edges[-1][1]) == (min(map(min, scores)), max(map(max, scores)))
    for values, iteration in zip(scores, report.iterations[1:], strict=True):
        inside = [sum(low <= v < high or (v == high == edges[-1][1]) for v in values) for low, high in edges]
        assert iteration.rewards.histogram == tuple(inside)
