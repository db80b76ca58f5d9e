"""The store against a model of it that fits on a page: any order of commits, readings, kills, races, damage, removals.

A kill is real as far as files go: from its moment on nothing changes them any more, not even what a `finally` wants.
After every step, what the store shows is what the model says: which versions there are, with which rows, and which of
them are damaged; and nothing visible has a parent that is not there, but where it was damaged away.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from store_tables import rewards

from hir_core.config import RetentionConfig
from hir_core.errors import StoreError, VersionCorrupt
from hir_core.store.branches import BRANCHES, BranchLog
from hir_core.store.draft import Draft
from hir_core.store.gc import leftovers, plan_gc, remove
from hir_core.store.manifest import Identity, identity
from hir_core.store.store import Store

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
RULE = RetentionConfig(last=1, best=0)
NUMBERS = st.integers(0, 5)
ROWS = {number: [f"{number}-{row}" for row in range(2 + number % 3)] for number in range(6)}
"""The rows of each version that there may be."""
PARENTS = {0: [], 1: [], 2: [0], 3: [0, 1], 4: [2], 5: [4]}


class Killed(BaseException):
    """Stands for the end of the process: no code of ours catches it."""


class _Death:
    """Counts changes to the file system, and refuses all from a certain one on."""

    def __init__(self) -> None:
        self.left: int | None = None

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.left is None:
            return
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if event in CHANGES or writes:
            self.left -= 1
            if self.left < 0:
                raise Killed


DEATH = _Death()


@contextmanager
def dying(after: int) -> Iterator[None]:
    """Runs the body as a process that dies after so many changes to the file system, or comes to its end before."""
    DEATH.left = after
    try:
        with suppress(Killed):
            yield
    finally:
        DEATH.left = None


def named(number: int) -> Identity:
    parents = [f"rewards/{named(parent).id}" for parent in PARENTS[number]]
    return identity("rewards", number, {"number": number}, parents)


def fill(draft: Draft, number: int) -> Draft:
    """Writes what is missing of a version's two parts, as a stage that goes on does."""
    done = {path.name for path in draft.parts()}
    for part, rows in (("a", ROWS[number][:1]), ("b", ROWS[number][1:])):
        if f"part-{part}.parquet" not in done:
            draft.write(part, rewards(len(rows)).with_columns(sample_id=pl.Series(rows)))
    return draft


