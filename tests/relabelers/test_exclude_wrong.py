"""The relabeler `exclude_wrong`: which outputs are ruled out and by how much, whatever is selected."""

import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relabel_tables import INSTRUCTIONS, tables

from hir_core.config import DemonstrationsRelabel, ExcludeWrongRelabel, SelectConfig
from hir_core.relabelers.registry import build_relabeler
from hir_core.relabelers.relabeler import SLICE_COLUMNS
from hir_core.schemas import SamplesWithStop, Triples

RIGHT, WRONG = INSTRUCTIONS.correct, INSTRUCTIONS.wrong
CANNOT_JUDGE, DUPLICATE = "cannot judge", "duplicate of another output"
CUT_OFF, NEAR_BEST = "cut off, so not ruled out", "wrong, but its score is too high to take anything away"
SAMPLES = st.lists(
    st.tuples(
        st.sampled_from(["p", "p1"]),
        st.sampled_from("abc"),
        st.sampled_from([1.0, 0.5, 0.0, "no_answer", None]),
        st.sampled_from(["eos", "eos", "eos", "length"]),
    ),
    max_size=10,
)
SETTINGS = st.fixed_dictionaries(
    {"relabel_weight": st.sampled_from([0.0, 0.25]), "threshold": st.sampled_from([1.0, 0.75, 2.0])}
) | st.fixed_dictionaries({"removed": st.sampled_from([0.5, 1.0])}) | st.fixed_dictionaries(
    {"temperature": st.sampled_from([0.1, 0.75]), "relabel_weight": st.sampled_from([0.0, 0.25]),
     "threshold": st.sampled_from([1.0, 2.0])})  # fmt: skip
SELECTIONS = st.fixed_dictionaries(
    {
        "deduplicate": st.booleans(),
        "others_per_correct": st.sampled_from([None, 0.0, 0.5, 1.0]),
        "balance": st.booleans(),
        "sub_outputs": st.sampled_from([0.0, 1.0]),
    }
)


def relabeled(rows, select=None, **changed):
    """The triples as dicts by sample, and the rejects, of rows of prompt, completion, score and finish reason."""
    prompt_ids, completions, scores, finish_reasons = ([row[n] for row in rows] for n in range(4))
    given = tables(*scores, prompt_ids=prompt_ids, completions=completions, finish_reasons=finish_reasons)
    relabeler = build_relabeler(ExcludeWrongRelabel(type="exclude_wrong", **changed), INSTRUCTIONS)
    triples, rejected = relabeler.relabel(*given, SelectConfig(**(select or {})))
    Triples.validate(triples)
    assert triples.height + sum(rejected.values()) == len(rows)
    return {row["sample_id"]: row for row in triples.sort("sample_id").to_dicts()}, rejected


def test_an_output_that_a_stop_text_ended_is_whole():
    """It is ruled out as one that the model ended; one that was cut off is not."""
    samples, rewards, prompts = tables(0.0, 0.0, 0.0, completions=list("abc"))
    reasons = pl.Series(["eos", "stop", "length"], dtype=SamplesWithStop.create_empty().schema["finish_reason"])
    relabeler = build_relabeler(ExcludeWrongRelabel(type="exclude_wrong"), INSTRUCTIONS)
    triples, rejected = relabeler.relabel(samples.with_columns(finish_reason=reasons), rewards, prompts)
    assert dict(triples.select("sample_id", "ends").iter_rows()) == {"s0": True, "s1": False}
    assert rejected == {CUT_OFF: 1}


def ruled_out(triples):
    return {key: (row["excluded_from"], row["removed"]) for key, row in triples.items() if row["removed"] > 0}


def test_right_outputs_are_demonstrations_and_distinct_wrong_ones_are_ruled_out():
    rows = [("p", "a", 1.0, "eos"), ("p", "a", 1.0, "eos"), ("p", "b", 0.0, "eos"), ("p", "b", 0.0, "eos"),
            ("p1", "b", 0.0, "eos"), ("p", "c", "no_answer", "eos"), ("p", "c", None, "eos")]  # fmt: skip
    triples, rejected = relabeled(rows)
    columns = ("instruction", "contrast", "weight", "excluded_from", "removed")
    right, wrong = (RIGHT, [], 1.0, None, 0.0), (WRONG, [], 0.0, RIGHT, 1.0)
    assert {key: tuple(row[name] for name in columns) for key, row in triples.items()} == {
        "s0": right, "s1": right, "s2": wrong, "s4": wrong, "s5": wrong,
    }  # fmt: skip
    assert rejected == {DUPLICATE: 1, CANNOT_JUDGE: 1}


