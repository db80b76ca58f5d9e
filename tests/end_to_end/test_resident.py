"""Ranks that stay for a run's next job make the very files that ranks make which end with their job.

The runs are of several kinds of models and rewards, and some tests look at them for what those do.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_run import TINY, TWO_RANKS, digests, hir, left_alive, manifest, write_config
from transformers import LlamaConfig, LlamaForSequenceClassification
from zero_tables import saved_state, weights

from hir_core.inspect.model_usage import model_usage
from hir_core.modeling.models import fit_tokenizer
from hir_core.store.store import Store
from hir_core.store.training_log import TIMES
from hir_core.worker.chat import make_chat

pytestmark = pytest.mark.slow

CASES: dict[str, dict[str, Any]] = {
    "one rank, a reward of one's own": {
        "reward": {"type": "python", "function": "my_rewards:score"},
        "relabel": {"type": "keep_correct"},
        "warm_start": TINY["warm_start"] | {"optimizer_state": "all"},
        "training": TINY["training"] | {"optimizer_state": "all"},
    },
    "two ranks, an encoder-decoder in bf16": {
        "launch": TWO_RANKS,
        "model": TINY["model"] | {"architecture": "t5", "context": 256},
        "prompts": [{"type": "synthetic", "task": "tracking_shuffled_objects", "size": 60, "test_share": 0.3}],
        "reward": {"type": "option_choice"},
        "training": TINY["training"] | {"activation_checkpointing": True},
        "deepspeed": {"zero_optimization": {"stage": 2, "reduce_bucket_size": 5000}, "bf16": {"enabled": True}},
    },
    "without ZeRO, other models in between, and an adapter": {
        "model": TINY["model"] | {"context": 256},
        "lora": {"rank": 4},
        "reward": {"type": "reward_model", "source": "classifier", "label": 0},
        "relabel": {"type": "learned", "threshold": 0.0},
        "deepspeed": {"zero_optimization": {"stage": 0}},
    },
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, prefect_home) -> Callable[[str], tuple[Path, Path]]:
    """The two runs of a case: whose ranks end with each job, and whose ranks stay."""

    @cache
    def run(case: str) -> tuple[Path, Path]:
        folder, changes = tmp_path_factory.mktemp("resident"), dict(CASES[case])
        launch = TINY["launch"] | changes.pop("launch", {})
        if settings := changes.pop("deepspeed", None):
            (folder / "deepspeed.json").write_text(json.dumps(settings))
            changes["deepspeed"] = "deepspeed.json"
        (folder / "my_rewards.py").write_text(MY_REWARDS)
        make_classifier(folder / "classifier")
        for name, resident in (("ending", False), ("staying", True)):
            write_config(folder, name, launch=launch | {"resident": resident}, **changes)
            hir(folder, prefect_home, "run", f"{name}.yaml")
        return folder / "runs/ending", folder / "runs/staying"

    return run


MY_REWARDS = """
def score(completions, prompts):
    return [float(len(prompt["query"]) % 2) for prompt in prompts]
"""


@pytest.mark.parametrize("case", CASES)
def test_every_file_is_the_same_to_the_byte(case, runs, prefect_home):
    ending, staying = runs(case)
    assert len(pids(staying)) == 1 < len(pids(ending))
    assert contents(staying) == contents(ending)
    for model in ("models@0", "models@1"):
        losses = [manifest(run, model)["metrics"]["loss"] for run in (ending, staying)]
        assert losses[0] == losses[1]
    assert not [line for line in left_alive(str(prefect_home)) if "hir_core.worker" in line]


def test_ranks_that_stay_save_and_continue_from_what_the_optimizer_held(runs):
    """All of it in fp32, the master weights in bf16."""
    for case, kinds in (("one rank, a reward of one's own", {"exp_avg", "exp_avg_sq"}),
                        ("two ranks, an encoder-decoder in bf16", {"master"})):  # fmt: skip
        for run_dir in runs(case):
            first, second = Store(run_dir).versions("models")
            assert all({key.partition(".")[0] for key in saved_state(model.path)} == kinds for model in (first, second))
            job = json.loads((run_dir / "launches/0001/job.json").read_text())
            assert [step["optimizer_state"] for step in job["steps"] if step["type"] == "train"] == [str(first.path)]


def test_keep_correct_runs_with_a_reward_of_ones_own(runs):
    run_dir, _ = runs("one rank, a reward of one's own")
    facts = manifest(run_dir, "triples@1")
    assert facts["rows"] > 0
    assert facts["rejected"]["below threshold"] + facts["rejected"].get("empty completion", 0) + facts["rows"] == 84
    assert list(facts["metrics"]["instructions"]) == ["Generate a correct answer to this problem."]


def test_a_run_with_an_adapter_saves_the_first_model_whole_and_of_later_ones_the_adapter(runs):
    store = Store(runs("without ZeRO, other models in between, and an adapter")[0])
    first, second = (ref.path for ref in store.versions("models"))
    adapter = {"adapter_config.json", "adapter_model.safetensors"}
    assert adapter <= {path.name for path in second.iterdir()}
    assert not {path.name for path in first.iterdir()} & adapter
    assert weights(second).keys().isdisjoint(weights(first))
    assert any(tensor.any() for name, tensor in weights(second).items() if "lora_B" in name)


def test_an_encoder_decoder_learns_to_name_options(runs):
    run_dir, _ = runs("two ranks, an encoder-decoder in bf16")
    assert {0, 1} == {ref.iteration for ref in Store(run_dir).versions("evaluations")}
    assert manifest(run_dir, "rewards@1")["rows"] == 84


@pytest.mark.parametrize(("case", "equal"), [(list(CASES)[1], 0.9), (list(CASES)[2], 1.0)])
def test_a_chat_answers_test_prompts_as_the_evaluation_did(case, equal, runs):
    """An encoder-decoder, but for the rounding of bf16 in a batch; and an adapter."""
    store = Store(runs(case)[0])
    usage = model_usage(store, store.resolve("models@1"))
    settings = {**usage._asdict(), "stop": [], "temperature": 0.0, "seed": 0}
    reply = make_chat(json.loads(json.dumps(settings, default=lambda section: section.model_dump(mode="json"))))
    reply({"type": "load"})
    prompts = store.table(store.resolve("prompts@0")).select("prompt_id", "query").collect()
    answers = store.table(store.resolve("evaluations@1")).collect().join(prompts, on="prompt_id")
    same = []
    for query, completion in answers.select("query", "completion").iter_rows():
        pieces = [reply({"type": "ask", "query": query, "history": []})]
        while pieces[-1]["end"] is None:
            pieces.append(reply({"type": "more"}))
        same.append("".join(piece["text"] for piece in pieces) == completion)
    assert sum(same) >= equal * len(same) > 0


def make_classifier(folder: Path) -> None:
    """Writes a random reward model."""
    tokenizer = fit_tokenizer(["how many plums figs and pears one two three"] * 4, 320)
    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, **sizes)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def contents(run_dir: Path) -> dict[str, str]:
    """A digest of every file of every version but those that hold times."""
    return {name: digest for name, digest in digests(run_dir).items() if not name.endswith(("manifest.json", TIMES))}


def pids(run_dir: Path) -> set[int]:
    """The processes that were rank 0 of the run's jobs."""
    reports = run_dir.glob("launches/**/rank-0.started.json")
    return {json.loads(report.read_text())["pid"] for report in reports}
