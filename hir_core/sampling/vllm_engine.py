"""The sampling engine on vLLM: a process in vLLM's own environment, which loads a saved model and completes prompts.

Takes prompt ids and yields token ids with log-probabilities, as `transformers_engine` does: the same prompts, the same
seeds, another stream of random numbers. What runs in the process is `vllm_worker`, and how the two talk is described
there. The process ends with this one.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from hir_core import vllm_worker
from hir_core.config import VllmEngine
from hir_core.errors import ConfigError, NumericalError
from hir_core.sampling.completions import Completion, Output, Request
from hir_core.sampling.draw import Limits

SEED_BITS = 63
"""vLLM keeps seeds as signed numbers of 64 bits; a negative one may stand for none."""
OURS = ("PYTHON", "PYTORCH_", "MASTER_", "CROSS_", "RANK", "WORLD_SIZE", "LOCAL_", "VIRTUAL_ENV", "OMP_")
"""Beginnings of variables that are about this process and its launch."""


class VllmEnded(RuntimeError):
    """vLLM's process has ended, or answered what was not asked for; its own messages are in the rank's log."""


class VllmProcess:
    """vLLM with one model.

    Args:
        settings: how it runs.
        model: the folder of a whole model.
        dtype: of the weights, as `float32`.
        longest: tokens of the longest sequence, prompt and output together.
        reads_text: whether stop texts are looked for, which takes the model's tokenizer.
        gpus: those that it may use, as in `CUDA_VISIBLE_DEVICES`; empty on a CPU.

    Raises:
        VllmEnded: the model cannot be loaded.
        ConfigError: it is loaded by another release than the settings name.
    """

    def __init__(
        self, settings: VllmEngine, model: Path, dtype: str, longest: int, reads_text: bool, gpus: Sequence[str] = ()
    ) -> None:
        names = ("gpu_memory_utilization", "kv_cache_memory_bytes", "max_num_seqs", "max_num_batched_tokens",
                 "enforce_eager", "enable_chunked_prefill")  # fmt: skip
        given = {name: value for name in names if (value := getattr(settings, name)) is not None}
        self._process = subprocess.Popen(
            [str(settings.python), "-I", vllm_worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=worker_env(os.environ, gpus),
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        arguments = {
            "model": str(model),
            "dtype": dtype,
            "max_model_len": longest,
            "tensor_parallel_size": settings.tensor_parallel,
            "skip_tokenizer_init": not reads_text,
            **given,
        }
        try:
            self._send([arguments])
            release = str(self._read()["loaded"])
            if release.partition("+")[0] != settings.release:
                raise ConfigError(
                    f"sampling.engine.release is {settings.release}, and {settings.python} has loaded vLLM {release}: "
                    "somebody has installed another one meanwhile"
                )
        except BaseException:
            self.close()
            raise

    def complete(self, requests: Sequence[Request], limits: Limits, stop: Sequence[str] = ()) -> Iterator[Completion]:
        """Completes prompts; yields completions as prompts are finished, those of one prompt together and in order.

        Args:
            stop: the texts that `limits.has_stopped` looks for.

        Raises:
            NumericalError: a log-probability is not finite; names the prompt.
            VllmEnded: its process has failed, or ended an output without a reason.
        """
        rows = {f"{n}.{k}": (request, k) for n, request in enumerate(requests) for k in range(len(request.seeds))}
        step = {"requests": len(rows), "settings": sampling_settings(limits, stop)}
        asked = (
            {"id": name, "prompt": request.prompt_ids, "seed": request.seeds[k] % 2**SEED_BITS}
            for name, (request, k) in rows.items()
        )
        self._send(chain([step], asked))
        outputs: dict[str, list[Output]] = {}
        for _ in range(len(rows)):
            reply = self._read()
            request, k = rows.pop(reply["id"])
            finished = outputs.setdefault(request.key, [])
            finished.append(read_output(Output(request, request.first + k), reply, limits))
            if len(finished) == len(request.seeds):
                ordered = sorted(outputs.pop(request.key), key=lambda output: output.k)
                yield from (output.completion() for output in ordered)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):  # of what it has not read
            self._stdin.close()
        self._stdout.close()

    def _send(self, messages: Iterable[Mapping[str, Any]]) -> None:
        try:
            for message in messages:
                self._stdin.write(json.dumps(message) + "\n")
            self._stdin.flush()
        except BrokenPipeError:
            while True:  # until it says why it has ended, or has said nothing
                self._read()

    def _read(self) -> dict[str, Any]:
        line = self._stdout.readline()
        if line.endswith("\n"):
            reply: dict[str, Any] = json.loads(line)
            if "error" not in reply:
                return reply
            raise VllmEnded(f"vLLM failed: {reply['error']}")
        code = self._process.wait()
        if code >= 0:
            raise VllmEnded(f"vLLM ended with exit code {code}")
        reason = f"vLLM was ended by signal {-code} ({signal.strsignal(-code)})"
        print(f"{reason}, and this rank ends with it", flush=True)
        os.kill(os.getpid(), -code)  # so that the driver sees what it would see of a rank that draws itself
        raise VllmEnded(reason)


def worker_env(env: Mapping[str, str], gpus: Sequence[str]) -> dict[str, str]:
    """The environment of vLLM's process: this one's, without what is about this process; nothing is fetched or sent."""
    kept = {name: value for name, value in env.items() if not name.startswith(OURS)}
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if gpus:
        return kept | quiet | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    # The ranks share the cores: vLLM would bind each of its processes to the same ones.
    threads = {"OMP_NUM_THREADS": env["OMP_NUM_THREADS"]} if "OMP_NUM_THREADS" in env else {}
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind"} | kept | quiet | threads


def sampling_settings(limits: Limits, stop: Sequence[str]) -> dict[str, Any]:
    """The arguments of `vllm.SamplingParams` that draw as `draw` does, and end outputs as `Output.add` does."""
    allowed = {"top_p": limits.top_p, "top_k": limits.top_k, "min_p": limits.min_p}
    return {
        "temperature": limits.temperature,
        "max_tokens": limits.max_new_tokens,
        "stop_token_ids": list(limits.end_ids),
        "ignore_eos": True,  # it is among the tokens above
        "detokenize": bool(stop),
        **({"stop": list(stop)} if stop else {}),
        **{name: value for name, value in allowed.items() if value is not None},
    }


def read_output(output: Output, reply: Mapping[str, Any], limits: Limits) -> Output:
    """The output with what vLLM has drawn, up to the token that ends it."""
    key = output.request.key
    if not all(map(math.isfinite, reply["logprobs"])):
        raise NumericalError(
            f"prompt {key}: vLLM gives a log-probability of output {output.k} that is not finite: the model's training "
            "went wrong or its numbers are too large for their type: lower training.learning_rate or "
            "warm_start.learning_rate, or choose another model"
        )
    output.add(reply["tokens"], reply["logprobs"], limits)
    if output.finish_reason is None:
        if limits.has_stopped is None or reply["ended"] != "stop":
            raise VllmEnded(f"vLLM ended output {output.k} of prompt {key} for no reason that was asked for")
        # It decodes the output after the prompt. Where that ends with half a character, it may see a stop text that is
        # none of the output's own: the output was cut off.
        output.finish_reason = "length"
    return output
