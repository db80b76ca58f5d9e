"""Loading of models and tokenizers: from a hub name, a folder or a GGUF file, or made at random (`scratch`).

Reads weights and tokenizers through `transformers`, those of reward models included. `materialise` first writes GGUF
and scratch models into the job's folder, so that every model is then loaded by the same call, which works under ZeRO-3
too. Raises ConfigError for whatever cannot be loaded. The weights are partitioned by `zero.loading`, a context that the
caller opens around `load_model` and `load_classifier`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
import transformers
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
from hir_core.config.model_folder import check_folder
from hir_core.errors import MAKE_ROOM, ConfigError, HirError, StoreError
from hir_core.modeling import adapters
from hir_core.store.files import refusal, writing

END, PAD = "<|end|>", "<|pad|>"
UNLIMITED = 10**6
"""A tokenizer without a limit of its own has a `model_max_length` far above this."""


def materialise(spec: HubModel | GgufModel | ScratchModel, folder: Path, texts: Iterable[str], seed: int) -> None:
    """Writes a scratch or GGUF model to `folder` as plain safetensors with its tokenizer; does nothing for a hub model.

    Called by one rank. The files do not depend on the ZeRO stage or the number of ranks.

    Args:
        texts: what a scratch model's tokenizer is fitted to.
        seed: for a scratch model's weights.

    Raises:
        ConfigError: the GGUF file cannot be loaded.
        StoreError: the files cannot be written.
    """
    if isinstance(spec, ScratchModel):
        tokenizer = fit_tokenizer(texts, spec.vocab_size)
        model = build_scratch(spec, tokenizer, seed)
    elif isinstance(spec, GgufModel):
        model, tokenizer = _unpacked_gguf(spec)
    else:
        return
    with writing(folder):
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)


def load_tokenizer(source: str, revision: str | None = None, setting: str = "model") -> Any:
    """The tokenizer at a hub name or folder; where it has no padding token, the end-of-sequence token pads.

    Args:
        setting: the config section that names the model, for messages.

    Raises:
        ConfigError: no tokenizer can be loaded from there.
    """
    with _opening(source, f"{setting}.source"):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        tokenizer.encode("a")  # some settings show only now that they are wrong
    if tokenizer.pad_token_id is None:
        # Masks are always built from lengths, never by comparing with this id, so sharing the id is safe.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_tokenizer_and_shape(
    spec: HubModel | GgufModel | ScratchModel, texts: Iterable[str]
) -> tuple[Any, bool, int | None]:
    """A model's tokenizer, whether it is an encoder-decoder, and its context in tokens; no weights are read or made.

    Args:
        texts: what a scratch model's tokenizer is fitted to.

    Raises:
        ConfigError: there is no such model, or its files cannot be read.
    """
    if isinstance(spec, ScratchModel):
        is_encoder_decoder = spec.architecture == "t5"
        return fit_tokenizer(texts, spec.vocab_size), is_encoder_decoder, None if is_encoder_decoder else spec.context
    if isinstance(spec, GgufModel):
        path = gguf_file(spec)
        with _opening(str(path), "model.path", "a GGUF file"):
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
            config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    else:
        tokenizer = load_tokenizer(spec.source, spec.revision)
        with _opening(spec.source, "model.source"):
            config = _load_config(spec.source, spec.revision, "model")
    return tokenizer, bool(config.is_encoder_decoder), _context(config, None)


def load_model(source: str, dtype: torch.dtype, revision: str | None = None) -> Any:
    """The causal or encoder-decoder model at a hub name or folder, without dropout.

    With dropout the loss would depend on how rows are distributed over micro-batches and ranks, and training would see
    other log-probabilities than sampling. The model's config is changed too, so a saved model has no dropout either.

    Raises:
        ConfigError: no model can be loaded from there, or some of its weights are missing.
    """
    with _opening(source, "model.source"):
        config = _load_config(source, revision, "model")
        for name, value in config.to_dict().items():
            if "drop" in name and isinstance(value, float):  # dropout_rate, attention_dropout, attn_pdrop, layerdrop
                setattr(config, name, 0.0)
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, missing = _load_weights(auto, source, config, dtype, revision)
    if missing:
        raise ConfigError(
            f"model.source: cannot load `{source}` whole: its weights lack {', '.join(missing[:4])}, which would be "
            "initialised at random: copy its files again, or save it anew with save_pretrained"
        )
    model.config.use_cache = True
    return model


def load_classifier(source: str, dtype: torch.dtype, revision: str | None = None) -> Any:
    """The sequence classifier at a hub name or folder, for forward passes only.

    Raises:
        ConfigError: no classifier can be loaded from there, or some of its weights are missing: `transformers` would
            make a missing head at random, and its scores would be random too.
    """
    with _opening(source, "reward.source"):
        config = _load_config(source, revision, "reward")
        model, missing = _load_weights(AutoModelForSequenceClassification, source, config, dtype, revision)
    if missing:
        raise ConfigError(
            f"reward.source: `{source}` is no trained classifier: its weights lack {', '.join(missing[:4])}; "
            "name a model that was saved with its classification head"
        )
    model.config.use_cache = False
    return model.eval()


def context_length(model: Any, tokenizer: Any = None) -> int | None:
    """Tokens that a sequence may have, by the architecture and, where it is given, the tokenizer; None: no limit."""
    return _context(model.config, tokenizer)


def _context(config: Any, tokenizer: Any) -> int | None:
    limits = []
    if not config.is_encoder_decoder:
        limits.append(getattr(config, "max_position_embeddings", None))
    limit = getattr(tokenizer, "model_max_length", None)
    if limit is not None and limit < UNLIMITED:
        limits.append(limit)
    return min((int(limit) for limit in limits if limit is not None), default=None)


def load_generation_config(folder: str) -> Any:
    """The settings for drawing tokens in a model's folder.

    Raises:
        ConfigError: they cannot be read.
    """
    with _opening(folder, "model.source"):
        return transformers.GenerationConfig.from_pretrained(folder, trust_remote_code=False)


def end_ids(generation_config: Any, tokenizer: Any) -> list[int]:
    """Every token id that ends an output, the tokenizer's own first.

    Args:
        generation_config: the model's; None where it has none.

    Raises:
        ConfigError: what the model's generation config has as `eos_token_id` are no token ids.
    """
    own = generation_config.eos_token_id if generation_config is not None else None
    listed = own if isinstance(own, list) else [] if own is None else [own]
    if wrong := [token for token in listed if not isinstance(token, int) or not abs(token) < 2**31]:
        raise ConfigError(f"the model's generation_config.json: `eos_token_id` has {wrong[0]!r}, expected a token id")
    return list(dict.fromkeys([int(tokenizer.eos_token_id), *listed]))


def fit_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer fitted to the texts: it can encode any text, and common words are one token."""
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
    """A randomly initialised model of the shape that `spec` gives; equal seeds give equal weights."""
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


