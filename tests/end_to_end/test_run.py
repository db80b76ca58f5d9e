"""The real command, with real launches: every kind of model, reward, relabeler, launcher and ZeRO stage runs."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import polars as pl
import pytest
import yaml
from cli_run import (
    CORES,
    PATIENCE_S,
    TINY,
    assert_same_content,
    command,
    digests,
    environment,
    hir,
    manifest,
    write_config,
)
from report_page import Page
from two_hosts import ADDRESSES, two_hosts, why_not

from hir_core.inspect.comparison import read_results
from hir_core.store.store import Store

pytestmark = pytest.mark.slow
METHODS = ["chain", "constraints", "attributes"]
needs_two_cores = pytest.mark.skipif(CORES < 2, reason="needs two usable cores")


@dataclass
class Call:
    """One call of `hir run`: what it printed, and the committed files after it."""

    output: str
    files: dict[str, str]

    @property
    def rows(self) -> dict[int, str]:
        """The printed table: a model's number, and its accuracy with interval."""
        return {int(n): text for n, text in re.findall(r"^ +(\d+) (\d\.\d{3} \[.*?\])", self.output, re.MULTILINE)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def calls(folder, prefect_home, tmp_path_factory) -> list[Call]:
    """The same config four times: as it is, again, with one more iteration, with another learning rate.

    The first call starts a Prefect server of its own, as a call does where none is set.
    """
    write_config(folder)
    found, home = [], tmp_path_factory.mktemp("prefect")
    for changes in ([], [], ["iterations=2"], ["training.learning_rate=0.002"]):
        output = hir(folder, home, "run", "tiny.yaml", *changes)
        if not found:
            shutil.copytree(folder / "runs/tiny", folder / "after the first call")
        home = prefect_home
        found.append(Call(output, digests(folder / "runs/tiny")))
    return found


# --- one run on two hosts --------------------------------------------------------------------------------------------


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "possible here")
def test_two_hosts_that_torchrun_starts_make_what_one_makes(folder, calls, tmp_path):
    """The hosts are network namespaces: they share the disk and a cable, over which gloo sums the gradients."""
    write_config(tmp_path, launch={"launcher": "external", "processes": 1})
    with two_hosts() as hosts:
        started = []
        for node, host in enumerate(ADDRESSES):
            place = ["--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}", f"--master-addr={ADDRESSES['near']}"]
            call = [sys.executable, "-m", "torch.distributed.run", *place, "--no-python", *command("run", "tiny.yaml")]
            with (tmp_path / f"{host}.txt").open("w") as said:
                options = {"env": environment(tmp_path / host), "cwd": tmp_path, "stdout": said, "stderr": said}
                started.append(hosts.on(host, call, **options))
        codes = [process.wait(PATIENCE_S) for process in started]
        assert codes == [0, 0], "".join((tmp_path / f"{host}.txt").read_text() for host in ADDRESSES)
        assert [hosts.processes(host) for host in ADDRESSES] == [[], []]
    assert_same_content(folder / "after the first call", tmp_path / "runs/tiny")
    assert manifest(tmp_path / "runs/tiny", "models@1")["metrics"]["save"]["made_with"]["ranks"] == 2


# --- one run, called again and again ---------------------------------------------------------------------------------


def test_a_run_prints_a_row_per_model_with_its_accuracy(calls, folder):
    assert list(calls[0].rows) == [0, 1]
    for iteration in (0, 1):
        facts = manifest(folder / "after the first call", f"evaluations@{iteration}")["metrics"]["overall"]
        assert calls[0].rows[iteration] == f"{facts['accuracy']:.3f} [{facts['low']:.3f}, {facts['high']:.3f}]"
    assert "runs/tiny/models/0001-" in calls[0].output


def test_the_same_call_again_says_nothing_to_do_and_changes_no_byte(calls):
    assert "nothing to do: model 1 and its evaluation are there" in calls[1].output
    assert calls[1].rows == calls[0].rows
    assert calls[1].files == calls[0].files


