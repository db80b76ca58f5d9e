"""A job's steps on one rank: the model is loaded once, then trained, saved and sampled from, as `job.json` says.

Reads `job.json`, tables of triples and requests, and weights; writes parts of Samples and Logprobs and model folders
into drafts. The driver commits a draft once the step is done. Jobs of reward models are in `reward_model`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import polars as pl
import torch
from torch import distributed as dist

from hir_core.config import HubModel
from hir_core.errors import ConfigError, NumericalError
from hir_core.launch.job_spec import (
    JobSpec,
    LogprobStep,
    SampleResult,
    SampleStep,
    SaveResult,
    SaveStep,
    ScoreStep,
    TrainResult,
    TrainStep,
)
from hir_core.launch.rank import Rank
from hir_core.modeling import adapters, models, optimizer_state, weight_checks, zero
from hir_core.modeling.data_parallel import Meter, PartWriter, finished_keys, share_of
from hir_core.modeling.rendering import Renderer
from hir_core.progress import Progress
from hir_core.sampling import memory, smaller_batches, transformers_engine
from hir_core.schemas import Samples, content_key
from hir_core.store.files import read_parts, writing
from hir_core.training import packing_check, preflight, teacher, trainer
from hir_core.training.batches import BatchLayout
from hir_core.training.triple_loss import TripleLoss
from hir_core.worker import between_jobs
from hir_core.worker.logprobs import score_logprobs
from hir_core.worker.reward_model import Classifier


class Jobs:
    """The jobs of this rank, each begun as a process of its own would begin it; they share the process group only.

    Args:
        rank: at the first job.
    """

    def __init__(self, rank: Rank) -> None:
        self._device = zero.connect(rank.local_rank, rank.collective_timeout_s)
        self._initial_seed = torch.initial_seed()

    def do(self, rank: Rank) -> None:
        """Does every step of the job, and reports each with its result once all ranks have done it."""
        spec = JobSpec.read(rank.job_dir)
        between_jobs.begin(self._initial_seed, self._device)
        self._do_steps(rank, spec)
        if rank.stays:
            between_jobs.free_memory(self._device)
        else:
            dist.destroy_process_group()

    def _do_steps(self, rank: Rank, spec: JobSpec) -> None:
        is_scoring = any(isinstance(step, ScoreStep) for step in spec.steps)
        job: Any = Classifier(rank, spec, self._device) if is_scoring else Job(rank, spec, self._device)
        for number, step in enumerate(spec.steps):
            result = job.do(step)
            dist.barrier()
            rank.step_done(number, result)
        if rank.stays:
            between_jobs.discard(job.engine)


class Job:
    """One rank's model, tokenizer and engine, and the steps that use them."""

    def __init__(self, rank: Rank, spec: JobSpec, device: torch.device) -> None:
        self.rank, self.spec, self.device = rank, spec, device
        rank.progress(Progress("load"))
        source, revision = self._source()
        self.tokenizer = models.load_tokenizer(source, revision)
        with zero.loading(spec.deepspeed):
            self.model = models.load_model(source, zero.dtype(spec.deepspeed), revision)
        if spec.adapter is not None:
            adapters.add(self.model, spec.adapter, spec.seed)
        if (weight := weight_checks.unusable_weight(self.model, device)) is not None:
            raise ConfigError(
                f"model.source: {weight} of `{source}` {weight_checks.UNUSABLE}, so its outputs mean nothing: the file "
                "is damaged, or what trained it went wrong: choose another model"
            )
        is_encoder_decoder = bool(self.model.config.is_encoder_decoder)
        self.renderer = Renderer(self.tokenizer, spec.model.template, ends_prompt=is_encoder_decoder)
        self.layout = BatchLayout(
            pad_id=int(self.tokenizer.pad_token_id),
            end_ids=tuple(models.end_ids(self.model, self.tokenizer)),
            decoder_start_id=self.model.config.decoder_start_token_id if is_encoder_decoder else None,
            device=device,
        )
        # All prompts are rendered before the first step, so that one that does not fit ends the job at once.
        limit = models.context_length(self.model)
        self.requests = {
            step.output: read_requests(step, self.renderer, limit, spec.seed)
            for step in spec.steps
            if isinstance(step, SampleStep)
        }
        self.engine: Any = None
        if not any(isinstance(step, TrainStep) for step in spec.steps):
            self.engine = zero.engine_for_inference(self.model, spec.deepspeed, device)

    def _source(self) -> tuple[str, str | None]:
        """Name or folder and revision of the model; a GGUF or scratch model is first written to a folder of the job."""
        spec = self.spec
        if isinstance(spec.model, HubModel):
            return spec.model.source, spec.model.revision
        folder = self.rank.job_dir / "model"
        if self.rank.rank == 0:
            with writing(folder):
                folder.mkdir(exist_ok=True)
            texts = pl.read_parquet(spec.texts)["text"].to_list() if spec.texts else []
            models.materialise(spec.model, folder, texts, spec.seed)
        dist.barrier()
        return str(folder), None

    def do(self, step: TrainStep | SaveStep | SampleStep | LogprobStep) -> dict[str, Any]:
        """Does one step; returns its result (see `job_spec`) with `step_seconds` and `peak_bytes`."""
        started = time.monotonic()
        result: Mapping[str, object]
        if isinstance(step, TrainStep):
            result = self.train(step)
        elif isinstance(step, SaveStep):
            result = self.save(step)
        elif isinstance(step, LogprobStep):
            result = score_logprobs(step, self.rank, self.model.eval(), self.renderer, self.layout)
        else:
            result = self.sample(step)
        seconds = time.monotonic() - started
        return {**result, "step_seconds": seconds, "peak_bytes": zero.peak_bytes(self.device)}

    def train(self, step: TrainStep) -> TrainResult:
        """Trains on the step's triples, after the checks of `preflight`."""
        training = step.training
        triples = read_parts(step.triples)
        samples = None
        if step.samples is not None:
            queries = read_parts(step.prompts).select("prompt_id", "query", "history")
            samples = read_parts(step.samples).join(
                queries, on="prompt_id", how="left", validate="m:1", maintain_order="left"
            )
        examples = trainer.read_examples(triples, self.renderer, training)
        preflight.check_lengths(examples, self.model)
        preflight.check_triples(examples, triples, samples, self.renderer, self.layout)
        if training.activation_checkpointing:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        module = TripleLoss(self.model, trainer.coefficients(training), training.logits_chunk)
        self.engine = zero.engine_for_training(module, self.spec.deepspeed, training)
        if step.optimizer_state is not None:
            optimizer_state.restore(self.engine, self.model, step.optimizer_state)
        gap = None if samples is None else preflight.check_logprobs(module, samples, self.layout, training)
        seed = (self.spec.seed, step.iteration)
        if training.exclusion and training.exclusion_loss == "conditioned":
            examples = teacher.with_soft_targets(
                module, examples, self.layout, training.micro_batch_size, training.exclusion_top
            )
        layout = packing_check.choose_layout(module, examples, self.layout, training, seed)
        result = trainer.train(self.engine, examples, training, layout, seed, self.rank.progress)
        if self.spec.adapter is not None:
            # ZeRO-3 may have begun to gather weights for a backward pass that frozen layers have none of.
            self.engine.empty_partition_cache()
        if not any(isinstance(later, SaveStep) and later.optimizer_state != "none" for later in self.spec.steps):
            zero.release_optimizer(self.engine)  # otherwise once its state is saved
        if (weight := weight_checks.unusable_weight(self.model, self.device)) is not None:
            raise NumericalError(f"after training: {weight} {weight_checks.UNUSABLE}; {trainer.advice(training)}")
        if gap is not None:
            result["logprob_gap"] = gap
        return result

    def save(self, step: SaveStep) -> SaveResult:
        """Writes the weights shard by shard, with config and tokenizer, and the state of the optimizer if it is kept.

        With an adapter, either the adapter in place of the weights, or the weights with the adapter merged into them:
        the model in memory is then that too. Files of a killed launch are deleted first.
        """
        self.rank.progress(Progress("save"))
        folder = step.output
        if self.rank.rank == 0:
            with writing(folder):
                for path in folder.iterdir():
                    path.unlink()
                if step.base is None:
                    self.model.config.save_pretrained(folder)
                    self.model.generation_config.save_pretrained(folder)
                self.tokenizer.save_pretrained(folder)
        dist.barrier()
        if step.base is None:
            zero.merge_adapter(self.model)
            weight_bytes = zero.save_weights(self.model, folder)
        else:
            weight_bytes = zero.save_adapter(self.model, step.base, folder)
        state_bytes = 0
        if step.optimizer_state != "none":
            has_moments = step.optimizer_state == "all"
            state_bytes = optimizer_state.save(self.engine, self.model, folder, moments=has_moments)
            zero.release_optimizer(self.engine)
        return {
            "weight_bytes": weight_bytes,
            "optimizer_state_bytes": state_bytes,
            "parameters": adapters.parameter_count(self.model),
            "made_with": zero.software_and_devices(self.model, self.device),
        }

    def sample(self, step: SampleStep) -> SampleResult:
        """Completes every prompt whose samples are in no finished part yet."""
        finished = finished_keys(self.rank, step.output, "prompt_id")
        requests = [request for request in self.requests[step.output] if request.key not in finished]
        own = share_of(self.rank, requests, lambda request: (len(request.prompt_ids), request.key))
        requests_by_key = {request.key: request for request in own}
        weights = memory.sampling_weights(self.model, step, requests, self.device)
        streamed = memory.streamed_bytes(self.model, self.spec.deepspeed) if weights.is_streamed else 0
        batch_limit = memory.BatchLimit(memory.RowEstimate.of(self.model, step), self.device, streamed)
        writer = PartWriter(self.rank, step.output, Samples.create_empty().schema, step.write_every_s)
        meter = Meter(self.rank, step.name, "samples", len(requests) * step.k, len(own) * step.k)
        completions = self._completions(step, own, weights, batch_limit)
        # A prompt's rows are written together: prompts in a part count as finished.
        for key, group in groupby(completions, key=lambda completion: completion.key):
            rows = list(group)
            writer.add([sample_row(step, requests_by_key[key], c, self.renderer.text(list(c.token_ids))) for c in rows])
            meter.add(len(rows), sum(len(completion.token_ids) for completion in rows))
        writer.close(len(own) * step.k)
        smaller = memory.smaller_batches(batch_limit, requests, self.device)
        return {**meter.result(self.device), "weights": weights.reason, "smaller_batches": smaller}

    def _completions(
        self,
        step: SampleStep,
        requests: Sequence[transformers_engine.Request],
        weights: memory.SamplingWeights,
        batch_limit: memory.BatchLimit,
    ) -> Iterator[transformers_engine.Completion]:
        """The completions of this rank's prompts; with streamed weights in batches, of which all ranks have as many."""
        limits = transformers_engine.Limits(
            step.temperature, step.max_new_tokens, self.layout.end_ids, self.layout.pad_id
        )
        model, device = weights.model, self.device
        batch_limit.measure()
        if not weights.is_streamed:
            yield from smaller_batches.complete_in_memory(model, requests, limits, device, batch_limit)
            return
        eos = (int(self.tokenizer.eos_token_id),)
        idle = transformers_engine.Request(key="", prompt_ids=eos, seeds=(0,))
        waiting = transformers_engine.longest_first(requests)
        while self._any_rank_is_unfinished(bool(waiting)):
            batch = transformers_engine.take_batch(waiting, batch_limit.rows) or [idle]
            completions = transformers_engine.complete(model, batch, limits, device, None, self._any_rank_is_unfinished)
            yield from (completion for completion in completions if completion.key != idle.key)
            batch_limit.measure()

    def _any_rank_is_unfinished(self, is_unfinished: bool) -> bool:
        flag = torch.tensor([int(is_unfinished)], device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)


