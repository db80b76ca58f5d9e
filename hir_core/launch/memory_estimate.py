"""Estimates of the memory that training and sampling take on each rank, from a model's shape and DeepSpeed's settings.

Arithmetic only: reads and allocates nothing, and imports no torch, so that the driver can use it as well as the ranks.
All results are bytes. N stands for the parameters, W for the number of ranks, b for the bytes of a weight, a for those
of an accumulated gradient. What is free is read by `host_memory`; what follows from an estimate is left to
`sampling.memory` and `inspect.plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hir_core.config.model_shape import ModelShape

FP32 = 4
CACHE_BLOCK = 64
"""Columns by which the key-value cache of sampling grows."""
MARGIN = 0.1
"""Share of the free memory that stays unused: for what allocators cannot use of it, and for what is not counted."""
LEAST_ROWS = 16
"""Rows at once below which sampling from whole weights is not worth their memory: then they are streamed."""


@dataclass(frozen=True)
class Strategy:
    """What DeepSpeed's settings say about memory."""

    stage: int
    """ZeRO's; 0 divides nothing."""
    weight_bytes: int
    """b: 2 under bf16, else 4."""
    gradient_bytes: int
    """a: 2 or 4, in which the gradients of several micro-batches are added up."""
    offloads_optimizer: bool
    offloads_weights: bool
    bucket: int
    """Gradients, in elements, that are reduced at once."""
    overlaps: bool
    """Whether the next bucket is filled while one is reduced."""
    group: int
    """Parameters of a rank that an optimizer step of ZeRO-3 works on at once."""
    live: int
    """Parameters that ZeRO-3 holds gathered at once, the ones gathered ahead included."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Strategy:
        """The strategy in the content of a DeepSpeed file; what is not set there has DeepSpeed's own default."""
        zero = settings.get("zero_optimization", {})

        def offloads(name: str) -> bool:
            target = zero.get(name)
            return isinstance(target, dict) and target.get("device", "none") != "none"

        def count(name: str, default: int) -> int:
            value = zero.get(name)
            return int(value) if isinstance(value, (int, float)) else default

        stage = count("stage", 0)
        weight_bytes = 2 if settings.get("bf16", {}).get("enabled") else FP32
        is_fp32 = settings.get("data_types", {}).get("grad_accum_dtype") == "fp32"
        live = count("stage3_max_live_parameters", 10**9) + count("stage3_prefetch_bucket_size", 5 * 10**7)
        return cls(
            stage=stage,
            weight_bytes=weight_bytes,
            gradient_bytes=FP32 if is_fp32 else weight_bytes,
            offloads_optimizer=offloads("offload_optimizer"),
            offloads_weights=offloads("offload_param"),
            bucket=count("reduce_bucket_size", 5 * 10**8),
            overlaps=bool(zero.get("overlap_comm", stage == 3)),
            group=count("sub_group_size", 10**9),
            live=live,
        )

    def share(self, stage: int, ranks: int) -> float:
        """1 / W of what is divided from this stage on, else 1."""
        return 1 / ranks if self.stage >= stage else 1.0


@dataclass(frozen=True)
class ModelStates:
    """What one rank holds while it trains, without activations: on its device, and beside it in main memory."""

    weights: int
    gathered: int
    """Whole layers that ZeRO-3 has gathered."""
    gradients: int
    """Those of the micro-batches so far."""
    optimizer: int
    """fp32 master weights and Adam's two moments."""
    buckets: int
    """Where gradients wait to be reduced, during a backward pass."""
    reduction: int
    """Copies of a bucket, at the end of a backward pass."""
    step: int
    """What an optimizer step needs for the gradients in fp32, when there are no activations and nothing is reduced."""
    host_weights: int
    host_optimizer: int
    """With the gradients in fp32 that the optimizer works with, and the accumulated ones."""

    @property
    def kept(self) -> int:
        """On the device all the time."""
        return self.weights + self.gathered + self.gradients + self.optimizer

    @property
    def host(self) -> int:
        """In main memory."""
        return self.host_weights + self.host_optimizer

    def peak(self, working: int, *, leaves_gaps: bool = False) -> int:
        """The most that the device holds, with so many bytes of activations and logits.

        Args:
            leaves_gaps: whether what activations and logits took stays with the process when they are gone, in pieces
                that nothing as large as a bucket or a flat gradient fits into: the C library keeps those of up to 32 MB
                (`M_MMAP_THRESHOLD` in mallopt(3)).
        """
        if leaves_gaps:
            return self.kept + working + max(self.buckets + self.reduction, self.step)
        return self.kept + max(self.buckets + max(working, self.reduction), self.step)


