"""The command line: what `hir ls`, `hir show` and `hir run` print about a run whose versions were made by hand."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows.cli.app import app
from flows.cli.run import next_commands
from flows.terminal.formatting import accuracy, duration, folded, printable, size
from flows.terminal.run_table import COLUMNS, RunTable, fitting_columns, headline
from flows.terminal.version_list import describe_versions, metric_text, versions_text
from hir_core.config.load import parse_config
from hir_core.progress import Progress
from hir_core.schemas import Evaluations, Samples
from hir_core.stages.identity import Scored
from hir_core.stages.prompts import load, save_prompts
from hir_core.stages.relabel import relabel_samples
from hir_core.stages.run import Run
from hir_core.stages.score import score_samples
from hir_core.stages.train import Outputs
from hir_core.store.manifest import Identity, Manifest, identity
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

ROW = {"query": "1 and 1?", "references": ["2"], "split": "train"}
TEST_ROW = {"query": "1 and 2?", "references": ["3"], "split": "test"}
SUMMARY = {"accuracy": 0.41, "low": 0.375, "high": 0.446, "majority_baseline": 0.3, "items": 600}
NASTY = "two\nlines \x1b[31mred\x1b[0m \u202eback"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of one iteration in `runs/tiny`, complete, without a launch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    Path("rows.jsonl").write_text(f"{json.dumps(ROW)}\n{json.dumps(TEST_ROW)}\n")
    return make_run("tiny")


def prompts_of(run: Run) -> VersionRef:
    return save_prompts(run, load(run))


def make_run(name: str) -> Run:
    settings = {
        "run": name,
        "iterations": 1,
        "model": {"type": "scratch"},
        "prompts": [{"path": "rows.jsonl"}],
        "reward": {"type": "exact_match"},
        "relabel": {"type": "hindsight"},
        "deepspeed": "ds_configs/zero3.json",
    }
    return Run(parse_config(settings))


@pytest.fixture
def outputs(run: Run) -> list[Outputs]:
    """The outputs of the run's two launches."""
    first = launched(run, 0, None, None)
    rewards = score_samples(run, prompts_of(run), first.samples)
    triples = relabel_samples(run, prompts_of(run), [Scored(first.samples, rewards)])
    return [first, launched(run, 1, triples, first.model)]


def launched(run: Run, iteration: int, triples: VersionRef | None, previous: VersionRef | None) -> Outputs:
    prompts = prompts_of(run)
    trained = {"loss": 1.25, "tokens_per_s": 1234.5, "seconds": 30.0, "steps": 60} if previous else {}
    parents = [str(ref) for ref in (prompts, triples, previous) if ref]
    draft = run.store.draft(identity("models", iteration, {}, parents))
    (draft.path / "config.json").write_text("{}")
    model = draft.commit(metrics=trained)
    tasks = {"counting": SUMMARY, "counting (bbh)": {**SUMMARY, "accuracy": 0.1 + iteration / 10}}
    metrics = {
        "overall": {**SUMMARY, "tasks": list(tasks)},
        "tasks": tasks,
        "weights": "every rank holds the whole weights",
    }
    evaluation = commit(
        run.store, identity("evaluations", iteration, {"threshold": 1.0}, [str(model)]), answers(), metrics
    )
    samples = None
    if previous is None:
        facts = {"tokens_per_s": 5218.4, "weights": "weights gathered once (0.3 of 80 GB)"}
        of_samples = identity("samples", 1, {}, [str(prompts), str(model)])
        samples = commit(run.store, of_samples, drawn_samples(run.table(prompts)), facts)
    return Outputs(model, evaluation, samples)


def commit(store: Store, version: Identity, rows: pl.DataFrame, metrics: dict[str, Any]) -> VersionRef:
    draft = store.draft(version)
    draft.write("0", rows)
    return draft.commit(rows_in=rows.height, metrics=metrics)


