"""A model's own settings for drawing tokens: what a step takes of them, and what it refuses."""

import pytest
from transformers import GenerationConfig

from hir_core.config import SamplingConfig
from hir_core.errors import ConfigError
from hir_core.launch.job_spec import SampleStep
from hir_core.sampling.preset import settings_taken

CHAT = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "do_sample": True}


def step(**changes) -> SampleStep:
    usual = {"name": "sample", "requests": "r", "output": "o", "version": "v", "model": "m", "instruction": "", "k": 1,
             "temperature": None, "max_new_tokens": 4, "batch_tokens": 8, "zero3_weights": "auto", "write_every_s": 1,
             "iteration": 1}  # fmt: skip
    return SampleStep.model_validate({**usual, "preset": "model", **changes})


@pytest.mark.parametrize(
    ("own", "set_here", "taken"),
    [
        (CHAT, {}, {"temperature": 0.6, "top_p": 0.95, "top_k": 20}),
        (CHAT, {"temperature": 1.0, "top_p": 1.0}, {"top_k": 20}),
        (CHAT, {"preset": None}, {}),
        (CHAT, {"preset": None, "temperature": 0.0}, {}),
        ({"top_p": 1.0, "top_k": 0, "min_p": 0.1}, {}, {"min_p": 0.1}),
        (CHAT, {"temperature": 1.0, "top_p": 0.5, "top_k": 3}, {}),
    ],
)
def test_what_a_step_sets_wins_over_what_the_model_brings(own, set_here, taken):
    assert settings_taken(step(**set_here), GenerationConfig(**own)) == taken


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({}, "has none of temperature, top_p, top_k, min_p: remove it, or set those"),
        ({"top_p": 1.0, "top_k": 0}, "has none of temperature"),
        ({"temperature": 0.0}, "`temperature` has 0.0, which sampling.temperature cannot be"),
        ({"top_p": "hot"}, "`top_p` has 'hot', which sampling.top_p cannot be"),
        ({"top_k": True}, "`top_k` has True"),
        ({"min_p": float("nan")}, "`min_p` has nan"),
    ],
)
def test_a_model_without_such_settings_or_with_wrong_ones_is_refused(own, message):
    found = GenerationConfig()
    for name, value in own.items():
        setattr(found, name, value)
    with pytest.raises(ConfigError, match=message):
        settings_taken(step(), found)


def test_an_unset_temperature_is_the_default_in_ids_and_the_models_with_a_preset():
    usual = SamplingConfig().fingerprint()
    assert usual == SamplingConfig(temperature=1.0).fingerprint()
    assert usual["temperature"] == 1.0
    assert "preset" not in usual
    fingerprints = [SamplingConfig(preset="model", temperature=t).fingerprint() for t in (None, 1.0, 0.7)]
    assert [one.get("temperature") for one in fingerprints] == [None, 1.0, 0.7]
