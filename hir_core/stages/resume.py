"""The completed iterations of a config, found by look-ups alone: where a run continues.

Versions of other configs in the same run folder do not count. Reads manifests; writes nothing.
"""

from __future__ import annotations

import polars as pl

from hir_core.stages.identity import Scored
from hir_core.stages.run import Run
from hir_core.stages.train import Outputs
from hir_core.store.version import VersionRef


def last_completed_iteration(run: Run, prompts: pl.DataFrame) -> int | None:
    """The last iteration whose model this config has made and evaluated; None where it has not made the first.

    Args:
        run: its store is read; hold its lock where another process may write.
        prompts: the Prompts table that `stages.prompts.check` has read.
    """
    completed = completed_iterations(run, prompts)
    return completed[-1].model.iteration if completed else None


def completed_iterations(run: Run, prompts: pl.DataFrame) -> list[Outputs]:
    """The outputs of every iteration whose model this config has made and evaluated, in order.

    Arguments as for `last_completed_iteration`.
    """
    find, identities = run.store.find, run.identities
    prompts_version = find(identities.prompts(prompts))
    if prompts_version is None:
        return []
    warm, triples = run.config.warm_start, None
    if warm is not None:
        triples = find(identities.demonstrations(prompts_version, warm.demonstrations))
        if triples is None:
            return []
    completed: list[Outputs] = []
    scored: list[Scored] = []
    while not completed or triples is not None:
        model = find(run.model_identity(prompts_version, triples, completed[-1].model if completed else None))
        evaluation = model and find(identities.evaluation(prompts_version, str(model), model.iteration))
        if model is None or evaluation is None:
            break
        samples = find(identities.samples(prompts_version, str(model), model.iteration + 1))
        completed.append(Outputs(model, evaluation, samples))
        triples = _triples_from(run, prompts_version, samples, scored)
    return completed


def _triples_from(run: Run, prompts: VersionRef, samples: VersionRef | None, scored: list[Scored]) -> VersionRef | None:
    """The triples made from samples, which join `scored`; None where the loop has not come so far."""
    find, identities = run.store.find, run.identities
    rewards = samples and find(identities.rewards(prompts, samples))
    if samples is None or rewards is None:
        return None
    written = None
    if run.relabeler.instruction_model is not None:
        written = find(identities.instructions(prompts, samples, rewards))
        if written is None:
            return None
    scored.append(Scored(samples, rewards, written))
    return find(identities.triples(prompts, scored[-1 - run.config.select.replay :]))