def answers() -> pl.DataFrame:
    row = {"prompt_id": "p", "model": "m", "task": "t", "instruction": "i", "completion": NASTY, "finish_reason": "eos"}
    return pl.DataFrame([{**row, "outcome": "scored", "score": 1.0}], schema=Evaluations.create_empty().schema)


def drawn_samples(prompts: pl.DataFrame) -> pl.DataFrame:
    row = {
        "sample_id": "s",
        "prompt_id": prompts.filter(split="train")["prompt_id"][0],
        "model": "m",
        "instruction": "i",
        "k": 0,
        "prompt_ids": list(range(50)),
        "completion": "3",
        "completion_ids": [7],
        "logprobs": [-1.5],
        "finish_reason": "length",
        "seed": 1,
    }
    return pl.DataFrame([row], schema=Samples.create_empty().schema)


def hir(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result.stderr if code else result.stdout


# --- ls --------------------------------------------------------------------------------------------------------------


def test_ls_without_a_run_says_how_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hir("ls") == "no runs in runs: start one with `hir run quickstart`\n"
    assert json.loads(hir("ls", "--json")) == []
    assert list(tmp_path.iterdir()) == []


def test_ls_lists_every_run(outputs: list[Outputs]) -> None:
    prompts_of(make_run("other"))
    header, other, tiny = hir("ls").splitlines()
    assert header.split() == ["run", "iterations", "accuracy", "[95", "%]", "size", "changed"]
    assert other.split()[:3] == ["other", "–", "–"]
    assert tiny.split()[:5] == ["tiny", "1", "0.410", "[0.375,", "0.446]"]


def test_ls_of_a_run_lists_its_versions_in_the_order_of_the_loop(outputs: list[Outputs]) -> None:
    lines = hir("ls", "tiny").splitlines()[1:]
    listed = [(line.split()[0], line.split()[1].split("/")[0]) for line in lines]
    assert listed == [
        ("0", "prompts"),
        ("0", "models"),
        ("0", "evaluations"),
        ("1", "samples"),
        ("1", "rewards"),
        ("1", "triples"),
        ("1", "models"),
        ("1", "evaluations"),
    ]


@pytest.mark.parametrize(
    ("stage", "metric"),
    [
        ("samples", "tokens per s 5,218"),
        ("rewards", "correct share 0.000"),
        ("triples", "100% wrong"),
        ("models", "loss 1.250"),
        ("evaluations", "accuracy 0.410 [0.375, 0.446]"),
    ],
)
def test_ls_shows_the_metric_that_matters_of_each_stage(stage: str, metric: str, outputs: list[Outputs]) -> None:
    assert any(f" {stage}/0001-" in line and line.endswith(metric) for line in hir("ls", "tiny").splitlines())


def test_ls_fits_into_a_narrow_terminal(outputs: list[Outputs]) -> None:
    versions = describe_versions(Path("runs/tiny"))
    wide = versions_text(versions)
    assert versions_text(versions, max(map(len, wide))) == wide
    narrow = versions_text(versions, 80)
    assert max(map(len, wide)) > 80 >= max(map(len, narrow))
    assert narrow[0].split() == ["iteration", "version", "rows", "age"]
    assert [line.split()[1] for line in narrow] == [line.split()[1] for line in wide]


def test_ls_names_the_most_frequent_instructions_and_counts_the_others() -> None:
    shares = {"wrong": 0.15, "a": 0.5, "b": 0.04, "correct": 0.3, "c": 0.01}
    assert metric_text("triples", {"instructions": shares}) == "15% wrong · 50% a · 30% correct · 2 more"
    assert (
        metric_text("triples", {"instructions": {"correct": 1.0}, "ruled_out": 1200})
        == "100% correct · 1,200 ruled out"
    )
    assert metric_text("triples", {"ruled_out": 2}) == "2 ruled out"


def test_ls_of_several_runs_puts_the_run_in_front(outputs: list[Outputs]) -> None:
    prompts_of(make_run("other"))
    names = [line.split()[1].split("/")[:2] for line in hir("ls", "tiny", "other").splitlines()[1:]]
    assert names[0] == ["tiny", "prompts"]
    assert names[-1] == ["other", "prompts"]


def test_ls_reads_no_data(run: Run, outputs: list[Outputs]) -> None:
    before = hir("ls", "tiny", "--json")
    for part in run.config.run_dir.rglob("part-*.parquet"):
        part.unlink()
    assert hir("ls", "tiny", "--json") == before


def test_ls_as_json_has_the_facts_of_the_manifests(run: Run, outputs: list[Outputs]) -> None:
    facts = {(version["stage"], version["iteration"]): version for version in json.loads(hir("ls", "tiny", "--json"))}
    triples = run.store.manifest(run.store.resolve("triples@1"))
    expected = {"rows": 1, "rejected": 0, "created": triples.created, "bytes": triples.parts[0].bytes}
    assert {name: facts["triples", 1][name] for name in expected} == expected
    assert facts["triples", 1]["metric"] == {"instructions": {"wrong": 1.0}}
    assert facts["evaluations", 1]["metric"]["low"] == 0.375


def test_ls_lists_a_damaged_version_with_its_problem(outputs: list[Outputs]) -> None:
    (outputs[1].evaluation.path / "manifest.json").write_text("{")
    assert "damaged: evaluations/0001-" in hir("ls", "tiny")
    assert hir("ls").splitlines()[1].split()[:3] == ["tiny", "1", "–"]


def test_an_unknown_run_is_an_error_that_lists_the_existing_runs(outputs: list[Outputs]) -> None:
    assert hir("ls", "tny", code=2) == "error: no run `tny` in runs; runs holds tiny\n"


def test_where_there_is_no_run_every_command_says_how_to_make_one(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["show", "samples@1"], ["row", "0a"], ["verify"], ["sql", "select 1"]):
        assert hir(*command, code=2) == "error: runs holds no run: `hir run quickstart` makes one\n"


def test_the_version_of_hir_is_printed() -> None:
    assert hir("--version").split()[0] == "hir"


# --- show ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["samples@1", "samples@latest", "tiny/samples@1", "samples/{id}", "tiny/samples/{id}", "runs/tiny/samples/{id}/"],
)
def test_a_version_is_found_by_every_name_it_has(name: str, outputs: list[Outputs]) -> None:
    samples = outputs[0].samples
    assert samples is not None
    assert hir("show", name.format(id=samples.id)).startswith(f"{samples} of tiny · iteration 1\n")


