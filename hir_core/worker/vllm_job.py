"""A job whose outputs vLLM draws: the answers to the test prompts, and the samples, of a model that is saved.

Reads `job.json`, the requests of its steps and the model's tokenizer; writes Samples as `samples` does. The ranks
render prompts and write rows, and hold no weights: of every `tensor_parallel` ranks the first has a process of vLLM.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from hir_core.config import HubModel
from hir_core.errors import ConfigError
from hir_core.launch.job_spec import JobSpec, SampleStep
from hir_core.launch.rank import Rank
from hir_core.modeling import models, zero
from hir_core.modeling.data_parallel import share_of
from hir_core.modeling.rendering import renderer_of
from hir_core.progress import Progress
from hir_core.sampling.completions import Completion, Request
from hir_core.sampling.preset import settings_taken
from hir_core.sampling.stop_texts import StopTexts
from hir_core.sampling.vllm_engine import VllmProcess
from hir_core.worker.samples import (
    length_and_key,
    limits_of,
    read_requests,
    stop_texts,
    too_long_prompts,
    unfinished_requests,
    write_samples,
)

CPU = torch.device("cpu")


class VllmJob:
    """One rank's prompts, tokenizer and process of vLLM, and the steps that use them.

    Raises:
        ConfigError: a prompt does not fit, or vLLM cannot draw from this model, or not with these settings.
        VllmEnded: vLLM cannot load the model.
    """

    def __init__(self, rank: Rank, spec: JobSpec) -> None:
        assert isinstance(spec.model, HubModel)
        assert spec.engine is not None
        rank.progress(Progress("load"))
        self.rank, self.settings = rank, spec.engine
        tokenizer, is_encoder_decoder, context = models.load_tokenizer_and_shape(spec.model, ())
        if is_encoder_decoder:
            raise ConfigError("sampling.engine: vLLM has no encoder-decoder models, as this one is: set transformers")
        self.renderer = renderer_of(spec.model, tokenizer, ends_prompt=False)
        generation_config = models.load_generation_config(spec.model.source)
        self.end_ids, self.pad_id = models.end_ids(generation_config, tokenizer), int(tokenizer.pad_token_id)
        steps = [step for step in spec.steps if isinstance(step, SampleStep)]
        self.taken = {step.output: settings_taken(step, generation_config) for step in steps}
        self.requests = {step.output: read_requests(step, self.renderer, context, spec.seed) for step in steps}
        for step in steps:
            refuse_top_p_with_min_p(step.model_copy(update=self.taken[step.output]))
        size = self.settings.tensor_parallel
        self.group = replace(rank, rank=rank.rank // size, world_size=rank.world_size // size)
        self.vllm: VllmProcess | None = None
        if rank.rank % size == 0:
            lengths = [len(r.prompt_ids) + step.max_new_tokens for step in steps for r in self.requests[step.output]]
            self.vllm = VllmProcess(
                self.settings,
                Path(spec.model.source),
                str(zero.dtype(spec.deepspeed)).removeprefix("torch."),
                max(lengths, default=1),
                any(step.stop for step in steps),
                own_gpus(rank.local_rank, size),
            )
        dist.barrier()

    def do(self, step: SampleStep) -> dict[str, Any]:
        """Does one step; returns its result (see `job_spec`) with `step_seconds` and `peak_bytes`."""
        started = time.monotonic()
        taken = self.taken[step.output]
        step = step.model_copy(update=taken)
        too_long = too_long_prompts(step, self.requests[step.output])
        requests = unfinished_requests(step, self.rank, self.requests[step.output])
        own = [] if self.vllm is None else share_of(self.group, requests, length_and_key)
        stop = stop_texts(step, self.renderer)
        completions = self._completions(step, own, stop)
        result = write_samples(step, self.group, self.renderer, stop, own, len(requests), completions, CPU)
        return {
            **result,
            "too_long": too_long,
            "weights": f"vLLM {self.settings.release}",
            "preset": taken if step.preset else None,
            "smaller_batches": None,
            "step_seconds": time.monotonic() - started,
            "peak_bytes": zero.peak_bytes(CPU),
        }

    def _completions(self, step: SampleStep, requests: list[Request], stop: StopTexts | None) -> Iterator[Completion]:
        if self.vllm is not None:
            yield from self.vllm.complete(requests, limits_of(step, self.end_ids, self.pad_id, stop), step.stop)

    def close(self) -> None:
        """Ends vLLM."""
        if self.vllm is not None:
            self.vllm.close()


def refuse_top_p_with_min_p(step: SampleStep) -> None:
    """Raises ConfigError for the two together, which a preset may bring; `config.sampling` refuses what is set."""
    if step.top_p is not None and step.min_p is not None:
        raise ConfigError(
            "sampling.preset: the model's generation_config.json leads to top_p and min_p together, and vLLM applies "
            "min_p first: remove the preset and set one of them, or set sampling.engine to transformers"
        )


def own_gpus(first: int, count: int) -> list[str]:
    """The GPUs of a rank that has vLLM, as in `CUDA_VISIBLE_DEVICES`: its own, and those of the ranks after it.

    Args:
        first: the rank's place on its machine.
    """
    if zero.is_on_cpu():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = visible.split(",") if visible else [str(number) for number in range(first + count)]
    return known[first : first + count]
