"""Rewards: what counts as right, what cannot be judged, and the errors of a broken reward function."""

import sys
import textwrap
from itertools import count

import polars as pl
import pytest
from reward_tables import parts_of, prompts, samples, verdict

from hir_core.config import ExactMatchReward, OptionChoiceReward, PythonReward
from hir_core.errors import ConfigError, RewardError, SchemaError
from hir_core.rewards.registry import build_reward
from hir_core.rewards.reward import attribute_means, unscored_reasons
from hir_core.schemas import Rewards

COLOURS = {"query": "Which?\nOptions:\n(A) red\n(B) dark blue\n(C) blue", "options": ["red", "dark blue", "blue"]}
MODULE_NUMBERS = count()


@pytest.fixture
def write_reward(tmp_path, monkeypatch):
    """Writes a module with one function `score` where hir is run from, and returns its config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])

    def write(body):
        name = f"my_rewards_{next(MODULE_NUMBERS)}"
        source = "def score(completions, prompts):\n" + textwrap.indent(textwrap.dedent(body), "    ")
        (tmp_path / f"{name}.py").write_text(source)
        return PythonReward(type="python", function=f"{name}:score")

    return write


# --- exact match -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        ("8", 1.0),
        (" 8. ", 1.0),
        ("Eight", 1.0),
        ("e i g h t.", 1.0),
        ("18", 0.0),
        ("8 fruits", 0.0),
        ("", 0.0),
        (" .", 0.0),
    ],
)
def test_case_blanks_and_full_stops_do_not_count(completion, score):
    assert verdict(ExactMatchReward(), completion, {"references": ["8", "eight"]})[0] == score


@pytest.mark.parametrize(
    ("completion", "reference", "score"),
    [
        ("4.2", "42", 0.0),
        ("4.2", "4.2", 1.0),
        (".5", "5", 0.0),
        ("3.", "3", 1.0),
        ("4.2.", "4.2", 1.0),
        ("U.S.", "us", 1.0),
    ],
)
def test_a_decimal_point_is_no_full_stop(completion, reference, score):
    assert verdict(ExactMatchReward(), completion, {"references": [reference]})[0] == score


def test_nothing_written_is_never_right():
    assert verdict(ExactMatchReward(), ".", {"references": ["...", "8"]})[0] == 0.0


def test_the_reason_tells_what_was_expected():
    assert verdict(ExactMatchReward(), "9", {"references": ["8", "eight"]})[1] == "expected '8 or eight'"


def test_prompts_without_a_reference_stop_before_anything_is_scored():
    table = prompts({"references": ["8"]}, {"query": "How many?"}, {"references": [" . "]})
    with pytest.raises(ConfigError, match=r"2 of 3 prompts cannot be judged; the first is p1 \(t: 'How many\?'\)"):
        build_reward(ExactMatchReward()).check_prompts(table)
    with pytest.raises(ConfigError, match="p1"):
        build_reward(ExactMatchReward()).score(samples("8", prompt_id="p1"), table)


# --- option choice ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "named", ["(B)", "B", "b", "B)", "b.", " (b) ", "B:", "dark blue", "Dark Blue.", "(B) dark blue"]
)
@pytest.mark.parametrize(("references", "score"), [(["(B)", "dark blue"], 1.0), (["(A)", "red"], 0.0), (["red"], 0.0)])
def test_an_option_is_named_by_letter_or_text(named, references, score):
    assert verdict(OptionChoiceReward(type="option_choice"), named, COLOURS | {"references": references})[0] == score


@pytest.mark.parametrize(
    "sentence", ["The answer is (B).", "(B), because red is warm", "B. dark blue", "b) Dark blue."]
)
def test_one_letter_within_a_sentence_is_recognised(sentence):
    row = COLOURS | {"references": ["(B)", "dark blue"]}
    assert verdict(OptionChoiceReward(type="option_choice"), sentence, row)[0] == 1.0


@pytest.mark.parametrize(
    ("completion", "reason", "outcome"),
    [
        ("", "empty: ''", "no_answer"),
        ("I cannot say.", "refusal: 'I cannot say.'", "no_answer"),
        ("Which one do you mean?", "question: 'Which one do you mean?'", "no_answer"),
        ("<think>red, or", "reasoning without an answer: '<think>red, or'", "no_answer"),
        ("green", "no option: 'green'", "no_answer"),
        ("(D)", "no option: '(D)'", "no_answer"),
        ("not (B)", "no option: 'not (B)'", "not_judged"),
        ("maybe (B)", "hedged: 'maybe (B)'", "not_judged"),
        ("(A) or (B)", "several options: '(A) or (B)'", "not_judged"),
        ("(A) dark blue", "several options: '(A) dark blue'", "not_judged"),
        (
            "The answer is (A). So the answer is (B).",
            "several options: 'The answer is (A). So the answer is (B).'",
            "not_judged",
        ),
    ],
)
def test_what_names_none_or_several_cannot_be_judged(completion, reason, outcome):
    row = COLOURS | {"references": ["(B)", "dark blue"]}
    scored = build_reward(OptionChoiceReward(type="option_choice")).score(samples(completion), prompts(row))
    assert scored.select("score", "reason", "outcome").row(0) == (None, reason, outcome)


def test_an_option_is_named_after_the_last_marker():
    config = OptionChoiceReward(type="option_choice", marker="Answer:")
    row = COLOURS | {"references": ["(B)", "dark blue"]}
    texts = ["(A) first. answer: (C). Answer: (B) dark blue", "Answer: (A)", "(B)", "Answer: "]
    assert [verdict(config, text, row)[0] for text in texts] == [1.0, 0.0, None, None]


def test_letters_count_only_where_the_query_shows_them():
    row = {"query": "So?\nOptions:\n- Yes\n- No", "options": ["Yes", "No"], "references": ["Yes"]}
    choice = OptionChoiceReward(type="option_choice")
    assert [verdict(choice, text, row)[0] for text in ("yes.", "No", "A")] == [1.0, 0.0, None]


def test_an_option_that_looks_like_another_ones_letter_names_both():
    row = {"query": "Which?\nOptions:\n(A) B\n(B) A", "options": ["B", "A"], "references": ["(A)"]}
    choice = OptionChoiceReward(type="option_choice")
    assert [verdict(choice, text, row)[0] for text in ("(A)", "B", "(A) B")] == [1.0, None, 1.0]


def test_a_text_that_two_options_share_names_neither():
    row = {"query": "Which?\nOptions:\n(A) red\n(B) red", "options": ["red", "red"], "references": ["(B)", "red"]}
    choice = OptionChoiceReward(type="option_choice")
    assert [verdict(choice, text, row)[0] for text in ("(B)", "(A)", "red")] == [1.0, 0.0, None]


@pytest.mark.parametrize(
    ("row", "message"),
    [({"references": ["8"]}, "it has no options"), (COLOURS | {"references": ["green"]}, "none of its references")],
)
def test_prompts_that_offer_no_right_option_stop_the_run(row, message):
    with pytest.raises(ConfigError, match=message):
        build_reward(OptionChoiceReward(type="option_choice")).check_prompts(prompts(row))


# --- the tables around it --------------------------------------------------------------------------------------------


def test_scores_are_one_row_per_sample_in_order_of_their_ids():
    table = prompts({"references": ["0"]}, {"references": ["1"]})
    mixed = pl.concat(
        [samples("0", "1", "2"), samples("9").with_columns(sample_id=pl.lit("a"), prompt_id=pl.lit("p1"))]
    )
    scored = build_reward(ExactMatchReward()).score(mixed.reverse(), table)
    assert scored.select("sample_id", "score").rows() == [("a", 0.0), ("s0", 1.0), ("s1", 0.0), ("s2", 0.0)]
    assert build_reward(ExactMatchReward()).score(samples(), table).height == 0


def test_judging_keeps_rows_and_their_order():
    answers = pl.DataFrame({"prompt_id": ["p1", "p0"], "completion": ["1", "1"], "model": ["m", "m"]})
    judged = build_reward(ExactMatchReward()).judge(answers, prompts({"references": ["0"]}, {"references": ["1"]}))
    assert judged.columns == ["prompt_id", "completion", "model", "outcome", "score", "reason", "parts"]
    assert judged["score"].to_list() == [1.0, 0.0]


def test_a_sample_of_an_unknown_prompt_is_refused():
    with pytest.raises(SchemaError, match="1 of 1 rows to judge name prompts that the prompts table lacks, first p7"):
        build_reward(ExactMatchReward()).score(samples("8", prompt_id="p7"), prompts({"references": ["8"]}))


# --- functions of the user's -----------------------------------------------------------------------------------------


def test_a_function_sees_completions_and_prompts_and_may_decline(write_reward):
    reward = build_reward(
        write_reward("""
            levels = [prompt["metadata"]["level"] for prompt in prompts]
            return [None if not text else len(text) == level for text, level in zip(completions, levels)]
            """)
    )
    scored = reward.score(samples("abc", "", "ab"), prompts({"metadata": '{"level": 3}'}))
    assert scored["score"].to_list() == [1.0, None, 0.0]
    assert set(scored["reward"]) == {reward.name}


@pytest.mark.parametrize("value", ["True", "3", "0.5", "__import__('numpy').float32(0.5)", "None"])
def test_any_finite_number_is_a_score(write_reward, value):
    expected = {"True": 1.0, "3": 3.0, "None": None}.get(value, 0.5)
    assert build_reward(write_reward(f"return [{value}]")).score(samples("x"), prompts({}))["score"][0] == expected


@pytest.mark.parametrize("value", ["float('nan')", "float('-inf')", "10**400", "__import__('numpy').float32('inf')"])
@pytest.mark.parametrize("time_limit_s", [None, 20])
def test_what_is_not_finite_is_no_score_and_counted(write_reward, value, time_limit_s):
    config = write_reward(f"return [{value} if text == 'odd' else 1 for text in completions]")
    config = config.model_copy(update={"time_limit_s": time_limit_s})
    scored = build_reward(config).score(samples("odd", "even", "odd"), prompts({}))
    assert scored["score"].to_list() == [None, 1.0, None]
    assert all(reason.startswith("not finite: ") for reason in scored["reason"].to_list()[::2])
    assert unscored_reasons(scored) == {"not finite": 2}


def test_reasons_are_counted_without_what_is_about_one_completion():
    reasons = ["timed out: 'a'", "timed out: 'b'", "cannot judge", "no number: 'x: y'", *(f"r{n}" for n in range(5))]
    judged = pl.DataFrame({"score": [1.0, *[None] * len(reasons)], "reason": ["right", *reasons]})
    assert unscored_reasons(judged, most=3) == {"timed out": 2, "cannot judge": 1, "no number": 1, "other": 5}
    assert unscored_reasons(judged.filter(pl.col("score").is_not_null())) == {}


def test_a_time_limit_holds_for_each_completion_by_itself(write_reward):
    config = write_reward("""
        import time
        assert len(completions) == len(prompts) == 1
        while completions[0] == "for ever":
            pass
        return [prompts[0]["metadata"]["level"] + len(completions[0])]
        """).model_copy(update={"time_limit_s": 1.5})
    scored = build_reward(config).score(samples("a", "for ever", "bb"), prompts({"metadata": '{"level": 3}'}))
    assert scored["score"].to_list() == [4.0, None, 5.0]
    assert scored["reason"][1] == "timed out: 'for ever'"


def test_under_a_time_limit_a_broken_contract_is_named_with_the_row(write_reward):
    limited = {"time_limit_s": 20}
    config = write_reward("return [1 if text == 'one' else 'good' for text in completions]")
    with pytest.raises(RewardError, match="found 'good' of type str for row 1, prompt p0, completion 'two'"):
        build_reward(config.model_copy(update=limited)).score(samples("one", "two"), prompts({}))
    config = write_reward("return [1 / len(completions[0])]")
    with pytest.raises(RewardError, match=r"raised ZeroDivisionError.*py line 2, .*rows 2 to 2: correct the function"):
        build_reward(config.model_copy(update=limited)).score(samples("one", "two", ""), prompts({}))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [1, 'good']", "found 'good' of type str for row 1, prompt p0, completion 'two'"),
        ("return [1, 1j]", "found 1j of type complex for row 1"),
        ("return [1]", "expected 2 scores, one per row, found 1; the first row without its own is 1"),
        ("return [1, 1, 1]", "expected 2 scores, one per row, found 3"),
        ("return 1", "expected a list of 2 scores, found int"),
        ("return None", "expected a list of 2 scores, found NoneType"),
        ("return (1 for text in completions)", "found generator"),
        ("return prompts[5]", "raised IndexError: list index out of range, at .*my_rewards.*py line 2, .* rows 0 to 1"),
    ],
)
def test_a_function_that_breaks_its_contract_is_named_with_the_row(write_reward, body, message):
    config = write_reward(body)
    with pytest.raises(RewardError, match=message) as caught:
        build_reward(config).score(samples("one", "two"), prompts({}))
    assert config.function in str(caught.value)


@pytest.mark.parametrize("time_limit_s", [None, 20])
def test_a_function_may_judge_several_attributes_whose_mean_is_the_score(write_reward, time_limit_s):
    config = write_reward("""
        from types import MappingProxyType
        judged = {
            "good": MappingProxyType({"right": 1, "brief": 0.5}),
            "half": {"right": True, "brief": None},
            "odd": {"right": float("nan"), "brief": 10**400},
            "none": None,
        }
        return [judged[text] for text in completions]
        """)
    reward = build_reward(config.model_copy(update={"time_limit_s": time_limit_s}))
    scored = reward.score(samples("good", "half", "odd", "none"), prompts({}))
    Rewards.validate(scored)
    assert scored.select("score", "reason").rows() == [
        (0.75, ""),
        (None, "cannot judge: brief"),
        (None, "not finite: nan"),
        (None, "cannot judge"),
    ]
    none = {"right": None, "brief": None}
    assert parts_of(scored) == [{"right": 1.0, "brief": 0.5}, {"right": 1.0, "brief": None}, none, {}]
    assert scored["parts"][0].to_list() == [{"name": "brief", "score": 0.5}, {"name": "right", "score": 1.0}]
    assert unscored_reasons(scored) == {"cannot judge": 2, "not finite": 1}


def test_a_function_may_say_itself_what_its_attributes_come_to(write_reward):
    judged = [{"score": 0.25, "a": 1, "b": 1}, {"score": 0.5, "a": None, "b": 0}, {"score": None, "a": 1, "b": 1}]
    scored = build_reward(write_reward(f"return {judged!r}")).score(samples("x", "y", "z"), prompts({}))
    assert scored.select("score", "reason").rows() == [(0.25, ""), (0.5, ""), (None, "cannot judge")]
    assert parts_of(scored) == [{"a": 1.0, "b": 1.0}, {"a": None, "b": 0.0}, {"a": 1.0, "b": 1.0}]
    alone = build_reward(write_reward("return [{'score': 0.5}]")).score(samples("x"), prompts({}))
    assert (alone["score"][0], parts_of(alone)) == (0.5, [{}])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"a": 1}, {"a": "good"}, "found 'good' of type str as `a` for row 1, prompt p0, completion 'two'"),
        ({"a": 1}, {"a": [1]}, r"found \[1\] of type list as `a` for row 1"),
        ({"a": 1}, {}, r"found \{\}, which names no attribute, for row 1"),
        ({"a": 1}, {1: 1}, "found 1 as a name for row 1"),
        ({"a": 1}, {" ": 1}, "found ' ' as a name for row 1"),
        ({"a": 1, "b": 1}, {"a": 1, "c": 1}, "found a, c for row 1, prompt p0, completion 'two', and a, b for row 0"),
        ({"a": 1, "score": 1}, {"a": 1}, "found a for row 1, .* and a, score for row 0: give None to an attribute"),
        (0.5, {"a": 1}, "found a for row 1, .* and one number for row 0"),
        ({"a": 1}, 0.5, "found one number for row 1, .* and a for row 0"),
    ],
)
def test_attributes_that_are_none_or_others_are_refused_with_the_row(write_reward, first, second, message):
    config = write_reward(f"return [{first!r}, {second!r}]")
    with pytest.raises(RewardError, match=message) as caught:
        build_reward(config).score(samples("one", "two"), prompts({}))
    assert config.function in str(caught.value)


def test_under_a_time_limit_attributes_are_compared_with_those_of_the_first_row_that_has_some(write_reward):
    config = write_reward("return [{'none': None, 'one': {'a': 1}, 'two': {'b': 1}}[completions[0]]]")
    with pytest.raises(RewardError, match="found b for row 2, prompt p0, completion 'two', and a for row 1: give None"):
        build_reward(config.model_copy(update={"time_limit_s": 20})).score(samples("none", "one", "two"), prompts({}))


def test_the_mean_of_each_attribute_is_told_with_how_many_it_is_of(write_reward):
    reward = build_reward(write_reward("return [{'a': len(t), 'b': None if t == 'x' else 1} for t in completions]"))
    scored = reward.score(samples("x", "xxx"), prompts({}))
    assert attribute_means(scored) == {"attributes": {"a": {"mean": 2.0, "judged": 2}, "b": {"mean": 1.0, "judged": 1}}}
    assert attribute_means(build_reward(ExactMatchReward()).score(samples("8"), prompts({"references": ["8"]}))) == {}
    assert attribute_means(reward.score(samples("x"), prompts({})))["attributes"]["b"] == {"mean": None, "judged": 0}


def test_functions_that_cannot_be_found_are_refused_before_anything_starts(write_reward):
    module = write_reward("return []").function.partition(":")[0]
    with pytest.raises(ConfigError, match="has no function `scores`; did you mean `score`"):
        build_reward(PythonReward(type="python", function=f"{module}:scores"))
    with pytest.raises(
        ConfigError, match=r"`no\.such` cannot be imported: ModuleNotFoundError.*expected no/such\.py in"
    ):
        build_reward(PythonReward(type="python", function="no.such:score"))
    with pytest.raises(ConfigError, match="cannot be imported: SyntaxError"):
        build_reward(write_reward("return ["))


def test_the_identity_of_a_function_is_its_module_source(write_reward):
    first, same, other = (build_reward(write_reward(f"return [{n}]")).fingerprint() for n in (1, 1, 2))
    assert set(first) == {"type", "function", "time_limit_s", "source_sha256"}
    assert first["source_sha256"] == same["source_sha256"] != other["source_sha256"]
    assert build_reward(ExactMatchReward()).fingerprint() == {"type": "exact_match"}
