"""Progress of work on the driver: rewards and relabelers that go row by row report it, a few times per second."""

import time

import pytest
from relabel_tables import INSTRUCTIONS, tables
from reward_tables import prompts, samples

from hir_core import progress
from hir_core.config import (
    CombinedReward,
    ExactMatchReward,
    HindsightRelabel,
    JudgeReward,
    MathReward,
    NumericReward,
    PythonReward,
    RegexReward,
)
from hir_core.progress import counted
from hir_core.relabelers.registry import build_relabeler
from hir_core.relabelers.verification import verify_all
from hir_core.rewards.registry import build_reward
from hir_core.schemas import Logprobs, Samples


@pytest.fixture
def reports(monkeypatch):
    """An empty list for reports of progress, none of which is skipped however soon it follows the one before."""
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    return []


def note(reports):
    return lambda done, total: reports.append((done, total))


def test_rows_pass_as_they_are_and_are_counted_a_few_times_per_second(monkeypatch):
    now = iter(range(100))  # a clock that is looked at more than once per row
    monkeypatch.setattr(time, "monotonic", lambda: next(now) / 20)
    reports = []
    assert list(counted(iter("abcdefghijklmnopqrst"), 20, note(reports))) == list("abcdefghijklmnopqrst")
    done = [count for count, _ in reports]
    assert done == sorted(done)
    assert 0 < len(done) <= 20 / 5 + 1, "0.25 s are five looks at a clock of 20 per second"
    assert {total for _, total in reports} == {20}


@pytest.mark.parametrize(
    "config",
    [
        ExactMatchReward(),
        NumericReward(type="numeric"),
        RegexReward(type="regex", pattern="8"),
        MathReward(type="math"),
        PythonReward(type="python", function="reward_tables:score_one", time_limit_s=60),
    ],
    ids=lambda config: config.type,
)
def test_a_reward_that_goes_row_by_row_tells_each_row(config, reports):
    reward = build_reward(config)
    reward.score(samples("8", "9", "10"), prompts({"references": ["8"]}), on_rows=note(reports))
    assert reports == [(0, 3), (1, 3), (2, 3)]


def test_a_judge_tells_each_reply(serve, reports, tmp_path):
    server = serve("7")
    reward = build_reward(JudgeReward(type="judge", url=server.url, model="m", cache=tmp_path / "cache", best=10))
    reward.score(samples("8", "9", "8"), prompts({"references": ["8"]}), on_rows=note(reports))
    assert reports == [(0, 2), (1, 2)], "equal questions are asked once"


def test_the_parts_of_a_reward_share_the_rows_among_them(reports):
    parts = [{"reward": ExactMatchReward()}, {"reward": NumericReward(type="numeric")}]
    reward = build_reward(CombinedReward(type="combined", parts=parts))
    reward.score(samples("8", "9", "10", "11"), prompts({"references": ["8"]}), on_rows=note(reports))
    assert reports == [(0, 4), (0, 4), (1, 4), (1, 4), (2, 4), (2, 4), (3, 4), (3, 4)]


def test_relabeling_and_checking_instructions_tell_each_row(reports):
    relabeler = build_relabeler(HindsightRelabel(type="hindsight"), INSTRUCTIONS)
    scored = tables(1.0, 0.0, 1.0)
    relabeler.relabel(*scored, on_rows=note(reports))
    assert reports == [(0, 3), (1, 3), (2, 3)]
    reports.clear()
    judged = relabeler.judged(*scored)
    nothing = (table.create_empty() for table in (Samples, Logprobs))
    assert verify_all(judged, *nothing, INSTRUCTIONS, 0.0, note(reports)).height == 3
    assert reports == [(0, 3), (1, 3), (2, 3)]
