"""What `hir plan` expects a rank to take, beside the peaks of real launches on CPUs.

`python -m tests.benchmarks.peak_memory [--models 95M,wide] [--only zero2,zero3] [--ranks 1,2] [--lora RANK]
[--launches N] [--out FILE]` trains a random Llama for two optimizer steps of two micro-batches each, and samples from
it, under each DeepSpeed file, and compares the memory that the done files report with the plan. By hand: a launch takes
half a minute and up to 4 GB. Adds each figure to the file as soon as it is known (`runs/peak_memory.json`); those that
are kept are in `results/peak_memory.json`.

The peak is the largest resident memory of the larger rank since its model was loaded (`forget_resident_peak` in
`hir_core/launch/host_memory.py`): what it allocated, and pages of files that it uses, which are those of the libraries,
and of the weights where they are neither trained nor divided. Two steps, since AdamW's moments are there from the first
step on, and two micro-batches, since the gradients of one are there while the next one makes activations. Peaks of
equal launches differ, by 4 % in five of the 95M model with an adapter in fp32: the median of several launches counts.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from tests.benchmarks import report

if TYPE_CHECKING:
    from hir_core.config import TrainingConfig
    from hir_core.launch.job_spec import SampleStep, TrainStep

CHECKOUT = Path(__file__).resolve().parents[2]
KEPT = Path(__file__).parent / "results" / "peak_memory.json"


class Shape(NamedTuple):
    """A model, and how much of it is computed at once."""

    config: dict[str, int]
    """What a Llama's config has in place of the values of `make_model`."""
    micro_batch: int
    """Triples of a micro-batch."""


def _llama(hidden: int, intermediate: int, layers: int, heads: int, **more: int) -> dict[str, int]:
    sizes = {"hidden_size": hidden, "intermediate_size": intermediate}
    return sizes | {"num_hidden_layers": layers, "num_attention_heads": heads} | more


SHAPES = {
    "30M": Shape(_llama(384, 1024, 10, 6), 2),
    "95M": Shape(_llama(768, 2048, 10, 12), 1),
    "217M": Shape(_llama(1024, 2816, 14, 16), 1),
    "wide": Shape(_llama(1536, 4096, 3, 12), 1),
    "deep": Shape(_llama(384, 1024, 40, 6), 1),
    "vocabulary": Shape(_llama(512, 1408, 6, 8, vocab_size=128000), 1),
    "unseen": Shape(_llama(640, 1728, 16, 10, num_key_value_heads=5, vocab_size=50000), 2),
}
"""By name. `unseen` is for a test of the formulas: change none by looking at what it took."""
FILES = ("laptop", "zero0", "zero1", "zero2", "zero3", "zero3_offload")
STEPS, MICRO_BATCHES = 2, 2
PROMPT_TOKENS, NEW_TOKENS, K, ROWS = 96, 32, 4, 16
INSTRUCTIONS = ("Add up.", "Do not add up.")


def make_model(folder: Path, shape: dict[str, int], dtype: str) -> None:
    """Writes a random Llama with tied embeddings, 32,000 unless the shape says otherwise, and a tokenizer of bytes.

    Args:
        dtype: of the file: that of the training, so that weights which are not trained can stay in the file's pages.
    """
    import torch
    import transformers

    from hir_core.modeling import models

    tokenizer = models.fit_tokenizer(["a"], 300)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = transformers.LlamaConfig(tie_word_embeddings=True, **ends, **{"vocab_size": 32000, **shape})
    transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_tables(folder: Path, count: int) -> None:
    """Writes prompts of `PROMPT_TOKENS` tokens, and so many triples with them."""
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


def training_settings(shape: Shape, ranks: int) -> dict[str, Any]:
    """The section `training` of a launch: an optimizer step has `MICRO_BATCHES` micro-batches of each rank."""
    batch = shape.micro_batch * MICRO_BATCHES * ranks
    return {"batch_size": batch, "micro_batch_tokens": tokens_of(shape.micro_batch)}


