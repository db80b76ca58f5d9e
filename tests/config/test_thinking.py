"""Thinking and answer of an output are told apart by the marks that the config names, or that models are known by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hir_core.config.load import parse_config
from hir_core.config.model import Thinking
from hir_core.errors import ConfigError
from hir_core.rewards.reading.visible import visible


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("4", "4"),
        ("<think>3, no</think>\n\n4", "4"),
        ("3, no</think>4", "4"),  # the template started the thinking
        ("<think>", ""),
        ("<think>it is 3", ""),
        ("4 <think>or 3?", "4"),
        ("<think>a</think>4<think>b</think>5", "4\n5"),
        ("<think>a<think>b</think>4", "4"),
        ("", ""),
    ],
)
def test_the_answer_is_what_stands_outside_the_marks(output, answer):
    assert Thinking().answer(output) == answer
    other = Thinking(start="(.", end=".)")
    assert other.answer(output.replace("<think>", "(.").replace("</think>", ".)")) == answer
    assert visible(output).text == answer  # the same rule, for the marks that rewards know


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "b ", "\n"]), max_size=12))
def test_no_letter_of_an_answer_is_thinking_and_every_other_is(pieces):
    """Letter by letter: one is of the answer unless it stands after an open start mark, or before a lone end mark."""
    is_inside, kept = False, []
    for piece in pieces:
        if piece == "<think>":
            is_inside = True
        elif piece == "</think>":
            kept, is_inside = kept if is_inside else [], False
        elif not is_inside:
            kept.append(piece)
    answer = Thinking().answer("".join(pieces))
    assert "".join(answer.split()) == "".join("".join(kept).split())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"thinking": {"start": "|", "end": "|"}}, r"model\.thinking: start and end are both '\|'"),
        ({"thinking": {"start": ""}}, r"model\.thinking\.start"),
        ({"chat_template_kwargs": {"messages": []}}, "`messages` is set where the template is rendered: remove it"),
        ({"chat_template_kwargs": {"a": float("nan")}}, "chat_template_kwargs.*JSON values"),
        ({"chat_template_kwargs": [1]}, r"model\.chat_template_kwargs"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({"run": "r", "iterations": 0, "model": {"source": "a/b", **settings}, "prompts": [{"path": "p"}]})
