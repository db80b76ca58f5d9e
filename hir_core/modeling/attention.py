"""The implementation of a model's attention: the one that draws outputs, and the one that trains where it is another.

Changes the model's config in memory, which transformers leaves out of the files of a saved model. Whether an
implementation can be used on a machine is checked in `launch.attention`, how rows are laid out for it in `training`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hir_core.config.model import TRAINING_ONLY, Attention
from hir_core.errors import ConfigError
from hir_core.launch.attention import attention_problem


def implementation(model: Any) -> str:
    """The name of the implementation that a model's attention has now."""
    return str(model.config.get_text_config()._attn_implementation)


def draw_with(model: Any, attention: Attention) -> None:
    """Has the model draw outputs with the implementation, unless it only trains.

    Raises:
        ConfigError: the model does not have it.
    """
    if attention != "auto" and attention not in TRAINING_ONLY:
        _use(model, attention)


@contextmanager
def trained_with(model: Any, attention: Attention, device: torch.device) -> Iterator[None]:
    """A context in which the model has the implementation for training; afterwards it has the one for drawing again.

    Raises:
        ConfigError: the model does not have it, or it cannot be used on the device.
    """
    if attention not in TRAINING_ONLY:  # the model has it already
        yield
        return
    if problem := attention_problem(attention, has_gpu=device.type == "cuda"):
        raise ConfigError(problem)
    drawing = implementation(model)
    _use(model, attention)
    try:
        yield
    finally:
        model.set_attn_implementation(drawing)


def _use(model: Any, attention: str) -> None:
    try:
        if model.config.is_encoder_decoder and attention in TRAINING_ONLY:
            raise ValueError("its rows are padded")
        model.set_attn_implementation(attention)
    except (ValueError, ImportError):
        has_it = False
    else:
        has_it = implementation(model) == attention  # transformers may only warn, or choose another one
    if not has_it:
        raise ConfigError(f"model.attention: {type(model).__name__} cannot use {attention}: set it to auto")
