"""The benchmark of sampling: the engine on `transformers` beside plain `generate`, batched and one prompt at a time.

    python tests/benchmarks/sampling.py [--rounds N] [--models llama-10m,smollm2-135m,growth] [--prompts N]

Models have random weights: a Llama of 10 million parameters, and the shape of SmolLM2-135M. Prompts of 8 to 64 tokens,
k = 4 samples of each at temperature 1, one token in 64 ends an output, at most 256 tokens: the outputs are of very
uneven lengths. 32-bit numbers on one thread. Both batched sides have 64 rows at once, and both sort the prompts by
length. Every measurement is made in a process of its own, sides in turn; building the model is not counted. `growth` is
ours alone, with 1, 10 and 100 times as many prompts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
K, ROWS, SHORTEST, LONGEST, MAX_NEW_TOKENS, ONE_IN = 4, 64, 8, 64, 256, 64
SIDES = ("hir", "generate", "one prompt at a time")
SHAPES = {
    "llama-10m": {"vocab_size": 8192, "hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 8}
    | {"num_attention_heads": 6, "num_key_value_heads": 6},
    "smollm2-135m": {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
    | {"num_attention_heads": 9, "num_key_value_heads": 3},
}


@dataclass(frozen=True)
class Measurement:
    """One side on one model, once."""

    model: str
    side: str
    prompts: int
    tokens: int
    """Drawn tokens of all outputs, ends included and padding left out."""
    cpu_s: float
    wall_s: float
    peak_bytes: int
    """Resident memory, weights and libraries included."""

    @property
    def cpu_ms_per_token(self) -> float:
        return 1000 * self.cpu_s / self.tokens


def run(rounds: int, models: Sequence[str] = ("llama-10m", "smollm2-135m"), prompts: int = 128) -> list[Measurement]:
    """Measures every side on every model once per round, in reverse order in every second round."""
    measurements = []
    for model in models:
        for number in range(rounds):
            for side in SIDES if number % 2 == 0 else reversed(SIDES):
                measurements.append(_measure_in_process(model, side, prompts))
    return measurements


def growth(rounds: int, prompts: int = 4) -> list[Measurement]:
    """Ours on the smaller model, with 1, 10 and 100 times as many prompts."""
    sizes = [prompts, 10 * prompts, 100 * prompts]
    return [_measure_in_process("llama-10m", "hir", size) for _ in range(rounds) for size in sizes]


def _measure_in_process(model: str, side: str, prompts: int) -> Measurement:
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, __file__, "--measure", model, side, str(prompts)]
    process = subprocess.run(command, env=env, cwd=CHECKOUT, stdout=subprocess.PIPE, check=True, text=True)
    measurement = Measurement(**json.loads(process.stdout.splitlines()[-1]))
    print(f"{measurement} {measurement.cpu_ms_per_token:.3f} CPU ms per token", file=sys.stderr)
    return measurement


def measure(model: str, side: str, prompts: int) -> Measurement:
    """Makes one measurement in this process."""
    import torch

    torch.set_num_threads(1)
    built, requests, ends = _build(model), _requests(model, prompts), _ends(model)
    functions = {"hir": _hir, "generate": _generate, "one prompt at a time": _one_at_a_time}
    functions[side](built, requests[:1], ends)  # the first call of a process imports and allocates
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = functions[side](built, requests, ends)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Measurement(model, side, prompts, tokens, cpu, wall, peak_bytes)


def _build(model: str) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    ends = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    config = LlamaConfig(**SHAPES[model], max_position_embeddings=2048, tie_word_embeddings=True, **ends)
    return LlamaForCausalLM(config).eval()


def _ends(model: str) -> tuple[int, ...]:
    """Tokens that end an output: random weights draw each token about equally often."""
    return tuple(range(1, 1 + SHAPES[model]["vocab_size"] // ONE_IN))


def _requests(model: str, prompts: int) -> list[Any]:
    import numpy as np

    from hir_core.sampling.transformers_engine import Request, row_seed

    rng, vocabulary = np.random.default_rng(1), SHAPES[model]["vocab_size"]
    ids = [rng.integers(vocabulary // 2, vocabulary, rng.integers(SHORTEST, LONGEST + 1)) for _ in range(prompts)]
    return [
        Request(f"p{n:06}", tuple(ids[n].tolist()), tuple(row_seed(n, k) for k in range(K))) for n in range(prompts)
    ]


def _hir(model: Any, requests: Sequence[Any], ends: tuple[int, ...]) -> int:
    import torch

    from hir_core.sampling.transformers_engine import Limits, complete

    limits = Limits(1.0, MAX_NEW_TOKENS, ends, 0)
    batch_tokens = ROWS * (LONGEST + MAX_NEW_TOKENS)
    completions = complete(model, requests, limits, torch.device("cpu"), batch_tokens)
    return sum(len(completion.token_ids) for completion in completions)


def _generate(model: Any, requests: Sequence[Any], ends: tuple[int, ...], prompts_at_once: int = ROWS // K) -> int:
    import torch

    prompts = sorted((request.prompt_ids for request in requests), key=len, reverse=True)
    tokens = 0
    for start in range(0, len(prompts), prompts_at_once):
        batch = prompts[start : start + prompts_at_once]
        width = len(batch[0])
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in batch])
        outputs = model.generate(
            input_ids=ids,
            attention_mask=(ids != 0).long(),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=MAX_NEW_TOKENS,
            eos_token_id=list(ends),
            pad_token_id=0,
            num_return_sequences=K,
        )
        tokens += int((outputs[:, width:] != 0).sum())  # the padding may also be drawn, once in 10,000 tokens
    return tokens


def _one_at_a_time(model: Any, requests: Sequence[Any], ends: tuple[int, ...]) -> int:
    return _generate(model, requests, ends, prompts_at_once=1)


def table(measurements: Sequence[Measurement]) -> str:
    """A line per model, number of prompts and side: medians over the rounds, and how many times the cost of ours."""
    lines = []
    groups: dict[tuple[str, int, str], list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault((measurement.model, measurement.prompts, measurement.side), []).append(measurement)
    for (model, prompts, side), group in groups.items():
        ours = groups[model, prompts, "hir"]
        ratios = [m.cpu_ms_per_token / own.cpu_ms_per_token for m, own in zip(group, ours, strict=True)]
        cost = statistics.median(m.cpu_ms_per_token for m in group)
        peak = max(m.peak_bytes for m in group) / 1e9
        lines.append(
            f"{model:13} {prompts:5} prompts  {side:20} {cost:8.3f} CPU ms per token  {statistics.median(ratios):5.2f} "
            f"times ours ({min(ratios):.2f} to {max(ratios):.2f})  peak {peak:.2f} GB"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures what the command line names, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", default="llama-10m,smollm2-135m,growth")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--measure", nargs=3, metavar=("MODEL", "SIDE", "PROMPTS"), help="one measurement, as JSON")
    options = parser.parse_args()
    if options.measure:
        model, side, prompts = options.measure
        print(json.dumps(asdict(measure(model, side, int(prompts)))))
        return
    names = options.models.split(",")
    measurements = run(options.rounds, [name for name in names if name != "growth"], options.prompts)
    print(table(measurements))
    if "growth" in names:
        print(table(growth(options.rounds)))


if __name__ == "__main__":
    main()
