"""The cost of training a Llama for one epoch, beside the trainers of transformers and TRL.

No contrast, so that all trainers learn from the same tokens. All sides train on batches of 64 outputs, in fp32, with a
fused AdamW: the trainer of transformers in micro-batches of 16 outputs; TRL packs rows of 512 tokens, two in a forward
pass, as many to a step as the others train on; `hir` has as many tokens in a forward pass as TRL, and on a further side
as many as 16 outputs have on average. A model of 10 million weights learns from 256 outputs, one of the shape of
SmolLM2-135M from 64, which are one step. What counts is the epoch: imports, the model and the tokenised data are there
before.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from tests.benchmarks import sampling
from tests.benchmarks.measure import Case, Side, Work
from tests.benchmarks.side_process import Clock

BATCH, MICRO, VOCABULARY, PACKED, PACKED_ROWS = 64, 16, 4096, 512, 2
SHAPES = {
    "llama-10m": {"vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 10}
    | {"num_attention_heads": 4},
    "smollm2-135m": sampling.SHAPES["smollm2-135m"],
}
OUTPUTS = {"llama-10m": 256, "smollm2-135m": 64}
"""How many each model learns from."""
Row = tuple[list[int], list[int]]


def make_rows(model: str, data: str) -> list[Row]:
    """Prompts and outputs as token ids.

    Args:
        model: learns from so many, see `OUTPUTS`.
        data: `uneven`, one output for each prompt; `outputs`, four short ones for each long prompt.
    """
    draw = random.Random(7)

    def ids(count: int) -> list[int]:
        return [draw.randrange(5, VOCABULARY) for _ in range(count)]

    if data == "uneven":
        return [(ids(int(16 * 16 ** draw.random())), ids(int(8 * 16 ** draw.random()))) for _ in range(OUTPUTS[model])]
    prompts = [ids(draw.randint(128, 384)) for _ in range(OUTPUTS[model] // 4)]
    return [(prompt, ids(draw.randint(4, 16))) for prompt in prompts for _ in range(4)]


def tokens_of(rows: list[Row]) -> int:
    """Tokens of all outputs, each with its prompt."""
    return sum(len(prompt) + len(output) for prompt, output in rows)


def make_model(name: str) -> Any:
    """The same weights on every side."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**SHAPES[name], max_position_embeddings=1024, pad_token_id=0))


def train_with_hir(
    clock: Clock,
    _: Path,
    model: str,
    data: str,
    shuffle: str,
    packs: bool = True,
    micro_batch_tokens: int | None = None,
) -> Work:
    """The loop of a launch's only rank; without packing every output has a row of its own.

    Args:
        micro_batch_tokens: None: as many as `MICRO` outputs have on average.
    """
    import torch
    from torch import distributed as dist

    from hir_core.config import TrainingConfig
    from hir_core.modeling import zero
    from hir_core.training import packing_check, trainer
    from hir_core.training.batches import BatchLayout
    from hir_core.training.example_table import ExampleTable
    from hir_core.training.examples import Example
    from hir_core.training.triple_loss import TripleLoss

    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", DS_ACCELERATOR="cpu")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    zero.connect(0)
    terms = {"label_smoothing": 0.0, "contrastive": 0.0, "entropy": 0.0}
    rows = make_rows(model, data)
    tokens = micro_batch_tokens or MICRO * tokens_of(rows) // len(rows)
    training = TrainingConfig(epochs=1, batch_size=BATCH, micro_batch_tokens=tokens, shuffle=shuffle, **terms)
    examples = ExampleTable.of(
        Example(f"{n:03}", (tuple(prompt),), (), tuple(output), 1.0) for n, (prompt, output) in enumerate(rows)
    )
    module = TripleLoss(make_model(model), trainer.coefficients(training), training.logits_chunk)
    engine = zero.engine_for_training(module, {"zero_optimization": {"stage": 1}}, training)
    layout = BatchLayout(0, (1,), None, torch.device("cpu"))
    with clock:
        if packs:
            layout = packing_check.choose_layout(module, examples, layout, training, (1,))
        trainer.train(engine, examples, training, layout, (1,), lambda _: None)
    return Work(tokens_of(rows), {"padding": padding_of(examples, training, layout)})


