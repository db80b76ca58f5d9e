"""The step that completes prompts: each is rendered, completed as often as the step says, and written as Samples.

Reads the requests of a step; writes parts of Samples as prompts are finished. Which tokens are drawn is left to the
engines in `sampling`: `complete_prompts` has this rank's own model draw them, in batches that `sampling.memory` limits,
and `vllm_job` has vLLM draw them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import polars as pl
import torch
from torch import distributed as dist

from hir_core.config.sampling import DEFAULT_TEMPERATURE
from hir_core.errors import ConfigError
from hir_core.launch import end_requests
from hir_core.launch.job_spec import RowsResult, SampleResult, SampleStep
from hir_core.launch.rank import Rank
from hir_core.modeling.data_parallel import Meter, PartWriter, finished_keys, share_of
from hir_core.modeling.rendering import Renderer
from hir_core.sampling import memory, smaller_batches, transformers_engine
from hir_core.sampling.completions import Completion, Request, row_seed
from hir_core.sampling.draw import Limits
from hir_core.sampling.preset import settings_taken
from hir_core.sampling.stop_texts import StopTexts
from hir_core.schemas import Samples, SamplesWithStop, content_key
from hir_core.training.batches import BatchLayout


def read_requests(step: SampleStep, renderer: Renderer, room: int | None, seed: int) -> list[Request]:
    """The step's prompts, rendered, with the seeds of their samples; without those that are too long for the context.

    Args:
        room: tokens of the model's context; None: no limit.
        seed: of the run.

    Raises:
        ConfigError: every prompt is too long, or the template cannot render the turns of one; names the prompt.
    """
    requests, shortest = [], math.inf
    for prompt_id, query, history in pl.read_parquet(step.requests).select("prompt_id", "query", "history").iter_rows():
        of = f"prompt {prompt_id}"
        ids = tuple(renderer.prompt_ids(step.instruction, query, history, of=of))
        if room is not None and len(ids) + step.max_new_tokens > room:
            shortest = min(shortest, len(ids))
            continue
        seeds = tuple(row_seed(seed, step.iteration, prompt_id, k) for k in range(step.k))
        requests.append(Request(prompt_id, ids, seeds, distinct=step.distinct and step.k > 1))
    if not requests and shortest < math.inf and step.name != "write":  # an instruction can do without a writer
        raise ConfigError(
            f"every prompt is too long for the model: the shortest has {shortest:.0f} tokens, which with "
            f"{step.max_new_tokens} new tokens is more than the context of {room}: shorten the prompts, or lower "
            "sampling.max_new_tokens"
        )
    return requests


def complete_prompts(
    step: SampleStep,
    rank: Rank,
    model: Any,
    renderer: Renderer,
    layout: BatchLayout,
    requests: Sequence[Request],
    deepspeed: dict[str, Any],
) -> SampleResult:
    """Completes every prompt whose samples are in no finished part yet.

    Args:
        requests: of all ranks; those of the step that are not among them were too long.
        deepspeed: content of the DeepSpeed file.
    """
    device, taken = layout.device, settings_taken(step, model.generation_config)
    step = step.model_copy(update=taken)
    too_long = too_long_prompts(step, requests)
    requests = unfinished_requests(step, rank, requests)
    own = share_of(rank, requests, length_and_key)
    weights = memory.sampling_weights(model, step, requests, device)
    streamed = memory.streamed_bytes(model, deepspeed) if weights.is_streamed else 0
    batch_limit = memory.BatchLimit(memory.RowEstimate.of(model, step), device, streamed)
    stop = stop_texts(step, renderer)
    limits = limits_of(step, layout.end_ids, layout.pad_id, stop)
    idle = Request(key="", prompt_ids=(int(renderer.tokenizer.eos_token_id),), seeds=(0,))
    completions = _completions(own, limits, weights, batch_limit, idle)
    result = write_samples(step, rank, renderer, stop, own, len(requests), completions, device)
    smaller = memory.smaller_batches(batch_limit, requests, device)
    return {
        **result,
        "too_long": too_long,
        "weights": weights.reason,
        "preset": taken if step.preset else None,
        "smaller_batches": smaller,
    }


def too_long_prompts(step: SampleStep, requests: Sequence[Request]) -> int:
    """How many of the step's prompts are none of its requests, because they are too long for the model's context."""
    return int(pl.scan_parquet(step.requests).select(pl.len()).collect().item()) - len(requests)


def unfinished_requests(step: SampleStep, rank: Rank, requests: Sequence[Request]) -> list[Request]:
    """The requests whose samples are in no finished part yet; all ranks call this together."""
    finished = finished_keys(rank, step.output, "prompt_id")
    return [request for request in requests if request.key not in finished]


def length_and_key(request: Request) -> tuple[int, str]:
    """The order in which requests are shared among ranks."""
    return len(request.prompt_ids), request.key


def stop_texts(step: SampleStep, renderer: Renderer) -> StopTexts | None:
    """The step's stop texts; None where it has none."""
    return StopTexts(step.stop, renderer.decode, renderer.silent_ids) if step.stop else None


