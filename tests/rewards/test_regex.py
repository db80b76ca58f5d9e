"""The reward `regex`: what matches, what a group is compared with, and patterns that would never end."""

import pytest
from reward_tables import prompts, verdicts

from hir_core.config import RegexReward
from hir_core.config.load import parse_config
from hir_core.errors import ConfigError
from hir_core.rewards.registry import build_reward

TINY = {"run": "tiny", "iterations": 1, "model": {"source": "m"}, "prompts": [{"path": "p.jsonl"}]}


def regex(pattern, **settings):
    return RegexReward(type="regex", pattern=pattern, **settings)


def test_without_a_group_a_match_is_right_and_none_is_wrong():
    assert verdicts(regex(r"\d+"), ["it is 42", "none", ""], {}) == [
        (1.0, "matches"),
        (0.0, "does not match: 'none'"),
        (0.0, "does not match: ''"),
    ]
    assert [score for score, _ in verdicts(regex(r"\d+", match="fullmatch"), ["42", "it is 42"], {})] == [1.0, 0.0]


def test_a_group_is_compared_with_the_references_and_no_match_cannot_be_judged():
    config = regex(r"(?i)answer:\s*(?P<answer>\w*)", group="answer", match="last")
    judged = verdicts(
        config, ["Answer: 7. ANSWER: Eight", "answer: 9", "8", "answer: "], {"references": ["8", "eight"]}
    )
    assert judged == [
        (1.0, "found 'Eight'"),
        (0.0, "found '9', expected '8 or eight'"),
        (None, "no match: '8'"),
        (0.0, "found '', expected '8 or eight'"),
    ]


def test_a_group_that_took_no_part_cannot_be_judged():
    assert verdicts(regex("(a)|b", group=1), ["b"], {"references": ["a"]}) == [(None, "no match: 'b'")]


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$"])
def test_a_pattern_without_end_costs_its_limit_and_is_not_judged(pattern):
    judged = verdicts(regex(pattern, time_limit_s=1), ["a" * 200 + "!", "b"], {})
    assert [score for score, _ in judged] == [None, 0.0]
    assert judged[0][1].startswith("timed out: 'aaa")


@pytest.mark.parametrize("text", ["", "\0", "שלום 8", "x" * 10**6, "\n" * 10**5, "\u202e8"])
def test_any_text_is_matched(text):
    assert verdicts(regex("(?s).*", match="fullmatch", time_limit_s=20), [text], {}) == [(1.0, "matches")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": "("}, "reward: '(' is no regular expression: missing ), unterminated subpattern at position 0"),
        ({"pattern": "x{2}("}, "reward: 'x{2}(' is no regular expression"),
        ({"pattern": "a", "group": 1}, "reward: 'a' has no group 1: it has 0"),
        ({"pattern": "(?P<x>a)", "group": "y"}, "has no group 'y': it has 0, 1, x"),
        ({"pattern": "a", "time_limit_s": 0}, "reward.time_limit_s: expected more than 0"),
        ({}, "reward.pattern: required, but missing"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused_before_anything_starts(settings, message):
    with pytest.raises(ConfigError) as caught:
        parse_config({**TINY, "reward": {"type": "regex", **settings}})
    assert message in str(caught.value)


def test_a_group_needs_references():
    table = prompts({"references": ["8"]}, {})
    build_reward(regex("a")).check_prompts(table)
    with pytest.raises(ConfigError, match="1 of 2 prompts cannot be judged; the first is p1"):
        build_reward(regex("(a)", group=1)).check_prompts(table)
