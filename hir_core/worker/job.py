"""A job's steps on one rank: the model is loaded once, then trained, saved and sampled from, as `job.json` says.

Reads `job.json`, tables of triples, and weights; writes model folders into drafts. The driver commits a draft once the
step is done. Sampling is in `samples`, scoring in `logprobs`; jobs of reward models are in
`reward_model`, those of vLLM in `vllm_job`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import polars as pl
import torch
from torch import distributed as dist

from hir_core.config import HubModel
from hir_core.errors import ConfigError, NumericalError
from hir_core.launch import end_requests
from hir_core.launch.job_spec import (
    JobSpec,
    LogprobStep,
    SampleStep,
    SaveResult,
    SaveStep,
    ScoreStep,
    TrainResult,
    TrainStep,
)
from hir_core.launch.rank import Rank
from hir_core.modeling import adapters, attention, models, optimizer_state, saving, weight_checks, zero
from hir_core.modeling.rendering import renderer_of
from hir_core.progress import Progress
from hir_core.sampling.preset import settings_taken
from hir_core.store.files import read_parts, writing
from hir_core.store.training_log import TrainingStep, write_training_log
from hir_core.training import packing_check, preflight, teacher, trainer
from hir_core.training.batches import BatchLayout
from hir_core.training.checkpoints import Checkpoints
from hir_core.training.triple_loss import TripleLoss
from hir_core.worker import between_jobs
from hir_core.worker.logprobs import score_logprobs
from hir_core.worker.reward_model import Classifier
from hir_core.worker.samples import complete_prompts, read_requests
from hir_core.worker.vllm_job import VllmJob


class Jobs:
    """The jobs of this rank, each begun as a process of its own would begin it; they share the process group only.

    Args:
        rank: at the first job.
    """

    def __init__(self, rank: Rank) -> None:
        is_drawn_by_vllm = JobSpec.read(rank.job_dir).engine is not None
        self._device = zero.connect(rank.local_rank, rank.collective_timeout_s, uses_device=not is_drawn_by_vllm)
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
        job = self._job(rank, spec)
        for number, step in enumerate(spec.steps):
            result = job.do(step)
            dist.barrier()
            rank.step_done(number, result)
        if isinstance(job, VllmJob):
            job.close()
        elif rank.stays:
            between_jobs.discard(job.engine)

    def _job(self, rank: Rank, spec: JobSpec) -> Any:
        if spec.engine is not None:
            return VllmJob(rank, spec)
        is_scoring = any(isinstance(step, ScoreStep) for step in spec.steps)
        return Classifier(rank, spec, self._device) if is_scoring else Job(rank, spec, self._device)


class Job:
    """One rank's model, tokenizer and engine, and the steps that use them."""

    def __init__(self, rank: Rank, spec: JobSpec, device: torch.device) -> None:
        self.rank, self.spec, self.device = rank, spec, device
        rank.progress(Progress("load"))
        source, revision = self._source()
        self.tokenizer = models.load_tokenizer(source, revision)
        with zero.loading(spec.deepspeed):
            self.model = models.load_model(source, zero.dtype(spec.deepspeed), revision)
        attention.draw_with(self.model, spec.model.attention)
        if spec.adapter is not None:
            adapters.add(self.model, spec.adapter, spec.seed)
        if (weight := weight_checks.unusable_weight(self.model, device)) is not None:
            raise ConfigError(
                f"model.source: {weight} of `{source}` {weight_checks.UNUSABLE}, so its outputs mean nothing: the file "
                "is damaged, or what trained it went wrong: choose another model"
            )
        is_encoder_decoder = bool(self.model.config.is_encoder_decoder)
        self.renderer = renderer_of(spec.model, self.tokenizer, ends_prompt=is_encoder_decoder)
        self.layout = BatchLayout(
            pad_id=int(self.tokenizer.pad_token_id),
            end_ids=tuple(models.end_ids(self.model.generation_config, self.tokenizer)),
            decoder_start_id=self.model.config.decoder_start_token_id if is_encoder_decoder else None,
            device=device,
        )
        # Before the first step, so that settings that cannot be, or a prompt that does not fit, end the job at once.
        limit = models.context_length(self.model)
        for step in spec.steps:
            if isinstance(step, SampleStep):
                settings_taken(step, self.model.generation_config)
        self.requests = {
            step.output: read_requests(step, self.renderer, limit, spec.seed)
            for step in spec.steps
            if isinstance(step, SampleStep)
        }
        self.engine: Any = None
        self.training_steps: list[TrainingStep] = []
        """Those of the training whose model is saved next."""
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
            with attention.trained_with(self.model, self.spec.model.attention, self.device):
                result = self.train(step)
        elif isinstance(step, SaveStep):
            result = self.save(step)
        elif isinstance(step, LogprobStep):
            result = score_logprobs(step, self.rank, self.model.eval(), self.renderer, self.layout)
        else:
            requests = self.requests[step.output]
            settings = self.spec.deepspeed
            result = complete_prompts(step, self.rank, self.model, self.renderer, self.layout, requests, settings)
        seconds = time.monotonic() - started
        return {**result, "step_seconds": seconds, "peak_bytes": zero.peak_bytes(self.device)}

    def train(self, step: TrainStep) -> TrainResult:
        """Trains on the step's triples, after the checks of `preflight`; from its checkpoint on, where there is one.

        What depends on the model at the start of training is computed before a checkpoint replaces its weights.
        """
        training = step.training
        triples = read_parts(step.triples)
        samples = None
        if step.samples is not None:
            queries = read_parts(step.prompts).select("prompt_id", "query", "history")
            samples = preflight.compared_samples(read_parts(step.samples)).join(
                queries, on="prompt_id", how="left", validate="m:1", maintain_order="left"
            )
        examples = trainer.read_examples(triples, self.renderer, training)
        if too_long := preflight.too_long_triples(examples, self.model):
            triples = triples.filter(~pl.col("triple_id").is_in(too_long))
            examples = trainer.read_examples(triples, self.renderer, training)
        preflight.check_triples(examples, triples, samples, self.renderer, self.layout)
        del triples  # their texts would stay in memory while the model is trained
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
                module, examples, self.layout, training.micro_batch_tokens, training.exclusion_top
            )
        layout = packing_check.choose_layout(module, examples, self.layout, training, seed)
        with end_requests.deferred() as request:
            checkpoints = Checkpoints(
                self.engine, self.model, step.checkpoints, training.checkpoint_every_s, request, self.rank.progress
            )
            trained = trainer.train(self.engine, examples, training, layout, seed, checkpoints.report, checkpoints)
        result, self.training_steps = trained
        zero.end_training(self.engine, self.model)
        if not any(isinstance(later, SaveStep) and later.optimizer_state != "none" for later in self.spec.steps):
            zero.release_optimizer(self.engine)  # otherwise once its state is saved
        if (weight := weight_checks.unusable_weight(self.model, self.device)) is not None:
            raise NumericalError(f"after training: {weight} {weight_checks.UNUSABLE}; {trainer.advice(training)}")
        result["too_long"] = len(too_long)
        if gap is not None:
            result["logprob_gap"] = gap
        return result

    def save(self, step: SaveStep) -> SaveResult:
        """Writes weights shard by shard, config, tokenizer, optimizer steps, and the optimizer's state if it is kept.

        With an adapter, either the adapter in place of the weights, or the weights with the adapter merged into them:
        the model in memory is then that too. Files of a killed launch are deleted first; checkpoints stay
        until the model is committed.
        """
        self.rank.progress(Progress("save"))
        folder = step.output
        if self.rank.rank == 0:
            with writing(folder):
                for path in folder.iterdir():
                    if not path.is_dir():
                        path.unlink()
                if step.base is None:
                    self.model.config.save_pretrained(folder)
                    self.model.generation_config.save_pretrained(folder)
                self.tokenizer.save_pretrained(folder)
            if self.training_steps:
                write_training_log(folder, self.training_steps)
        dist.barrier()
        if step.base is None:
            zero.merge_adapter(self.model)
            weight_bytes = saving.save_weights(self.model, folder)
        else:
            weight_bytes = saving.save_adapter(self.model, step.base, folder)
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
