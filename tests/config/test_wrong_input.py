"""Wrong input: every mistake of a user is reported in one message, with exit code 2 and nothing written.

Most cases call the command line in this process: they end before prefect or torch is imported, which one case proves in
a separate process. The slow ones need a launch, and run the real command.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_run import PATIENCE_S
from typer.testing import CliRunner

from flows.cli.app import app
from hir_core.store.store import Store

ROWS = [{"query": f"How many is {n} and 1?", "references": [str(n + 1)]} for n in range(20)]
TINY: dict[str, Any] = {
    "run": "tiny",
    "iterations": 1,
    "model": {"type": "scratch", "hidden_size": 16, "heads": 2, "layers": 1, "intermediate_size": 16, "context": 64},
    "prompts": [{"path": "rows.jsonl", "test_share": 0.3}],
    "sampling": {"k": 1, "max_new_tokens": 2, "prompts": 4},
    "training": {"epochs": 1, "batch_size": 4},
    "deepspeed": "ds_configs/laptop.json",
}
VLLM = "{type: vllm, release: 0.32.0, python: no/python}"
ErrorOf = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a config that would run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    write_rows(ROWS)
    return tmp_path


@pytest.fixture
def error_of(folder: Path) -> Iterator[ErrorOf]:
    """Runs `hir run` with these arguments and returns its error message; asserts that it does nothing else."""

    def run(*arguments: str) -> str:
        before = files(folder)
        result = CliRunner().invoke(app, ["run", *(arguments or ["tiny.yaml"])])
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("error: ")
        assert files(folder) == before
        return result.stderr

    return run


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def write_rows(rows: list[Any]) -> None:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


# --- the config ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("iteratons=3", "iteratons: unknown key; did you mean `iterations`?"),
        ("training.epochs=many", "training.epochs: expected a whole number (found 'many')"),
        ("iterations=true", "iterations: expected a whole number (found True)"),
        ("training.learning_rate=true", "training.learning_rate: expected a number (found True)"),
        (
            "training.micro_batch_size=8",
            "training.micro_batch_size: unknown key; micro-batches are limited by their tokens: set `micro_batch_tok",
        ),
        ("model.dtype=bf16", "model.dtype: unknown key; the precision is that of the file that `deepspeed` names"),
        (
            "model.attention=flash",
            "model.attention: expected 'auto', 'eager', 'sdpa', 'flex_attention' or 'flash_attention_2'",
        ),
        ("model.attention=flash_attention_2", "model.attention: flash_attention_2 computes in bf16, and the DeepSpeed"),
        ("model.attention=flex_attention", "model.attention: flex_attention trains on GPUs only, and ranks run on CPU"),
        (
            "model={type: scratch, architecture: t5, attention: flex_attention}",
            "attention: an encoder-decoder cannot be trained with flex_attention: set it to auto",
        ),
        ("iterations", "expected key=value, found `iterations`; for example iterations=12"),
        ("launch.hostfile=hosts", "launch.hostfile: cannot read hosts: No such file or directory"),
        ("launch.processes=4096", "launch.processes asks for 4096 ranks, and this machine has"),
        ("deepspeed=ds/zero3.json", "deepspeed: no such file ds/zero3.json; did you mean `ds_configs/zero3.json`?"),
        ("reward={type: python, function: nowhere:score}", "nowhere"),
        ("prompts.0={type: synthetic, task: object_countin, size: 9}", "object_counting"),
        ("relabel={type: exclude_wrong, removed: 0.5, temperature: 1}", "probability is taken away: set one of them"),
        ("relabel={type: exclude_wrong, removed: 0}", "relabel.removed: expected more than 0"),
        ("sampling.engine=vlm", "sampling.engine.type: expected one of transformers, vllm (found 'vlm'); did you mean"),
        ("sampling.engine=vllm", "sampling.engine: expected settings as `key: value` (found 'vllm')"),
        ("sampling.engine={type: vllm, python: p, release: newest}", "release: expected the number of a release, such"),
        (f"sampling.engine={VLLM}", "sampling.engine.python: cannot run no/python: No such file or directory"),
        (f"sampling={{engine: {VLLM}, top_p: 0.9, min_p: 0.1}}", "vLLM applies min_p before top_p, so that the two"),
        (f"sampling={{engine: {VLLM}, top_k: 9, min_p: 0.1}}", "sampling.engine.python: cannot run no/python"),
    ],
)
def test_a_wrong_setting(change: str, message: str, error_of: ErrorOf) -> None:
    assert message in error_of("tiny.yaml", change)


def test_a_missing_config_is_reported_with_the_nearest_and_the_shipped_ones(error_of: ErrorOf) -> None:
    assert "no such config: tinny.yaml; did you mean `tiny.yaml`?" in error_of("tinny.yaml")
    assert "did you mean `quickstart`?" in (message := error_of("quikstart"))
    assert "a shipped recipe (" in message


def test_run_refuses_a_comparison_and_compare_refuses_a_run(error_of: ErrorOf) -> None:
    assert "four_tasks.yaml is a comparison and no single run: start it with `hir compare`" in error_of(
        "comparisons/four_tasks"
    )
    result = CliRunner().invoke(app, ["compare", "quickstart"])
    assert result.exit_code == 2
    assert "quickstart.yaml is a single run and no comparison: start it with `hir run`" in result.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"zero_optimization": {"stage": 3, "reduce_bucket_size": "auto"}},
            'contains "auto" in `zero_optimization`, which hir does not replace',
        ),
        ({"train_batch_size": 8}, "sets `train_batch_size`, which training.batch_size decides: remove it"),
    ],
)
def test_a_wrong_deepspeed_file(settings: dict[str, Any], message: str, error_of: ErrorOf) -> None:
    Path("ds.json").write_text(json.dumps(settings))
    assert message in error_of("tiny.yaml", "deepspeed=ds.json")


def test_a_model_folder_without_a_model(error_of: ErrorOf) -> None:
    assert "no model folder: it has no config.json" in error_of("tiny.yaml", "model={source: ./models/mine}")
    Path("empty").mkdir()
    assert "no model folder: it has no config.json" in error_of("tiny.yaml", "model={source: ./empty}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.architecture=t5", "sampling.engine: vLLM has no encoder-decoder models: set it to transformers"),
        ("lora={}", "sampling.engine: vLLM samples from whole models, and with `lora` a version is an adapter: set it"),
        (
            "launch.hostfile=hosts",
            "sampling.engine: vLLM samples on one machine, and launch.hostfile names others: set",
        ),
    ],
)
def test_what_vllm_cannot_do(change: str, message: str, error_of: ErrorOf) -> None:
    assert message in error_of("tiny.yaml", f"sampling.engine={VLLM}", change)


# --- the prompts ---


def test_a_missing_prompts_file(error_of: ErrorOf) -> None:
    message = error_of("tiny.yaml", "prompts.0.path=mine.jsonl")
    assert "no such file mine.jsonl (looked in" in message


def test_a_malformed_line_is_named(error_of: ErrorOf) -> None:
    Path("rows.jsonl").write_text('{"query": "1 and 1?", "references": ["2"]}\n{"query": \n')
    assert "rows.jsonl line 2 is not JSON" in error_of()


def test_a_row_without_a_query(error_of: ErrorOf) -> None:
    write_rows([*ROWS, {"qery": "2 and 2?"}])
    message = error_of()
    assert "rows.jsonl line 21: expected a `query`, found qery: rename `qery`" in message


def test_a_prompt_without_a_reference_that_exact_match_needs(error_of: ErrorOf) -> None:
    write_rows([*ROWS, {"query": "Why?"}])
    assert "reference" in error_of()


@pytest.mark.parametrize("rows", [[], [{"query": " ", "references": ["2"]}]], ids=["no rows", "blank rows"])
def test_an_empty_set_of_prompts(rows: list[Any], error_of: ErrorOf) -> None:
    write_rows(rows)
    assert "no prompts in rows.jsonl" in error_of()


@pytest.mark.parametrize("content", ["", "[]"], ids=["no byte", "an empty list"])
def test_an_empty_file_among_others_is_named(content: str, error_of: ErrorOf) -> None:
    Path("more.json").write_text(content)
    message = error_of("tiny.yaml", "prompts=[{path: rows.jsonl, test_share: 0.3}, {path: more.json}]")
    assert message == "error: prompts: no prompts in more.json: add rows, or leave it out\n"


def test_a_question_that_is_null(error_of: ErrorOf) -> None:
    write_rows([*ROWS, {"query": None, "references": ["2"]}])
    assert "rows.jsonl line 21: `query` is null: write the question, or delete the row" in error_of()


def test_a_folder_in_the_place_of_a_file(error_of: ErrorOf) -> None:
    Path("more.jsonl").mkdir()
    assert "the folder more.jsonl has no .jsonl, .json, .parquet, .csv or .tsv file" in error_of(
        "tiny.yaml", "prompts=[{path: more.jsonl}]"
    )


def test_no_prompts_to_test_on(error_of: ErrorOf) -> None:
    assert "no test prompts among 20" in error_of("tiny.yaml", "prompts.0.test_share=0")


def test_the_same_prompt_twice(error_of: ErrorOf) -> None:
    write_rows([*ROWS, ROWS[4]])
    message = error_of()
    assert "line 21 is the same prompt as" in message
    assert "line 5" in message
    assert "more" not in message
    write_rows([*ROWS, *ROWS[4:9]])
    message = error_of()
    assert re.findall(r"line (\d+) is the same", message) == ["21", "22", "23"]
    assert "; and 2 more rows are repeated: keep one of each" in message


def test_a_folder_in_the_place_of_a_file_is_called_one(error_of: ErrorOf) -> None:
    Path("folder").mkdir()
    assert "folder is a folder, and no config" in error_of("folder")
    assert "deepspeed: folder is a folder: name a file in it" in error_of("tiny.yaml", "deepspeed=folder")


# --- the run ---


def test_a_second_writer(folder: Path, error_of: ErrorOf) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert f"runs/tiny is being written by another process (pid {holder.pid} on" in error_of()
        holder.communicate()


HOLD_THE_LOCK = """
import sys
from pathlib import Path
from hir_core.store.store import Store
with Store(Path("runs/tiny")).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_neither_prefect_nor_torch_is_imported_to_report_a_mistake(folder: Path) -> None:
    source = """
import sys
from flows.cli.app import app
try:
    app(["run", "tiny.yaml", "prompts.0.path=mine.jsonl"])
finally:
    print(sorted({"prefect", "torch", "transformers", "deepspeed"} & set(sys.modules)))
"""
    ended = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, cwd=folder, timeout=PATIENCE_S
    )
    assert (ended.returncode, ended.stdout) == (2, "[]\n")
    assert ended.stderr.startswith("error: prompts: no such file mine.jsonl")
    assert ended.stderr.count("\n") == 1


