"""Training a Llama of 10 million weights: CPU seconds for one epoch, against the trainers of transformers and TRL.

    python -m tests.benchmarks.training [ROUNDS]

Two data sets without contrast, so that all trainers learn from the same tokens: `uneven`, one output for each prompt,
and `outputs`, four short outputs for each long prompt. Every measurement has a process of its own, the sides take
turns, and what is measured is the epoch: imports, the model and the tokenised data are there before. All sides have
batches of 64 outputs in micro-batches of 16, fp32, fused AdamW and one thread. TRL packs rows of 512 tokens, as many to
a step as the others train on. The side `single rows` is hir with a row for each output.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

SIDES = ("hir", "single rows", "padded", "group by length", "trl packing")
CASES = {"uneven": SIDES, "outputs": SIDES}
BATCH, MICRO, VOCABULARY, PACKED = 64, 16, 4096, 512


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One measured epoch."""

    case: str
    side: str
    cpu_s: float
    wall_s: float
    peak_mb: float
    """The most memory of the process, the model included."""
    tokens: int
    """Tokens of all outputs, each with its prompt."""


def make_rows(case: str) -> list[tuple[list[int], list[int]]]:
    """128 prompts and outputs as token ids, the same for every side."""
    draw = random.Random(7)

    def ids(count: int) -> list[int]:
        return [draw.randrange(5, VOCABULARY) for _ in range(count)]

    if case == "uneven":
        return [(ids(int(16 * 16 ** draw.random())), ids(int(8 * 16 ** draw.random()))) for _ in range(128)]
    prompts = [ids(draw.randint(128, 384)) for _ in range(32)]
    return [(prompt, ids(draw.randint(4, 16))) for prompt in prompts for _ in range(4)]


def make_model() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    sizes = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 10, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=1024, pad_token_id=0, **sizes))


def hir_epoch(case: str, side: str) -> Callable[[], None]:
    """The loop of a launch's only rank."""
    import torch
    from torch import distributed as dist

    from hir_core.config import TrainingConfig
    from hir_core.modeling import zero
    from hir_core.training import packing_check, trainer
    from hir_core.training.batches import BatchLayout, Example
    from hir_core.training.losses import TripleLoss

    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", DS_ACCELERATOR="cpu")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    zero.connect(0)
    settings = {"label_smoothing": 0.0, "contrastive": 0.0, "entropy": 0.0, "shuffle": "prompts"}
    training = TrainingConfig(epochs=1, batch_size=BATCH, micro_batch_size=MICRO, **settings)
    examples = [
        Example(f"{n:03}", (tuple(prompt),), (), tuple(output), 1.0)
        for n, (prompt, output) in enumerate(make_rows(case))
    ]
    module = TripleLoss(make_model(), trainer.coefficients(training), training.logits_chunk)
    engine = zero.engine_for_training(module, {"zero_optimization": {"stage": 1}}, training)
    layout = BatchLayout(0, (1,), None, torch.device("cpu"))

    def epoch() -> None:
        chosen = layout
        if side == "hir":
            chosen = packing_check.choose_layout(module, examples, layout, training, (1,))
        trainer.train(engine, examples, training, chosen, (1,), lambda _: None)

    return epoch


