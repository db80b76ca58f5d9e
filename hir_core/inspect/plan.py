"""The plan of a launch: what a config's model would take under each DeepSpeed file, and which of them fit.

Reads the config, the model's config.json and what this machine has; starts nothing, downloads nothing and writes
nothing. The arithmetic is in `launch.memory_estimate`, and its limits are said there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hir_core.config import RunConfig, TrainingConfig
from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS, DeepSpeedFile, read_deepspeed
from hir_core.config.model_shape import ModelShape, find_shape
from hir_core.config.relabel import ExcludeWrongRelabel
from hir_core.config.sampling import AUTO_TOKENS
from hir_core.inspect.machines import Machines
from hir_core.launch.memory_estimate import (
    FP32,
    LEAST_ROWS,
    MARGIN,
    ModelStates,
    Strategy,
    activation_bytes,
    logits_bytes,
    model_states,
    rows_that_fit,
    sampling_row_bytes,
    sampling_weights_bytes,
)

PROCESS_BYTES = 53 * 10**7
"""Main memory of a rank on a CPU without its model: Python, torch and DeepSpeed, 0.15 GB of it pages of their files."""
GLOO_COPIES = 2
"""Layers that ZeRO-3 gathers from other ranks: gloo gathers them into buffers of its own first. One rank gathers none,
since it has them."""
GAPS = 1.5
"""Main memory that activations and logits take over their own sizes, because of gaps between those that are freed. By
mallinfo2(3) the heap of a rank grew to 1.1 to 2.5 times what was in use at most, in 14 launches of a 30M model."""
WITH_CONTRAST = ("hindsight", "learned", "attributes", "python")
"""The relabelers whose triples have contrast instructions: one each, of `attributes` with many levels more."""
CHECKPOINT_TENSORS = 3
"""What a checkpoint of a training holds in fp32 of each parameter: the master weight and AdamW's moments."""
PROMPT_TOKENS = 512
"""Tokens of the longest prompt where nothing else is said."""


@dataclass(frozen=True)
class TrainingBytes:
    """What one device holds while it trains."""

    weights: int
    """Under ZeRO-3 with the layers that are gathered at a time."""
    gradients: int
    """With the buckets in which they are reduced."""
    optimizer: int
    activations: int
    logits: int
    process: int
    """On a CPU what the process takes anyway; 0 on a GPU."""
    total: int
    """The peak, copies of gradients in an optimizer step included: on a GPU activations and logits are gone then."""


@dataclass(frozen=True)
class SamplingBytes:
    """What one device holds while it samples."""

    weights: int
    is_streamed: bool
    """Whether ZeRO-3 gathers the weights layer by layer, for every token."""
    row: int
    rows: int
    """Rows at once; 0 where not even one fits."""


@dataclass(frozen=True)
class FilePlan:
    """One DeepSpeed file."""

    file: str
    is_current: bool
    """Whether the config names it."""
    stage: int
    weight_bytes: int
    training: TrainingBytes
    sampling: SamplingBytes
    host: int
    """Main memory of a machine beside its GPUs; 0 without GPUs, where everything is in `training`."""
    model_disk: int
    """Disk space of the model that each iteration saves."""
    state_disk: int
    """That of the optimizer's state beside it, which is kept for the first model and the newest one."""
    checkpoint_disk: int
    """That of a checkpoint while a model is trained; twice this while it replaces another."""
    problem: str
    """Why it does not fit; empty where it does."""


@dataclass(frozen=True)
class LaunchPlan:
    """What a config's model takes under each file, on given machines."""

    parameters: int
    adapter_parameters: int
    """Those that are trained with LoRA; 0 without it."""
    machines: Machines
    prompt_tokens: int
    new_tokens: int
    rows: int
    """Sequences of a training micro-batch."""
    files: tuple[FilePlan, ...]
    advised: str
    """The config's own file where it fits, else the first of the same number format that does; empty: none does."""
    smaller: tuple[str, ...]
    """Settings, as `key=value`, with which less memory is needed."""
    sampled_tokens: int | None
    """Most new tokens that an iteration samples; None where `sampling.prompts` does not say how many prompts it has."""
    has_hostfile: bool
    """Whether the config names its machines."""


