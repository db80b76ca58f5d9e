"""A model's files: its weights or its adapter as safetensors, gathered from partitions and written by all ranks.

Writes shards with their index, or an adapter as `peft` does. The optimizer's state beside them is in `optimizer_state`.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch import distributed as dist

from hir_core.config.model_folder import ADAPTER_WEIGHTS
from hir_core.modeling import adapters, zero
from hir_core.modeling.shards import SHARD_BYTES, write_shard, write_shards
from hir_core.store.files import write_json


def save_weights(model: nn.Module, folder: Path, shard_bytes: int = SHARD_BYTES) -> int:
    """Writes a model's weights as safetensors shards with their index; returns the bytes of all weights.

    Those of an adapter are left out. All ranks must call it together.

    Raises:
        StoreError: a shard cannot be written.
    """
    tensors = adapters.base_tensors(saved_tensors(model))
    sizes = {name: zero.whole_bytes(tensor) for name, tensor in tensors.items()}
    files = write_shards(zero.whole_tensors(tensors), sizes, folder, "model", shard_bytes, {"format": "pt"})
    total = sum(sizes[name] for name, tensor in tensors.items() if isinstance(tensor, nn.Parameter))
    if dist.get_rank() == 0:
        index = {"metadata": {"total_size": total}, "weight_map": files}
        write_json(folder / "model.safetensors.index.json", index)
    return total


def save_adapter(model: nn.Module, base: str, folder: Path) -> int:
    """Writes a model's adapter as `peft` does; returns its bytes. All ranks must call it together.

    Args:
        base: as in `adapters.write_config`.

    Raises:
        StoreError: a file cannot be written.
    """
    tensors = adapters.adapter_tensors(saved_tensors(model))
    held = {name: tensor.to("cpu", copy=True) for name, tensor in zero.whole_tensors(tensors)}
    if dist.get_rank() == 0:
        adapters.write_config(model, base, folder)
        write_shard(held, folder / ADAPTER_WEIGHTS, {"format": "pt"})
    return sum(map(zero.whole_bytes, tensors.values()))


def saved_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, as they are partitioned."""
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    persistent = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    return {**parameters, **buffers}
