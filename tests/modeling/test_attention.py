"""A model draws outputs and trains with the attention that its config names, and one it cannot have is one message."""

import pytest
import torch
from attention_stand_ins import STAND_INS
from transformers import Gemma2Config, Gemma2ForCausalLM

from hir_core.errors import ConfigError
from hir_core.modeling import attention

CPU = torch.device("cpu")


def without_sdpa():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Gemma2ForCausalLM(Gemma2Config(vocab_size=300, num_key_value_heads=1, head_dim=8, **sizes))


@pytest.mark.parametrize("name", ["eager", "sdpa"])
@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_outputs_are_drawn_and_models_trained_with_what_is_named(architecture, name, build_model):
    model = build_model(architecture)
    attention.draw_with(model, name)
    with attention.trained_with(model, name, CPU):
        assert attention.implementation(model) == name
    assert attention.implementation(model) == name
    assert "attn" not in str(model.config.to_dict()), "a saved model names no implementation"


@pytest.mark.parametrize("name", STAND_INS)
def test_what_only_trains_is_there_while_the_model_is_trained(name, build_model, monkeypatch):
    model = build_model("llama")
    attention.draw_with(model, name)
    assert attention.implementation(model) == "sdpa"
    message = f"model.attention: {name} trains on GPUs only, and ranks run on CPU cores"
    with pytest.raises(ConfigError, match=message), attention.trained_with(model, name, CPU):
        pass
    monkeypatch.setattr(attention, "attention_problem", lambda *_, **__: None)
    monkeypatch.setattr(type(model), "_flash_attn_can_dispatch", lambda *_, **__: True)
    monkeypatch.setattr("transformers.modeling_utils.is_flash_attention_requested", lambda *_, **__: False)
    with attention.trained_with(model, name, CPU):
        assert attention.implementation(model) == name
    assert attention.implementation(model) == "sdpa"


@pytest.mark.parametrize(
    ("architecture", "name"),
    [("gemma2", "sdpa"), ("t5", "flex_attention"), ("t5", "flash_attention_2"), ("llama", "flash_attention_2")],
)
def test_a_model_that_has_no_such_attention_is_told(architecture, name, build_model, monkeypatch):
    """The last case is one whose package is missing: transformers must not fetch a kernel in its place."""
    model = without_sdpa() if architecture == "gemma2" else build_model(architecture)
    monkeypatch.setattr(attention, "attention_problem", lambda *_, **__: None)
    message = rf"^model.attention: {type(model).__name__} cannot use {name}: set it to auto"
    with pytest.raises(ConfigError, match=message), attention.trained_with(model, name, CPU):
        attention.draw_with(model, name)
