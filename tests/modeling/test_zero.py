"""Training, sampling and saving do not depend on how the weights are partitioned over ranks.

Every comparison is between real launches over gloo. Most come from two of them: one rank without ZeRO, which is the
reference, and two ranks under every stage. All weights are fp32 unless a test says otherwise.
"""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import zero_cases
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from zero_tables import (
    ARCHITECTURES,
    PROMPTS,
    SHARDED,
    STAGES,
    TRAINING,
    K,
    LaunchCases,
    cpu_ranks,
    in_bf16,
    make_equal_triples,
    make_model,
    make_requests,
    make_triples,
    saved_state,
    stage,
    weights,
)

from hir_core.config import LoraConfig
from hir_core.launch.job_spec import Adapter, SaveStep
from hir_core.modeling import models, zero
from hir_core.store import training_log
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
    make_equal_triples(folder / "triples-single", 1)
    make_equal_triples(folder / "triples-few", 4)
    make_equal_triples(folder / "triples-equal", EQUAL)
    for architecture in ARCHITECTURES:
        (folder / architecture).mkdir()
        make_model(folder / architecture, architecture)
    return folder


@pytest.fixture(scope="module")
def sampled_alone(data, environment, tmp_path_factory) -> LaunchCases:
    """One rank without ZeRO: 1,004 samples of each model. And four iterations in bf16."""
    cases = LaunchCases(tmp_path_factory.mktemp("sampled-alone"), 1, data)
    for name, state in ITERATIONS_ALONE:
        add_iterations(cases, name, state, ITERATIONS)
        if state != "none":
            add_unbroken_training(cases, name, state)
    for kind, settings in STOPPED.items():
        add_stopped_training(cases, kind, settings)
    bf16, adapter = in_bf16("zero2"), data / "llama"
    for name, steps in (("lora-0", STEPS), ("lora-1", STEPS), ("lora-unbroken", 2 * STEPS)):
        adapter = data / "llama" if "unbroken" in name else adapter
        adapter = cases.continue_training(name, adapter, bf16, "all", lora=ADAPTER.lora, **CRAWLING, epochs=steps)
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
def alone(sampled_alone, pair, data, tmp_path_factory) -> LaunchCases:
    """One rank without ZeRO: trained. And what two ranks saved of their optimizers, read and saved again."""
    cases = LaunchCases(tmp_path_factory.mktemp("alone"), 1, data)
    for architecture in ARCHITECTURES:
        cases.train(architecture, architecture, stage(0))
    for architecture in ("llama", "t5"):
        cases.train(f"{architecture}-1x8", architecture, stage(0), micro_batch_tokens=1)
    cases.train("llama-crawling", "llama", stage(0), **CRAWL)
    cases.train("llama-prompts", "llama", stage(0), **PROMPTS_TOGETHER, micro_batch_tokens=1)
    for architecture in ("llama", "t5"):
        settings = EXCLUDED | {"triples": f"excluded-{architecture}", "micro_batch_tokens": 1}
        settings["exclusion"] = EXCLUSION[architecture]
        cases.train(f"{architecture}-excluded", architecture, stage(0), **settings)
    for name in STOPPED_STAGES:
        checkpoints = pair.out(f"stopped-{name}", "checkpoints")
        cases.train(f"stopped-{name}", "llama", stage(0), checkpoints=checkpoints, **STOPPED_STAGES[name], **UNSAVED)
    for architecture in ("llama", "t5"):
        cases.train(f"lora-{architecture}", architecture, stage(0), adapter=ADAPTER)
    for kind in ("zero1", "zero2", "zero3"):
        cases.train(f"lora-llama-{kind}", "llama", STAGES[kind], adapter=ADAPTER)
    for name, state in ITERATIONS_OF_TWO:
        reread(cases, f"reread-{name}", pair.out(f"{name}-{state}-{LAST}", "model"), "zero1", state)
    add_accumulations(cases)
    cases.launch()
    return cases


