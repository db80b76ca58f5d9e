"""The history of a model: the versions that led to it, iteration by iteration; versions of forks stay out.

Follows the parents that manifests name, from a model back to the first one. Reads manifests, no tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hir_core.store.graph import VersionGraph
from hir_core.store.version import VersionRef


@dataclass(frozen=True)
class Iteration:
    """The versions of one iteration, in the order of the loop; None where there is no such version, or not yet."""

    iteration: int
    samples: VersionRef | None = None
    rewards: VersionRef | None = None
    instructions: VersionRef | None = None
    triples: VersionRef | None = None
    model: VersionRef | None = None
    evaluations: tuple[VersionRef, ...] = ()
    """Those of the model, in the order in which they were committed."""

    @property
    def versions(self) -> tuple[VersionRef, ...]:
        """All versions of the iteration."""
        before_evaluation = (self.samples, self.rewards, self.instructions, self.triples, self.model)
        return (*(ref for ref in before_evaluation if ref is not None), *self.evaluations)


def history(graph: VersionGraph, last: VersionRef | None = None) -> list[Iteration]:
    """The iterations that led to a model, the first one first, then the next iteration as far as it has come.

    Args:
        graph: the run's versions.
        last: the model; None means the one committed last.
    """
    model = last or _newest(graph, (ref for ref in graph.refs.values() if ref.stage == "models"))
    iterations: list[Iteration] = []
    while model is not None:
        iterations.insert(0, _iteration_of_model(graph, model))
        model = next(iter(graph.parents(model, "models")), None)
    newest_model = iterations[-1].model if iterations else None

    def newest_child(parent: VersionRef | None, stage: str) -> VersionRef | None:
        return None if parent is None else _newest(graph, graph.children(parent, stage))

    samples = newest_child(newest_model, "samples")
    if samples is not None:
        rewards = newest_child(samples, "rewards")
        instructions, triples = newest_child(rewards, "instructions"), newest_child(rewards, "triples")
        iterations.append(Iteration(samples.iteration, samples, rewards, instructions, triples))
    return iterations


def prompts_of(graph: VersionGraph, iterations: Iterable[Iteration]) -> VersionRef | None:
    """The prompts that these iterations are made from; without iterations, the prompts committed last."""
    refs = (ref for iteration in iterations for ref in iteration.versions)
    parents = [prompts for ref in refs for prompts in graph.parents(ref, "prompts")]
    return parents[-1] if parents else _newest(graph, (ref for ref in graph.refs.values() if ref.stage == "prompts"))


def _iteration_of_model(graph: VersionGraph, model: VersionRef) -> Iteration:
    triples = next(iter(graph.parents(model, "triples")), None)

    def parent_of_triples(stage: str) -> VersionRef | None:
        # Triples may be made from the samples of earlier iterations as well; those belong to their own iteration.
        parents = [] if triples is None else graph.parents(triples, stage)
        return next((ref for ref in parents if ref.iteration == model.iteration), None)

    samples, rewards, instructions = map(parent_of_triples, ("samples", "rewards", "instructions"))
    evaluations = tuple(sorted(graph.children(model, "evaluations"), key=lambda ref: _commit_order(graph, ref)))
    return Iteration(model.iteration, samples, rewards, instructions, triples, model, evaluations)


def _newest(graph: VersionGraph, refs: Iterable[VersionRef]) -> VersionRef | None:
    return max(refs, key=lambda ref: _commit_order(graph, ref), default=None)


def _commit_order(graph: VersionGraph, ref: VersionRef) -> tuple[str, str]:
    return graph.manifests[str(ref)].created, ref.id
