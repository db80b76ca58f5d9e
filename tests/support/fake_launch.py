"""A run whose launches are played without a model: `ranks` reads the same `job.json` and writes the same files."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hir_core.config import RunConfig
from hir_core.config.load import parse_config
from hir_core.launch.job_spec import JobSpec, SampleStep, SaveStep, ScoreStep
from hir_core.launch.rank import done_file
from hir_core.progress import ignore
from hir_core.schemas import Samples, SamplesWithStop, Scores, content_key
from hir_core.stages import run as run_module
from hir_core.stages.identity import Scored
from hir_core.stages.instruct import write_instructions
from hir_core.stages.prompts import check, load, make_demonstrations, save_prompts
from hir_core.stages.relabel import relabel_samples
from hir_core.stages.run import Run
from hir_core.stages.score import score_samples
from hir_core.stages.train import train_iteration
from hir_core.store.files import list_parts, read_parts, write_json, write_part
from hir_core.store.store import Store

ANSWERS = ("2", "", "7")
"""What the model of these tests writes as its first, second and third sample, whatever it is asked."""
MEASURED = {"tokens": 1}
"""The result of each step."""


def answer(step: SampleStep, prompt_id: str, k: int) -> dict[str, Any]:
    ids = [5, 1] if ANSWERS[k] else []
    return {
        "sample_id": content_key(step.version, prompt_id, k),
        "prompt_id": prompt_id,
        "model": step.model,
        "instruction": step.instruction,
        "k": k,
        "prompt_ids": [3],
        "completion": ANSWERS[k],
        "completion_ids": ids,
        "logprobs": [-0.5] * len(ids),
        "finish_reason": "eos" if ids else "length",
        "seed": 0,
    }


def liking(completion: str) -> float:
    """What the reward model of these tests makes of an answer, whatever it was asked."""
    return {"2": 1.5, "7": -0.5}.get(completion, -3.0)


def ranks(
    job_dir: Path,
    *_: object,
    on_step: Callable[[int], None] | None,
    on_begun: Callable[[], None] = ignore,
    **__: object,
) -> None:
    """Does what the ranks of a launch do, as far as the driver can see."""
    on_begun()
    for number, step in enumerate(JobSpec.read(job_dir).steps):
        if isinstance(step, SaveStep):
            (step.output / ("config.json" if step.base is None else "adapter_model.safetensors")).write_text("{}")
            if step.optimizer_state != "none":
                (step.output / "optimizer-00001-of-00001.safetensors").write_text(step.optimizer_state)
        if isinstance(step, ScoreStep):
            done = read_parts(step.output)["key"].to_list() if list_parts(step.output) else []
            asked = [row for row in pl.read_parquet(step.requests).sort("key").to_dicts() if row["key"] not in done]
            rows = [{"key": row["key"], "score": liking(row["completion"]), "reason": ""} for row in asked]
            write_part(step.output, f"{len(asked)}", pl.DataFrame(rows, schema=Scores.create_empty().schema))
        if isinstance(step, SampleStep):
            done = read_parts(step.output)["prompt_id"].to_list() if list_parts(step.output) else []
            asked = [key for key in pl.read_parquet(step.requests)["prompt_id"] if key not in done]
            rows = [answer(step, prompt_id, k) for prompt_id in asked for k in range(step.k)]
            schema = (SamplesWithStop if step.stop else Samples).create_empty().schema
            write_part(step.output, f"{len(asked)}", pl.DataFrame(rows, schema=schema))
        write_json(done_file(job_dir, number), MEASURED)
        if on_step is not None:
            on_step(number)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run of 8 train prompts, two of which 2 answers, 4 test prompts and a blank line."""
    monkeypatch.setattr(run_module, "launch", ranks)
    monkeypatch.chdir(tmp_path)
    return write_sums()


def write_sums() -> dict[str, Any]:
    """Writes the prompts into the current folder, and returns the settings of the run."""
    sums = [(1, n) for n in range(1, 8)] + [(2, n) for n in range(4)] + [(0, 2)]
    rows = [{"query": f"{a} + {b}?", "references": [str(a + b)]} for a, b in sums]
    rows = [row | {"split": "test" if n in (2, 3, 4, 5) else "train"} for n, row in enumerate(rows)]
    lines = [json.dumps(row) for row in [*rows, {"query": " ", "references": ["2"]}]]
    Path("sums.jsonl").write_text("\n".join(lines))
    return {
        "run": "sums",
        "iterations": 1,
        "model": {"type": "scratch", "hidden_size": 16, "heads": 2},
        "prompts": [{"path": "sums.jsonl"}],
        "reward": {"type": "exact_match"},
        "warm_start": {"demonstrations": 4},
        "sampling": {"k": 3},
        "deepspeed": "ds_configs/laptop.json",
    }


def with_changes(settings: dict[str, Any], changes: dict[str, Any]) -> RunConfig:
    raw = json.loads(json.dumps(settings))
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = raw
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = value
    return parse_config(raw)


def loop(config: RunConfig) -> Run:
    """What the flow does, without prefect."""
    run = Run(config)
    check(run)
    prompts = save_prompts(run, load(run))
    made = train_iteration(run, prompts, make_demonstrations(run, prompts), None, None)
    scored: list[Scored] = []
    for _ in range(config.iterations):
        assert made.samples is not None
        rewards = score_samples(run, prompts, made.samples)
        scored.append(Scored(made.samples, rewards, write_instructions(run, prompts, made.samples, rewards)))
        made = train_iteration(run, prompts, relabel_samples(run, prompts, scored), made.samples, made.model)
    return run


def versions(store: Store) -> Counter[str]:
    return Counter(f"{ref.stage}@{ref.iteration}" for ref in store.versions())


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def folder_model(path: Path, weights: bytes) -> dict[str, Any]:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    return {"source": str(path)}


def row(run: Run, version: str, **values: str) -> dict[str, Any]:
    """The first row of a table that holds these values."""
    return run.table(run.store.resolve(version)).filter(**values).row(0, named=True)


# --- launches --------------------------------------------------------------------------------------------------------


def steps(store: Store, iteration: int) -> list[str]:
    spec = JobSpec.read(store.run_dir / "launches" / f"{iteration:04d}")
    return [step.name if isinstance(step, SampleStep) else step.type for step in spec.steps]