def test_wrong_outputs_can_be_trained_on_as_wrong_too_but_not_one_without_an_answer():
    rows = [("p", "a", 1.0, "eos"), ("p", "b", 0.0, "eos"), ("p", "c", "no_answer", "eos")]
    triples, _ = relabeled(rows, relabel_weight=0.25)
    assert [(row["instruction"], row["contrast"], row["weight"]) for row in triples.values()] == [
        (RIGHT, [], 1.0), (WRONG, [RIGHT], 0.25), (WRONG, [], 0.0),
    ]  # fmt: skip
    assert ruled_out(triples) == {"s1": (RIGHT, 1.0), "s2": (RIGHT, 1.0)}


def test_an_output_that_was_cut_off_is_not_ruled_out():
    rows = [("p", "a", 0.0, "length"), ("p", "b", "no_answer", "length"), ("p", "c", 1.0, "length")]
    assert (list(relabeled(rows)[0]), relabeled(rows)[1]) == (["s2"], {CUT_OFF: 2})
    triples, rejected = relabeled(rows, relabel_weight=0.5)
    assert (triples["s0"]["instruction"], triples["s0"]["weight"], triples["s0"]["ends"]) == (WRONG, 0.5, False)
    assert (ruled_out(triples), rejected) == ({}, {CUT_OFF: 1})


def test_with_a_temperature_the_share_grows_as_the_score_falls():
    rows = [("p", text, score, "eos") for text, score in zip("abcde", (0.5, 0.0, -9.0, 1.5, "no_answer"), strict=True)]
    triples, rejected = relabeled(rows, temperature=0.5, threshold=2.0)
    shares = [row["removed"] for row in triples.values()]
    assert shares == pytest.approx([1 - math.exp(-1), 1 - math.exp(-2), 1.0, 1.0])
    assert (list(triples), rejected) == (["s0", "s1", "s2", "s4"], {NEAR_BEST: 1})


def test_the_probability_is_that_of_the_whole_output():
    samples, rewards, prompts = tables(0.0, logprobs=[-0.25, -800.0, -0.5], completion_ids=[5, 6, 2])
    more = samples.with_columns(sample_id=pl.lit("s1"), logprobs=pl.Series([[0.0, 1e-7]], dtype=pl.List(pl.Float32)))
    scored = pl.concat([rewards, rewards.with_columns(sample_id=pl.lit("s1"))])
    relabeler = build_relabeler(ExcludeWrongRelabel(type="exclude_wrong", removed=0.5), INSTRUCTIONS)
    for drawn in (pl.concat([samples, more]), pl.concat([samples, more]).lazy()):
        triples, _ = relabeler.relabel(
            drawn.with_columns(prompt_id="sample_id"), scored, prompts_of("s0", "s1", prompts)
        )
        assert triples.sort("sample_id")["probability"].to_list() == [math.exp(-800.75), 1.0]


def prompts_of(first, second, prompts):
    return prompts.head(2).with_columns(prompt_id=pl.Series([first, second]))


# --- against the rule, written out row by row ------------------------------------------------------------------------


def expected(rows, removed=1.0, temperature=None, relabel_weight=0.0, threshold=1.0):
    """By sample its weight and removed share, or the reason why it is left out."""
    result, seen = {}, set()
    for key in sorted(f"s{n}" for n in range(len(rows))):
        prompt_id, text, score, finish_reason = rows[int(key[1:])]
        if score is None:
            result[key] = CANNOT_JUDGE
            continue
        names_answer = score != "no_answer"
        if names_answer and score >= threshold:
            result[key] = (RIGHT, 1.0, 0.0)
            continue
        share = 0.0
        if finish_reason == "eos":
            graded = names_answer and temperature is not None
            share = max(0.0, 1 - math.exp(-(1 - score) / temperature)) if graded else removed
        weight = relabel_weight if names_answer else 0.0
        if not share and not weight:
            result[key] = NEAR_BEST if finish_reason == "eos" else CUT_OFF
        elif share and (prompt_id, text) in seen:
            result[key] = DUPLICATE
        else:
            result[key] = (WRONG, weight, share)
            seen |= {(prompt_id, text)} if share else set()
    return result