def write_samples(
    step: SampleStep,
    rank: Rank,
    renderer: Renderer,
    stop: StopTexts | None,
    requests: Sequence[Request],
    prompts: int,
    completions: Iterator[Completion],
    device: torch.device,
) -> RowsResult:
    """Writes completions as Samples as they come, and reports the progress; all ranks call this together.

    Args:
        requests: this rank's, to which the completions belong.
        prompts: how many all ranks complete.
        device: of what the ranks exchange.
    """
    schema = SamplesWithStop if stop else Samples
    writer = PartWriter(rank, step.output, schema.create_empty().schema, step.write_every_s)
    meter = Meter(rank, step.name, "samples", prompts * step.k, len(requests) * step.k)
    requests_by_key = {request.key: request for request in requests}
    with end_requests.answered_with(writer.flush):
        # A prompt's rows are written together: prompts in a part count as finished.
        for key, group in groupby(completions, key=lambda completion: completion.key):
            rows, request = list(group), requests_by_key[key]
            texts = [output_text(request, row, renderer, stop, with_thinking=step.keeps_thinking) for row in rows]
            writer.add([sample_row(step, request, row, text) for row, text in zip(rows, texts, strict=True)])
            meter.add(len(rows), sum(len(completion.token_ids) for completion in rows))
    writer.close(len(requests) * step.k)
    return meter.result(device)


def limits_of(step: SampleStep, end_ids: Sequence[int], pad_id: int, stop: StopTexts | None) -> Limits:
    """How the step draws tokens, and when an output ends."""
    return Limits(
        temperature=DEFAULT_TEMPERATURE if step.temperature is None else step.temperature,
        max_new_tokens=step.max_new_tokens,
        end_ids=tuple(end_ids),
        pad_id=pad_id,
        top_p=step.top_p,
        top_k=step.top_k,
        min_p=step.min_p,
        has_stopped=stop.has_stopped if stop else None,
    )


def _completions(
    requests: Sequence[Request],
    limits: Limits,
    weights: memory.SamplingWeights,
    batch_limit: memory.BatchLimit,
    idle: Request,
) -> Iterator[Completion]:
    """The completions of this rank's prompts; with streamed weights in batches, of which all ranks have as many.

    Args:
        idle: what a rank completes while others have more batches.
    """
    model, device = weights.model, batch_limit.device
    batch_limit.measure()
    if not weights.is_streamed:
        yield from smaller_batches.complete_in_memory(model, requests, limits, device, batch_limit)
        return

    def any_rank_is_unfinished(is_unfinished: bool) -> bool:
        flag = torch.tensor([int(is_unfinished)], device=device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)

    waiting = transformers_engine.longest_first(requests)
    while any_rank_is_unfinished(bool(waiting)):
        batch = transformers_engine.take_batch(waiting, batch_limit.rows) or [idle]
        completions = transformers_engine.complete(model, batch, limits, device, None, any_rank_is_unfinished)
        yield from (completion for completion in completions if completion.key != idle.key)
        batch_limit.measure()


def output_text(
    request: Request, completion: Completion, renderer: Renderer, stop: StopTexts | None, *, with_thinking: bool = True
) -> str:
    """The text of a completion, which ends before a stop text, and begins with the mark of thinking if the prompt ends
    with it.

    Args:
        with_thinking: whether it holds the model's thinking.
    """
    text = renderer.decode(list(completion.token_ids))
    text = renderer.opened_thinking(request.prompt_ids) + (stop.without_stop(text) if stop else text)
    if renderer.thinking is not None and not with_thinking:
        return renderer.thinking.answer(text)
    return text.strip()


def sample_row(step: SampleStep, request: Request, completion: Completion, text: str) -> dict[str, Any]:
    """A completion as a row of Samples; `text` is its decoded text."""
    return {
        "sample_id": content_key(step.version, completion.key, completion.k),
        "prompt_id": completion.key,
        "model": step.model,
        "instruction": step.instruction,
        "k": completion.k,
        "prompt_ids": list(request.prompt_ids),
        "completion": text,
        "completion_ids": list(completion.token_ids),
        "logprobs": list(completion.logprobs),
        "finish_reason": completion.finish_reason,
        "seed": request.seeds[completion.k],
    }
