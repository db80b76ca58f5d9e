"""Relabelers: which instruction each sample demonstrates, and that no sample is lost."""

import math
import re

import polars as pl
import pytest
from relabel_tables import INSTRUCTIONS, tables

from hir_core.config import (
    AttributesRelabel,
    BestOfKRelabel,
    ChainRelabel,
    ConstraintsRelabel,
    DemonstrationsRelabel,
    ExcludeWrongRelabel,
    HindsightRelabel,
    Instructions,
    KeepCorrectRelabel,
    PythonRelabel,
    QuantilesRelabel,
    SelectConfig,
    SyntheticPrompts,
)
from hir_core.errors import RewardError, SchemaError
from hir_core.prompts.constraints.constraint import Constraint, group_of
from hir_core.prompts.constraints.registry import check, parse
from hir_core.prompts.load import load_prompts
from hir_core.relabelers.constraints import achieved
from hir_core.relabelers.registry import build_relabeler
from hir_core.schemas import Triples, content_key

HINDSIGHT = build_relabeler(HindsightRelabel(type="hindsight"), INSTRUCTIONS)
EXCLUDE_WRONG = build_relabeler(ExcludeWrongRelabel(type="exclude_wrong"), INSTRUCTIONS)
KEEP_CORRECT = build_relabeler(KeepCorrectRelabel(type="keep_correct"), INSTRUCTIONS)
BEST_OF_K = build_relabeler(BestOfKRelabel(type="best_of_k"), INSTRUCTIONS)
DEMONSTRATIONS = build_relabeler(DemonstrationsRelabel(type="demonstrations"), INSTRUCTIONS)
QUANTILES = build_relabeler(
    QuantilesRelabel(type="quantiles", levels=3, instruction="{level} of {levels}"), INSTRUCTIONS
)
CHAIN = build_relabeler(ChainRelabel(type="chain", query="{query} Not {wrong}, but"), INSTRUCTIONS)
CONSTRAINTS = build_relabeler(ConstraintsRelabel(type="constraints"), INSTRUCTIONS)
ATTRIBUTES = build_relabeler(AttributesRelabel(type="attributes", instruction="Be {attributes}."), INSTRUCTIONS)
ALL = [HINDSIGHT, EXCLUDE_WRONG, KEEP_CORRECT, BEST_OF_K, DEMONSTRATIONS, QUANTILES, CHAIN, CONSTRAINTS, ATTRIBUTES]


def relabeled(relabeler, *scores, select=None, **changed):
    selection = SelectConfig.model_validate(select or {})
    triples, rejected = relabeler.relabel(*tables(*scores, **changed), selection)
    Triples.validate(triples)
    assert triples.height + sum(rejected.values()) == len(scores)
    return triples, rejected


@pytest.mark.parametrize("relabeler", ALL, ids=lambda one: one.name)
def test_an_empty_correct_instruction_is_one_like_any_other(relabeler):
    """The same triples, with the empty text where the correct instruction stands."""
    without = build_relabeler(relabeler.config, Instructions(correct="", wrong=INSTRUCTIONS.wrong))
    parts = [{"a": score or 0.0, "b": 1.0} for score in (1.0, 0.0, 0.5, None, 1.0)]
    given = {"prompt_ids": ["p", "p", "p1", "p1", "p2"], "completions": list("82345"), "parts": parts}
    select = {"others_per_correct": 1.0, "balance": True}
    (usual, _), (bare, _) = (
        relabeled(one, 1.0, 0.0, 0.5, None, 1.0, select=select, **given) for one in (relabeler, without)
    )
    emptied = usual.with_columns(
        pl.col("instruction", "excluded_from").replace(INSTRUCTIONS.correct, ""),
        pl.col("contrast").list.eval(pl.element().replace(INSTRUCTIONS.correct, "")),
    )
    order = ["prompt_id", "sample_id"]
    same, found = (
        table.with_columns(pl.col("contrast").list.sort()).drop("triple_id").sort(order) for table in (emptied, bare)
    )
    assert same.equals(found)


def ids(triples):
    return sorted(triples["sample_id"])


