"""Safetensors shards: tensors cut into files by their size, each written by one of the ranks, several at a time.

Writes files; which tensors they hold, and how those are gathered from the ranks, is left to `zero` and
`optimizer_state`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor
from torch import distributed as dist

from hir_core.store.files import writing

SHARD_BYTES = 1024**3
"""What a rank holds at most beside the model while it writes; 8 billion bf16 weights make 15 files."""


def write_shards(
    tensors: Iterable[tuple[str, Tensor]],
    sizes: Mapping[str, int],
    folder: Path,
    prefix: str,
    shard_bytes: int,
    metadata: Mapping[str, str],
) -> dict[str, str]:
    """Writes tensors as `<prefix>-00001-of-0000n.safetensors` and so on; returns the file of each tensor.

    Shard n is written by rank n modulo world size, so no rank ever holds more than one shard beside what it holds of
    the model. All ranks must call it together.

    Args:
        tensors: names and whole tensors, each of them valid until the next; the same on every rank.
        sizes: bytes of each tensor, in the order of `tensors`.
        shard_bytes: the most that a shard may hold, unless a single tensor is larger.
        metadata: texts that each file holds beside its tensors.

    Raises:
        StoreError: a shard cannot be written; raised after the last tensor, since other ranks need this one until then.
    """
    shards = _assign_shards(sizes, shard_bytes)
    count, rank, world_size = max(shards.values()), dist.get_rank(), dist.get_world_size()
    files = {name: f"{prefix}-{shard:05d}-of-{count:05d}.safetensors" for name, shard in shards.items()}
    last_names = set({shard: name for name, shard in shards.items()}.values())
    held: dict[str, Tensor] = {}
    writes: list[Future[None]] = []
    # Beside the main thread, which the others need meanwhile for the tensors of theirs.
    with ThreadPoolExecutor(max_workers=1) as writer:
        for name, tensor in tensors:
            if (shards[name] - 1) % world_size == rank:
                if not held:
                    wait(writes)
                held[name] = tensor.to("cpu", copy=True).contiguous()
            if held and name in last_names:
                writes.append(writer.submit(write_shard, held, folder / files[name], metadata))
                held = {}
    for write in writes:
        write.result()
    return files


def _assign_shards(sizes: Mapping[str, int], shard_bytes: int) -> dict[str, int]:
    """The shard (from 1) of every tensor, in order; no shard is larger than `shard_bytes` unless one tensor is."""
    shards: dict[str, int] = {}
    shard, filled = 1, 0
    for name, size in sizes.items():
        if filled and filled + size > shard_bytes:
            shard, filled = shard + 1, 0
        shards[name], filled = shard, filled + size
    return shards


def write_shard(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Writes whole tensors as one file, which appears complete or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    hidden = path.with_name(f".{path.name}.tmp")  # a rank that is killed leaves no half-written shard
    try:
        with writing(path):
            save_file(dict(tensors), hidden, metadata=dict(metadata))
            hidden.rename(path)
    finally:
        hidden.unlink(missing_ok=True)  # what a full disk has let through takes up the room that is needed
