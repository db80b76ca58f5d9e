"""DeepSpeed and ZeRO: engines, partitioned loading, whole weights gathered from partitions, memory.

The only module that imports deepspeed. Reads DeepSpeed settings and a model. What is trained and sampled is left to
`training` and `sampling`, what is saved to `saving`, what the optimizer holds to `optimizer_state`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed import distributed_c10d
from transformers import PreTrainedModel
from transformers.integrations import HfDeepSpeedConfig

from hir_core.config import TrainingConfig
from hir_core.config.deepspeed import OWNED_BY_CONFIG
from hir_core.errors import ConfigError
from hir_core.launch.host_memory import available_bytes, forget_resident_peak, release_heap, resident_peak
from hir_core.modeling import adapters


def is_on_cpu() -> bool:
    """Whether ranks compute on CPU cores."""
    return str(get_accelerator().device_name()) == "cpu"


def connect(local_rank: int, collective_timeout_s: float | None = None, *, uses_device: bool = True) -> torch.device:
    """Joins the ranks of this launch and returns this rank's device.

    Args:
        collective_timeout_s: how long a collective may wait for a rank; None: as long as torch lets it.
        uses_device: whether the rank computes on its GPU, if it has one; else the device is the CPU, and nothing is put
            on the GPU.
    """
    accelerator = get_accelerator()
    backend = None if uses_device or is_on_cpu() else "gloo"
    if is_on_cpu():
        device = torch.device("cpu")
        # Its shared-memory all-reduce is compiled on first use, which takes minutes in silence; gloo does as well.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    elif not uses_device:
        device = torch.device("cpu")
    else:
        accelerator.set_device(local_rank)
        device = torch.device(accelerator.device_name(local_rank))
    if device.type == "cuda":
        # cuDNN plans its attention anew for every shape, so for every token of an output: 2.5 ms a layer on an H200.
        torch.backends.cuda.enable_cudnn_sdp(False)
        # DeepSpeed's own fails where CUDA_VISIBLE_DEVICES names a GPU by its UUID.
        accelerator.available_memory = lambda index=None: torch.cuda.mem_get_info(index)[0]
    if collective_timeout_s is None:
        deepspeed.init_distributed(backend, dist_init_required=True)
        return device
    limit = timedelta(seconds=collective_timeout_s)
    # Where a process group is made without a limit, as DeepSpeed does, torch takes the one of its module.
    for default in ("default_pg_timeout", "default_pg_nccl_timeout"):
        setattr(distributed_c10d, default, limit)
    deepspeed.init_distributed(backend, dist_init_required=True, timeout=limit)
    return device


def stage(settings: dict[str, Any]) -> int:
    """The ZeRO stage that DeepSpeed settings ask for."""
    return int(settings.get("zero_optimization", {}).get("stage", 0))


def dtype(settings: dict[str, Any]) -> torch.dtype:
    """The dtype of the weights that DeepSpeed settings ask for; master weights are fp32 in either case."""
    return torch.bfloat16 if settings.get("bf16", {}).get("enabled") else torch.float32


def merged_settings(settings: dict[str, Any], training: TrainingConfig | None) -> dict[str, Any]:
    """DeepSpeed settings, with those that the run's config decides filled in.

    The number of micro-batches differs between optimizer steps, so DeepSpeed is given none and divides by none:
    `training.trainer` tells it which micro-batch is the last of a step.

    Args:
        settings: content of the DeepSpeed file.
        training: None for inference only.

    Raises:
        ConfigError: the settings already hold a key that the run's config owns.
    """
    twice = sorted(set(settings) & set(OWNED_BY_CONFIG))
    if twice:
        raise ConfigError(f"deepspeed settings hold {', '.join(twice)}, which the run's config decides")
    if training is None:
        inference = {k: v for k, v in settings["zero_optimization"].items() if k != "offload_optimizer"}
        return {**settings, "zero_optimization": inference, "train_micro_batch_size_per_gpu": 1}
    # torch's fused AdamW updates a weight, its moments and its decay in one pass over memory.
    adam = {"lr": training.learning_rate, "weight_decay": training.weight_decay, "torch_adam": True, "fused": True}
    return {
        **settings,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": training.max_grad_norm,
        "optimizer": {"type": "AdamW", "params": adam},
    }


@contextlib.contextmanager
def loading(settings: dict[str, Any]) -> Iterator[None]:
    """A context in which models are partitioned while they are loaded, under ZeRO-3: no rank ever holds one whole.

    `peak_bytes` counts from its end on.
    """
    keeper = HfDeepSpeedConfig({**settings, "train_micro_batch_size_per_gpu": 1}) if stage(settings) == 3 else None
    try:
        with contextlib.nullcontext() if keeper is None else _whole_tensors_when_tying():
            yield
    finally:
        del keeper  # transformers holds a weak reference: partitioned loading ends here
    forget_resident_peak()


@contextlib.contextmanager
def _whole_tensors_when_tying() -> Iterator[None]:
    """A context in which `from_pretrained` compares whole tensors before it ties them.

    It ties two tensors of a checkpoint where the config says so and they are equal. Of partitioned tensors it would
    compare the empty placeholders, and a FLAN-T5, whose config says "tied", would lose its separate head.
    """
    tie_weights = PreTrainedModel.tie_weights

    def tie_whole(model: Any, missing_keys: set[str] | None = None, **options: Any) -> None:
        compared: set[Any] = set()
        if missing_keys is not None:
            pairs = [pair for pair in model.all_tied_weights_keys.items() if missing_keys.isdisjoint(pair)]
            compared = {model.get_parameter(name) for pair in pairs for name in pair}
        with deepspeed.zero.GatheredParameters(sorted(compared, key=lambda p: p.ds_id), enabled=bool(compared)):
            tie_weights(model, missing_keys=missing_keys, **options)

    PreTrainedModel.tie_weights = tie_whole
    try:
        yield
    finally:
        PreTrainedModel.tie_weights = tie_weights


def engine_for_training(module: nn.Module, settings: dict[str, Any], training: TrainingConfig) -> Any:
    """A DeepSpeed engine whose optimizer steps are normalised and clipped as `training` says; frozen weights stay."""
    merged = merged_settings(settings, training)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    own, size = merged.get("zero_optimization", {}), sum(getattr(p, "ds_numel", p.numel()) for p in trained)
    bucket = min(own.get("reduce_bucket_size", 5 * 10**8), size)  # it is allocated whole: many times an adapter
    merged["zero_optimization"] = {**own, "reduce_bucket_size": bucket}
    engine, *_ = deepspeed.initialize(model=module, model_parameters=trained, config=merged)
    optimizer = engine.optimizer
    if hasattr(optimizer, "fp32_groups"):
        # Without ZeRO in bf16, DeepSpeed has just made a step with gradients of 0, which counts for AdamW and decays
        # the master weights.
        optimizer.optimizer.state.clear()
        for weights, masters in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True):
            for weight, master in zip(weights, masters, strict=True):
                master.data.copy_(weight)
    release_heap()
    return engine


def engine_for_inference(module: nn.Module, settings: dict[str, Any], device: torch.device) -> Any:
    """The module on the device, or under ZeRO-3 a DeepSpeed engine around it; keep it while the module is used.

    The engine's hooks gather the partitions for each forward pass; they are removed when the engine is deleted.
    """
    if stage(settings) != 3:
        return module.to(device)
    engine, *_ = deepspeed.initialize(model=module, config=merged_settings(settings, None))
    return engine


def end_training(engine: Any, model: nn.Module) -> None:
    """Prepares a model for forward passes of its own, without the module around it that the engine has trained.

    Under ZeRO-3, weights that were gathered ahead and not needed are given back, because those that are still on their
    way cannot be saved. Weights are gathered ahead in the order of the forward pass before, and the beginning of a pass
    is recognised by a hook of the trained module: the model gets one of its own.
    """
    engine.empty_partition_cache()
    if is_partitioned(model):
        coordinator = engine.optimizer.parameter_offload.get_param_coordinator()
        model.register_forward_pre_hook(lambda *_: coordinator.reset_step(), prepend=True)


def release_optimizer(engine: Any) -> None:
    """Frees moments, fp32 master weights and gradients, whose memory sampling needs; the engine cannot step again.

    DeepSpeed refers to these tensors from many places, so their storages are emptied. The model's own weights, on which
    an fp32 optimizer works directly, are kept. On a CPU what training has left of its heap is given back too.
    """
    engine.optimizer.zero_grad()
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    masters = list(inner.state)  # the parameter groups are empty between steps under ZeRO-3
    moments = [value for state in inner.state.values() for value in state.values() if isinstance(value, Tensor)]
    gradients = [parameter.grad for parameter in masters]
    buffer = getattr(engine.optimizer, "grad_partitions_flat_buffer", None)  # ZeRO-3's
    weights = {_address(tensor) for p in engine.module.parameters() for tensor in (p, getattr(p, "ds_tensor", p))}
    for tensor in (*masters, *moments, *gradients, buffer):
        if tensor is not None and _address(tensor) not in weights and tensor.untyped_storage().resizable():
            tensor.untyped_storage().resize_(0)
    inner.state.clear()
    get_accelerator().empty_cache()
    release_heap()


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def is_partitioned(model: nn.Module) -> bool:
    """Whether ZeRO-3 has partitioned the model's weights over the ranks."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def parameter_bytes(model: nn.Module) -> int:
    """Bytes of the whole weights, over however many ranks they are partitioned."""
    return sum(map(whole_bytes, model.parameters()))