def test_right_outputs_get_the_correct_instruction_and_wrong_ones_the_wrong_one():
    triples, rejected = relabeled(HINDSIGHT, 1.0, 0.0, 0.99, 2.0)
    assert dict(triples.select("sample_id", "instruction").iter_rows()) == {
        "s0": "Be right.",
        "s1": "Be wrong.",
        "s2": "Be wrong.",
        "s3": "Be right.",
    }
    contrast = dict(triples.select("instruction", "contrast").iter_rows())
    assert contrast == {"Be right.": ["Be wrong."], "Be wrong.": ["Be right."]}
    assert rejected == {}


def test_the_threshold_decides_what_is_right():
    lenient = build_relabeler(HindsightRelabel(type="hindsight", threshold=0.5), INSTRUCTIONS)
    assert sorted(relabeled(lenient, 0.5, 0.4)[0]["instruction"]) == ["Be right.", "Be wrong."]


def test_a_triple_holds_the_sampled_tokens_as_they_are():
    row = relabeled(HINDSIGHT, 1.0)[0].to_dicts()[0]
    assert row == {
        "triple_id": content_key("s0", "hindsight", "Be right."),
        "prompt_id": "p",
        "sample_id": "s0",
        "relabeler": "hindsight",
        "instruction": "Be right.",
        "contrast": ["Be wrong."],
        "query": "q0",
        "history": None,
        "output": "8",
        "prefix_ids": [],
        "target_ids": [5, 2],
        "ends": True,
        "weight": 1.0,
        "excluded_from": None,
        "removed": 0.0,
        "probability": pytest.approx(math.exp(-0.3)),
    }


def test_a_truncated_output_is_not_taught_to_stop():
    assert relabeled(HINDSIGHT, 1.0, finish_reason="length")[0]["ends"].to_list() == [False]


@pytest.mark.parametrize("relabeler", [HINDSIGHT, KEEP_CORRECT], ids=["hindsight", "keep_correct"])
def test_what_cannot_be_judged_or_is_empty_is_counted_not_taught(relabeler):
    assert relabeled(relabeler, None, 1.0)[1] == {"cannot judge": 1}
    empty = {"completion_ids": [], "logprobs": [], "completion": "", "finish_reason": "length"}
    assert relabeled(relabeler, None, 0.0, 1.0, **empty)[1] == {"cannot judge": 1, "empty completion": 2}


@pytest.mark.parametrize("relabeler", [HINDSIGHT, KEEP_CORRECT], ids=["hindsight", "keep_correct"])
def test_what_names_no_answer_is_counted_apart_and_not_taught(relabeler):
    samples, rewards, asked = tables(None, None)
    rewards = rewards.with_columns(outcome=pl.Series(["no_answer", "not_judged"], dtype=rewards.schema["outcome"]))
    triples, rejected = relabeler.relabel(samples, rewards, asked)
    assert triples.is_empty()
    assert rejected == {"names no answer": 1, "cannot judge": 1}


def test_keep_correct_leaves_wrong_outputs_out_and_contrasts_nothing():
    triples, rejected = relabeled(KEEP_CORRECT, 1.0, 0.0, None, 0.5)
    assert triples.select("sample_id", "instruction", "contrast").rows() == [("s0", "Be right.", [])]
    assert rejected == {"below threshold": 2, "cannot judge": 1}


@pytest.mark.parametrize("relabeler", ALL, ids=lambda relabeler: relabeler.name)
def test_the_order_of_rows_does_not_matter_and_no_rows_are_fine(relabeler):
    samples, rewards, prompts = tables(1.0, 0.0, 1.0, None, parts=[{"a": 1}, {"a": 0, "b": 3}, {"b": 2}, {"a": 0.5}])
    forward, backward = (relabeler.relabel(samples, rewards[::step], prompts)[0] for step in (1, -1))
    assert forward.equals(backward)
    assert forward["triple_id"].is_sorted()
    nothing, rejected = relabeler.relabel(samples.clear(), rewards.clear(), prompts)
    assert (nothing.height, rejected) == (0, {})


def test_a_sample_without_its_reward_or_prompt_is_refused():
    samples, rewards, prompts = tables(1.0, 0.0)
    with pytest.raises(SchemaError, match="1 of 2 samples have no row in rewards, first sample_id s1"):
        HINDSIGHT.relabel(samples, rewards.head(1), prompts)
    with pytest.raises(SchemaError, match="2 of 2 samples have no row in prompts, first sample_id s0"):
        HINDSIGHT.relabel(samples, rewards, prompts.clear())