def make_plan(
    config: RunConfig, machines: Machines, prompt_tokens: int | None = None, parameters: int | None = None
) -> LaunchPlan:
    """The plan of a config's launches.

    Args:
        prompt_tokens: of the longest prompt; None: `PROMPT_TOKENS`, or less where the model's context is shorter.
        parameters: of the model, where its config.json does not tell.

    Raises:
        ConfigError: the model's shape cannot be read.
    """
    shape = find_shape(config.model, parameters)
    shape = shape if config.lora is None else shape.with_adapter(config.lora)
    new_tokens = max(config.sampling.max_new_tokens, config.evaluation_tokens)
    prompt = prompt_tokens or max(1, min(PROMPT_TOKENS, shape.context - new_tokens))
    planner = _Planner(config, machines, shape, prompt, new_tokens)
    files = tuple(planner.plan(file) for file in _files(config))
    current = next(file for file in files if file.is_current)
    alike = [file for file in files if file.weight_bytes == current.weight_bytes and not file.problem]
    advised = "" if not alike else current.file if current in alike else alike[0].file
    sampling = config.sampling
    return LaunchPlan(
        parameters=shape.parameters,
        adapter_parameters=shape.adapter,
        machines=machines,
        prompt_tokens=prompt,
        new_tokens=new_tokens,
        rows=max(rows for rows, _ in planner.micro_batches()),
        files=files,
        advised=advised,
        smaller=tuple(planner.smaller()),
        sampled_tokens=sampling.prompts * sampling.k * sampling.max_new_tokens if sampling.prompts else None,
        has_hostfile=config.launch.hostfile is not None or config.launch.launcher in ("external", "slurm"),
    )


def _files(config: RunConfig) -> Iterator[DeepSpeedFile]:
    """The files that come with hir, and the config's own; those that divide least first."""
    own = config.deepspeed
    shipped = [DeepSpeedFile(path, json.dumps(read_deepspeed(path))) for path in SHIPPED_DS_CONFIGS.glob("*.json")]
    if own.path.resolve() not in [file.path for file in shipped]:
        yield own
    for file in sorted(shipped, key=lambda file: (file.settings["zero_optimization"]["stage"], file.path)):
        yield own if file.path == own.path.resolve() else file


def _instructions(config: RunConfig) -> int:
    """The instructions under which a triple of `training` is forwarded; one of `warm_start` always has one."""
    training = config.training
    if isinstance(config.relabel, ExcludeWrongRelabel):
        return 2 if config.relabel.relabel_weight > 0 else 1  # under both instructions
    if training.contrastive > 0 and training.contrast == "batch":
        return training.contrast_ways
    return 2 if training.contrastive > 0 and config.relabel.type in WITH_CONTRAST else 1


