"""`hir doctor`: what it finds in runs, on this machine and among Prefect's flow runs, and what `--fix` repairs."""

import importlib.metadata
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from finished_run import hir
from gc_runs import names, note, tree
from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

from flows.orchestration import flow_runs as prefect_flow_runs
from hir_core.inspect import doctor
from hir_core.inspect.doctor import Finding, check_upkeep
from hir_core.store.locks import exclusive
from hir_core.store.manifest import identity
from hir_core.store.store import Store

Usage = namedtuple("Usage", "total used free")
DEAD = 2**22 + 1
"""No process has this number: Linux gives none above 2**22."""


@pytest.fixture
def store(small_run, tmp_path) -> Iterator[Store]:
    """The run of `finished_run`, on a machine whose Prefect has an empty home."""
    from prefect.context import refresh_global_settings_context

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
        patch.delenv("PREFECT_API_URL", raising=False)
        refresh_global_settings_context()
        yield small_run
    refresh_global_settings_context()


def findings(store: Store) -> list[tuple[str, str]]:
    """What is found in a run, with the path below its folder."""
    return [(found.what, str(Path(found.where).relative_to(store.run_dir))) for found in check_upkeep(store.run_dir)]


def draft(store: Store, **config) -> Path:
    """A draft of samples with one file in it."""
    folder = store.draft(identity("samples", 3, config, [])).path
    (folder / "part-0.parquet").write_bytes(b"x")
    return folder


def later(path: Path) -> None:
    """Makes a folder look as if it had been changed a minute from now."""
    os.utime(path, (time.time() + 60,) * 2)


# --- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_as_it_was_left_has_no_findings(store):
    note(store, store.versions())
    assert findings(store) == []


def test_a_version_whose_parents_are_gone_is_an_orphan(store):
    samples = store.resolve("samples@2")
    shutil.rmtree(samples.path)
    what = f"it is made from {samples}, which no longer exists"
    assert findings(store) == [(what, str(store.resolve(name))) for name in ("rewards@2", "triples@2")]


def test_files_and_folders_that_are_no_versions_are_found(store):
    samples = store.resolve("samples@2")
    (samples.path / "manifest.json").unlink()
    (store.run_dir / "triples" / "copy of 0001").mkdir()
    (store.run_dir / "models" / "notes.txt").write_text("")
    assert findings(store) == [
        ("manifest.json is missing", str(samples)),
        ("not a version of triples", "triples/copy of 0001"),
        ("not a version of models", "models/notes.txt"),
    ]


@pytest.mark.parametrize("prefix", [".draft-", ".commit-"])
def test_a_draft_that_a_run_may_continue_is_found_but_never_deleted(store, prefix):
    note(store, store.versions())
    made = draft(store)
    made = made.rename(made.with_name(made.name.replace(".draft-", prefix)))
    later(made)
    (found,) = check_upkeep(store.run_dir)
    assert found.what.endswith("with 1 files, whose process is gone")
    assert (found.where, found.repair) == (str(made), None)
    assert "run the same config again, which continues it" in found.do


def test_drafts_that_no_run_can_continue_are_deleted(store):
    there = store.resolve("samples@2")
    drafts = [draft(store, n=1), store.draft(identity("samples", 3, {"n": 2}, [])).path]
    drafts.append(Path(shutil.copytree(there.path, there.path.with_name(f".draft-{there.id}"))))
    note(store, store.versions())  # a run comes after them
    later(store.run_dir / "branches.json")
    reasons = {found.where: found.what.partition(", ")[2] for found in check_upkeep(store.run_dir)}
    assert reasons == {
        str(drafts[0]): "which a later run did not continue",
        str(drafts[1]): "whose process is gone",
        str(drafts[2]): "which is committed",
    }
    before = tree(there.path)
    hir("doctor", "--fix")
    assert not any(path.exists() for path in drafts)
    assert tree(there.path) == before
    assert check_upkeep(store.run_dir) == []


def test_a_draft_that_a_process_continued_meanwhile_is_not_deleted(store):
    made = store.draft(identity("samples", 3, {}, [])).path
    (found,) = check_upkeep(store.run_dir)
    (made / "part-0.parquet").write_bytes(b"x")
    later(made)
    assert found.repair is not None
    found.repair()
    assert made.exists()


def test_what_belongs_to_a_process_that_writes_is_no_finding(store):
    made = draft(store)
    with store.lock():
        (store.run_dir / ".branches.json.0a1b.tmp").write_text("")
        assert findings(store) == []
    assert [place for _, place in findings(store)] == [str(made.relative_to(store.run_dir)), ".branches.json.0a1b.tmp"]