def test_where_there_are_several_runs_one_must_be_named(outputs: list[Outputs]) -> None:
    prompts_of(make_run("other"))
    message = hir("show", "samples@1", code=2)
    assert message.startswith("error: `samples@1` could be of several runs; runs holds other, tiny; ")
    assert message.endswith("put one in front, as in other/samples@1\n")
    assert hir("show", "tiny/samples@1")


def test_a_row_is_found_in_whichever_run_holds_it(outputs: list[Outputs]) -> None:
    other = make_run("other")
    shared = other.table(prompts_of(other))["prompt_id"][0]
    samples = outputs[0].samples
    assert samples is not None
    sample_id = Store(Path("runs/tiny")).table(samples).collect()["sample_id"][0]
    for command in ("row", "trace"):
        assert hir(command, sample_id) == hir(command, f"tiny/{sample_id}")
        message = hir(command, shared, code=2)
        assert message == f"error: 2 runs hold `{shared}`: other, tiny; put one in front, as in other/{shared}\n"
        assert hir(command, "nothing", code=2).startswith("error: no row of other, tiny has the key `nothing`; ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonsense", "`nonsense` names no version: expected stage@iteration"),
        ("samples@7", "no version `samples@7` in runs/tiny; there is samples/0001-"),
        ("samples@x", "`samples@x` names no version"),
        ("none/samples@1", "no run `none` in runs; runs holds tiny"),
        ("sample@1", "did you mean `samples`?"),
        ("runs/samples@1", "`runs` is a folder without versions, so no run: runs holds tiny"),
    ],
)
def test_a_name_that_names_nothing_says_what_there_is(name: str, message: str, outputs: list[Outputs]) -> None:
    assert message in hir("show", name, code=2)


