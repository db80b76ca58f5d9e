"""The relabeler `learned`: what a model writes is verified only where a rule or the policy confirms it.

Where the driver is tested, `play` stands in for the launches of the writer and the policy. Log-probabilities are
compared with a plain forward pass of `transformers`.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from cli_run import CORES, digests, hir, manifest, write_config
from fake_launch import folder_model, loop, ranks, row, versions, with_changes
from relabel_tables import prompts as some_prompts
from relabel_tables import tables
from zero_tables import STAGES, cpu_ranks, launch_cases, make_model, plain_logprobs

from flows.terminal.version_list import describe_versions, versions_text
from hir_core.config import HubModel, Instructions, LearnedRelabel, ScratchModel
from hir_core.config.load import parse_config
from hir_core.errors import ConfigError, JobFailed
from hir_core.launch.job_spec import JobSpec, LogprobStep, SampleStep
from hir_core.launch.rank import Rank
from hir_core.modeling import models
from hir_core.modeling.rendering import Renderer
from hir_core.relabelers.learned import writer_query, writing_demonstrations
from hir_core.relabelers.registry import build_relabeler
from hir_core.relabelers.verification import (
    EMPTY,
    GIVES_AWAY,
    NO_ROOM,
    NOT_LIKELIER,
    NOT_SCORED,
    OTHER_VERDICT,
    UNFINISHED,
    UNPARSABLE,
    UNSATISFIED,
    WrittenInstruction,
    verification_metrics,
    verify,
    verify_all,
)
from hir_core.schemas import Logprobs, Samples, Triples, WrittenInstructions, content_key
from hir_core.stages import run as run_module
from hir_core.store.files import list_parts, read_parts, write_part
from hir_core.store.store import Store
from hir_core.training.batches import BatchLayout
from hir_core.worker.job import Job
from hir_core.worker.logprobs import score_logprobs

OWN = Instructions(correct="Be right.", wrong="Be wrong.")
CPU = torch.device("cpu")


def claim(
    written: str | None, output: str = "8", right: bool = True, gain: float | None = None, **changes: Any
) -> WrittenInstruction:
    """A written instruction for an output of -2 nats per token when it was sampled, and `gain` more under it."""
    values = {"is_whole": True, "asked_logprob": -2.0, "logprob": None if gain is None else gain - 2.0} | changes
    return WrittenInstruction(written, output=output, is_correct=right, **values)


# --- checks ----------------------------------------------------------------------------------------------------------

TWO_SMALL = "Write exactly 2 words. Write in small letters only."


@pytest.mark.parametrize(
    ("written_instruction", "expected"),
    [
        (claim("Be right."), ("named", "Be right.", "")),
        (claim("  be  RIGHT\n"), ("named", "Be right.", "")),
        (claim("Be wrong.", right=False), ("named", "Be wrong.", "")),
        (claim("Be right.", right=False, gain=9.0), ("named", None, OTHER_VERDICT)),
        (claim("Be wrong.", gain=9.0), ("named", None, OTHER_VERDICT)),
        (claim(TWO_SMALL, "two figs", right=False), ("constraints", TWO_SMALL, "")),
        (claim(TWO_SMALL, "Two figs", gain=9.0), ("constraints", None, UNSATISFIED)),
        (claim("Write exactly 2 words. Sing.", "two figs", gain=9.0), ("constraints", None, UNPARSABLE)),
        (claim("Count them.", gain=0.5), ("logprob", "Count them.", "")),
        (claim("Count them.", right=False, gain=0.5), ("logprob", "Count them.", "")),
        (claim("Count them.", gain=0.0), ("logprob", None, NOT_LIKELIER)),
        (claim("Count them.", gain=-0.5), ("logprob", None, NOT_LIKELIER)),
        (claim("Count them."), ("logprob", None, NOT_SCORED)),
        (claim("Say 8.", gain=9.0), ("logprob", None, GIVES_AWAY)),
        (claim("Say: Eight figs!", "eight FIGS.", gain=9.0), ("logprob", None, GIVES_AWAY)),
        (claim("Count all 18 of them.", gain=0.5), ("logprob", "Count all 18 of them.", "")),
        (claim("Count them.", "?!", gain=0.5), ("logprob", "Count them.", "")),
        (claim(" \n", gain=9.0), (None, None, EMPTY)),
        (claim("Be right.", is_whole=False), (None, None, UNFINISHED)),
        (claim(None), (None, None, NO_ROOM)),
    ],
)
def test_what_was_written_is_verified_only_where_a_check_confirms_it(written_instruction, expected):
    assert tuple(verify(written_instruction, OWN, 0.0)) == expected


@pytest.mark.parametrize(("margin", "is_verified"), [(0.25, True), (0.5, False), (1.0, False)])
def test_an_output_must_gain_more_than_the_margin(margin, is_verified):
    assert (verify(claim("Count.", gain=0.5), OWN, margin).instruction is not None) == is_verified


def samples_to_write_about(*outputs: str, right: bool = True) -> pl.DataFrame:
    rows = [{"sample_id": f"s{n}", "completion": text, "logprobs": [-1.0, -3.0], "is_correct": right}
            for n, text in enumerate(outputs)]  # fmt: skip
    return pl.DataFrame(rows)


def written(texts: dict[str, str]) -> pl.DataFrame:
    facts = {"model": "m", "instruction": "i", "k": 0, "prompt_ids": [1], "completion_ids": [5], "logprobs": [-1.0],
             "finish_reason": "eos", "seed": 0}  # fmt: skip
    rows = [facts | {"sample_id": f"w{key}", "prompt_id": key, "completion": text} for key, text in texts.items()]
    return pl.DataFrame(rows, schema=Samples.create_empty().schema)


def logprob_rows(values: dict[str, float | None]) -> pl.DataFrame:
    rows = [{"sample_id": key, "logprob": value} for key, value in values.items()]
    return pl.DataFrame(rows, schema=Logprobs.create_empty().schema)


def test_every_sample_to_write_about_has_its_row():
    about = written({"s0": "Be right.", "s1": "Count.", "s2": "Guess."})
    rows = verify_all(
        samples_to_write_about("8", "8", "8", "8"), about, logprob_rows({"s1": -1.5, "s2": None, "s0": -9.0}), OWN, 0.0
    )
    WrittenInstructions.validate(rows)
    assert rows.select("sample_id", "written", "check", "instruction", "logprob", "asked_logprob", "reason").rows() == [
        ("s0", "Be right.", "named", "Be right.", -9.0, -2.0, ""),
        ("s1", "Count.", "logprob", "Count.", -1.5, -2.0, ""),
        ("s2", "Guess.", "logprob", None, None, -2.0, NOT_SCORED),
        ("s3", None, None, None, None, -2.0, NO_ROOM),
    ]
    assert verification_metrics([rows]) == {
        "asked": 4,
        "verified_share": 0.5,
        "verified_by_check": {"logprob": 1, "named": 1},
        "refused": {NO_ROOM: 1, NOT_SCORED: 1},
    }


# --- triples ---------------------------------------------------------------------------------------------------------


def relabeled(fallback: str) -> tuple[pl.DataFrame, dict[str, int]]:
    """Triples and rejects of three right samples and a wrong one, with what was written, and one without a score."""
    relabeler = build_relabeler(LearnedRelabel(type="learned", fallback=fallback), OWN)
    samples, rewards, prompts = tables(1.0, 1.0, 1.0, 0.0, None, completions=["a", "b", "c", "d", "e"])
    own = relabeler.judged(samples, rewards, prompts)
    assert own["sample_id"].to_list() == ["s0", "s1", "s2", "s3"]
    texts = {"s0": "Be right.", "s1": "Count.", "s2": "Be wrong.", "s3": "Be wrong."}
    instructions = verify_all(own, written(texts), logprob_rows({"s1": 0.0}), OWN, 0.0)
    triples, rejected = relabeler.relabel(samples, rewards, prompts, None, instructions)
    Triples.validate(triples)
    assert triples.height + sum(rejected.values()) == 5
    return triples.sort("sample_id"), rejected


def test_verified_instructions_are_trained_on_and_contrasted_with_the_one_asked():
    triples, rejected = relabeled("hindsight")
    assert triples.select("sample_id", "relabeler", "instruction", "contrast").rows() == [
        ("s0", "learned", "Be right.", ["Be wrong."]),
        ("s1", "learned", "Count.", ["Be right."]),
        ("s2", "hindsight", "Be right.", ["Be wrong."]),
        ("s3", "learned", "Be wrong.", ["Be right."]),
    ]
    assert rejected == {"cannot judge": 1}


def test_what_is_not_verified_may_be_left_out():
    triples, rejected = relabeled("reject")
    assert triples["sample_id"].to_list() == ["s0", "s1", "s3"]
    assert rejected == {"cannot judge": 1, f"written instruction not verified: {OTHER_VERDICT}": 1}


# --- showing how to write --------------------------------------------------------------------------------------------

LEARNED = LearnedRelabel(type="learned", query="{query}|{output}|{verdict}", shown=3)


def test_braces_in_a_query_or_an_output_are_text():
    assert writer_query(LEARNED, "{output}?", "{verdict}", False) == "{output}?|{verdict}|wrong"


def test_the_warm_start_shows_a_right_and_a_wrong_answer_of_each_chosen_prompt():
    train = pl.concat([some_prompts(2), some_prompts(4, references=("9",)).tail(2)])
    triples = writing_demonstrations(train, LEARNED, OWN, seed=0)
    Triples.validate(triples)
    assert Counter(triples["output"]) == {"Be right.": 3, "Be wrong.": 3}
    accepted = dict(train.select("query", "references").iter_rows())
    for query, output in triples.select("query", "output").iter_rows():
        asked_of, answer, verdict = query.split("|")
        assert (answer in accepted[asked_of]) == (verdict == "correct") == (output == "Be right.")
    assert triples.equals(writing_demonstrations(train.reverse(), LEARNED, OWN, seed=0))
    assert writing_demonstrations(train, LEARNED.model_copy(update={"shown": 0}), OWN, seed=0).is_empty()
    alike = writing_demonstrations(some_prompts(4), LEARNED, OWN, seed=0)
    assert alike["output"].to_list() == ["Be right."] * 3, "no prompt has another answer"


def test_showing_needs_enough_prompts(settings):
    with pytest.raises(ConfigError, match=r"relabel\.shown is 9, but there are only 8 train prompts"):
        loop(with_changes(settings, {"relabel": {"type": "learned", "shown": 9}}))
    with pytest.raises(ConfigError, match=r"relabel\.query: expected a text with \{output\}"):
        parse_config({**settings, "relabel": {"type": "learned", "query": "{query}"}})
    assert not Path("runs").exists()


# --- scoring --------------------------------------------------------------------------------------------------------


def scored(model: Any, tokenizer: Any, place: Path, **changes: Any) -> dict[str, float | None]:
    """The log-probabilities that the step scores for 13 outputs: two have no whole instruction, one is too long."""
    (place / "written").mkdir(parents=True, exist_ok=True)
    (place / "out").mkdir(exist_ok=True)
    write_part(place / "written", "0", written({key: f"say {'seven ' * n}" for n, key in enumerate(KEYS)}).with_columns(
        finish_reason=pl.when(pl.col("prompt_id") == "s03").then(pl.lit("length")).otherwise(pl.lit("eos")).cast(
            Samples.create_empty().schema["finish_reason"]),
        completion=pl.when(pl.col("prompt_id") == "s04").then(pl.lit("")).otherwise("completion"),
    ))  # fmt: skip
    pl.DataFrame(OUTPUTS, schema_overrides={"completion_ids": pl.List(pl.Int32)}).write_parquet(
        place / "requests.parquet"
    )
    values = {"batch_tokens": 150, "logits_chunk": 5, "write_every_s": 0} | changes
    step = LogprobStep(requests=place / "requests.parquet", written=place / "written", output=place / "out", **values)
    is_pair = model.config.is_encoder_decoder
    start = model.config.decoder_start_token_id if is_pair else None
    layout = BatchLayout(tokenizer.pad_token_id, (tokenizer.eos_token_id,), start, CPU)
    score_logprobs(step, Rank(place, 0, 1, 0), model, Renderer(tokenizer, None, ends_prompt=is_pair), layout)
    return dict(read_parts(place / "out").iter_rows())


KEYS = [f"s{n:02}" for n in range(13)]
OUTPUTS = [
    {
        "sample_id": key,
        "query": f"{n} figs",
        "history": None,
        "completion_ids": [40 + n * i for i in range(1, 2 + n % 4)],
    }
    for n, key in enumerate(KEYS)
]
OUTPUTS[12]["completion_ids"] = [41] * 60


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_logprobs_are_those_of_one_plain_forward_pass(architecture, build_model, tokenizer, alone, tmp_path):
    model = build_model(architecture, sharpness=3.0 if architecture == "llama" else 1.0)
    logprobs = scored(model, tokenizer, tmp_path)
    renderer = Renderer(tokenizer, None, ends_prompt=architecture == "t5")
    assert logprobs.keys() == set(KEYS) - {"s03", "s04"}
    for n, output in enumerate(OUTPUTS):
        if output["sample_id"] in logprobs and logprobs[output["sample_id"]] is not None:
            prompt = renderer.prompt_ids(f"say {'seven ' * n}", output["query"])
            with torch.no_grad():
                expected = plain_logprobs(model, tuple(prompt), tuple(output["completion_ids"])).mean().item()
            assert logprobs[output["sample_id"]] == pytest.approx(expected, abs=2e-5)
    too_long = [key for key, value in logprobs.items() if value is None]
    assert too_long == (["s12"] if architecture == "llama" else [])


def test_what_is_scored_already_is_left_alone(build_model, tokenizer, alone, tmp_path):
    model = build_model("llama")
    first = scored(model, tokenizer, tmp_path)
    for path in list_parts(tmp_path / "out")[2:]:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in list_parts(tmp_path / "out")}
    assert scored(model, tokenizer, tmp_path, batch_tokens=10**4) == pytest.approx(first, abs=2e-5)
    assert {path: path.stat().st_mtime_ns for path in list_parts(tmp_path / "out")}.items() > kept.items()


def test_a_prompt_that_leaves_no_room_for_an_output_is_left_out_and_counted(alone, tmp_path):
    spec = ScratchModel(type="scratch", hidden_size=16, layers=1, heads=2, context=32)
    for name in ("model", "out"):
        (tmp_path / name).mkdir()
    models.materialise(spec, tmp_path / "model", ["one two"], seed=3)
    rows = {"prompt_id": ["short", "long"], "query": ["one", "one two " * 40], "history": [None, None]}
    pl.DataFrame(rows).write_parquet(tmp_path / "requests.parquet")
    values = {"name": "write", "version": "v", "model": "m", "instruction": "Go.",
              "k": 1, "temperature": 0.0, "max_new_tokens": 4, "batch_tokens": 100, "zero3_weights": "auto",
              "write_every_s": 0, "iteration": 1}  # fmt: skip
    step = SampleStep(requests=tmp_path / "requests.parquet", output=tmp_path / "out", **values)
    job = JobSpec(model=HubModel(source=str(tmp_path / "model")), seed=0, deepspeed={}, steps=(step,))
    assert Job(Rank(tmp_path, 0, 1, 0), job, CPU).do(step)["too_long"] == 1
    assert read_parts(tmp_path / "out")["prompt_id"].to_list() == ["short"]
    for name, lowest in (("write", 31), ("sample", 31)):  # so many new tokens leave no room at all
        step = step.model_copy(update={"name": name, "max_new_tokens": lowest})
        job = job.model_copy(update={"steps": (step,)})
        if name == "sample":
            with pytest.raises(ConfigError, match="every prompt is too long for the model: the shortest has"):
                Job(Rank(tmp_path, 0, 1, 0), job, CPU)
        else:
            assert Job(Rank(tmp_path, 0, 1, 0), job, CPU).requests == {step.output: []}


# --- stages ----------------------------------------------------------------------------------------------------------

OURS = {"relabel": {"type": "learned", "query": "{query}|{output}|{verdict}"}}
"""24 samples, 8 of them empty: the first answer of each prompt is 2 and the last is 7."""
CORRECT, WRONG = "Generate a correct answer to this problem.", "Generate a wrong answer to this problem."


def play(job_dir: Path, *rest: Any, **options: Any) -> None:
    """Stands in for `launch`: writes the instruction of the verdict for answers of 2, another one for those of 7."""
    for step in JobSpec.read(job_dir).steps:
        if isinstance(step, SampleStep) and step.name == "write":
            done = set(read_parts(step.output)["prompt_id"]) if list_parts(step.output) else set()
            queries = dict(pl.read_parquet(step.requests).select("prompt_id", "query").iter_rows())
            texts = {key: instruction(query) for key, query in queries.items() if key not in done}
            frame = written(texts).with_columns(
                sample_id=pl.Series([content_key(step.version, key, 0) for key in texts], dtype=pl.String)
            )
            write_part(step.output, f"{len(texts)}", frame)
        elif isinstance(step, LogprobStep):
            keys = pl.read_parquet(step.requests)["sample_id"].to_list()
            write_part(step.output, "0", logprob_rows(dict.fromkeys(keys, -0.25)))
        else:
            ranks(job_dir, *rest, **options)
            return


def instruction(query: str) -> str:
    asked_of, answer, verdict = query.split("|")
    if answer == "2":
        return CORRECT if verdict == "correct" else WRONG
    return "Write exactly 9 words." if asked_of.startswith("0") else "Guess a number."


@pytest.fixture
def learned(settings, monkeypatch) -> dict[str, Any]:
    monkeypatch.setattr(run_module, "launch", play)
    return settings | OURS


def jobs(run: Any) -> list[str]:
    return sorted(path.name for path in (run.store.run_dir / "launches").iterdir())


def test_instructions_are_a_stage_between_scores_and_triples(learned):
    run = loop(with_changes(learned, {}))
    assert jobs(run) == ["0000", "0001", "0001-instruct"]
    names = ("prompts@0", "samples@1", "rewards@1", "instructions@1", "triples@1")
    refs = {name: str(run.store.resolve(name)) for name in names}
    facts = run.store.manifest(run.store.resolve("instructions@1"))
    assert list(facts.parents) == [refs["prompts@0"], refs["samples@1"], refs["rewards@1"]]
    assert (facts.rows_in, facts.rows, facts.rejected) == (24, 16, {"without a verdict, or empty": 8})
    # Two prompts begin with a 0 (0 + 2 is asked for once): their 7s are not nine words; six other 7s are likelier.
    zeros = run.table(run.store.resolve("prompts@0")).filter(
        pl.col("query").str.starts_with("0"), pl.col("split") == "train"
    )
    expected = {
        "asked": 16,
        "verified_share": (16 - zeros.height) / 16,
        "verified_by_check": {"logprob": 8 - zeros.height, "named": 8},
        "refused": {UNSATISFIED: zeros.height},
    }
    assert facts.metrics == expected
    triples = run.store.manifest(run.store.resolve("triples@1"))
    assert list(triples.parents) == [refs[name] for name in names[:4]]
    assert triples.metrics["written"] == expected
    assert row(run, "triples@1", output="7", query="0 + 2?")["relabeler"] == "hindsight"
    guessed = row(run, "triples@1", instruction="Guess a number.")
    assert (guessed["relabeler"], guessed["contrast"]) == ("learned", [CORRECT])
    describe_all = describe_versions(run.store.run_dir)
    assert [facts["stage"] for facts in describe_all if facts["iteration"] == 1][:4] == [
        *("samples", "rewards", "instructions", "triples"),
    ]
    assert any("verified share 0." in line for line in versions_text(describe_all))


def test_every_version_but_the_triples_is_that_of_the_fixed_rule(learned):
    run = loop(with_changes(learned, {}))
    loop(with_changes(learned, {"relabel": {"type": "hindsight"}}))
    two = {name for name, count in versions(run.store).items() if count == 2}
    assert two == {"triples@1", "models@1", "evaluations@1"}


@pytest.mark.parametrize(
    ("changes", "forked"),
    [
        ({"relabel.margin": 0.1}, {"instructions@1"}),
        ({"relabel.temperature": 0.5}, {"instructions@1"}),
        ({"relabel.fallback": "reject"}, set()),
        ({"sampling.batch_tokens": 7, "training.logits_chunk": 3}, None),
    ],
)
def test_a_setting_forks_what_it_decides(learned, changes, forked):
    run = loop(with_changes(learned, {}))
    before = versions(run.store)
    loop(with_changes(learned, changes))
    expected = set() if forked is None else forked | {"triples@1", "models@1", "evaluations@1"}
    assert set(versions(run.store) - before) == expected


def test_a_writer_of_its_own_writes_in_its_own_launch_and_is_known_by_its_files(learned, tmp_path):
    writer = {"relabel.writer": folder_model(tmp_path / "writer", b"weights")}
    run = loop(with_changes(learned, writer))
    assert jobs(run) == ["0000", "0001", "0001-logprobs", "0001-write"]
    specs = {name: JobSpec.read(run.store.run_dir / "launches" / f"0001-{name}") for name in ("write", "logprobs")}
    assert specs["write"].model.source == str(tmp_path / "writer")
    assert specs["logprobs"].model.source == str(run.store.resolve("models@0").path.resolve())
    before = versions(run.store)
    loop(with_changes(learned, {"relabel.writer": folder_model(tmp_path / "moved", b"weights")}))
    assert versions(run.store) == before
    loop(with_changes(learned, {"relabel.writer": folder_model(tmp_path / "other", b"Weights")}))
    assert "instructions@1" in versions(run.store) - before
    with pytest.raises(ConfigError, match=r"relabel\.writer\.source: \./nowhere is no model folder"):
        loop(with_changes(learned, {"relabel.writer": {"source": "./nowhere"}}))


def test_a_run_that_is_killed_while_it_writes_goes_on_there(learned, monkeypatch):
    def killed(job_dir: Path, *rest: Any, **options: Any) -> None:
        first = JobSpec.read(job_dir).steps[0]
        if isinstance(first, SampleStep) and first.name == "write":
            queries = dict(pl.read_parquet(first.requests).select("prompt_id", "query").head(5).iter_rows())
            write_part(first.output, "some", written(dict.fromkeys(queries, CORRECT)))
            raise JobFailed("killed")
        play(job_dir, *rest, **options)

    with monkeypatch.context() as broken:
        broken.setattr(run_module, "launch", killed)
        with pytest.raises(JobFailed):
            loop(with_changes(learned, {}))
    (draft,) = Path("runs").rglob(".draft-*")
    assert draft.parent.name == "instructions"
    run = loop(with_changes(learned, {}))
    kept = run.table(run.store.resolve("instructions@1")).filter(written=CORRECT)
    assert kept.height >= 5
    assert list(Path("runs").rglob(".draft-*")) == []
    before = digests(run.store.run_dir)
    loop(with_changes(learned, {}))
    assert digests(run.store.run_dir) == before


def test_many_instructions_are_counted_by_the_most_frequent(learned, monkeypatch):
    spelled = str.maketrans("0123456789", "abcdefghij")
    monkeypatch.setattr(
        sys.modules[__name__], "instruction", lambda query: f"Guess {query.partition('?')[0]}".translate(spelled)
    )
    run = loop(with_changes(learned, {"sampling.k": 1}))
    mix = run.metrics(run.store.resolve("triples@1"))["instructions"]
    assert sum(mix.values()) == run.store.manifest(run.store.resolve("triples@1")).rows == len(mix) == 8
    line = next(text for text in versions_text(describe_versions(run.store.run_dir)) if "triples/0001" in text)
    assert line.count(" 12% Guess") == 3
    assert line.endswith(" · 5 more")


def test_replay_takes_what_was_written_then(learned):
    run = loop(with_changes(learned, {"iterations": 2, "select.replay": 1}))
    parents = [parent.partition("-")[0] for parent in run.store.manifest(run.store.resolve("triples@2")).parents]
    assert Counter(parents)["instructions/0001"] == Counter(parents)["instructions/0002"] == 1
    assert run.metrics(run.store.resolve("triples@2"))["written"]["asked"] == 32


def test_how_to_write_is_shown_in_the_warm_start_and_in_every_iteration(learned):
    """Two prompts with a right and a wrong answer each: 4 triples, added to 4 references and to those of 24 samples."""
    loop(with_changes(learned, {}))
    run = loop(with_changes(learned, {"relabel.shown": 2}))
    triples = run.store.versions("triples")
    heights = [(ref.iteration, run.store.manifest(ref).rows) for ref in triples]
    assert sorted(heights) == [(0, 4), (0, 4 + 4), (1, 16), (1, 16 + 4)]
    demonstrations = [run.table(ref).filter(pl.col("sample_id").is_null(), relabeler="learned") for ref in triples]
    assert sorted(rows.height for rows in demonstrations) == [0, 0, 4, 4]
    assert {run.store.manifest(ref).rows_in for ref in triples if ref.iteration} == {24, 24 + 4}
    assert set(versions(run.store).values()) == {1, 2}
    assert versions(run.store)["prompts@0"] == 1
    texts = pl.read_parquet(run.store.run_dir / "launches/0000/texts.parquet")["text"]
    assert LearnedRelabel(type="learned").instruction in texts.to_list()


def test_a_tokenizer_that_is_fitted_to_writing_is_another_one_without_a_warm_start_too(learned):
    del learned["warm_start"]
    run = loop(with_changes(learned, {"iterations": 0}))
    loop(with_changes(learned, {"iterations": 0, "relabel.shown": 2}))
    assert versions(run.store) == {"prompts@0": 1, "models@0": 2, "evaluations@0": 2}


# --- a real launch ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_writes_scores_and_trains_on_what_is_verified(tmp_path, prefect_home):
    """The tiny model writes after demonstrations; log-probabilities are those of a plain forward pass of the policy."""
    relabel = {"type": "learned", "shown": 32, "temperature": 1.0, "max_new_tokens": 12}
    write_config(tmp_path, relabel=relabel)
    hir(tmp_path, prefect_home, "run", "tiny.yaml")
    store = Store(tmp_path / "runs/tiny")
    instructions = read_parts(store.resolve("instructions@1").path)
    facts = manifest(store.run_dir, "instructions@1")
    assert facts["rows_in"] == facts["rows"] + sum(facts["rejected"].values()) == 84
    assert facts["metrics"]["verified_share"] == instructions["instruction"].is_not_null().mean()
    assert instructions["written"].n_unique() > 1
    assert store.resolve("instructions@1").path.name in json.dumps(manifest(store.run_dir, "triples@1")["parents"])
    _check_logprobs(store, instructions)
    before = digests(store.run_dir)
    assert "nothing to do" in hir(tmp_path, prefect_home, "run", "tiny.yaml")
    assert digests(store.run_dir) == before


def _check_logprobs(store: Store, instructions: pl.DataFrame) -> None:
    from transformers import AutoModelForCausalLM

    place = store.resolve("models@0").path
    model, tokenizer = AutoModelForCausalLM.from_pretrained(place), models.load_tokenizer(str(place))
    samples = read_parts(store.resolve("samples@1").path)
    queries = read_parts(store.resolve("prompts@0").path).select("prompt_id", "query")
    rows = (
        instructions.join(samples, on="sample_id").join(queries, on="prompt_id").filter(pl.col("logprob").is_not_null())
    )
    assert rows.height > 10
    for sample in rows.iter_rows(named=True):
        prompt = Renderer(tokenizer, None).prompt_ids(sample["written"], sample["query"])
        with torch.no_grad():
            expected = plain_logprobs(model, tuple(prompt), tuple(sample["completion_ids"])).mean().item()
        assert sample["logprob"] == pytest.approx(expected, abs=1e-4)
        assert sample["asked_logprob"] == pytest.approx(sum(sample["logprobs"]) / len(sample["logprobs"]), abs=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(CORES < 2, reason="needs two usable cores")
@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_two_ranks_with_sharded_weights_write_and_score_as_one_rank(architecture, alone, by_two_ranks, tmp_path):
    one_rank = instruct_job(tmp_path, by_two_ranks / "models" / architecture, {})
    job = Job(Rank(tmp_path, 0, 1, 0), one_rank, CPU)
    rows = [job.do(step)["rows"] for step in one_rank.steps]
    assert (rows[0], rows[1] >= 15) == (14, True)
    places = {"one": tmp_path, "two": by_two_ranks / "cases" / architecture}
    texts, scores = ({name: read_parts(place / kind).sort("sample_id") for name, place in places.items()}
                    for kind in ("written", "scored"))  # fmt: skip
    assert texts["one"].drop("logprobs").equals(texts["two"].drop("logprobs"))
    assert scores["one"]["sample_id"].to_list() == scores["two"]["sample_id"].to_list()
    assert scores["two"]["logprob"].to_list() == pytest.approx(scores["one"]["logprob"].to_list(), abs=1e-4)


@pytest.fixture(scope="module")
def by_two_ranks(tmp_path_factory) -> Path:
    """Outputs written and scored by two ranks with sharded weights, with both models in one launch."""
    root = tmp_path_factory.mktemp("two")
    for architecture in ("llama", "t5"):
        model, case = root / "models" / architecture, root / "cases" / architecture
        model.mkdir(parents=True)
        make_model(model, architecture)
        instruct_job(case, model, STAGES["zero3"]).write(case)
    with cpu_ranks():
        launch_cases(root, 2)
    return root


def instruct_job(place: Path, model: Path, deepspeed: dict[str, Any]) -> JobSpec:
    """A job that writes about 29 outputs, 15 of which are done already, and scores them."""
    for folder in ("written", "scored"):
        (place / folder).mkdir(parents=True)
    write_part(place / "written", "0", written({f"s{n:02}": f"add {'two ' * (n % 6)}" for n in range(15)}))
    rows = [
        {"prompt_id": f"s{n:02}", "query": f"{n} figs and {'two ' * (n % 5)}plums", "history": None} for n in range(29)
    ]
    pl.DataFrame(rows).write_parquet(place / "write.parquet")
    outputs = [
        {
            "sample_id": row["prompt_id"],
            "query": row["query"],
            "history": None,
            "completion_ids": [40 + n] * (1 + n % 3),
        }
        for n, row in enumerate(rows)
    ]
    pl.DataFrame(outputs, schema_overrides={"completion_ids": pl.List(pl.Int32)}).write_parquet(place / "score.parquet")
    write = SampleStep(name="write", requests=place / "write.parquet", output=place / "written", version="v", model="m",
                       instruction="Go.", k=1, temperature=1.0, max_new_tokens=6,
                       batch_tokens=200, zero3_weights="stream", write_every_s=0, iteration=1)  # fmt: skip
    score = LogprobStep(requests=place / "score.parquet", written=place / "written", output=place / "scored",
                     batch_tokens=200, logits_chunk=5, write_every_s=0)  # fmt: skip
    return JobSpec(model=HubModel(source=str(model)), seed=0, deepspeed=deepspeed, steps=(write, score))
