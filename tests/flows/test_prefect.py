"""Runs below a real Prefect server: scheduled, served, called; cancelled, killed, timed out, and the server lost.

One server and one process worker for all; every launch is real, but for those of `scripted_run.py`. Processes are
counted by what Prefect, or the test, put into their environment.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from cli_run import (
    PATIENCE_S,
    command,
    end,
    environment,
    hir,
    left_alive,
    processes_with,
    start_prefect_server,
    wait_until,
    write_config,
)
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling
from scripted_run import ON_PATH, SCRIPTED, scripted_command, write_scripted

from hir_core.store.store import Store

pytestmark = pytest.mark.slow

CANCELLED_WITHIN_S = 180
"""How long a cancelled run may take to end: ten seconds on a quiet machine."""
LOST_WITHIN_S = 150
"""How long a run may go on after its server was lost: half a minute on a quiet machine, minutes where it waits."""
ASKED_EVERY_S = 0.5
"""How often to ask the server: each answer takes it a hundredth of a second of processor time, and more."""
SETTINGS: dict[str, Any] = {"iterations": 0, "launch": {"processes": 1}}
LONG: dict[str, Any] = {"demonstrations": 32, "epochs": 600, "batch_size": 8, "learning_rate": 0.001}


@dataclass
class Server:
    """A standing Prefect server, and a client of it."""

    url: str
    home: Path
    process: subprocess.Popen[bytes]
    client: SyncPrefectClient

    @property
    def environment(self) -> dict[str, str]:
        polls = {"PREFECT_RUNNER_POLL_FREQUENCY": "1", "PREFECT_WORKER_QUERY_SECONDS": "1"}
        lost = {"PREFECT_CLIENT_MAX_RETRIES": "1"}
        return environment(self.home) | {"PREFECT_API_URL": self.url} | polls | lost

    def start(self, folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a program in a folder, in a session of its own; what it prints goes to `<name>.log` there."""
        with (folder / f"{Path(arguments[0]).name}.log").open("wb") as log:
            return subprocess.Popen(
                arguments,
                cwd=folder,
                env=self.environment | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def trigger(self, deployment: str, **parameters: Any) -> UUID:
        """Starts a run of a deployment, as `prefect deployment run` and a schedule do."""
        found = self.client.read_deployment_by_name(deployment)
        return self.client.create_flow_run_from_deployment(found.id, parameters=parameters).id

    def has(self, deployment: str) -> bool:
        try:
            self.client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            return False
        return True

    def ended(self, flow_run: UUID) -> FlowRun:
        """The flow run, once it is in a final state."""
        wait_until(
            lambda: self.client.read_flow_run(flow_run).state.is_final(), f"the end of {flow_run}", ASKED_EVERY_S
        )
        return self.client.read_flow_run(flow_run)

    def running(self, name: str) -> UUID:
        """The flow run of this name that runs."""
        runs = self.client.read_flow_runs()
        (found,) = [run.id for run in runs if run.name == name and run.state is not None and run.state.is_running()]
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("prefect")
    url, process = start_prefect_server(home)
    try:
        with SyncPrefectClient(url) as client:
            yield Server(url, home, process, client)
    finally:
        end(process)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def pool(server, folder) -> Iterator[subprocess.Popen[bytes]]:
    """The run `pooled` in a pool with a worker."""
    write_config(folder, "pooled", **SETTINGS, warm_start=LONG)
    hir_with(server, folder, "schedule", "pooled.yaml", "--cron", "0 2 1 1 *")
    worker = start_worker(server, folder)
    yield worker
    end(worker)


def start_worker(server: Server, folder: Path) -> subprocess.Popen[bytes]:
    return server.start(folder, str(Path(sys.executable).parent / "prefect"), "worker", "start", "--pool", "hir")


def hir_with(server: Server, folder: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(command(*arguments), cwd=folder, env=server.environment, text=True, capture_output=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def served(server, folder) -> Iterator[subprocess.Popen[bytes]]:
    """The run `served`, by a process that serves it."""
    write_config(folder, "served", **SETTINGS, warm_start=LONG)
    serving = start_serving(server, folder)
    wait_until(lambda: server.has("hindsight/served"), "the serving process", ASKED_EVERY_S)
    yield serving
    end(serving)


def start_serving(server: Server, folder: Path) -> subprocess.Popen[bytes]:
    return server.start(folder, *command("schedule", "served.yaml", "--interval", "30d", "--serve"))


RUNS = {"pool": "pooled", "served": "served"}


def rank_is_up(folder: Path, run: str, since: float) -> Callable[[], bool]:
    path = folder / "runs" / run / "launches/0000/rank-0.started.json"
    return lambda: path.exists() and path.stat().st_mtime > since


def flow_process(flow_run: UUID) -> int:
    """The process of a flow run: of all below it, the one that Prefect's engine is."""
    (found,) = [line for line in processes_with(f"PREFECT__FLOW_RUN_ID={flow_run}") if "prefect.engine" in line]
    return int(found.split(":")[0])


def started(server: Server, folder: Path, run: str, **parameters: Any) -> UUID:
    """Triggers a run whose first rank is up when this returns."""
    since = time.time()
    flow_run = server.trigger(f"hindsight/{run}", **parameters)
    wait_until(rank_is_up(folder, run, since), f"a rank of {run}")
    assert len(processes_with(f"PREFECT__FLOW_RUN_ID={flow_run}")) >= 3, "flow, supervisor, launcher and rank"
    return flow_run


def versions(folder: Path, run: str) -> set[str]:
    return {f"{ref.stage}@{ref.iteration}" for ref in Store(folder / "runs" / run).versions()}


# --- what ends below a worker, or a process that serves --------------------------------------------------------------


@pytest.mark.parametrize("mode", ["pool", "served"])
def test_a_cancelled_flow_run_leaves_no_process_and_nothing_half_made(mode, server, folder, request):
    request.getfixturevalue(mode)
    run = RUNS[mode]
    flow_run = started(server, folder, run)
    server.client.set_flow_run_state(flow_run, Cancelling())
    assert server.ended(flow_run).state.is_cancelled()
    assert left_alive(f"PREFECT__FLOW_RUN_ID={flow_run}") == []
    assert versions(folder, run) == {"prompts@0", "triples@0"}


@pytest.mark.parametrize("mode", ["pool", "served"])
def test_a_killed_flow_leaves_no_process_and_the_server_hears_of_it(mode, server, folder, request):
    request.getfixturevalue(mode)
    flow_run = started(server, folder, RUNS[mode])
    os.kill(flow_process(flow_run), signal.SIGKILL)
    assert left_alive(f"PREFECT__FLOW_RUN_ID={flow_run}") == []
    assert server.ended(flow_run).state.is_crashed()


@pytest.mark.parametrize("mode", ["pool", "served"])
def test_a_time_out_leaves_no_process_and_says_so(mode, server, folder, request):
    request.getfixturevalue(mode)
    config = yaml.safe_load((folder / f"{RUNS[mode]}.yaml").read_text())
    limited = config | {"launch": {"processes": 1, "timeout_s": 2.0}}
    flow_run = server.trigger(f"hindsight/{RUNS[mode]}", config=limited, further=1)
    state = server.ended(flow_run).state
    assert state.is_failed()
    assert "the launch took longer than launch.timeout_s = 2 s" in state.message
    assert left_alive(f"PREFECT__FLOW_RUN_ID={flow_run}") == []


def test_parameters_are_checked_again_when_the_run_starts(server, pool):
    flow_run = server.trigger("hindsight/pooled", config={"run": "pooled", "iteration": 1})
    state = server.ended(flow_run).state
    assert state.is_failed()
    assert "ConfigError" in state.message
    assert "did you mean `iterations`" in state.message


def test_of_two_scheduled_runs_one_is_skipped_and_the_other_continues_by_one_iteration(server, folder, pool):
    config = yaml.safe_load((folder / "pooled.yaml").read_text())
    short = config | {"warm_start": LONG | {"epochs": 20}, "run": "short"}
    since = time.time()
    first = server.trigger("hindsight/pooled", config=short)
    wait_until(rank_is_up(folder, "short", since), "the first one's rank")
    second = server.ended(server.trigger("hindsight/pooled", config=short))
    assert (second.state.name, second.state.is_cancelled()) == ("Skipped", True)
    assert f"is being written by another process (pid {flow_process(first)} on " in second.state.message
    done = server.ended(first)
    assert (done.name, done.state.name) == ("short 1 further", "Completed")
    assert {"models@1", "evaluations@1"} <= versions(folder, "short")
    assert "models@2" not in versions(folder, "short")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["told to end", "Ctrl-C"])
@pytest.mark.parametrize("mode", ["pool", "served"])
def test_who_started_a_flow_takes_it_along(mode, number, server, folder, request):
    starter = request.getfixturevalue(mode)
    if starter.poll() is not None:  # ended by the other signal
        starter = {"pool": start_worker, "served": start_serving}[mode](server, folder)
    try:
        flow_run = started(server, folder, RUNS[mode])
        os.killpg(starter.pid, number)
        assert left_alive(f"PREFECT__FLOW_RUN_ID={flow_run}") == []
        starter.wait(PATIENCE_S)
    finally:
        end(starter)


# --- what is called directly -----------------------------------------------------------------------------------------


def test_hir_run_that_is_cancelled_from_prefect_ends_in_one_line(server, folder):
    write_config(folder, "called", **SETTINGS, warm_start=LONG)
    since = time.time()
    process = server.start(folder, *command("run", "called.yaml"), HIR_TEST="called directly")
    wait_until(rank_is_up(folder, "called", since), "its rank")
    flow_run = server.running("called to 0")
    server.client.set_flow_run_state(flow_run, Cancelling())
    assert process.wait(CANCELLED_WITHIN_S) == 130
    assert left_alive("HIR_TEST=called directly") == []
    state = server.ended(flow_run).state
    assert (state.name, state.message[:40]) == ("Cancelled", "cancelled from Prefect; nothing that was")
    said = (folder / "hir.log").read_text()
    assert said.splitlines()[-1].startswith("error: cancelled from Prefect; nothing that was committed is lost")
    assert "Traceback" not in said


def test_a_flow_that_takes_longer_than_its_time_out_leaves_no_process(server, folder):
    write_config(folder, "limited", **SETTINGS, warm_start=LONG)
    (folder / "limited.py").write_text(
        "from pathlib import Path\nfrom hir_core.config import load_config\nfrom flows.hindsight import hindsight\n"
        "hindsight.with_options(timeout_seconds=8)(load_config(Path('limited.yaml')))\n"
    )
    process = server.start(folder, sys.executable, "limited.py", HIR_TEST="timed out")
    assert process.wait(PATIENCE_S) == 1
    assert left_alive("HIR_TEST=timed out") == []
    (found,) = [run for run in server.client.read_flow_runs() if run.name == "limited to 0"]
    assert found.state is not None
    assert found.state.name == "TimedOut"


@pytest.fixture
def scripted(tmp_path) -> Path:
    """A folder with a scripted run."""
    return write_scripted(tmp_path)


def start_scripted(server: Server, folder: Path, mark: str, **environment: str) -> subprocess.Popen[bytes]:
    return server.start(folder, *scripted_command(), HIR_TEST=mark, **ON_PATH, **environment)


def test_reward_workers_end_with_a_flow_run_that_is_cancelled(server, scripted):
    (scripted / "slow.py").write_text(
        "import pathlib, time\ndef score(completions, prompts):\n"
        "    pathlib.Path('judging').touch()\n    time.sleep(300)\n"
    )
    reward = {"type": "python", "function": "slow:score", "time_limit_s": 300}
    (scripted / "scripted.json").write_text(json.dumps(SCRIPTED | {"reward": reward}))
    process = start_scripted(server, scripted, "judged")
    wait_until((scripted / "judging").exists, "the reward")
    assert len(processes_with("HIR_TEST=judged")) >= 2
    server.client.set_flow_run_state(server.running("scripted to 2"), Cancelling())
    assert process.wait(CANCELLED_WITHIN_S) == 130
    assert left_alive("HIR_TEST=judged") == []


@pytest.fixture(scope="module")
def told(server, tmp_path_factory) -> Path:
    """The folder of a scripted run that reported all to the server; its first launch was lost."""
    folder = write_scripted(tmp_path_factory.mktemp("told"))
    (folder / "lose").touch()
    process = start_scripted(server, folder, "told")
    assert process.wait(PATIENCE_S) == 0, said_by(folder)
    return folder


def said_by(folder: Path) -> str:
    return next(folder.glob("python*.log")).read_text()


def test_prefect_is_told_of_every_iteration_and_of_every_version_also_where_a_launch_was_lost(server, told):
    (run,) = [r for r in server.client.read_flow_runs() if r.name == "scripted to 2" and r.state.is_completed()]
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    found = server.client.read_artifacts(artifact_filter=of_run)
    keys = {"hir-scripted-iteration": 3, "hir-scripted-report": 1}
    assert Counter(artifact.key for artifact in found) == keys
    assert not (told / "lose").exists()
    assert "warning: launch lost (rank 0 was killed): trying once more\n" in said_by(told)
    store = Store(told / "runs/scripted")
    parents = {
        f"hir://scripted/{ref}": {f"hir://scripted/{parent}" for parent in store.manifest(ref).parents}
        for ref in store.versions()
    }
    wait_until(lambda: assets(server).keys() >= parents.keys(), "the last event", ASKED_EVERY_S)
    assert {key: assets(server)[key] for key in parents} == parents


def assets(server: Server) -> dict[str, set[str]]:
    """Assets that the server heard of, by key, with those that went into each."""
    asked = {"filter": {"event": {"name": ["prefect.asset.materialization.succeeded"]}}, "limit": 50}
    request = urllib.request.Request(
        f"{server.url}/events/filter", json.dumps(asked).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        events = json.loads(response.read())["events"]
    return {
        event["resource"]["prefect.resource.id"]: {
            related["prefect.resource.id"]
            for related in event["related"]
            if related["prefect.resource.role"] == "asset"
        }
        for event in events
    }


# --- without a server ------------------------------------------------------------------------------------------------


class Unavailable(BaseHTTPRequestHandler):
    """A server that is there, and cannot serve."""

    def answer(self) -> None:
        self.send_response(503)
        self.end_headers()

    do_GET = do_POST = do_PATCH = answer  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Refusing(Unavailable):
    """One that is well, and wants a password for all else."""

    def answer(self) -> None:
        self.send_response(200 if self.path.endswith("/health") else 401)
        self.end_headers()

    do_GET = do_POST = do_PATCH = answer  # noqa: N815


@contextmanager
def listening(kind: str) -> Iterator[int]:
    """The port of a server of this kind."""
    if kind in ("refuses connections", "never answers"):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            if kind == "never answers":
                silent.listen()
            yield silent.getsockname()[1]
        return
    with ThreadingHTTPServer(("127.0.0.1", 0), {"503": Unavailable, "401": Refusing}[kind]) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield http.server_address[1]
        http.shutdown()


def assert_went_on(folder: Path, told: Path, url: str) -> None:
    """A run ended like the one that reported all, and said once that it went on without the server at this URL."""
    said = said_by(folder)
    (line,) = [line for line in said.splitlines() if line.startswith("warning: Prefect")]
    assert line.startswith(f"warning: Prefect's server at {url} ")
    assert line.endswith(": the run goes on, and Prefect does not show the rest of it")
    assert "Traceback" not in said
    store, whole = Store(folder / "runs/scripted"), Store(told / "runs/scripted")
    assert [str(ref) for ref in store.versions()] == [str(ref) for ref in whole.versions()]
    for ref in store.versions():
        if ref.stage != "models":
            assert store.table(ref).collect().equals(whole.table(whole.resolve(str(ref))).collect()), ref
    assert list((folder / "runs").rglob(".draft-*")) == []


@pytest.mark.parametrize("kind", ["refuses connections", "503", "401", "never answers"])
def test_a_run_goes_on_without_a_server_that_cannot_be_reported_to(kind, server, told, scripted):
    with listening(kind) as port:
        url = f"http://127.0.0.1:{port}/api"
        environment = {"PREFECT_API_URL": url, "PREFECT_API_REQUEST_TIMEOUT": "2"}
        process = start_scripted(server, scripted, kind, **environment)
        assert process.wait(LOST_WITHIN_S) == 0, said_by(scripted)
    assert_went_on(scripted, told, url)


# --- the server is lost: last, for it is the one of all tests --------------------------------------------------------


def test_a_run_whose_server_is_lost_goes_on_to_its_end_and_says_so(server, told, scripted):
    (scripted / "hold").touch()
    process = start_scripted(server, scripted, "lost")
    wait_until((scripted / "launched").exists, "the first launch")
    os.killpg(server.process.pid, signal.SIGKILL)
    (scripted / "hold").unlink()
    assert process.wait(LOST_WITHIN_S) == 0, said_by(scripted)  # and not minutes later, with all that is left to send
    assert_went_on(scripted, told, server.url)


def test_a_schedule_without_a_server_that_answers_says_what_to_do(server, folder):
    end(server.process)
    write_config(folder, "called", **SETTINGS)
    said = hir_with(server, folder, "schedule", "called.yaml", "--cron", "0 2 * * *", code=2)
    assert "does not answer" in said
    assert "start it with `prefect server start`" in said
    assert hir(folder, server.home, "schedule", "called.yaml", "--cron", "0 2 * * *", code=2) == ""