@settings(max_examples=150, deadline=None)
@given(SAMPLES, SETTINGS)
def test_every_sample_becomes_what_the_rule_says(rows, changed):
    triples, rejected = relabeled(rows, **changed)
    rule = expected(rows, **changed)
    kept = {key: value for key, value in rule.items() if isinstance(value, tuple)}
    assert set(triples) == set(kept)
    for key, (instruction, weight, share) in kept.items():
        row = triples[key]
        assert (row["instruction"], row["weight"], row["removed"]) == (instruction, weight, pytest.approx(share))
    reasons = [value for value in rule.values() if isinstance(value, str)]
    assert rejected == {reason: reasons.count(reason) for reason in set(reasons)}


@settings(max_examples=150, deadline=None)
@given(SAMPLES, SETTINGS, SELECTIONS)
def test_a_selection_changes_demonstrations_only(rows, changed, selection):
    everything, _ = relabeled(rows, **changed)
    triples, _ = relabeled(rows, selection, **changed)
    assert ruled_out(triples) == ruled_out(everything)
    for key, row in triples.items():
        assert row["removed"] == 0 or row["prefix_ids"] == []
        assert row["weight"] == 0 or everything[key]["weight"] > 0
        assert row["weight"] > 0 or row["removed"] > 0
        assert row["contrast"] == [] or row["weight"] > 0
    taught = [row for row in triples.values() if row["weight"] > 0]
    if selection["balance"]:
        sums = [
            sum(r["weight"] for r in taught if r["instruction"] == text) for text in {r["instruction"] for r in taught}
        ]
        assert sums == pytest.approx(sums[:1] * len(sums))
    right = sum(row["instruction"] == RIGHT for row in taught)
    if selection["others_per_correct"] and right:
        assert len(taught) - right <= selection["others_per_correct"] * right


def test_too_many_wrong_outputs_are_no_demonstrations_but_stay_ruled_out():
    rows = [("p", "a", 1.0, "eos"), *[("p", text, 0.0, "eos") for text in "bcd"], ("p", "e", 0.0, "length")]
    triples, rejected = relabeled(rows, {"others_per_correct": 1.0}, relabel_weight=0.5)
    assert set(ruled_out(triples)) == {"s1", "s2", "s3"}
    assert sorted(row["weight"] for row in triples.values()) in ([0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.0, 0.5, 1.0])
    assert sum(rejected.values()) == 5 - len(triples)


def test_a_prompt_whose_other_samples_name_no_answer_is_not_all_right():
    rows = [("p", "a", 1.0, "eos"), ("p", "b", "no_answer", "eos"), ("p1", "a", 1.0, "eos")]
    assert set(relabeled(rows, {"drop_prompts": ("all_right",)})[0]) == {"s0", "s1"}
    rows = [("p", "a", "no_answer", "eos"), ("p1", "a", 1.0, "eos"), ("p1", "b", 0.0, "eos")]
    assert set(relabeled(rows, {"drop_prompts": ("all_wrong",)})[0]) == {"s1", "s2"}


# --- the share of outputs that a model learns from -------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(SAMPLES, SETTINGS, SELECTIONS)
def test_an_output_is_learned_from_if_one_of_its_samples_is_taught_or_ruled_out(rows, changed, selection):
    prompt_ids, completions, scores, finish_reasons = ([row[n] for row in rows] for n in range(4))
    samples, rewards, prompts = tables(
        *scores, prompt_ids=prompt_ids, completions=completions, finish_reasons=finish_reasons
    )
    relabeler = build_relabeler(ExcludeWrongRelabel(type="exclude_wrong", **changed), INSTRUCTIONS)
    drawn = samples.select(SLICE_COLUMNS)
    selected = SelectConfig(**selection)
    (whole,) = relabeler.relabel_slices([drawn], rewards, prompts, selected, count=len(rows))
    by_output = {}
    for n, (prompt_id, text, score, finish_reason) in enumerate(rows):
        if score is not None:
            by_output.setdefault((prompt_id, text, finish_reason), []).append(f"s{n}")
    used = sum(any(key in set(whole.triples["sample_id"]) for key in keys) for keys in by_output.values())
    assert (whole.judged_outputs, whole.used_outputs) == (len(by_output), used)


def test_a_demonstration_of_a_reference_uses_no_output():
    samples, rewards, prompts = tables(1.0, 0.0)
    relabeler = build_relabeler(DemonstrationsRelabel(type="demonstrations"), INSTRUCTIONS)
    drawn = samples.select(SLICE_COLUMNS)
    (whole,) = relabeler.relabel_slices([drawn], rewards, prompts, SelectConfig(), count=2)
    assert (whole.triples.height, whole.judged_outputs, whole.used_outputs) == (1, 1, 0)
