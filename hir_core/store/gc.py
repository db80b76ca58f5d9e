"""Garbage collection of a run (`hir gc`): a plan of what is kept and what is removed, and the removal itself.

Kept are the versions that a branch uses (so that the same config, run again, finds its work done), the most accurate
models with the evaluations that show it, and everything that these are made from. All other versions are removed: they
belong to forks that no branch uses any more.

A kept model may lose its weight files, which take most of a run's space; its config, tokenizer, manifest and
evaluations stay. It keeps its weights if a run may continue from it: in the last iterations of a branch, in iteration 0
(from which other configs start), in a branch that is not complete, and if it is among the most accurate. The whole
model that an adapter belongs to keeps its weights as long as the adapter does. The state of the optimizer goes with the
weights, or before them: where a kept model was trained from it, but for iteration 0.

Reads manifests and `branches.json`. Deletes versions and files of models, and records those files in a model's
`.released.json`. Raises VersionCorrupt, StoreError and RunLocked.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hir_core.config import RetentionConfig
from hir_core.errors import StoreError
from hir_core.store.adapters import base_name
from hir_core.store.branches import Branch, read_branches
from hir_core.store.files import sync, write_json
from hir_core.store.graph import VersionGraph
from hir_core.store.locks import exclusive
from hir_core.store.manifest import STAGES, VERSION_ID, Part, evaluation_key, utc_now
from hir_core.store.store import Store
from hir_core.store.version import RELEASED, VersionRef, is_optimizer_state, released

WEIGHTS = ".safetensors"
"""Ending of the files that are released, weights and the state of the optimizer; a model's config and tokenizer stay,
because they are small and describe it."""
GONE = ".gone-"
"""Beginning of the name of a version's folder between its removal from the run and its deletion from disk."""
NO_BRANCHES = "no run has recorded which versions it uses: run the config again, which records them without new work"
NO_RULE = "its config has no `retention`, so everything is kept"


@dataclass(frozen=True)
class Kept:
    """A version that stays in the run, and why."""

    ref: VersionRef
    why: str
    files: tuple[str, ...] = ()
    """Names of the files that a model loses: its weights, or the state of its optimizer only."""
    bytes: int = 0
    """Size of these files in bytes."""

    @property
    def loses_weights(self) -> bool:
        """Whether it can no longer be loaded."""
        return not all(map(is_optimizer_state, self.files))


@dataclass(frozen=True)
class Removed:
    """A version that is removed, and the size of its files in bytes."""

    ref: VersionRef
    bytes: int


@dataclass(frozen=True)
class GcPlan:
    """What garbage collection does with each version of a run."""

    kept: tuple[Kept, ...]
    removed: tuple[Removed, ...]
    """In the order of removal: every version before those that it is made from."""
    rules: str = ""
    """The retention rules of the branches, as text; empty if everything is kept because a rule is missing."""
    why_all: str = ""
    """Why everything is kept; empty if there are rules."""

    @property
    def released(self) -> tuple[Kept, ...]:
        """The models that lose files."""
        return tuple(kept for kept in self.kept if kept.files)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not self.removed and not self.released

    @property
    def bytes(self) -> int:
        """The space that the removal frees, in bytes."""
        return sum(removed.bytes for removed in self.removed) + sum(kept.bytes for kept in self.released)


# --- the plan --------------------------------------------------------------------------------------------------------


def plan_gc(store: Store, rule: RetentionConfig | None = None) -> GcPlan:
    """What is kept of a run and what is removed; changes nothing.

    Args:
        store: the run.
        rule: a retention rule for all branches, in place of their own.

    Raises:
        VersionCorrupt: a manifest is damaged, so it is unknown what its version is made from.
        StoreError: `branches.json` is damaged.
    """
    graph, branches = VersionGraph(store), read_branches(store.run_dir)
    rules = {name: rule or branch.retention for name, branch in branches.items()}
    without_rule = [name for name, branch_rule in rules.items() if branch_rule is None]
    if without_rule or not branches:
        why = f"branch {', '.join(without_rule)}: {NO_RULE}" if without_rule else NO_BRANCHES
        return GcPlan(tuple(Kept(ref, why) for ref in graph.refs.values()), (), why_all=why)
    return _Planner(graph, branches, {name: branch_rule for name, branch_rule in rules.items() if branch_rule}).plan()