def whole_bytes(tensor: Any) -> int:
    """Bytes of a whole tensor, over however many ranks it is partitioned."""
    return int(getattr(tensor, "ds_numel", tensor.numel()) * tensor.element_size())


def release_reserve() -> None:
    """Gives memory that torch holds in reserve on a GPU back to the device, so that `free_bytes` counts it as free."""
    get_accelerator().empty_cache()


def free_bytes(device: torch.device) -> int:
    """Memory that this rank can still allocate: on its GPU, or its share of the machine's available memory."""
    if device.type != "cpu":
        return int(get_accelerator().available_memory())
    return available_bytes() // dist.get_world_size()


def peak_bytes(device: torch.device) -> int:
    """The most memory that any rank has held: on its GPU so far, or in main memory since its model was loaded."""
    return -min_over_ranks(-peak_bytes_of_this_rank(device), device)


def peak_bytes_of_this_rank(device: torch.device) -> int:
    """As `peak_bytes`, of this rank; asks no other rank."""
    return resident_peak() if device.type == "cpu" else int(get_accelerator().max_memory_allocated())


def software_and_devices(model: nn.Module, device: torch.device) -> dict[str, Any]:
    """Versions of the software, the kind of device and the number of ranks, to record with a model."""
    used = ("torch", "transformers", "deepspeed", *(["peft"] if adapters.is_adapted(model) else []))
    versions = {name: importlib.metadata.version(name) for name in used}
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"python": platform.python_version(), **versions, "device": kind, "ranks": dist.get_world_size()}


