"""Training, sampling and saving do not depend on how the weights are partitioned over ranks.

Every comparison is between real launches over gloo. Most come from two of them: one rank without ZeRO, which is the
reference, and two ranks under every stage. All weights are fp32 unless a test says otherwise.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import zero_cases
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from zero_tables import (
    ARCHITECTURES,
    PROMPTS,
    STAGES,
    TRAINING,
    K,
    LaunchCases,
    cpu_ranks,
    make_model,
    make_requests,
    make_triples,
    stage,
    weights,
)

from hir_core.launch.job_spec import SaveStep
from hir_core.modeling import models, zero
from hir_core.store.files import read_json

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two usable cores"),
]


@pytest.fixture(scope="module")
def environment():
    with cpu_ranks():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_requests(folder / "requests-many.parquet", PROMPTS)
    make_requests(folder / "requests-few.parquet", 3)
    for architecture in ARCHITECTURES:
        (folder / architecture).mkdir()
        make_model(folder / architecture, architecture)
    return folder


@pytest.fixture(scope="module")
def sampled_alone(data, environment, tmp_path_factory) -> LaunchCases:
    """One rank without ZeRO: 1,004 samples of each model."""
    cases = LaunchCases(tmp_path_factory.mktemp("sampled-alone"), 1, data)
    for architecture in ARCHITECTURES:
        cases.add(architecture, architecture, stage(0), cases.sampling(architecture))
    cases.launch()
    for architecture in ARCHITECTURES:
        samples = cases.out(architecture, "samples")
        samples.rename(data / f"samples-{architecture}")
        samples.symlink_to(data / f"samples-{architecture}")
        make_triples(samples, data / "requests-many.parquet", data / f"triples-{architecture}")
    make_triples(data / "samples-llama", data / "requests-many.parquet", data / "triples-of-prompts", every=1)
    for architecture in ("llama", "t5"):
        places = data / f"samples-{architecture}", data / "requests-many.parquet", data / f"excluded-{architecture}"
        make_triples(*places, every=1, with_exclusions=True)
    return cases


@pytest.fixture(scope="module")
def alone(sampled_alone, data, tmp_path_factory) -> LaunchCases:
    """One rank without ZeRO: trained."""
    cases = LaunchCases(tmp_path_factory.mktemp("alone"), 1, data)
    for architecture in ARCHITECTURES:
        cases.train(architecture, architecture, stage(0))
    for architecture in ("llama", "t5"):
        cases.train(f"{architecture}-1x8", architecture, stage(0), micro_batch_size=1)
    cases.train("llama-crawling", "llama", stage(0), **CRAWL)
    cases.train("llama-prompts", "llama", stage(0), **PROMPTS_TOGETHER, micro_batch_size=1)
    for architecture in ("llama", "t5"):
        settings = EXCLUDED | {"triples": f"excluded-{architecture}", "micro_batch_size": 1}
        cases.train(f"{architecture}-excluded", architecture, stage(0), **settings)
    cases.launch()
    return cases


CRAWL = {"epochs": 16, "batch_size": 32, "micro_batch_size": 16, "learning_rate": 2e-5, "label_smoothing": 0.0}
"""One batch in 16 epochs: 16 steps that each change a weight by about 2e-5."""
PROMPTS_TOGETHER: dict[str, Any] = {"triples": "triples-of-prompts", "shuffle": "prompts", "steps": 6}
"""Four outputs for each prompt, in one optimizer step: in micro-batches of one there is nothing to pack."""
EXCLUDED: dict[str, Any] = {"shuffle": "prompts", "steps": 6, "exclusion_top": 8}
"""Most outputs are excluded; the soft targets keep eight tokens each."""
BF16 = ("zero0", "zero2", "zero3")
SHARDS, SHARD_BYTES = ("zero0", "zero3"), 20_000
KINDS = [
    *(("llama", kind) for kind in (*STAGES, "zero3-1x4", "zero3-ckpt")),
    *(("t5", kind) for kind in (*STAGES, "zero3-ckpt")),
    *(("flan", kind) for kind in ("zero2", "zero3")),
]
"""The cases of two ranks, as architecture and kind."""
CHANGES = {"1x4": {"micro_batch_size": 1}, "ckpt": {"activation_checkpointing": True}}


@pytest.fixture(scope="module")
def pair(alone, data, tmp_path_factory) -> LaunchCases:
    """Two ranks under every stage."""
    cases = LaunchCases(tmp_path_factory.mktemp("pair"), 2, data)
    for architecture, kind in KINDS:
        settings = STAGES.get(kind, STAGES["zero3"])
        cases.train(f"{architecture}-{kind}", architecture, settings, **CHANGES.get(kind.split("-")[-1], {}))
    for architecture in ARCHITECTURES:
        for how, batch_tokens in (("gather", 900), ("stream", "auto")):  # other batches than those of one rank
            name = f"{architecture}-{how}"
            step = cases.sampling(name, zero3_weights=how, batch_tokens=batch_tokens)
            cases.add(name, architecture, STAGES["zero3"], step)
        name = f"{architecture}-uneven"
        step = cases.sampling(name, "few", zero3_weights="stream", batch_tokens=1)
        cases.add(name, architecture, STAGES["zero3"], step)
    for name in ("zero2", "zero3"):
        cases.train(f"llama-prompts-{name}", "llama", STAGES[name], **PROMPTS_TOGETHER)
    for architecture, name in (("llama", "zero2"), ("llama", "zero3"), ("t5", "zero3")):
        triples = f"excluded-{architecture}"
        cases.train(f"{architecture}-excluded-{name}", architecture, STAGES[name], **EXCLUDED, triples=triples)
    for name in BF16:
        cases.train(f"llama-{name}-bf16", "llama", {**STAGES[name], "bf16": {"enabled": True}}, **CRAWL)
    for name in SHARDS:
        cases.add(f"shards-{name}", "llama", STAGES[name], SaveStep(output=cases.out(f"shards-{name}", "model")))
        (cases.root / "cases" / f"shards-{name}" / "shard_bytes").write_text(str(SHARD_BYTES))
    cases.launch()
    return cases


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "kind"), KINDS)
def test_two_ranks_under_any_stage_learn_what_one_rank_learns(architecture, kind, pair, alone):
    """Six steps, each of which moves a weight by up to the learning rate. Losses to 1e-5 of their size; weights to a
    tenth of the learning rate, on average to a ten-thousandth: Adam magnifies rounding errors of gradients near zero.
    """
    expected, found = alone.losses(architecture), pair.losses(f"{architecture}-{kind}")
    assert len(expected) == 6
    assert found == pytest.approx(expected, rel=1e-5)
    check_weights(pair.out(f"{architecture}-{kind}", "model"), alone.out(architecture, "model"))


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_micro_batches_do_not_change_losses_and_weights(architecture, alone):
    assert alone.losses(f"{architecture}-1x8") == pytest.approx(alone.losses(architecture), rel=1e-5)
    check_weights(alone.out(f"{architecture}-1x8", "model"), alone.out(architecture, "model"))


@pytest.mark.parametrize("kind", ["zero2", "zero3"])
def test_packed_rows_of_two_ranks_learn_what_single_rows_learn(kind, pair, alone):
    found, expected = pair.losses(f"llama-prompts-{kind}"), alone.losses("llama-prompts")
    assert len(expected) == 6
    assert found == pytest.approx(expected, rel=1e-5)
    check_weights(pair.out(f"llama-prompts-{kind}", "model"), alone.out("llama-prompts", "model"))


@pytest.mark.parametrize(("architecture", "kind"), [("llama", "zero2"), ("llama", "zero3"), ("t5", "zero3")])
def test_two_ranks_learn_from_excluded_outputs_what_one_rank_learns(architecture, kind, pair, alone):
    """The model at the start of training scores the excluded outputs, each of them on one of the ranks."""
    found, expected = (cases.facts(name) for cases, name in
                       ((pair, f"{architecture}-excluded-{kind}"), (alone, f"{architecture}-excluded")))  # fmt: skip
    assert expected["exclusion"] > 1e-3
    assert found["exclusion"] == pytest.approx(expected["exclusion"], rel=1e-4)
    name = f"{architecture}-excluded"
    assert pair.losses(f"{name}-{kind}") == pytest.approx(alone.losses(name), rel=2e-5)
    check_weights(pair.out(f"{name}-{kind}", "model"), alone.out(name, "model"))


def check_weights(found: Path, expected: Path) -> None:
    ours, theirs = weights(found), weights(expected)
    assert ours.keys() == theirs.keys()
    gaps = torch.cat([(ours[name] - theirs[name]).abs().flatten() for name in theirs])
    print(f"weights: largest gap {gaps.max().item():.2g}, mean {gaps.mean().item():.2g}")
    assert gaps.max().item() < 0.1 * TRAINING.learning_rate
    assert gaps.mean().item() < 1e-4 * TRAINING.learning_rate


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_changes_the_weights(architecture, alone, data):
    """So that the comparisons above compare something."""
    before, after = weights(data / architecture), weights(alone.out(architecture, "model"))
    assert max((after[name] - before[name]).abs().max().item() for name in after) > TRAINING.learning_rate


@pytest.mark.parametrize(("architecture", "kind"), KINDS)
def test_the_weights_that_sampled_are_recognised_under_any_stage(architecture, kind, pair):
    assert pair.facts(f"{architecture}-{kind}")["logprob_gap"] < 1e-5


@pytest.mark.parametrize("name", BF16)
def test_bf16_weights_do_not_lose_small_updates_within_a_launch(name, pair, alone, data):
    """16 steps of 2e-5, where bf16 numbers near 0.1 are 5e-4 apart: without fp32 masters all would be lost.

    What is saved is the fp32 run's weights but for rounding to bf16 (here at most 1/256 of a weight) and for gradients
    that were computed in bf16.
    """
    found, exact = weights(pair.out(f"llama-{name}-bf16", "model")), weights(alone.out("llama-crawling", "model"))
    before = weights(data / "llama")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    moved = torch.cat([(exact[n] - before[n]).flatten() for n in exact])
    kept = torch.cat([(found[n].float() - before[n].bfloat16().float()).flatten() for n in exact])
    print(f"{name}: mean move {moved.abs().mean():.3g}, kept {(kept * moved.sign()).mean():.3g}")
    assert (kept * moved.sign()).mean() > 0.7 * moved.abs().mean()


def test_training_memory_is_freed(pair):
    """After training a rank holds its share of the weights, and no masters, moments or gradients."""
    for kind in (*STAGES, *(f"{name}-bf16" for name in BF16)):
        size = pair.facts(f"llama-{kind}")["weight_bytes"] / (2 if "zero3" in kind else 1)
        print(f"{kind}: {pair.alive_bytes(f'llama-{kind}') / size:.2f} of the weights")
        assert pair.alive_bytes(f"llama-{kind}") < 1.5 * size


# --- sampling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["gather", "stream"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_two_ranks_with_sharded_weights_sample_what_one_rank_samples(architecture, how, pair, sampled_alone):
    found, expected = pair.samples(f"{architecture}-{how}"), sampled_alone.samples(architecture)
    assert expected.height == PROMPTS * K == expected["sample_id"].n_unique()
    assert found["sample_id"].to_list() == expected["sample_id"].to_list()
    same = (found["completion_ids"] == expected["completion_ids"]).sum()
    print(f"{architecture} {how}: {same} of {expected.height} rows equal")
    assert same >= 0.999 * expected.height
    gap = np.abs(found["logprobs"].explode() - expected["logprobs"].explode()) if same == expected.height else [0.0]
    assert max(gap) < 1e-4
    assert ("gathered" if how == "gather" else "streamed") in pair.facts(f"{architecture}-{how}")["weights"]
    assert expected["completion_ids"].n_unique() > 500


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ranks_with_different_numbers_of_batches_finish_together(architecture, pair, sampled_alone):
    """Three prompts, a batch each: two for the first rank, one for the second."""
    found = pair.samples(f"{architecture}-uneven")
    expected = sampled_alone.samples(architecture).filter(pl.col("prompt_id") < "p003")
    assert found.select("sample_id", "completion_ids").equals(expected.select("sample_id", "completion_ids"))


@pytest.mark.parametrize(("architecture", "kind"), KINDS)
def test_trained_weights_answer_alike_under_any_stage(architecture, kind, pair, alone):
    """Greedily, with the weights in memory, after the optimizer's memory was freed."""
    found, expected = pair.samples(f"{architecture}-{kind}"), alone.samples(architecture)
    assert found["completion_ids"].to_list() == expected["completion_ids"].to_list()


