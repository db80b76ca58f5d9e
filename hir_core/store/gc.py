"""What of a run is kept and what may go: its lines and their retention rule, over what manifests say of descent.

Kept is every version that a line uses (the same config again finds nothing to do), the most accurate models with what
shows it, and whatever these are made from. Other versions, forks that were left, may go. A kept model may lose its
weights, the bulk of a run: all it is asked for afterwards is in its manifest and in tables. It keeps them where a run
may go on from it: in the last iterations of a line, in iteration 0, from which every other config starts, in a line
that is not complete, and where none is more accurate.

Reads manifests, writes nothing; leaves removing to `removing`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hir_core.config import RetentionConfig
from hir_core.errors import StoreError
from hir_core.store.branches import Branch, read_branches
from hir_core.store.files import sync, write_json
from hir_core.store.graph import VersionGraph
from hir_core.store.locks import exclusive
from hir_core.store.manifest import STAGES, VERSION_ID, evaluation_key, utc_now
from hir_core.store.store import Store
from hir_core.store.version import RELEASED, VersionRef, released

WEIGHTS = ".safetensors"
"""Ending of the files that are released; config and tokenizer stay: they are small and say what the model was."""
NO_BRANCHES = "no run has noted what it uses: run the config once more, which finds nothing to do and notes it"
NO_RULE = "its config has no `retention`, which keeps everything"


@dataclass(frozen=True)
class Kept:
    """A version that stays, and why."""

    ref: VersionRef
    why: str
    weights: tuple[str, ...] = ()
    """The files of weights that it loses."""
    bytes: int = 0
    """How much these hold."""


@dataclass(frozen=True)
class Removed:
    """A version that may go, with its files' bytes."""

    ref: VersionRef
    bytes: int


@dataclass(frozen=True)
class GcPlan:
    """A run's versions, sorted into those that stay and those that go."""

    kept: tuple[Kept, ...]
    removed: tuple[Removed, ...]
    """Children before the versions that they are made from."""
    rules: str = ""
    """By which rules; empty where there is none, so that everything is kept."""
    why_all: str = ""
    """Why everything is kept, where there is no rule."""

    @property
    def emptied(self) -> tuple[Kept, ...]:
        """The models that lose their weights."""
        return tuple(one for one in self.kept if one.weights)

    @property
    def is_nothing(self) -> bool:
        """Whether nothing goes."""
        return not self.removed and not self.emptied

    @property
    def bytes(self) -> int:
        """What removing frees."""
        return sum(one.bytes for one in self.removed) + sum(one.bytes for one in self.emptied)


def plan_gc(store: Store, rule: RetentionConfig | None = None) -> GcPlan:
    """Sorts the versions of a run.

    Args:
        store: the run.
        rule: in place of those that its lines have noted.

    Raises:
        VersionCorrupt: a manifest is damaged, so that nobody knows what its version is made from.
        StoreError: the notes of its lines are damaged.
    """
    graph, branches = VersionGraph(store), read_branches(store.run_dir)
    rules = {name: rule or branch.retention for name, branch in branches.items()}
    without = [name for name, found in rules.items() if found is None]
    if without or not branches:
        why = f"line {', '.join(without)}: {NO_RULE}" if without else NO_BRANCHES
        return GcPlan(tuple(Kept(ref, why) for ref in graph.refs.values()), (), why_all=why)
    return _GcPlanner(graph, branches, {name: found for name, found in rules.items() if found}).result()


