"""Frames: a right answer in any sentence that keeps its meaning is right, and a wrong one is wrong."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from reward_tables import row

from hir_core.config import AnswerReward, NumericReward, OptionChoiceReward
from hir_core.rewards.registry import build_reward

FRAMES = yaml.safe_load((Path(__file__).parent / "verdicts" / "frames.yaml").read_text(encoding="utf-8"))
ANSWER = build_reward(AnswerReward())
OPTION_CHOICE = build_reward(OptionChoiceReward(type="option_choice"))
NUMERIC = build_reward(NumericReward(type="numeric"))
COLOURS = row(
    query="Which colour is it?\nOptions:\n(A) red\n(B) dark blue\n(C) blue",
    options=["red", "dark blue", "blue"],
    references=["(B)", "dark blue"],
)
CASES = {
    "letter": ("option", COLOURS, "(B)", "(C)", [ANSWER, OPTION_CHOICE]),
    "letter and text": ("option", COLOURS, "(B) dark blue", "(A) red", [ANSWER, OPTION_CHOICE]),
    "option text": ("option", COLOURS, "dark blue", "blue", [ANSWER, OPTION_CHOICE]),
    "number": ("number", row(query="How many?", references=["42"]), "42", "17", [ANSWER, NUMERIC]),
    "negative number": ("number", row(query="How cold?", references=["-3.5"]), "-3.5", "3.5", [ANSWER, NUMERIC]),
    "large number": ("number", row(query="How many?", references=["1234"]), "1,234", "1,243", [ANSWER, NUMERIC]),
    "yes": ("yes_no", row(query="Is it so?", references=["Yes"]), "Yes", "No", [ANSWER]),
    "no": ("yes_no", row(query="Is it so?", references=["No"]), "No", "Yes", [ANSWER]),
    "true": ("yes_no", row(query="True or false?", references=["False"]), "False", "True", [ANSWER]),
    "name": ("text", row(query="Who was it?", references=["Ines Roth"]), "Ines Roth", "Paul Berg", [ANSWER]),
    "word": ("text", row(query="Which city?", references=["Paris"]), "Paris", "Lyon", [ANSWER]),
    "list": (
        "list",
        row(query="Sort: cat ant bee", references=["ant bee cat"]),
        "ant, bee, cat",
        "bee, ant, cat",
        [ANSWER],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_frame_keeps_the_verdict(case):
    kind, prompt, right, wrong, rewards = CASES[case]
    frames = [entry["frame"] for entry in FRAMES if kind in entry["kinds"]]
    assert frames
    for reward in rewards:
        verdicts = {
            text: reward.verdict(text, prompt).score
            for frame in frames
            for text in (frame.replace("{answer}", right), frame.replace("{answer}", wrong))
        }
        expected = {frame.replace("{answer}", right): 1.0 for frame in frames}
        expected |= {frame.replace("{answer}", wrong): 0.0 for frame in frames}
        assert {text: score for text, score in verdicts.items() if score != expected[text]} == {}


NUMBER_FRAMES = [entry["frame"] for entry in FRAMES if "number" in entry["kinds"]]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(NUMBER_FRAMES), st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_any_number_in_any_frame_is_right_exactly_where_it_is_the_reference(frame, number, reference):
    prompt = row(query="How many?", references=[str(reference)])
    assert ANSWER.verdict(frame.replace("{answer}", str(number)), prompt).score == float(number == reference)


OPTION_FRAMES = [entry["frame"] for entry in FRAMES if "option" in entry["kinds"]]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(OPTION_FRAMES), st.integers(0, 2), st.integers(0, 2), st.booleans())
def test_any_option_in_any_frame_is_right_exactly_where_it_is_the_reference(frame, chosen, right, by_letter):
    options = COLOURS["options"]
    prompt = row(query=COLOURS["query"], options=options, references=[options[right]])
    name = f"({'ABC'[chosen]})" if by_letter else options[chosen]
    assert OPTION_CHOICE.verdict(frame.replace("{answer}", name), prompt).score == float(chosen == right)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=200), st.sampled_from([case[1] for case in CASES.values()]))
def test_any_text_has_a_verdict_and_always_the_same(text, prompt):
    verdict = ANSWER.verdict(text, prompt)
    assert verdict.score in (None, 0.0, 1.0)
    assert verdict == build_reward(AnswerReward()).verdict(text, prompt)