def min_over_ranks(value: int, device: torch.device) -> int:
    """The smallest of the ranks' values, the same on all of them."""
    minimum = torch.tensor([value], dtype=torch.float64, device=device)
    dist.all_reduce(minimum, op=dist.ReduceOp.MIN)
    return int(minimum.item())


def gathered_copy(model: Any, device: torch.device) -> Any:
    """A whole copy of a ZeRO-3 model for this rank; the partitions stay as they are.

    All ranks must call it together. It takes the memory of the whole weights on every rank; using it needs no
    communication.
    """
    with torch.device("meta"):
        copy = type(model)(model.config)
        adapters.add_equal(model, copy)
    parameters = dict(model.named_parameters())
    wholes = {
        parameters[name]: nn.Parameter(tensor.to(device, copy=True), requires_grad=False)
        for name, tensor in whole_tensors(parameters)
    }
    # Tied exactly where the model's are: `tie_weights` would tie a FLAN-T5's separate head, as its config says.
    for name, parameter in model.named_parameters(remove_duplicate=False):
        _replace(copy, name, wholes[parameter])
    for name, buffer in model.named_buffers():
        _replace(copy, name, buffer.to(device, copy=True))
    copy.generation_config = model.generation_config
    return copy.eval()


def whole_tensors(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Name and whole value of every tensor, which may be partitioned, one at a time: each is valid until the next.

    All ranks must iterate together.
    """
    for name, tensor in tensors.items():
        with deepspeed.zero.GatheredParameters([tensor], enabled=hasattr(tensor, "ds_id")):
            yield name, tensor.detach()


def set_weight(parameter: nn.Parameter, read: Callable[[], Tensor]) -> None:
    """Gives a parameter new values, which are cast to its number format; all ranks must call it together.

    Args:
        read: returns the whole tensor; called on every rank, or of a partitioned parameter on the first one.
    """
    is_partitioned = hasattr(parameter, "ds_id")
    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=is_partitioned):
        if not is_partitioned or dist.get_rank() == 0:
            parameter.data.copy_(read())


@torch.no_grad()
def merge_adapter(model: nn.Module) -> None:
    """Adds an adapter to the weights that it belongs to, and sets it to zero: the model computes what it did.

    In fp32, then rounded to the model's number format. All ranks must call it together.
    """
    for layer in adapters.layers(model):
        weight, last = layer.base_layer.weight, layer.lora_B[adapters.NAME].weight
        parts = [weight, layer.lora_A[adapters.NAME].weight, last]
        # What rank 0 computes is sent to all; without partitions each rank computes the same for itself.
        with deepspeed.zero.GatheredParameters(parts, modifier_rank=0, enabled=hasattr(weight, "ds_id")):
            weight.copy_(weight.float() + adapters.product(layer))
            last.zero_()


def _replace(model: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    if isinstance(tensor, nn.Parameter):
        owner._parameters[leaf] = tensor
    else:
        owner._buffers[leaf] = tensor
