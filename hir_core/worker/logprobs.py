"""The step that computes the log-probability of sampled outputs under instructions that were written for them.

Reads the outputs and the Samples whose completions are the instructions; writes Logprobs parts as they are finished.
The driver's relabeler decides which instructions are kept.
"""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import torch

from hir_core.errors import NumericalError
from hir_core.launch import end_requests
from hir_core.launch.job_spec import LogprobStep, RowsResult
from hir_core.launch.rank import Rank
from hir_core.modeling.data_parallel import Meter, PartWriter, batches, finished_keys, pad_to_longest_rank, share_of
from hir_core.modeling.models import context_length
from hir_core.modeling.rendering import Renderer
from hir_core.modeling.zero import is_partitioned
from hir_core.schemas import Logprobs, Samples
from hir_core.store.files import list_parts, read_parts
from hir_core.training.batches import BatchLayout
from hir_core.training.examples import Example
from hir_core.training.losses import Coefficients
from hir_core.training.triple_loss import TripleLoss


def score_logprobs(step: LogprobStep, rank: Rank, model: Any, renderer: Renderer, layout: BatchLayout) -> RowsResult:
    """Writes the log-probability of every output that is in no finished part yet, from one forward pass each.

    Outputs that are longer than the model's context get none.
    """
    finished = finished_keys(rank, step.output, "sample_id")
    examples = [example for example in _read_examples(step, renderer) if example.key not in finished]
    own = share_of(rank, examples, lambda example: (example.length, example.key))
    limit = context_length(model)
    fitting = [example for example in own if limit is None or example.length <= limit]
    too_long = own[len(fitting) :]  # sorted by length
    writer = PartWriter(rank, step.output, Logprobs.create_empty().schema, step.write_every_s)
    meter = Meter(rank, step.type, "outputs", len(examples), len(own))
    writer.add([{"sample_id": example.key, "logprob": None} for example in too_long])
    meter.add(len(too_long), 0)
    work = batches(fitting, lambda example: example.length, step.batch_tokens)
    idle = [Example("", ((layout.pad_id,),), (), (layout.pad_id,), 1.0)]
    module = TripleLoss(model, Coefficients(0.0, 0.0, 0.0), step.logits_chunk).eval()
    with end_requests.answered_with(writer.flush):
        for batch in pad_to_longest_rank(work, idle, layout.device) if is_partitioned(model) else work:
            logprobs = mean_logprobs(module, batch, layout)
            if batch is not idle:
                rows = zip(batch, logprobs, strict=True)
                writer.add([{"sample_id": example.key, "logprob": logprob} for example, logprob in rows])
                meter.add(len(batch), sum(example.length for example in batch))
    writer.close(len(own))
    return meter.result(layout.device)


def _read_examples(step: LogprobStep, renderer: Renderer) -> list[Example]:
    """The outputs whose instruction was written to its end, each under that instruction."""
    columns = ["prompt_id", "completion", "finish_reason"]
    written = read_parts(step.written, columns) if list_parts(step.written) else Samples.create_empty().select(columns)
    instructions = written.filter(pl.col("finish_reason") == "eos", pl.col("completion") != "")
    rows = pl.read_parquet(step.requests).join(instructions, left_on="sample_id", right_on="prompt_id")
    return [
        Example(key, (tuple(renderer.prompt_ids(instruction, query, history)),), (), tuple(ids), 1.0)
        for key, query, history, ids, instruction in rows.select(
            "sample_id", "query", "history", "completion_ids", "completion"
        ).iter_rows()
    ]


def mean_logprobs(module: TripleLoss, examples: list[Example], layout: BatchLayout) -> list[float]:
    """Mean log-probability, in nats at temperature 1, of each example's target tokens under its own prompt.

    Raises:
        NumericalError: it is not finite; names the example.
    """
    batch = layout.collate(examples)
    with torch.no_grad():
        logprobs = module.target_stats(batch).logprobs.double()
    sums = logprobs.new_zeros(len(examples)).index_add(0, batch.target_rows, logprobs)
    means: list[float] = (sums / torch.bincount(batch.target_rows, minlength=len(examples))).tolist()
    for example, mean in zip(examples, means, strict=True):
        if not math.isfinite(mean):
            raise NumericalError(
                f"sample {example.key}: the model that writes instructions gives it no probability: its logits hold "
                "NaN or infinity: choose another relabel.writer, or lower training.learning_rate"
            )
    return means
