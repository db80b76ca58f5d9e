"""What a config has made of its run so far: by look-ups only, so a run goes on from there, or is left as it is.

Versions of other configs in the same run, its forks, do not count. Reads manifests; writes nothing.
"""

from __future__ import annotations

import polars as pl

from hir_core.config import LearnedRelabel
from hir_core.stages.identity import Scored
from hir_core.stages.run import Outputs, Run
from hir_core.store.version import VersionRef


def last_completed_iteration(run: Run, prompts: pl.DataFrame) -> int | None:
    """The last iteration whose model this config has made and evaluated; None where it has not made the first.

    Args:
        run: whose store is looked into; hold its lock where another process may write.
        prompts: its prompts, as `Run.check` returns them.
    """
    made = completed_iterations(run, prompts)
    return made[-1].model.iteration if made else None


def completed_iterations(run: Run, prompts: pl.DataFrame) -> list[Outputs]:
    """Every model that this config has made and evaluated, and what the model drew for the iteration after.

    Arguments as for `last_completed_iteration`.
    """
    asked = run.store.find(run.identities.prompts(prompts))
    if asked is None:
        return []
    warm, triples = run.config.warm_start, None
    if warm is not None:
        triples = run.store.find(run.identities.demonstrations(asked, warm.demonstrations))
        if triples is None:
            return []
    made: list[Outputs] = []
    scored: list[Scored] = []
    while not made or triples is not None:
        outputs = _outputs(run, asked, triples, made[-1].model if made else None)
        if outputs is None:
            break
        made.append(outputs)
        triples = _triples_from(run, asked, outputs, scored)
    return made


def _outputs(
    run: Run, prompts: VersionRef, triples: VersionRef | None, previous_model: VersionRef | None
) -> Outputs | None:
    find, named = run.store.find, run.identities
    model = find(named.model(prompts, triples, previous_model))
    evaluation = model and find(named.evaluation(prompts, str(model), model.iteration))
    if model is None or evaluation is None:
        return None
    return Outputs(model, evaluation, find(named.samples(prompts, str(model), model.iteration + 1)))


def _triples_from(run: Run, prompts: VersionRef, outputs: Outputs, scored: list[Scored]) -> VersionRef | None:
    """The triples made from what a model drew, which joins `scored`; None where the loop has not come so far."""
    find, named, samples = run.store.find, run.identities, outputs.samples
    rewards = samples and find(named.rewards(prompts, samples))
    if samples is None or rewards is None:
        return None
    written = None
    if isinstance(run.config.relabel, LearnedRelabel):
        written = find(named.instructions(prompts, samples, rewards))
        if written is None:
            return None
    scored.append(Scored(samples, rewards, written))
    return find(named.triples(prompts, scored[-1 - run.config.select.replay :]))