CRAWL = {"epochs": 16, "batch_size": 32, "micro_batch_tokens": 400, "learning_rate": 2e-5, "label_smoothing": 0.0}
"""One batch in 16 epochs: 16 steps that each change a weight by about 2e-5."""
PROMPTS_TOGETHER: dict[str, Any] = {"triples": "triples-of-prompts", "shuffle": "prompts", "steps": 6}
"""Four outputs for each prompt, in one optimizer step: in micro-batches of one there is nothing to pack."""
EXCLUDED: dict[str, Any] = {"shuffle": "prompts", "steps": 6, "exclusion_top": 8, "micro_batch_tokens": 600}
"""Most outputs are excluded; the soft targets keep eight tokens each."""
EXCLUSION = {"llama": 1e3, "t5": 1e9}
"""Random models hardly write the same output again: a prompt has little weight, and the term is given much."""
ADAPTER = Adapter(lora=LoraConfig(rank=4, alpha=8))
ADAPTER_KINDS = [
    ("llama", "zero2"),
    ("llama", "zero3"),
    ("llama", "zero3-1x4"),
    ("llama", "zero3-ckpt"),
    ("t5", "zero3"),
]
"""The cases of two ranks that train an adapter, as architecture and kind."""
GATHERING = stage(3, **SHARDED | {"stage3_max_live_parameters": 20_000, "stage3_prefetch_bucket_size": 10_000})
"""ZeRO-3 that gathers weights ahead, for backward passes of which frozen layers have none."""
LEAVING = stage(3, **GATHERING["zero_optimization"] | {"stage3_max_reuse_distance": 0})
"""ZeRO-3 that gives weights back at once, and has begun to gather some again when a step ends."""
ONE_STEP = {"epochs": 1, "steps": 1, "batch_size": 4, "activation_checkpointing": True}
BF16 = ("zero0", "zero2", "zero3")
SHARDS, SHARD_BYTES = ("zero0", "zero3"), 20_000
KINDS = [
    *(("llama", kind) for kind in (*STAGES, "zero3-1x4", "zero3-ckpt")),
    *(("t5", kind) for kind in (*STAGES, "zero3-ckpt")),
    *(("flan", kind) for kind in ("zero2", "zero3")),
]
"""The cases of two ranks, as architecture and kind."""
CHANGES: dict[str, dict[str, Any]] = {
    "1x4": {"micro_batch_tokens": 1},
    "ckpt": {"activation_checkpointing": True, "zero3_weights": "stream"},
}


@pytest.fixture(scope="module")
def pair(sampled_alone, data, tmp_path_factory) -> LaunchCases:
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
        cases.train(
            f"{architecture}-excluded-{name}",
            architecture,
            STAGES[name],
            **EXCLUDED,
            triples=triples,
            exclusion=EXCLUSION[architecture],
        )
    for name in BF16:
        cases.train(f"llama-{name}-bf16", "llama", in_bf16(name), **CRAWL)
    settings = {**LEAVING, "bf16": {"enabled": True}}
    cases.train("llama-leaving-bf16", "llama", settings, triples="triples-few", **ONE_STEP)
    add_adapters(cases)
    for name in SHARDS:
        cases.add(f"shards-{name}", "llama", STAGES[name], SaveStep(output=cases.out(f"shards-{name}", "model")))
        cases.change(f"shards-{name}", "shard_bytes", SHARD_BYTES)
    add_stopped_trainings(cases, sampled_alone)
    for name, state in ITERATIONS_OF_TWO:
        add_iterations(cases, name, state, LAST + 1)
    reread(cases, "reread-zero3", sampled_alone.out("zero2-all-3", "model"), "zero3", "all")
    cases.change("reread-zero3", "shard_bytes", SHARD_BYTES)
    cases.launch()
    return cases


def add_adapters(cases: LaunchCases) -> None:
    """Adapters that are trained, and two of them merged."""
    for architecture, kind in ADAPTER_KINDS:
        settings, name = STAGES.get(kind, GATHERING), f"lora-{architecture}-{kind}"
        cases.train(name, architecture, settings, adapter=ADAPTER, **CHANGES.get(kind.split("-")[-1], {}))
    for architecture in ("llama", "t5"):  # after the cases that save these adapters
        saved, name = cases.out(f"lora-{architecture}-zero3", "model"), f"lora-{architecture}-zero3-merged"
        steps = [cases.sampling(name, "few", zero3_weights="stream", temperature=0.0, k=1)]
        steps.append(SaveStep(output=cases.out(name, "model")))
        adapter = ADAPTER.model_copy(update={"folder": saved})
        cases.add(name, architecture, STAGES["zero3"], *steps, adapter=adapter)


