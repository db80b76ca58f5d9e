"""`ModelShape`: layers, widths, vocabulary and number of parameters of a model, from its config.json or its settings.

Reads the config.json of a folder or of the hub's cache, the header of a GGUF file, or the settings of a scratch model;
downloads nothing and opens no weights. Parameters are counted by the formulas of the architectures in `_FAMILIES`.
Imports no torch, so that the driver can use it. Raises ConfigError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from hir_core.config.gguf_header import read_gguf_header
from hir_core.config.lora import LoraConfig
from hir_core.config.model import GgufModel, HubModel, ModelConfig, ScratchModel
from hir_core.config.model_files import gguf_file, is_path
from hir_core.config.model_folder import read_object
from hir_core.errors import ConfigError

LARGEST = 2**48
"""Greatest number that is believed in a config.json."""


class LinearLayer(NamedTuple):
    """Linear layers of a model that are alike."""

    name: str
    """The last word of their names."""
    layers: int
    inputs: int
    outputs: int


@dataclass(frozen=True)
class ModelShape:
    """The numbers on which a model's memory depends."""

    parameters: int
    """Tied weights count once."""
    layer_parameters: int
    """Parameters of the largest piece that ZeRO-3 gathers at once: a layer, or the embedding."""
    vocabulary: int
    hidden: int
    intermediate: int
    """Width of the feed-forward layers."""
    layers: int
    """Of the decoder."""
    encoder_layers: int
    """0 for a decoder-only model."""
    heads: int
    kv_heads: int
    """Heads of the keys and values; fewer than `heads` with grouped-query attention."""
    head_size: int
    is_gated: bool
    """Whether the feed-forward layers have three matrices instead of two."""
    context: int
    """Longest sequence in tokens; `LARGEST` where it is not limited, or not known."""
    linear: tuple[LinearLayer, ...]
    """Those of all transformer layers."""

    adapter: int = 0
    """Parameters of a LoRA adapter beside the model's own, which are then not trained; 0: there is no adapter."""

    @property
    def trained(self) -> int:
        """Parameters that are trained."""
        return self.adapter or self.parameters

    def with_adapter(self, lora: LoraConfig) -> ModelShape:
        """The same model with an adapter: for each layer that gets one, `rank` times its inputs and outputs.

        Raises:
            ConfigError: no layer has one of the names in `target_modules`.
        """
        names = {layer.name for layer in self.linear}
        targets = names if isinstance(lora.target_modules, str) else {n.split(".")[-1] for n in lora.target_modules}
        if unknown := sorted(targets - names):
            known = ", ".join(sorted(names))
            raise ConfigError(f"lora.target_modules: the model has no `{unknown[0]}`: choose from {known}")
        chosen = [layer for layer in self.linear if layer.name in targets]
        return replace(self, adapter=sum(lora.rank * own.layers * (own.inputs + own.outputs) for own in chosen))

    @property
    def attention(self) -> int:
        """Width of all queries of a token."""
        return self.heads * self.head_size

    @property
    def kv(self) -> int:
        """Width of all keys, or all values, of a token."""
        return self.kv_heads * self.head_size


@dataclass(frozen=True)
class _Family:
    """What the parameters of an architecture are, as far as its config.json does not say it."""

    norms: int = 2
    """RMS norms of a layer."""
    is_tied: bool = False
    """Whether embedding and output head are one matrix where the config does not say."""
    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    is_fused: bool = False
    """Whether queries, keys and values are one linear layer, and the two that enter the feed-forward another."""


_FAMILIES = {
    "llama": _Family(),
    "mistral": _Family(),
    "phi3": _Family(is_fused=True),
    "qwen2": _Family(has_qkv_bias=True),
    "qwen3": _Family(has_qk_norm=True),
    "gemma": _Family(is_tied=True),
    "gemma2": _Family(is_tied=True, norms=4),
    "gemma3_text": _Family(is_tied=True, norms=4, has_qk_norm=True),
}
"""Decoder-only architectures with rotary positions, RMS norms and gated feed-forward layers, by `model_type`."""


def find_shape(model: ModelConfig, parameters: int | None = None) -> ModelShape:
    """The shape of the model that a config names.

    Args:
        parameters: their number, for an architecture whose parameters cannot be counted here.

    Raises:
        ConfigError: there is no config.json on this machine, it is not that of a language model, or the number of
            parameters has to be given.
    """
    if isinstance(model, ScratchModel):
        return _scratch_shape(model)
    if isinstance(model, GgufModel):
        header = read_gguf_header(gguf_file(model))
        return shape_of_config(header.as_config(), parameters, str(gguf_file(model)))
    path = _config_file(model)
    return shape_of_config(read_object(path, "model.source"), parameters, str(path))


