"""The steps of a job: the model is loaded once, then trained, saved and sampled from, in the order of `job.json`.

Reads `job.json`, tables of triples and requests, and weights; writes Samples parts and model folders into drafts.
Commits nothing: the driver does, once a step says that it is done.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import distributed as dist

from hir_core import models, trainer, zero
from hir_core.errors import ConfigError
from hir_core.jobspec import JobSpec, SampleStep, SaveStep, TrainStep
from hir_core.losses import TripleLoss
from hir_core.parts import finished_parts, list_parts, read_parts, write_part
from hir_core.rank import Progress, Rank
from hir_core.rendering import Renderer
from hir_core.samplers import hf
from hir_core.schemas import Prompts, Samples, Triples, as_declared, content_key
from hir_core.sections import HubModel


def run_job(rank: Rank) -> None:
    """Does every step of the job and says so after each."""
    spec = JobSpec.read(rank.job_dir)
    device = zero.connect(rank.local_rank)
    job = Job(rank, spec, device)
    for number, step in enumerate(spec.steps):
        facts = job.do(step)
        dist.barrier()
        rank.step_done(number, facts)
    dist.destroy_process_group()


class Job:
    """One rank's model, tokenizer and engine, and the steps on them."""

    def __init__(self, rank: Rank, spec: JobSpec, device: torch.device) -> None:
        self.rank, self.spec, self.device = rank, spec, device
        source, revision = self._source()
        self.tokenizer = models.load_tokenizer(source, revision)
        with zero.loading(spec.deepspeed):
            self.model = models.load_model(source, zero.dtype(spec.deepspeed), revision)
        is_pair = bool(self.model.config.is_encoder_decoder)
        self.renderer = Renderer(self.tokenizer, spec.model.template, ends_prompt=is_pair)
        start = self.model.config.decoder_start_token_id if is_pair else None
        ends = tuple(models.end_ids(self.model, self.tokenizer))
        self.layout = trainer.Layout(int(self.tokenizer.pad_token_id), ends, start, device)
        steps, room = [step for step in spec.steps if isinstance(step, SampleStep)], models.context_length(self.model)
        self.requests = {step.output: read_requests(step, self.renderer, room, spec.seed) for step in steps}
        self.engine: Any = None
        if not any(isinstance(step, TrainStep) for step in spec.steps):
            self.engine = zero.engine_for_inference(self.model, spec.deepspeed, device)

    def do(self, step: TrainStep | SaveStep | SampleStep) -> dict[str, Any]:
        """Does one step and returns what is worth knowing about it."""
        started = time.monotonic()
        if isinstance(step, TrainStep):
            facts = self.train(step)
        elif isinstance(step, SaveStep):
            facts = self.save(step.output)
        else:
            facts = self.sample(step)
        return {**facts, "step_seconds": time.monotonic() - started}

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
        trainer.check_lengths(examples, self.model)
        trainer.self_test(examples, triples, samples, self.renderer, self.layout)
        if training.activation_checkpointing:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        module = TripleLoss(self.model, trainer.coefficients(training), training.logits_chunk)
        self.engine = zero.engine_for_training(module, self.spec.deepspeed, training)
        gap = {} if samples is None else {"logprob_gap": trainer.check_logprobs(module, samples, self.layout, training)}
        started = time.monotonic()

        def report(done: int, total: int, terms: dict[str, float]) -> None:
            seconds = time.monotonic() - started
            self.rank.progress(Progress("train", done, total, "steps", seconds=seconds, loss=terms["loss"]))

        seed = (self.spec.seed, step.iteration)
        facts = trainer.train(self.engine, examples, training, self.layout, seed, report)
        zero.release_optimizer(self.engine)
        return {**facts, **gap}

    # --- save --------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes the weights shard by shard, with config and tokenizer; a folder left by a crash is written anew."""
        self.rank.progress(Progress("save", 0, 1, "models"))
        if self.rank.rank == 0:
            for path in folder.iterdir():
                path.unlink()
            self.model.config.save_pretrained(folder)
            self.model.generation_config.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        dist.barrier()
        written = zero.save_weights(self.model, folder)
        parameters = sum(getattr(p, "ds_numel", p.numel()) for p in self.model.parameters())
        return {"weight_bytes": written, "parameters": parameters}

    # --- sample ------------------------------------------------------------------------------------------------------

    def sample(self, step: SampleStep) -> dict[str, Any]:
        """Completes every prompt that no finished part holds yet."""
        if self.rank.rank == 0:
            finished_parts(step.output)  # drops what a power cut left unreadable, before any rank reads
        dist.barrier()
        done = _finished_prompts(step.output)
        dist.barrier()  # all ranks have looked before any rank writes
        requests = [request for request in self.requests[step.output] if request.key not in done]
        mine = sorted(requests, key=lambda r: (len(r.prompt_ids), r.key))[self.rank.rank :: self.rank.world_size]
        work = hf.batches(mine, step.max_new_tokens, step.batch_tokens)
        model, streamed, why = zero.sampling_weights(self.model, step.zero3_weights, self.device)
        writer = PartWriter(step, {request.key: request for request in mine})
        started, progress = time.monotonic(), _Meter(self.rank, step, len(requests) * step.k, len(mine) * step.k)
        with torch.no_grad():
            for batch in self._in_step(work) if streamed else work:
                completions = hf.complete(
                    model, batch, self._limits(step), self.device, self._anyone if streamed else None
                )
                writer.add([c for c in completions if c.key], self.renderer)
                progress.add(completions)
        writer.flush()
        seconds = time.monotonic() - started
        rows, tokens = self._summed([progress.rows, progress.tokens])
        rate = tokens / seconds if tokens else None
        return {"rows": rows, "tokens": tokens, "seconds": seconds, "tokens_per_s": rate, "weights": why}

    def _limits(self, step: SampleStep) -> hf.Limits:
        layout = self.layout
        return hf.Limits(step.temperature, step.max_new_tokens, layout.end_ids, layout.pad_id, step.guidance)

    def _in_step(self, work: Sequence[Sequence[hf.Request]]) -> list[list[hf.Request]]:
        """This rank's batches, filled up with idle ones so that all ranks have as many as the longest list."""
        most = torch.tensor([len(work)], device=self.device)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        nothing = (int(self.tokenizer.eos_token_id),)
        idle = hf.Request("", nothing, (0,), nothing)
        return [*map(list, work), *[[idle]] * (int(most) - len(work))]

    def _anyone(self, is_writing: bool) -> bool:
        flag = torch.tensor([int(is_writing)], device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)

    def _summed(self, values: Sequence[int]) -> list[int]:
        found = torch.tensor(values, device=self.device)
        dist.all_reduce(found)
        return [int(value) for value in found]


