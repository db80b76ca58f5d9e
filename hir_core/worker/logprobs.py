"""The step that scores outputs: how likely a model finds tokens that it drew under instructions written since.

Reads outputs and the Samples parts that hold the instructions; writes Weights parts as they are finished. Leaves
believing an instruction to the driver.
"""

from __future__ import annotations

from typing import Any

import polars as pl
import torch

from hir_core.launch.job_spec import LogprobStep
from hir_core.launch.rank import Rank
from hir_core.modeling.data_parallel import Meter, PartWriter, as_many_as_any_rank, batches, finished_keys
from hir_core.modeling.models import context_length
from hir_core.modeling.rendering import Renderer
from hir_core.modeling.zero import is_partitioned
from hir_core.schemas import Logprobs, Samples
from hir_core.store.files import list_parts, read_parts
from hir_core.training.batches import Example, Layout
from hir_core.training.losses import Coefficients, TripleLoss


def score_logprobs(step: LogprobStep, rank: Rank, model: Any, renderer: Renderer, layout: Layout) -> dict[str, Any]:
    """Weighs every output that no finished part holds yet, one forward pass each."""
    done = finished_keys(rank, step.output, "sample_id")
    asked = [example for example in _examples(step, renderer) if example.key not in done]
    mine = sorted(asked, key=lambda example: (example.length, example.key))[rank.rank :: rank.world_size]
    room = context_length(model)
    long = [example for example in mine if room is not None and example.length > room]
    writer = PartWriter(rank, step.output, Logprobs.create_empty().schema, step.write_every_s)
    meter = Meter(rank, step.type, "outputs", len(asked), len(mine))
    writer.add([{"sample_id": example.key, "logprob": None} for example in long])
    meter.add(len(long), 0)
    work = batches(mine[: len(mine) - len(long)], lambda example: example.length, step.batch_tokens)
    idle = [Example("", ((layout.pad_id,),), (), (layout.pad_id,), 1.0)]
    module = TripleLoss(model, Coefficients(0.0, 0.0, 0.0), step.logits_chunk).eval()
    for batch in as_many_as_any_rank(work, idle, layout.device) if is_partitioned(model) else work:
        logprobs = mean_logprobs(module, batch, layout)
        if batch is not idle:
            rows = zip(batch, logprobs, strict=True)
            writer.add([{"sample_id": example.key, "logprob": logprob} for example, logprob in rows])
            meter.add(len(batch), sum(example.length for example in batch))
    writer.close(len(mine))
    return meter.facts(layout.device)


def mean_logprobs(module: TripleLoss, examples: list[Example], layout: Layout) -> list[float]:
    """Of each example's target tokens under its own prompt: the mean, in nats, at temperature 1."""
    batch = layout.collate(examples)
    with torch.no_grad():
        logprobs = module.target_stats(batch).logprobs.double()
    summed = logprobs.new_zeros(len(examples)).index_add(0, batch.target_rows, logprobs)
    found: list[float] = (summed / torch.bincount(batch.target_rows, minlength=len(examples))).tolist()
    return found


def _examples(step: LogprobStep, renderer: Renderer) -> list[Example]:
    """The outputs for which a whole instruction was written, each under that instruction."""
    columns = ["prompt_id", "completion", "finish_reason"]
    written = read_parts(step.written, columns) if list_parts(step.written) else Samples.create_empty().select(columns)
    whole = written.filter(pl.col("finish_reason") == "eos", pl.col("completion") != "")
    rows = pl.read_parquet(step.requests).join(whole, left_on="sample_id", right_on="prompt_id")
    return [
        Example(key, (tuple(renderer.prompt_ids(instruction, query, history)),), (), tuple(ids), 1.0)
        for key, query, history, ids, instruction in rows.select(
            "sample_id", "query", "history", "completion_ids", "completion"
        ).iter_rows()
    ]