def test_threshold_and_instructions_decide_the_identity():
    assert HINDSIGHT.fingerprint() == {
        "type": "hindsight",
        "threshold": 1.0,
        "instructions": {"correct": "Be right.", "wrong": "Be wrong."},
    }
    assert KEEP_CORRECT.fingerprint()["type"] == "keep_correct"


def test_the_best_of_a_prompt_is_imitated_and_of_equal_ones_the_first():
    triples, rejected = relabeled(BEST_OF_K, 0.2, 0.7, None, 0.7, 0.1, prompt_ids=["p", "p", "p", "p", "p1"])
    assert ids(triples) == ["s1", "s4"]
    assert set(triples["instruction"]) == {"Be right."}
    assert rejected == {"cannot judge": 1, "not the best of its prompt": 2}


def test_quantiles_cut_scores_into_levels_of_which_the_best_is_the_correct_instruction():
    """Six scores in three levels of two; equal scores share the higher level."""
    triples, _ = relabeled(QUANTILES, 0.6, 0.1, 0.3, 0.5, 0.2, 0.4)
    instructions = dict(triples.select("sample_id", "instruction").iter_rows())
    assert instructions == {
        "s1": "1 of 3",
        "s4": "1 of 3",
        "s2": "2 of 3",
        "s5": "2 of 3",
        "s3": "Be right.",
        "s0": "Be right.",
    }
    assert set(relabeled(QUANTILES, 1.0, 1.0, 1.0)[0]["instruction"]) == {"Be right."}


def test_a_chain_shows_a_wrong_attempt_before_a_correct_one():
    triples, rejected = relabeled(CHAIN, 0.0, 1.0, 1.0, 0.0, completions="abcd", prompt_ids=["p", "p", "p1", "p2"])
    assert triples.sort("sample_id").select("sample_id", "query", "output").rows() == [
        ("s1", "q0 Not a, but", "b"),
        ("s2", "q1", "c"),  # nothing wrong was sampled here
    ]
    assert rejected == {"below threshold": 1, "wrong: used only inside the query of a correct output": 1}


def test_a_chain_keeps_braces_of_the_data_as_they_are():
    triples, _ = relabeled(CHAIN, 0.0, 1.0, completions="{x")
    assert triples["query"].to_list() == ["q0 Not {, but"]


def test_demonstrations_replace_what_was_sampled_by_the_reference():
    triples, rejected = relabeled(DEMONSTRATIONS, 0.0, None, 1.0, prompt_ids=["p", "p", "p1"])
    assert triples.select("prompt_id", "sample_id", "output", "target_ids", "ends").sort("prompt_id").rows() == [
        ("p", None, "8", None, True),
        ("p1", None, "8", None, True),
    ]
    assert rejected == {"another sample of the prompt: one demonstration per prompt": 1}


# --- selection -------------------------------------------------------------------------------------------------------


def test_prompts_without_a_contrast_can_be_left_out():
    prompt_ids = ["p", "p", "p1", "p1", "p2", "p2"]
    scores = 0.0, 0.0, 1.0, 1.0, 0.0, 1.0
    triples, rejected = relabeled(
        HINDSIGHT, *scores, prompt_ids=prompt_ids, select={"drop_prompts": ["all_wrong", "all_right"]}
    )
    assert ids(triples) == ["s4", "s5"]
    assert rejected == {"all samples of the prompt right": 2, "all samples of the prompt wrong": 2}
    best, rejected = relabeled(BEST_OF_K, *scores, prompt_ids=prompt_ids, select={"drop_prompts": ["all_wrong"]})
    assert ids(best) == ["s2", "s5"]
    assert rejected == {"not the best of its prompt": 3, "all samples of the prompt wrong": 1}


def test_equal_outputs_of_a_prompt_can_be_kept_once():
    triples, rejected = relabeled(
        HINDSIGHT,
        1.0,
        1.0,
        0.0,
        1.0,
        completions="aaba",
        prompt_ids=["p", "p", "p", "p1"],
        select={"deduplicate": True},
    )
    assert ids(triples) == ["s0", "s2", "s3"]
    assert rejected == {"duplicate of another output": 1}


