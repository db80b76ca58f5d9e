"""The course of a run: the versions that led to one model, round by round; forks that lie beside them stay out.

Follows the parents that manifests name, from a model back to the first. Reads manifests; leaves tables to others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hir_core.store.graph import VersionGraph
from hir_core.store.version import VersionRef


@dataclass(frozen=True)
class Iteration:
    """What one iteration is made of, in the order of the loop; None where there is no such version, or not yet."""

    iteration: int
    samples: VersionRef | None = None
    rewards: VersionRef | None = None
    instructions: VersionRef | None = None
    triples: VersionRef | None = None
    model: VersionRef | None = None
    evaluations: tuple[VersionRef, ...] = ()
    """Of the model, the one committed last at the end."""

    @property
    def versions(self) -> tuple[VersionRef, ...]:
        """All that there are."""
        made = (self.samples, self.rewards, self.instructions, self.triples, self.model)
        return (*(ref for ref in made if ref is not None), *self.evaluations)


def history(graph: VersionGraph, last: VersionRef | None = None) -> list[Iteration]:
    """The rounds that led to a model, the first one first, and what of the next round is there already.

    Args:
        kin: the run's versions.
        last: the model; None means the one committed last.
    """
    models = [ref for ref in graph.refs.values() if ref.stage == "models"]
    model = last or _newest(graph, models)
    rounds: list[Iteration] = []
    while model is not None:
        rounds.insert(0, _round(graph, model))
        model = next(iter(graph.parents(model, "models")), None)
    return [*rounds, *_begun(graph, rounds[-1].model if rounds else None)]


def prompts_of(graph: VersionGraph, rounds: Iterable[Iteration]) -> VersionRef | None:
    """The prompts that the rounds ask; without rounds, the prompts committed last."""
    named = [ref for one in rounds for made in one.versions for ref in graph.parents(made, "prompts")]
    return named[-1] if named else _newest(graph, (ref for ref in graph.refs.values() if ref.stage == "prompts"))


def _round(graph: VersionGraph, model: VersionRef) -> Iteration:
    triples = next(iter(graph.parents(model, "triples")), None)
    # Triples may be made from the samples of earlier rounds as well, which belong to those.

    def own(stage: str) -> VersionRef | None:
        found = [] if triples is None else graph.parents(triples, stage)
        return next((ref for ref in found if ref.iteration == model.iteration), None)

    evaluations = tuple(sorted(graph.children(model, "evaluations"), key=lambda ref: _age(graph, ref)))
    return Iteration(model.iteration, own("samples"), own("rewards"), own("instructions"), triples, model, evaluations)


def _begun(graph: VersionGraph, model: VersionRef | None) -> Iterator[Iteration]:
    """The round after the last model, as far as it has come."""
    samples = None if model is None else _newest(graph, graph.children(model, "samples"))
    if samples is None:
        return
    rewards = _newest(graph, graph.children(samples, "rewards"))

    def made(stage: str) -> VersionRef | None:
        return None if rewards is None else _newest(graph, graph.children(rewards, stage))

    yield Iteration(samples.iteration, samples, rewards, made("instructions"), made("triples"))


def _newest(graph: VersionGraph, refs: Iterable[VersionRef]) -> VersionRef | None:
    return max(refs, key=lambda ref: _age(graph, ref), default=None)


def _age(graph: VersionGraph, ref: VersionRef) -> tuple[str, str]:
    return graph.manifests[str(ref)].created, ref.id