def add_stopped_trainings(cases: LaunchCases, of_one: LaunchCases) -> None:
    """Trainings of two ranks that are stopped, and those of one rank continued by two."""
    for name, changes in STOPPED_STAGES.items():
        case = f"stopped-{name}"
        cases.train(case, "llama", STAGES[name], checkpoints=cases.out(case, "checkpoints"), **changes, **SAVED)
        cases.change(case, "stop_after", STOP_AFTER)
    for kind, settings in STOPPED.items():
        checkpoints = of_one.out(f"stopped-{kind}", "checkpoints")
        continued = {**settings, "zero_optimization": {"stage": 3}}  # with small parameters whole on every rank
        cases.continue_training(
            f"stopped-{kind}", cases.data / "llama", continued, "all", checkpoints=checkpoints, **MANY_STEPS, **UNSAVED
        )


ITERATIONS_ALONE = [(name, "masters") for name in ("zero0", "zero1", "zero2")] + [("zero2", "all"), ("zero1", "none")]
ITERATIONS_OF_TWO = [("zero3", "masters"), ("zero2", "all")]
"""ZeRO stage, and what of the optimizer's state is saved, of four iterations of training in bf16."""
CRAWLING = {"learning_rate": 1e-6, "batch_size": 1, "micro_batch_tokens": 1}
ITERATIONS, STEPS = 4, 2
LAST = 1
"""The last iteration of two ranks."""


def add_iterations(cases: LaunchCases, name: str, state: str, count: int) -> None:
    """Iterations of two steps each, each from the state that the one before has saved."""
    settings, model = in_bf16(name), cases.data / "llama"
    for iteration in range(count):
        case = f"{name}-{state}-{iteration}"
        model = cases.continue_training(case, model, settings, state, **CRAWLING, epochs=STEPS)


def add_unbroken_training(cases: LaunchCases, name: str, state: str) -> None:
    """The steps of all iterations in one training."""
    settings, case = in_bf16(name), f"{name}-{state}-unbroken"
    cases.continue_training(case, cases.data / "llama", settings, state, **CRAWLING, epochs=ITERATIONS * STEPS)
    if state == "masters":  # AdamW begins anew in each iteration
        cases.change(case, "reset_every", STEPS)


def reread(cases: LaunchCases, case: str, model: Path, name: str, state: str) -> None:
    """A model's optimizer state is read under a ZeRO stage, and saved again before any step."""
    settings = in_bf16(name)
    cases.continue_training(case, model, settings, state, **CRAWLING)
    cases.change(case, "no_steps", 0)


EQUAL = 64
"""Equal triples of an optimizer step, each in a micro-batch of its own."""


def add_accumulations(cases: LaunchCases) -> None:
    """One step on a triple, and one on 64 equal ones, with gradients accumulated as the files say, and in bf16."""
    step = CRAWLING | {"epochs": 1, "batch_size": EQUAL}
    for name, settings in {
        "zero2": in_bf16("zero2"), "zero3": in_bf16("zero3"), "bf16": {**STAGES["zero2"], "bf16": {"enabled": True}},
    }.items():  # fmt: skip
        for table in ("equal", "single"):
            case, model = f"accumulated-{name}-{table}", cases.data / "llama"
            cases.continue_training(case, model, settings, "all", table=f"triples-{table}", **step)


STOP_AFTER = 4
SAVED, UNSAVED = {"checkpoint_every_s": 0.0}, {"checkpoint_every_s": None}
"""Settings with which a checkpoint is saved after every optimizer step, and after none."""
MANY_STEPS: dict[str, Any] = {"batch_size": 1, "micro_batch_tokens": 1, "epochs": 8}
STOPPED: dict[str, dict[str, Any]] = {"fp32": STAGES["zero1"], "bf16": {**STAGES["zero2"], "bf16": {"enabled": True}}}
"""Trainings of one rank that are stopped, and continued by one rank and by two."""
STOPPED_STAGES: dict[str, dict[str, Any]] = {
    "zero2": EXCLUDED | {"triples": "excluded-llama", "exclusion": EXCLUSION["llama"]},
    "zero3": {},
}
"""Stages of trainings of two ranks that are stopped, and continued by one rank; the first with excluded outputs."""


def add_stopped_training(cases: LaunchCases, kind: str, settings: dict[str, Any]) -> None:
    """A training that is stopped, one that continues it, and one that nobody stops."""
    name, model = f"stopped-{kind}", cases.data / "llama"
    checkpoints = cases.out(name, "checkpoints")
    cases.continue_training(name, model, settings, "all", checkpoints=checkpoints, **MANY_STEPS, **SAVED)
    cases.change(name, "stop_after", STOP_AFTER)
    continued = f"{name}-continued"
    cases.continue_training(continued, model, settings, "all", checkpoints=checkpoints, **MANY_STEPS, **UNSAVED)
    cases.continue_training(f"unbroken-{kind}", model, settings, "all", **MANY_STEPS)


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
    assert EXCLUSION[architecture] * expected["exclusion"] > 1e-3
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


