"""The steps of a job: the model is loaded once, then trained, saved, sampled from, asked, as `job.json` says.

Reads `job.json`, tables of triples and requests, and weights; writes Samples parts and model folders into drafts.
Commits nothing: the driver does, once a step says that it is done.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import distributed as dist

from hir_core.config import HubModel
from hir_core.errors import ConfigError
from hir_core.launch.job_spec import JobSpec, LogprobStep, SampleStep, SaveStep, ScoreStep, TrainStep
from hir_core.launch.rank import Rank
from hir_core.modeling import models, zero
from hir_core.modeling.data_parallel import Meter, PartWriter, as_many_as_any_rank, finished_keys
from hir_core.modeling.rendering import Renderer
from hir_core.progress import Progress
from hir_core.sampling import transformers_engine
from hir_core.schemas import Prompts, Samples, Triples, as_declared, content_key
from hir_core.store.files import read_parts
from hir_core.training import preflight, trainer
from hir_core.training.batches import Layout
from hir_core.training.losses import TripleLoss
from hir_core.worker.logprobs import score_logprobs
from hir_core.worker.reward_model import Classifier


def run_job(rank: Rank) -> None:
    """Does every step of the job and says so after each."""
    spec = JobSpec.read(rank.job_dir)
    device = zero.connect(rank.local_rank)
    is_scoring = any(isinstance(step, ScoreStep) for step in spec.steps)
    job: Any = Classifier(rank, spec, device) if is_scoring else Job(rank, spec, device)
    for number, step in enumerate(spec.steps):
        facts = job.do(step)
        dist.barrier()
        rank.step_done(number, facts)
    dist.destroy_process_group()


class Job:
    """One rank's model, tokenizer and engine, and the steps on them."""

    def __init__(self, rank: Rank, spec: JobSpec, device: torch.device) -> None:
        self.rank, self.spec, self.device = rank, spec, device
        rank.progress(Progress("load"))
        source, revision = self._source()
        self.tokenizer = models.load_tokenizer(source, revision)
        with zero.loading(spec.deepspeed):
            self.model = models.load_model(source, zero.dtype(spec.deepspeed), revision)
        is_pair = bool(self.model.config.is_encoder_decoder)
        self.renderer = Renderer(self.tokenizer, spec.model.template, ends_prompt=is_pair)
        start = self.model.config.decoder_start_token_id if is_pair else None
        ends = tuple(models.end_ids(self.model, self.tokenizer))
        self.layout = Layout(int(self.tokenizer.pad_token_id), ends, start, device)
        steps, room = [step for step in spec.steps if isinstance(step, SampleStep)], models.context_length(self.model)
        self.requests = {step.output: read_requests(step, self.renderer, room, spec.seed) for step in steps}
        self.engine: Any = None
        if not any(isinstance(step, TrainStep) for step in spec.steps):
            self.engine = zero.engine_for_inference(self.model, spec.deepspeed, device)

    def do(self, step: TrainStep | SaveStep | SampleStep | LogprobStep) -> dict[str, Any]:
        """Does one step and returns what is worth knowing about it."""
        started = time.monotonic()
        if isinstance(step, TrainStep):
            facts = self.train(step)
        elif isinstance(step, SaveStep):
            facts = self.save(step.output)
        elif isinstance(step, LogprobStep):
            facts = score_logprobs(step, self.rank, self.model.eval(), self.renderer, self.layout)
        else:
            facts = self.sample(step)
        seconds = time.monotonic() - started
        return {**facts, "step_seconds": seconds, "peak_bytes": zero.peak_bytes(self.device)}

    def _source(self) -> tuple[str, str | None]:
        """Where to load from; sources that cannot be loaded as they are become a folder of this job first."""
        spec = self.spec
        if isinstance(spec.model, HubModel):
            return spec.model.source, spec.model.revision
        folder = self.rank.job_dir / "model"
        if self.rank.rank == 0:
            folder.mkdir(exist_ok=True)
            texts = pl.read_parquet(spec.texts)["text"].to_list() if spec.texts else []
            models.materialise(spec.model, folder, texts, spec.seed)
        dist.barrier()
        return str(folder), None

    # --- train -------------------------------------------------------------------------------------------------------

    def train(self, step: TrainStep) -> dict[str, Any]:
        """Trains on the step's triples, after the checks that guard it."""
        training = step.training
        triples = as_declared(Triples, read_parts(step.triples))
        samples = None if step.samples is None else _with_queries(read_parts(step.samples), step.prompts)
        examples = trainer.read_examples(triples, self.renderer, training)
        preflight.check_lengths(examples, self.model)
        preflight.self_test(examples, triples, samples, self.renderer, self.layout)
        if training.activation_checkpointing:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        module = TripleLoss(self.model, trainer.coefficients(training), training.logits_chunk)
        self.engine = zero.engine_for_training(module, self.spec.deepspeed, training)
        gap = (
            {} if samples is None else {"logprob_gap": preflight.check_logprobs(module, samples, self.layout, training)}
        )
        started = time.monotonic()

        def report(done: int, total: int, tokens: int, loss: float) -> None:
            seconds = time.monotonic() - started
            self.rank.progress(Progress("train", done, total, "steps", tokens=tokens, seconds=seconds, loss=loss))

        seed = (self.spec.seed, step.iteration)
        facts = trainer.train(self.engine, examples, training, self.layout, seed, report)
        zero.release_optimizer(self.engine)
        return {**facts, **gap}

    # --- save --------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes the weights shard by shard, with config and tokenizer; a folder left by a crash is written anew."""
        self.rank.progress(Progress("save"))
        if self.rank.rank == 0:
            for path in folder.iterdir():
                path.unlink()
            self.model.config.save_pretrained(folder)
            self.model.generation_config.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        dist.barrier()
        written = zero.save_weights(self.model, folder)
        parameters = sum(getattr(p, "ds_numel", p.numel()) for p in self.model.parameters())
        return {"weight_bytes": written, "parameters": parameters, "made_with": zero.made_with(self.device)}

    # --- sample ------------------------------------------------------------------------------------------------------

    def sample(self, step: SampleStep) -> dict[str, Any]:
        """Completes every prompt that no finished part holds yet."""
        done = finished_keys(self.rank, step.output, "prompt_id")
        requests = [request for request in self.requests[step.output] if request.key not in done]
        mine = sorted(requests, key=lambda r: (len(r.prompt_ids), r.key))[self.rank.rank :: self.rank.world_size]
        work = transformers_engine.batches(mine, step.max_new_tokens, step.batch_tokens)
        model, streamed, why = zero.sampling_weights(self.model, step.zero3_weights, self.device)
        if streamed:
            work = as_many_as_any_rank(work, [self._idle()], self.device)
        asked = {request.key: request for request in mine}
        writer = PartWriter(self.rank, step.output, Samples.create_empty().schema, step.write_every_s)
        meter = Meter(self.rank, step.name, "samples", len(requests) * step.k, len(mine) * step.k)
        with torch.no_grad():
            for batch in work:
                found = transformers_engine.complete(
                    model, batch, self._limits(step), self.device, self._anyone if streamed else None
                )
                written = [completion for completion in found if completion.key]
                writer.add([sample_row(step, asked[c.key], c, self.renderer.text(list(c.token_ids))) for c in written])
                meter.add(len(written), sum(len(completion.token_ids) for completion in written))
        writer.close(len(mine) * step.k)
        return {**meter.facts(self.device), "weights": why}

    def _limits(self, step: SampleStep) -> transformers_engine.Limits:
        layout = self.layout
        return transformers_engine.Limits(
            step.temperature, step.max_new_tokens, layout.end_ids, layout.pad_id, step.guidance
        )

    def _idle(self) -> transformers_engine.Request:
        nothing = (int(self.tokenizer.eos_token_id),)
        return transformers_engine.Request("", nothing, (0,), nothing)

    def _anyone(self, is_writing: bool) -> bool:
        flag = torch.tensor([int(is_writing)], device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)


