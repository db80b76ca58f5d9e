"""Where a model comes from: a hub name, a folder, a GGUF file, or nothing at all (`scratch`).

Reads weights and tokenizers through `transformers`, those of reward models included. Writes a dense copy into the job's
folder for sources that `from_pretrained` cannot load sharded, so that every model is then loaded by the same call.
Leaves partitioning to `zero`: the caller opens its loading context around `load_model` and `load_classifier`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from hir_core.config import GgufModel, HubModel, ScratchModel
from hir_core.config.model_files import gguf_file
from hir_core.errors import ConfigError

END, PAD = "<|end|>", "<|pad|>"
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, ImportError, RecursionError, SafetensorError)
"""What `transformers` raises over files that are missing, cut short, or not what they should be."""


def materialise(spec: HubModel | GgufModel | ScratchModel, folder: Path, texts: Iterable[str], seed: int) -> None:
    """Writes a scratch or GGUF model to `folder` as plain safetensors with its tokenizer; hub models need nothing.

    Called by one rank; what it writes does not depend on the ZeRO stage or the number of ranks.
    """
    if isinstance(spec, ScratchModel):
        tokenizer = fit_tokenizer(texts, spec.vocab_size)
        tokenizer.save_pretrained(folder)
        build_scratch(spec, tokenizer, seed).save_pretrained(folder)
    elif isinstance(spec, GgufModel):
        _unpack_gguf(spec, folder)


def load_tokenizer(source: str, revision: str | None = None, setting: str = "model") -> Any:
    """The tokenizer at a hub name or folder, with a padding token that is never the end-of-sequence token's mask.

    Args:
        setting: what names the model, for messages.

    Raises:
        ConfigError: nothing can be loaded from there.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except _UNREADABLE as error:
        raise ConfigError(_not_loadable(setting, source, error)) from None
    if tokenizer.pad_token_id is None:
        # Masks are always built from lengths, never by comparing with this id, so sharing it with EOS is safe.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(source: str, dtype: torch.dtype, revision: str | None = None) -> Any:
    """The causal or encoder-decoder model at a hub name or folder, without dropout.

    With dropout the loss would depend on how rows fall into micro-batches and ranks, and the log-probabilities that
    are trained would not be those of the model that sampled. The model says so in its config, also once it is saved.

    Raises:
        ConfigError: nothing can be loaded from there, or not the whole of a model.
    """
    try:
        config = _config(source, revision, "model")
        for name, value in config.to_dict().items():
            if "drop" in name and isinstance(value, float):  # dropout_rate, attention_dropout, attn_pdrop, layerdrop
                setattr(config, name, 0.0)
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, missing = _loaded(auto, source, config, dtype, revision)
    except _UNREADABLE as error:
        raise ConfigError(_not_loadable("model", source, error)) from None
    if missing:
        raise ConfigError(
            f"model.source: cannot load `{source}` whole: its weights lack {', '.join(missing[:4])}, which would be "
            "made at random: copy its files again, or save it anew with save_pretrained"
        )
    model.config.use_cache = True
    return model


def load_classifier(source: str, dtype: torch.dtype, revision: str | None = None) -> Any:
    """The sequence classifier at a hub name or folder, for forward passes only.

    Raises:
        ConfigError: nothing can be loaded from there, or not the whole of a classifier: a head that is missing would be
            made at random, and its scores with it.
    """
    try:
        config = _config(source, revision, "reward")
        model, missing = _loaded(AutoModelForSequenceClassification, source, config, dtype, revision)
    except _UNREADABLE as error:
        raise ConfigError(_not_loadable("reward", source, error)) from None
    if missing:
        raise ConfigError(
            f"reward.source: `{source}` is no trained classifier: its weights lack {', '.join(missing[:4])}; "
            "name a model that was saved with its classification head"
        )
    model.config.use_cache = False
    return model.eval()


def context_length(model: Any) -> int | None:
    """Tokens that a sequence may have, or None where the architecture sets no limit."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return None if limit is None or model.config.is_encoder_decoder else int(limit)


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every token id that ends an output, the tokenizer's own first."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = own if isinstance(own, list) else [] if own is None else [own]
    return list(dict.fromkeys([int(tokenizer.eos_token_id), *map(int, listed)]))


def fit_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer fitted to the given texts: it can write any text, and common words are one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, END], initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)


def build_scratch(spec: ScratchModel, tokenizer: Any, seed: int) -> Any:
    """A randomly initialised model of the given shape; equal seeds give equal weights."""
    torch.manual_seed(seed)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    if spec.architecture == "t5":
        config = transformers.T5Config(
            vocab_size=len(tokenizer),
            d_model=spec.hidden_size,
            d_kv=spec.hidden_size // spec.heads,
            d_ff=spec.intermediate_size,
            num_layers=spec.layers,
            num_decoder_layers=spec.layers,
            num_heads=spec.heads,
            n_positions=spec.context,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            decoder_start_token_id=tokenizer.pad_token_id,
            **ends,
        )
        return transformers.T5ForConditionalGeneration(config)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        max_position_embeddings=spec.context,
        tie_word_embeddings=True,
        **ends,
    )
    return transformers.LlamaForCausalLM(config)


def _unpack_gguf(spec: GgufModel, folder: Path) -> None:
    path = gguf_file(spec)
    place, name = str(path.parent), path.name
    quantization = transformers.GgufConfig(gguf_file=name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        place, gguf_file=name, quantization_config=quantization, trust_remote_code=False
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # the weights are dense now; saving must not claim otherwise
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(place, gguf_file=name, trust_remote_code=False).save_pretrained(folder)


def _config(source: str, revision: str | None, setting: str) -> Any:
    """A model's config, which must not name attention code of the hub: `transformers` would fetch and run it."""
    config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    asked = getattr(config, "_attn_implementation_internal", None)
    if isinstance(asked, str) and "/" in asked:
        raise ConfigError(
            f"{setting}.source: the config of `{source}` names attention code of the hub, `{asked}`, and code of "
            "others is never run: take `attn_implementation` out of its config.json"
        )
    return config


def _loaded(auto: Any, source: str, config: Any, dtype: torch.dtype, revision: str | None) -> tuple[Any, list[str]]:
    """A model by one of the classes that choose by config, and the weights that it lacks, sorted by name."""
    model, found = auto.from_pretrained(
        source,
        config=config,
        revision=revision,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        trust_remote_code=False,
    )
    return model, sorted(found["missing_keys"])


def _not_loadable(setting: str, source: str, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "trust_remote_code" in str(error):
        first = "it needs Python code that lies beside it, which is never run: choose a model that transformers knows"
    return f"{setting}.source: cannot load `{source}` as a folder or a hub name: {first}"