def model_states(shape: ModelShape, strategy: Strategy, ranks: int) -> ModelStates:
    """Weights, gradients and optimizer state of one rank.

    With an adapter, gradients and optimizer state are of its parameters only, and the others are weights and no more.
    Adam in mixed precision has 2 N of weights, a N of gradients and 12 N of master weights and moments; ZeRO divides
    the last by W from stage 1 on, the gradients from stage 2, the weights from stage 3 (Rajbhandari et al. 2020, arXiv
    1910.02054, section 3). Under ZeRO-1 gradients that are accumulated in another type than b are there twice. In fp32
    without ZeRO the optimizer works on the weights themselves; ZeRO keeps a second copy.
    """
    parameters, trained, b = shape.parameters + shape.adapter, shape.trained, strategy.weight_bytes
    masters = 0 if strategy.stage == 0 and b == FP32 else FP32
    optimizer = int((masters + 2 * FP32) * trained * strategy.share(1, ranks))
    weights = int(b * parameters * strategy.share(3, ranks))
    gathered = 0
    if strategy.stage == 3:
        gathered = b * min(parameters, max(strategy.live, shape.layer_parameters))
    gradients = int(strategy.gradient_bytes * trained * strategy.share(2, ranks))
    if strategy.stage == 1 and strategy.gradient_bytes != b:
        gradients += b * trained
    buckets, reduction = _reduction_bytes(shape, strategy, ranks)
    on_host = strategy.offloads_optimizer
    return ModelStates(
        weights=0 if strategy.offloads_weights else weights,
        gathered=gathered,
        gradients=0 if on_host else gradients,
        optimizer=0 if on_host else optimizer,
        buckets=buckets,
        reduction=reduction,
        step=0 if on_host else _step_bytes(shape, strategy, ranks),
        host_weights=weights if strategy.offloads_weights else 0,
        host_optimizer=optimizer + FP32 * trained // ranks + gradients if on_host else 0,
    )