def test_balance_gives_every_instruction_the_same_share():
    """Three wrong of four: 4 / (2 * 3) = 2/3 each, the right one 4 / (2 * 1) = 2; the sum of the weights stays 4."""
    triples, _ = relabeled(HINDSIGHT, 1.0, 0.0, 0.0, 0.0, select={"balance": True})
    assert dict(triples.group_by("instruction").agg(pl.col("weight").sum()).iter_rows()) == pytest.approx(
        {"Be right.": 2.0, "Be wrong.": 2.0}
    )
    assert set(relabeled(HINDSIGHT, 0.0, 0.0, select={"balance": True})[0]["weight"]) == {1.0}


@pytest.mark.parametrize(("ratio", "wrong"), [(1.0, 4), (0.5, 2), (0.3, 1), (2.0, 8), (9.0, 10)])
def test_other_instructions_get_only_so_many_triples_per_correct_one_chosen_by_their_ids(ratio, wrong):
    scores = [1.0] * 4 + [0.0] * 10
    triples, rejected = relabeled(HINDSIGHT, *scores, select={"others_per_correct": ratio})
    assert sorted(triples["instruction"]) == ["Be right."] * 4 + ["Be wrong."] * wrong
    assert rejected == ({"limit of others_per_correct": 10 - wrong} if wrong < 10 else {})
    samples, rewards, prompts = tables(*scores)
    again, _ = HINDSIGHT.relabel(samples[::-1], rewards, prompts, SelectConfig(others_per_correct=ratio))
    assert again.equals(triples)


def test_which_surplus_is_left_out_is_not_decided_by_place():
    chosen = relabeled(HINDSIGHT, *[1.0] * 4 + [0.0] * 10, select={"others_per_correct": 1.0})[0]
    wrong = set(chosen.filter(pl.col("instruction") == "Be wrong.")["sample_id"])
    assert wrong not in ({"s4", "s5", "s6", "s7"}, {"s10", "s11", "s12", "s13"})


def test_every_correct_output_is_kept_and_without_any_all_are():
    assert relabeled(HINDSIGHT, *[1.0] * 5, 0.0, 0.0, select={"others_per_correct": 1.0})[0].height == 7
    assert relabeled(HINDSIGHT, 0.0, 0.0, select={"others_per_correct": 1.0})[0].height == 2


# --- attributes ------------------------------------------------------------------------------------------------------

JUDGED = [
    {"correctness": 0.0, "brevity": -10.0},
    {"correctness": 1.0, "brevity": -2.0},
    {"correctness": 0.5, "brevity": -4.0},
    {"correctness": 0.6, "brevity": -9.0},
    {"correctness": None, "brevity": -2.0},
    {"correctness": 1.0},
    {"correctness": None, "brevity": None},
    {},
]


def instructions_by(relabeler, parts, scores=None, **changed):
    """The instruction of each sample by its number, and the rejects; the overall scores are null unless given."""
    triples, rejected = relabeled(relabeler, *(scores or [None] * len(parts)), parts=parts, **changed)
    return {int(key[1:]): text for key, text in triples.select("sample_id", "instruction").iter_rows()}, rejected


def test_attributes_are_told_as_levels_and_the_best_of_all_is_the_correct_instruction():
    """Five levels. Correctness ranges over 1: 0.5 is 4 / 2 = 2, 0.6 is 2.4 and so 2. Brevity ranges over 8:

    -4 is 4 * 6 / 8 = 3, -9 is 4 / 8 = 0.5 and so, a half being rounded up, 1.
    """
    instructions, rejected = instructions_by(ATTRIBUTES, JUDGED)
    assert instructions == {
        0: "Be brevity 0, correctness 0.",
        1: "Be right.",
        2: "Be brevity 3, correctness 2.",
        3: "Be brevity 1, correctness 2.",
        4: "Be brevity 4.",  # the best level that is known, but correctness could not be judged
        5: "Be right.",  # brevity was not judged
    }
    assert rejected == {"cannot judge": 2}


def test_an_attribute_that_is_the_same_everywhere_is_best_from_the_threshold_on_and_worst_below():
    parts = [{"correct": 0.5, "brevity": brevity} for brevity in (1.0, 0.0)]
    low, high = (
        build_relabeler(AttributesRelabel(type="attributes", levels=2, threshold=threshold), INSTRUCTIONS)
        for threshold in (0.6, 0.5)
    )
    text = "Generate an answer with brevity {}, correct {} to this problem.".format
    assert instructions_by(low, parts)[0] == {0: text(1, 0), 1: text(0, 0)}
    assert instructions_by(high, parts)[0] == {0: "Be right.", 1: text(0, 1)}
    unknown = [*parts, {"correct": None, "brevity": 1.0}]
    assert instructions_by(high, unknown)[0][2] == "Generate an answer with brevity 1 to this problem."


