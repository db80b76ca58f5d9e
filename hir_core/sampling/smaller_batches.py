"""Completing prompts although memory runs out: what is unfinished is drawn again, half as many rows at once.

A row's random numbers depend on the row alone, so it draws the same tokens in a smaller batch. Only for weights that
every rank holds whole: where they are streamed, a rank that fails in a forward pass leaves the others waiting for it,
and the launch ends. A process that the kernel kills for its memory cannot do this either.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from hir_core.errors import ConfigError
from hir_core.launch.failures import NO_MEMORY
from hir_core.modeling import zero
from hir_core.sampling import transformers_engine
from hir_core.sampling.completions import Completion, Request
from hir_core.sampling.draw import Limits
from hir_core.sampling.memory import BatchLimit, longest_prompt

logger = logging.getLogger(__name__)


def complete_in_memory(
    model: Any, requests: Sequence[Request], limits: Limits, device: torch.device, batch_limit: BatchLimit
) -> Iterator[Completion]:
    """Completes prompts as `complete` does; where memory runs out, halves `batch_limit` and goes on.

    Raises:
        ConfigError: there is too little memory for a single row.
        NumericalError: as `complete`.
    """
    left = {request.key: request for request in requests}
    samples = {request.key: len(request.seeds) for request in requests}
    while True:
        parts, lack = _parts(left.values(), batch_limit.most_rows), ""
        drawn = transformers_engine.complete(model, parts, limits, device, batch_limit.rows)
        try:
            for completions in _whole_prompts(drawn, samples):
                left.pop(completions[0].key, None)
                yield from completions
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            lack = " ".join(str(error).split()) or type(error).__name__
        if not lack:
            return
        gc.collect()  # the error is gone by now, and with it the tensors to which its traceback led
        zero.release_reserve()
        _halve(batch_limit, _parts(left.values(), batch_limit.most_rows), lack)


def lacks_memory(error: Exception) -> bool:
    """Whether an exception says that memory ran out, on a GPU or in main memory."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or NO_MEMORY.search(str(error)) is not None


def _halve(batch_limit: BatchLimit, parts: Sequence[Request], lack: str) -> None:
    """Allows half of the rows that the batch had at most.

    Raises:
        ConfigError: it had a single row.
    """
    longest = longest_prompt(parts)
    most = max(batch_limit.rows(longest), *(part.rows for part in parts))
    rows = min(most, sum(part.rows for part in parts))
    if rows == 1 or batch_limit.most_rows == 1:  # distinct samples of a prompt never have fewer than two rows
        new_tokens = batch_limit.estimate.step.max_new_tokens
        raise ConfigError(
            f"sampling.max_new_tokens: there is too little memory for a single prompt of {longest} tokens with "
            f"{new_tokens} new ones: lower it, shorten the prompts, or set `deepspeed` to a file that divides the "
            f"weights, such as ds_configs/zero3.json; `hir plan` shows what each file needs ({lack})"
        )
    batch_limit.halve(rows)
    logger.warning("memory ran out with %d rows at once, now at most %d: %s", rows, batch_limit.most_rows, lack)


def _parts(requests: Iterable[Request], most_rows: float) -> list[Request]:
    """The requests, those with more samples than `most_rows` in parts of that many where samples may be equal."""
    parts: list[Request] = []
    for request in requests:
        size = min(len(request.seeds), most_rows)
        if size == len(request.seeds) or request.distinct:
            parts.append(request)
            continue
        starts = range(0, len(request.seeds), int(size))
        parts += [replace(request, seeds=request.seeds[n : n + int(size)], first=n) for n in starts]
    return parts


def _whole_prompts(completions: Iterable[Completion], samples: Mapping[str, int]) -> Iterator[list[Completion]]:
    """The completions of one prompt after another, as soon as there are as many as it has `samples`."""
    open_prompts: dict[str, list[Completion]] = {}
    for completion in completions:
        found = open_prompts.setdefault(completion.key, [])
        found.append(completion)
        if len(found) == samples[completion.key]:
            yield sorted(open_prompts.pop(completion.key), key=lambda one: one.k)
