"""The cost of sampling: the engine on `transformers` beside plain `generate`: in batches, by prompt, and one by one.

`generate` draws 64 outputs at once; the outputs of one prompt at once, which are a batch too; and one output at a time,
as the published code of the method does (batch 1). The last one is measured on fewer prompts: what a token costs there
does not depend on how many follow.

Models have random weights: a Llama of 10 million parameters, and the shape of SmolLM2-135M. Prompts of 8 to 64 tokens
in random order, which both batched sides sort by length; samples at temperature 1, of which one token in 64 ends an
output, so that outputs are of very uneven lengths. 32-bit numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Case, Side, Work
from tests.benchmarks.side_process import Clock

SHORTEST, LONGEST, ONE_IN = 8, 64, 64
"""Tokens of prompts, and how many tokens there are for each that ends an output."""
SHAPES = {
    "llama-10m": {"vocab_size": 8192, "hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 8}
    | {"num_attention_heads": 6, "num_key_value_heads": 6},
    "smollm2-135m": {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
    | {"num_attention_heads": 9, "num_key_value_heads": 3},
}


def make_model(name: str) -> Any:
    """A model of that shape; every token is about equally likely."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    ends = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    config = LlamaConfig(**SHAPES[name], max_position_embeddings=2048, tie_word_embeddings=True, **ends)
    return LlamaForCausalLM(config).eval()


def end_tokens(model: str) -> tuple[int, ...]:
    """The tokens that end an output."""
    return tuple(range(1, 1 + SHAPES[model]["vocab_size"] // ONE_IN))


def make_prompts(model: str, count: int) -> list[tuple[int, ...]]:
    """Prompts without padding and end tokens."""
    import numpy as np

    rng, vocabulary = np.random.default_rng(1), SHAPES[model]["vocab_size"]
    lengths = rng.integers(SHORTEST, LONGEST + 1, count)
    return [tuple(rng.integers(vocabulary // 2, vocabulary, length).tolist()) for length in lengths]


def sample_with_hir(clock: Clock, _: Path, model: str, prompts: int, k: int, rows: int, max_new_tokens: int) -> Work:
    """Samples with the engine; as many rows at once as fit into their token budget."""
    import torch

    from hir_core.sampling.completions import Request, row_seed
    from hir_core.sampling.draw import Limits
    from hir_core.sampling.transformers_engine import complete

    built, device = make_model(model), torch.device("cpu")
    limits = Limits(1.0, max_new_tokens, end_tokens(model), 0)
    requests = [
        Request(f"p{n:06}", ids, tuple(row_seed(clock.round, n, sample) for sample in range(k)))
        for n, ids in enumerate(make_prompts(model, prompts))
    ]
    list(complete(built, requests[:1], limits, device))  # the first call of a process imports and allocates
    with clock:
        completions = list(complete(built, requests, limits, device, lambda _: rows))
    return Work(sum(len(completion.token_ids) for completion in completions))


def generate(clock: Clock, _: Path, model: str, prompts: int, k: int, rows: int, max_new_tokens: int) -> Work:
    """Samples with the model's own `generate`, in batches of prompts of similar length.

    Args:
        rows: outputs that are drawn at once: several prompts with their k outputs each, or fewer outputs of one prompt.
    """
    import torch

    built = make_model(model)
    torch.manual_seed(clock.round)
    by_length = sorted(make_prompts(model, prompts), key=len, reverse=True)
    together = min(k, rows)
    drawing = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_return_sequences": together}
    ends = {"eos_token_id": list(end_tokens(model)), "pad_token_id": 0, "max_new_tokens": max_new_tokens}

    def drawn(batch: list[tuple[int, ...]]) -> int:
        width = len(batch[0])
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in batch])
        outputs = built.generate(input_ids=ids, attention_mask=(ids != 0).long(), **drawing, **ends)
        return int((outputs[:, width:] != 0).sum())  # the padding may also be drawn, once in 10,000 tokens

    drawn(by_length[-1:])
    at_once = max(1, rows // k)
    batches = [by_length[start : start + at_once] for start in range(0, prompts, at_once)]
    with clock:
        tokens = sum(drawn(batch) for batch in batches for _ in range(k // together))
    return Work(tokens)


def sampling_case(model: str, rounds: int, prompts_one_by_one: int) -> Case:
    """The sides on one model."""
    work = {"model": model, "prompts": 128, "k": 4, "max_new_tokens": 256}
    return Case(
        name=f"sampling/{model}",
        question="128 prompts, 4 samples of each, 64 rows at once: drawn tokens against `generate`",
        unit="tokens",
        sides=(
            Side("hir", sample_with_hir, work | {"rows": 64}),
            Side("generate", generate, work | {"rows": 64}),
            Side("one prompt at a time", generate, work | {"rows": 4}),
            Side("one output at a time", generate, work | {"rows": 1, "prompts": prompts_one_by_one}),
        ),
        rounds=rounds,
    )


CASES = (sampling_case("llama-10m", 3, 16), sampling_case("smollm2-135m", 1, 4))
