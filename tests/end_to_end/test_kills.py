"""`kill -9` at random moments inside each stage of a real run on two ranks, as often as `--kills` says.

A round is a run of its own, killed several times in each stage and started again each time, until it comes to its end;
there are as many rounds as the kills need. What is recorded at each kill is judged below, and every round is held
against a run that nobody killed. On a stage of the driver the flow's process is killed; in a launch, drawn at random,
that process, the launch's supervisor, its launcher or one of its ranks. Ranks wait for the next job (`launch.resident`)
where nobody kills, and in every other round, from the first one on.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from cli_run import TINY, TWO_RANKS, assert_same_content, name_server, write_config
from killed_run import DRIVER_POLL_S, ORDER, STAGES, Blow, Duration, KilledRun, stage_of

pytestmark = pytest.mark.slow

SOURCE = TINY["prompts"][0]
SETTINGS: dict[str, Any] = {
    "prompts": [SOURCE | {"size": 320, "test_share": 0.75, "dials": SOURCE["dials"] | {"words": 8}}],
    "warm_start": TINY["warm_start"] | {"learning_rate": 0.001, "optimizer_state": "all", "checkpoint_every_s": 0.1},
    "training": TINY["training"] | {"batch_size": 16, "optimizer_state": "all", "checkpoint_every_s": 0.1},
    # A prompt is a batch, and written at once: a second in each step, and something to lose at any moment of it.
    "sampling": {"k": 2, "max_new_tokens": 12, "batch_tokens": 60, "write_every_s": 0},
}
KILLS_PER_ROUND = 8


class Campaign:
    """So many kills in each stage, in as many rounds as they need."""

    def __init__(self, kills: int, stages: list[str], seed: int, folder: Path, home: Path) -> None:
        self.kills, self.stages, self.folder, self.home = kills, stages, folder, home
        self.started = time.monotonic()
        self.blows: list[list[Blow]] = []
        """By round."""
        self.usual: dict[str, list[Duration]] = {}
        self.draw = random.Random(seed)
        self.rounds: list[KilledRun] = []
        self.unkilled = self._begin("unkilled")
        self.unkilled.go_to_the_end()
        for visit in ORDER:  # one that began and ended between two looks was shorter than the time between them
            self.usual.setdefault(visit, [(DRIVER_POLL_S, DRIVER_POLL_S)])
        while any(self.count(stage, is_kill=True) < kills for stage in self.stages):
            assert len(self.rounds) < 4 + kills, f"too many misses\n{self}"
            self.blows.append([])
            self.rounds.append(self._begin(f"round-{len(self.rounds)}"))
            self.rounds[-1].go_to_the_end()

    def _begin(self, name: str) -> KilledRun:
        folder = self.folder / name
        folder.mkdir()
        is_resident = len(self.rounds) % 2 == 0
        write_config(folder, **SETTINGS | {"launch": TWO_RANKS | {"resident": is_resident}})
        return KilledRun(folder, self.home, self.usual, self.draw, self._wants, self._tell)

    def _wants(self, visit: str) -> bool:
        """Whether to kill once more there: of what a run makes twice, every other round spares the first."""
        stage = stage_of(visit)
        if not self.blows or stage not in self.stages:
            return False
        visits = [one for one in ORDER if one.startswith(stage)]
        is_spared = len(visits) > 1 and len(self.blows) % 2 == 0 and visit == visits[0]
        here = sum(blow.is_kill for blow in self.blows[-1] if blow.visit.startswith(stage))
        return not is_spared and here < KILLS_PER_ROUND and self.count(stage, is_kill=True) < self.kills

    def _tell(self, blow: Blow) -> None:
        self.blows[-1].append(blow)
        print(f"{time.monotonic() - self.started:6.0f} s · round {len(self.blows) - 1} · {blow}", flush=True)

    def all(self) -> Iterator[Blow]:
        return (blow for blows in self.blows for blow in blows)

    def count(self, stage: str, *, is_kill: bool) -> int:
        return sum(blow.is_kill is is_kill for blow in self.all() if blow.visit.startswith(stage))

    def __str__(self) -> str:
        lines = []
        for stage in self.stages:
            victims = Counter(blow.victim for blow in self.all() if blow.is_kill and blow.visit.startswith(stage))
            by = ", ".join(f"{victim} {count}" for victim, count in sorted(victims.items()))
            kills, misses = (self.count(stage, is_kill=is_kill) for is_kill in (True, False))
            lines.append(f"{stage:12} {kills:3} kills ({by}), {misses} misses")
        return "\n".join(lines)


@pytest.fixture(scope="module")
def campaign(request, tmp_path_factory, server_for_killed_runs) -> Campaign:
    kills, stages, seed = (request.config.getoption(name) for name in ("--kills", "--kills-in", "--kills-seed"))
    home = tmp_path_factory.mktemp("prefect")  # of these runs alone: their processes are found by it
    name_server(home, server_for_killed_runs)
    stages = stages.split(",") if stages else list(STAGES)
    made = Campaign(kills, stages, seed, tmp_path_factory.mktemp("killed"), home)
    usual = " · ".join(f"{visit} {median(total for _, total in made.usual[visit]):.2f} s" for visit in ORDER)
    print(f"{made}\n{len(made.rounds)} rounds; usual durations: {usual}")
    return made


def test_each_stage_was_killed_as_often_as_was_asked(campaign):
    there = {stage: campaign.count(stage, is_kill=True) for stage in campaign.stages}
    assert there == dict.fromkeys(campaign.stages, campaign.kills), str(campaign)


def test_whatever_is_visible_after_a_kill_is_sound_and_what_it_was(campaign):
    assert [str(blow) for blow in campaign.all() if blow.bad] == [], str(campaign)


def test_no_process_is_left_10_s_after_a_kill(campaign):
    assert [str(blow) for blow in campaign.all() if blow.left] == [], str(campaign)


def test_every_killed_run_ends_with_what_a_run_has_that_nobody_killed(campaign):
    for one in campaign.rounds:
        assert_same_content(campaign.unkilled.run_dir, one.run_dir)


def test_nothing_half_done_is_left_at_the_end(campaign):
    hidden = [path for one in campaign.rounds for path in one.run_dir.rglob(".*") if path.name != ".lock"]
    assert hidden == []
