"""Rows under a time limit: one that never ends has no value, the rows around it have theirs, and no process is left."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hir_core import time_limit
from hir_core.errors import ConfigError, RewardError
from hir_core.rewards.patterns import find
from hir_core.time_limit import RowResult, Work, process_rows

MAKER = """
import ctypes, os, subprocess, sys, time
from pathlib import Path
from hir_core.errors import ConfigError

def make(settings):
    if settings.get("broken"):
        raise ConfigError("it cannot be made")
    if settings.get("crashing"):
        os._exit(3)
    Path(settings["pids"]).open("a").write(f"{os.getpid()}\\n")
    def work(row):
        print("printed", os.getpid())
        os.write(1, b"written")
        return act(row, settings)
    return work

def act(row, settings):
    if row == "sleep":
        time.sleep(60)
    if row == "nap":
        time.sleep(1)
    if row == "order":
        return list({f"name {number}" for number in range(50)})
    while row == "spin":
        pass
    if row == "helper":
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        Path(settings["pids"]).open("a").write(f"{helper.pid}\\n")
        time.sleep(60)
    if row == "crash":
        ctypes.string_at(0)
    if row == "leave":
        os._exit(0)
    if row == "exit":
        sys.exit("enough")
    if row == "divide":
        1 / 0
    if row == "stdin":
        return sys.stdin.read()
    return [row, row]
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Work that echoes each row twice, and misbehaves on some; its module is found by the search path alone."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "odd_work.py").write_text(MAKER)
    return Work("odd_work:make", {"pids": str(tmp_path / "pids")})


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def assert_none_is_left(work, within_s=20.0):
    pids = [int(line) for line in Path(work.settings["pids"]).read_text().split()]
    deadline = time.monotonic() + within_s
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in pids if is_running(pid)] == []


def test_rows_are_answered_in_their_order_whatever_the_work_prints(work):
    rows = ["a", "", "\0", "é\u2028🎉", "x" * 10**6, {"a": [1, None]}, None, "stdin"]
    expected = [*([row, row] for row in rows[:-1]), ""]
    assert [answer.value for answer in process_rows(work, rows, 20)] == expected
    assert_none_is_left(work)


def test_a_row_without_end_is_given_up_with_all_that_it_started(work):
    results = process_rows(work, ["a", "helper", "b"], 1.5)
    assert results == [RowResult(["a", "a"]), RowResult(problem="timed out"), RowResult(["b", "b"])]
    assert_none_is_left(work)


@pytest.mark.parametrize("row", ["crash", "leave"])
def test_a_row_that_ends_its_process_costs_only_itself(work, row):
    assert process_rows(work, [row, "b"], 20) == [RowResult(problem="ended its process"), RowResult(["b", "b"])]


@pytest.mark.parametrize(("row", "message"), [("divide", "ZeroDivisionError: div"), ("exit", "SystemExit: enough")])
def test_what_the_work_raises_is_raised_here(work, row, message):
    with pytest.raises(RewardError, match=message):
        process_rows(work, ["a", row], 20)
    assert_none_is_left(work)


def test_work_that_cannot_be_made_says_why(work):
    with pytest.raises(ConfigError, match="it cannot be made"):
        process_rows(Work(work.maker, {"broken": True}), ["a"], 20)
    with pytest.raises(RewardError, match=r"for odd_work:make did not start \(ended its process\)"):
        process_rows(Work(work.maker, {"crashing": True}), ["a"], 20)


def test_no_rows_need_no_process(work):
    assert process_rows(work, [], 1) == []
    assert not Path(work.settings["pids"]).exists()


def test_it_works_outside_the_main_thread(work):
    results = []
    thread = threading.Thread(target=lambda: results.extend(process_rows(work, ["a", "sleep", "b"], 1.5)))
    thread.start()
    thread.join()
    assert [answer.problem for answer in results] == ["", "timed out", ""]


def test_a_driver_that_is_killed_takes_the_process_with_it(work, tmp_path):
    code = f"""
    import sys
    sys.path[:] = {sys.path!r}
    from hir_core.time_limit import Work, process_rows
    process_rows(Work({work.maker!r}, {json.dumps(work.settings)}), ["a", "sleep"], 60)
    """
    driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not Path(work.settings["pids"]).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert_none_is_left(work)


def test_patterns_without_end_time_out_and_others_find_what_re_finds():
    results = find(r"(a+)+$", ["aaa", "a" * 40 + "b", "b"], limit_s=1.5)
    assert results == [RowResult(["aaa"]), RowResult(problem="timed out"), RowResult([])]
    texts = ["x=1, x=2", "none"]
    assert [answer.value for answer in find(r"x=(?P<n>\d)", texts, group="n", limit_s=20)] == [["1"], []]
    assert [answer.value for answer in find(r"x=(\d)", texts, group=1, how="last", limit_s=20)] == [["2"], []]
    assert [answer.value for answer in find(r"none", texts, how="fullmatch", limit_s=20)] == [[], ["none"]]
    assert find(r"a|(b)", ["a"], group=1, limit_s=20) == [RowResult([None])]


def test_work_that_only_computes_is_limited_in_processor_time(work):
    work = replace(work, only_computes=True)
    assert process_rows(work, ["a", "nap", "spin", "b"], 0.5) == [
        RowResult(["a", "a"]),
        RowResult(["nap", "nap"]),
        RowResult(problem="timed out"),
        RowResult(["b", "b"]),
    ]
    assert_none_is_left(work)


def test_work_that_only_computes_but_hangs_is_ended(work, monkeypatch):
    monkeypatch.setattr(time_limit, "CLOCK_PER_CPU_SECOND", 3.0)
    work = replace(work, only_computes=True)
    assert process_rows(work, ["sleep", "b"], 1) == [RowResult(problem="timed out"), RowResult(["b", "b"])]


def test_sets_are_walked_in_the_same_order_in_every_process(work):
    orders = [process_rows(work, ["order"], 20)[0].value for _ in range(3)]
    assert orders[0] == orders[1] == orders[2]


def test_work_that_only_computes_is_shared_by_processes_with_the_results_of_one(work, monkeypatch):
    monkeypatch.setattr(time_limit, "usable_cores", lambda: 3)
    rows, reported = [*map(str, range(30)), "spin", "a", "leave", "b"], []
    computing = replace(work, only_computes=True)
    alone = process_rows(computing, rows, 0.3)
    shared = process_rows(computing, rows, 0.3, lambda *of: reported.append(of), rows_per_process=10)
    assert shared == alone
    assert [result.problem for result in shared[-4:]] == ["timed out", "", "ended its process", ""]
    assert all(done <= total == 34 for done, total in reported)
    pids = Path(work.settings["pids"]).read_text().split()
    assert len(pids) == len(set(pids)) == 3 + 5  # one and two that replace it; three and two
    assert_none_is_left(work)


def test_an_error_in_one_of_several_processes_ends_all_of_them(work, monkeypatch):
    monkeypatch.setattr(time_limit, "usable_cores", lambda: 2)
    with pytest.raises(RewardError, match="ZeroDivisionError"):
        process_rows(replace(work, only_computes=True), ["a", "divide", *["nap"] * 200], 20, rows_per_process=1)
    assert_none_is_left(work)


def test_as_many_processes_compute_as_there_are_cores_or_threads_of_this_run(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert time_limit.usable_cores() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert time_limit.usable_cores() == len(os.sched_getaffinity(0))