def huggingface_epoch(case: str, side: str) -> Callable[[], None]:
    """The Trainer of transformers, or TRL's with packing."""
    import datasets

    datasets.disable_progress_bars()
    rows = make_rows(case)
    folder = tempfile.mkdtemp()
    settings = {
        "output_dir": folder,
        "num_train_epochs": 1,
        "learning_rate": 5e-5,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "optim": "adamw_torch_fused",
        "dataloader_num_workers": 0,
    }
    if side == "trl packing":
        from transformers import PreTrainedTokenizerFast
        from trl import SFTConfig, SFTTrainer

        from hir_core.modeling.models import fit_tokenizer

        tokens = sum(len(prompt) + len(output) for prompt, output in rows)
        accumulation = max(1, round(tokens / len(rows) * BATCH / PACKED / 2))
        settings |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": accumulation}
        packing = {"packing": True, "max_length": PACKED, "gradient_checkpointing": False, "bf16": False}
        data = {
            "input_ids": [prompt + output for prompt, output in rows],
            "completion_mask": [[0] * len(prompt) + [1] * len(output) for prompt, output in rows],
        }
        tokenizer: PreTrainedTokenizerFast = fit_tokenizer(["two figs"], 300)
        config = SFTConfig(**settings, **packing)
        table = datasets.Dataset.from_dict(data)
        return SFTTrainer(make_model(), args=config, train_dataset=table, processing_class=tokenizer).train
    from transformers import Trainer, TrainingArguments

    sampling = "group_by_length" if side == "group by length" else "random"
    settings |= {"per_device_train_batch_size": MICRO, "gradient_accumulation_steps": BATCH // MICRO}
    data = {
        "input_ids": [prompt + output for prompt, output in rows],
        "labels": [[-100] * len(prompt) + output for prompt, output in rows],
    }
    arguments = TrainingArguments(**settings, train_sampling_strategy=sampling)
    return Trainer(make_model(), arguments, padded, datasets.Dataset.from_dict(data)).train


def padded(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    """A batch as wide as its longest row."""
    import torch

    width = max(len(row["input_ids"]) for row in rows)

    def table(values: list[list[int]], padding: int) -> torch.Tensor:
        return torch.tensor([[*row, *[padding] * (width - len(row))] for row in values])

    return {
        "input_ids": table([row["input_ids"] for row in rows], 0),
        "labels": table([row["labels"] for row in rows], -100),
        "attention_mask": table([[1] * len(row["input_ids"]) for row in rows], 0),
    }


def measure(case: str, side: str) -> Epoch:
    """One epoch in this process."""
    import torch

    torch.set_num_threads(1)
    epoch = (hir_epoch if side in ("hir", "single rows") else huggingface_epoch)(case, side)
    cpu, wall = time.process_time(), time.monotonic()
    epoch()
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Epoch(case, side, cpu, wall, peak, sum(len(prompt) + len(output) for prompt, output in make_rows(case)))


def run(rounds: int) -> list[Epoch]:
    """Every side of every case in turn, `rounds` times; without the sides whose library is not installed."""
    epochs = []
    for number in range(rounds):
        for case, sides in CASES.items():
            for side in sides if number % 2 == 0 else reversed(sides):
                command = [sys.executable, "-m", "tests.benchmarks.training", case, side]
                environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                if "ModuleNotFoundError" in done.stderr:
                    print(f"{side}: not installed: {done.stderr.splitlines()[-1]}")
                    continue
                if done.returncode:
                    raise RuntimeError(f"{case}, {side}: {done.stderr[-2000:]}")
                epochs.append(Epoch(**json.loads(done.stdout.splitlines()[-1])))
    return epochs


def main() -> None:
    """A table of medians, and of each side's CPU seconds as a multiple of hir's in the same round."""
    if len(sys.argv) == 3:
        print(json.dumps(dataclasses.asdict(measure(*sys.argv[1:]))))
        return
    epochs = run(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    print(f"{'case':10} {'side':16} {'cpu s':>7} {'MB':>6}   times hir's")
    for case, sides in CASES.items():
        ours = [epoch.cpu_s for epoch in epochs if (epoch.case, epoch.side) == (case, "hir")]
        for side in sides:
            own = [epoch for epoch in epochs if (epoch.case, epoch.side) == (case, side)]
            if own:
                ratios = [epoch.cpu_s / base for epoch, base in zip(own, ours, strict=True)]
                cpu, peak = statistics.median(e.cpu_s for e in own), statistics.median(e.peak_mb for e in own)
                spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                print(f"{case:10} {side:16} {cpu:7.2f} {peak:6.0f}   {spread}")


if __name__ == "__main__":
    main()
