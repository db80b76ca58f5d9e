"""The cost of the loss behind a Llama's head, forward and backward: logits a chunk at a time, or whole.

The model has one thin layer below a large vocabulary, so that nearly everything is the head. No contrast and no entropy
bonus: the loss is cross-entropy, which all sides compute. Kernels that need a GPU are in `tests/gpu/measure.py`, whose
part `head` uses the functions here.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Case, Side, Work
from tests.benchmarks.side_process import Clock

VOCABULARY, HIDDEN, ROWS, TARGETS = 32768, 256, 4, 512
"""Of the model; and of the batch, rows and targets of each."""


def make_model(vocabulary: int = VOCABULARY, hidden: int = HIDDEN) -> Any:
    """The same weights on every side."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    sizes = {"hidden_size": hidden, "intermediate_size": hidden, "num_hidden_layers": 1}
    heads = max(1, hidden // 64)
    config = LlamaConfig(vocab_size=vocabulary, num_attention_heads=heads, max_position_embeddings=4096, **sizes)
    return LlamaForCausalLM(config)


def make_batch(vocabulary: int = VOCABULARY, rows: int = ROWS, targets: int = TARGETS) -> Any:
    """Outputs of equal length after prompts of one token, as a micro-batch of `hir`."""
    from hir_core.training.batches import collate
    from hir_core.training.examples import Example

    draw = random.Random(3)
    outputs = [tuple(draw.randrange(vocabulary) for _ in range(targets)) for _ in range(rows)]
    return collate([Example(str(n), ((n,),), (), output, 1.0) for n, output in enumerate(outputs)], 0, None)


def loss_of_hir(model: Any, batch: Any, chunk: int) -> Any:
    """Mean cross-entropy of the targets, with the logits of `chunk` of them at a time."""
    from hir_core.training.examples import Totals
    from hir_core.training.losses import Coefficients
    from hir_core.training.triple_loss import TripleLoss

    totals = Totals(tokens=len(batch.target_ids), triples=len(batch.weights), excluding_prompts=1)
    loss, _ = TripleLoss(model, Coefficients(0.0, 0.0, 0.0), chunk)(batch, totals, 1.0)
    return loss


def loss_of_transformers(model: Any, batch: Any) -> Any:
    """The same from the logits of all positions, as a model of `transformers` computes it when it is given labels."""
    labels = batch.target_ids.view(len(batch.input_ids), -1)  # of each position the next token: nothing is shifted
    return model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, shift_labels=labels, labels=labels
    ).loss


def with_hir(clock: Clock, _: Path, chunk: int) -> Work:
    """One forward and backward pass of `hir`'s loss."""
    model, batch = make_model(), make_batch()
    with clock:
        loss_of_hir(model, batch, chunk).backward()
    return Work(ROWS * TARGETS)


def with_transformers(clock: Clock, _: Path) -> Work:
    """One forward and backward pass of the loss of `transformers`."""
    model, batch = make_model(), make_batch()
    with clock:
        loss_of_transformers(model, batch).backward()
    return Work(ROWS * TARGETS)


CASES = (
    Case(
        name="head",
        question=f"cross-entropy of {ROWS * TARGETS:,} targets over {VOCABULARY:,} tokens, forward and backward",
        unit="targets",
        sides=(
            Side("hir", with_hir, {"chunk": 1024}),
            Side("hir, 256 at a time", with_hir, {"chunk": 256}),
            Side("hir, all at once", with_hir, {"chunk": ROWS * TARGETS}),
            Side("transformers", with_transformers, {}),
        ),
    ),
)
