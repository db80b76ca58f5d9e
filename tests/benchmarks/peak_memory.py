"""What `hir plan` expects a rank to take, beside the peaks of real launches on CPUs.

`python -m tests.benchmarks.peak_memory [--only zero2,zero3] [--lora RANK] [--out FILE]` trains a random Llama for an
optimizer step and samples from it, with one and two ranks under each DeepSpeed file, and compares the memory that the
done files report with the plan. By hand: takes half an hour and up to 8 GB. Keeps all figures in
`runs/peak_memory.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from hir_core.config import TrainingConfig
    from hir_core.launch.job_spec import SampleStep, TrainStep

CHECKOUT = Path(__file__).resolve().parents[2]
SHAPES = {
    "95M": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 10, "num_attention_heads": 12},
    "290M": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 20, "num_attention_heads": 16},
}
FILES = ("laptop", "zero0", "zero1", "zero2", "zero3", "zero3_offload")
MICRO_BATCH = {"95M": 2, "290M": 1}
PROMPT_TOKENS, NEW_TOKENS, K, ROWS = 96, 32, 4, 16
INSTRUCTIONS = ("Add up.", "Do not add up.")


def make_model(folder: Path, shape: dict[str, int], dtype: str) -> None:
    """Writes a random Llama with 32,000 tied embeddings, and a tokenizer that makes a token of each byte.

    Args:
        dtype: of the file, which counts as memory while it is read: with an adapter that can be the peak.
    """
    import torch
    import transformers

    from hir_core.modeling import models

    tokenizer = models.fit_tokenizer(["a"], 300)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = transformers.LlamaConfig(vocab_size=32000, tie_word_embeddings=True, **ends, **shape)
    transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_tables(folder: Path, micro_batch: int, ranks: int) -> None:
    """Writes prompts of `PROMPT_TOKENS` tokens, and triples for an optimizer step of a micro-batch for each rank."""
    count = micro_batch * ranks
    longest = max(len(instruction) for instruction in INSTRUCTIONS) + 2  # two line ends
    queries = [f"{n:04} ".ljust(PROMPT_TOKENS - longest, "x") for n in range(max(count, ROWS // K))]
    prompts = {"prompt_id": [f"p{n:04}" for n in range(len(queries))], "query": queries}
    table = pl.DataFrame(prompts | {"history": [None] * len(queries)})
    table.write_parquet(folder / "requests.parquet")
    (folder / "prompts").mkdir()
    table.write_parquet(folder / "prompts" / "part-0.parquet")
    rows = [
        {"triple_id": f"t{n:04}", "sample_id": None, "instruction": INSTRUCTIONS[n % 2],
         "contrast": [INSTRUCTIONS[1 - n % 2]], "query": queries[n], "history": None, "output": "7" * (NEW_TOKENS - 1),
         "prefix_ids": [], "target_ids": None, "ends": True, "weight": 1.0, "excluded_from": None, "removed": 0.0}
        for n in range(count)
    ]  # fmt: skip
    types = {"prefix_ids": pl.List(pl.Int32), "target_ids": pl.List(pl.Int32), "excluded_from": pl.String}
    (folder / "triples").mkdir()
    pl.DataFrame(rows, schema_overrides=types).write_parquet(folder / "triples" / "part-0.parquet")


def tokens_of(micro_batch: int) -> int:
    """A limit of tokens that so many triples keep, each under two instructions, and no more triples.

    A little more than their tokens: where a sequence had one more, a micro-batch would be half as large.
    """
    return micro_batch * len(INSTRUCTIONS) * (PROMPT_TOKENS + NEW_TOKENS + 8)


def train_step(folder: Path, training: TrainingConfig) -> TrainStep:
    """Trains on the triples of `make_tables`."""
    from hir_core.launch.job_spec import TrainStep

    return TrainStep(
        triples=folder / "triples", samples=None, prompts=folder / "prompts", training=training, iteration=1
    )


def sample_step(folder: Path, name: str = "sample", **changes: Any) -> SampleStep:
    """Samples from the prompts of `make_tables` into a new folder of that name."""
    from hir_core.launch.job_spec import SampleStep

    (folder / name).mkdir()
    settings = {
        "name": "sample", "requests": folder / "requests.parquet", "output": folder / name, "version": "samples/1",
        "model": "m", "instruction": INSTRUCTIONS[0], "k": K, "temperature": 1.0, "iteration": 1,
        "max_new_tokens": NEW_TOKENS, "batch_tokens": "auto", "zero3_weights": "auto", "write_every_s": 60.0,
    }  # fmt: skip
    return SampleStep.model_validate(settings | changes)


def measure(
    folder: Path, model: Path, file: str, ranks: int, micro_batch: int, lora: dict[str, int] | None
) -> dict[str, float]:
    """The peaks of one launch in bytes: after training, and after sampling as well."""
    from hir_core.config import HubModel, LaunchConfig, LoraConfig, TrainingConfig
    from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS, read_deepspeed
    from hir_core.launch.job_spec import Adapter, JobSpec
    from hir_core.launch.launcher import launch
    from hir_core.launch.rank import done_file

    folder.mkdir()
    make_tables(folder, micro_batch, ranks)
    training = TrainingConfig(batch_size=micro_batch * ranks, micro_batch_tokens=tokens_of(micro_batch), steps=1)
    steps = train_step(folder, training), sample_step(folder)
    settings = read_deepspeed(SHIPPED_DS_CONFIGS / f"{file}.json")
    adapter = lora and Adapter(lora=LoraConfig(**lora))
    JobSpec(model=HubModel(source=str(model)), adapter=adapter, seed=1, deepspeed=settings, steps=steps).write(folder)
    launch(folder, LaunchConfig(processes=ranks, timeout_s=900))
    done = [json.loads(done_file(folder, number).read_text()) for number in range(len(steps))]
    return {"training": done[0]["peak_bytes"], "sampling": done[1]["peak_bytes"]}


def expected(
    model: Path, deepspeed: Path, ranks: int, training: dict[str, Any], lora: dict[str, int] | None
) -> dict[str, Any]:
    """What the plan says of a launch: the parts of `TrainingBytes`, and the peak with sampling after it.

    Args:
        deepspeed: DeepSpeed file.
        training: settings of the section.
    """
    from hir_core.config.load import parse_config
    from hir_core.inspect.machines import Machines
    from hir_core.inspect.plan import make_plan

    config = parse_config(
        {"run": "peaks", "model": {"source": str(model)}, "prompts": [{"path": "none.jsonl"}], "iterations": 1,
         "reward": {"type": "exact_match"}, "training": training,
         "sampling": {"k": K, "max_new_tokens": NEW_TOKENS}, "deepspeed": str(deepspeed), "lora": lora}
    )  # fmt: skip
    plan = make_plan(config, Machines(1, ranks, 20 * 10**9, None, has_gpus=False), PROMPT_TOKENS)
    found = next(one for one in plan.files if one.is_current)
    rows = min(found.sampling.rows, ROWS // ranks)
    return {
        **vars(found.training),
        "sampling": max(found.training.total, found.sampling.weights + rows * found.sampling.row),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(FILES), help="DeepSpeed files, separated by commas")
    parser.add_argument("--models", default=",".join(SHAPES), help="models, separated by commas")
    parser.add_argument("--ranks", default="1,2", help="numbers of ranks, separated by commas")
    parser.add_argument("--lora", type=int, help="rank of an adapter that is trained in place of all weights")
    parser.add_argument("--out", type=Path, default=Path("runs/peak_memory.json"))
    options = parser.parse_args()
    os.environ |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    lora = options.lora and {"rank": options.lora}
    results = []
    print(f"{'model':<6}{'file':<15}{'ranks':>5}{'planned':>9}{'peak':>9}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as work:
        for name in options.models.split(","):
            for dtype in ("float32", "bfloat16"):
                make_model(Path(work) / f"{name}-{dtype}", SHAPES[name], dtype)
            for file in options.only.split(","):
                model = Path(work) / f"{name}-{'float32' if file == 'laptop' else 'bfloat16'}"
                for ranks in map(int, options.ranks.split(",")):
                    settings = {"micro_batch_tokens": tokens_of(MICRO_BATCH[name])}
                    plan = expected(model, Path(f"ds_configs/{file}.json"), ranks, settings, lora)
                    folder = Path(work) / f"{name}-{file}-{ranks}"
                    peak = measure(folder, model, file, ranks, MICRO_BATCH[name], lora)
                    ratio = plan["total"] / peak["training"]
                    planned, measured = f"{plan['total'] / 1e9:.2f}", f"{peak['training'] / 1e9:.2f}"
                    print(f"{name:<6}{file:<15}{ranks:>5}{planned:>9}{measured:>9}{ratio:>7.2f}", flush=True)
                    results.append({"model": name, "file": file, "ranks": ranks, "planned": plan, "peak": peak})
    machine = {"cpu": platform.processor() or platform.machine(), "python": sys.version.split()[0]}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
