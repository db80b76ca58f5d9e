"""Memory estimates, held against DeepSpeed's own for model states, and against peaks measured on a GPU."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS, read_deepspeed
from hir_core.config.model_shape import shape_of_config
from hir_core.launch.memory_estimate import (
    Strategy,
    activation_bytes,
    cache_bytes_per_token,
    logits_bytes,
    model_states,
    rows_that_fit,
    sampling_row_bytes,
    sampling_weights_bytes,
)

LLAMA_7B = shape_of_config(
    {"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
     "num_hidden_layers": 32, "num_attention_heads": 32}
)  # fmt: skip
QWEN_32B = shape_of_config(
    {"model_type": "qwen2", "vocab_size": 152064, "hidden_size": 5120, "intermediate_size": 27648,
     "num_hidden_layers": 64, "num_attention_heads": 40, "num_key_value_heads": 8}
)  # fmt: skip
LLAMA_70B = shape_of_config(
    {"model_type": "llama", "vocab_size": 32000, "hidden_size": 8192, "intermediate_size": 28672,
     "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8}
)  # fmt: skip
MEASURED = shape_of_config(
    {"model_type": "llama", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "head_dim": 128,
     "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "tie_word_embeddings": True}
)  # fmt: skip
"""The model of `tests/gpu/measure.py`."""
FIGURES = {
    figure["what"]: figure["value"]
    for figure in json.loads((Path(__file__).parents[1] / "gpu/results/7af5d30.json").read_text())["figures"]
}
GB = 10**9


def strategy(name: str) -> Strategy:
    return Strategy.of(read_deepspeed(SHIPPED_DS_CONFIGS / f"{name}.json"))


# --- against DeepSpeed's estimators ----------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, 2, 4])
@pytest.mark.parametrize("shape", [LLAMA_7B, QWEN_32B, LLAMA_70B], ids=["7b", "32b", "70b"])
def test_model_states_are_those_of_deepspeeds_estimators(shape, nodes):
    """On 8, 16 and 32 devices. Its estimators count no communication buffers, and 1.5 times the host's memory.

    For ZeRO-2 and 3 they count 18 bytes of each parameter: gradients in fp32, and 2 bytes more. Here ZeRO-2 has 16,
    since it accumulates in fp32 and steps with the same tensor, and ZeRO-3 has 16 and 4 more during a step; in the
    host's memory they leave out the accumulated gradients.
    """
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as zero3
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as zero2

    parameters, layer, ranks = shape.parameters, shape.layer_parameters, 8 * nodes
    ours = model_states(shape, strategy("zero2"), ranks)
    _, on_device = zero2(parameters, 8, nodes, cpu_offload=False)
    assert ours.kept == pytest.approx(on_device - 2 * parameters / ranks, rel=1e-6)
    assert ours.step == 0

    ours = model_states(shape, strategy("zero3"), ranks)
    _, on_device, of_layer = zero3(parameters, layer, 8, nodes, cpu_offload=False, cpu_offload_params=False)
    assert ours.kept - ours.gathered == pytest.approx(on_device - of_layer, rel=1e-6)
    assert ours.step - ours.buckets == pytest.approx(4 * min(parameters / ranks, 10**9), rel=1e-6)

    ours = model_states(shape, strategy("zero3_offload"), ranks)
    in_memory, *_ = zero3(parameters, layer, 8, nodes, additional_buffer_factor=1.0)
    assert 8 * ours.host == pytest.approx(in_memory + 8 * 4 * parameters / ranks, rel=1e-6)
    assert ours.weights == ours.gradients == ours.optimizer == 0


def test_each_stage_divides_more_among_more_ranks():
    alone = {name: model_states(LLAMA_7B, strategy(name), 1) for name in ("zero0", "zero1", "zero2", "zero3")}
    eight = {name: model_states(LLAMA_7B, strategy(name), 8) for name in alone}
    parameters = LLAMA_7B.parameters
    for name, states in alone.items():
        gradients = (2 if name in ("zero0", "zero1") else 4) * parameters
        assert (states.weights, states.gradients, states.optimizer) == (2 * parameters, gradients, 12 * parameters)
    assert eight["zero0"] == alone["zero0"]
    assert eight["zero1"].optimizer == pytest.approx(12 * parameters / 8)
    assert (eight["zero1"].gradients, eight["zero2"].gradients) == (2 * parameters, int(4 * parameters / 8))
    assert (eight["zero2"].weights, eight["zero3"].weights) == (2 * parameters, int(2 * parameters / 8))
    accumulating = Strategy.of({"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"},
                                "zero_optimization": {"stage": 1}})  # fmt: skip
    assert model_states(LLAMA_7B, accumulating, 8).gradients == 6 * parameters
    fp32 = model_states(LLAMA_7B, Strategy.of({}), 8)
    assert (fp32.weights, fp32.optimizer, fp32.step) == (4 * parameters, 8 * parameters, 0)


def test_reducing_gradients_and_a_step_take_what_deepspeed_allocates():
    """Bytes of a parameter of a model that fits into a bucket, as found by tracing ranks on CPUs."""
    small = dataclasses.replace(LLAMA_7B, parameters=10**8, vocabulary=1000, hidden=1000, intermediate=1000)

    def found(name: str, ranks: int) -> tuple[float, float, float]:
        states = model_states(small, strategy(name), ranks)
        return states.buckets / 10**8, states.reduction / 10**8, states.step / 10**8

    assert found("zero0", 2) == (0, 0, 4)
    assert found("zero1", 1) == (2, 2, 2 + 2 + 4)  # own partition; joined; cast
    assert found("zero1", 2) == (2, 1 + 2, (2 + 2 + 4) / 2)
    assert found("laptop", 1) == (2, 4, 4 + 4)  # half of it fits into a bucket
    assert found("zero2", 2) == (4, 2 + 0.04, 0)  # joined, and one parameter of a hundred cast
    assert found("zero3", 2) == (2, 2 + 2, 2 + 2)
    assert found("zero3_offload", 2)[2] == 0


def test_on_cpus_what_activations_took_stays_in_gaps():
    states = model_states(LLAMA_7B, strategy("zero2"), 8)
    assert states.peak(10 * GB) == states.kept + states.buckets + 10 * GB
    assert states.peak(0) == states.kept + states.buckets + states.reduction
    assert states.peak(10 * GB, leaves_gaps=True) == states.peak(0) + 10 * GB


# --- against what was measured on an H200 ----------------------------------------------------------------------------


@pytest.mark.parametrize("batch_tokens", [16384, 65536, 262144])
def test_sampling_takes_what_was_measured(batch_tokens):
    """Rows of at most 16 prompt tokens and 128 new ones, four of a prompt."""
    number = {16384: 1, 65536: 2, 262144: 3}[batch_tokens]
    rows = batch_tokens // (144 * 4) * 4
    weights = sampling_weights_bytes(MEASURED, strategy("zero2"), 1, streamed=False)
    expected = weights + rows * sampling_row_bytes(MEASURED, 2, 16, 128, copies=4)
    peak = FIGURES[f"sampling-{number}-{batch_tokens}, 1 sample: peak bytes"] * GB
    assert 0.97 * peak < expected < 1.15 * peak


@pytest.mark.parametrize("name", ["zero2", "zero3", "zero3_offload"])
def test_training_takes_what_was_measured(name):
    """Micro-batches of 32 triples, two in three of which have a contrast; the case before left something there."""
    left = FIGURES[f"{name}, 0 load: bytes before"] * GB
    measured = dataclasses.replace(strategy(name), gradient_bytes=2)  # the files accumulated them in bf16 then
    states = model_states(MEASURED, measured, 1)
    working = activation_bytes(MEASURED, 2, 32 * 5 // 3, 16, 128, checkpointing=False) + logits_bytes(MEASURED, 2, 1024)
    peak = FIGURES[f"{name}, 2 train: peak bytes"] * GB - left
    assert 0.97 * peak < states.peak(working) < 1.1 * peak


# --- arithmetic ------------------------------------------------------------------------------------------------------


def test_cache_of_known_models():
    assert cache_bytes_per_token(LLAMA_7B, 2) == 524_288
    assert cache_bytes_per_token(LLAMA_70B, 2) == 327_680


def test_checkpointing_keeps_a_small_part_of_the_activations():
    whole = activation_bytes(LLAMA_7B, 2, 16, 512, 512, checkpointing=False)
    checkpointed = activation_bytes(LLAMA_7B, 2, 16, 512, 512, checkpointing=True)
    assert 0.05 < checkpointed / whole < 0.3
    assert activation_bytes(LLAMA_7B, 2, 32, 512, 512, checkpointing=False) == 2 * whole


@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize(("prompt", "output"), [(40, 8), (8, 40)])
def test_activations_are_the_tensors_that_autograd_saves(kind, prompt, output, build_model):
    """Of a small model in fp32; weights, which are saved too, do not count."""
    model = build_model(kind, hidden_size=64, layers=6, heads=4, intermediate_size=128, context=64)
    saved: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)
        return tensor

    kept, rows = [], 8
    ids = torch.randint(5, 200, (rows, prompt + output))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if kind == "t5":
            model.train()(input_ids=ids[:, :prompt], decoder_input_ids=ids[:, prompt:], use_cache=False)
        else:
            model.train()(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
    found = sum(saved.values())
    estimated = activation_bytes(shape_of_config(model.config.to_dict()), 4, rows, prompt, output, checkpointing=False)
    assert 0.93 < estimated / found < 1.1


def test_longer_rows_and_prompts_of_their_own_take_more():
    usual = sampling_row_bytes(LLAMA_7B, 2, 100, 64, copies=4)
    assert sampling_row_bytes(LLAMA_7B, 2, 101, 64, copies=4) > usual
    assert sampling_row_bytes(LLAMA_7B, 2, 100, 65, copies=4) > usual
    assert sampling_row_bytes(LLAMA_7B, 2, 100, 64, copies=1) > usual


def test_rows_fit_into_what_is_free_less_a_margin():
    assert [rows_that_fit(free, 90) for free in (-5, 0, 99, 100, 1000)] == [0, 0, 0, 1, 10]


def test_settings_that_are_missing_or_of_a_wrong_type_have_deepspeeds_defaults():
    zero = {"stage": 3, "offload_param": "cpu", "reduce_bucket_size": "large", "stage3_max_live_parameters": 1e9}
    assert Strategy.of({"zero_optimization": zero}) == Strategy.of({"zero_optimization": {"stage": 3}})
    usual = Strategy.of({"zero_optimization": {"stage": 3, "offload_param": {"device": "none"}}})
    assert (usual.bucket, usual.live, usual.overlaps, usual.offloads_weights) == (5 * 10**8, 105 * 10**7, True, False)
