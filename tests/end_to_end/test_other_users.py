"""What other users of the machine see of a run through its file system: no more than the owner's umask leaves them.

A run is started with a group that nothing else has, by which its files are found, wherever on the machine they lie.
"""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_run import PATIENCE_S, TWO_RANKS, command, environment, wait_until, write_config

from hir_core.store.store import Store

GROUP = 54_321
"""Nothing on a machine has this group."""
NOBODY = 65_534
SHARED = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/run"))
"""Where every user may write."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as another user, or with another group"),
]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def files_of_the_run(place: Path, depth: int) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything with the group of the run at this depth below a folder."""
    try:
        entries = list(os.scandir(place))
    except OSError:  # it is gone
        return
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if status.st_gid == GROUP:
            yield Path(entry.path), status
        if depth > 1 and entry.is_dir(follow_symlinks=False):
            yield from files_of_the_run(Path(entry.path), depth - 1)


def open_to_others(found: dict[Path, os.stat_result], mask: int) -> list[str]:
    """The files with rights that the umask takes; a link has none of its own."""
    return [
        f"{stat.filemode(status.st_mode)} {path}"
        for path, status in found.items()
        if status.st_mode & mask & 0o777 and not stat.S_ISLNK(status.st_mode)
    ]


AS_NOBODY = """
import os, sys
os.setgroups([]), os.setgid(65534), os.setuid(65534)
for name in sys.stdin.read().split("\\0"):
    try:
        os.listdir(name) if os.path.isdir(name) else open(name, "rb").close()
    except (PermissionError, FileNotFoundError):
        continue
    print(name)
"""


def readable_by_nobody(paths: list[Path]) -> list[str]:
    """The paths that a user without any rights can open."""
    names = "\0".join(map(str, paths))
    done = subprocess.run([sys.executable, "-c", AS_NOBODY], input=names, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_user_without_rights_can_open_what_everybody_may(open_folder):
    """So that the test below can fail."""
    (open_folder / "open").write_text("")
    (open_folder / "closed").touch(0o600)
    assert readable_by_nobody([open_folder / "open", open_folder / "closed"]) == [str(open_folder / "open")]


def test_no_file_of_a_run_is_open_to_others_than_its_owners_umask_says(open_folder):
    work, home = open_folder / "work", open_folder / "prefect"
    for folder in (work, home):
        folder.mkdir()
        os.chown(folder, 0, GROUP)
    config = write_config(work, launch=TWO_RANKS | {"resident": True})
    found: dict[Path, os.stat_result] = {}
    run = subprocess.Popen(
        command("run", config.name),
        cwd=work,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        group=GROUP,
        umask=0o077,
    )

    def looks_around() -> bool:
        for place in SHARED:
            found.update(files_of_the_run(place, 1))
        return run.poll() is not None

    wait_until(looks_around, "the end of the run")
    output = run.communicate(timeout=PATIENCE_S)[0].decode()
    assert run.returncode == 0, output
    for place in (work, home, *SHARED):
        found |= dict(files_of_the_run(place, 12 if place in (work, home) else 3))
    made = {path: status for path, status in found.items() if path not in (work, home)}
    inside = [path for path in made if path.is_relative_to(work / "runs/tiny")]
    assert len(inside) > 50
    assert {path.name for path in inside} >= {".lock", "branches.json", "report.html", "job.json", "rank-1.log"}
    assert open_to_others(made, 0o077) == []
    assert readable_by_nobody(list(made)) == []
    assert [path for path in made if not path.is_relative_to(open_folder) and os.path.lexists(path)] == []
    assert len(Store(work / "runs/tiny").versions()) > 5