def _config_file(model: HubModel) -> Path:
    """The config.json of a folder, or of a hub model that has been downloaded before."""
    if is_path(model.source):
        path = Path(model.source) / "config.json"
        if not path.is_file():
            raise ConfigError(f"model.source: {model.source} is no model folder: it has no config.json")
        return path
    from huggingface_hub import try_to_load_from_cache  # slow to import

    try:
        cached = try_to_load_from_cache(model.source, "config.json", revision=model.revision)
    except ValueError as error:
        raise ConfigError(f"model.source: {error}") from None
    if not isinstance(cached, str):
        raise ConfigError(
            f"model.source: `{model.source}` is not in the hub's cache on this machine, and nothing is downloaded for "
            "a plan: put the model's config.json into a folder, and set model.source to that folder"
        )
    return Path(cached)


def _scratch_shape(model: ScratchModel) -> ModelShape:
    """The shape of a scratch model with the largest vocabulary that it may get."""
    if model.architecture == "t5":
        return shape_of_config(
            {
                "model_type": "t5",
                "vocab_size": model.vocab_size,
                "d_model": model.hidden_size,
                "d_kv": model.hidden_size // model.heads,
                "d_ff": model.intermediate_size,
                "num_layers": model.layers,
                "num_heads": model.heads,
                "n_positions": model.context,
                "feed_forward_proj": "gated-gelu",
            }
        )
    return shape_of_config(
        {
            "model_type": "llama",
            "vocab_size": model.vocab_size,
            "hidden_size": model.hidden_size,
            "intermediate_size": model.intermediate_size,
            "num_hidden_layers": model.layers,
            "num_attention_heads": model.heads,
            "max_position_embeddings": model.context,
            "tie_word_embeddings": True,
        }
    )


def shape_of_config(config: Mapping[str, Any], parameters: int | None = None, where: str = "the model") -> ModelShape:
    """The shape that the content of a config.json describes.

    Args:
        parameters: their number; None: counted by the formula of the architecture.
        where: the file, for messages.

    Raises:
        ConfigError: a number is missing or none, or the architecture is unknown and `parameters` is None.
    """
    nested = config.get("text_config")
    fields = _Fields(nested if isinstance(nested, dict) else config, where)
    kind = fields.values.get("model_type")
    if kind == "t5":
        return _t5(fields, parameters)
    if kind == "gpt2":
        return _gpt2(fields, parameters)
    family = _FAMILIES.get(str(kind))
    if family is None and parameters is None:
        known = ", ".join(sorted([*_FAMILIES, "gpt2", "t5"]))
        raise ConfigError(
            f"{where}: the parameters of `model_type` {kind!r} cannot be counted, only those of {known}: give their "
            "number with --parameters"
        )
    return _decoder(fields, family or _Family(), parameters)


