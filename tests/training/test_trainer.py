"""Checks before training find changed prompts, moved targets and stale weights; learning rates are those by hand."""

import dataclasses
import math
from typing import Any

import polars as pl
import pytest
import torch

from hir_core.config import TrainingConfig
from hir_core.errors import TrainingError
from hir_core.modeling.rendering import Renderer
from hir_core.sampling import transformers_engine
from hir_core.sampling.completions import Request
from hir_core.sampling.draw import Limits
from hir_core.training import preflight, trainer
from hir_core.training.batches import Batch, BatchLayout
from hir_core.training.example_table import ExampleTable
from hir_core.training.examples import Example
from hir_core.training.trainer import learning_rate
from hir_core.training.triple_loss import TripleLoss

END = 1
CPU = torch.device("cpu")
RIGHT, WRONG = "Add up.", "Do not add up."


# --- learning rate ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [2.0, 4.0, 4.0, 4.0, 4.0, 4.0]),
        ("linear", [2.0, 4.0, 4.0, 3.0, 2.0, 1.0]),
        ("cosine", [2.0, 4.0, 4.0, 2 + math.sqrt(2), 2.0, 2 - math.sqrt(2)]),
    ],
)
def test_learning_rates_by_hand(schedule, expected):
    """Two steps of warm-up to 4, then four steps at 0, 1/4, 1/2 and 3/4 of the decay."""
    training = TrainingConfig(learning_rate=4.0, warmup_steps=2, schedule=schedule)
    assert [learning_rate(training, step, 6) for step in range(6)] == pytest.approx(expected)


def test_a_warm_up_longer_than_the_training_only_rises():
    training = TrainingConfig(learning_rate=4.0, warmup_steps=8, schedule="cosine")
    assert [learning_rate(training, step, 3) for step in range(3)] == pytest.approx([0.5, 1.0, 1.5])


# --- self-test -------------------------------------------------------------------------------------------------------


@pytest.fixture
def renderer(tokenizer) -> Renderer:
    return Renderer(tokenizer, None)


def layout(start: int | None = None) -> BatchLayout:
    return BatchLayout(0, (END,), start, CPU)


def sample(renderer: Renderer, number: int, completion_ids: list[int], **changes: Any) -> dict[str, Any]:
    query = f"{number} figs"
    values = {
        "sample_id": f"s{number:02}",
        "query": query,
        "history": None,
        "instruction": RIGHT,
        "prompt_ids": renderer.prompt_ids(RIGHT, query),
        "completion_ids": completion_ids,
        "logprobs": [0.0] * len(completion_ids),
        "ends": completion_ids[-1] == END,
    }
    return {**values, **changes}


