"""The course of a run: the versions that led to one model, round by round; forks that lie beside them stay out.

Follows the parents that manifests name, from a model back to the first. Reads manifests; leaves tables to others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hir_core.store.graph import Kin
from hir_core.store.version import StageRef


@dataclass(frozen=True)
class Round:
    """What one iteration is made of, in the order of the loop; None where there is no such version, or not yet."""

    iteration: int
    samples: StageRef | None = None
    rewards: StageRef | None = None
    instructions: StageRef | None = None
    triples: StageRef | None = None
    model: StageRef | None = None
    evaluations: tuple[StageRef, ...] = ()
    """Of the model, the one committed last at the end."""

    @property
    def versions(self) -> tuple[StageRef, ...]:
        """All that there are."""
        made = (self.samples, self.rewards, self.instructions, self.triples, self.model)
        return (*(ref for ref in made if ref is not None), *self.evaluations)


def course(kin: Kin, last: StageRef | None = None) -> list[Round]:
    """The rounds that led to a model, the first one first, and what of the next round is there already.

    Args:
        kin: the run's versions.
        last: the model; None means the one committed last.
    """
    models = [ref for ref in kin.refs.values() if ref.stage == "models"]
    model = last or _newest(kin, models)
    rounds: list[Round] = []
    while model is not None:
        rounds.insert(0, _round(kin, model))
        model = next(iter(kin.parents(model, "models")), None)
    return [*rounds, *_begun(kin, rounds[-1].model if rounds else None)]


def prompts_of(kin: Kin, rounds: Iterable[Round]) -> StageRef | None:
    """The prompts that the rounds ask; without rounds, the prompts committed last."""
    named = [ref for one in rounds for made in one.versions for ref in kin.parents(made, "prompts")]
    return named[-1] if named else _newest(kin, (ref for ref in kin.refs.values() if ref.stage == "prompts"))


def _round(kin: Kin, model: StageRef) -> Round:
    triples = next(iter(kin.parents(model, "triples")), None)
    # Triples may be made from the samples of earlier rounds as well, which belong to those.

    def own(stage: str) -> StageRef | None:
        found = [] if triples is None else kin.parents(triples, stage)
        return next((ref for ref in found if ref.iteration == model.iteration), None)

    evaluations = tuple(sorted(kin.children(model, "evaluations"), key=lambda ref: _age(kin, ref)))
    return Round(model.iteration, own("samples"), own("rewards"), own("instructions"), triples, model, evaluations)


def _begun(kin: Kin, model: StageRef | None) -> Iterator[Round]:
    """The round after the last model, as far as it has come."""
    samples = None if model is None else _newest(kin, kin.children(model, "samples"))
    if samples is None:
        return
    rewards = _newest(kin, kin.children(samples, "rewards"))

    def made(stage: str) -> StageRef | None:
        return None if rewards is None else _newest(kin, kin.children(rewards, stage))

    yield Round(samples.iteration, samples, rewards, made("instructions"), made("triples"))


def _newest(kin: Kin, refs: Iterable[StageRef]) -> StageRef | None:
    return max(refs, key=lambda ref: _age(kin, ref), default=None)


def _age(kin: Kin, ref: StageRef) -> tuple[str, str]:
    return kin.manifests[str(ref)].created, ref.id
