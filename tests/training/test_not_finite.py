"""Numbers that are not finite stop a run before anything is saved, whether in weights, losses, gradients or logits.

The optimizer step is tested with an engine that returns what it is told, the rest with real models; in the slow tests
two real ranks stop with one message, and the run continues once its learning rate is lower.
"""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from fake_launch import loop, versions, with_changes
from torch import nn

from hir_core.config import HubModel, ScratchModel, TrainingConfig, WarmStartConfig
from hir_core.errors import ConfigError, NumericalError
from hir_core.inspect.verify import check_run
from hir_core.launch.job_spec import JobSpec, SaveStep
from hir_core.launch.launcher import launch
from hir_core.launch.rank import Rank
from hir_core.modeling import models, weight_checks
from hir_core.sampling import transformers_engine
from hir_core.sampling.completions import Completion, Request
from hir_core.sampling.draw import Limits
from hir_core.stages import run as run_module
from hir_core.store.store import Store
from hir_core.training import trainer
from hir_core.training.batches import BatchLayout
from hir_core.training.example_table import ExampleTable
from hir_core.training.examples import Example
from hir_core.training.losses import TERMS, Coefficients
from hir_core.training.triple_loss import TripleLoss
from hir_core.worker.job import Job
from hir_core.worker.logprobs import mean_logprobs

CPU = torch.device("cpu")
NAN, INF = float("nan"), float("inf")


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_that_no_model_can_use_is_named(build_model, dtype):
    model = build_model("llama").to(dtype)
    assert weight_checks.unusable_weight(model, CPU) is None
    for value in (NAN, INF, -INF, 1e30, -1e30):
        for name in ("model.norm.weight", "model.layers.1.mlp.up_proj.weight"):
            whole = model.get_parameter(name).data.clone()
            model.get_parameter(name).data.flatten()[-1] = value
            assert weight_checks.unusable_weight(model, CPU) == name
            model.get_parameter(name).data.copy_(whole)
    assert weight_checks.unusable_weight(model, CPU) is None


@pytest.mark.usefixtures("alone")
def test_the_padding_of_a_partition_and_whole_numbers_are_no_weights():
    model = nn.Linear(3, 1, bias=False)
    model.register_buffer("steps", torch.tensor([2**60]))
    model.weight.ds_tensor, model.weight.ds_numel = torch.tensor([1.0, 2.0, 3.0, NAN]), 3
    assert weight_checks.unusable_weight(model, CPU) is None
    model.weight.ds_tensor[2] = NAN
    assert weight_checks.unusable_weight(model, CPU) == "weight"


def spoil(folder: Path, name: str, value: float) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors[name].flatten()[0] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def save_job(folder: Path, place: Path, deepspeed: Any = None) -> JobSpec:
    spec = ScratchModel(type="scratch", hidden_size=16, layers=1, heads=2, intermediate_size=16, context=128)
    models.materialise(spec, folder, ["one two"] * 4, 0)
    spoil(folder, "model.layers.0.mlp.down_proj.weight", NAN)
    model = HubModel(source=str(folder))
    return JobSpec(model=model, seed=3, deepspeed=deepspeed or {}, steps=(SaveStep(output=place),))


@pytest.mark.usefixtures("alone")
def test_a_model_whose_weights_are_not_finite_is_not_loaded(tmp_path):
    place = Rank(tmp_path, 0, 1, 0)
    with pytest.raises(
        ConfigError, match=r"^model\.source: model\.layers\.0\.mlp\.down_proj\.weight of .* holds NaN, in"
    ):
        Job(place, save_job(tmp_path / "policy", tmp_path), CPU)


# --- optimizer steps -------------------------------------------------------------------------------------------------


Loss = Callable[[Sequence[str], int], float]
"""The loss of a micro-batch, by the keys of its rows and the micro-batches before it."""


class Engine:
    """An engine whose losses and norms of the gradient are those that it is told."""

    def __init__(self, loss: Loss, norm: Callable[[int], float]) -> None:
        self.loss, self.norm = loss, norm
        self.steps = 0
        self.optimizer = self
        self.param_groups: list[dict[str, float]] = [{}]

    def __call__(self, keys: Sequence[str], totals: Any, scale: float) -> Any:
        del totals, scale
        loss = torch.tensor(self.loss(keys, self.steps))
        return loss, dict.fromkeys(TERMS, loss)

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None: ...

    def backward(self, loss: Any) -> None: ...

    def step(self) -> None:
        self.steps += 1

    def train(self) -> None: ...

    def eval(self) -> None: ...

    def get_global_grad_norm(self) -> float:
        return self.norm(self.steps)


class Keys(BatchLayout):
    """A layout whose batches are the keys of their rows."""

    def collate(self, examples: Sequence[Example]) -> Any:
        return [example.key for example in examples]


def run_steps(loss: Loss, norm: Callable[[int], float], training: TrainingConfig) -> Any:
    examples = ExampleTable.of(Example(f"t{n}", ((3,),), (), (4,) * (8 - n), 1.0) for n in range(8))
    return trainer.train(Engine(loss, norm), examples, training, Keys(0, (1,), None, CPU), (1,), lambda _: None)


TWO_STEPS = {"epochs": 1, "batch_size": 4, "micro_batch_tokens": 1}


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_loss_that_is_not_finite_stops_the_training_and_names_step_and_rows(value):
    training = WarmStartConfig(demonstrations=1, learning_rate=3.0, **TWO_STEPS)
    pattern = (
        rf"^optimizer step [12] of 2: the loss is {value}, in a batch with triple t5: nothing of this training was "
        r"kept; lower warm_start\.learning_rate, which is 3$"
    )
    with pytest.raises(NumericalError, match=pattern):
        run_steps(lambda keys, _: value if "t5" in keys else 1.0, lambda _: 1.0, training)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("norm", [NAN, INF, -1.0])