def test_a_lock_that_a_killed_process_signed_is_stale_and_a_held_one_is_not(store):
    code = "import sys, time; from pathlib import Path; from hir_core.store.store import Store\n"
    code += "with Store(Path(sys.argv[1])).lock():\n    print(flush=True)\n    time.sleep(60)"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", code, store.run_dir], env=environment, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert findings(store) == []
        holder.send_signal(signal.SIGKILL)
    ((what, place),) = findings(store)
    assert what.startswith(
        f"a lock file names a process that no longer holds it (pid {holder.pid} on {socket.gethostname()} since 2"
    )
    assert place == ".lock"
    hir("doctor", "--fix")
    assert findings(store) == []


def test_the_lock_of_a_commit_in_progress_is_not_stale(store):
    with exclusive(store.run_dir / "samples" / ".lock", wait=False):
        assert findings(store) == []


def test_leftovers_of_killed_removals_and_processes_are_deleted(store):
    samples = store.resolve("samples@2")
    gone = Path(shutil.copytree(samples.path, samples.path.with_name(".gone-0009-00000000")))
    litter = store.run_dir / "samples" / ".x.0a1b2c3d.tmp"
    litter.write_text("")
    assert [what for what, _ in findings(store)] == [
        "a removed version whose files are still there: a removal was killed",
        "a temporary file of a killed process",
    ]
    before = names(store.versions())
    assert "2 findings; `hir doctor --fix` repairs 2" in hir("doctor", code=1)
    assert gone.exists()
    assert json.loads(hir("doctor", "--fix", "--json"))["findings"][0]["fixed"] is True
    assert not gone.exists()
    assert not litter.exists()
    assert names(store.versions()) == before


# --- this machine ----------------------------------------------------------------------------------------------------


def machine(tmp_path: Path) -> list[str]:
    return [found.what for found in doctor.check_installation(tmp_path)]


@pytest.fixture
def releases(monkeypatch):
    """Installed releases and requirements, in the place of the real ones."""
    installed = {"hir": "0.1.0", "prefect": "3.8.8"}
    requirements = [
        "prefect==3.8.8",
        'duckdb>=1.4; extra == "sql"',
        "hir[sql]; extra == 'all'",
        "x; sys_platform == 'w'",
    ]
    facts = Message()
    for name, value in (("Requires-Python", ">=3.11"), ("Provides-Extra", "sql"), ("Provides-Extra", "all")):
        facts[name] = value

    def version(name):
        try:
            return installed[name]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: requirements)
    monkeypatch.setattr(importlib.metadata, "metadata", lambda _: facts)
    monkeypatch.setattr(doctor, "find_devices", lambda: namedtuple("D", "gpus")(()))
    return installed, requirements


def test_this_installation_has_the_releases_that_it_requires(tmp_path):
    assert [found for found in doctor.check_installation(tmp_path) if found.where.startswith("Python")] == []


def test_a_wrong_release_is_found_with_the_command_that_installs_the_right_one(releases, tmp_path):
    installed, requirements = releases
    assert machine(tmp_path) == []
    assert doctor.missing_extras() == {"sql": ["duckdb"]}
    installed["prefect"] = "3.9.0"
    requirements.append("fastapi<0.151,>=0.139")
    assert [(found.what, found.do) for found in doctor.check_installation(tmp_path)] == [
        ("prefect is 3.9.0, expected ==3.8.8", 'pip install "prefect==3.8.8"'),
        ("fastapi is not installed, expected fastapi<0.151,>=0.139", "in hir's folder: pip install -e ."),
    ]
    installed["duckdb"] = "1.4"
    assert doctor.missing_extras() == {}
    del installed["hir"]
    assert machine(tmp_path) == ["hir itself is not installed, so the releases that it needs are unknown"]


def test_without_a_compiler_an_operator_that_is_not_built_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "built"))
    assert machine(tmp_path) == []
    monkeypatch.setenv("CXX", "no-such-compiler")
    missing = "there is no program `no-such-compiler`, with which DeepSpeed builds an operator on first use"
    assert machine(tmp_path) == [missing]
    (tmp_path / "built" / "op").mkdir(parents=True)
    (tmp_path / "built" / "op" / "op.so").write_bytes(b"")
    assert machine(tmp_path) == []