@dataclass
class _GcPlanner:
    graph: VersionGraph
    branches: Mapping[str, Branch]
    rules: Mapping[str, RetentionConfig]
    why: dict[str, str] = field(default_factory=dict)
    """Why a version is kept, by name."""
    whole: dict[str, str] = field(default_factory=dict)
    """Why a model keeps its weights, by name."""

    def result(self) -> GcPlan:
        for name, branch in self.branches.items():
            self._keep_branch(name, branch)
        for name, branch in self.branches.items():
            self._keep_best(branch, self.rules[name].best)
        for name in list(self.why):
            self._keep_ancestors(name)
        gone = [name for name in self.graph.refs if name not in self.why]
        return GcPlan(
            kept=tuple(self._kept(name) for name in self.graph.refs if name in self.why),
            removed=tuple(Removed(self.graph.refs[name], self._bytes(name)) for name in self._children_first(gone)),
            rules=" · ".join(f"{name} {rule}" for name, rule in self.rules.items()),
        )

    def _keep_branch(self, name: str, branch: Branch) -> None:
        used = [*branch.versions, *branch.underway]
        there = [version for version in used if version in self.graph.refs]
        self.why |= {version: f"line {name} uses it" for version in there if version not in self.why}
        models = [version for version in there if version.startswith("models/")]
        end = max((self.graph.refs[model].iteration for model in models), default=0)
        for model in models:
            iteration, last = self.graph.refs[model].iteration, self.rules[name].last
            if not branch.is_complete:
                self._keep_weights(model, f"line {name} is not complete")
            elif iteration > end - last:
                self._keep_weights(model, f"one of the last {last} of line {name}" if last > 1 else f"line {name} ends")
            elif iteration == 0:
                self._keep_weights(model, "other configs start from it")

    def _keep_weights(self, model: str, why: str) -> None:
        self.whole.setdefault(model, why)

    def _keep_best(self, branch: Branch, count: int) -> None:
        """Keeps the most accurate models among those that were tested as the line's last one was."""
        ranked = sorted(
            _scores(self.graph, branch), key=lambda one: (-one[0], -self.graph.refs[one[1]].iteration, one[1])
        )
        for place, (accuracy, model, evaluation) in enumerate(ranked[:count], start=1):
            why = f"accuracy {accuracy:.3f}, number {place} of {len(ranked)}"
            self._keep_weights(model, why)
            for version in (model, evaluation):
                self.why.setdefault(version, why)

    def _keep_ancestors(self, name: str) -> None:
        waiting = [name]
        while waiting:
            child = waiting.pop()
            for parent in self.graph.manifests[child].parents:
                if parent in self.graph.refs and parent not in self.why:
                    self.why[parent] = f"{child} is made from it"
                    waiting.append(parent)

    def _kept(self, name: str) -> Kept:
        ref, manifest = self.graph.refs[name], self.graph.manifests[name]
        if ref.stage != "models" or name in self.whole:
            return Kept(ref, self.whole.get(name, self.why[name]))
        gone = self.graph.store.released(ref)
        parts = [part for part in manifest.parts if part.name.endswith(WEIGHTS) and part.name not in gone]
        return Kept(ref, self.why[name], tuple(part.name for part in parts), sum(part.bytes for part in parts))

    def _bytes(self, name: str) -> int:
        gone = self.graph.store.released(self.graph.refs[name])
        return sum(part.bytes for part in self.graph.manifests[name].parts if part.name not in gone)

    def _children_first(self, names: Sequence[str]) -> Iterator[str]:
        """The names in an order in which none comes after a version that it is made from."""
        left = dict.fromkeys(names)
        while left:
            needed = {parent for name in left for parent in self.graph.manifests[name].parents}
            free = [name for name in left if name not in needed]
            yield from free
            left = {name: None for name in left if name in needed}


def _scores(graph: VersionGraph, branch: Branch) -> Iterator[tuple[float, str, str]]:
    """Accuracy, model and evaluation of every model in the run that was asked what the line's last one was asked."""
    tested = [
        graph.manifests[name] for name in branch.versions if name.startswith("evaluations/") and name in graph.refs
    ]
    if not tested:
        return
    test = evaluation_key(max(tested, key=lambda one: one.iteration))
    for name, manifest in graph.manifests.items():
        accuracy = manifest.metrics.get("overall", {}).get("accuracy")
        if manifest.stage == "evaluations" and accuracy is not None and evaluation_key(manifest) == test:
            yield from ((accuracy, model, name) for model in manifest.parents_of("models") if model in graph.refs)


GONE = ".gone-"


def remove(store: Store, found: GcPlan) -> None:
    """Removes the versions and weights that were sorted out; call it below `store.lock()`, under which they were.

    Raises:
        RunLocked: somebody reads the run now; nothing was removed.
        StoreError: something cannot be written.
    """
    sweep(store.run_dir)
    if found.is_nothing:
        return
    with store.exclusive_access():
        for removed in found.removed:
            _hide(removed.ref)
        for kept in found.emptied:
            _note(kept, f"retention of {found.rules}, {utc_now()}")
    sweep(store.run_dir)


def leftovers(run_dir: Path) -> list[Path]:
    """What a removal that was killed has hidden or noted, and not deleted."""
    return [*_hidden(run_dir), *_released_but_there(run_dir)]


def sweep(run_dir: Path) -> list[Path]:
    """Deletes the leftovers of a run, and returns them; call it below the run's lock."""
    found = leftovers(run_dir)
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found


def _hide(ref: VersionRef) -> None:
    stage = ref.path.parent
    with exclusive(stage / ".lock", wait=True):  # no commit of this version meanwhile
        try:
            ref.path.rename(stage / f"{GONE}{ref.id}")
        except OSError as error:
            raise StoreError(f"cannot remove {ref.path}: {error.strerror}; what is left of the run is whole") from None
        sync(stage)  # on disk before a parent goes


def _note(kept: Kept, why: str) -> None:
    folder = kept.ref.path
    write_json(folder / RELEASED, released(folder) | dict.fromkeys(kept.weights, why))
    sync(folder)


def _hidden(run_dir: Path) -> Iterator[Path]:
    for stage in STAGES:
        yield from sorted(path for path in (run_dir / stage).glob(f"{GONE}*") if path.is_dir())


def _released_but_there(run_dir: Path) -> Iterator[Path]:
    for note in sorted((run_dir / "models").glob(f"*/{RELEASED}")):
        if VERSION_ID.fullmatch(note.parent.name):
            names = [name for name in released(note.parent) if name.endswith(WEIGHTS) and "/" not in name]
            yield from (path for name in names if (path := note.parent / name).is_file())