def test_a_gradient_that_is_not_finite_stops_the_training(norm):
    training = TrainingConfig(learning_rate=1e-3, **TWO_STEPS)
    pattern = (
        r"^optimizer step 2 of 2: the (norm of the )?gradient is .*, in a batch with triple t\d, t\d, t\d, t\d: no"
    )
    with pytest.raises(NumericalError, match=pattern):
        run_steps(lambda *_: 1.0, lambda steps: norm if steps == 8 else 1.0, training)


@pytest.mark.usefixtures("alone")
def test_a_model_that_the_last_step_broke_is_found():
    training = TrainingConfig(**TWO_STEPS)
    assert run_steps(lambda *_: 1.0, lambda _: 1.0, training).result["loss"] == 4.0
    with pytest.raises(
        NumericalError, match=r"^after the last optimizer step: the loss is nan, in a batch with triple t\d"
    ):
        run_steps(lambda _, steps: NAN if steps == 8 else 1.0, lambda _: 1.0, training)


# --- logits ----------------------------------------------------------------------------------------------------------


def complete(model: Any, limits: Limits) -> list[Completion]:
    requests = [Request(f"p{n}", (n + 40, n + 41), (1, 2)) for n in range(3)]
    with torch.no_grad():
        return list(transformers_engine.complete(model, requests, limits, CPU))


DRAWS = [Limits(1.0, 4, (1,), 0), Limits(0.0, 4, (1,), 0)]


@pytest.mark.parametrize("limits", DRAWS, ids=["sampled", "greedy"])
@pytest.mark.parametrize("architecture", ["llama", "t5"])
@pytest.mark.parametrize("value", [NAN, INF])
def test_logits_that_are_not_finite_draw_nothing(build_model, architecture, limits, value):
    model = build_model(architecture)
    with torch.no_grad():
        model.get_input_embeddings().weight[42] = value  # the second prompt's; the head has weights of its own
    separate = nn.Linear(16, 300, bias=False)
    model.set_output_embeddings(separate)
    with pytest.raises(
        NumericalError, match=r"^prompt p[12]: the model gives no probabilities for token 1 of output 0: "
    ):
        complete(model, limits)


@pytest.mark.parametrize("limits", DRAWS, ids=["sampled", "greedy"])
def test_tokens_that_a_model_rules_out_are_not_drawn_and_no_error(build_model, limits):
    """By logits of minus infinity, as where a vocabulary is padded."""
    head = build_model("llama").get_output_embeddings().forward
    model = build_model("llama")
    ruled_out = torch.arange(300) % 3 == 0
    model.get_output_embeddings().forward = lambda hidden: head(hidden).masked_fill(ruled_out, -INF)
    for completion in complete(model, limits):
        assert all(token % 3 for token in completion.token_ids)
        assert all(map(math.isfinite, completion.logprobs))
        assert set(completion.token_ids) != {299}  # the last one, which is drawn where no distribution is left


def test_a_sample_without_a_probability_is_named(build_model):
    model = build_model("llama")
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = NAN
    module = TripleLoss(model, Coefficients(0.0, 0.0, 0.0), 16).eval()
    with pytest.raises(NumericalError, match=r"^sample s1: the model that writes instructions gives it no probability"):
        mean_logprobs(module, [Example("s1", ((5, 6),), (), (8, 9), 1.0)], BatchLayout(0, (1,), None, CPU))


# --- two real ranks --------------------------------------------------------------------------------------------------

TWO = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two usable cores")


@TWO
@pytest.mark.slow
@pytest.mark.parametrize(("rate", "deepspeed", "steps"), [(1e30, "zero3", 1), (1e9, "laptop", 4)])
def test_a_learning_rate_that_ruins_a_model_stops_both_ranks_and_commits_nothing(
    settings, monkeypatch, rate, deepspeed, steps
):
    monkeypatch.setattr(run_module, "launch", launch)
    changes = {"iterations": 0, "launch": {"processes": 2}, "deepspeed": f"ds_configs/{deepspeed}.json"}
    changes |= {"warm_start.steps": steps}
    config = with_changes(settings, {**changes, "warm_start.learning_rate": rate})
    with pytest.raises(NumericalError, match=r"nothing of this training was kept; lower warm_start\.learning_rate, wh"):
        loop(config)
    assert versions(Store(config.run_dir)) == {"prompts@0": 1, "triples@0": 1}
    if steps == 1:
        return
    changes["launch"] = {"processes": 1}
    store = loop(with_changes(settings, {**changes, "warm_start.learning_rate": 1e-3})).store
    assert versions(store)["models@0"] == 1
    assert check_run(store)["problems"] == []


@TWO
@pytest.mark.slow
def test_two_ranks_that_share_a_model_with_nan_refuse_it_with_one_message(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(run_module, "launch", launch)
    save_job(tmp_path / "policy", tmp_path)
    changes = {"iterations": 0, "launch": {"processes": 2}, "deepspeed": "ds_configs/zero3.json"}
    config = with_changes(settings, {**changes, "model": {"source": str(tmp_path / "policy")}})
    with pytest.raises(
        ConfigError, match=r"^model\.source: model\.layers\.0\.mlp\.down_proj\.weight of .* holds NaN, inf"
    ):
        loop(config)
    assert versions(Store(config.run_dir)) == {"prompts@0": 1, "triples@0": 1}
    reports = [pl.read_json(path)["message"].item() for path in config.run_dir.rglob("rank-*.failed.json")]
    assert len(set(reports)) == 1
