"""Where a row comes from, and what became of it: from the parents that manifests name and the keys that rows carry.

A prompt, a sample or a triple is found by its key; from there up to the prompt and the model that wrote, and down to
scores, triples and the models that were trained on them. Reads manifests and, verified, tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import polars as pl

from hir_core.errors import VersionNotFound
from hir_core.store.graph import Facts, VersionGraph
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

KEYS = {"prompts": "prompt_id", "samples": "sample_id", "triples": "triple_id"}
"""The tables that a key may name a row of, in the order in which they are looked into."""
CANDIDATES_SHOWN = 5


class Found(NamedTuple):
    """A row by its key, in the last version that holds it."""

    version: VersionRef
    row: Facts


def find_row(store: Store, text: str) -> Found:
    """The prompt, sample or triple that a person means by its key, or by the first digits of it.

    Raises:
        VersionNotFound: no row has this key, or several begin with it.
    """
    held = [(ref, keys) for ref in _keyed(store) if (keys := _keys_like(store, ref, text))]
    names = sorted({name for _, keys in held for name in keys})
    key = text if text in names else names[0] if len(names) == 1 else None
    if key is None:
        raise VersionNotFound(_no_such_row(store, text, names))
    stage = next(ref.stage for ref, keys in held if key in keys)
    ref = [ref for ref, keys in held if ref.stage == stage and key in keys][-1]
    (row,) = store.table(ref).filter(pl.col(KEYS[stage]) == key).collect().to_dicts()
    return Found(ref, row)


def row_history(store: Store, text: str, iteration: int | None = None) -> Facts:
    """A prompt with all that was sampled of it, what was said of that, and what it became; plain JSON values.

    Args:
        store: the run.
        text: the key of a prompt; or of a sample or a triple, which leaves only this sample of the prompt.
        iteration: leaves only the samples, evaluations and demonstrations of one iteration.

    Returns:
        `prompt`, its row and `version`; `samples`, rows with `version`, `iteration`, and the rows made from each as
        `rewards`, `instructions` and `triples` (of a version of triples that left the sample out, only `version`);
        `demonstrations`, the triples that nobody sampled; `evaluations`.

    Raises:
        VersionNotFound: no row has this key, or several begin with it.
        VersionCorrupt: a version of the run is damaged.
    """
    return _row_history(*find_row(store, text), VersionGraph(store), iteration)


def _row_history(version: VersionRef, row: Facts, graph: VersionGraph, iteration: int | None = None) -> Facts:
    drawn, shown, answered = _meant(version.stage, row)
    asked = [ref for ref in graph.refs.values() if iteration in (None, ref.iteration)]
    return {
        "run": graph.store.run_dir.resolve().name,
        "stage": version.stage,
        "key": row[KEYS[version.stage]],
        "prompt": _prompt(graph, row["prompt_id"]),
        "samples": [one for ref in _of(asked, "samples") for one in _samples(graph, ref, drawn)],
        "demonstrations": [one for ref in _of(asked, "triples") for one in graph.rows(ref, shown)],
        "evaluations": [one for ref in _of(asked, "evaluations") for one in graph.rows(ref, answered)],
    }


def _meant(stage: str, row: Facts) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """Which samples, demonstrations and evaluations belong to a row: those of its prompt, or of it alone."""
    nobody_sampled = pl.col("sample_id").is_null()
    if stage == "prompts":
        of_prompt = pl.col("prompt_id") == row["prompt_id"]
        return of_prompt, of_prompt & nobody_sampled, of_prompt
    none = pl.lit(value=False)
    sampled = none if row["sample_id"] is None else pl.col("sample_id") == row["sample_id"]
    shown = none if stage == "samples" else (pl.col("triple_id") == row["triple_id"]) & nobody_sampled
    return sampled, shown, none


def trace(store: Store, text: str) -> Facts:
    """The way of a row through the versions: up to its prompt and its writer, down to the models trained on it.

    Returns:
        `prompt`; `samples`, each with the `model` that wrote it, and below it `rewards`, `instructions` and `triples`;
        `demonstrations`. Every one names its `version` and row key; triples name the `models` trained on them, and
        these what they are made from and their `evaluations`. Plain JSON values.

    Raises:
        VersionNotFound: no row has this key, or several begin with it.
        VersionCorrupt: a version of the run is damaged.
    """
    found, graph = find_row(store, text), VersionGraph(store)
    told = _row_history(*found, graph)
    prompt = told["prompt"]
    return {
        **{name: told[name] for name in ("run", "stage", "key")},
        "prompt": {name: prompt[name] for name in ("version", "prompt_id", "query")} if prompt else None,
        "samples": [_traced(graph, sample) for sample in told["samples"]],
        "demonstrations": [_trained(graph, one) for one in told["demonstrations"]],
    }


def _traced(graph: VersionGraph, sample: Facts) -> Facts:
    writer = graph.refs.get(sample["model"])
    return {
        **{name: sample[name] for name in ("version", "sample_id", "k", "completion")},
        "model": {"version": sample["model"], **(_model(graph, writer) if writer else {})},
        "rewards": [{name: one[name] for name in ("version", "score", "reason")} for one in sample["rewards"]],
        "instructions": [{name: one[name] for name in ("version", "instruction")} for one in sample["instructions"]],
        "triples": [_trained(graph, one) for one in sample["triples"]],
    }


def _trained(graph: VersionGraph, triple: Facts) -> Facts:
    """A triple with the models that were trained on it; where the sample was left out, there is none."""
    if "triple_id" not in triple:
        return triple
    models = graph.children(graph.refs[triple["version"]], "models")
    return {
        **{name: triple[name] for name in ("version", "triple_id", "instruction", "output")},
        "models": [{"version": str(ref), **_model(graph, ref)} for ref in models],
    }


def _model(graph: VersionGraph, ref: VersionRef) -> Facts:
    manifest = graph.manifests[str(ref)]
    evaluations = [str(one) for one in graph.children(ref, "evaluations")]
    return {"parents": list(manifest.parents), "loss": manifest.metrics.get("loss"), "evaluations": evaluations}


def _samples(graph: VersionGraph, ref: VersionRef, where: pl.Expr) -> Iterator[Facts]:
    """The samples of a version that fit, in order of k, each with what is made from it."""
    drawn = sorted(graph.rows(ref, where), key=lambda row: row["k"])
    of_them = pl.col("sample_id").is_in([row["sample_id"] for row in drawn])
    made = {stage: graph.children(ref, stage) if drawn else [] for stage in ("rewards", "instructions", "triples")}
    rows = {str(child): graph.rows(child, of_them) for children in made.values() for child in children}
    for sample in drawn:
        below = {
            stage: [one for child in children for one in _about(sample, child, rows[str(child)])]
            for stage, children in made.items()
        }
        yield {"version": sample["version"], "iteration": ref.iteration, **sample, **below}


def _about(sample: Facts, child: VersionRef, rows: list[Facts]) -> list[Facts]:
    mine = [row for row in rows if row["sample_id"] == sample["sample_id"]]
    return mine or ([{"version": str(child)}] if child.stage == "triples" else [])


def _prompt(graph: VersionGraph, prompt_id: str) -> Facts | None:
    """A prompt's row in the last version that holds it; None where that version is gone."""
    for ref in reversed(_of(list(graph.refs.values()), "prompts")):
        if found := graph.rows(ref, pl.col("prompt_id") == prompt_id):
            return found[0]
    return None


def _of(refs: list[VersionRef], stage: str) -> list[VersionRef]:
    return [ref for ref in refs if ref.stage == stage]


def _keyed(store: Store) -> list[VersionRef]:
    return [ref for stage in KEYS for ref in store.versions(stage)]


def _keys_like(store: Store, ref: VersionRef, text: str) -> set[str]:
    column = pl.col(KEYS[ref.stage])
    return (
        set(store.table(ref).select(column).filter(column.str.starts_with(text)).collect().to_series())
        if text
        else set()
    )


def _no_such_row(store: Store, text: str, names: list[str]) -> str:
    if not names:
        return (
            f"no prompt, sample or triple of {store.run_dir} has the key `{text}`; expected a prompt_id, sample_id or "
            f"triple_id, or the first digits of one, as `hir head` shows them"
        )
    more = ", …" if len(names) > CANDIDATES_SHOWN else ""
    return f"{len(names)} keys begin with `{text}`: {', '.join(names[:CANDIDATES_SHOWN])}{more}; give more of one"