def test_show_prints_manifest_columns_and_rows(outputs: list[Outputs]) -> None:
    shown = " ".join(hir("show", "triples@1").split())
    for text in (
        "parents prompts/0000-",
        "rows 1 in = 1 rows + 0 rejected",
        "relabel.threshold 1",
        "code hir ",
        "part-0.parquet",
        "sha256 ",
        "target_ids list[int32]",
        "row 1 triple_id",
        "instruction Generate a wrong answer to this problem.",
    ):
        assert text in shown


def test_show_lists_every_column_also_where_all_of_it_is_null(run: Run, outputs: list[Outputs]) -> None:
    prompts = run.store.resolve("prompts@0")
    assert pl.concat(map(pl.read_parquet, run.store.parts(prompts)))["history"].null_count() > 0
    (line,) = (line for line in hir("show", str(prompts), "--rows", "0").splitlines() if line.startswith("  history "))
    assert line.split() == ["history", "list[struct[role", "string|content", "string]]"]
    assert (
        "history list[struct[role string|content string]]"
        in json.loads(hir("show", str(prompts), "--json"))["table_schema"]
    )


def test_show_lets_nothing_in_a_text_act_on_the_terminal(outputs: list[Outputs]) -> None:
    shown = hir("show", "evaluations@1")
    assert r"two\nlines \x1b[31mred\x1b[0m \u202eback" in shown
    assert "\x1b" not in shown


def test_show_prints_as_many_rows_as_requested(outputs: list[Outputs]) -> None:
    assert "row 1" not in hir("show", "samples@1", "--rows", "0")
    assert "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, … (50 in all)]" in hir("show", "samples@1", "--rows", "1")


def test_show_as_json_has_the_manifest_and_whole_rows(outputs: list[Outputs]) -> None:
    facts = json.loads(hir("show", "evaluations@1", "--json"))
    assert (facts["stage"], facts["run"], facts["rows"]) == ("evaluations", "tiny", 1)
    assert facts["first_rows"][0]["completion"] == NASTY


def test_show_of_a_model_has_files_and_no_rows(outputs: list[Outputs]) -> None:
    shown = hir("show", "models@1")
    assert "config.json · 2 B · sha256 " in shown
    assert "row 1" not in shown


def test_show_refuses_rows_that_are_not_what_was_written(outputs: list[Outputs]) -> None:
    with (outputs[1].evaluation.path / "part-0.parquet").open("ab") as file:
        file.write(b"x")
    assert "differs from its manifest" in hir("show", "evaluations@1", code=1)


def test_commands_that_inspect_import_neither_prefect_nor_torch(outputs: list[Outputs]) -> None:
    source = """
import sys
from flows.cli.app import app
ref = ["samples@1"]
commands = {"ls": [], "show": ref, "head": [*ref, "--seed", "1"], "row": ["s"], "trace": ["s"], "stats": ref}
commands |= {"diff": ref * 2, "sql": ["from samples"], "path": ref, "export": [*ref, "x", "--to", "csv"], "verify": [],
             "report": []}
codes = {}
for command, arguments in commands.items():
    try:
        app([command, *arguments])
    except SystemExit as end:
        codes[command] = end.code
print({command for command, code in codes.items() if code}, {"prefect", "torch"} & set(sys.modules))
"""
    ended = subprocess.run([sys.executable, "-c", source], text=True, capture_output=True)
    assert (ended.stdout.splitlines()[-1], ended.stderr) == ("{'verify'} set()", "")  # the tables here name no parents


def test_ls_of_a_thousand_versions_takes_less_than_half_a_second(tmp_path: Path) -> None:
    for iteration in range(1000):
        version = identity("samples", iteration, {}, [])
        folder = tmp_path / "samples" / version.id
        folder.mkdir(parents=True)
        facts = {"id": version.id, "code_version": "0", "created": "2026-01-01T00:00:00+00:00", "parts": (), "rows": 0}
        (folder / "manifest.json").write_text(json.dumps(Manifest.sealed(**version.model_dump(), **facts).model_dump()))
    started = time.process_time()
    assert len(versions_text(describe_versions(tmp_path))) == 1001
    assert time.process_time() - started < 0.5