class StoreMachine(RuleBasedStateMachine):
    """`there`: the versions that must be there; `damaged`: those of them whose files were changed."""

    @initialize(made=st.sets(st.sampled_from([3, 5])))
    def begin(self, made: set[int]) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder / "run")
        self.there: set[int] = set()
        self.damaged: set[int] = set()
        for number in sorted(made):
            self.commit(number)

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def can_be_made(self, number: int) -> bool:
        return set(PARENTS[number]) <= self.there

    @rule(number=NUMBERS)
    def commit(self, number: int) -> None:
        """Makes a version, and first what it is made from, as a run does."""
        for parent in PARENTS[number]:
            self.commit(parent)
        ref = fill(self.store.draft(named(number)), number).commit()
        assert ref.path.is_dir()
        self.there.add(number)

    @rule(number=NUMBERS, after=st.integers(0, 30))
    def commit_killed(self, number: int, after: int) -> None:
        if self.can_be_made(number):
            with dying(after):
                fill(self.store.draft(named(number)), number).commit()
            if self.path(number).exists():  # a kill may come after the rename
                self.there.add(number)

    @rule(number=NUMBERS, first=st.booleans())
    def race(self, number: int, first: bool) -> None:
        if self.can_be_made(number):
            drafts = [fill(self.store.draft(named(number)), number) for _ in range(2)]
            refs = [draft.commit() for draft in (drafts if first else reversed(drafts))]
            assert refs[0] == refs[1]
            self.there.add(number)

    @rule(number=NUMBERS)
    def read(self, number: int) -> None:
        ref = self.store.find(named(number)) if number not in self.damaged else None
        if number in self.damaged:
            with pytest.raises(VersionCorrupt):
                self.store.table(self.store.resolve(str(self.path(number).relative_to(self.store.run_dir))))
        elif number in self.there:
            assert ref is not None
            assert sorted(self.store.table(ref).collect()["sample_id"]) == ROWS[number]
        else:
            assert ref is None

    @precondition(lambda self: self.there - self.damaged)
    @rule(choice=st.integers(0, 5), how=st.sampled_from(["flip", "truncate", "missing", "more"]))
    def damage(self, choice: int, how: str) -> None:
        whole = sorted(self.there - self.damaged)
        number = whole[choice % len(whole)]
        part = self.path(number) / "part-b.parquet"
        data = part.read_bytes()
        if how == "missing":
            part.unlink()
        else:
            middle = len(data) // 2
            flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
            part.write_bytes({"flip": flipped, "truncate": data[:-7], "more": data + b"x"}[how])
        self.damaged.add(number)

    @precondition(lambda self: self.damaged)
    @rule()
    def remake(self) -> None:
        """Deletes what is damaged, as the messages say; the same config then makes it again."""
        for number in sorted(self.damaged):
            shutil.rmtree(self.path(number))
            fill(self.store.draft(named(number)), number).commit()
        self.damaged.clear()

    @rule(used=st.sets(NUMBERS, max_size=2))
    def collect(self, used: set[int]) -> None:
        """Of what nobody uses nothing is left, of what somebody uses, and what that is made from, all."""
        kept = self.ancestors(used & self.there)
        assert self.removed(used, nullcontext()) == self.there - kept
        assert leftovers(self.store.run_dir) == []
        self.there, self.damaged = kept, self.damaged & kept

    @precondition(lambda self: len(self.there) > 2)
    @rule(used=st.sets(NUMBERS, max_size=1), after=st.integers(0, 20))
    def collect_killed(self, used: set[int], after: int) -> None:
        """Of what nobody uses something may be left."""
        gone = self.removed(used, dying(after))
        assert gone.isdisjoint(self.ancestors(used & self.there))
        self.there, self.damaged = self.there - gone, self.damaged - gone

    def removed(self, used: set[int], life: AbstractContextManager[None]) -> set[int]:
        """Removes below `life` what a line does not use, and returns what is gone."""
        (self.store.run_dir / BRANCHES).unlink(missing_ok=True)
        notes = BranchLog(self.store.run_dir, "main", RULE)
        for number in sorted(used):
            notes.note(named(number))
        notes.complete()
        with self.store.lock():
            found = plan_gc(self.store)
            with life:
                remove(self.store, found)
        return {number for number in self.there if not self.path(number).exists()}

    def ancestors(self, numbers: set[int]) -> set[int]:
        found = set(numbers)
        while more := {parent for number in found for parent in PARENTS[number]} & self.there - found:
            found |= more
        return found

    def path(self, number: int) -> Path:
        return self.store.run_dir / "rewards" / named(number).id

    @invariant()
    def what_is_shown_is_what_the_model_says(self) -> None:
        refs = self.store.versions()
        assert {ref.path for ref in refs} == {self.path(number) for number in self.there}
        for number in self.there:
            assert set(PARENTS[number]) <= self.there
            if number not in self.damaged:
                self.store.verify(self.store.resolve(f"rewards/{named(number).id}"))
            else:
                with pytest.raises(StoreError):
                    self.store.verify(self.store.resolve(f"rewards/{named(number).id}"))


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch) -> None:
    """What reaches a disk after a power cut is not shown here, and waiting for it takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module", autouse=True)
def watched() -> None:
    """The hook cannot be taken away again; it does nothing while nobody dies."""
    sys.addaudithook(DEATH.hook)


def run(examples: int, steps: int) -> None:
    too_slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=too_slow,
    )
    run_state_machine_as_test(StoreMachine, settings=chosen)


def test_the_store_is_what_its_model_says_after_any_few_steps():
    run(examples=15, steps=12)


@pytest.mark.slow
def test_the_store_is_what_its_model_says_after_any_steps():
    run(examples=50, steps=25)
