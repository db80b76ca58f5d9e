"""What a report says of a run, in figures: one round after the other, from manifests and tables alone.

Reads the versions that led to one model (see `history`), tables verified and only the columns that it needs. A column
that a table does not have counts as null, a measurement that a manifest does not have as None. Leaves drawing to
`flows`, rows worth reading to `picking`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hir_core.inspect.diagnostics import distinguishes_instructions
from hir_core.inspect.examples import clip, examples
from hir_core.inspect.history import Iteration, history, prompts_of
from hir_core.inspect.rows import columns_of
from hir_core.inspect.stats import Bin, bins, histogram, lengths, scores
from hir_core.store.graph import VersionGraph
from hir_core.store.manifest import OTHER, Manifest, evaluation_key, value_counts
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

if TYPE_CHECKING:
    from hir_core.store.store import Store
    from hir_core.store.version import VersionRef


def page_path(store: Store) -> Path:
    """Where the page of a run lies."""
    return store.run_dir / "report.html"


Facts = dict[str, Any]
INSTRUCTIONS_KEPT = 5
TIMES = ("seconds", "step_seconds", "tokens", "tokens_per_s", "peak_bytes")
LOSSES = ("loss", "supervised", "contrastive", "entropy", "grad_norm", "logprob_gap", "steps", "target_tokens")


def report(store: Store, last: VersionRef | None = None) -> Facts:
    """The figures of a run up to one model, as plain JSON values.

    Args:
        store: the run.
        last: the model; None means the one committed last.

    Returns:
        `run`, `model`: what the report is of; `began`, `ended`: when the first and the last version was committed;
        `prompts`: how many train and test prompts each task has; `rounds`: of each iteration its `versions`, and what
        is known of its `samples`, `rewards`, `triples`, `model` and `evaluation`, each None where there is none;
        `score_bins`: what the bars of every round's scores mean; `further`: evaluations of other kinds;
        `answers`: how many answers to the run's own tasks changed from the first to the last evaluation;
        `examples`: rows worth reading; `versions`: all, in the order of the loop; `forks`:
        models beside this history.

    Raises:
        VersionCorrupt: a version is damaged.
    """
    graph = VersionGraph(store)
    rounds = history(graph, last)
    prompts = prompts_of(graph, rounds)
    usual = _usual(graph, rounds)
    scored = {one.iteration: _scores(store, one) for one in rounds if one.rewards is not None}
    bars = bins(value for table in scored.values() for value in table["score"].drop_nulls().to_list())
    tested = [ref for one in rounds for ref in one.evaluations if evaluation_key(graph.manifests[str(ref)]) == usual]
    refs = [*([] if prompts is None else [prompts]), *(ref for one in rounds for ref in one.versions)]
    times = sorted(graph.manifests[str(ref)].created for ref in refs)
    models = [one.model for one in rounds if one.model is not None]
    return {
        "run": store.run_dir.resolve().name,
        "model": str(models[-1]) if models else None,
        "began": times[0] if times else None,
        "ended": times[-1] if times else None,
        "prompts": None if prompts is None else _prompts(store, prompts),
        "score_bins": [list(bar) for bar in bars],
        "rounds": [_round(graph, one, scored.get(one.iteration), bars, usual) for one in rounds],
        "further": _further(graph, rounds, usual),
        "answers": _answers(graph, tested),
        "picks": examples(graph, rounds, tested),
        "versions": [_version(ref, graph.manifests[str(ref)]) for ref in refs],
        "forks": [name for name, ref in graph.refs.items() if ref.stage == "models" and ref not in models],
    }


def seconds_between(a: str, b: str) -> float:
    """Seconds from one manifest's time to another's."""
    return (datetime.fromisoformat(b) - datetime.fromisoformat(a)).total_seconds()


# --- rounds ----------------------------------------------------------------------------------------------------------


def _round(
    graph: VersionGraph, one: Iteration, scored: pl.DataFrame | None, bars: Sequence[Bin], usual: str | None
) -> Facts:
    evaluation = _last([ref for ref in one.evaluations if evaluation_key(graph.manifests[str(ref)]) == usual])
    return {
        "iteration": one.iteration,
        "versions": [str(ref) for ref in one.versions],
        "samples": None if one.samples is None else _samples(graph, one.samples, scored),
        "rewards": None if one.rewards is None or scored is None else _rewards(graph, one.rewards, scored, bars),
        "triples": None if one.triples is None else _triples(graph, one.triples, one.samples),
        "model": None if one.model is None else _model(graph, one.model),
        "evaluation": None if evaluation is None else _evaluation(graph, evaluation),
    }


def _samples(graph: VersionGraph, ref: VersionRef, scored: pl.DataFrame | None) -> Facts:
    table = columns_of(graph.store, ref, ["prompt_id", "completion", "completion_ids", "finish_reason"])
    distinct = table.select("prompt_id", pl.col("completion").hash()).unique().height
    return {
        "version": str(ref),
        "rows": table.height,
        "prompts": table["prompt_id"].n_unique(),
        "mixed_prompts": None if scored is None else _mixed(scored),
        "distinct": distinct,
        "finish_reasons": value_counts(table["finish_reason"]),
        "tokens_each": lengths(table["completion_ids"]),
        **_measured(graph.manifests[str(ref)].metrics),
    }


def _mixed(scored: pl.DataFrame) -> int:
    """Prompts of which some samples are right and some are not: only these tell outputs of one prompt apart."""
    right = scored.group_by("prompt_id").agg(some=pl.col("right").any(), every=pl.col("right").all())
    return int((right["some"] & ~right["every"]).sum())


def _scores(store: Store, one: Iteration) -> pl.DataFrame:
    """What each sample of a round scores, of which prompt it is, and whether it is right."""
    assert one.rewards is not None
    judged = columns_of(store, one.rewards, ["sample_id", "score"])
    threshold = store.manifest(one.rewards).config.get("threshold", 1.0)
    judged = judged.with_columns(right=(pl.col("score") >= threshold).fill_null(value=False))
    if one.samples is None:
        return judged.with_columns(prompt_id=pl.lit(None, dtype=pl.String))
    return judged.join(columns_of(store, one.samples, ["sample_id", "prompt_id"]), on="sample_id", how="left")


def _rewards(graph: VersionGraph, ref: VersionRef, scored: pl.DataFrame, bars: Sequence[Bin]) -> Facts:
    manifest = graph.manifests[str(ref)]
    found = scores(scored["score"], manifest.config.get("threshold", 1.0))
    counted = histogram(scored["score"].drop_nulls().to_list(), bars)
    return {
        "version": str(ref),
        "rows": scored.height,
        "right": int(scored["right"].sum()),
        **found,
        "histogram": [bar["rows"] for bar in counted],
        "not_judged_reasons": manifest.metrics.get("not_judged_reasons", {}),
        "attributes": manifest.metrics.get("attributes", {}),
    }


def _triples(graph: VersionGraph, ref: VersionRef, samples: VersionRef | None) -> Facts:
    manifest, table = graph.manifests[str(ref)], columns_of(graph.store, ref, ["sample_id", "instruction", "weight"])
    trained = table.filter(pl.col("weight").fill_null(1.0) > 0)["sample_id"].drop_nulls().unique()
    own = None if samples is None else columns_of(graph.store, samples, ["sample_id"])["sample_id"]
    return {
        "version": str(ref),
        "rows": table.height,
        "rows_in": manifest.rows_in,
        "rejected": dict(manifest.rejected),
        "instructions": _instructions(graph, ref, table),
        "samples": None if own is None else own.len(),
        "samples_trained": None if own is None else int(own.is_in(trained.implode()).sum()),
    }


def _instructions(graph: VersionGraph, made: VersionRef, table: pl.DataFrame) -> list[Facts]:
    """The most frequent instructions, others together, and how many of each one's outputs are right."""
    right: set[str] = set()
    for ref in graph.parents(made, "rewards"):
        threshold = graph.manifests[str(ref)].config.get("threshold", 1.0)
        judged = columns_of(graph.store, ref, ["sample_id", "score"])
        right |= set(judged.filter(pl.col("score") >= threshold)["sample_id"])
    config = graph.manifests[str(made)].config
    names = {text: name for name, text in config.get("relabel", {}).get("instructions", {}).items()}
    kept = value_counts(table["instruction"], INSTRUCTIONS_KEPT)
    told = pl.col("instruction").is_in([text for text in kept if text in set(table["instruction"])])
    group = pl.when(told).then("instruction").otherwise(pl.lit(OTHER)).alias("instruction")
    rows = table.select(group, right=pl.col("sample_id").is_in(list(right)).fill_null(value=False))
    counts = rows.group_by("instruction").agg(rows=pl.len(), right=pl.col("right").sum())
    counts = counts.sort("rows", "instruction", descending=[True, False])
    return [{**facts, "instruction": clip(facts["instruction"]), "name": names.get(facts["instruction"])}
            for facts in counts.to_dicts()]  # fmt: skip