# --- run -------------------------------------------------------------------------------------------------------------


def shown(run: Run, outputs: list[Outputs], act: Callable[[RunTable], None] = lambda _: None) -> list[str]:
    """What the table prints where there is no terminal."""
    console = Console(file=io.StringIO(), width=80, markup=False, highlight=False, soft_wrap=True)
    with RunTable(run.store, console) as table:
        act(table)
        table.add_row(outputs[0], score_samples(run, prompts_of(run), outputs[0].samples))
        table.add_row(outputs[1])
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_table_stays_aligned_in_80_columns(run: Run, outputs: list[Outputs]) -> None:
    lines = shown(run, outputs)
    start = next(place for place, line in enumerate(lines) if line.startswith("model "))
    assert lines[start - 1 : start + 3] == [
        "                           majority correct             sampled trained",
        "model      accuracy [95 %] baseline samples  used  loss   tok/s   tok/s   time",
        "    0 0.410 [0.375, 0.446]    0.300   0.000     –     –   5,218       –      –",
        "    1 0.410 [0.375, 0.446]    0.300       – 1.000 1.250       –   1,234      –",
    ]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (39, "model accuracy time"),
        (60, "model accuracy baseline samples loss time"),
        (75, "model accuracy baseline samples used loss tok/s time"),
        (80, "model accuracy baseline samples used loss tok/s tok/s time"),
        (10, "model accuracy time"),
        (None, "model accuracy baseline samples used loss tok/s tok/s time"),
    ],
)
def test_the_table_leaves_out_what_a_narrow_terminal_has_no_room_for(columns: int | None, names: str) -> None:
    assert " ".join(COLUMNS[n][1].split()[0] for n in fitting_columns(columns)) == names