@dataclass
class _Planner:
    """Collects reasons to keep versions and weights. Versions are named as `stage/id`; the first reason counts."""

    graph: VersionGraph
    branches: Mapping[str, Branch]
    rules: Mapping[str, RetentionConfig]
    reasons: dict[str, str] = field(default_factory=dict)
    """Why each kept version is kept."""
    weight_reasons: dict[str, str] = field(default_factory=dict)
    """Why each model that keeps its weights keeps them."""

    def plan(self) -> GcPlan:
        for name, branch in self.branches.items():
            self._keep_branch(name, branch)
        for name, branch in self.branches.items():
            self._keep_most_accurate(branch, self.rules[name].best)
        for model in list(self.weight_reasons):
            if base := base_name(self.graph.manifests[model]):
                self.weight_reasons.setdefault(base, f"{model} is an adapter of it")
        for version in list(self.reasons):
            self._keep_ancestors(version)
        refs = self.graph.refs
        unused = self._children_first([version for version in refs if version not in self.reasons])
        return GcPlan(
            kept=tuple(self._kept(version) for version in refs if version in self.reasons),
            removed=tuple(Removed(refs[version], _bytes(self._present_parts(version))) for version in unused),
            rules=" · ".join(f"{name} {rule}" for name, rule in self.rules.items()),
        )

    def _keep_branch(self, name: str, branch: Branch) -> None:
        """Keeps every version that a branch uses, and the weights from which a run on it may continue."""
        used = [version for version in (*branch.versions, *branch.underway) if version in self.graph.refs]
        for version in used:
            self.reasons.setdefault(version, f"branch {name} uses it")
        iterations = {version: self.graph.refs[version].iteration for version in used if version.startswith("models/")}
        end, last = max(iterations.values(), default=0), self.rules[name].last
        for model, iteration in iterations.items():
            if not branch.is_complete:
                self.weight_reasons.setdefault(model, f"branch {name} is not complete")
            elif iteration > end - last:
                why = f"one of the last {last} models of branch {name}" if last > 1 else f"last model of branch {name}"
                self.weight_reasons.setdefault(model, why)
            elif iteration == 0:
                self.weight_reasons.setdefault(model, "other configs start from it")

    def _keep_most_accurate(self, branch: Branch, count: int) -> None:
        """Keeps the `count` most accurate models of the run and their evaluations, whatever branch they are on.

        Accuracies are comparable only between evaluations of one kind: that of the branch's last evaluation counts.
        """
        manifests = self.graph.manifests
        own = [manifests[name] for name in branch.versions if name.startswith("evaluations/") and name in manifests]
        if not own:
            return
        key = evaluation_key(max(own, key=lambda manifest: manifest.iteration))
        tested: list[tuple[float, int, str, str]] = []
        for evaluation, manifest in manifests.items():
            accuracy = manifest.metrics.get("overall", {}).get("accuracy")
            if manifest.stage == "evaluations" and accuracy is not None and evaluation_key(manifest) == key:
                models = [name for name in manifest.parents_of("models") if name in self.graph.refs]
                tested += [(accuracy, self.graph.refs[model].iteration, model, evaluation) for model in models]
        tested.sort(key=lambda row: (-row[0], -row[1], row[2]))  # of equal accuracies the later iteration first
        for place, (accuracy, _, model, evaluation) in enumerate(tested[:count], start=1):
            why = f"accuracy {accuracy:.3f}, number {place} of {len(tested)}"
            self.weight_reasons.setdefault(model, why)
            for version in (model, evaluation):
                self.reasons.setdefault(version, why)

    def _keep_ancestors(self, version: str) -> None:
        """Keeps everything that a version is made from."""
        waiting = [version]
        while waiting:
            child = waiting.pop()
            for parent in self.graph.manifests[child].parents:
                if parent in self.graph.refs and parent not in self.reasons:
                    self.reasons[parent] = f"{child} is made from it"
                    waiting.append(parent)

    def _kept(self, version: str) -> Kept:
        ref, why = self.graph.refs[version], self.weight_reasons.get(version, self.reasons[version])
        if ref.stage != "models":
            return Kept(ref, why)
        is_trained_on = any(str(child) in self.reasons for child in self.graph.children(ref, "models"))
        parts = [part for part in self._present_parts(version) if part.name.endswith(WEIGHTS)]
        if version in self.weight_reasons:
            loses_state = is_trained_on and ref.iteration > 0
            parts = [part for part in parts if loses_state and is_optimizer_state(part.name)]
        return Kept(ref, why, tuple(part.name for part in parts), _bytes(parts))

    def _present_parts(self, version: str) -> list[Part]:
        """The files of a version that an earlier garbage collection has not released."""
        gone = self.graph.store.released(self.graph.refs[version])
        return [part for part in self.graph.manifests[version].parts if part.name not in gone]

    def _children_first(self, versions: Sequence[str]) -> Iterator[str]:
        """The versions in an order in which each comes before those that it is made from."""
        left = dict.fromkeys(versions)
        while left:
            needed = {parent for version in left for parent in self.graph.manifests[version].parents}
            yield from (version for version in left if version not in needed)
            left = {version: None for version in left if version in needed}