def read_requests(
    step: SampleStep, renderer: Renderer, room: int | None, seed: int
) -> list[transformers_engine.Request]:
    """The step's prompts, rendered.

    Args:
        room: tokens that the model's context has; None where it has no end.
        seed: the run's.

    Raises:
        ConfigError: a prompt leaves no room for an output, or the template has none for its turns; names the prompt.
    """
    requests = []
    for prompt_id, query, history in pl.read_parquet(step.requests).select("prompt_id", "query", "history").iter_rows():
        of = f"prompt {prompt_id}"
        ids = tuple(renderer.prompt_ids(step.instruction, query, history, of=of))
        against = tuple(renderer.prompt_ids(step.against, query, history, of=of)) if step.guidance else ()
        longest = max(len(ids), len(against))
        if room is not None and longest + step.max_new_tokens > room:
            if step.too_long == "leave out":
                continue
            raise ConfigError(
                f"{of} has {longest} tokens, which with {step.max_new_tokens} new tokens is more than the model's "
                f"context of {room}: shorten it, or lower sampling.max_new_tokens"
            )
        seeds = tuple(transformers_engine.row_seed(seed, step.iteration, prompt_id, k) for k in range(step.k))
        requests.append(transformers_engine.Request(prompt_id, ids, seeds, against))
    return requests


def sample_row(
    step: SampleStep, request: transformers_engine.Request, completion: transformers_engine.Completion, text: str
) -> dict[str, Any]:
    """A completion, whose text is given, as a row of Samples."""
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


def _with_queries(samples: pl.DataFrame, folder: Path) -> pl.DataFrame:
    prompts = as_declared(Prompts, read_parts(folder)).select("prompt_id", "query", "history")
    return samples.join(prompts, on="prompt_id", how="left", validate="m:1", maintain_order="left")