def test_a_build_lock_that_nobody_holds_is_stale(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    lock = tmp_path / "op" / "lock"
    lock.parent.mkdir()
    with lock.open("w"):
        assert machine(tmp_path) == []
    (found,) = doctor.check_installation(tmp_path)
    assert (found.where, found.repair is not None) == (str(lock), True)
    assert found.repair is not None
    found.repair()
    assert not lock.exists()


def test_little_free_space_and_no_permission_to_write_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 63 * 2**20))
    disk, _, memory = machine(tmp_path)
    assert disk == "0.1 GB of disk are free, expected 2 or more"
    assert memory == "63 MiB of shared memory are free, expected 64 or more"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, 10**12))
    monkeypatch.setattr(doctor, "_nearest_folder", lambda _: Path("/proc"))  # which nobody may write to
    (found,) = doctor.check_installation(tmp_path)
    assert (found.where, found.what.partition(":")[0]) == ("/proc", "nothing can be written")


def test_a_folder_that_does_not_exist_yet_is_judged_by_the_one_above(tmp_path):
    assert machine(tmp_path / "not" / "there") == []
    assert list(tmp_path.iterdir()) == []


# --- flow runs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def prefect_server():
    """Answers the question for running flow runs as Prefect's API does, with the runs that a test names."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            states = question["flow_runs"]["state"]["type"]["any_"]
            runs = [
                {"id": f"id-{name}", "name": name, "tags": tags}
                for name, state, tags in self.server.rows
                if state in states
            ]
            self.send_response(200 if self.path == "/api/flow_runs/filter" else 404)
            self.end_headers()
            self.wfile.write(json.dumps(runs).encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/api"
        with temporary_settings({PREFECT_API_URL: url}):
            yield server, url
        server.shutdown()


def test_a_running_flow_run_without_its_process_is_stuck(store, prefect_server):
    server, url = prefect_server
    mine = prefect_flow_runs.signature(os.getpid())
    pid, host = os.getpid(), socket.gethostname()
    server.rows = [
        ("alive", "RUNNING", ["mine", mine]),
        ("dead", "RUNNING", [f"process {DEAD} of {host} since 1"]),
        ("taken", "RUNNING", [f"process {pid} of {host} since 1"]),
        ("elsewhere", "RUNNING", [f"process {DEAD} of {host}-2 since 1"]),
        ("unsigned", "RUNNING", ["process"]),
        ("ended", "COMPLETED", [f"process {DEAD} of {host} since 1"]),
    ]
    findings = json.loads(hir("doctor", "--json", code=1))["findings"]
    assert [finding["what"] for finding in findings] == [
        f"flow run dead (id-dead) is `Running` in Prefect, but its process {DEAD} is gone",
        f"flow run taken (id-taken) is `Running` in Prefect, but its process {pid} is gone",
    ]
    assert findings[0]["do"].startswith("prefect flow-run delete id-dead; ")
    assert {finding["where"] for finding in findings} == {url}


def test_a_server_that_does_not_answer_is_found_and_its_password_not_shown():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{closed.getsockname()[1]}/api"
        (found,) = prefect_flow_runs.flow_runs_of_dead_processes(f"http://user:secret@{place}")
    assert isinstance(found, Finding)
    assert found.where == f"PREFECT_API_URL=http://{place}"
    assert "secret" not in found.what
    assert found.what.startswith("the Prefect server does not answer (")
    assert "unset it: a run needs no server" in found.do


def test_a_server_that_wants_a_password_is_asked_with_it(monkeypatch):
    asked = []

    def post(url, *, headers, **_):
        asked.append(headers)
        return httpx.Response(200, json=[], request=httpx.Request("POST", url))

    monkeypatch.setattr(prefect_flow_runs.httpx, "post", post)
    with temporary_settings({PREFECT_API_AUTH_STRING: "user:secret"}):
        assert prefect_flow_runs.flow_runs_of_dead_processes("http://127.0.0.1:9/api") == []
    assert asked == [{"Authorization": "Basic dXNlcjpzZWNyZXQ="}]


# --- the command -----------------------------------------------------------------------------------------------------


def test_doctor_says_that_all_is_well(store):
    assert hir("doctor").splitlines()[-1] == "1 run · sound"
    assert json.loads(hir("doctor", "--json"))["findings"] == []


def test_doctor_shows_a_finding_with_what_to_do_and_ends_with_1(store):
    (store.run_dir / "models" / "no\x1bte").write_text("")
    lines = hir("doctor", code=1).splitlines()  # which may have found something of this machine as well
    place = lines.index("runs/small/models/no\\x1bte: not a version of models")
    assert lines[place + 1] == "    to do: move it out of the run"
    assert re.fullmatch(r"1 run · (1 finding|\d+ findings)", lines[-1])
    assert "sound" not in hir("doctor", "--fix", code=1)
