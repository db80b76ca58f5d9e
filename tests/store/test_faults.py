"""Faults of the machine: a kill or an error at every step of a commit, a full disk, missing rights, a clock set back.

Every fault ends in one clear error or has no effect. Committed versions stay, and the next attempt ends as if there had
been no fault. Faults come from the operating system, or from an audit hook at the n-th change to the file system in a
separate process; nothing in the library is replaced.
"""

import errno
import json
import os
import resource
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from cli_run import PATIENCE_S
from fake_launch import loop, ranks, versions, with_changes
from store_tables import THIS, commit, commit_model, fork, names, rewards, script

from flows.cli.options import FILE_ERROR_ADVICE
from hir_core import errors
from hir_core.config import HubModel, LaunchConfig, RunConfig, ScratchModel
from hir_core.errors import MAKE_ROOM, SchemaError, StoreError
from hir_core.inspect.verify import check_run
from hir_core.launch.job_spec import JobSpec, SaveStep
from hir_core.launch.launcher import launch
from hir_core.launch.rank import Rank
from hir_core.stages import run as run_module
from hir_core.store import manifest
from hir_core.store.files import finished_parts, list_parts, write_part, writing
from hir_core.store.store import Store

# --- at every step of a commit ---------------------------------------------------------------------------------------

# At the n-th change to the file system a child process is killed, or the change fails with error `code`. Children are
# forked before polars starts its threads, so that imports are paid for once. Exit status 3: the fault was reported as
# an error; 4: the child completed with fewer than n changes.
FAULT_AT_EVERY_STEP = """
from fault_points import strike_at
from hir_core.errors import StoreError
kind, code = sys.argv[2], int(sys.argv[3])

def strike():
    if not code:
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(code, os.strerror(code), "somewhere")

for step in range(1, 1000):
    pid = os.fork()
    if pid == 0:
        store = Store(Path(sys.argv[1]) / f"{step:03d}")
        changes = strike_at(step, strike)
        try:
            commit(store) if kind == "table" else commit_model(store)
        except StoreError:
            os._exit(3)
        except OSError as error:
            os._exit(3 if error.filename == "somewhere" else 5)
        os._exit(0 if changes() >= step else 4)
    status = os.waitpid(pid, 0)[1]
    if status == 4 << 8:
        break
    assert status in (0, signal.SIGKILL, 3 << 8), (step, status)
print(step)
"""


