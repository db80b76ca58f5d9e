"""A training that is stopped continues at its newest whole checkpoint, whatever happened while one was saved.

One process stands for the launch; whole trainings of one and two ranks are compared in `test_zero`.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fault_points import strike_at
from torch import distributed as dist
from training_logs import optimizer_step

from hir_core.launch.end_requests import EndRequest
from hir_core.modeling import shards
from hir_core.progress import Progress
from hir_core.training.checkpoints import Checkpoints, Record

STEPS = 5
INPUTS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", autouse=True)
def _one_rank() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("get_rank", 0), ("get_world_size", 1), ("barrier", None)):
            patch.setattr(dist, name, lambda value=value: value)
        yield


class Killed(BaseException):
    """In place of a signal that ends the process."""


class Training:
    """A linear model in fp32 that AdamW trains, as a launch of its own."""

    def __init__(self, folder: Path, every_s: float | None = 0.0) -> None:
        self.model = torch.nn.Linear(3, 2)
        self.model.load_state_dict({"weight": torch.ones(2, 3), "bias": torch.ones(2)})
        self.adamw = torch.optim.AdamW(self.model.parameters(), lr=0.1, fused=True)
        self.request, self.reports = EndRequest(), list[Progress]()
        engine = SimpleNamespace(optimizer=self.adamw, device=torch.device("cpu"))
        self.checkpoints = Checkpoints(engine, self.model, folder, every_s, self.request, self.reports.append)
        self.record = Record()

    def go_on(self, until: int = STEPS) -> "Training":
        """Continues at the newest checkpoint, and makes every optimizer step up to this one."""
        self.record = self.checkpoints.restore(STEPS)
        for number in range(len(self.record.history), until):
            self.adamw.zero_grad()
            loss = (self.model(INPUTS) ** 2).sum() + number * self.model.bias.sum()
            loss.backward()
            self.adamw.step()
            self.record.add(optimizer_step(number + 1, loss.item()), seconds=float(number))
            self.checkpoints.report(Progress("train", number + 1, STEPS, "steps"))
            self.checkpoints.after_step(self.record)
        return self

    @property
    def end(self) -> tuple[Any, ...]:
        """What it has come to."""
        weights = [value.tolist() for value in self.model.state_dict().values()]
        return weights, self.record.history, self.record.tokens

    @property
    def note(self) -> str:
        return self.reports[-1].note


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def unbroken(_one_rank: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    return Training(tmp_path_factory.mktemp("unbroken"), every_s=None).go_on().end


@pytest.mark.parametrize("stop", range(STEPS + 1))
def test_a_training_that_was_stopped_ends_as_one_that_was_not(stop, tmp_path, unbroken):
    """Bit for bit, at every step, the last one included."""
    Training(tmp_path).go_on(until=stop)
    continued = Training(tmp_path).go_on()
    assert continued.end == unbroken
    if 0 < stop < STEPS:
        assert re.fullmatch(rf"continues at optimizer step {stop} of 5 \(checkpoint of .{{16}}\)", continued.note)


def test_only_the_newest_checkpoint_is_kept_and_none_without_its_time(tmp_path):
    training = Training(tmp_path).go_on(until=3)
    assert saved(tmp_path) == [".checkpoint-00000003"]
    assert training.note == ""
    Training(tmp_path, every_s=1000.0).go_on()
    assert saved(tmp_path) == [".checkpoint-00000003"]


def test_who_is_asked_to_end_saves_first_whatever_the_time(tmp_path, unbroken, monkeypatch):
    training = Training(tmp_path, every_s=None).go_on(until=0)
    training.request.number = 15

    def die(_: EndRequest) -> None:
        raise Killed

    monkeypatch.setattr(EndRequest, "obey", die)
    with pytest.raises(Killed):
        training.go_on()
    expected = "was asked to end, and stopped after optimizer step 1 of 5: its checkpoint is kept"
    assert training.note == expected
    assert saved(tmp_path) == [".checkpoint-00000001"]
    assert Training(tmp_path, every_s=None).go_on().end == unbroken


def test_a_kill_while_a_checkpoint_is_saved_leaves_the_old_one_or_the_new_one(tmp_path, unbroken):
    """One process for each change that saving makes to the file system; it dies before that change."""
    first = tmp_path / "first"
    first.mkdir()
    Training(first).go_on(until=2)
    found: list[int] = []
    for change in range(1, 100):
        folder = shutil.copytree(first, tmp_path / str(change))
        child = os.fork()
        if child == 0:
            changes = strike_at(change, lambda: os._exit(9))
            Training(folder).go_on(until=3)
            os._exit(0 if changes() < change else 1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 9)
        continued = Training(folder, every_s=None).go_on()
        assert continued.end == unbroken
        found.append(STEPS - len(continued.reports))
        if change % 8 == 0 or status == 0:
            Training(folder).go_on()
            assert saved(folder) == [".checkpoint-00000005"]
        if status == 0:
            break
    assert found == sorted(found)
    assert set(found) == {2, 3}
    print(f"{len(found) - 1} changes")
    assert len(found) > 10


@pytest.mark.parametrize("name", ["results.json", "digests.json", "optimizer-00001-of-00001.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_damaged_checkpoint_is_left_aside_and_said(name, damage, tmp_path, unbroken):
    Training(tmp_path).go_on(until=3)
    path = tmp_path / ".checkpoint-00000003" / name
    content = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content if damage == "flip" else content[:-1])
    continued = Training(tmp_path).go_on()
    assert continued.end == unbroken
    expected = "is trained from the beginning: the checkpoint of optimizer step 3 is damaged: "
    assert continued.reports[0].note.startswith(expected)
    assert saved(tmp_path) == [".checkpoint-00000005"]


def test_a_whole_checkpoint_counts_where_a_newer_one_is_damaged(tmp_path, unbroken):
    Training(tmp_path).go_on(until=3)
    shutil.copytree(tmp_path / ".checkpoint-00000003", tmp_path / ".checkpoint-00000004")
    continued = Training(tmp_path).go_on()
    assert len(continued.reports) == STEPS - 3
    assert continued.end == unbroken


def test_a_full_disk_ends_no_training_and_keeps_the_checkpoint_before(tmp_path, unbroken, monkeypatch):
    Training(tmp_path).go_on(until=2)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(shards, "save_file", refuse)
        training = Training(tmp_path).go_on()
    assert training.end == unbroken
    assert "could not save a checkpoint of optimizer step 4: cannot write" in training.note
    assert saved(tmp_path) == [".checkpoint-00000002"]
    assert Training(tmp_path).go_on().end == unbroken
