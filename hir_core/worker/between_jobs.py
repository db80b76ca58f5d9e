"""What a rank that stays does between two jobs, so that the next one begins as in a process of its own.

Changes the state of this process only: random numbers, memory, and the peak of memory that is counted. The weights of
the next job are loaded anew by `job`.
"""

from __future__ import annotations

import gc
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


def begin(initial_seed: int, device: torch.device) -> None:
    """Sets torch's random numbers and the peak of memory back to what they are in a new process.

    Args:
        initial_seed: torch's own, when this process began.
    """
    torch.manual_seed(initial_seed)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # where the kernel does not allow it, the peak is that of all jobs so far
            Path("/proc/self/clear_refs").write_text("5")


def discard(engine: Any) -> None:
    """Empties an engine, so that its tensors go when the model does.

    DeepSpeed keeps hooks that refer to an engine and its optimizer, and that no garbage collection sees.

    Args:
        engine: what `zero.engine_for_training` or `zero.engine_for_inference` returned.
    """
    if not hasattr(engine, "destroy"):  # a module without an engine
        return
    engine.destroy()
    for owner in (engine.optimizer, engine):
        if hasattr(owner, "__dict__"):  # there is no optimizer for inference
            vars(owner).clear()


def free_memory(device: torch.device) -> None:
    """Frees the tensors of the job that is done, on the device too."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
