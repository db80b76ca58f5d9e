"""A model of a billion parameters through a whole launch on CPUs: trained, saved, sampled from, and loaded again.

`python -m tests.benchmarks.billion [--layers 18] [--lora RANK] [--out FILE]` makes a random bf16 Llama, trains it for
an optimizer step under ZeRO-3 on two ranks, saves it, and samples from it with weights that are gathered and that are
streamed. Then plain `transformers` loads what was saved, in one process, and computes the log-probability of every
sampled token anew, beside that under the weights before training. Prints the memory that `hir plan` expects beside the
peak of the larger rank, and the seconds of each part; keeps all figures in `runs/billion.json`. By hand: takes ten
minutes, 22 GB and 5 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars as pl

from tests.benchmarks import report
from tests.benchmarks.peak_memory import (
    CHECKOUT,
    expected,
    make_model,
    make_tables,
    sample_step,
    tokens_of,
    train_step,
)

RANKS, MICRO_BATCH, NEW_TOKENS = 2, 1, 8
SHAPE = {"hidden_size": 2048, "intermediate_size": 5760, "num_attention_heads": 16}
"""52 million parameters a layer, and 66 million of embeddings."""
LEARNING_RATE = 1e-3
SAMPLED = ("gather", "stream")
"""How the weights are held while the model is sampled from, one after the other."""
SMALLER = {
    "reduce_bucket_size": 2 * 10**7,
    "stage3_prefetch_bucket_size": 2 * 10**7,
    "stage3_max_live_parameters": 10**8,
    "stage3_max_reuse_distance": 10**8,
    "sub_group_size": 5 * 10**7,
}
"""What is set in place of the values of `zero3.json`, which are for GPUs: all of it is memory beside the model."""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(2**20)}
"""The second has the C library give back tensors of 1 MB and more as soon as they are freed: otherwise it keeps those
of up to 32 MB, in pieces that nothing larger fits into."""


class Clock:
    """Seconds of each part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A context that is one part."""
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)


def in_own_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, called in a process whose memory is free afterwards."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def write_settings(path: Path) -> dict[str, Any]:
    """Writes `zero3.json` with the values of `SMALLER` as a DeepSpeed file, with gradients accumulated in bf16."""
    from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS, read_deepspeed

    settings = read_deepspeed(SHIPPED_DS_CONFIGS / "zero3.json")
    settings["zero_optimization"] |= SMALLER
    del settings["data_types"]
    path.write_text(json.dumps(settings))
    return settings


def training_settings() -> dict[str, Any]:
    """The section `training` of the launch."""
    tokens = {"batch_size": MICRO_BATCH * RANKS, "micro_batch_tokens": tokens_of(MICRO_BATCH)}
    return tokens | {"activation_checkpointing": True, "logits_chunk": 32, "learning_rate": LEARNING_RATE}


def run_launch(folder: Path, model: Path, settings: dict[str, Any], lora: dict[str, int] | None) -> list[Any]:
    """The results of the launch's steps: train, save, sample from gathered weights, and from streamed ones."""
    from hir_core.config import HubModel, LaunchConfig, LoraConfig, TrainingConfig
    from hir_core.launch.job_spec import Adapter, JobSpec, SaveStep
    from hir_core.launch.launcher import launch
    from hir_core.launch.rank import done_file

    folder.mkdir()
    make_tables(folder, MICRO_BATCH * RANKS)
    (folder / "saved").mkdir()
    few = {"max_new_tokens": NEW_TOKENS, "k": 2}
    steps = (
        train_step(folder, TrainingConfig(**training_settings(), steps=1)),
        SaveStep(output=folder / "saved", base=lora and os.path.relpath(model, folder / "saved")),
        *(sample_step(folder, how, zero3_weights=how, **few) for how in SAMPLED),
    )
    adapter = lora and Adapter(lora=LoraConfig(**lora))
    JobSpec(model=HubModel(source=str(model)), adapter=adapter, seed=1, deepspeed=settings, steps=steps).write(folder)
    launch(folder, LaunchConfig(processes=RANKS, timeout_s=3600))
    return [json.loads(done_file(folder, number).read_text()) for number in range(len(steps))]