def test_where_nothing_is_to_do_no_server_is_asked(calls, folder, tmp_path):
    write_config(tmp_path)
    shutil.copytree(folder / "runs", tmp_path / "runs")
    program = "import sys; from flows.cli.app import app; app(standalone_mode=False); print('prefect' in sys.modules)"
    call = [sys.executable, "-c", program, "run", "tiny.yaml", "iterations=2"]
    nowhere = environment(tmp_path / "home") | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = subprocess.run(call, cwd=tmp_path, env=nowhere, capture_output=True, text=True, check=True)
    assert "nothing to do" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
    assert not (tmp_path / "home").exists()


def test_more_iterations_continue_where_the_run_ended(calls):
    new = {path.split("-")[0] for path in calls[2].files.keys() - calls[1].files.keys()}
    assert new == {f"{stage}/0002" for stage in ("samples", "rewards", "triples", "models", "evaluations")}
    assert calls[1].files.items() <= calls[2].files.items()
    assert calls[2].rows.items() >= calls[1].rows.items()


def test_another_learning_rate_forks_and_keeps_what_was_there(calls):
    new = {path.split("-")[0] for path in calls[3].files.keys() - calls[2].files.keys()}
    assert new == {"models/0001", "evaluations/0001"}
    assert calls[2].files.items() <= calls[3].files.items()


def test_every_call_leaves_a_report_of_the_model_that_it_ended_with(calls, folder):
    """The last call forked: its only iteration is the report's, though an older model has a higher number."""
    assert "report  runs/tiny/report.html" in calls[0].output
    shown = Page((folder / "runs/tiny/report.html").read_text())
    new = calls[3].files.keys() - calls[2].files.keys()
    (fork,) = {"/".join(path.split("/")[:2]) for path in new if path.startswith("models/0001-")}
    told = [row["version"] for row in shown.tables["All versions"] if row["version"].startswith("models/")]
    assert told[-1] == fork
    assert [row["iteration"] for row in shown.tables["Accuracy on unseen prompts"]] == ["0", "1"]
    software = {row["what"]: row["version"] for row in shown.tables["Software"]}
    assert software["torch"] == version("torch")
    assert software["ranks"] == "1"
    peaks = [row[step] for row in shown.tables["Memory"] for step in ("training", "evaluating")]
    assert len(peaks) == 4
    assert all(re.fullmatch(r"\d+\.\d [MG]B", peak) for peak in peaks)


def test_the_model_loads_with_plain_transformers_and_answers_as_the_table_says(calls, folder):
    from torch import inference_mode, tensor
    from transformers import AutoModelForCausalLM, AutoTokenizer

    store = Store(folder / "runs/tiny")
    place = store.resolve("models@2").path
    model, tokenizer = AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    end = tokenizer.eos_token_id

    def greedy(query: str) -> str:
        ids = tokenizer.encode(f"Generate a correct answer to this problem.\n{query}\n", add_special_tokens=False)
        answer: list[int] = []
        with inference_mode():
            while len(answer) < 4 and end not in answer:
                answer.append(int(model(tensor([ids + answer])).logits[0, -1].argmax()))
        return str(tokenizer.decode(answer, skip_special_tokens=True)).strip()

    prompts = pl.read_parquet(store.resolve("prompts@0").path / "part-*.parquet").filter(split="test")
    answered = pl.read_parquet(store.resolve("evaluations@2").path / "part-*.parquet")
    mine = {key: greedy(query) for key, query in prompts.select("prompt_id", "query").iter_rows()}
    assert mine == dict(answered.select("prompt_id", "completion").iter_rows())
    references = dict(prompts.select("prompt_id", "references").iter_rows())
    right = sum(text in references[key] for key, text in mine.items()) / len(mine)
    assert right == manifest(store.run_dir, "evaluations@2")["metrics"]["overall"]["accuracy"]
    assert 0 < right < 1, "this test says little about a model that is always right or always wrong"