def padding_of(examples: Any, training: Any, layout: Any) -> float:
    """The share of an epoch's micro-batches that is padding."""
    from hir_core.training.micro_batches import assign_micro_batches
    from hir_core.training.steps import examples_of_step, plan_steps

    tokens = places = 0
    for numbers in plan_steps(examples, training, (1,)):
        step = examples_of_step(examples, numbers, training)
        for group in assign_micro_batches(step, 1, training.micro_batch_tokens, layout)[0]:
            mask = layout.collate([step[number] for number in group]).attention_mask
            tokens, places = tokens + int(mask.sum()), places + mask.numel()
    return 1 - tokens / places


def settings_of_rivals() -> dict[str, Any]:
    """What both rivals are told."""
    return {
        "output_dir": "trained",
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


def train_with_transformers(clock: Clock, _: Path, model: str, data: str, order: str) -> Work:
    """The Trainer of transformers, whose batches are as wide as their longest row."""
    import datasets
    from transformers import Trainer, TrainingArguments

    datasets.disable_progress_bars()
    rows = make_rows(model, data)
    table = datasets.Dataset.from_dict({
        "input_ids": [prompt + output for prompt, output in rows],
        "labels": [[-100] * len(prompt) + output for prompt, output in rows],
    })  # fmt: skip
    sizes = {"per_device_train_batch_size": MICRO, "gradient_accumulation_steps": BATCH // MICRO}
    arguments = TrainingArguments(**settings_of_rivals(), **sizes, train_sampling_strategy=order)
    trainer = Trainer(make_model(model), arguments, padded, table)
    with clock:
        trainer.train()
    return Work(tokens_of(rows))


def train_with_trl(clock: Clock, _: Path, model: str, data: str, packed_tokens: int) -> Work:
    """TRL's trainer with packing; a step has as many tokens as a batch of the other sides."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    from hir_core.modeling.models import fit_tokenizer

    datasets.disable_progress_bars()
    rows = make_rows(model, data)
    table = datasets.Dataset.from_dict({
        "input_ids": [prompt + output for prompt, output in rows],
        "completion_mask": [[0] * len(prompt) + [1] * len(output) for prompt, output in rows],
    })  # fmt: skip
    accumulation = max(1, round(tokens_of(rows) / len(rows) * BATCH / packed_tokens / PACKED_ROWS))
    sizes = {"per_device_train_batch_size": PACKED_ROWS, "gradient_accumulation_steps": accumulation}
    packing = {"packing": True, "max_length": packed_tokens, "gradient_checkpointing": False, "bf16": False}
    config = SFTConfig(**settings_of_rivals(), **sizes, **packing)
    tokenizer = fit_tokenizer(["two figs"], 300)
    trainer = SFTTrainer(make_model(model), args=config, train_dataset=table, processing_class=tokenizer)
    with clock:
        trainer.train()
    return Work(tokens_of(rows))


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


def training_case(name: str, model: str, data: str, question: str, shuffle: str, rounds: int = 3) -> Case:
    """All sides with one model on one kind of data."""
    of_transformers = ("datasets", "accelerate")
    work = {"model": model, "data": data}
    of_hir = work | {"shuffle": shuffle, "micro_batch_tokens": PACKED_ROWS * PACKED}
    return Case(
        name=f"training/{name}",
        question=question,
        unit="tokens",
        sides=(
            Side("hir", train_with_hir, of_hir),
            Side("hir, forward passes as the Trainer's", train_with_hir, of_hir | {"micro_batch_tokens": None}),
            Side("hir, a row for each output", train_with_hir, of_hir | {"packs": False}),
            Side("Trainer", train_with_transformers, work | {"order": "random"}, of_transformers),
            Side("Trainer, by length", train_with_transformers, work | {"order": "group_by_length"}, of_transformers),
            Side("TRL, packed", train_with_trl, work | {"packed_tokens": PACKED}, ("trl", "datasets")),
        ),
        rounds=rounds,
    )


CASES = (
    training_case("uneven", "llama-10m", "uneven", "prompts and outputs of uneven length", "triples"),
    training_case("outputs", "llama-10m", "outputs", "four short outputs for each long prompt", "prompts"),
    training_case("smollm2-135m", "smollm2-135m", "uneven", "one step of uneven lengths", "triples", rounds=2),
)
