"""`hir evaluate`: figures of lm-evaluation-harness are those of our own answers, and are kept beside the versions.

What asks a model needs the extra `lm-eval` (347 MB), which `dev` does not bring: without it these tests are skipped.
"""

import importlib.util
import json
import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from finished_run import commit, hir
from kept_benchmark import result
from typer.testing import CliRunner

from flows.cli.app import app
from hir_core.config import ScratchModel
from hir_core.errors import ConfigError, StoreError
from hir_core.inspect import benchmarks, evaluate
from hir_core.inspect.benchmarks import benchmark_path, write_benchmark
from hir_core.inspect.model_usage import model_usage
from hir_core.modeling import models
from hir_core.store.manifest import identity
from hir_core.store.store import Store
from hir_core.worker.chat import make_chat
from hir_core.worker.lm_harness import figures_of, make_harness

QUESTIONS = [f"how many plums do I have? {n} and {n + 1}" for n in range(12)]
CHOICES = ["3", " plums", "nine it"]
INSTRUCTION = "Say it well."


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_results_are_kept_by_model_and_settings_and_shown_without_the_harness(small_run, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    model, other = small_run.resolve("models@2"), small_run.resolve("models@1")
    assert "was not measured yet: name tasks" in hir("evaluate", "models@2", code=2)
    write_benchmark(small_run, model, result(model))
    write_benchmark(small_run, model, result(model, 0.25))  # in the place of the first one
    write_benchmark(small_run, model, result(model, 0.75, is_plain=True, task="odd/../name"))
    write_benchmark(small_run, other, result(other))
    lines = hir("evaluate", "models@2").splitlines()
    assert [line.split() for line in lines] == [
        ["task", "metric", "value", "stderr", "n", "few-shot"],
        ["t", "(plain)", "acc", "0.7500", "0.2500", "4", "0"],
        ["t", "acc", "0.2500", "0.2500", "4", "0"],
    ]
    assert [kept["figures"][0]["value"] for kept in json.loads(hir("evaluate", "models@2", "--json"))] == [0.75, 0.25]
    assert hir("verify").endswith("sound\n")
    path = benchmark_path(small_run, model, result(model).settings)
    assert path.parent == small_run.run_dir / "benchmarks" / model.id
    path.write_text(path.read_text().replace('"value"', '"worth"'))
    assert re.search(r"is no result of `hir evaluate`: .*worth.*: remove it", hir("evaluate", "models@2", code=1))
    with pytest.raises(StoreError, match="remove it"):
        benchmarks.benchmarks_of(small_run, model)


def test_what_cannot_be_asked_is_one_message(small_run, monkeypatch):
    for options, message in (
        (["--tasks", "t", "--limit", "1.5"], "--limit: expected a number of questions"),
        (["--tasks", "t", "--limit", "0"], "--limit: expected a number of questions"),
        (["--tasks", "t", "--batch-size", "many"], "--batch-size: expected a number from 1, or auto"),
        (["--tasks", " ,"], "--tasks: expected names"),
    ):
        assert message in hir("evaluate", "models@2", *options, code=2)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = hir("evaluate", "models@2", "--tasks", "t", code=2)
    assert "needs the package `lm-eval`" in message
    assert "hir's extra `lm-eval`" in message


def test_a_figure_is_read_by_its_metric_and_filter():
    results = {
        "results": {
            "t": {"alias": "t", "sample_len": 9, "acc,none": 0.5, "acc_stderr,none": "N/A", "em,strict": 1,
                  "em_stderr,strict": 0.1, "table,none": {"a": 1}},
            "group": {"alias": "g", "acc,none": 0.25, "sample_len": 20},
        },
        "n-samples": {"t": {"original": 9, "effective": 3}},
        "n-shot": {"t": 5},
        "versions": {"t": 2.0},
    }  # fmt: skip
    found = [(f["task"], f["metric"], f["filter"], f["value"], f["stderr"], f["n"]) for f in figures_of(results)]
    assert found == [
        ("t", "acc", "none", 0.5, None, 3),
        ("t", "em", "strict", 1.0, 0.1, 3),
        ("group", "acc", "none", 0.25, None, 20),
    ]


# --- with the harness ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """A run with a random model, and an evaluation that says how it is asked."""
    pytest.importorskip("lm_eval")
    store = Store(tmp_path_factory.mktemp("evaluate") / "runs" / "random")
    draft = store.draft(identity("models", 0, {"bf16": False}, []))
    tokenizer = models.fit_tokenizer(["how many plums do I have? 3 and nine, say it well\n" * 4], 400)
    sizes = {"hidden_size": 32, "layers": 1, "heads": 2, "intermediate_size": 64, "context": 96}
    model = models.build_scratch(ScratchModel(type="scratch", **sizes), tokenizer, seed=3)
    for parameter in model.parameters():
        parameter.data *= 3  # far from flat, so that no rounding decides
    model.save_pretrained(draft.path)
    tokenizer.save_pretrained(draft.path)
    version = draft.commit()
    asked = {"instruction": INSTRUCTION, "template": None, "max_new_tokens": 8}
    commit(store, "evaluations", 0, [commit(store, "prompts", 0, [], []), version], [], asked)
    return store


@pytest.fixture(scope="module")
def answers(store) -> list[str]:
    """What the model answers, by our own greedy decoding, as `hir chat` and evaluations ask it."""
    usage = model_usage(store, store.resolve("models@0"))
    reply = make_chat({"model": usage.model.model_dump(mode="json"), "adapter": None, "bf16": False, "stop": (),
                       "instruction": INSTRUCTION, "temperature": 0.0, "max_new_tokens": 8, "seed": 0})  # fmt: skip
    reply({"type": "load"})
    texts = []
    for question in QUESTIONS:
        pieces = [reply({"type": "ask", "query": question, "history": []})]
        while pieces[-1]["end"] is None:
            pieces.append(reply({"type": "more"}))
        texts.append("".join(piece["text"] for piece in pieces))
    return texts


@pytest.fixture(scope="module")
def tasks(answers, tmp_path_factory) -> Path:
    """A folder with a task in which the model writes, and one in which it chooses.

    Every third reference is what the model answers.
    """
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"query": question, "answer": answer if n % 3 == 0 else "something else", "right": n % len(CHOICES)}
        for n, (question, answer) in enumerate(zip(QUESTIONS, answers, strict=True))
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(folder / "questions.jsonl")},
        "test_split": "train",
        "doc_to_text": "{{query}}",
    }
    write = {
        "task": "hir_write",
        "output_type": "generate_until",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": [], "max_gen_toks": 8, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    }
    choose = {
        "task": "hir_choose",
        "output_type": "multiple_choice",
        "doc_to_target": "right",
        "doc_to_choice": CHOICES,
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    for task in (write, choose):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(shared | task))
    return folder


def chosen(store: Store) -> list[int]:
    """The likeliest choice for each question under the instruction, from the model's own logits."""
    folder = store.resolve("models@0").path
    tokenizer, model = models.load_tokenizer(str(folder)), models.load_model(str(folder), torch.float32)
    found = []
    for question in QUESTIONS:
        sums = []
        for choice in CHOICES:
            prompt = tokenizer(f"{INSTRUCTION}\n{question}\n")["input_ids"]
            ids = [*prompt, *tokenizer(choice)["input_ids"]]
            with torch.no_grad():
                logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            sums.append(sum(float(logprobs[place - 1, ids[place]]) for place in range(len(prompt), len(ids))))
        found.append(max(range(len(CHOICES)), key=sums.__getitem__))
    return found


@pytest.mark.slow
def test_its_figures_are_those_of_our_own_answers_and_the_same_call_again_only_shows_them(
    store, answers, tasks, monkeypatch, tmp_path
):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    runs = ["--runs-dir", str(store.run_dir.parent)]
    call = ["evaluate", "--tasks", "hir_write,hir_choose", "--include-path", str(tasks), "--log-samples", *runs]
    hir(*call)
    found = json.loads(hir("evaluate", "--json", *runs))
    figures = {figure["task"]: figure for kept in found for figure in kept["figures"]}
    assert figures["hir_write"]["value"] == 1 / 3
    assert [kept["instruction"] for kept in found] == [INSTRUCTION] * 2
    expected = chosen(store)
    right = [choice == n % len(CHOICES) for n, choice in enumerate(expected)]
    assert 0 < sum(right) < len(right)
    assert figures["hir_choose"]["value"] == sum(right) / len(right)
    assert math.isclose(figures["hir_write"]["stderr"], math.sqrt(1 / 3 * 2 / 3 / (len(QUESTIONS) - 1)), rel_tol=1e-6)
    [written] = (store.run_dir / "benchmarks").rglob("hir_write-*.jsonl")
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [f"{INSTRUCTION}\n{question}\n" for question in QUESTIONS]
    assert [row["answers"][0].strip() for row in rows] == answers
    monkeypatch.setattr(evaluate, "LimitedProcess", lambda work: 1 / 0)  # nothing is asked below
    assert re.search(r"2 tasks measured before, in \d+ s: --again measures anew\n$", hir(*call))
    for changes in (["--again"], ["--limit", "2"], ["--plain"]):
        assert isinstance(CliRunner().invoke(app, [*call, *changes]).exception, ZeroDivisionError)
    assert hir("verify", *runs).endswith("sound\n")


@pytest.mark.slow
def test_a_task_that_is_unknown_out_of_reach_or_runs_code_is_refused(tasks, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    harness_settings = {"num_fewshot": None, "limit": None, "batch_size": 1, "with_answers": False}
    import evaluate as hub_metrics
    from lm_eval import evaluator

    for module, name in ((hub_metrics, "load"), (evaluator, "get_git_commit_hash"), (evaluator, "add_env_info")):
        monkeypatch.setattr(module, name, getattr(module, name))  # put back afterwards
    (tasks / "unsafe.yaml").write_text((tasks / "hir_write.yaml").read_text().replace("hir_write", "hir_unsafe")
                                       + "unsafe_code: true\n")  # fmt: skip
    (tasks / "gone.yaml").write_text((tasks / "hir_write.yaml").read_text().replace("hir_write", "hir_gone")
                                     .replace("questions.jsonl", "gone.jsonl"))  # fmt: skip
    reply = make_harness(harness_settings | {"include_path": str(tasks)})
    for task, message in (
        ("hir_wrote", "no task `hir_wrote`; did you mean `hir_write`"),
        ("gsm8k", "task gsm8k: its data is not on this machine and could not be fetched"),
        ("hir_gone", "task hir_gone: its data is not on this machine"),
        ("hir_unsafe", "task hir_unsafe executes what the model writes"),
        ("humaneval", "task humaneval needs the metric `code_eval`, which is Python code on the hub"),
    ):
        with pytest.raises(ConfigError, match=message):
            reply({"type": "prepare", "task": task})