def token_logprobs(model: Any, samples: pl.DataFrame) -> Iterator[tuple[float, float]]:
    """Of each sampled token: its log-probability as the ranks computed it, and as the model computes it now."""
    import torch

    for row in samples.iter_rows(named=True):
        ids = torch.tensor([[*row["prompt_ids"], *row["completion_ids"]]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, len(row["prompt_ids"]) - 1 : -1].float()
        found = logits.log_softmax(-1).gather(1, ids[0, len(row["prompt_ids"]) :, None])[:, 0]
        yield from zip(row["logprobs"], found.tolist(), strict=True)


def compare(model: Path, saved: Path, samples: pl.DataFrame, lora: dict[str, int] | None) -> dict[str, float]:
    """How far the log-probabilities under the saved model, and under the first one, are from those of the ranks."""
    import torch
    from transformers import AutoModelForCausalLM

    gaps: dict[str, float] = {}
    for name, folder in (("saved", saved), ("before training", model)):
        source = model if lora else folder
        loaded = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).eval()
        if lora and name == "saved":
            from peft import PeftModel

            loaded = PeftModel.from_pretrained(loaded, saved)
        found = [abs(theirs - ours) for theirs, ours in token_logprobs(loaded, samples)]
        gaps |= {f"{name}, mean": sum(found) / len(found), f"{name}, largest": max(found)}
        del loaded
    return gaps | {"tokens": float(len(found))}


def measure(work: Path, layers: int, lora: dict[str, int] | None) -> dict[str, Any]:
    """All figures of one model.

    Args:
        work: folder for the model and the launch.
    """
    clock = Clock()
    model, folder, deepspeed = work / "model", work / "launch", work / "zero3.json"
    with clock.part("making the model"):
        in_own_process(make_model, model, SHAPE | {"num_hidden_layers": layers}, "bfloat16")
    settings = write_settings(deepspeed)
    plan = expected(model, deepspeed, RANKS, training_settings(), lora)
    with clock.part("launch"):
        steps = run_launch(folder, model, settings, lora)
    for name, step in zip(("train", "save", "sample, gathered", "sample, streamed"), steps, strict=True):
        clock.seconds[name] = round(step["step_seconds"], 1)
    clock.seconds["start and load"] = round(clock.seconds["launch"] - sum(s["step_seconds"] for s in steps), 1)
    parts = [path for name in SAMPLED for path in sorted((folder / name).glob("*.parquet"))]
    samples = pl.concat(pl.read_parquet(path).select("prompt_ids", "completion_ids", "logprobs") for path in parts)
    with clock.part("compare"):
        gaps = compare(model, folder / "saved", samples, lora)
    return {
        "parameters": steps[1]["parameters"],
        "lora": lora,
        "ranks": RANKS,
        "environment": ENVIRONMENT,
        "deepspeed": settings,
        "training": training_settings(),
        "planned_bytes": plan,
        "peak_bytes": {"training": steps[0]["peak_bytes"], "all": steps[-1]["peak_bytes"]},
        "files": sorted(path.name for path in (folder / "saved").glob("*.safetensors")),
        "seconds": clock.seconds,
        "nats": gaps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=18, help="layers of 52 million parameters")
    parser.add_argument("--lora", type=int, help="rank of an adapter that is trained in place of all weights")
    parser.add_argument("--out", type=Path, default=Path("runs/billion.json"))
    options = parser.parse_args()
    os.environ |= ENVIRONMENT | {"DS_ACCELERATOR": "cpu", "PYTHONPATH": str(CHECKOUT)}
    with tempfile.TemporaryDirectory() as work:
        figures = measure(Path(work), options.layers, options.lora and {"rank": options.lora})
    command = f"python -m tests.benchmarks.billion {' '.join(sys.argv[1:])}".rstrip()
    result = {**report.surroundings().model_dump(mode="json"), "command": command, **figures}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