def _bytes(parts: Sequence[Part]) -> int:
    return sum(part.bytes for part in parts)


# --- the removal -----------------------------------------------------------------------------------------------------


def remove(store: Store, plan: GcPlan) -> None:
    """Removes what a plan says; call it while holding `store.lock()`, under which the plan must have been made.

    Versions are first renamed and weights first recorded as released, both synced to disk; only then are files deleted.
    A removal killed in between leaves a whole run, and `sweep` deletes the rest.

    Raises:
        RunLocked: another process is reading the run; nothing was removed.
        StoreError: a folder cannot be renamed, or a file cannot be written.
    """
    sweep(store.run_dir)
    if plan.is_empty:
        return
    with store.exclusive_access():
        for removed in plan.removed:
            _hide(removed.ref)
        for kept in plan.released:
            release_files(kept.ref, kept.files, f"retention of {plan.rules}, {utc_now()}")
    sweep(store.run_dir)


def release_files(ref: VersionRef, names: Sequence[str], why: str) -> None:
    """Records that files of a model are deleted; `sweep` then deletes them. Needs `store.exclusive_access()`.

    Raises:
        StoreError: the record cannot be written.
    """
    write_json(ref.path / RELEASED, released(ref.path) | dict.fromkeys(names, why))
    sync(ref.path)


def _hide(ref: VersionRef) -> None:
    """Renames a version's folder, so that it is no version any more."""
    stage_dir = ref.path.parent
    with exclusive(stage_dir / ".lock", wait=True):  # so that no other process commits this version meanwhile
        try:
            ref.path.rename(stage_dir / f"{GONE}{ref.id}")
        except OSError as error:
            raise StoreError(f"cannot remove {ref.path}: {error.strerror}; the rest of the run is intact") from None
        sync(stage_dir)  # on disk before one of its parents is removed


def leftovers(run_dir: Path) -> list[Path]:
    """What a killed removal has not deleted yet: renamed folders of versions, and weight files recorded as released.

    Raises:
        StoreError: a `.released.json` is damaged.
    """
    folders = [path for stage in STAGES for path in sorted((run_dir / stage).glob(f"{GONE}*")) if path.is_dir()]
    weights: list[Path] = []
    for record in sorted((run_dir / "models").glob(f"*/{RELEASED}")):
        if VERSION_ID.fullmatch(record.parent.name):
            names = [name for name in released(record.parent) if name.endswith(WEIGHTS) and "/" not in name]
            weights += [path for name in names if (path := record.parent / name).is_file()]
    return [*folders, *weights]


def sweep(run_dir: Path) -> list[Path]:
    """Deletes the leftovers of a run and returns them; call it while holding the run's lock."""
    paths = leftovers(run_dir)
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return paths
