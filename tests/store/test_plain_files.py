"""Links, pipes and devices where a run has files of its own: nothing is written, deleted or waited for behind them."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from finished_run import hir
from store_tables import MODEL, THIS, commit, names, rewards

from hir_core.errors import HirError, StoreError
from hir_core.inspect.doctor import check_upkeep
from hir_core.launch.build_locks import clear_build_locks
from hir_core.launch.processes import start_supervised
from hir_core.launch.rank import Rank, rank_log
from hir_core.launch.stack_traces import stack_file
from hir_core.store.branches import BranchLog
from hir_core.store.files import write_json, write_part, write_text
from hir_core.store.locks import exclusive, signature
from hir_core.store.plain_files import open_folder, open_plain, write_whole
from hir_core.store.store import Store

SOMEBODY_ELSE = 65534
PRECIOUS = "mine\n"
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link of another user")


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "run")


@pytest.fixture
def precious(tmp_path) -> Path:
    """A file of the user, outside the run, to which somebody would like a write to lead."""
    path = tmp_path / "precious"
    path.write_text(PRECIOUS)
    return path


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Ends a test that waits for a pipe."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waited for a pipe"))
    signal.alarm(60)
    yield
    signal.alarm(0)


TRAPS: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda place, precious: place.symlink_to(precious),
    "dangling link": lambda place, precious: place.symlink_to(precious.with_name("new")),
    "hard link": lambda place, precious: place.hardlink_to(precious),
    "pipe": lambda place, precious: os.mkfifo(place),
    "folder": lambda place, precious: place.mkdir(),
    "file that is no lock": lambda place, precious: shutil.copy(precious, place),
}
"""What may lie where a lock file is expected."""


@pytest.fixture(params=TRAPS)
def trap(request) -> Callable[[Path, Path], object]:
    return TRAPS[request.param]


# --- lock files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".lock", "rewards/.lock"])
def test_what_lies_in_the_place_of_a_lock_is_refused_and_unharmed(store, precious, trap, place):
    lock = store.run_dir / place
    lock.parent.mkdir(parents=True)
    trap(lock, precious)
    with pytest.raises(StoreError, match=r"\.lock") as caught, exclusive(lock, wait=False):
        pass
    assert "\n" not in str(caught.value)
    assert precious.read_text() == PRECIOUS
    assert not precious.with_name("new").exists()
    if lock.is_file():
        assert lock.read_text() == PRECIOUS


@pytest.mark.parametrize("place", [".lock", "samples/.lock"])
def test_doctor_neither_follows_nor_empties_what_lies_in_the_place_of_a_lock(small_run, precious, trap, place):
    lock = small_run.run_dir / place
    lock.unlink(missing_ok=True)
    precious.write_text('{"pid": 1, "host": "h", "since": "s"}')  # as if it were a lock that a killed process signed
    trap(lock, precious)
    is_own = trap is TRAPS["file that is no lock"]  # which it is here: a copy of a signed one
    shown = hir("doctor", "--fix", code=0 if is_own else 1)
    assert is_own or str(Path(place)) in shown
    assert lock.read_text() == "" if is_own else True
    assert precious.read_text() == '{"pid": 1, "host": "h", "since": "s"}'


def test_a_lock_of_nonsense_is_neither_read_whole_nor_a_traceback(tmp_path):
    lock = tmp_path / ".lock"
    lock.write_text("[" * 10_000_000)
    assert signature(lock) == "its pid is not recorded yet"


def test_a_lock_works_as_before(store):
    with store.lock(), pytest.raises(HirError, match="is being written by another process"), store.lock():
        pass
    assert (store.run_dir / ".lock").read_text() == ""
    (store.run_dir / ".lock").write_text('{"pid": 1, "host": "h", "since": "s"}')  # of a killed process
    with store.lock():
        assert f'"pid": {os.getpid()}' in (store.run_dir / ".lock").read_text()


# --- what lies below a run -------------------------------------------------------------------------------------------

PLACES = [
    "launches",
    "launches/0000-learn",
    "launches/score-0a1b2c3d/scores",
    "samples",
    "rewards/.draft-0003-0a1b2c3d",
    "models/.draft-0001-0a1b2c3d/config.json",
    "evaluations/.draft-0001-0a1b2c3d/.completions",
]


@pytest.mark.parametrize("kind", ["link", "pipe"])
@pytest.mark.parametrize("place", PLACES)
def test_no_process_writes_to_a_run_that_holds_a_link_or_a_pipe_where_files_are_written(store, precious, place, kind):
    lying = store.run_dir / place
    lying.parent.mkdir(parents=True)
    TRAPS[kind](lying, precious)
    with (
        pytest.raises(StoreError, match=f"{place} is {'a symbolic link' if kind == 'link' else 'no file'}"),
        store.lock(),
    ):
        pass
    lying.unlink()
    with store.lock():
        pass


def test_doctor_names_a_link_and_what_else_it_finds_waits(small_run, tmp_path):
    link = small_run.run_dir / "launches"
    link.symlink_to(tmp_path)
    (tmp_path / ".x.json.1.tmp").write_text("")
    (found,) = check_upkeep(small_run.run_dir)
    assert (found.where, found.repair) == (str(link), None)
    assert "holds files of its own only" in found.what
    hir("doctor", "--fix", code=1)
    assert (tmp_path / ".x.json.1.tmp").exists()


@pytest.mark.parametrize("version", [THIS, MODEL], ids=["table", "model"])
def test_a_draft_that_holds_a_link_is_not_continued(store, precious, version):
    draft = store.draft(version)
    (draft.path / "config.json").symlink_to(precious)
    with pytest.raises(StoreError, match=r"config\.json is a symbolic link"):
        store.draft(version)


def test_a_link_at_a_files_name_is_replaced_and_not_followed(store, precious, tmp_path):
    store.run_dir.mkdir()
    for name in ("report.html", "value.json", "part-a.parquet"):
        (store.run_dir / name).symlink_to(precious)
    write_text(store.run_dir / "report.html", "page")
    write_json(store.run_dir / "value.json", {})
    write_part(store.run_dir, "a", rewards(1))
    assert precious.read_text() == PRECIOUS
    assert not any((store.run_dir / name).is_symlink() for name in ("report.html", "value.json", "part-a.parquet"))


def test_branches_that_are_a_link_or_a_pipe_are_not_read(store, tmp_path, trap, precious):
    store.run_dir.mkdir()
    trap(store.run_dir / "branches.json", precious)
    with pytest.raises(StoreError, match=r"branches\.json") as caught:
        BranchLog(store.run_dir, "main", None).record(THIS)
    assert PRECIOUS.strip() not in str(caught.value)
    assert precious.read_text() == PRECIOUS


def test_a_manifest_that_is_a_pipe_is_not_waited_for(store):
    ref = commit(store)
    (ref.path / "manifest.json").unlink()
    os.mkfifo(ref.path / "manifest.json")
    with pytest.raises(StoreError, match=r"manifest\.json is no file"):
        store.manifest(ref)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_part_that_is_a_pipe_or_a_link_is_refused(store, precious, kind):
    ref = commit(store)
    part = ref.path / "part-a.parquet"
    part.unlink()
    TRAPS[kind](part, precious)
    with pytest.raises(StoreError, match=r"part-a\.parquet is a (pipe or a device|symbolic link)"):
        store.verify(ref)


# --- a folder that somebody swaps while it is written to -------------------------------------------------------------


@AS_ROOT
def test_what_a_commit_deletes_stays_in_its_folder_when_that_is_swapped_for_anothers_link(store, tmp_path, monkeypatch):
    """Somebody who may write to the run puts a link to a home folder where a commit is about to delete hidden files."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".profile").write_text(PRECIOUS)
    draft = store.draft(THIS)
    draft.write("a", rewards(3))
    finish = draft._finish

    def swapped(outcome: object) -> object:
        draft.sealed_path.rename(tmp_path / "away")
        draft.sealed_path.symlink_to(home)
        os.lchown(draft.sealed_path, SOMEBODY_ELSE, SOMEBODY_ELSE)
        return finish(outcome)

    monkeypatch.setattr(draft, "_finish", swapped)
    with pytest.raises(StoreError, match="symbolic link of another user"):
        draft.commit()
    assert (home / ".profile").read_text() == PRECIOUS