# --- output that nobody reads ---


@pytest.mark.parametrize(("reader", "code"), [("head -1", 141), ("true", 141), ("cat", 0)])
def test_a_closed_pipe_ends_a_command_without_a_message(folder: Path, reader: str, code: int) -> None:
    for n in range(300):  # more than a pipe holds
        folder.joinpath("runs", f"run-{n:03d}-{'x' * 200}", "prompts").mkdir(parents=True)
    line = f"{sys.executable} -c 'from flows.cli.app import app; app()' ls | {reader}; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=folder, timeout=PATIENCE_S)
    assert (ended.returncode, ended.stderr) == (code, "")


def test_a_full_disk_is_reported(folder: Path) -> None:
    line = f"{sys.executable} -c 'from flows.cli.app import app; app()' ls > /dev/full"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=folder, timeout=PATIENCE_S)
    message = "No space left on device: make room; nothing that was committed is lost, and the same command continues"
    assert (ended.returncode, ended.stderr) == (1, f"error: {message}\n")


# --- what only a launch can find ---


def hir(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from flows.cli.app import app; app()", *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PREFECT_HOME": str(folder.parent / "prefect"), **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=PATIENCE_S)


def versions(folder: Path) -> list[str]:
    return sorted({ref.stage for ref in Store(folder / "runs" / "tiny").versions()})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "code", "message", "committed"),
    [
        (["model.context=16"], 2, "more than the context of 16: shorten the prompts", ["prompts"]),
        (["model={source: nobody/nothing}"], 2, "model.source: cannot load `nobody/nothing`", ["prompts"]),
        (
            ["training.logprob_tolerance=1e-30", "model.hidden_size=64", "sampling.k=4", "sampling.max_new_tokens=8"],
            1,
            "more than training.logprob_tolerance=1e-30: other weights, attention mask or prompt",
            ["evaluations", "models", "prompts", "rewards", "samples", "triples"],
        ),
    ],
    ids=["a prompt longer than the context", "a model that is not on the hub", "weights that differ"],
)
def test_a_mistake_that_a_launch_finds(
    changes: list[str], code: int, message: str, committed: list[str], folder: Path, prefect_home: Path
) -> None:
    ended = hir(folder, "run", "tiny.yaml", *changes, PREFECT_HOME=str(prefect_home))
    assert ended.returncode == code, ended.stdout
    assert message in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1, "one message, no traceback, nothing of Prefect's"
    assert versions(folder) == committed
