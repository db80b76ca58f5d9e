"""Whether a model's weights are numbers that it can compute with; looked at after loading and after training.

Reads the weights where they lie, partitioned or not. What follows from it is up to the steps in `worker`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch import distributed as dist

from hir_core.modeling import saving, zero

LARGEST_WEIGHT = math.sqrt(torch.finfo(torch.float32).max)
"""About 1.8e19, in bf16 as well, which has the range of fp32."""
UNUSABLE = f"holds NaN, infinity, or a number beyond {LARGEST_WEIGHT:.0e}"


def unusable_weight(model: nn.Module, device: torch.device) -> str | None:
    """The name of the first weight that holds NaN, an infinity, or a number whose square is infinite; None without any.

    Norms square such a number, and a model may then give every token the same probability without any NaN. All ranks
    must call it together, and get the same name. Under ZeRO-3 each looks at its own partitions, which move nowhere; a
    weight that is swapped out to a disk is not looked at.
    """
    tensors = saving.saved_tensors(model)
    found = (number for number, tensor in enumerate(tensors.values()) if not _is_usable(_own_values(tensor)))
    first = zero.min_over_ranks(next(found, len(tensors)), device)
    return None if first == len(tensors) else list(tensors)[first]


def _own_values(tensor: Tensor) -> Tensor:
    """A weight as far as this rank holds it, without the padding of a partition, which may hold anything."""
    partition: Tensor | None = getattr(tensor, "ds_tensor", None)
    if partition is None:
        return tensor.detach()
    values = partition.detach().flatten()
    rest = tensor.ds_numel - dist.get_rank() * partition.numel()  # type: ignore[attr-defined]
    return values[: max(0, rest)]


def _is_usable(values: Tensor) -> bool:
    if not values.is_floating_point() or not values.numel():
        return True
    smallest, largest = values.aminmax()  # one pass without a copy; NaN is passed on
    return bool(smallest >= -LARGEST_WEIGHT and largest <= LARGEST_WEIGHT)
