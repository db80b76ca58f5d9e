"""The reward `math`: equal answers however they are written, no text that hangs, an error without its extra."""

import pytest
from reward_tables import prompts, verdicts

from hir_core.config import MathReward
from hir_core.errors import ConfigError
from hir_core.rewards import math as math_reward
from hir_core.rewards.math import readings_of
from hir_core.rewards.registry import build_reward

MATH = MathReward(type="math", time_limit_s=60)
needs_extra = pytest.mark.skipif(math_reward.find_spec("math_verify") is None, reason="the extra `math` is missing")


def test_a_missing_extra_is_told_before_anything_starts(monkeypatch):
    monkeypatch.setattr(math_reward, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"reward\.type=math needs math-verify, .*: pip install \"hir\[math\]\""):
        build_reward(MATH)


def test_only_a_short_line_without_delimiters_may_be_a_formula_as_a_whole():
    assert readings_of(" x + 1 ") == [" x + 1 ", "$x + 1$"]
    for text in ("", " ", "$x$", r"\boxed{1}", "x\ny", "x" * 1000):
        assert readings_of(text) == [text]


@needs_extra
def test_what_is_equal_is_right_however_it_is_written():
    completions = {
        "1/2": 1.0,
        "0.5": 1.0,
        r"\frac{2}{4}": 1.0,
        r"So the answer is $\frac{1}{2}$.": 1.0,
        r"\boxed{0.50}": 1.0,
        "2": 0.0,
        r"$\frac{1}{3}$": 0.0,
        "": None,
        "I do not know.": None,
        "\0": None,
    }
    judged = verdicts(MATH, list(completions), {"references": [r"\frac{1}{2}"]})
    assert [score for score, _ in judged] == list(completions.values())
    assert judged[0][1] == r"equals '\\frac{1}{2}'"
    assert judged[-2] == (None, "no maths: 'I do not know.'")


@needs_extra
def test_formulas_and_sets_are_compared_as_mathematics():
    judged = verdicts(MATH, ["$(x+1)^2$", "$x^2 + 1 + 2x$", "$x^2 + 1$"], {"references": ["x^2 + 2x + 1"]})
    assert [score for score, _ in judged] == [1.0, 1.0, 0.0]
    judged = verdicts(MATH, [r"$\{3, 1, 2\}$", r"$\{1, 2\}$"], {"references": [r"\{1, 2, 3\}"]})
    assert [score for score, _ in judged] == [1.0, 0.0]


@needs_extra
def test_any_accepted_answer_is_right_and_a_marker_says_where_to_look():
    config = MATH.model_copy(update={"marker": "answer:"})
    judged = verdicts(config, ["$7$. Answer: $8$", "answer: 9", "8"], {"references": ["9", "8"]})
    assert judged == [(1.0, "equals '9 or 8'"), (1.0, "equals '9 or 8'"), (None, "no 'answer:': '8'")]


@needs_extra
@pytest.mark.slow
def test_towers_and_floods_do_not_hang_and_are_not_judged_wrong():
    hostile = ["$9^{9^{9^{9}}}$", "9**9**9**9", "$" + "(" * 10**5 + "$", "$" + "x+" * 50_000 + "1$"]
    judged = verdicts(MATH.model_copy(update={"time_limit_s": 2}), [*hostile, "8"], {"references": ["8"]})
    assert [score for score, _ in judged[:-1]] == [None] * len(hostile)
    assert judged[-1][0] in (1.0, None)  # the first row of a process reads grammars, which a busy machine does slowly


@needs_extra
def test_the_fingerprint_names_the_release_that_compares():
    assert build_reward(MATH).fingerprint()["math_verify"]


@needs_extra
def test_prompts_without_a_reference_stop_the_run():
    with pytest.raises(ConfigError, match="2 of 2 prompts cannot be judged; the first is p0"):
        build_reward(MATH).check_prompts(prompts({}, {"references": [" "]}))
