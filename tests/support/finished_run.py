"""A finished run of two iterations, written by hand without a job: two tasks, three prompts, two samples of each.

Every table is spelled out, so that the expected output of a command can be derived from this file.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from typer.testing import CliRunner

from flows.cli.app import app
from hir_core.schemas import SCHEMAS
from hir_core.store.manifest import identity
from hir_core.store.store import Store
from hir_core.store.training_log import TrainingStep, write_training_log
from hir_core.store.version import VersionRef

RIGHT, WRONG = "Be right.", "Be wrong."
NASTY = "red \x1b[31m\x00 \u202eback\nline"
LONG = "x" * 10_000
QUERIES = {"p1": ("sums", "1 + 1?"), "p2": ("sums", "1 + 2?"), "p3": ("words", NASTY), "t1": ("sums", "2 + 2?")}
COMPLETIONS = {
    1: {"p1": ("2", "3"), "p2": ("3", "3"), "p3": (LONG, NASTY)},
    2: {"p1": ("2", "2"), "p2": ("4", "3"), "p3": ("b", "c")},
}
SCORES = {1: [1.0, 0.0, 1.0, 1.0, None, 0.0], 2: [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]}
"""By prompt and k, in order."""
Row = dict[str, Any]


def commit(
    store: Store,
    stage: str,
    iteration: int,
    parents: list[VersionRef],
    rows: list[Row],
    config: Row | None = None,
    parts: int = 1,
    **details: Any,
) -> VersionRef:
    """Commits rows as a version, spread over this many parts."""
    draft = store.draft(identity(stage, iteration, config or {}, parents))
    table = pl.DataFrame(rows, schema=SCHEMAS[stage].create_empty().schema)
    for part in range(parts):
        draft.write(str(part), table[part * len(rows) // parts : (part + 1) * len(rows) // parts])
    return draft.commit(**details)


def make_run(folder: Path) -> Store:
    """The run `small` below a folder of runs."""
    store = Store(folder / "small")
    prompts = commit(store, "prompts", 0, [], [prompt(*item) for item in QUERIES.items()])
    model = trained(store, 0, [prompts])
    for iteration in COMPLETIONS:
        samples = commit(store, "samples", iteration, [prompts, model], drawn(iteration, model), parts=2)
        rewards = commit(store, "rewards", iteration, [prompts, samples], judged(iteration), {"threshold": 1.0})
        rows = relabeled(iteration)
        counts = {"rows_in": 6, "rejected": {"not judged": 6 - len(rows)}} if len(rows) < 6 else {"rows_in": 6}
        triples = commit(store, "triples", iteration, [prompts, samples, rewards], rows, **counts)
        model = trained(store, iteration, [model, triples], loss=2.0 - iteration)
        answered(store, iteration, prompts, model)
    return store


def prompt(prompt_id: str, item: tuple[str, str]) -> Row:
    split = "test" if prompt_id.startswith("t") else "train"
    return {
        "prompt_id": prompt_id,
        "task": item[0],
        "group": prompt_id,
        "split": split,
        "query": item[1],
        "options": None,
        "references": ["4", "four"] if split == "test" else [],
        "metadata": None,
    }


def trained(
    store: Store, iteration: int, parents: list[VersionRef], log: Sequence[TrainingStep] = (), **metrics: float
) -> VersionRef:
    draft = store.draft(identity("models", iteration, {}, parents))
    (draft.path / "config.json").write_text("{}")
    if log:
        write_training_log(draft.path, log)
    return draft.commit(metrics=metrics)


def answered(store: Store, iteration: int, prompts: VersionRef, model: VersionRef) -> VersionRef:
    row = {"prompt_id": "t1", "model": str(model), "task": "sums", "instruction": RIGHT, "finish_reason": "eos"}
    rows = [row | {"completion": str(2 + iteration), "outcome": "scored", "score": float(iteration == 2)}]
    overall = {"tasks": ["sums"], "accuracy": iteration / 2, "low": 0.0, "high": 1.0}
    return commit(
        store, "evaluations", iteration, [prompts, model], rows, {"threshold": 1.0}, metrics={"overall": overall}
    )


def drawn(iteration: int, model: VersionRef) -> list[Row]:
    return [
        {
            "sample_id": f"s{iteration}{prompt_id}{k}",
            "prompt_id": prompt_id,
            "model": str(model),
            "instruction": RIGHT,
            "k": k,
            "prompt_ids": [1, 2, 3],
            "completion": text,
            "completion_ids": list(range(len(text[:9]))),
            "logprobs": [-0.5] * len(text[:9]),
            "finish_reason": "length" if text == LONG else "eos",
            "seed": k,
        }
        for prompt_id, texts in COMPLETIONS[iteration].items()
        for k, text in enumerate(texts)
    ]


def judged(iteration: int) -> list[Row]:
    keys = [f"s{iteration}{prompt_id}{k}" for prompt_id in COMPLETIONS[iteration] for k in range(2)]
    return [
        {
            "sample_id": key,
            "reward": "exact_match",
            "outcome": "not_judged" if score is None else "scored",
            "score": score,
            "reason": f"says {score}",
            "parts": [],
        }
        for key, score in zip(keys, SCORES[iteration], strict=True)
    ]


def relabeled(iteration: int) -> list[Row]:
    """Triples by the paper's rule; a sample that was not judged is left out."""
    scored = zip(drawn(iteration, VersionRef("models", "0000-00000000", Path())), SCORES[iteration], strict=True)
    return [triple(sample, score == 1.0) for sample, score in scored if score is not None]


def triple(sample: Row, is_right: bool) -> Row:
    return {
        "triple_id": sample["sample_id"].replace("s", "d", 1),
        "prompt_id": sample["prompt_id"],
        "sample_id": sample["sample_id"],
        "relabeler": "hindsight",
        "instruction": RIGHT if is_right else WRONG,
        "contrast": [WRONG if is_right else RIGHT],
        "query": QUERIES[sample["prompt_id"]][1],
        "output": sample["completion"],
        "prefix_ids": [],
        "target_ids": sample["completion_ids"],
        "ends": sample["finish_reason"] == "eos",
        "weight": 1.0,
        "excluded_from": None,
        "removed": 0.0,
        "probability": 0.25,
    }


def ruling_out(store: Store) -> VersionRef:
    """Other triples of iteration 1: its wrong outputs are ruled out; s1p11 is a demonstration too, s1p31 is none."""
    rows = [
        row | {"triple_id": row["triple_id"].replace("d", "e", 1)}
        | ({"excluded_from": RIGHT, "removed": 0.75, "probability": 0.125} if row["instruction"] == WRONG else {})
        | ({"weight": 0.0} if row["sample_id"] == "s1p31" else {})
        for row in relabeled(1)
    ]  # fmt: skip
    parents = [store.resolve(name) for name in ("prompts@0", "samples@1", "rewards@1")]
    return commit(store, "triples", 1, parents, rows, {"relabel": "exclude_wrong"})


def hir(*arguments: str, code: int = 0) -> str:
    """The output of a command, which must end with this exit code."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result.stderr if result.stderr else result.stdout


def write_manifest(folder: Path, facts: Row) -> None:
    """Writes a version's manifest with the digest that fits it, as if it had been committed so."""
    content = {name: value for name, value in facts.items() if name != "sha256"}
    text = json.dumps(content, separators=(",", ":"), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(content | {"sha256": digest}))


def damage(path: Path) -> None:
    """Appends a byte to a file, so that it is not what its manifest says."""
    with path.open("ab") as file:
        file.write(b"x")
