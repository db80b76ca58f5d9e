"""The shipped DeepSpeed files, ZeRO-3 and the speed of a 0.6 B model on one GPU: `pytest -m gpu`.

All jobs of the tiny model run in one launch, each job of the large one in another. `run_small` and `run_large` work on
any device, so that they can be tried on a machine without a GPU.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import zero_cases
from transformers import AutoModelForCausalLM
from zero_tables import PROMPTS, STAGES, K, LaunchCases, make_model, make_requests, make_triples, stage

from hir_core.config import TrainingConfig
from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS, read_deepspeed
from hir_core.launch.job_spec import TrainStep
from hir_core.modeling import models

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SHIPPED = {path.stem: read_deepspeed(path) for path in sorted(SHIPPED_DS_CONFIGS.glob("*.json"))}
SHAPE_0_6B = {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8}
SHAPE_0_6B |= {"intermediate_size": 3072, "vocab_size": 151936, "head_dim": 128, "max_position_embeddings": 1024}
LOAD = {"prompts": 256, "k": 4, "max_new_tokens": 128, "batch_tokens": 65536, "triples": 512, "micro_batch_size": 32}


@pytest.fixture(scope="module")
def environment():
    """Ranks that find `zero_cases`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(zero_cases.__file__).parent))
        yield


# --- a tiny model under every DeepSpeed file and stage ---------------------------------------------------------------


def run_small(root: Path) -> LaunchCases:
    """Samples, trains, saves and samples again under every shipped file and every ZeRO stage."""
    data = root / "data"
    (data / "llama").mkdir(parents=True)
    make_requests(data / "requests-many.parquet", PROMPTS)
    make_requests(data / "requests-few.parquet", 3)
    make_model(data / "llama", "llama")
    first = LaunchCases(root / "first", 1, data)
    first.add("drawn", "llama", stage(0), first.sampling("drawn"))
    first.launch()
    first.out("drawn", "samples").rename(data / "samples-llama")
    make_triples(data / "samples-llama", data / "requests-many.parquet", data / "triples-llama")
    cases = LaunchCases(root / "second", 1, data)
    for name, settings in {**STAGES, **{f"shipped-{name}": settings for name, settings in SHIPPED.items()}}.items():
        cases.train(name, "llama", settings)
    for how in ("gather", "stream"):
        step = cases.sampling(how, zero3_weights=how, temperature=0.0, k=1)
        cases.add(how, "llama", STAGES["zero3"], step)
    cases.launch()
    return cases


@pytest.fixture(scope="module")
def small(environment, tmp_path_factory) -> LaunchCases:
    return run_small(tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_trains_and_saves_what_it_trained(name, small):
    losses = small.losses(f"shipped-{name}")
    assert len(losses) == 6
    assert np.isfinite(losses).all()
    assert losses == pytest.approx(small.losses("zero0"), rel=0.05)
    loaded = AutoModelForCausalLM.from_pretrained(small.out(f"shipped-{name}", "model"), dtype="auto")
    assert loaded.dtype is (torch.bfloat16 if "bf16" in SHIPPED[name] else torch.float32)
    kept = small.logits(f"shipped-{name}")
    torch.testing.assert_close(zero_cases.logits(loaded), kept, rtol=0.05, atol=0.05 * kept.abs().max().item())


@pytest.mark.parametrize("name", [name for name in STAGES if name != "zero0"])
def test_every_stage_learns_the_same(name, small):
    assert small.losses(name) == pytest.approx(small.losses("zero0"), rel=1e-4)


def test_weights_gathered_once_and_layer_by_layer_answer_alike(small):
    gathered, streamed = small.samples("gather"), small.samples("stream")
    assert gathered.height == PROMPTS
    assert (gathered["completion_ids"] == streamed["completion_ids"]).mean() >= 0.996


# --- the speed of a large one ----------------------------------------------------------------------------------------


def run_large(root: Path, name: str, shape: dict[str, int], load: dict[str, int]) -> dict[str, Any]:
    """Results of sampling from and training a random bf16 model of that shape under a shipped DeepSpeed file."""
    data = root / "data"
    (data / "large").mkdir(parents=True)
    tokenizer = models.fit_tokenizer(["two figs and three plums Add up. Do not add up."] * 4, 400)
    tokenizer.save_pretrained(data / "large")
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = transformers.LlamaConfig(tie_word_embeddings=True, dtype="bfloat16", **ends, **shape)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(data / "large")
    make_requests(data / "requests-many.parquet", load["prompts"])
    drawing = {key: load[key] for key in ("k", "max_new_tokens", "batch_tokens")}
    sampling = LaunchCases(root / "sampling", 1, data)
    sampling.add("large", "large", SHIPPED[name], sampling.sampling("large", **drawing))
    sampling.launch()
    drawn = sampling.out("large", "samples")
    make_triples(drawn, data / "requests-many.parquet", data / "triples", every=load["prompts"] * K // load["triples"])
    micro = load["micro_batch_size"]
    training = TrainingConfig(batch_size=128, micro_batch_size=micro, epochs=1, activation_checkpointing=True)
    learning = LaunchCases(root / "training", 1, data)
    prompts = data / "requests-many"
    step = TrainStep(triples=data / "triples", samples=drawn, prompts=prompts, training=training, iteration=1)
    learning.add("large", "large", SHIPPED[name], step)
    learning.launch()
    return {"sampled": sampling.facts("large"), "trained": learning.facts("large")}


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_speed_of_a_model_of_0_6_billion_parameters(name, environment, tmp_path, capsys):
    """Outputs of random weights run to the length limit; the speed is printed, not asserted."""
    facts = run_large(tmp_path, name, SHAPE_0_6B, LOAD)
    sampled, trained = facts["sampled"], facts["trained"]
    assert sampled["tokens"] > 0.9 * LOAD["prompts"] * LOAD["k"] * LOAD["max_new_tokens"]
    assert trained["logprob_gap"] < 0.1
    with capsys.disabled():
        print(f"\n{torch.cuda.get_device_name()}, 0.6 B bf16, {name}: {report(sampled, trained)}")


def report(sampled: dict[str, Any], trained: dict[str, Any]) -> str:
    return (
        f"sampled {sampled['tokens_per_s']:,.0f} new tokens/s ({sampled['weights']}), "
        f"trained {trained['tokens_per_s']:,.0f} tokens/s"
    )
