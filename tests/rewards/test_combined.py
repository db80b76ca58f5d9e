"""The reward `combined`: hand-computed means, minima and products, and errors in nested settings."""

from fractions import Fraction

import pytest
from reward_tables import parts_of, prompts, samples, verdict

from hir_core.config import CombinedReward
from hir_core.config.load import parse_config
from hir_core.errors import ConfigError
from hir_core.rewards.registry import build_reward
from hir_core.rewards.reward import unscored_reasons

TINY = {"run": "tiny", "iterations": 1, "model": {"source": "m"}, "prompts": [{"path": "p.jsonl"}]}
GRADED = {"reward": {"type": "graded"}}
EXACT = {"reward": {"type": "exact_match"}}
NUMERIC = {"reward": {"type": "numeric"}}
ROW = {"references": ["1 2 3 4"]}


def combined(*parts, how="mean"):
    return CombinedReward(type="combined", how=how, parts=parts)


@pytest.mark.parametrize(
    ("how", "weights", "scores", "expected"),
    [
        ("mean", (1, 1), (0.5, 0), 0.25),
        ("mean", (3, 1), (0.5, 0), 0.375),
        ("mean", (1, 3), (0.5, 0), 0.125),
        ("minimum", (1, 1), (0.5, 0), 0.0),
        ("product", (1, 1), (0.5, 0), 0.0),
        ("mean", (1, 2), (1, 1), 1.0),
        ("mean", (0.1, 0.2), (1, 1), 1.0),
        ("minimum", (1, 1), (1, 1), 1.0),
        ("product", (1, 1), (1, 1), 1.0),
    ],
)
def test_hand_computed_scores(how, weights, scores, expected):
    completion = {0.5: "1 2 4 3", 1: "1 2 3 4"}[scores[0]]
    first, second = (part | {"weight": weight} for part, weight in zip((GRADED, EXACT), weights, strict=True))
    assert verdict(combined(first, second, how=how), completion, ROW)[0] == expected


def test_a_product_of_shares_is_smaller_than_each():
    row = {"references": ["1 2 3"]}
    kendall = {"name": "order", "reward": {"type": "graded", "measure": "kendall"}}
    assert verdict(combined(GRADED, kendall, how="product"), "1 3 2", row)[0] == pytest.approx(float(Fraction(2, 9)))
    assert verdict(combined(GRADED, kendall, how="minimum"), "1 3 2", row)[0] == pytest.approx(1 / 3)


def test_the_reason_tells_every_part():
    assert verdict(combined(GRADED, EXACT), "1 2 4 3", ROW)[1] == (
        "graded 0.5 (4 items for 4, expected '1 2 3 4'); exact_match 0 (expected '1 2 3 4')"
    )


def test_where_one_part_cannot_judge_the_whole_cannot_and_its_reason_is_counted():
    reward = build_reward(combined(EXACT, NUMERIC))
    scored = reward.score(samples("many", "4", "1,2"), prompts({"references": ["4"]}))
    assert scored["score"].to_list() == [None, 1.0, None]
    assert scored["outcome"].to_list() == ["no_answer", "scored", "not_judged"]
    assert scored["reason"][0] == "no number: 'many' [exact_match 0, numeric none]"
    assert unscored_reasons(scored) == {"no number": 1, "unclear number": 1}


def test_each_part_is_an_attribute_by_its_name_or_its_rewards():
    order = {"name": "order", "reward": {"type": "graded", "measure": "kendall"}}
    reward = build_reward(combined(GRADED, order, EXACT))
    scored = reward.score(samples("1 2 4 3", "none"), prompts(ROW))
    assert parts_of(scored) == [
        {"exact_match": 0.0, "graded": 0.5, "order": 5 / 6},
        {"exact_match": 0.0, "graded": None, "order": None},
    ]
    assert scored["score"][1] is None
    assert scored["reason"][1] == "names no item: 'none' [graded none, order none, exact_match 0]"


def test_the_name_of_a_part_is_that_of_its_reward(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "quarters.py").write_text("def score(completions, prompts): return [0.25] * len(completions)")
    inner = {"reward": {"type": "combined", "parts": [GRADED]}}
    reward = build_reward(combined({"reward": {"type": "python", "function": "quarters:score"}}, inner, EXACT, NUMERIC))
    assert reward.names == [part.name for part in reward.parts]
    assert reward.names == ["quarters:score", "combined", "exact_match", "numeric"]


