"""Where the final answer of a completion is looked for: what is visible, what commits to an answer, what is open."""

import pytest

from hir_core.rewards.reading.denial import after_correction, is_cut_off, is_denied, is_hedged, is_refusal
from hir_core.rewards.reading.final_answer import CLOSE, OPEN, Place, prepared, sentences, statements
from hir_core.rewards.reading.visible import plain, visible


@pytest.mark.parametrize(
    ("completion", "text", "is_unfinished"),
    [
        ("42", "42", False),
        ("<think>41?</think>\n42", "42", False),
        ("41?</think>42", "42", False),
        ("<think>a</think>42<think>b</think>", "42", False),
        ("<think>41", "", True),
        ("<think>41 <answer>42</answer>", "<answer>42</answer>", False),
        (
            "<|channel|>analysis<|message|>41<|end|><|start|>assistant<|channel|>final<|message|>42<|return|>",
            "42",
            False,
        ),
        ("42<|im_end|>\n<|im_start|>user\n7?", "42", False),
        ("<|im_start|>assistant\n42<|im_end|>", "42", False),
        ("42\n\nQ: 3 + 4?\nA: 7", "42", False),
        ("Assistant: 42", "42", False),
    ],
)
def test_only_what_its_reader_sees_is_read(completion, text, is_unfinished):
    assert visible(completion) == (text, is_unfinished)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\frac{3}{4}", "3/4"),
        (r"2\frac12", "2 1/2"),
        (r"\frac{x}{2}", "(x)/(2)"),
        (r"\text{(B)}", "(B)"),
        (r"50\%", "50%"),
        ("1{,}234", "1,234"),
        ("<b>42</b>", "42"),
        ("“42”", '"42"'),
        ("```python\n42\n```", "\n42\n"),
    ],
)
def test_markup_is_dropped(text, expected):
    assert plain(text) == expected


def test_boxes_and_tags_become_marks_of_their_own():
    assert prepared(r"$\boxed{\frac{1}{2}}$").text == f"${OPEN}1/2{CLOSE}$"
    assert prepared("<answer>42</answer>").text == f"{OPEN}42{CLOSE}"
    assert prepared("<answer>42").text == f"{OPEN}42{CLOSE}"
    assert prepared(r"\boxed{42").text == f"{OPEN}42"


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ('{"why": "6 * 7", "answer": "42"}', "42"),
        ('{"answer": 4.2, "why": ""}', "4.2"),
        (r'{"final_answer": "\\frac{1}{2}"}', "1/2"),
        (r'{"final_answer": "\frac{1}{2}"}', "1/2"),
        (r'{"answer": "a \"b\""}', 'a "b"'),
    ],
)
def test_the_answer_field_of_a_json_object_gets_the_same_marks(completion, answer):
    assert f"{OPEN}{answer}{CLOSE}" in prepared(completion).text


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("The answer is 42.", [Place.AFTER_IS]),
        ("**Final Answer:** 42", [Place.AFTER_LABEL]),
        ("### Answer\n42", [Place.AFTER_LABEL]),
        ("The correct option is B", [Place.AFTER_IS]),
        ("I would choose B", [Place.AFTER_IS]),
        ("B is correct.", [Place.BEFORE]),
        ("so\n#### 42", [Place.LINE]),
        ("Is the answer 42?", []),
        ("If the answer is 42, then", []),
        ("The box on the left is right of the door.", []),
    ],
)
def test_statements_commit_to_an_answer(text, places):
    assert [statement.place for statement in statements(text)] == places


def test_sentences_end_at_full_stops_and_line_breaks():
    assert sentences("It is 4.2 m. Dr. Roth said so!\n(A) red") == ["It is 4.2 m.", "Dr. Roth said so!", "(A) red"]
    assert sentences("1. ant\n2. bee") == ["1. ant", "2. bee"]
    assert sentences("42. That is all.") == ["42.", "That is all."]


@pytest.mark.parametrize(
    ("text", "is_so"),
    [
        ("not 42", True),
        ("42 is wrong", True),
        ("rather than 42", True),
        ("You might guess 42", True),
        ("It is 42", False),
        ("42, not 43", False),
        ("I guess 42", False),
    ],
)
def test_words_around_an_answer_may_deny_it(text, is_so):
    start = text.index("42")
    assert is_denied(text, start, start + 2) == is_so


def test_what_is_left_open_taken_back_refused_or_cut_off_is_told():
    assert is_hedged("It might be 42.")
    assert not is_hedged("It is 42.")
    assert not is_hedged("You might think it is 41, but it is 42.")
    assert is_refusal("I don't know.")
    assert not is_refusal("It is 42.")
    assert is_cut_off("Then we add") is False
    assert is_cut_off("Then we add the")
    text = "43. Wait, it is 42."
    assert text[after_correction(text) :] == ", it is 42."
    assert after_correction("It is 42.") is None