def test_batches_that_were_halved_are_told_below_the_model(
    run: Run, outputs: list[Outputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    told, manifest = (
        "memory ran out, so batches were halved to 3 rows: set sampling.batch_tokens=96",
        run.store.manifest,
    )

    def with_halved_batches(ref: VersionRef) -> Manifest:
        found = manifest(ref)
        more = {"smaller_batches": told} if ref.stage == "samples" else {"smaller_batches": None}
        return found.model_copy(update={"metrics": {**found.metrics, **more}})

    monkeypatch.setattr(run.store, "manifest", with_halved_batches)
    lines = shown(run, outputs)
    assert [line.strip() for line in lines if "memory ran out" in line] == [f"samples: {told}"]


def test_outputs_that_were_cut_off_are_told_below_the_model(
    run: Run, outputs: list[Outputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = run.store.manifest

    def with_cut_off(ref: VersionRef) -> Manifest:
        found = manifest(ref)
        if ref.stage not in ("samples", "evaluations"):
            return found
        settings = {"max_new_tokens": 32, "sampling": {"max_new_tokens": 32}}
        counted = {**found.metrics, "cut_off": found.rows}
        return found.model_copy(update={"metrics": counted, "config": {**found.config, **settings}})

    monkeypatch.setattr(run.store, "manifest", with_cut_off)
    lines = [line for line in shown(run, outputs) if "cut off" in line]
    assert "      samples: 100% cut off at 32 tokens: raise sampling.max_new_tokens" in lines
    assert "      evaluations: 100% cut off at 32 tokens: raise max_new_tokens" in lines
    assert all(len(line) <= 80 for line in lines)


def test_how_the_weights_are_held_for_sampling_is_printed(run: Run, outputs: list[Outputs]) -> None:
    assert "sampling: weights gathered once (0.3 of 80 GB)" in shown(run, outputs)


def test_several_tasks_have_their_accuracy_before_and_after(run: Run, outputs: list[Outputs]) -> None:
    lines = shown(run, outputs)
    assert "        counting (bbh)  0.100 → 0.200 [0.375, 0.446]   majority 0.300, 600 items" in lines


def test_a_run_that_is_complete_says_that_there_is_nothing_to_do(run: Run, outputs: list[Outputs]) -> None:
    assert "nothing to do: model 1 and its evaluation are there" in shown(run, outputs)


@pytest.mark.parametrize(("contrast", "lines"), [(0.69, 1), (0.3, 0)])
def test_a_model_that_does_not_tell_the_instructions_apart_is_named(
    run: Run, outputs: list[Outputs], contrast: float, lines: int
) -> None:
    triples = run.store.draft(identity("triples", 1, {"relabel": "of two"}, []))
    triples.write("0", run.table(run.store.resolve("triples@1")))
    relabeled = triples.commit(rows_in=1, metrics={"instructions": {"right": 1, "wrong": 1}, "contrasted": 2})
    training = {"training": {"contrast": "instructions", "contrastive": 1.0}}
    draft = run.store.draft(identity("models", 2, training, [str(relabeled), str(outputs[0].model)]))
    (draft.path / "config.json").write_text("{}")
    third = Outputs(draft.commit(metrics={"contrastive": contrast}), outputs[1].evaluation, None)
    warnings = [line for line in shown(run, [outputs[0], third]) if "hardly distinguishes the two instructions" in line]
    assert len(warnings) == lines
    assert all(len(line) <= 80 for line in warnings)


def test_a_run_that_made_something_does_not_say_so(run: Run, outputs: list[Outputs]) -> None:
    def make(_: RunTable) -> None:
        commit(run.store, identity("evaluations", 9, {}, []), answers(), {})

    assert not any("nothing to do" in line for line in shown(run, outputs, make))


def test_plain_lines_of_progress_come_after_a_silence_only(
    run: Run, outputs: list[Outputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(table: RunTable) -> None:
        table.show_progress(Progress("train", 1, 60, "steps", seconds=1.0, loss=2.5))
        monkeypatch.setattr("flows.terminal.progress_bar.SILENCE_S", 0.0)
        table.show_progress(Progress("train", 2, 60, "steps", tokens=100, seconds=2.0, loss=2.25))

    lines = [line for line in shown(run, outputs, report) if "training" in line]
    assert lines == ["  training model 0: 2 of 60 steps · 50 tok/s · loss 2.250 · 58 s left"]


def test_the_headline_says_what_runs_where(run: Run) -> None:
    assert headline(run.config) == "tiny · 1 iteration · 1 process on CPU · ZeRO-3 bf16 · runs/tiny"


@pytest.mark.parametrize(
    ("name", "changes", "again"),
    [
        ("tiny.yaml", [], "hir run tiny.yaml iterations=2"),
        ("tiny.yaml", ["iterations=1", "seed=2"], "hir run tiny.yaml seed=2 iterations=2"),
        ("iterations=1", [], "hir run quickstart iterations=2"),
    ],
)
def test_what_to_type_next_continues_the_same_run(name: str, changes: list[str], again: str, run: Run) -> None:
    commands = next_commands(run.config, name, changes).split(" · ")
    assert commands == ["hir ls tiny", "hir chat tiny", again]


# --- formatting ------------------------------------------------------------------------------------------------------


def test_sizes_times_and_accuracies_are_short() -> None:
    assert [size(999), size(117_450), size(2_500_000_000)] == ["999 B", "117.5 kB", "2.5 GB"]
    assert [duration(9), duration(150), duration(6 * 3600), duration(9 * 86400)] == ["9 s", "2 min", "6 h", "9 d"]
    assert accuracy(SUMMARY) == "0.410 [0.375, 0.446]"
    assert accuracy({}) == "–"


def test_a_long_text_is_folded_and_the_rest_counted() -> None:
    assert folded("ab" * 30, 10) == ["ababababab"] * 4 + ["… (20 more characters)"]
    assert folded("", 10) == [""]


def test_what_is_not_printable_is_escaped() -> None:
    assert printable("é 日本 \t\x07\ud800") == "é 日本 \\t\\x07\\ud800"
