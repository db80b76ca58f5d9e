"""Runs for tests of reports, written by hand: two iterations with fractions and nulls among their scores."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from finished_run import RIGHT, WRONG, commit, drawn, prompt, trained
from training_logs import optimizer_step

from hir_core.inspect.report import Report
from hir_core.stages.evaluation import summarise
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{7*7}}</style></svg>\u202e\x1b[31m\x00\u2066"
Row = dict[str, Any]
SCORES = {1: [1.0, 0.0, 0.25, None, 0.0, 0.0], 2: [1.0, 1.0, 0.25, 1.0, None, 0.0]}
"""Of p1, p2 and p3, two samples each."""
ITEMS = {
    **{f"p{n}": ("sums", f"1 + {n}?") for n in (1, 2, 3)},
    **{f"t{n:02}": ("sums", f"2 + {n}?") for n in range(12)},
    **{f"tw{n}": ("words", f"word {n}?") for n in range(2)},
}
"""Task and query of each prompt: train prompts of one task, test prompts of two."""
TESTED = {0: 3, 1: 5, 2: 9}
"""How many of twelve test prompts each model answers right."""
STEPS, LOSSES = {1: 3, 2: 147}, {1: 2.0, 2: 0.5}
"""Optimizer steps of each training, and the loss of its first one; that of step n is an n-th of it."""


def make_run(folder: Path) -> Store:
    """Two iterations with evaluations. One output is only ruled out; in the second iteration one is of the first."""
    store = Store(folder / "small")
    prompts = commit(store, "prompts", 0, [], [prompt(*item) for item in ITEMS.items()])
    model = trained(store, 0, [prompts])
    evaluated(store, 0, prompts, model)
    before: list[VersionRef] = []
    for iteration, scores in SCORES.items():
        rows = drawn(iteration, model)
        samples = commit(store, "samples", iteration, [prompts, model], rows, parts=2)
        rewards = commit(store, "rewards", iteration, [prompts, samples], judged(rows, scores), {"threshold": 1.0})
        kept = [triple(sample, score) for sample, score in zip(rows, scores, strict=True) if score is not None]
        kept[-1] |= {"weight": 0.0, "excluded_from": RIGHT, "removed": 0.75}
        old = [triple(drawn(1, model)[0], 1.0)] if before else []
        counts = {"rows_in": len(rows) + len(old), "rejected": {"not judged": 1}}
        config = {"relabel": {"instructions": {"correct": RIGHT, "wrong": WRONG}}}
        parents = [prompts, *before, samples, rewards]
        drawn_before = [store.table(ref) for ref in parents if ref.stage == "samples"]
        judged_before = [store.table(ref) for ref in parents if ref.stage == "rewards"]
        relabeled = pl.DataFrame([*kept, *old]).select("sample_id", "weight", "removed")
        metrics = output_metrics(pl.concat(drawn_before), pl.concat(judged_before), relabeled)
        triples = commit(store, "triples", iteration, parents, [*kept, *old], config, metrics=metrics, **counts)
        before = [samples, rewards]
        steps = [optimizer_step(n, loss=LOSSES[iteration] / n) for n in range(1, STEPS[iteration] + 1)]
        made = {"loss": 2.0 - iteration, "steps": STEPS[iteration], "step_seconds": 1.5, "peak_bytes": 2e9}
        model = trained(store, iteration, [model, triples], steps, **made)
        evaluated(store, iteration, prompts, model)
    return store


def output_metrics(samples: pl.LazyFrame, rewards: pl.LazyFrame, triples: pl.DataFrame) -> dict[str, float]:
    """How many distinct outputs were judged, and the share of them with a sample that is in the triples."""
    by_sample = samples.join(rewards.filter(pl.col("outcome") != "not_judged"), on="sample_id", how="semi")
    is_used = pl.col("sample_id").is_in(triples["sample_id"].to_list()).any()
    by_output = by_sample.group_by("prompt_id", "completion_ids").agg(is_used=is_used).collect()
    return {"judged_outputs": by_output.height, "outputs_with_gradient": by_output["is_used"].mean()}


def judged(samples: Sequence[Row], scores: Sequence[float | None]) -> list[Row]:
    return [
        {
            "sample_id": sample["sample_id"],
            "reward": "r",
            "outcome": "not_judged" if score is None else "scored",
            "score": score,
            "reason": "",
            "parts": [],
        }
        for sample, score in zip(samples, scores, strict=True)
    ]


def triple(sample: Row, score: float) -> Row:
    return {
        "triple_id": f"t-{sample['sample_id']}",
        "prompt_id": sample["prompt_id"],
        "sample_id": sample["sample_id"],
        "relabeler": "hindsight",
        "instruction": RIGHT if score >= 1 else WRONG,
        "contrast": [],
        "query": "q?",
        "output": sample["completion"],
        "prefix_ids": [],
        "target_ids": sample["completion_ids"],
        "ends": True,
        "weight": 1.0,
        "excluded_from": None,
        "removed": 0.0,
        "probability": 0.25,
    }


def evaluated(
    store: Store, iteration: int, prompts: VersionRef, model: VersionRef, config: Row | None = None
) -> VersionRef:
    rows = [
        {
            "prompt_id": f"t{n:02}",
            "model": str(model),
            "task": "sums",
            "instruction": RIGHT,
            "completion": str(n * iteration),
            "finish_reason": "eos" if n else "length",
            "outcome": "scored",
            "score": float(n < TESTED.get(iteration, 10)),
        }
        for n in range(12)
    ]
    rows += [rows[1] | {"prompt_id": f"tw{n}", "task": "words", "score": float(iteration > n)} for n in range(2)]
    parts = pl.lit([], pl.List(pl.Struct({"name": pl.String, "score": pl.Float64})))
    metrics = summarise(pl.DataFrame(rows).with_columns(parts=parts), store.table(prompts).collect())
    return commit(
        store, "evaluations", iteration, [prompts, model], rows, config or {"threshold": 1.0}, metrics=metrics
    )


def attacked_run(folder: Path) -> Store:
    """A run whose texts all are an attack, two of them of ten megabytes."""
    store = Store(folder / "x<script>alert(1)<")
    long = ATTACK * (10_000_000 // len(ATTACK))
    prompts = commit(store, "prompts", 0, [], [prompt(f"p{n}", (ATTACK, ATTACK)) for n in (1, 2, 3)])
    model = trained(store, 0, [prompts])
    rows = [row | {"completion": ATTACK if n else long, "instruction": ATTACK} for n, row in enumerate(drawn(1, model))]
    samples = commit(store, "samples", 1, [prompts, model], rows)
    scored = [row | {"reason": ATTACK} for row in judged(rows, [1.0, 0.0, 0.0, None, None, 0.0])]
    scored[0]["reason"] = long
    config = {"threshold": 1.0, "lone": "\ud800 \udfff" + ATTACK}
    reasons = {"unscored_reasons": {ATTACK: 2}, "attributes": {ATTACK: {"mean": 0.5, "judged": 3}}}
    rewards = commit(store, "rewards", 1, [prompts, samples], scored, config, metrics=reasons)
    kept = [triple(row, 0.0) | {"instruction": ATTACK, "query": ATTACK} for row in rows[:3]]
    settings = {"relabel": {"instructions": {ATTACK: ATTACK}}}
    commit(store, "triples", 1, [prompts, samples, rewards], kept, settings, rows_in=6, rejected={ATTACK: 3})
    return store


def with_more_iterations(report: Report, last: int) -> Report:
    """A report that repeats its last iteration, with its versions, up to the iteration `last`."""
    iteration = report.iterations[-1]
    versions = [version for version in report.versions if version.iteration == iteration.iteration]
    numbers = range(iteration.iteration + 1, last + 1)
    iterations = [replace(iteration, iteration=n) for n in numbers]
    more = [
        replace(version, iteration=n, version=version.version.replace(f"/{iteration.iteration:04}-", f"/{n:04}-"))
        for n in numbers
        for version in versions
    ]
    return replace(report, iterations=(*report.iterations, *iterations), versions=(*report.versions, *more))