def test_an_output_that_says_nothing_moves_no_range_and_is_not_contrasted_with():
    samples, rewards, prompts = tables(0.0, 0.0, 0.0, parts=[{"a": 0.0}, {"a": 1.0}, {"a": 9.0}])
    lists = [pl.Series(name, [*samples[name][:2], []], samples.schema[name]) for name in ("completion_ids", "logprobs")]
    triples, rejected = ATTRIBUTES.relabel(samples.with_columns(lists), rewards, prompts)
    assert triples.sort("sample_id").select("sample_id", "instruction", "contrast").rows() == [
        ("s0", "Be a 0.", ["Be right."]),
        ("s1", "Be right.", ["Be a 0."]),
    ]
    assert rejected == {"empty completion": 1}


def test_attributes_are_contrasted_with_those_of_other_samples_of_the_prompt():
    parts = [{"a": score} for score in (0, 2, 2, 4, 1)]
    triples, _ = relabeled(ATTRIBUTES, *[0.0] * 5, parts=parts, prompt_ids=["p", "p", "p", "p", "p1"])
    assert triples.sort("sample_id").select("instruction", "contrast").rows() == [
        ("Be a 0.", ["Be a 2.", "Be right."]),
        ("Be a 2.", ["Be a 0.", "Be right."]),
        ("Be a 2.", ["Be a 0.", "Be right."]),
        ("Be right.", ["Be a 0.", "Be a 2."]),
        ("Be a 1.", []),
    ]


def test_levels_depend_on_the_place_in_the_range_alone():
    scores = [float(place) for place in (3, 17, 0, 64, 41, 40, 63)]
    moved = [[4 * score - 128 for score in scores], [score / 1024 for score in scores]]  # exact in binary
    first, *others = ([{"a": score} for score in row] for row in (scores, *moved))
    levels = instructions_by(ATTRIBUTES, first)[0]
    assert levels == {
        0: "Be a 0.",
        1: "Be a 1.",
        2: "Be a 0.",
        3: "Be right.",
        4: "Be a 3.",
        5: "Be a 3.",
        6: "Be right.",
    }
    assert [instructions_by(ATTRIBUTES, parts)[0] for parts in others] == [levels, levels]


def test_a_range_beyond_all_floats_has_its_ends():
    parts = [{"a": score} for score in (-1.7e308, 1.7e308)]
    assert instructions_by(ATTRIBUTES, parts)[0] == {0: "Be a 0.", 1: "Be right."}


def test_the_instruction_may_hold_the_correct_one():
    relabeler = build_relabeler(
        AttributesRelabel(type="attributes", instruction="{correct} {attributes}"), INSTRUCTIONS
    )
    assert instructions_by(relabeler, [{"a": 0, "b": 1}, {"a": 1, "b": 0}])[0] == {
        0: "Be right. a 0, b 4",
        1: "Be right. a 4, b 0",
    }


# --- constraints -----------------------------------------------------------------------------------------------------

WRITING = {"words": 4, "max_words": 3, "kinds": ["words_exactly", "contains", "lower_case", "upper_case"]}


def writing_prompts():
    source = SyntheticPrompts(
        type="synthetic", task="constrained_writing", size=60, test_share=0.5, seed=1,
        dials=WRITING | {"min_constraints": 2, "max_constraints": 3},
    )  # fmt: skip
    return load_prompts([source])[0]


def test_the_query_asks_in_hindsight_for_what_the_output_satisfies():
    prompts = writing_prompts()
    train = prompts.filter(pl.col("split") == "train")
    keys = train["prompt_id"].to_list() * 4
    texts = ["sun", "sun moon", "RAIN STAR SUN", "Star"]
    samples, rewards, _ = tables(*[0.5] * len(keys), prompt_ids=keys)
    written = [texts[n % 4] for n in range(len(keys))]
    samples = samples.with_columns(completion=pl.Series(written))
    triples, rejected = CONSTRAINTS.relabel(samples, rewards, prompts)
    assert triples.height + sum(rejected.values()) == len(keys)
    assert triples.height > len(keys) / 4
    held_out = set(prompts.filter(pl.col("split") == "test")["group"])
    for query, output in triples.select("query", "output").iter_rows():
        sentences = re.findall(r"[^.]+\.", query)[1:]
        constraints = [parse(sentence.strip()) for sentence in sentences]
        assert constraints
        assert all(constraint and check(constraint, output) for constraint in constraints), (query, output)
        assert group_of(constraints) not in held_out
    assert set(rejected) <= {
        "satisfies no constraint that can be asked for",
        "satisfies a set of constraints kept for the test",
    }
    assert rejected["satisfies a set of constraints kept for the test"] > 0
    assert set(triples["instruction"]) == {"Be right."}


