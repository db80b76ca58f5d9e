"""What to change in a config after memory ran out in a step of a launch, in one sentence with the settings' names.

Reads the content of `job.json`. Computes no memory: `memory_estimate` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MemoryAdvice:
    """What helps a launch that needs too much memory."""

    job: Mapping[str, Any]
    """Content of `job.json`."""
    step: Mapping[str, Any]
    """The step in which memory ran out."""
    ranks: int
    has_gpus: bool

    def sentence(self, exception: str = "", message: str = "") -> str:
        """What to change.

        Args:
            exception: the class of what a rank raised; empty where the kernel killed it.
            message: that exception's message.
        """
        is_gpu_memory = exception == "OutOfMemoryError" or "CUDA" in message
        ways = self._less_on_the_device() if is_gpu_memory or not self.has_gpus else self._less_beside_gpus()
        told = f"{', '.join(ways[:-1])}, or {ways[-1]}" if len(ways) > 1 else ways[0]
        return f"to need less memory, {told}; `hir plan` shows what fits"

    @property
    def _zero(self) -> Mapping[str, Any]:
        zero: Mapping[str, Any] = self.job.get("deepspeed", {}).get("zero_optimization", {})
        return zero

    def _less_on_the_device(self) -> list[str]:
        ways = self._smaller_batches()
        if self._zero.get("stage", 0) < 3 and self.ranks > 1:
            ways.append("set `deepspeed` to a file that divides the weights too, as ds_configs/zero3.json does")
        if self.has_gpus and "offload_optimizer" not in self._zero:
            ways.append("set `deepspeed` to ds_configs/zero3_offload.json")
        if not self.has_gpus and self.ranks > 1:
            ways.append("lower launch.processes")
        return ways or ["take a smaller model"]

    def _less_beside_gpus(self) -> list[str]:
        """For the main memory of a machine whose ranks compute on GPUs."""
        offloads = "offload_optimizer" in self._zero or "offload_param" in self._zero
        return ["lower launch.processes", *(["set `deepspeed` to a file that offloads nothing"] if offloads else [])]

    def _smaller_batches(self) -> list[str]:
        kind = self.step.get("type")
        if self.job.get("engine"):
            return ["lower max_num_seqs or kv_cache_memory_bytes in sampling.engine"]
        if kind == "train":
            section = "training" if self.step.get("samples") else "warm_start"
            training = self.step.get("training", {})
            ways = [f"lower {section}.micro_batch_tokens{_half(training, 'micro_batch_tokens')}"]
            if not training.get("activation_checkpointing"):
                ways.append(f"set {section}.activation_checkpointing")
            return ways
        if kind == "score":
            return [f"lower reward.batch_tokens{_now(self.step, 'batch_tokens')}"]
        if kind not in ("sample", "logprobs"):
            return []
        if self.step.get("batch_tokens") == "auto":
            ways = ["set sampling.batch_tokens to a number such as 4096 (auto now)"]
        else:
            ways = [f"lower sampling.batch_tokens{_now(self.step, 'batch_tokens')}"]
        if kind == "sample" and self._zero.get("stage") == 3 and self.step.get("zero3_weights") != "stream":
            ways.append("set sampling.zero3_weights to stream")
        return ways


def _now(settings: Mapping[str, Any], name: str) -> str:
    return f" ({settings[name]} now)" if name in settings else ""


def _half(settings: Mapping[str, Any], name: str) -> str:
    return f" to {max(1, settings[name] // 2)}{_now(settings, name)}" if name in settings else ""