def _unpacked_gguf(spec: GgufModel) -> tuple[Any, Any]:
    """The model of a GGUF file with dense weights, and its tokenizer."""
    path = gguf_file(spec)
    source, name = str(path.parent), path.name
    quantization = transformers.GgufConfig(gguf_file=name, dequantize=True)
    with _opening(str(path), "model.path", "a GGUF file"):
        model = AutoModelForCausalLM.from_pretrained(
            source, gguf_file=name, quantization_config=quantization, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name, trust_remote_code=False)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # the weights are dense now: a saved config must not name a quantization
    return model, tokenizer


@contextmanager
def _opening(source: str, setting: str, kind: str = "a folder or a hub name") -> Iterator[None]:
    """A context in which `transformers` opens a model's files: no pickle, and errors become a ConfigError of one line.

    Args:
        setting: the key that names the model, for messages, as `kind` is.
    """
    if Path(source).is_dir():
        check_folder(Path(source), setting)
    try:
        with _without_pickles():
            yield
    except (HirError, MemoryError):
        raise
    except Exception as error:  # whatever `transformers` raises for a file that is not what it should be
        if MAKE_ROOM in refusal(error):  # for what is downloaded, or for the log
            raise StoreError(f"cannot load `{source}`: {refusal(error)}") from error
        is_misfit = "ignore_mismatched_sizes" in str(error)
        if isinstance(error, RuntimeError) and not is_misfit and not isinstance(error, RecursionError):
            raise  # of torch: memory, devices, other ranks
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        if is_misfit:
            reason = "its weights have other shapes than its config.json says: copy its files again"
        if "trust_remote_code" in str(error):
            reason = "it needs Python code from its own folder, which is never run: "
            reason += "choose a model that transformers knows"
        raise ConfigError(f"{setting}: cannot load `{source}` as {kind}: {reason}") from None


@contextmanager
def _without_pickles() -> Iterator[None]:
    """A context in which torch refuses to read pickles: what `transformers` opens is up to a model's files.

    A folder's names are checked before; this also holds for the hub, for adapters, and for what later releases read.
    """

    def refuse(*_: object, **__: object) -> NoReturn:
        raise ValueError("its weights are in pickles, which can run code and are never opened: choose safetensors")

    torch_load, torch.load = torch.load, refuse
    try:
        yield
    finally:
        torch.load = torch_load


def _load_config(source: str, revision: str | None, setting: str) -> Any:
    """A model's config, which must not name attention code of the hub: `transformers` would fetch and run it."""
    config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    config.return_dict = True  # a config may say otherwise
    attention = getattr(config, "_attn_implementation_internal", None)
    if isinstance(attention, str) and "/" in attention:
        raise ConfigError(
            f"{setting}.source: the config of `{source}` names attention code of the hub, `{attention}`, and code of "
            "others is never run: take `attn_implementation` out of its config.json"
        )
    return config


def _load_weights(
    auto: Any, source: str, config: Any, dtype: torch.dtype, revision: str | None
) -> tuple[Any, list[str]]:
    """A model, and the names of the weights that its files lack, sorted.

    Args:
        auto: one of the `AutoModel...` classes, which choose the model's class by its config.
    """
    model, loading_info = auto.from_pretrained(
        source,
        config=config,
        revision=revision,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        trust_remote_code=False,
    )
    if adapters.is_adapted(model):  # of the hub; a folder's names are checked before
        raise ConfigError(f"`{source}` holds an adapter, which `transformers` has loaded too: merge it into its model")
    return model, sorted(loading_info["missing_keys"])
