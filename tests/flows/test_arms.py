"""Arms of a comparison side by side: which run at a time, what is said of them, and what they are given."""

import os
import random
from types import SimpleNamespace

import pytest
import yaml

from flows import arm_process, arms
from flows.arm_process import ArmProcess
from hir_core.config.comparison import Arm
from hir_core.config.load import load_config, parse_config
from hir_core.errors import HirError, RunCancelled

RUN = {
    "run": "counting-0",
    "branch": "hindsight",
    "iterations": 1,
    "model": {"type": "scratch"},
    "prompts": [{"type": "synthetic", "task": "object_counting", "size": 40}],
    "deepspeed": "ds_configs/laptop.json",
    "training": {"learning_rate": 1e-05},
}


def planned(runs, methods, folder):
    """Arms that differ in their run's folder and their method, which is all that decides when they start."""
    return [
        Arm(task, f"m{method}", 0, SimpleNamespace(run=task, run_dir=folder / task))
        for task in runs
        for method in range(methods)
    ]


class Processes:
    """Stands in for `ArmProcess`: processes that end after a random number of looks, and a record of what ran when."""

    def __init__(self, seed, failing=()):
        self.random, self.failing = random.Random(seed), failing
        self.running, self.most, self.started, self.closed = [], 0, [], []

    def __call__(self, arm, folder, jobs):
        process = SimpleNamespace(arm=arm, log="its log", looks=self.random.randint(1, 4))

        def has_ended():
            process.looks -= 1
            if process.looks == 0:
                self.running.remove(arm)
            return process.looks == 0

        def raise_error():
            if arm.name in self.failing:
                raise HirError("no such file", "log: its log")

        process.has_ended, process.raise_error, process.wait = has_ended, raise_error, lambda: None
        process.close = lambda: self.closed.append(arm)
        assert arm.config.run_dir not in {other.config.run_dir for other in self.running}, "a run has one writer"
        self.running.append(arm)
        self.started.append(arm)
        self.most = max(self.most, len(self.running))
        return process


@pytest.fixture
def processes(monkeypatch):
    """Has `side_by_side` start stand-ins, for arms of which these are complete."""

    def replace(seed, complete=(), failing=()):
        started = Processes(seed, failing)

        def completed(run):
            done = run in complete or run in {(arm.task, arm.method) for arm in started.started}
            return [SimpleNamespace(evaluation=None)] if done else []

        monkeypatch.setattr(arms, "ArmProcess", started)
        monkeypatch.setattr(arms, "Run", lambda config: config.key)
        monkeypatch.setattr(arms, "completed_models", completed)
        monkeypatch.setattr(arms, "_line", lambda ended, number, planned: f"{number} of {planned} {ended.arm.name}")
        monkeypatch.setattr(arms, "POLL_S", 0)
        return started

    return replace


def keyed(planned_arms):
    for arm in planned_arms:
        arm.config.key = (arm.task, arm.method)
    return planned_arms


@pytest.mark.parametrize("seed", range(8))
def test_every_arm_ends_once_few_run_at_a_time_and_those_of_one_run_take_turns(tmp_path, processes, seed, capsys):
    jobs, runs, methods = 1 + seed, "abcde"[: 1 + seed % 5], 1 + seed % 4
    everything = keyed(planned(runs, methods, tmp_path))
    failing = {everything[-1].name}
    complete = {arm.config.key for arm in everything[:2]}
    started = processes(seed, complete, failing)
    ended = list(arms.side_by_side(everything, jobs, tmp_path))
    assert sorted(one.arm.name for one in ended) == sorted(arm.name for arm in everything)
    assert started.most == min(jobs, len({arm.task for arm in everything if arm.config.key not in complete}))
    assert [arm for arm in everything if arm.config.key not in complete and arm.task == "a"] == [
        arm for arm in started.started if arm.task == "a"
    ]
    for one in ended:
        assert one.is_new == (one.arm.config.key not in complete and one.error is None)
        assert (one.error is not None) == (one.arm.name in failing and one.arm.config.key not in complete)
    assert sorted(arm.name for arm in started.closed) == sorted(arm.name for arm in started.started)
    assert f"{len(everything)} of {len(everything)}" in capsys.readouterr().out


def test_the_run_with_most_to_do_goes_first_so_that_none_is_left_alone_at_the_end(tmp_path, processes):
    everything = keyed([*planned("ab", 1, tmp_path), *planned("c", 3, tmp_path)])
    started = processes(0)
    list(arms.side_by_side(everything, 2, tmp_path))
    assert [arm.task for arm in started.started[:2]] == ["c", "a"]


def test_a_caller_that_stops_ends_every_arm_that_is_running(tmp_path, processes):
    started = processes(0)
    ending = arms.side_by_side(keyed(planned("abc", 2, tmp_path)), 3, tmp_path)
    first = next(ending)
    ending.close()
    assert {arm.name for arm in started.closed} == {arm.name for arm in started.running} | {first.arm.name}


# --- the process of an arm -------------------------------------------------------------------------------------------


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """The process of an arm that has run this code in the place of `hir run`."""

    def run(code):
        monkeypatch.setattr(arm_process, "HIR", code)
        arm = Arm("counting", "hindsight", 0, parse_config(RUN | {"runs_dir": str(tmp_path)}))
        process = ArmProcess(arm, tmp_path / "arms", 4)
        process.wait()
        process.close()
        assert process.has_ended()
        return process

    return run


def test_what_an_arm_is_given_is_its_config_and_its_share_of_the_cores(ended, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(10)))
    process = ended("import os, sys; print(sys.argv[1:], os.environ['OMP_NUM_THREADS'])")
    process.raise_error()
    config = tmp_path / "arms/counting-0/hindsight.yaml"
    assert process.log.read_text() == f"['run', '{config}'] 2\n"
    assert load_config(config) == process.arm.config
    assert yaml.safe_load(config.read_text())["training"]["learning_rate"] == 1e-05


def test_more_arms_than_cores_have_a_thread_each_and_the_users_number_is_kept(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert arm_process.environment(3)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert arm_process.environment(3)["OMP_NUM_THREADS"] == "7"


def test_an_arm_that_failed_says_why_as_its_process_did(ended):
    with pytest.raises(HirError) as caught:
        ended("print('error: of one stage\\na table\\nerror: no data\\n  in b'); exit(2)").raise_error()
    assert caught.value.lines[:2] == ("no data", "  in b")
    assert caught.value.lines[2].endswith("arms/counting-0/hindsight.log")


def test_an_arm_that_died_without_a_word_is_said_to_have(ended):
    with pytest.raises(HirError, match=r"its process ended with status 137: see .*hindsight\.log"):
        ended("import os; os.kill(os.getpid(), 9)").raise_error()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("error: cancelled from Prefect", "cancelled from Prefect"),
        ("interrupted: nothing is lost", "counting · hindsight · seed 0 was interrupted; the same command continues"),
    ],
)
def test_an_arm_that_was_cancelled_ends_the_comparison(ended, said, message):
    with pytest.raises(RunCancelled) as caught:
        ended(f"print({said!r}); exit(130)").raise_error()
    assert str(caught.value) == message
