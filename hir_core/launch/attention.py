"""Whether the implementation of attention that a config names can be used where its ranks run.

Looks for GPUs and an installed package; loads nothing. Whether a model has that implementation is seen when it is
loaded, in `modeling.attention`.
"""

from __future__ import annotations

import importlib.metadata

from packaging.version import Version

from hir_core.config.model import TRAINING_ONLY, Attention, ModelConfig
from hir_core.errors import ConfigError
from hir_core.launch.devices import Place

OLDEST_FLASH_ATTN = "2.3.3"
"""The oldest release that transformers takes."""


def check_attention(model: ModelConfig, place: Place) -> None:
    """Checks what would keep ranks from training with `model.attention`; other machines check it themselves.

    Raises:
        ConfigError: it needs a GPU or a package that is not here.
    """
    problem = None if place.is_remote else attention_problem(model.attention, has_gpu=bool(place.devices.gpus))
    if problem is not None:
        raise ConfigError(problem)


def attention_problem(attention: Attention, *, has_gpu: bool) -> str | None:
    """What keeps this machine from training with the implementation, and what to do; None: nothing."""
    if attention in TRAINING_ONLY and not has_gpu:
        return f"model.attention: {attention} trains on GPUs only, and ranks run on CPU cores here: set it to sdpa"
    # Without the package, transformers would fetch a kernel from the hub, and code of others is never run.
    if attention == "flash_attention_2" and not _has_flash_attn():
        return (
            f"model.attention: flash_attention_2 needs the package flash-attn {OLDEST_FLASH_ATTN} or later, which is "
            "not installed: pip install flash-attn --no-build-isolation, or set it to flex_attention or sdpa"
        )
    return None


def _has_flash_attn() -> bool:
    try:
        return Version(importlib.metadata.version("flash-attn")) >= Version(OLDEST_FLASH_ATTN)
    except importlib.metadata.PackageNotFoundError:
        return False