@pytest.mark.parametrize("name", ["zero2", "zero3", "bf16"])
def test_the_files_lose_nothing_of_a_gradient_that_is_accumulated(name, alone):
    """After the first step AdamW's first moment is a tenth of the gradient; 64 equal triples have that of one."""
    found, expected = (saved_state(alone.out(f"accumulated-{name}-{table}", "model")) for table in ("equal", "single"))
    moments = [key for key in expected if key.startswith("exp_avg.")]
    ours, theirs = (torch.cat([state[key].flatten() for key in moments]) for state in (found, expected))
    error = ((ours - theirs).norm() / theirs.norm()).item()
    print(f"{name}: the gradient is off by {error:.2g}")
    assert error > 1e-3 if name == "bf16" else error < 1e-5


def test_training_memory_is_freed(pair):
    """After training a rank holds its share of the weights, and no masters, moments or gradients."""
    for kind in (*STAGES, *(f"{name}-bf16" for name in BF16)):
        size = pair.facts(f"llama-{kind}")["weight_bytes"] / (2 if "zero3" in kind else 1)
        print(f"{kind}: {pair.alive_bytes(f'llama-{kind}') / size:.2f} of the weights")
        assert pair.alive_bytes(f"llama-{kind}") < 1.5 * size


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STOPPED)
def test_a_training_that_was_stopped_ends_as_one_that_was_not(kind, sampled_alone):
    """Bit for bit on one rank. The step during which it was stopped is made again, since no checkpoint holds it."""
    stopped, continued = sampled_alone.losses(f"stopped-{kind}"), sampled_alone.losses(f"stopped-{kind}-continued")
    unbroken = sampled_alone.losses(f"unbroken-{kind}")
    assert [*stopped[:-1], *continued] == unbroken
    assert (len(stopped), len(continued), len(unbroken)) == (STOP_AFTER, 8 - STOP_AFTER + 1, 8)
    ours, theirs = (sampled_alone.out(name, "model") for name in (f"stopped-{kind}-continued", f"unbroken-{kind}"))
    check_equal(weights(ours), weights(theirs))
    check_equal(saved_state(ours), saved_state(theirs))
    # Every optimizer step is there once, whichever launch made it, in equal files.
    assert (ours / training_log.STEPS).read_bytes() == (theirs / training_log.STEPS).read_bytes()
    assert pl.read_parquet(ours / training_log.STEPS)["loss"].to_list() == unbroken
    assert pl.read_parquet(ours / training_log.TIMES)["step"].to_list() == [*range(1, 9)]
    facts = (sampled_alone.facts(name) for name in (f"stopped-{kind}-continued", f"unbroken-{kind}"))
    ours, theirs = ({key: of[key] for key in ("loss", "steps", "tokens", "target_tokens")} for of in facts)
    assert ours == theirs


@pytest.mark.parametrize("kind", STOPPED)
def test_two_ranks_continue_what_one_rank_began(kind, sampled_alone, pair):
    expected = sampled_alone.losses(f"unbroken-{kind}")[STOP_AFTER - 1 :]
    assert pair.losses(f"stopped-{kind}") == pytest.approx(expected, rel=1e-5 if kind == "fp32" else 1e-2)
    ours = saved_state(pair.out(f"stopped-{kind}", "model"))
    theirs = saved_state(sampled_alone.out(f"unbroken-{kind}", "model"))
    assert ours.keys() == theirs.keys()
    gaps = {key: (ours[key] - theirs[key]).abs().max().item() / theirs[key].abs().max().item() for key in theirs}
    print(f"{kind}: {max(gaps.values()):.2g}")
    assert max(gaps.values()) < (1e-4 if kind == "fp32" else 0.1)


@pytest.mark.parametrize("name", STOPPED_STAGES)
def test_one_rank_continues_what_two_ranks_began(name, pair, alone):
    """The soft targets of excluded outputs are those of the model that is trained, not of the checkpoint."""
    unbroken, case = "llama-excluded" if STOPPED_STAGES[name] else "llama", f"stopped-{name}"
    assert len(pair.losses(case)) == STOP_AFTER
    assert [*pair.losses(case)[:-1], *alone.losses(case)] == pytest.approx(alone.losses(unbroken), rel=2e-5)
    check_weights(alone.out(case, "model"), alone.out(unbroken, "model"))


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


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_streamed_weights_are_fetched_ahead_after_training_too(architecture, pair):
    """ZeRO-3 fetches ahead once it has seen a forward pass; of a batch of an encoder-decoder the first two are new."""
    for case in (f"{architecture}-stream", f"{architecture}-zero3-ckpt"):
        facts = pair.facts(case)
        print(f"{case}: {facts['fetches_ahead']} of {facts['fetches']} fetches with the next ones known")
        assert "streamed" in facts["weights"]
        assert facts["fetches_ahead"] > 0.4 * facts["fetches"] > 0