def test_parts_may_be_combined_themselves():
    inner = {"reward": {"type": "combined", "how": "minimum", "parts": [GRADED, EXACT]}}
    assert verdict(combined(inner, GRADED | {"weight": 3}), "1 2 4 3", ROW)[0] == pytest.approx(0.75 * 0.5)


def test_a_prompt_must_suit_every_part():
    with pytest.raises(ConfigError, match=r"reward combined: 1 of 1 prompts .*: numeric: none of its references"):
        build_reward(combined(EXACT, NUMERIC)).check_prompts(prompts({"references": ["many"]}))


def test_the_fingerprint_holds_what_decides_each_part(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "halves.py").write_text("def score(completions, prompts): return [0.5] * len(completions)")
    python = {"reward": {"type": "python", "function": "halves:score"}}
    fingerprints = [build_reward(combined(EXACT, part, how="minimum")).fingerprint() for part in (python, GRADED)]
    assert fingerprints[0]["parts"][1]["reward"]["source_sha256"]
    assert fingerprints[0]["parts"][0] == {"name": None, "weight": 1.0, "reward": {"type": "exact_match"}}
    assert fingerprints[0] != fingerprints[1]
    assert fingerprints[0] != build_reward(combined(EXACT, python)).fingerprint()
    with_name = build_reward(combined(EXACT | {"name": "right"}, GRADED)).fingerprint()["parts"]
    assert with_name == [fingerprints[0]["parts"][0] | {"name": "right"}, fingerprints[1]["parts"][1]]


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ({"parts": []}, "reward.parts: expected at least 1 (found [])"),
        ({}, "reward.parts: required, but missing"),
        ({"parts": [{"weight": 2}]}, "reward.parts.0.reward: required, but missing"),
        ({"parts": [{"wieght": 2, "reward": {}}]}, "reward.parts.0.wieght: unknown key; did you mean `weight`?"),
        ({"parts": [EXACT, {"weight": 0, "reward": {}}]}, "reward.parts.1.weight: expected more than 0"),
        (
            {"parts": [EXACT, {"reward": {"type": "numeric", "markr": "#"}}]},
            "reward.parts.1.reward.markr: unknown key; did you mean `marker`?",
        ),
        (
            {"parts": [{"reward": {"type": "numerik"}}]},
            "reward.parts.0.reward.type: expected one of answer, exact_match, option_choice,",
        ),
        ({"parts": [{"reward": {"type": "numerik"}}]}, "(found 'numerik'); did you mean `numeric`?"),
        (
            {"parts": [{"reward": {"type": "combined", "parts": [{"reward": {"type": "graded", "measur": "x"}}]}}]},
            "reward.parts.0.reward.parts.0.reward.measur: unknown key; did you mean `measure`?",
        ),
        (
            {"parts": [{"reward": {"type": "regex", "pattern": "("}}]},
            "reward.parts.0.reward: '(' is no regular expression",
        ),
        ({"parts": [{"reward": "exact_match"}]}, "reward.parts.0.reward: expected settings as `key: value`"),
        ({"parts": ["exact_match"]}, "reward.parts.0: expected settings as `key: value` (found 'exact_match')"),
        ({"parts": [GRADED, EXACT, GRADED]}, "reward: several parts are named graded: give each a `name` of its own"),
        ({"parts": [EXACT | {"name": "graded"}, GRADED]}, "reward: several parts are named graded"),
        ({"parts": [EXACT | {"name": ""}]}, "reward.parts.0.name: "),
        ({"how": "min", "parts": [EXACT]}, "reward.how: expected 'mean', 'minimum' or 'product' (found 'min')"),
        (
            {"how": "minimum", "parts": [EXACT | {"weight": 2}]},
            "reward: `weight` needs `how: mean`: remove every `weight`",
        ),
    ],
)
def test_what_is_wrong_inside_a_part_is_named_with_its_place(reward, message):
    with pytest.raises(ConfigError) as caught:
        parse_config({**TINY, "reward": {"type": "combined", **reward}})
    assert message in str(caught.value)