@dataclass(frozen=True)
class _Planner:
    config: RunConfig
    machines: Machines
    shape: ModelShape
    prompt: int
    new_tokens: int

    def plan(self, file: DeepSpeedFile) -> FilePlan:
        """What the model takes under one file."""
        strategy = Strategy.of(file.settings)
        states = model_states(self.shape, strategy, self.machines.ranks)
        training, sampling = self._training(strategy, states), self._sampling(strategy)
        whole = strategy.weight_bytes * self.shape.parameters
        # `transformers` loads the whole weights into main memory: on every rank, or for ZeRO-3 on the first one.
        loading = whole if strategy.stage == 3 else self.machines.devices * whole
        host = max(self.machines.devices * states.host, loading) if self.machines.has_gpus else 0
        return FilePlan(
            file=_name(file.path),
            is_current=file is self.config.deepspeed,
            stage=strategy.stage,
            weight_bytes=strategy.weight_bytes,
            training=training,
            sampling=sampling,
            host=host,
            model_disk=strategy.weight_bytes * self.shape.trained,
            state_disk=self._saved_state(strategy),
            checkpoint_disk=CHECKPOINT_TENSORS * FP32 * self.shape.trained,
            problem=self._problem(training, sampling, host),
        )

    def micro_batches(self) -> Iterator[tuple[int, TrainingConfig]]:
        """Most sequences of a micro-batch of `training`, and of `warm_start` where there is one, with the section."""
        config = self.config
        yield self._sequences(config.training, _instructions(config)), config.training
        if config.warm_start is not None:
            yield self._sequences(config.warm_start, 1), config.warm_start

    def _sequences(self, section: TrainingConfig, instructions: int) -> int:
        fitting = section.micro_batch_tokens // (instructions * (self.prompt + self.new_tokens))
        return instructions * max(1, min(fitting, -(-section.batch_size // self.machines.ranks)))

    def smaller(self) -> Iterator[str]:
        """What makes the config need less memory, without changing what it learns."""
        for sequences, section in self.micro_batches():
            name = "training" if section is self.config.training else "warm_start"
            if sequences > (_instructions(self.config) if name == "training" else 1):
                yield f"{name}.micro_batch_tokens={sequences * (self.prompt + self.new_tokens) // 2}"
            if not section.activation_checkpointing:
                yield f"{name}.activation_checkpointing=true"

    def _saved_state(self, strategy: Strategy) -> int:
        """Bytes of the optimizer's state beside a model."""
        is_bf16 = strategy.weight_bytes < FP32
        kept = self.config.training.saved_state(is_bf16)
        tensors = 0 if kept == "none" else is_bf16 + 2 * (kept == "all")
        return tensors * FP32 * self.shape.trained

    def _training(self, strategy: Strategy, states: ModelStates) -> TrainingBytes:
        """The section that takes more, `training` or `warm_start`."""
        on_cpu = not self.machines.has_gpus
        b, prompt, output = strategy.weight_bytes, self.prompt, self.new_tokens
        activations, logits = max(
            (
                activation_bytes(self.shape, b, rows, prompt, output, checkpointing=section.activation_checkpointing),
                logits_bytes(self.shape, b, min(section.logits_chunk, rows * output)),
            )
            for rows, section in self.micro_batches()
        )
        process, host, leaves_gaps = 0, 0, False
        if on_cpu:
            process, host = PROCESS_BYTES, states.host
            activations, logits = int(GAPS * activations), int(GAPS * logits)
            # Without ZeRO the gradients of a step are tensors of single parameters, which fit into gaps.
            leaves_gaps = strategy.stage > 0
            states = self._in_main_memory(strategy, states)
        return TrainingBytes(
            weights=states.weights + states.gathered + (states.host_weights if on_cpu else 0),
            gradients=states.gradients + states.buckets,
            optimizer=states.optimizer + (states.host_optimizer if on_cpu else 0),
            activations=activations,
            logits=logits,
            process=process,
            total=process + host + states.peak(activations + logits, leaves_gaps=leaves_gaps),
        )

    def _in_main_memory(self, strategy: Strategy, states: ModelStates) -> ModelStates:
        """What differs where a rank computes on a CPU: pages of buckets that are not used, and layers from other ranks.

        For a backward pass these are gathered in small pieces, which leave gaps, and at the start of a forward pass
        once more in one piece that does not fit into them.
        """
        gathered = states.gathered * (GLOO_COPIES if self.machines.ranks > 1 else 0)
        used = min(states.buckets, strategy.weight_bytes * self.shape.trained)
        return replace(states, gathered=gathered, buckets=used, reduction=max(states.reduction, gathered))

    def _sampling(self, strategy: Strategy) -> SamplingBytes:
        """As `sampling.memory` decides it: weights are streamed where a small batch does not fit beside whole ones."""
        sampling, usable = self.config.sampling, self.machines.usable_bytes
        row = sampling_row_bytes(
            self.shape,
            strategy.weight_bytes,
            self.prompt,
            self.new_tokens,
            copies=1 if sampling.distinct else sampling.k,
            is_sorted=sampling.sorts_vocabulary,
        )
        process = 0 if self.machines.has_gpus else PROCESS_BYTES
        whole, streamed = (
            process + sampling_weights_bytes(self.shape, strategy, self.machines.ranks, streamed=is_streamed)
            for is_streamed in (False, True)
        )
        choice = sampling.zero3_weights
        is_streamed = strategy.stage == 3 and (
            choice == "stream" or (choice == "auto" and whole + LEAST_ROWS * row > usable)
        )
        weights = streamed if is_streamed else whole
        rows = rows_that_fit(int((usable - weights) / (1 - MARGIN)), row)
        tokens = (
            AUTO_TOKENS if sampling.batch_tokens == "auto" and not self.machines.has_gpus else sampling.batch_tokens
        )
        if tokens != "auto":
            rows = min(rows, max(1, tokens // (self.prompt + self.new_tokens)))
        return SamplingBytes(weights, is_streamed, row, rows)

    def _problem(self, training: TrainingBytes, sampling: SamplingBytes, host: int) -> str:
        usable, memory = self.machines.usable_bytes, self.machines.host_bytes
        if training.total > usable:
            return f"training needs {training.total / 1e9:,.1f} GB of {usable / 1e9:,.1f} usable"
        if not sampling.rows and not self.config.sampling.vllm:  # which decides itself how much it takes
            return f"sampling needs {(sampling.weights + sampling.row) / 1e9:,.1f} GB of {usable / 1e9:,.1f} usable"
        if memory is not None and host > memory:
            return f"a machine needs {host / 1e9:,.0f} GB of main memory, and has {memory / 1e9:,.0f}"
        return ""


def _name(path: Path) -> str:
    """The name of a file as a config gives it."""
    return f"ds_configs/{path.name}" if path.resolve().parent == SHIPPED_DS_CONFIGS else str(path)