@pytest.mark.parametrize("kind", ["table", pytest.param("model", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "code",
    [pytest.param(0, id="killed"), pytest.param(errno.ENOSPC, id="no space", marks=pytest.mark.slow)],
)
def test_a_commit_that_breaks_at_any_step_leaves_no_version_or_a_whole_one(tmp_path, kind, code):
    command = script(FAULT_AT_EVERY_STEP, tmp_path, kind, code)
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15
    seen = set()
    for step in range(1, int(done.stdout)):
        store = Store(tmp_path / f"{step:03d}")
        before = store.versions()
        for ref in before:
            store.verify(ref)
        finished = store.draft(THIS).parts() if kind == "table" else []
        seen.add((len(before), len(finished)))
        commit(store) if kind == "table" else commit_model(store)
        (ref,) = store.versions()
        store.verify(ref)
        assert names(ref.path.parent) == [".lock", ref.id]
        if kind == "table":
            assert store.table(ref).collect()["sample_id"].sort().to_list() == ["a0", "a1", "a2", "b0", "b1"]
    assert seen == ({(0, 0), (0, 1), (0, 2), (1, 0)} if kind == "table" else {(0, 0), (1, 0)})


# --- many writers, and a reader --------------------------------------------------------------------------------------

RACE = """
import multiprocessing
from hir_core.store.manifest import identity
rounds, writers = int(sys.argv[2]), 8
start = multiprocessing.Barrier(writers)
pids = []
for number in range(writers):
    pid = os.fork()
    if pid == 0:
        for turn in range(rounds):
            draft = store.draft(identity("rewards", turn, {}, []))
            draft.write("a", rewards(3, "a"))
            draft.write("b", rewards(5000, "b"))
            start.wait()
            os.write(1, f"{draft.commit()}\\n".encode())  # whole: a line of print's may be written in two pieces
        os._exit(0)
    pids.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * writers
"""


def look(store: Store) -> int:
    """Reads all visible versions completely; returns their number."""
    versions = store.versions()
    for ref in versions:
        assert store.table(ref).collect().height == 5003
        assert names(ref.path) == ["manifest.json", "part-a.parquet", "part-b.parquet"]
    return len(versions)


@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_eight_processes_that_commit_the_same_version_make_one_and_no_reader_sees_half_of_it(tmp_path, rounds):
    store = Store(tmp_path / "run")
    with subprocess.Popen(script(RACE, store.run_dir, rounds), stdout=subprocess.PIPE, text=True) as racing:
        looks = [look(store)]
        while racing.poll() is None:
            looks.append(look(store))
        refs = racing.stdout.read().split()
    assert racing.returncode == 0
    assert looks == sorted(looks)
    assert look(store) == rounds
    assert sorted(refs) == sorted(8 * [str(ref) for ref in store.versions()])
    assert names(store.run_dir / "rewards") == sorted([".lock", *(ref.id for ref in store.versions())])


# --- a disk that is full, a folder that may not be written -----------------------------------------------------------

# A file that cannot grow is what a full disk is to a writer; 4,800 bytes let prompts through, and no triples.
FULL_DISK = """
import json, resource
from hir_core.errors import HirError
import fake_launch as t
t.run_module.launch = t.ranks
config = t.parse_config(json.loads(Path("settings.json").read_text()))

def run(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    with t.Run(config).store.lock():
        t.loop(config)

for limit in (0, 50, 1500, 4800):
    try:
        run(limit)
    except HirError as error:
        print(limit, error)
run(resource.RLIM_INFINITY)
"""


def test_a_full_disk_is_reported_and_the_next_attempt_ends_as_if_it_had_not_been(settings, tmp_path):
    there = loop(with_changes(settings, {"runs_dir": "elsewhere"})).store
    Path("settings.json").write_text(json.dumps(settings))
    done = subprocess.run(script(FULL_DISK, ""), capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["0", "50", "1500", "4800"]
    assert lines[0] == "0 cannot write to runs/sums/.lock: File too large"
    assert "cannot write runs/sums/branches.json" in lines[1]
    assert "cannot write runs/sums/triples/.draft-" in lines[3]
    assert all("File too large" in line for line in lines)
    here = Store(Path("runs/sums"))
    assert check_run(here)["problems"] == []
    assert [str(ref) for ref in here.versions()] == [str(ref) for ref in there.versions()]
    for mine, theirs in zip(here.versions(), there.versions(), strict=True):
        if mine.stage != "models":
            assert here.table(mine).collect().equals(there.table(theirs).collect())


@contextmanager
def no_room(limit: int) -> Iterator[None]:
    """No file of this process, or of one that it starts, grows beyond the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


NO_ROOM = r"^cannot write .*/{}: File too large: make room; nothing that was committed is lost, and the same command co"


class NoProgress(Rank):
    """A rank whose progress is not written, so that what it writes is what it was told to."""

    def progress(self, progress: Any) -> None: ...


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("limit", [0, 500, 20_000])
def test_weights_and_tokenizers_on_a_full_disk_are_one_message_and_leave_nothing_half_written(limit, tmp_path):
    import torch

    from hir_core.modeling import models, saving
    from hir_core.worker.job import Job

    spec = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 512, "context": 32}
    config, whole, job_dir = ScratchModel(type="scratch", **spec), tmp_path / "whole", tmp_path / "job"
    models.materialise(config, whole, ["one two"] * 4, 0)
    job_dir.mkdir()
    step = SaveStep(output=tmp_path / "saved")
    step.output.mkdir()
    job = Job(
        Rank(job_dir, 1, 1, 0),  # its progress is not written
        JobSpec(model=HubModel(source=str(whole)), seed=1, deepspeed={}, steps=(step,)),
        torch.device("cpu"),
    )
    job.rank = NoProgress(job_dir, 0, 1, 0)
    with no_room(limit):
        with pytest.raises(StoreError, match=NO_ROOM.format("model-00001-of-00001.safetensors")):
            saving.save_weights(job.model, step.output)
        assert names(step.output) == []
        with pytest.raises(StoreError, match=NO_ROOM.format("job")):
            models.materialise(config, job_dir, ["one two"] * 4, 0)
        with pytest.raises(StoreError, match=NO_ROOM.format("saved.*")):
            job.save(step)
    job.save(step)
    assert {*names(step.output)} == {
        *(name for name in names(whole) if name != "model.safetensors"),
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
    }


@pytest.mark.parametrize("number", errors.FULL_DISK)
def test_whatever_library_meets_a_full_disk_it_is_the_same_message(number, tmp_path):
    text = f"{os.strerror(number)} (os error {number})"
    for error in (OSError(number, "", "a"), Exception(text), pl.exceptions.ComputeError(f"part: {text}")):
        with pytest.raises(StoreError) as caught, writing(tmp_path):
            raise error
        assert str(caught.value) == f"cannot write {tmp_path}: {os.strerror(number)}: {MAKE_ROOM}"
    with pytest.raises(ValueError, match="a mistake of ours"), writing(tmp_path):
        raise ValueError("a mistake of ours")


@pytest.mark.slow
def test_real_ranks_that_cannot_write_their_weights_commit_nothing_and_the_same_command_continues(
    settings, monkeypatch, tmp_path
):
    from hir_core.modeling import models

    spec = ScratchModel(type="scratch", hidden_size=64, layers=4, heads=2, intermediate_size=512, context=128)
    models.materialise(spec, tmp_path / "policy", ["one two"] * 4, 0)
    monkeypatch.setattr(run_module, "launch", launch)
    changes = {"iterations": 0, "launch": {"processes": 2}, "deepspeed": "ds_configs/zero3.json"}
    config = with_changes(settings, {**changes, "model": {"source": str(tmp_path / "policy")}})
    with no_room(300_000), pytest.raises(StoreError, match=NO_ROOM.format("model-00001-of-00001.safetensors")):
        loop(config)
    assert versions(Store(config.run_dir)) == {"prompts@0": 1, "triples@0": 1}
    store = loop(config.model_copy(update={"launch": LaunchConfig(processes=1)})).store
    assert versions(store)["models@0"] == versions(store)["evaluations@0"] == 1
    assert check_run(store)["problems"] == []


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


AS_SOMEBODY_ELSE = """
from hir_core.errors import StoreError
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
ref = store.find(THIS)
print(store.table(ref).collect().height)
for write in (store.lock().__enter__, lambda: store.draft(THIS)):
    try:
        write()
    except StoreError as error:
        print(error)
"""


def test_a_read_only_run_can_be_read_and_every_writer_gets_an_error(open_folder):
    store = Store(open_folder / "run")
    ref = commit(store)
    places = [store.run_dir, *(path for path in store.run_dir.rglob("*") if path.is_dir())]
    for place in places:
        place.chmod(0o555)
    for path in store.run_dir.rglob(".lock"):
        path.chmod(0o444)
    done = subprocess.run(script(AS_SOMEBODY_ELSE, store.run_dir), capture_output=True, text=True, timeout=PATIENCE_S)
    for place in places:
        place.chmod(0o755)
    assert (done.returncode, done.stderr) == (0, "")
    refused = [f"cannot write to {place}: Permission denied" for place in (store.run_dir, ref.path.parent)]
    assert done.stdout.splitlines() == ["5", *refused]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_the_command_line_reports_an_error_of_the_file_system_in_one_line(code, monkeypatch, tmp_path, capsys):
    import typer

    from flows.cli.options import messages

    with pytest.raises(typer.Exit) as ended, messages():
        raise OSError(code, os.strerror(code), "runs/\x1b[31m")
    assert ended.value.exit_code == 1
    message = capsys.readouterr().err
    assert message == f"error: runs/\\x1b[31m: {os.strerror(code)}: {FILE_ERROR_ADVICE[code]}\n"
    with pytest.raises(FileNotFoundError), messages():
        raise FileNotFoundError(errno.ENOENT, "a mistake of ours")


# --- a clock that goes wrong -----------------------------------------------------------------------------------------


def set_clock(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + by

    monkeypatch.setattr(manifest, "datetime", Clock)


def test_forks_keep_their_order_whatever_the_clock_says(tmp_path, monkeypatch):
    store, forks = Store(tmp_path), []
    for n, days in enumerate((0, -1, 300, -1)):
        set_clock(monkeypatch, timedelta(days=days))
        forks.append(fork(store, 3, n=n))
        assert store.resolve("rewards@latest") == forks[-1]
    times = [datetime.fromisoformat(store.manifest(ref).created) for ref in forks]
    assert times == sorted(set(times))
    assert times[0] <= datetime.now(UTC)


def test_a_damaged_fork_does_not_stop_the_commit_of_another(tmp_path):
    store = Store(tmp_path)
    for n, text in enumerate(("{", "{}", '{"created": "tomorrow"}')):
        (fork(store, 3, n=n).path / "manifest.json").write_text(text)
    store.verify(fork(store, 3, n=9))


def test_a_run_goes_on_after_its_clock_was_set_back_a_day(settings, monkeypatch):
    before = loop(with_changes(settings, {})).store.versions()
    set_clock(monkeypatch, timedelta(days=-1))
    after = loop(with_changes(settings, {"iterations": 2})).store
    assert set(before) < set(after.versions())
    assert check_run(after)["problems"] == []


# --- ranks that go wrong ---------------------------------------------------------------------------------------------


def broken(run_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]) -> RunConfig:
    """A config whose first launch damages the samples' draft before it reports that step as done."""
    config = with_changes(run_settings, {})

    def spoiled(job_dir: Path, *_: object, on_step: Callable[[int], None], **__: object) -> None:
        def spoil_then_report(number: int) -> None:
            if number == 3:
                spoil(Path(json.loads((job_dir / "job.json").read_text())["steps"][number]["output"]))
            on_step(number)

        ranks(job_dir, on_step=spoil_then_report)

    monkeypatch.setattr(run_module, "launch", spoiled)
    return config


FAULTY_RANK = """
import sys
from pathlib import Path
from hir_core.launch.rank_process import RankProcess

with RankProcess(Path(sys.argv[1])).job() as rank:
    from hir_core.sampling import transformers_engine
    from hir_core.worker.job import Jobs

    complete = transformers_engine.complete
    if rank.rank == 1:
        transformers_engine.complete = lambda *given: [*complete(*given)]{change}
    Jobs(rank).do(rank)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("[1:]", r"^rank 1 has written \d of its \d rows$"),
        (" * 2", r"^rank 1 writes the row of sample_id \w+ twice$"),
    ],
)
def test_a_real_rank_that_is_short_of_rows_or_writes_twice_is_named(settings, monkeypatch, change, message):
    Path("faulty_rank.py").write_text(FAULTY_RANK.format(change=change))
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.setattr(run_module, "launch", partial(launch, module="faulty_rank"))
    config = with_changes(settings, {"iterations": 0, "launch": {"processes": 2}})
    with pytest.raises(StoreError, match=message):
        loop(config)
    assert versions(Store(config.run_dir)) == {"prompts@0": 1, "triples@0": 1, "models@0": 1}
    monkeypatch.setattr(run_module, "launch", launch)
    assert (
        check_run(loop(with_changes(settings, {"iterations": 0, "launch": {"processes": 1}})).store)["problems"] == []
    )


def leave_out_a_prompt(draft: Path) -> None:
    (part,) = list_parts(draft)
    rows = pl.read_parquet(part)
    write_part(draft, "7", rows.filter(pl.col("prompt_id") != rows["prompt_id"][0]))
    part.unlink()


def write_twice(draft: Path) -> None:
    (part,) = list_parts(draft)
    write_part(draft, "twice", pl.read_parquet(part)[:3])


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (leave_out_a_prompt, StoreError, r"24 rows in, 21 rows out, rejected none: 3 rows are unaccounted for"),
        (write_twice, SchemaError, r"3 key\(s\) of Samples occur in several rows, .* part-8.parquet, part-twice.parq"),
    ],
)
def test_a_rank_that_is_short_of_rows_or_writes_twice_fails_its_step(settings, monkeypatch, spoil, error, message):
    config = broken(settings, monkeypatch, spoil)
    with pytest.raises(error, match=message):
        loop(config)
    there = versions(Store(config.run_dir))
    assert there == {"prompts@0": 1, "triples@0": 1, "models@0": 1, "evaluations@0": 1}
    (draft,) = Path("runs").rglob(".draft-*")
    kept = {path.name: path.stat().st_mtime_ns for path in list_parts(draft)}
    if spoil is write_twice:
        (draft / "part-twice.parquet").unlink()  # as the first rank of the next attempt does: see the next test
    monkeypatch.setattr(run_module, "launch", ranks)
    store = loop(config).store
    made = {path.name: path.stat().st_mtime_ns for path in store.parts(store.resolve("samples@1"))}
    assert {name for name in kept if kept[name] == made.get(name)} == kept.keys() - {"part-twice.parquet"}
    assert check_run(store)["problems"] == []


def test_of_parts_with_the_same_rows_the_smaller_one_is_written_again(alone, tmp_path):
    from hir_core.modeling.data_parallel import finished_keys

    rows = rewards(9)
    for name, start, end in (("0", 0, 2), ("1", 0, 5), ("2", 4, 6), ("3", 6, 9)):
        write_part(tmp_path, name, rows[start:end])
    (tmp_path / "part-4.parquet").write_bytes(b"half")
    done = finished_keys(Rank(tmp_path, 0, 1, 0), tmp_path, "sample_id")
    assert [path.name for path in finished_parts(tmp_path)] == ["part-1.parquet", "part-3.parquet"]
    assert done == {*rows["sample_id"]} - {"s5"}