# --- saving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "kind"), [*KINDS, *(("llama", f"{name}-bf16") for name in (*BF16, "leaving"))]
)
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


# --- adapters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "ranks"),
    [*((f"llama-{kind}", 1) for kind in ("zero1", "zero2", "zero3")), *(("-".join(case), 2) for case in ADAPTER_KINDS)],
)
def test_any_stage_and_number_of_ranks_trains_the_same_adapter_and_nothing_else(case, ranks, pair, alone, data):
    """As above; bit for bit what was there before are all weights that are not the adapter's."""
    cases, name, architecture = pair if ranks == 2 else alone, f"lora-{case}", case.partition("-")[0]
    assert cases.losses(name) == pytest.approx(alone.losses(f"lora-{architecture}"), rel=1e-5)
    check_weights(cases.out(name, "model"), alone.out(f"lora-{architecture}", "model"))
    check_equal(frozen(cases, name), weights(data / architecture))
    found, expected = cases.samples(name), alone.samples(f"lora-{architecture}")
    assert found["completion_ids"].to_list() == expected["completion_ids"].to_list()
    assert cases.facts(name).get("logprob_gap", 0) < 1e-5


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks transformers for it
@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_a_saved_adapter_gives_the_logits_in_memory_with_peft_and_merged(architecture, pair, alone, data):
    case, merged = f"lora-{architecture}-zero3", f"lora-{architecture}-zero3-merged"
    auto = AutoModelForCausalLM if architecture == "llama" else AutoModelForSeq2SeqLM
    base = auto.from_pretrained(data / architecture)
    start = zero_cases.logits(base)
    assert (pair.logits(case) - start).abs().max().item() > 0.01
    with_peft = PeftModel.from_pretrained(base, pair.out(case, "model"))
    torch.testing.assert_close(zero_cases.logits(with_peft.base_model.model), pair.logits(case), atol=1e-5, rtol=0)
    whole = auto.from_pretrained(pair.out(merged, "model"))
    torch.testing.assert_close(zero_cases.logits(whole), pair.logits(case), atol=1e-4, rtol=0)
    assert torch.equal(zero_cases.logits(whole), pair.logits(merged))  # the model in memory is merged as well
    assert pair.samples(merged)["completion_ids"].to_list() == pair.samples(case)["completion_ids"].to_list()
    assert read_json(pair.out(case, "model") / "adapter_config.json")["base_model_name_or_path"] == f"../{architecture}"


def test_an_adapter_and_its_optimizer_go_on_as_if_they_had_not_stopped(sampled_alone):
    """In bf16, bit for bit; the state is that of the adapter only."""
    last, unbroken = (sampled_alone.out(f"lora-{end}", "model") for end in ("1", "unbroken"))
    check_equal(saved_state(last), saved_state(unbroken))
    check_equal(weights(last), weights(unbroken))
    assert all("lora_" in name for name in saved_state(last))
    assert len(saved_state(last)) == 3 * len(weights(last))
    assert sum(t.nbytes for t in saved_state(last).values()) == sampled_alone.facts("lora-1")["optimizer_state_bytes"]


def frozen(cases: LaunchCases, name: str) -> dict[str, torch.Tensor]:
    """The weights beside an adapter, as they are in memory after training."""
    tensors = torch.load(cases.root / "cases" / name / "frozen.pt", weights_only=True)
    return {key: tensor.data for key, tensor in tensors.items()}


# --- the state of the optimizer --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "state"), ITERATIONS_ALONE[:-1])
def test_iterations_end_with_the_weights_of_one_unbroken_training(name, state, sampled_alone, data):
    """Bit for bit: steps of 1e-6, where bf16 numbers near 0.1 are 5e-4 apart."""
    last, unbroken = (sampled_alone.out(f"{name}-{state}-{end}", "model") for end in (ITERATIONS - 1, "unbroken"))
    check_equal(saved_state(last), saved_state(unbroken))
    check_equal(weights(last), weights(unbroken))
    moves = [mean_move(masters(sampled_alone.out(f"{name}-{state}-{n}", "model")), data) for n in range(ITERATIONS)]
    print(f"{name} {state}: mean moves {moves}")
    assert all(later > earlier + 0.5 * moves[0] for earlier, later in pairwise(moves))