def read_requests(
    step: SampleStep, renderer: Renderer, room: int | None, seed: int
) -> list[transformers_engine.Request]:
    """The step's prompts, rendered, with the seeds of their samples.

    Args:
        room: tokens of the model's context; None: no limit.
        seed: of the run.

    Raises:
        ConfigError: a prompt is too long for the context, or the template cannot render its turns; names the prompt.
    """
    requests = []
    for prompt_id, query, history in pl.read_parquet(step.requests).select("prompt_id", "query", "history").iter_rows():
        of = f"prompt {prompt_id}"
        ids = tuple(renderer.prompt_ids(step.instruction, query, history, of=of))
        if room is not None and len(ids) + step.max_new_tokens > room:
            if step.too_long == "leave out":
                continue
            raise ConfigError(
                f"{of} has {len(ids)} tokens, which with {step.max_new_tokens} new tokens is more than the model's "
                f"context of {room}: shorten it, or lower sampling.max_new_tokens"
            )
        seeds = tuple(transformers_engine.row_seed(seed, step.iteration, prompt_id, k) for k in range(step.k))
        requests.append(transformers_engine.Request(prompt_id, ids, seeds))
    return requests


def sample_row(
    step: SampleStep, request: transformers_engine.Request, completion: transformers_engine.Completion, text: str
) -> dict[str, Any]:
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
        "finish_reason": "eos" if completion.ended else "length",
        "seed": request.seeds[completion.k],
    }