def test_a_constraint_that_is_met_stays_and_one_that_is_not_becomes_another_of_its_topic():
    asked = [Constraint("words_exactly", 3), Constraint("contains", "sun"), Constraint("lower_case")]
    vocabulary = [*asked, Constraint("words_exactly", 2), Constraint("contains", "moon"), Constraint("upper_case")]
    met = achieved("s", "SUN MOON", asked, vocabulary)
    assert met == (Constraint("words_exactly", 2), Constraint("contains", "sun"), Constraint("upper_case"))
    assert achieved("s", "", asked, vocabulary) == ()


def test_a_constraint_that_is_asked_for_is_named_once():
    """Prompts of a file may ask for two constraints of one topic, of which the output meets one."""
    asked = [Constraint("bullets", 2), Constraint("json_list")]
    assert achieved("s", '["sun"]', asked, asked) == (Constraint("json_list"),)


def test_prompts_without_constraints_are_counted():
    assert relabeled(CONSTRAINTS, 1.0)[1] == {"prompt has no constraints in its query": 1}


# --- a function of the user's ----------------------------------------------------------------------------------------


@pytest.fixture
def relabeler_of(tmp_path, monkeypatch):
    """Builds the relabeler `python` from the body of a function."""

    def build(body):
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        name = f"mine_{content_key(body)}"
        (tmp_path / f"{name}.py").write_text(f"def relabel(samples):\n    {body}\n")
        return build_relabeler(PythonRelabel(type="python", function=f"{name}:relabel"), INSTRUCTIONS)

    return build


def test_a_function_writes_instructions_and_the_others_of_the_prompt_are_the_contrast(relabeler_of):
    relabeler = relabeler_of(
        "return [None if s['completion'] == 'c' else f'Say {s[\"completion\"]}.' for s in samples]"
    )
    triples, rejected = relabeled(relabeler, 0.0, 1.0, 1.0, 0.0, None, completions="abcda", prompt_ids=[*"pppp", "p1"])
    assert triples.sort("sample_id").select("sample_id", "instruction", "contrast").rows() == [
        ("s0", "Say a.", ["Say b.", "Say d."]),
        ("s1", "Say b.", ["Say a.", "Say d."]),
        ("s3", "Say d.", ["Say a.", "Say b."]),
    ]
    assert rejected == {"cannot judge": 1, "left out by the function": 1}


def test_the_source_of_a_function_is_part_of_its_fingerprint(relabeler_of):
    fingerprints = [
        relabeler_of(body).fingerprint() for body in ("return ['x'] * len(samples)", "return ['y'] * len(samples)")
    ]
    assert fingerprints[0]["source_sha256"] != fingerprints[1]["source_sha256"]
    assert fingerprints[0]["type"] == "python"


def test_a_function_sees_attributes_by_name(relabeler_of):
    relabeler = relabeler_of("return [f'Be {s[\"parts\"]}.' for s in samples]")
    triples, _ = relabeled(relabeler, 1.0, 0.0, parts=[{"a": 0.5, "b": None}, {}])
    assert sorted(triples["instruction"]) == ["Be {'a': 0.5, 'b': None}.", "Be {}."]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [7] * len(samples)", "expected a text or None for each row, found 7 for row 0"),
        ("return []", "expected 2 instructions, one per row, found 0"),
        ("return {}", "expected a list of 2 instructions, found dict"),
        ("return samples[9]", "raised IndexError: list index out of range, at "),
    ],
)
def test_what_a_function_does_wrong_is_said(relabeler_of, body, message):
    with pytest.raises(RewardError) as caught:
        relabeled(relabeler_of(body), 1.0, 0.0)
    assert message in str(caught.value)
