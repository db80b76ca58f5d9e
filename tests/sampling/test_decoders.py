"""Decoders: whatever rows come, go and grow, logits are those of one plain forward pass over each row."""

import numpy as np
import pytest
import torch
import transformers

from hir_core.sampling import block_cache
from hir_core.sampling.decoders import CausalDecoder, EncoderDecoder

CPU = torch.device("cpu")
SHAPE = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE),
    "qwen2": lambda: transformers.Qwen2Config(**SHAPE),
    "qwen3": lambda: transformers.Qwen3Config(**SHAPE),
    "mistral, sliding": lambda: transformers.MistralConfig(**SHAPE, sliding_window=5),
    "gemma2": lambda: transformers.Gemma2Config(**SHAPE, sliding_window=5),
    "gemma3": lambda: transformers.Gemma3TextConfig(**SHAPE, sliding_window=5, sliding_window_pattern=2),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=128, bos_token_id=1, eos_token_id=1
    ),
    "bloom": lambda: transformers.BloomConfig(vocab_size=60, hidden_size=16, n_layer=2, n_head=2),
}


@pytest.fixture(params=CONFIGS)
def causal(request):
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # so that its logits depend on what it reads
    return model


def new_rows(rng, count: int) -> tuple[list[list[int]], list[int]]:
    prompts = [rng.integers(2, 60, size=rng.integers(1, 14)).tolist() for _ in range(count)]
    return prompts, rng.integers(1, 4, size=count).tolist()


def enter(decoder, prompts, repeats, kept=()) -> torch.Tensor:
    """Reads prompts, and adds so many rows of each after the kept ones."""
    order = torch.arange(len(prompts)).repeat_interleave(torch.tensor(repeats))
    return decoder.enter([(decoder.read(prompts), order)], torch.tensor(kept, dtype=torch.long))


def plain_logits(model, rows: list[list[int]]) -> torch.Tensor:
    return torch.stack([model(input_ids=torch.tensor([row])).logits[0, -1] for row in rows])


@torch.no_grad()
def test_rows_that_come_and_go_read_what_they_would_read_alone(causal, monkeypatch):
    """30 rounds of one to five tokens each, after each of which rows leave, and often others enter."""
    monkeypatch.setattr(block_cache, "BLOCK", 3)
    rng = np.random.default_rng(4)
    decoder, rows = CausalDecoder(causal, 0, CPU), []
    largest = 0.0
    for _ in range(30):
        kept = [n for n in range(len(rows)) if rng.random() < 0.7 and len(rows[n]) < 50]
        if kept and rng.random() < 0.3:
            decoder.keep(torch.tensor(kept))
            rows = [rows[n] for n in kept]
        else:
            prompts, repeats = new_rows(rng, int(rng.integers(1, 4)))
            logits = enter(decoder, prompts, repeats, kept)
            entered = [list(p) for p, times in zip(prompts, repeats, strict=True) for _ in range(times)]
            torch.testing.assert_close(logits, plain_logits(causal, entered), rtol=1e-4, atol=1e-4)
            rows = [rows[n] for n in kept] + entered
        assert decoder.columns == max(map(len, rows))
        for _ in range(int(rng.integers(1, 6))):
            tokens = rng.integers(2, 60, size=len(rows))
            rows = [[*row, int(token)] for row, token in zip(rows, tokens, strict=True)]
            logits = decoder.next(torch.tensor(tokens), torch.ones(len(rows), dtype=torch.bool))
            torch.testing.assert_close(logits, plain_logits(causal, rows), rtol=1e-4, atol=1e-4)
            largest = max(largest, float(logits.std()))
    assert decoder.takes_more
    assert largest > 0.01


@torch.no_grad()
def test_a_row_that_has_ended_stays_within_its_positions(causal):
    """It is still computed, but its position no longer grows, which might leave the model's context."""
    decoder = CausalDecoder(causal, 0, CPU)
    enter(decoder, [[5] * 120, [6, 7]], [1, 1])
    for _ in range(20):
        logits = decoder.next(torch.tensor([8, 9]), torch.tensor([False, True]))
    assert decoder.lengths.tolist() == [120, 22]
    torch.testing.assert_close(logits[1:], plain_logits(causal, [[6, 7] + [9] * 20]), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_rows_of_an_encoder_decoder_that_leave_change_no_other(kind, monkeypatch):
    monkeypatch.setattr(block_cache, "BLOCK", 3)
    torch.manual_seed(1)
    ends = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "vocab_size": 60}
    if kind == "t5":
        config = transformers.T5Config(**ends, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    else:
        sizes = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", 2), ("ffn_dim", 32))}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        config = transformers.BartConfig(**ends, **sizes, **heads, d_model=16, max_position_embeddings=64)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config).eval()
    rng = np.random.default_rng(4)
    prompts, repeats = new_rows(rng, 6)
    decoder = EncoderDecoder(model, 0, CPU)
    enter(decoder, prompts, repeats)
    assert decoder.is_in_blocks
    rows = [(p, [0]) for p, times in zip(prompts, repeats, strict=True) for _ in range(times)]
    while len(rows) > 1:
        for _ in range(4):
            tokens = rng.integers(2, 60, size=len(rows))
            rows = [(prompt, [*output, int(token)]) for (prompt, output), token in zip(rows, tokens, strict=True)]
            logits = decoder.next(torch.tensor(tokens), torch.ones(len(rows), dtype=torch.bool))
            for row, (prompt, output) in enumerate(rows):
                alone = model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([output]))
                torch.testing.assert_close(logits[row], alone.logits[0, -1], rtol=1e-4, atol=1e-4)
        kept = sorted(rng.permutation(len(rows))[: len(rows) // 2].tolist())
        decoder.keep(torch.tensor(kept))
        rows = [rows[n] for n in kept]


@torch.no_grad()
def test_layers_of_other_kinds_keep_the_cache_of_transformers():
    """Short convolutions beside attention, of which a row's state is no list of columns."""
    config = transformers.Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"], block_multiple_of=8)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    decoder = CausalDecoder(model, 0, CPU)
    logits = enter(decoder, [[5, 6, 7], [8, 9, 10]], [1, 2])
    assert not decoder.takes_more
    rows = [[5, 6, 7], [8, 9, 10], [8, 9, 10]]
    torch.testing.assert_close(logits, plain_logits(model, rows), rtol=1e-4, atol=1e-4)
    decoder.keep(torch.tensor([0, 2]))
    logits = decoder.next(torch.tensor([11, 12]), torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(logits, plain_logits(model, [[5, 6, 7, 11], [8, 9, 10, 12]]), rtol=1e-4, atol=1e-4)