def measure(
    folder: Path, model: Path, file: str, ranks: int, training: dict[str, Any], lora: dict[str, int] | None
) -> dict[str, int]:
    """The peaks of one launch in bytes: after training, and after sampling as well."""
    from hir_core.config import HubModel, LaunchConfig, LoraConfig, TrainingConfig
    from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS, read_deepspeed
    from hir_core.launch.job_spec import Adapter, JobSpec
    from hir_core.launch.launcher import launch
    from hir_core.launch.rank import done_file

    folder.mkdir()
    make_tables(folder, training["batch_size"])
    steps = train_step(folder, TrainingConfig(**training, steps=STEPS)), sample_step(folder)
    settings = read_deepspeed(SHIPPED_DS_CONFIGS / f"{file}.json")
    adapter = lora and Adapter(lora=LoraConfig(**lora))
    JobSpec(model=HubModel(source=str(model)), adapter=adapter, seed=1, deepspeed=settings, steps=steps).write(folder)
    launch(folder, LaunchConfig(processes=ranks, timeout_s=1800))
    done = [json.loads(done_file(folder, number).read_text()) for number in range(len(steps))]
    return {"training": done[0]["peak_bytes"], "all": done[1]["peak_bytes"]}


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
    from hir_core.inspect.plan import GAPS, make_plan

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
        "sampling": max(found.training.total, found.sampling.weights + int(GAPS * rows * found.sampling.row)),
    }


def planned(figures: dict[str, Any]) -> dict[str, Any]:
    """What the plan says today of a launch of a results file, as `expected`."""
    with tempfile.TemporaryDirectory() as folder:
        config = {"model_type": "llama", "vocab_size": 32000, "tie_word_embeddings": True}
        config |= SHAPES[figures["model"]].config
        (Path(folder) / "config.json").write_text(json.dumps(config))
        lora = figures["lora"] and {"rank": figures["lora"]}
        deepspeed = CHECKOUT / "ds_configs" / f"{figures['file']}.json"
        return expected(Path(folder), deepspeed, figures["ranks"], figures["training"], lora)


def add(path: Path, name: str, figures: dict[str, Any]) -> None:
    """Adds the figures of one launch to a file, in place of those that it has under the name."""
    known = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(sorted((known | {name: figures}).items())), indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="95M", help=f"of {', '.join(SHAPES)}, separated by commas")
    parser.add_argument("--only", default=",".join(FILES), help="DeepSpeed files, separated by commas")
    parser.add_argument("--ranks", default="1,2", help="numbers of ranks, separated by commas")
    parser.add_argument("--lora", type=int, help="rank of an adapter that is trained in place of all weights")
    parser.add_argument("--launches", type=int, default=1, help="of each; the median of their peaks counts")
    parser.add_argument("--out", type=Path, default=Path("runs/peak_memory.json"))
    options = parser.parse_args()
    os.environ |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    lora = options.lora and {"rank": options.lora}
    print(f"{'model':<12}{'file':<15}{'ranks':>5}{'planned':>9}{'peak':>9}{'ratio':>7}   and sampling")
    with tempfile.TemporaryDirectory() as work:
        for name in options.models.split(","):
            shape = SHAPES[name]
            for file in options.only.split(","):
                dtype = "float32" if file == "laptop" else "bfloat16"
                model = Path(work) / f"{name}-{dtype}"
                if not model.exists():
                    make_model(model, shape.config, dtype)
                for ranks in map(int, options.ranks.split(",")):
                    training = training_settings(shape, ranks)
                    plan = expected(model, CHECKOUT / "ds_configs" / f"{file}.json", ranks, training, lora)
                    peaks = [
                        measure(Path(work) / f"{name}-{file}-{ranks}-{n}", model, file, ranks, training, lora)
                        for n in range(options.launches)
                    ]
                    peak = {what: int(median(one[what] for one in peaks)) for what in peaks[0]}
                    shown = (
                        f"{planned / 1e9:>9.2f}{peak[what] / 1e9:>9.2f}{planned / peak[what]:>7.2f}"
                        for what, planned in (("training", plan["total"]), ("all", plan["sampling"]))
                    )
                    print(f"{name:<12}{file:<15}{ranks:>5}{''.join(shown)}", flush=True)
                    case = {"model": name, "file": file, "ranks": ranks, "lora": options.lora}
                    key = " ".join(str(value) for value in case.values() if value)
                    figures = case | {"training": training, "peak_bytes": peak, "launches": peaks}
                    add(options.out, key, report.surroundings().model_dump(mode="json") | figures)


if __name__ == "__main__":
    main()