class _Fields:
    """The values of a config.json, read with a check."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def whole(self, name: str, default: int | None = None) -> int:
        """The whole number of this name, or the default where it is missing or null.

        Raises:
            ConfigError: it is missing without a default, or not a whole number from 1 to `LARGEST`.
        """
        value = self.values.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
            raise ConfigError(f"{self.where}: `{name}` must be a whole number of at least 1, found {value!r:.100}")
        return value

    def is_set(self, name: str, default: bool = False) -> bool:
        """Whether the flag of this name is set."""
        value = self.values.get(name)
        return default if value is None else bool(value)


def _decoder(fields: _Fields, family: _Family, parameters: int | None) -> ModelShape:
    """Llama and its relatives."""
    hidden, heads = fields.whole("hidden_size"), fields.whole("num_attention_heads")
    kv_heads = fields.whole("num_key_value_heads", heads)
    size = fields.whole("head_dim", max(1, hidden // heads))
    intermediate, layers = fields.whole("intermediate_size"), fields.whole("num_hidden_layers")
    vocabulary = fields.whole("vocab_size")
    layer = 2 * hidden * size * (heads + kv_heads) + 3 * hidden * intermediate + family.norms * hidden
    if family.has_qkv_bias or fields.is_set("attention_bias"):
        layer += size * (heads + 2 * kv_heads) + (0 if family.has_qkv_bias else hidden)
    layer += 2 * intermediate + hidden if fields.is_set("mlp_bias") else 0
    layer += 2 * size if family.has_qk_norm else 0
    matrices = 1 if fields.is_set("tie_word_embeddings", family.is_tied) else 2
    counted = matrices * vocabulary * hidden + layers * layer + hidden
    attention, kv = heads * size, kv_heads * size
    outputs = {"q_proj": attention, "k_proj": kv, "v_proj": kv, "gate_proj": intermediate, "up_proj": intermediate}
    if family.is_fused:
        outputs = {"qkv_proj": attention + 2 * kv, "gate_up_proj": 2 * intermediate}
    return ModelShape(
        parameters=parameters or counted,
        layer_parameters=max(layer, vocabulary * hidden),
        vocabulary=vocabulary,
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        encoder_layers=0,
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        is_gated=True,
        context=fields.whole("max_position_embeddings", LARGEST),
        linear=(
            *(LinearLayer(name, layers, hidden, width) for name, width in outputs.items()),
            LinearLayer("o_proj", layers, attention, hidden),
            LinearLayer("down_proj", layers, intermediate, hidden),
        ),
    )


def _gpt2(fields: _Fields, parameters: int | None) -> ModelShape:
    """GPT-2: learned positions, biases everywhere, layer norms with two vectors, the head always the embedding."""
    hidden, heads, positions = fields.whole("n_embd"), fields.whole("n_head"), fields.whole("n_positions", 1024)
    intermediate, layers = fields.whole("n_inner", 4 * hidden), fields.whole("n_layer")
    vocabulary = fields.whole("vocab_size")
    attention = 4 * hidden * hidden + 4 * hidden
    layer = attention + 2 * hidden * intermediate + intermediate + hidden + 4 * hidden
    counted = (vocabulary + positions) * hidden + layers * layer + 2 * hidden
    return ModelShape(
        parameters=parameters or counted,
        layer_parameters=max(layer, vocabulary * hidden),
        vocabulary=vocabulary,
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        encoder_layers=0,
        heads=heads,
        kv_heads=heads,
        head_size=max(1, hidden // heads),
        is_gated=False,
        context=positions,
        linear=(
            LinearLayer("c_attn", layers, hidden, 3 * hidden),
            LinearLayer("c_proj", layers, hidden, hidden),
            LinearLayer("c_fc", layers, hidden, intermediate),
            LinearLayer("c_proj", layers, intermediate, hidden),
        ),
    )


def _t5(fields: _Fields, parameters: int | None) -> ModelShape:
    """T5: an encoder and a decoder, of which each has a table of relative positions; decoder layers attend twice."""
    hidden, heads, size = fields.whole("d_model"), fields.whole("num_heads"), fields.whole("d_kv")
    intermediate, encoder_layers = fields.whole("d_ff"), fields.whole("num_layers")
    layers, vocabulary = fields.whole("num_decoder_layers", encoder_layers), fields.whole("vocab_size")
    is_gated = str(fields.values.get("feed_forward_proj", "relu")).startswith("gated-")
    entering = ("wi_0", "wi_1") if is_gated else ("wi",)
    attention = 4 * hidden * heads * size
    feed_forward = (3 if is_gated else 2) * hidden * intermediate
    layer = 2 * attention + feed_forward + 3 * hidden
    encoder = encoder_layers * (attention + feed_forward + 2 * hidden) + hidden
    positions = 2 * fields.whole("relative_attention_num_buckets", 32) * heads
    matrices = 1 if fields.is_set("tie_word_embeddings", True) else 2
    counted = matrices * vocabulary * hidden + encoder + layers * layer + hidden + positions
    return ModelShape(
        parameters=parameters or counted,
        layer_parameters=max(layer, vocabulary * hidden),
        vocabulary=vocabulary,
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        encoder_layers=encoder_layers,
        heads=heads,
        kv_heads=heads,
        head_size=size,
        is_gated=is_gated,
        context=LARGEST,
        linear=(
            *(LinearLayer(name, encoder_layers + 2 * layers, hidden, heads * size) for name in "qkv"),
            LinearLayer("o", encoder_layers + 2 * layers, heads * size, hidden),
            *(LinearLayer(name, encoder_layers + layers, hidden, intermediate) for name in entering),
            LinearLayer("wo", encoder_layers + layers, intermediate, hidden),
        ),
    )
