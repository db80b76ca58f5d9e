"""How far a config has come in its run: by look-ups only, so a run that goes on by n iterations knows from where.

Versions of other configs in the same run, its forks, do not count. Reads manifests; writes nothing.
"""

from __future__ import annotations

import polars as pl

from hir_core.identities import Scored
from hir_core.sections import LearnedRelabel
from hir_core.stages import Run
from hir_core.versions import StageRef


def reached(run: Run, prompts: pl.DataFrame) -> int | None:
    """The last iteration whose model this config has made and evaluated; None where it has not made the first.

    Args:
        run: whose store is looked into; hold its lock where another process may write.
        prompts: its prompts, as `Run.check` returns them.
    """
    asked = run.store.find(run.identities.prompts(prompts))
    if asked is None:
        return None
    warm, triples = run.config.warm_start, None
    if warm is not None:
        triples = run.store.find(run.identities.demonstrations(asked, warm.demonstrations))
        if triples is None:
            return None
    last, before = None, None
    scored: list[Scored] = []
    while before is None or triples is not None:
        model = run.store.find(run.identities.model(asked, triples, before))
        if model is None or not _is_evaluated(run, asked, model):
            break
        last, before = model.iteration, model
        triples = _triples_from(run, asked, model, scored)
    return last


def _is_evaluated(run: Run, prompts: StageRef, model: StageRef) -> bool:
    return run.store.find(run.identities.evaluation(prompts, str(model), model.iteration)) is not None


def _triples_from(run: Run, prompts: StageRef, model: StageRef, scored: list[Scored]) -> StageRef | None:
    """The triples made from what a model drew, which joins `scored`; None where the loop has not come so far."""
    find, named = run.store.find, run.identities
    samples = find(named.samples(prompts, str(model), model.iteration + 1))
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