# --- saving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "kind"), [*KINDS, *(("llama", f"{name}-bf16") for name in BF16)])
def test_a_saved_model_loads_as_the_one_in_memory(architecture, kind, pair):
    case = f"{architecture}-{kind}"
    auto = AutoModelForCausalLM if architecture == "llama" else AutoModelForSeq2SeqLM
    loaded = auto.from_pretrained(pair.out(case, "model"), dtype="auto")
    assert loaded.dtype is (torch.bfloat16 if "bf16" in kind else torch.float32)
    assert torch.equal(zero_cases.logits(loaded), pair.logits(case))
    tied = loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert tied == (architecture != "flan")
    assert models.load_tokenizer(str(pair.out(case, "model"))).eos_token == models.END


def test_shards_are_cut_by_size_and_written_by_both_ranks(pair, data):
    """A shard of 20,000 bytes holds a few of this model's tensors; the index must agree with the shards."""
    for name in SHARDS:
        folder = pair.out(f"shards-{name}", "model")
        index = read_json(folder / "model.safetensors.index.json")
        shards = {shard: load_file(folder / shard) for shard in set(index["weight_map"].values())}
        assert len(shards) > 4
        assert all(name in shards[shard] for name, shard in index["weight_map"].items())
        assert sum(map(len, shards.values())) == len(index["weight_map"])
        assert all(sum(t.nbytes for t in s.values()) <= SHARD_BYTES or len(s) == 1 for s in shards.values())
        assert sorted(path.name for path in folder.iterdir() if "safetensors" in path.name) == sorted(
            [*shards, "model.safetensors.index.json"]
        )
        loaded = AutoModelForCausalLM.from_pretrained(folder)
        expected = AutoModelForCausalLM.from_pretrained(data / "llama")
        assert torch.equal(zero_cases.logits(loaded), zero_cases.logits(expected))
    for shard in sorted(pair.out("shards-zero0", "model").glob("*.safetensors")):
        assert shard.read_bytes() == (pair.out("shards-zero3", "model") / shard.name).read_bytes()


# --- settings --------------------------------------------------------------------------------------------------------


def test_a_launch_that_never_trains_takes_no_optimizer():
    settings = {**STAGES["zero3-offload"], "bf16": {"enabled": True}}
    merged = zero.merged_settings(settings, None, 2)
    assert "optimizer" not in merged
    assert "offload_optimizer" not in merged["zero_optimization"]
    assert merged["zero_optimization"]["offload_param"] == {"device": "cpu"}
