"""A run goes on without Prefect, wherever its server is lost; a private server keeps what only its run may see."""

import base64
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from scripted_run import ON_PATH, scripted_command, write_scripted

from flows.orchestration import private_server, server
from flows.orchestration.private_server import PrivateServer
from hir_core.errors import HirError, RunCancelled


@pytest.fixture(autouse=True)
def connection(monkeypatch):
    """A connection of this test's own, to a server that the user has set."""
    monkeypatch.setenv("PREFECT_API_URL", "http://somebody:secret@127.0.0.1:9/api?key=secret")
    monkeypatch.setattr(server, "_CONNECTION", server._Connection())


class Work:
    """Counts how often it is done."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.times = error, 0

    def __call__(self) -> str:
        self.times += 1
        if self.error is not None:
            raise self.error
        return "done"


class Unavailable(Exception):
    """Whatever Prefect raises; its message has further lines."""


def refused_before(work):
    raise Unavailable("503\nFor more information check: …")


def refused_after(work):
    work()
    raise Unavailable("503\nFor more information check: …")


def refused_after_any(work):
    try:
        work()
    finally:
        raise Unavailable("503")


LINE = (
    "warning: Prefect's server at {} was lost (Unavailable: 503): the run goes on, and Prefect does not show the rest "
    "of it"
)


@pytest.mark.parametrize("in_prefect", [refused_before, refused_after])
def test_work_is_done_once_wherever_the_server_is_lost_and_said_once(in_prefect, monkeypatch):
    monkeypatch.setattr(server, "configured_server", lambda: "http://somebody:secret@127.0.0.1:9/api?key=secret")
    said, work = [], Work()
    for _ in range(3):
        assert server.shown_in_prefect(in_prefect, work, said.append) == "done"
    assert work.times == 3
    assert said == [LINE.format("http://127.0.0.1:9/api")]
    assert server.is_lost()


@pytest.mark.parametrize("error", [HirError("a stage failed"), KeyboardInterrupt()], ids=repr)
def test_the_works_own_error_comes_through_also_where_the_server_is_lost_after_it(error):
    said, work = [], Work(error)
    with pytest.raises(type(error)) as caught:
        server.shown_in_prefect(refused_after_any, work, said.append)
    assert (caught.value, work.times, len(said)) == (error, 1, 1)


def test_the_works_own_error_is_no_loss():
    error = HirError("a stage failed")
    with pytest.raises(HirError) as caught:
        server.shown_in_prefect(lambda work: work(), Work(error), print)
    assert caught.value is error
    assert not server.is_lost()


def test_a_flow_that_was_cancelled_before_it_began_is_not_run():
    def cancelled(work):
        raise RunCancelled("cancelled from Prefect")

    work = Work()
    with pytest.raises(RunCancelled):
        server.shown_in_prefect(cancelled, work, print)
    assert work.times == 0


def test_a_flow_is_its_function_once_prefect_is_lost():
    @flow
    def twice(number: int) -> int:
        return 2 * number

    server.lose(Unavailable("503"), lambda _: None)
    assert server.call(twice, 4) == 8


# --- a private server ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_private_server_keeps_what_a_run_reports_answers_nobody_without_its_secret_and_writes_no_file(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    private = PrivateServer()
    try:
        assert private.wait() is None
        url, secret = (private.client_environment[f"PREFECT_API_{name}"] for name in ("URL", "AUTH_STRING"))
        assert asked(url, {}) == 401
        assert asked(url, {"Authorization": "Basic Z3Vlc3M="}) == 401
        assert asked(url, {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}) == 200
        output = scripted_run(write_scripted(tmp_path), private.client_environment)
        assert "warning" not in output
        with SyncPrefectClient(url, auth_string=secret) as client:
            (run,) = client.read_flow_runs()
            assert (run.name, run.state.name) == ("scripted to 2", "Completed")
            keys = Counter(artifact.key for artifact in client.read_artifacts())
        assert keys == {"hir-scripted-iteration": 3, "hir-scripted-report": 1}
        assert [path.name for path in tmp_path.rglob("*.db*")] == []
        commands = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert secret not in commands
    finally:
        private.stop()
        private._process.wait(60)


def scripted_run(folder: Path, client_environment: dict[str, str]) -> str:
    """What a scripted run prints that reports to the server."""
    environment = os.environ | ON_PATH | client_environment
    call = {"cwd": folder, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(scripted_command(), **call, text=True, check=True).stdout


def asked(url: str, headers: dict[str, str]) -> int:
    """The status of a request for the flow runs, with their parameters."""
    request = urllib.request.Request(f"{url}/flow_runs/filter", b"{}", {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


CONNECTS_TWICE = """
from flows.orchestration import private_server, server
private_server.START_S = 900.0  # of a busy machine
said = []
server.connect(said.append)
first = server._CONNECTION.private
server.connect(said.append)
print(said, server.is_lost(), server._CONNECTION.private is first, server._problem_of_server())
"""


@pytest.mark.slow
def test_the_second_run_of_a_process_reports_to_the_private_server_of_the_first(tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", CONNECTS_TWICE], capture_output=True, text=True, check=True)
    assert done.stdout == "[] False True None\n"


def test_a_private_server_that_does_not_start_in_time_is_ended_and_a_run_goes_on(monkeypatch):
    monkeypatch.setattr(private_server, "START_S", 0.2)
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setattr(server, "configured_server", lambda: None)
    said = []
    server.connect(said.append)
    assert said == [
        "warning: Prefect's private server did not start within 0.2 s, a time limit of hir's: the run goes on, and "
        "Prefect does not show the rest of it"
    ]
    assert server.is_lost()
    assert server._CONNECTION.private._process.wait(20) is not None
