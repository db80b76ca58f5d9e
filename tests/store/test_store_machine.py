"""The store against a small model of it, in any order of commits, readings, kills, races, damage and removals.

A kill is real for the files: from that moment on nothing changes them any more, not even a `finally`. After every step
the store must show what the model says: which versions exist, with which rows, and which of them are damaged. Every
parent of a visible version must exist.
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
"""The rows of each possible version."""
PARENTS = {0: [], 1: [], 2: [0], 3: [0, 1], 4: [2], 5: [4]}


class Killed(BaseException):
    """Represents the end of the process: no code of the library catches it."""


class _Death:
    """Counts changes to the file system, and refuses all of them from a certain one on."""

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
    """Runs the body as a process that dies after this many changes to the file system, or completes before that."""
    DEATH.left = after
    try:
        with suppress(Killed):
            yield
    finally:
        DEATH.left = None


def identity_of(number: int) -> Identity:
    parents = [f"rewards/{identity_of(parent).id}" for parent in PARENTS[number]]
    return identity("rewards", number, {"number": number}, parents)


def fill(draft: Draft, number: int) -> Draft:
    """Writes the missing ones of a version's two parts, as a stage that continues does."""
    done = {path.name for path in draft.parts()}
    for part, rows in (("a", ROWS[number][:1]), ("b", ROWS[number][1:])):
        if f"part-{part}.parquet" not in done:
            draft.write(part, rewards(len(rows)).with_columns(sample_id=pl.Series(rows)))
    return draft


class StoreMachine(RuleBasedStateMachine):
    """`existing`: the versions that must exist; `damaged`: those of them whose files were changed."""

    @initialize(made=st.sets(st.sampled_from([3, 5])))
    def begin(self, made: set[int]) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder / "run")
        self.existing: set[int] = set()
        self.damaged: set[int] = set()
        for number in sorted(made):
            self.commit(number)

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def can_be_made(self, number: int) -> bool:
        return set(PARENTS[number]) <= self.existing

    @rule(number=NUMBERS)
    def commit(self, number: int) -> None:
        """Makes a version and, before it, the versions that it is made from, as a run does."""
        for parent in PARENTS[number]:
            self.commit(parent)
        ref = fill(self.store.draft(identity_of(number)), number).commit()
        assert ref.path.is_dir()
        self.existing.add(number)

    @rule(number=NUMBERS, after=st.integers(0, 30))
    def commit_killed(self, number: int, after: int) -> None:
        if self.can_be_made(number):
            with dying(after):
                fill(self.store.draft(identity_of(number)), number).commit()
            if self.path(number).exists():  # a kill may come after the rename
                self.existing.add(number)

    @rule(number=NUMBERS, first=st.booleans())
    def race(self, number: int, first: bool) -> None:
        if self.can_be_made(number):
            drafts = [fill(self.store.draft(identity_of(number)), number) for _ in range(2)]
            refs = [draft.commit() for draft in (drafts if first else reversed(drafts))]
            assert refs[0] == refs[1]
            self.existing.add(number)

    @rule(number=NUMBERS)
    def read(self, number: int) -> None:
        ref = self.store.find(identity_of(number)) if number not in self.damaged else None
        if number in self.damaged:
            with pytest.raises(VersionCorrupt):
                self.store.table(self.store.resolve(str(self.path(number).relative_to(self.store.run_dir))))
        elif number in self.existing:
            assert ref is not None
            assert sorted(self.store.table(ref).collect()["sample_id"]) == ROWS[number]
        else:
            assert ref is None

    @precondition(lambda self: self.existing - self.damaged)
    @rule(choice=st.integers(0, 5), how=st.sampled_from(["flip", "truncate", "missing", "more"]))
    def damage(self, choice: int, how: str) -> None:
        whole = sorted(self.existing - self.damaged)
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
        """Deletes damaged versions, as the error messages say; the same config then makes them again."""
        for number in sorted(self.damaged):
            shutil.rmtree(self.path(number))
            fill(self.store.draft(identity_of(number)), number).commit()
        self.damaged.clear()

    @rule(used=st.sets(NUMBERS, max_size=2))
    def collect(self, used: set[int]) -> None:
        """All used versions and their ancestors are kept; no other version is."""
        kept = self.ancestors(used & self.existing)
        assert self.removed(used, nullcontext()) == self.existing - kept
        assert leftovers(self.store.run_dir) == []
        self.existing, self.damaged = kept, self.damaged & kept

    @precondition(lambda self: len(self.existing) > 2)
    @rule(used=st.sets(NUMBERS, max_size=1), after=st.integers(0, 20))
    def collect_killed(self, used: set[int], after: int) -> None:
        """All used versions and their ancestors are kept; some of the others may be left."""
        gone = self.removed(used, dying(after))
        assert gone.isdisjoint(self.ancestors(used & self.existing))
        self.existing, self.damaged = self.existing - gone, self.damaged - gone

    def removed(self, used: set[int], life: AbstractContextManager[None]) -> set[int]:
        """Removes, within `life`, what a branch does not use; returns what has been removed."""
        (self.store.run_dir / BRANCHES).unlink(missing_ok=True)
        log = BranchLog(self.store.run_dir, "main", RULE)
        for number in sorted(used):
            log.record(identity_of(number))
        log.complete()
        with self.store.lock():
            plan = plan_gc(self.store)
            with life:
                remove(self.store, plan)
        return {number for number in self.existing if not self.path(number).exists()}

    def ancestors(self, numbers: set[int]) -> set[int]:
        ancestors = set(numbers)
        while more := {parent for number in ancestors for parent in PARENTS[number]} & self.existing - ancestors:
            ancestors |= more
        return ancestors

    def path(self, number: int) -> Path:
        return self.store.run_dir / "rewards" / identity_of(number).id

    @invariant()
    def the_store_shows_what_the_model_says(self) -> None:
        refs = self.store.versions()
        assert {ref.path for ref in refs} == {self.path(number) for number in self.existing}
        for number in self.existing:
            assert set(PARENTS[number]) <= self.existing
            if number not in self.damaged:
                self.store.verify(self.store.resolve(f"rewards/{identity_of(number).id}"))
            else:
                with pytest.raises(StoreError):
                    self.store.verify(self.store.resolve(f"rewards/{identity_of(number).id}"))


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch) -> None:
    """Power cuts are not simulated here, and waiting for the disk takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module", autouse=True)
def watched() -> None:
    """An audit hook cannot be removed again; this one does nothing except within `dying`."""
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


def test_the_store_agrees_with_its_model_after_any_few_steps():
    run(examples=15, steps=12)


@pytest.mark.slow
def test_the_store_agrees_with_its_model_after_any_steps():
    run(examples=50, steps=25)