# --- what else runs --------------------------------------------------------------------------------------------------


@needs_two_cores
def test_two_ranks_of_torchrun_under_zero_3_make_the_versions_that_one_makes_alone(
    tmp_path, prefect_home, calls, folder
):
    (tmp_path / "zero3.json").write_text('{"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}')
    write_config(tmp_path, deepspeed="zero3.json", launch={"launcher": "torchrun", "processes": 2})
    output = hir(tmp_path, prefect_home, "run", "tiny.yaml")
    assert "2 processes on CPU · ZeRO-3 fp32" in output
    alone = folder / "after the first call"
    assert len(Store(alone).versions()) == 9
    assert_same_content(alone, tmp_path / "runs/tiny")


# --- methods compared ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def comparison(tmp_path_factory, prefect_home) -> tuple[Path, str]:
    """Three relabelers on prompts that carry constraints, twice each: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("writing")
    dials = {"words": 4, "max_words": 3, "min_constraints": 2, "max_constraints": 2, "examples": True}
    source = {"type": "synthetic", "task": "constrained_writing", "size": 60, "test_share": 0.3, "dials": dials}
    write_config(folder, prompts=[source], model=TINY["model"] | {"context": 160}, reward={"type": "constraints"},
                 sampling={"k": 3, "max_new_tokens": 8, "temperature": 1.5})  # fmt: skip
    settings = {
        "compare": "three",
        "base": "tiny.yaml",
        "seeds": [0, 1],
        "tasks": {"writing": {}},
        "methods": {name: {"relabel": {"type": name}, "training": {"steps": 3}} for name in METHODS},
        "reference": "attributes",
    }
    (folder / "three.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return folder, hir(folder, prefect_home, "compare", "three.yaml")


def test_a_comparison_runs_every_arm_shares_what_it_can_and_says_who_won(comparison, prefect_home):
    work, output = comparison
    assert "| chain |" in output
    assert re.search(r"chain ends \d+\.\d points (ahead of|behind) attributes \[.*\] \(1 task, 2 seeds\)", output)
    folder = work / "runs/three"
    curves = pl.read_parquet(folder / "curves.parquet")
    assert curves.height == 2 * 3 * 2
    results = read_results(folder / "results.json")
    assert results.arms is not None
    assert [(arm.seed, arm.method, len(arm.curve)) for arm in results.arms] == [
        (seed, method, 2) for seed in (0, 1) for method in METHODS
    ]
    assert all(arm.model and arm.seconds and arm.made_with["torch"] == version("torch") for arm in results.arms)
    assert "on CPU, torch" in str(results.machine)
    assert set(curves.filter(pl.col("iteration") == 1)["steps"]) == {3}
    for seed in (0, 1):
        stages = [ref.stage for ref in Store(folder / f"writing-{seed}").versions()]
        assert (stages.count("samples"), stages.count("triples"), stages.count("models")) == (1, 4, 4)
    before = digests(folder / "writing-0")
    assert hir(work, prefect_home, "compare", "three.yaml").count("nothing to do") == 6
    assert digests(folder / "writing-0") == before


@pytest.mark.parametrize("relabeler", METHODS)
def test_what_a_relabeler_asks_in_hindsight_is_trained_on(relabeler, comparison):
    store = Store(comparison[0] / "runs/three/writing-0")
    tables = [store.table(ref).collect() for ref in store.versions("triples") if ref.iteration == 1]
    (triples,) = [table for table in tables if table["relabeler"].unique().to_list() == [relabeler]]
    asked = store.table(store.resolve("prompts@0")).collect()
    compared = triples.join(asked.select("prompt_id", asked="query"), on="prompt_id", validate="m:1")
    assert compared.height == triples.height > 0
    assert (compared["query"] == compared["asked"]).all() == (relabeler == "attributes")
