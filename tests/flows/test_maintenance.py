"""`hir gc` and `hir doctor` on a real run: a branch is removed, old weights are released, and the run continues."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cli_run import PATIENCE_S, command, digests, environment, hir, write_config

from hir_core.store.store import Store

pytestmark = pytest.mark.slow

CHANGES = {"retention": {"last": 1, "best": 0}}


class Story:
    """One run: an iteration, a second branch that it continues, a removal, and a third iteration that is killed.

    Args:
        folder: where `tiny.yaml` lies.
        home: Prefect's, for the run that is killed, and for `hir doctor`, which would find other tests' flow runs.
        prefect_home: Prefect's, with a server that other tests use as well.
    """

    def __init__(self, folder: Path, home: Path, prefect_home: Path) -> None:
        self.folder, self.home, self.prefect_home, self.run_dir = folder, home, prefect_home, folder / "runs/tiny"
        write_config(folder, **CHANGES)
        self.hir("run", "tiny.yaml", "iterations=1")
        self.old = digests(self.run_dir)
        self.hir("run", "tiny.yaml", "iterations=2", "training.epochs=1")
        self.both = digests(self.run_dir)
        self.collected = json.loads(self.hir("gc", "--yes", "--json"))
        self.left = digests(self.run_dir)
        self.again = self.hir("run", "tiny.yaml", "iterations=2", "training.epochs=1")
        self.sound = self.hir("verify")
        self.well = json.loads(self.hir("doctor", "--json"))
        self.pid = self.kill()
        self.ill = json.loads(self.hir("doctor", "--json", code=1))

    def hir(self, *arguments: str, code: int = 0) -> str:
        home = self.home if arguments[0] == "doctor" else self.prefect_home
        return hir(self.folder, home, *arguments, code=code)

    def kill(self) -> int:
        """Starts a third iteration, kills it as soon as its ranks have a job, and returns its process id."""
        process = subprocess.Popen(
            command("run", "tiny.yaml", "iterations=3", "training.epochs=1"),
            cwd=self.folder,
            env=environment(self.home),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        job, deadline = self.run_dir / "launches/0003/job.json", time.monotonic() + PATIENCE_S
        assert not job.exists()
        while not job.exists():
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "the moment never came"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return process.pid


@pytest.fixture(scope="module")
def story(tmp_path_factory, prefect_home) -> Story:
    return Story(tmp_path_factory.mktemp("cleared"), tmp_path_factory.mktemp("prefect"), prefect_home)


def test_the_abandoned_branch_is_removed_and_nothing_of_the_other(story):
    removed = {version["version"].split("-")[0] for version in story.collected["removed"]}
    assert removed == {"models/0001", "evaluations/0001"}
    gone = story.both.keys() - story.left.keys()
    lost = {version["version"] for version in story.collected["removed"]}
    weights = {f"{kept['version']}/{name}" for kept in story.collected["kept"] for name in kept["released"]}
    assert gone == {path for path in story.both if path.rpartition("/")[0] in lost} | weights
    assert gone - weights <= story.old.keys()
    assert {path.split("-")[0] for path in weights} == {"models/0001"}


def test_after_that_there_is_nothing_to_do_and_the_run_is_sound(story):
    assert "nothing to do: all 2 iterations are there" in story.again
    assert story.sound.endswith(" · sound\n")
    assert story.well["findings"] == []


def test_a_killed_run_is_found_by_what_it_left(story):
    found = [finding["what"] for finding in story.ill["findings"]]
    assert any(f"no longer holds it (pid {story.pid} on " in what for what in found)


def test_a_run_continues_from_the_weights_that_were_kept(story):
    assert story.left.items() <= digests(story.run_dir).items()
    job = json.loads((story.run_dir / "launches/0003/job.json").read_text())
    assert job["model"]["source"] == str(Store(story.run_dir).resolve("models@2").path.resolve())