def _model(graph: VersionGraph, ref: VersionRef) -> Facts:
    metrics, triples = graph.manifests[str(ref)].metrics, graph.parents(ref, "triples")
    return {
        "version": str(ref),
        **{name: metrics.get(name) for name in LOSSES},
        **_measured(metrics),
        "save": metrics.get("save", {}),
        "made_with": metrics.get("save", {}).get("made_with", {}),
        "tells_apart": next(
            (distinguishes_instructions(graph.manifests[str(ref)], graph.manifests[str(one)]) for one in triples), None
        ),
    }


def _evaluation(graph: VersionGraph, ref: VersionRef) -> Facts:
    metrics = graph.manifests[str(ref)].metrics
    table = columns_of(graph.store, ref, ["prompt_id", "finish_reason"])
    return {
        "version": str(ref),
        "rows": table.height,
        "overall": metrics.get("overall", {}),
        "tasks": metrics.get("tasks", {}),
        "finish_reasons": value_counts(table["finish_reason"]),
        **_measured(metrics),
    }


def _measured(metrics: Facts) -> Facts:
    return {name: metrics.get(name) for name in TIMES}


# --- evaluations -----------------------------------------------------------------------------------------------------


def _usual(graph: VersionGraph, rounds: Iterable[Iteration]) -> str | None:
    """The kind of evaluation that most models have; of several, the one that was committed first."""
    kinds = Counter(
        kind
        for one in rounds
        for kind in dict.fromkeys(evaluation_key(graph.manifests[str(ref)]) for ref in one.evaluations)
    )
    return max(kinds, key=lambda kind: kinds[kind], default=None)