@AS_ROOT
def test_a_run_folder_that_another_user_links_elsewhere_is_refused_and_ones_own_link_is_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run = tmp_path / "run"
    run.symlink_to(elsewhere)
    store = Store(run)
    commit(store)
    os.lchown(run, SOMEBODY_ELSE, SOMEBODY_ELSE)
    before = names(elsewhere)
    with pytest.raises(StoreError, match="symbolic link of another user"), store.lock():
        pass
    with pytest.raises(StoreError, match="symbolic link of another user"):
        write_text(run / "report.html", "page")
    assert names(elsewhere) == before


def test_a_descriptor_keeps_to_its_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with open_folder(tmp_path / "a") as folder:
        (tmp_path / "a").rename(tmp_path / "c")
        (tmp_path / "b").rename(tmp_path / "a")
        os.close(os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    assert [names(tmp_path / name) for name in "ac"] == [[], ["x"]]


# --- launches --------------------------------------------------------------------------------------------------------


@pytest.fixture
def job_dir(tmp_path) -> Path:
    folder = tmp_path / "job"
    (folder / "logs").mkdir(parents=True)
    return folder


RANK = """
import sys
from pathlib import Path
from hir_core.launch.rank_process import RankProcess
with RankProcess(Path(sys.argv[1])).job() as rank:
    print("a rank was here", flush=True)
"""


@pytest.mark.parametrize("place", [rank_log(Path(), 0), stack_file(rank_log(Path(), 0))], ids=str)
@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe"])
def test_a_rank_writes_its_log_and_its_stack_to_files_of_its_own_only(job_dir, precious, place, kind):
    TRAPS[kind](job_dir / place, precious)
    command = [sys.executable, "-c", RANK, str(job_dir)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    log = job_dir / "logs/rank-0.log"  # which takes over once it is open
    assert done.returncode == 1
    assert f"{place.name} is " in done.stdout + (log.read_text() if place.suffix == ".stack" else "")
    assert precious.read_text() == PRECIOUS
    assert not precious.with_name("new").exists()


def test_a_ranks_reports_follow_no_link_that_somebody_could_foresee(job_dir, precious):
    for name in (".progress.json", ".done-0.json", "progress.json", "done-0.json"):
        (job_dir / f"{name}.{os.getpid()}" if name.startswith(".") else job_dir / name).symlink_to(precious)
    rank = Rank(job_dir, 0, 1, 0)
    rank.step_done(0, {"loss": 1.0})
    assert precious.read_text() == PRECIOUS
    assert (job_dir / "done-0.json").read_text() == '{"loss": 1.0}'


def test_the_launchers_log_is_a_file_of_its_own(job_dir, precious):
    (job_dir / "logs/launcher.log").symlink_to(precious)
    with pytest.raises(StoreError, match=r"launcher\.log is a symbolic link"):
        start_supervised(job_dir / "logs/launcher.log", ["true"], dict(os.environ), 0)
    assert precious.read_text() == PRECIOUS


def test_a_build_lock_is_deleted_only_where_it_is_this_users_own_and_no_link_leads_to_it(tmp_path, monkeypatch):
    root, project = tmp_path / "extensions", tmp_path / "project"
    (root / "op").mkdir(parents=True)
    (root / "op/lock").write_text("")
    project.mkdir()
    (project / "lock").write_text(PRECIOUS)
    (root / "linked").symlink_to(project)
    (root / "op/file").mkdir()
    (root / "op/file/lock").symlink_to(project / "lock")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(root))
    others = []
    if os.geteuid() == 0:
        (root / "theirs").mkdir()
        (root / "theirs/lock").write_text("")
        os.chown(root / "theirs/lock", SOMEBODY_ELSE, SOMEBODY_ELSE)
        others = [root / "theirs/lock"]
    assert clear_build_locks() == [root / "op/lock"]
    assert (project / "lock").read_text() == PRECIOUS
    assert all(lock.exists() for lock in [*others, root / "op/file/lock"])


# --- the functions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["r", "w", "a", "a+"])
def test_open_plain_opens_what_is_plain(tmp_path, mode):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with open_plain(path, mode) as file:
        if mode != "r":
            file.write(b"new")
    assert path.read_bytes() == {"r": b"old", "w": b"new"}.get(mode, b"oldnew")


def test_open_plain_empties_no_file_that_it_refuses(tmp_path, precious):
    (tmp_path / "hard").hardlink_to(precious)
    with pytest.raises(StoreError, match="is a hard link"):
        open_plain(tmp_path / "hard", "w")
    assert precious.read_text() == PRECIOUS
    with open_plain(tmp_path / "hard") as file:
        assert file.readall().decode() == PRECIOUS


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", "/dev/full"])
def test_a_device_is_no_file(device):
    for mode in ("r", "w"):
        with pytest.raises(StoreError, match="is no file"):
            open_plain(Path(device), mode)


def test_a_file_that_is_written_whole_has_the_rights_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", lambda file: file.write(b"x"))
        open_plain(tmp_path / "log", "a").close()
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "log")] == [0o640, 0o640]