def tables(rows: list[dict[str, Any]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Triples that relabel every other sample as wrong, and the samples."""
    triples = [
        {
            "triple_id": f"t{row['sample_id']}",
            "sample_id": row["sample_id"],
            "instruction": (RIGHT, WRONG)[n % 2],
            "contrast": [(WRONG, RIGHT)[n % 2]],
            "query": row["query"],
            "history": None,
            "output": "",
            "prefix_ids": [],
            "target_ids": row["completion_ids"],
            "ends": row["ends"],
            "weight": 1.0,
            "excluded_from": None,
            "removed": 0.0,
        }
        for n, row in enumerate(rows)
    ]
    samples = pl.DataFrame(rows, schema_overrides={"logprobs": pl.List(pl.Float32)})
    return pl.DataFrame(triples, schema_overrides={"prefix_ids": pl.List(pl.Int32)}), samples


def run_self_test(rows, renderer, layout):
    triples, samples = tables(rows)
    examples = trainer.read_examples(triples, renderer, TrainingConfig())
    preflight.check_triples(examples, triples, samples, renderer, layout)
    return examples


@pytest.mark.parametrize("start", [None, 9])
def test_good_triples_pass_the_self_test(start, renderer):
    rows = [sample(renderer, n, [20 + n, 30, END][: 1 + n % 3]) for n in range(20)]
    examples = run_self_test(rows, renderer, layout(start))
    assert [example.key for example in examples] == [f"ts{n:02}" for n in range(20)]
    assert all(len(example.prompts) == 2 for example in examples)


@dataclasses.dataclass(frozen=True)
class Moved(BatchLayout):
    """A layout that predicts every target from `by` positions too early."""

    by: int = 1

    def collate(self, examples) -> Batch:
        batch = super().collate(examples)
        inputs = batch.input_ids if batch.decoder_input_ids is None else batch.decoder_input_ids
        return dataclasses.replace(batch, positions=(batch.positions - self.by) % inputs.numel())


@pytest.mark.parametrize("start", [None, 9])
@pytest.mark.parametrize("targets", [[20], [20, 21, END]])
@pytest.mark.parametrize("by", [1, -1])
def test_targets_predicted_from_the_wrong_place_are_found(by, targets, start, renderer):
    rows = [sample(renderer, 1, targets), sample(renderer, 2, [20, 21, 22, 23, END])]
    with pytest.raises(TrainingError, match="triple ts01 or its neighbours is predicted from the wrong position"):
        run_self_test(rows, renderer, Moved(0, (END,), start, CPU, by=by))


class Unpadded(BatchLayout):
    """A layout that has padding among the targets of its last sequence."""

    def collate(self, examples) -> Batch:
        batch = super().collate(examples)
        return dataclasses.replace(
            batch,
            target_places=torch.cat([batch.target_places, batch.target_places[-1:]]),
            target_rows=torch.cat([batch.target_rows, batch.target_rows[-1:]]),
        )


def test_padding_in_the_loss_is_found(renderer):
    with pytest.raises(TrainingError, match="in the batch differ from the sampled ones"):
        run_self_test(
            [sample(renderer, 1, [20]), sample(renderer, 2, [20, 21])], renderer, Unpadded(0, (END,), None, CPU)
        )


@pytest.mark.parametrize(
    ("targets", "ends", "problem"),
    [
        ([20, 21, END], False, "is a target, but the output was cut off"),
        ([20, END, 21], False, "is a target, but the output was cut off"),
        ([END, 20, END], True, "is a target, but the output was cut off"),
        ([20, 21], True, "is no target, but the output ended"),
    ],
)
def test_an_end_is_taught_where_and_only_where_the_output_ended(targets, ends, problem, renderer):
    rows = [sample(renderer, 1, [20, END]), sample(renderer, 2, targets, ends=ends)]
    with pytest.raises(TrainingError, match=f"triple ts02: the end-of-sequence token {problem}"):
        run_self_test(rows, renderer, layout())


def test_any_of_a_models_end_tokens_ends_an_output(renderer):
    run_self_test([sample(renderer, 1, [20, 44], ends=True)], renderer, BatchLayout(0, (END, 44), None, CPU))


def test_a_prompt_that_renders_differently_than_it_was_sampled_is_found(renderer, tokenizer):
    rows = [sample(renderer, n, [20, END]) for n in range(3)]
    with pytest.raises(TrainingError, match="prompt of sample s00 now renders to other tokens"):
        run_self_test(rows, Renderer(tokenizer, "{query}\n{instruction}\n"), layout())


def test_triples_longer_than_the_models_context_are_left_out(build_model):
    model = build_model("llama", context=16)
    examples = [Example(str(n), (tuple(range(2, 10)),), (), tuple(range(2, 3 + n)), 1.0) for n in range(9)]
    assert preflight.too_long_triples(ExampleTable.of(examples[:8]), model) == []
    assert preflight.too_long_triples(ExampleTable.of(examples), model) == ["8"]
    with pytest.raises(TrainingError, match="context of 16 tokens, the shortest has 17"):
        preflight.too_long_triples(ExampleTable.of(examples[8:]), model)


# --- log-probabilities -----------------------------------------------------------------------------------------------


def draw_samples(model, renderer: Renderer) -> pl.DataFrame:
    limits = Limits(1.0, 6, (END,), 0)
    requests = [Request(f"{n}", tuple(renderer.prompt_ids(RIGHT, f"{n} figs")), (n,)) for n in range(20)]
    with torch.no_grad():
        completions = list(transformers_engine.complete(model, requests, limits, CPU, lambda _: 5))
    rows = {completion.key: completion for completion in completions}
    return pl.DataFrame(
        [
            sample(renderer, n, list(rows[str(n)].token_ids), logprobs=list(rows[str(n)].logprobs))
            | {"prompt_ids": list(requests[n].prompt_ids)}
            for n in range(20)
        ]
    )


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_the_weights_that_sampled_are_recognised_and_others_are_not(architecture, build_model, renderer):
    """The gap of the right weights is rounding only; other weights have a far larger one."""
    model = build_model(architecture, sharpness=3.0 if architecture == "llama" else 1.0)
    samples, training = draw_samples(model, renderer), TrainingConfig(micro_batch_tokens=50)
    module = TripleLoss(model, trainer.coefficients(training), 16)
    model_layout = layout(0 if architecture == "t5" else None)
    assert preflight.check_logprobs(module, samples, model_layout, training) < 1e-5
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        parameter.data *= 1 + 0.3 * torch.randn(parameter.shape, generator=generator)
    with pytest.raises(TrainingError, match=r"log-probabilities are \d\.\d+ nats per token off the sampler's"):
        preflight.check_logprobs(module, samples, model_layout, training)


@pytest.mark.usefixtures("alone")
def test_a_prompt_that_drifted_shows_in_the_log_probabilities(build_model, renderer):
    model = build_model("llama", sharpness=3.0)
    samples, training = draw_samples(model, renderer), TrainingConfig()
    drifted = samples.with_columns(prompt_ids=pl.col("prompt_ids").list.slice(1))
    module = TripleLoss(model, trainer.coefficients(training), 16)
    with pytest.raises(TrainingError, match="other weights, attention mask or prompt"):
        preflight.check_logprobs(module, drifted, layout(), training)


@pytest.mark.usefixtures("alone")
def test_log_probabilities_that_are_not_numbers_stop_the_training(build_model, renderer):
    model = build_model("llama")
    samples = draw_samples(model, renderer)
    model.get_output_embeddings().weight.data[5] = float("nan")
    module = TripleLoss(model, trainer.coefficients(TrainingConfig()), 16)
    with pytest.raises(TrainingError, match="nan nats per token"):
        preflight.check_logprobs(module, samples, layout(), TrainingConfig())
