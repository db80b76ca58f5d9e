"""The loop without Prefect: what is tried again, what is said, and how little is done where nothing is to do."""

import subprocess
import sys
from contextlib import ExitStack
from contextvars import ContextVar
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from fake_launch import with_changes

from flows.loop import Loop
from hir_core.errors import ConfigError, HirError, JobFailed, RunLocked
from hir_core.stages.run import Run


def launching(failures: list[Exception]) -> tuple[Any, list[str]]:
    """What a stage with a launch comes to that first fails with these errors, and the lines that were printed."""
    said: list[str] = []
    table: Any = SimpleNamespace(status_line=SimpleNamespace(print_above=said.append))

    def work() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    stage = Loop(run=None, loaded=None, table=table)._launching
    try:
        return stage("launch", "launch models/0001", work), said
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error, said


def lost() -> JobFailed:
    return JobFailed("rank 1 was killed", is_lost=True, rank=1)


def test_a_lost_launch_is_tried_once_more_and_said():
    assert launching([lost()]) == (
        "done",
        ["warning: launch lost (rank 1 was killed): trying once more"],
    )


def test_one_that_is_lost_twice_is_given_up():
    second = lost()
    ended, said = launching([lost(), second])
    assert ended is second
    assert len(said) == 1


@pytest.mark.parametrize(
    "error",
    [JobFailed("rank 1 raised ValueError: seven"), ConfigError("no folder"), RunLocked("busy"), ValueError("a bug")],
    ids=str,
)
def test_no_other_error_is_tried_again(error):
    assert launching([error, HirError("never")]) == (error, [])


def test_what_no_stage_waits_for_is_done_in_order_whatever_ends_the_run(settings):
    run, done = Run(with_changes(settings, {})), []
    told_to = ContextVar("told_to", default="the launch")

    def tell(number: int) -> None:
        done.append((number, told_to.get()))

    stages = ExitStack()
    stages.enter_context(run.deferring())
    token = told_to.set("the flow")
    run.defer(partial(tell, 1))
    run.defer(partial(tell, 2))
    told_to.reset(token)
    assert done == []
    stages.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert done == [(1, "the flow"), (2, "the flow")]
    run.do_deferred()
    assert len(done) == 2


def test_the_loop_needs_no_prefect():
    program = "import sys, flows.loop, flows.cli.app; print({'prefect', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