def read_requests(step: SampleStep, renderer: Renderer, room: int | None, seed: int) -> list[hf.Request]:
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
            raise ConfigError(
                f"{of} has {longest} tokens, which with {step.max_new_tokens} new tokens is more than the model's "
                f"context of {room}: shorten it, or lower sampling.max_new_tokens"
            )
        seeds = tuple(hf.row_seed(seed, step.iteration, prompt_id, k) for k in range(step.k))
        requests.append(hf.Request(prompt_id, ids, seeds, against))
    return requests


class PartWriter:
    """Turns completions into Samples rows and writes them as parts named after their first row."""

    def __init__(self, step: SampleStep, requests: dict[str, hf.Request]) -> None:
        self.step, self.requests = step, requests
        self.rows: list[dict[str, Any]] = []
        self.flushed = time.monotonic()

    def add(self, completions: Sequence[hf.Completion], renderer: Renderer) -> None:
        for completion in completions:
            self.rows.append(self._row(completion, renderer))
        if time.monotonic() - self.flushed > self.step.write_every_s:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            frame = pl.DataFrame(self.rows, schema=Samples.create_empty().schema)
            write_part(self.step.output, self.rows[0]["sample_id"], frame)
        self.rows, self.flushed = [], time.monotonic()

    def _row(self, completion: hf.Completion, renderer: Renderer) -> dict[str, Any]:
        request, step = self.requests[completion.key], self.step
        return {
            "sample_id": content_key(step.version, completion.key, completion.k),
            "prompt_id": completion.key,
            "model": step.model,
            "instruction": step.instruction,
            "k": completion.k,
            "prompt_ids": list(request.prompt_ids),
            "completion": renderer.text(list(completion.token_ids)),
            "completion_ids": list(completion.token_ids),
            "logprobs": list(completion.logprobs),
            "finish_reason": "eos" if completion.ended else "length",
            "seed": request.seeds[completion.k],
        }


class _Meter:
    """Counts rows and tokens of this rank and reports the whole launch's progress from its own share."""

    def __init__(self, rank: Rank, step: SampleStep, total: int, own: int) -> None:
        self.rank, self.step, self.total, self.own = rank, step, total, own
        self.rows = self.tokens = 0
        self.started = time.monotonic()

    def add(self, completions: Sequence[hf.Completion]) -> None:
        written = [completion for completion in completions if completion.key]
        self.rows += len(written)
        self.tokens += sum(len(completion.token_ids) for completion in written)
        share = self.rows / self.own if self.own else 1.0
        seconds, tokens = time.monotonic() - self.started, self.tokens * self.rank.world_size
        done = round(share * self.total)
        self.rank.progress(Progress(self.step.name, done, self.total, "samples", tokens=tokens, seconds=seconds))


def _with_queries(samples: pl.DataFrame, folder: Path) -> pl.DataFrame:
    prompts = as_declared(Prompts, read_parts(folder)).select("prompt_id", "query", "history")
    return samples.join(prompts, on="prompt_id", how="left", validate="m:1", maintain_order="left")


def _finished_prompts(folder: Path) -> set[str]:
    if not list_parts(folder):
        return set()
    return set(read_parts(folder, ["prompt_id"])["prompt_id"].to_list())