def _reduction_bytes(shape: ModelShape, strategy: Strategy, ranks: int) -> tuple[int, int]:
    """The buckets of gradients, and what is copied of a full one while it is reduced and added up.

    By DeepSpeed 0.19.8, `runtime/zero/stage_1_and_2.py` and `stage3.py`. ZeRO-1 and 2 have a second bucket where
    communication overlaps, ZeRO-3 never. ZeRO-1 and 2 join the slices of all ranks in a new tensor
    (`allreduce_and_copy_with_multiple_ranks`); ZeRO-1 also keeps the gradients of its own partition apart
    (`grads_in_partition`), and ZeRO-2 casts one parameter's gradient at a time to the type it accumulates in. ZeRO-3
    joins the partitions of all ranks (`reduce_scatter_coalesced`) and casts all those of its own.
    """
    b, a, trained = strategy.weight_bytes, strategy.gradient_bytes, shape.trained
    is_cast, bucket = a != b, min(trained, strategy.bucket)
    if strategy.stage == 0:
        return 0, 0
    if strategy.stage == 3:
        return b * bucket, b * bucket + (a * bucket // ranks if is_cast else 0)
    buckets = b * bucket * (2 if strategy.overlaps else 1)
    if strategy.stage == 1:
        return buckets, b * trained // ranks + (b * bucket if ranks > 1 else 0)
    largest = min(trained, shape.hidden * max(shape.vocabulary, shape.intermediate))
    return buckets, (b * bucket if ranks > 1 or is_cast else 0) + (a * largest if is_cast else 0)


def _step_bytes(shape: ModelShape, strategy: Strategy, ranks: int) -> int:
    """What an optimizer step needs beside what is kept.

    Adam works on one flat gradient in fp32: 4 N / W, or under ZeRO-3 that of a group of parameters at a time. Gradients
    are first joined in their own type, and then cast; ZeRO-2 with accumulation in another type has them joined already.
    ZeRO-3 keeps its bucket all the time. In fp32 without ZeRO the gradients are used as they are.
    """
    b, a, own = strategy.weight_bytes, strategy.gradient_bytes, shape.trained // ranks
    if strategy.stage == 0:
        return 0 if b == FP32 else FP32 * shape.trained
    if strategy.stage == 3:
        joined = a + (FP32 if a < FP32 else 0)
        return joined * min(own, strategy.group) + b * min(shape.trained, strategy.bucket)
    if strategy.stage == 2 and a != b:
        return 0
    joined = b + (FP32 if b < FP32 else 0)
    return (joined + (b if strategy.stage == 1 else 0)) * own


# --- training --------------------------------------------------------------------------------------------------------


def activation_bytes(
    shape: ModelShape, weight_bytes: int, rows: int, prompt: int, output: int, *, checkpointing: bool
) -> int:
    """What a micro-batch keeps for its backward pass, by the tensors that autograd saves in a layer of `transformers`.

    For each token: two norms, whose input and result in fp32 and whose output are kept; queries, keys and values with
    the keys and values repeated for every query head, the result of attention before and after its heads are joined;
    in the feed-forward the input and each intermediate. An encoder-decoder's attention is not fused: it also keeps the
    scores of every pair of tokens, in fp32 and in b. Its decoder attends twice in a layer, to outputs and to prompts.

    Args:
        rows: sequences of the micro-batch.
        prompt: tokens of the prompt of each, padding included.
        output: as `prompt`, of the output.
        checkpointing: whether only the input of each layer is kept, and one layer is computed again at a time.
    """
    b = weight_bytes
    norm = (FP32 + b if b < FP32 else 2 * FP32) * shape.hidden
    attention = b * (5 * shape.attention + shape.hidden)
    feed_forward = b * (shape.hidden + (4 if shape.is_gated else 3) * shape.intermediate)
    layer = 2 * norm + attention + feed_forward
    # Of each stack of layers: how many it has, the tokens that go through it, and what a layer keeps of a token.
    if shape.encoder_layers:
        score = shape.heads * (FP32 + b)
        encoder = (shape.encoder_layers, prompt, layer + prompt * score)
        decoder = (shape.layers, output, layer + norm + attention + (output + prompt) * score)
        keys = rows * prompt * shape.layers * 2 * b * shape.attention
        stacks, shared = [encoder, decoder], keys
    else:
        tokens = prompt + output
        stacks, shared = [(shape.layers, tokens, layer)], rows * tokens * tokens * b  # the mask of packed rows
    kept = 0
    for layers, tokens, of_token in stacks:
        held = layers * b * shape.hidden + of_token if checkpointing else layers * of_token
        kept += rows * tokens * (held + 2 * norm)
    return kept + shared


def logits_bytes(shape: ModelShape, weight_bytes: int, positions: int) -> int:
    """The logits of so many positions in a backward pass: in b, their log-probabilities, gradient and two products.

    Training computes them for `training.logits_chunk` target tokens at a time, and again in the backward pass.
    """
    return positions * shape.vocabulary * (2 * weight_bytes + 4 * FP32)


# --- sampling --------------------------------------------------------------------------------------------------------


def cache_bytes_per_token(shape: ModelShape, weight_bytes: int) -> int:
    """Keys and values of one token in every layer of the decoder: 2 b x layers x key-value heads x head size."""
    return 2 * weight_bytes * shape.layers * shape.kv


def drawing_bytes(shape: ModelShape, weight_bytes: int, *, is_sorted: bool = False) -> int:
    """Logits of one row while a token is drawn: in b, log-probabilities in fp32, two tensors in double precision.

    Args:
        is_sorted: whether the whole vocabulary is sorted too, which takes three tensors of 8 bytes more.
    """
    return shape.vocabulary * (weight_bytes + FP32 + (5 if is_sorted else 2) * 8)


def sampling_row_bytes(
    shape: ModelShape, weight_bytes: int, prompt: int, output: int, *, copies: int = 1, is_sorted: bool = False
) -> int:
    """What a row of a batch takes while it is completed: its key-value cache, its logits, and the prefill's share.

    The cache has the prompt and whole blocks of `CACHE_BLOCK` tokens for the output. While the last block is added, and
    in attention, where keys and values are repeated for every query head, one layer is there a second time. The rows of
    a prompt share the cache and the activations of its prefill.

    Args:
        prompt: tokens of the longest prompt.
        output: most new tokens.
        copies: rows of a prompt.
        is_sorted: whether every draw sorts the vocabulary.
    """
    b, hidden = weight_bytes, shape.hidden
    columns = prompt + -(-output // CACHE_BLOCK) * CACHE_BLOCK
    cache = columns * cache_bytes_per_token(shape, b)
    layer = 2 * b * columns * max(shape.attention, shape.kv)
    prefill = prompt * (cache_bytes_per_token(shape, b) + b * (6 * hidden + 3 * shape.intermediate) + 2 * FP32 * hidden)
    encoded = 0
    if shape.encoder_layers:
        cache = (columns - prompt) * cache_bytes_per_token(shape, b)
        encoded = prompt * (cache_bytes_per_token(shape, b) + 2 * b * hidden)
    return cache + encoded + prefill // copies + layer + drawing_bytes(shape, b, is_sorted=is_sorted)


def sampling_weights_bytes(shape: ModelShape, strategy: Strategy, ranks: int, *, streamed: bool) -> int:
    """What one rank's device holds of the weights while it samples, after the optimizer has been released.

    Below ZeRO-3 the whole weights. Under ZeRO-3 its share, and a whole copy, or where they are streamed what is
    gathered at a time.
    """
    whole = strategy.weight_bytes * (shape.parameters + shape.adapter)
    if strategy.stage < 3:
        return whole
    states = model_states(shape, strategy, ranks)
    return states.weights + (states.gathered if streamed else whole)


def rows_that_fit(free: int, row_bytes: int) -> int:
    """The rows that fit into so much free memory, but `MARGIN` of it; 0 where none does."""
    return max(0, int(free * (1 - MARGIN)) // row_bytes)
