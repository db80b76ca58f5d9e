"""How costs grow with the work: sampling and training in tokens, committing in bytes, over a factor of 100.

A cost that is proportional to the work has the exponent 1. What is needed once, such as building the engine, makes it
smaller; so the exponent over the last factor of ten is shown as well.
"""

from __future__ import annotations

import os
from itertools import pairwise
from math import log
from pathlib import Path
from statistics import linear_regression
from typing import Any

from tests.benchmarks.measure import Case, Figure, Result, Side, Work, spread
from tests.benchmarks.side_process import Clock

K, MAX_NEW_TOKENS = 4, 16
INSTRUCTIONS = ("Generate a correct answer to this problem.", "Generate a wrong answer to this problem.")
SHAPE = {"architecture": "llama", "hidden_size": 128, "layers": 2, "heads": 4, "intermediate_size": 256, "context": 96}


def sample(clock: Clock, inputs: Path, prompts: int, batch_tokens: int) -> Work:
    """Samples from a random model, as a rank does; the amount is new tokens."""
    steps = [sample_step(name, count, batch_tokens) for name, count in (("first", 8), ("measured", prompts))]
    job = open_job(steps)
    job.do(steps[0])  # what torch prepares at its first use
    with clock:
        result = job.do(steps[1])
    return Work(result["tokens"])


def train(clock: Clock, inputs: Path, triples: int, batch_size: int) -> Work:
    """Trains a random model on one pass over triples with a contrast, as a rank does; the amount is tokens."""
    step = train_step(triples, batch_size)
    job = open_job([step])
    with clock:
        result = job.do(step)
    return Work(result["tokens"])


def commit_samples(clock: Clock, inputs: Path, rows: int) -> Work:
    """Writes and commits samples; the amount is bytes."""
    from hir_core.store.store import Store
    from tests.benchmarks.tables import SAMPLES, commit, samples

    table = samples(rows)
    with clock:
        version = commit(Store(Path("run")), SAMPLES, table)
    return Work(sum(path.stat().st_size for path in version.path.glob("part-*.parquet")))


# --- jobs ------------------------------------------------------------------------------------------------------------


def queries(count: int) -> list[str]:
    """Questions of uneven length."""
    return [f"I have {' and '.join(['three figs'] * (1 + n % 4))}. How many?" for n in range(count)]


def sample_step(name: str, prompts: int, batch_tokens: int) -> Any:
    """A step that samples, with the file of its prompts and the folder of its output."""
    import polars as pl

    from hir_core.launch.job_spec import SampleStep

    path, output = Path(f"{name}.parquet").resolve(), Path(name).resolve()
    output.mkdir()
    columns = {"prompt_id": [f"p{n:06}" for n in range(prompts)], "query": queries(prompts), "history": None}
    pl.DataFrame(columns).write_parquet(path)
    return SampleStep(
        name="sample", requests=path, output=output, version="samples/0001-00000000", model="models/0000-00000000",
        instruction=INSTRUCTIONS[0], k=K, temperature=1.0,
        max_new_tokens=MAX_NEW_TOKENS, batch_tokens=batch_tokens, zero3_weights="auto", write_every_s=60, iteration=1,
    )  # fmt: skip


def train_step(triples: int, batch_size: int) -> Any:
    """A step that trains, with the tables that it reads."""
    import polars as pl

    from hir_core.config import TrainingConfig
    from hir_core.launch.job_spec import TrainStep
    from hir_core.schemas import Triples
    from hir_core.store.files import write_part

    folder = Path("triples").resolve()
    folder.mkdir()
    numbers = range(triples)
    schema = Triples.create_empty().schema
    columns: dict[str, Any] = dict.fromkeys(schema) | {  # a column that has no value here is null
        "triple_id": [f"t{n:06}" for n in numbers], "prompt_id": [f"p{n:06}" for n in numbers], "sample_id": None,
        "relabeler": "hindsight", "instruction": [INSTRUCTIONS[n % 2] for n in numbers],
        "contrast": [[INSTRUCTIONS[1 - n % 2]] for n in numbers], "query": queries(triples), "history": None,
        "output": [f"three and {n % 7}" for n in numbers], "prefix_ids": [[] for _ in numbers], "target_ids": None,
        "ends": True, "weight": 1.0, "removed": 0.0,
    }  # fmt: skip
    write_part(folder, "0", pl.DataFrame(columns, schema=schema))
    training = TrainingConfig(batch_size=batch_size, micro_batch_tokens=10**6, epochs=1, learning_rate=1e-4)
    return TrainStep(triples=folder, samples=None, prompts=folder, training=training, iteration=1)


def open_job(steps: list[Any]) -> Any:
    """A job of a random model whose only rank is this process."""
    from hir_core.config import ScratchModel
    from hir_core.launch.job_spec import JobSpec
    from hir_core.launch.ports import free_port
    from hir_core.launch.rank import Rank

    place = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {**place, "MASTER_PORT": str(free_port()), "DS_ACCELERATOR": "cpu", "TORCHDYNAMO_DISABLE": "1"}
    import polars as pl

    from hir_core.modeling import zero
    from hir_core.worker.job import Job

    job_dir = Path("job").resolve()
    job_dir.mkdir()
    texts = job_dir / "texts.parquet"
    pl.DataFrame({"text": [*queries(4), *INSTRUCTIONS, *(f"three and {n}" for n in range(7))]}).write_parquet(texts)
    spec = JobSpec(
        model=ScratchModel(type="scratch", **SHAPE), texts=texts, seed=1,
        deepspeed={"zero_optimization": {"stage": 1}}, steps=tuple(steps),
    )  # fmt: skip
    return Job(Rank(job_dir, 0, 1, 0), spec, zero.connect(0))


# --- figures ---------------------------------------------------------------------------------------------------------


def exponents(result: Result) -> list[Figure]:
    """The exponent b of cost = a · work^b, fitted over all sizes, and over the two largest."""
    sides = list(result.settings)
    rounds = set.intersection(*({m.round for m in result.of(side)} for side in sides))
    points = [
        [(log(m.amount), log(m.cpu_s)) for side in sides for m in result.of(side) if m.round == number]
        for number in sorted(rounds)
    ]
    if not points:
        return []
    last = list(pairwise(sides))[-1]
    return [
        spread("exponent of CPU seconds", [_slope(values) for values in points], ""),
        spread(f"exponent from {' to '.join(last)}", [_slope(values[-2:]) for values in points], ""),
    ]


def _slope(points: list[tuple[float, float]]) -> float:
    return linear_regression([work for work, _ in points], [cost for _, cost in points]).slope


CASES = (
    Case(
        name="growth/sampling",
        question=f"sampling {K} outputs of at most {MAX_NEW_TOKENS} tokens for more and more prompts",
        unit="new tokens",
        sides=tuple(
            Side(f"{prompts:,} prompts", sample, {"prompts": prompts, "batch_tokens": 16384})
            for prompts in (30, 300, 3000)
        ),
        rounds=3,
        conclude=exponents,
    ),
    Case(
        name="growth/training",
        question="one pass over more and more triples, the engine and its checks included",
        unit="tokens",
        sides=tuple(
            Side(f"{triples:,} triples", train, {"triples": triples, "batch_size": 64})
            for triples in (100, 1000, 10_000)
        ),
        rounds=3,
        conclude=exponents,
    ),
    Case(
        name="growth/commit",
        question="writing and committing more and more samples",
        unit="bytes",
        sides=tuple(Side(f"{rows:,} samples", commit_samples, {"rows": rows}) for rows in (10_000, 100_000, 1_000_000)),
        rounds=3,
        conclude=exponents,
    ),
)