def _further(graph: VersionGraph, rounds: Sequence[Iteration], usual: str | None) -> list[Facts]:
    """The other kinds, with a point for each model that has one."""
    found = [(one.iteration, ref) for one in rounds for ref in one.evaluations]
    kinds = dict.fromkeys(evaluation_key(graph.manifests[str(ref)]) for _, ref in found)
    return [
        {
            "config": graph.manifests[
                str(next(ref for _, ref in found if evaluation_key(graph.manifests[str(ref)]) == kind))
            ].config,
            "points": [
                {"iteration": n, **_evaluation(graph, ref)}
                for n, ref in found
                if evaluation_key(graph.manifests[str(ref)]) == kind
            ],
        }
        for kind in kinds
        if kind != usual
    ]


def _answers(graph: VersionGraph, tested: Sequence[VersionRef]) -> Facts | None:
    """How the answers to the run's own test prompts changed from the first to the last evaluation."""
    if len(tested) < 2:
        return None
    first, last = (_right(graph, ref) for ref in (tested[0], tested[-1]))
    both = first.join(last, on="prompt_id", suffix="_now")
    counts = Counter(both.select("right", "right_now").iter_rows())
    names = {(False, True): "became_right", (True, False): "became_wrong", (True, True): "stayed_right"}
    return {name: counts[key] for key, name in names.items()} | {"stayed_wrong": counts[False, False]}


def _right(graph: VersionGraph, ref: VersionRef) -> pl.DataFrame:
    manifest = graph.manifests[str(ref)]
    own = manifest.metrics.get("overall", {}).get("tasks")
    table = columns_of(graph.store, ref, ["prompt_id", "task", "score"])
    table = table if own is None else table.filter(pl.col("task").is_in(own))
    right = pl.col("score") >= manifest.config.get("threshold", 1.0)
    return table.select("prompt_id", right=right.fill_null(value=False))


# --- versions --------------------------------------------------------------------------------------------------------


def _prompts(store: Store, ref: VersionRef) -> Facts:
    table = columns_of(store, ref, ["prompt_id", "task", "split"])
    counts = table.group_by("task", "split").len().sort("task", "split")
    tasks: dict[str, Facts] = {}
    for task, split, rows in counts.iter_rows():
        tasks.setdefault(clip(task or "?"), {})[split] = rows
    return {"version": str(ref), "rows": table.height, "tasks": tasks}


def _version(ref: VersionRef, manifest: Manifest) -> Facts:
    return {
        "version": str(ref),
        "stage": ref.stage,
        "iteration": ref.iteration,
        "rows": manifest.rows,
        "rejected": sum(manifest.rejected.values()),
        "bytes": sum(part.bytes for part in manifest.parts),
        "created": manifest.created,
        "code_version": manifest.code_version,
        "parents": list(manifest.parents),
        # What decides prompts is their digest; where they came from is what a person calls their settings.
        "config": {**manifest.config, **(manifest.metrics if ref.stage == "prompts" else {})},
    }


def _last(refs: Sequence[VersionRef]) -> VersionRef | None:
    return refs[-1] if refs else None


def each(rounds: Sequence[Facts], stage: str) -> Iterator[tuple[int, Facts]]:
    """The rounds that have this stage, by iteration."""
    return ((one["iteration"], one[stage]) for one in rounds if one[stage])