@pytest.mark.parametrize(("name", "state"), ITERATIONS_OF_TWO)
def test_iterations_of_two_ranks_end_with_the_weights_of_one_rank(name, state, pair, sampled_alone):
    ours = saved_state(pair.out(f"{name}-{state}-{LAST}", "model"))
    theirs = saved_state(sampled_alone.out(f"zero2-{state}-{LAST}", "model"))
    assert ours.keys() == theirs.keys()
    gaps = {key: (ours[key] - theirs[key]).abs().max().item() / theirs[key].abs().max().item() for key in theirs}
    print(f"{name} {state}: {max(gaps.values()):.2g}")
    assert max(gaps.values()) < 1e-6


def test_one_rank_under_any_stage_makes_the_same_steps(sampled_alone):
    """DeepSpeed without ZeRO counts a step of zeros before the first one, after which steps are a quarter shorter."""
    states = [saved_state(sampled_alone.out(f"zero{n}-masters-0", "model")) for n in range(3)]
    for other in states[1:]:
        gaps = torch.cat([(other[key] - states[0][key]).abs().flatten() for key in other])
        assert gaps.mean().item() < 0.01e-6


@pytest.mark.parametrize(
    ("case", "name"), [("zero0-masters-3", "alone"), ("zero2-all-3", "alone"), ("zero3-masters-1", "pair")]
)
def test_a_bf16_model_is_the_rounding_of_its_masters(case, name, pair, sampled_alone):
    folder = (pair if name == "pair" else sampled_alone).out(case, "model")
    check_equal({name: value.bfloat16() for name, value in masters(folder).items()}, weights(folder))
    assert any(not torch.equal(value, value.bfloat16().float()) for value in masters(folder).values())


def test_states_are_read_by_other_stages_and_numbers_of_ranks(sampled_alone, pair, alone):
    """One rank's state of every kind by two ranks that divide each parameter, and the states of two ranks by one."""
    pairs = [(sampled_alone.out("zero2-all-3", "model"), pair.out("reread-zero3", "model"))]
    pairs += [(pair.out(f"{n}-{s}-{LAST}", "model"), alone.out(f"reread-{n}", "model")) for n, s in ITERATIONS_OF_TWO]
    for written, again in pairs:
        check_equal(saved_state(again), saved_state(written))
        check_equal(weights(again), weights(written))
    shards = sorted(pair.out("reread-zero3", "model").glob("optimizer-*.safetensors"))
    assert len(shards) > 4
    sizes = [[tensor.nbytes for tensor in load_file(shard).values()] for shard in shards]
    assert all(sum(size) <= SHARD_BYTES or len(size) == 1 for size in sizes)


def test_without_a_saved_state_small_updates_are_lost_between_iterations(sampled_alone, data):
    last, kept = (sampled_alone.out(f"zero1-{state}-{ITERATIONS - 1}", "model") for state in ("none", "masters"))
    assert saved_state(last) == {}
    lost, learned = mean_move(weights(last), data), mean_move(masters(kept), data)
    print(f"mean move {lost:.2g} without, {learned:.2g} with masters")
    assert lost < 0.1 * learned


def masters(folder: Path) -> dict[str, torch.Tensor]:
    """The master weights beside a model, by parameter."""
    state = saved_state(folder)
    return {key.removeprefix("master."): value for key, value in state.items() if key.startswith("master.")}


def mean_move(values: dict[str, torch.Tensor], data: Path) -> float:
    """How far weights are from those of the model that they were trained from, as bf16 holds it."""
    before = weights(data / "llama")
    moves = [(values[name].float() - before[name].bfloat16().float()).abs().flatten() for name in values]
    return torch.cat(moves).mean().item()


def check_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys() != set()
    assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []


# --- settings --------------------------------------------------------------------------------------------------------


def test_a_launch_that_never_trains_takes_no_optimizer():
    settings = {**STAGES["zero3-offload"], "bf16": {"enabled": True}}
    merged = zero.merged_settings(settings, None)
    assert "optimizer" not in merged
    assert "offload_optimizer" not in merged["zero_optimization"]
    assert merged["zero_optimization"]["offload_param"] == {"device": "cpu"}
