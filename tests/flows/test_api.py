"""hir from Python: what the commands do, with their messages, and the loop one stage at a time."""

import json
import re
import subprocess
import sys
from pathlib import Path

import fake_launch
import pytest
from fake_launch import files, loop, steps, with_changes, write_sums
from typer.testing import CliRunner

import flows as hir
from flows.cli.app import app
from hir_core.errors import ConfigError, HirError, JobFailed, RunLocked, VersionNotFound
from hir_core.inspect.verify import check_run
from hir_core.stages import run as run_module
from hir_core.store.store import Store


def by_hand(config: hir.RunConfig) -> None:
    """Every iteration of a config, a stage at a time."""
    with hir.Stages(config) as stages:
        model = stages.initial_model()
        for _ in range(config.iterations):
            stages.evaluate(model)
            model = stages.train(stages.relabel(stages.score(stages.sample(model))))


def named(run_dir: Path | str) -> list[str]:
    return [str(ref) for ref in Store(Path(run_dir)).versions()]


# --- one stage at a time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"iterations": 3, "select.replay": 1},
        {"warm_start": None},
        {"iterations": 2, "lora": {"rank": 2}},
    ],
    ids=["replay", "no warm start", "adapters"],
)
def test_stage_by_stage_the_versions_of_the_loop_are_made(settings, changes):
    config = with_changes(settings, changes)
    by_hand(config)
    loop(with_changes(settings, changes | {"runs_dir": "other"}))
    assert named("runs/sums") == named("other/sums")
    assert check_run(Store(Path("runs/sums")))["problems"] == []


def test_a_stage_that_is_called_again_finds_its_version_and_writes_nothing(settings):
    config = with_changes(settings, {})
    by_hand(config)
    before = files(Path("runs/sums"))
    by_hand(config)
    with hir.Stages(config) as stages:
        assert str(stages.score("samples@1")) == str(stages.score(stages.sample("models@0")))
        assert stages.train("triples@0") == stages.initial_model()
    assert files(Path("runs/sums")) == before


def test_a_model_of_another_config_is_sampled_and_judged_by_this_one_and_not_trained_again(settings):
    by_hand(with_changes(settings, {}))
    before = named("runs/sums")
    with hir.Stages(with_changes(settings, {"sampling.k": 2, "training.epochs": 9})) as stages:
        samples = stages.sample("models@1")
    assert sorted({*named("runs/sums")} - {*before}) == [str(samples)]
    assert samples.iteration == 2
    store = Store(Path("runs/sums"))
    assert store.manifest(samples).parents_of("models") == [str(store.resolve("models@1"))]
    assert steps(store, 1) == ["sample"]


def test_another_relabeler_forks_the_last_stage_on_what_is_there(settings):
    by_hand(with_changes(settings, {}))
    run = hir.open_run("sums")
    (first,) = run.versions("triples")[1:]
    with hir.Stages(with_changes(settings, {"relabel": {"type": "keep_correct"}, "branch": "kept"})) as stages:
        second = stages.relabel("rewards@1")
        model = stages.train(second)
    assert first != second
    assert run.parents(first) == run.parents(second)
    assert run.parents(model) == [run.version("models@0"), second]
    with pytest.raises(VersionNotFound, match="names 2 versions"):
        run.read("triples@1")
    assert run.latest("triples") == second


def test_what_does_not_fit_a_stage_is_refused(settings):
    by_hand(with_changes(settings, {}))
    with hir.Stages(with_changes(settings, {})) as stages:
        with pytest.raises(ConfigError, match="expected a version of samples, found models/0001"):
            stages.score("models@1")
        with pytest.raises(VersionNotFound, match="no version `rewards@7` in runs/sums; there is rewards/0001"):
            stages.relabel("rewards@7")
    Path("sums.jsonl").write_text(Path("sums.jsonl").read_text().replace("1 + 1?", "1 and 1?"))
    other = r"samples/0001-\w+ is made from prompts/\w+-\w+, and this config has prompts/0000-\w+: sample for these"
    with hir.Stages(with_changes(settings, {})) as stages, pytest.raises(ConfigError, match=other):
        stages.score("samples@1")


def test_the_lock_is_held_during_a_call_only_and_a_second_writer_is_refused(settings, monkeypatch):
    config, store = with_changes(settings, {}), Store(Path("runs/sums"))
    stages = hir.Stages(config)
    with store.lock(), pytest.raises(RunLocked):
        stages.prompts()
    stages.prompts()

    def locked(*given, **further):
        with pytest.raises(RunLocked), store.lock():
            pass
        fake_launch.ranks(*given, **further)

    monkeypatch.setattr(run_module, "launch", locked)
    stages.initial_model()
    with store.lock():
        pass


def test_a_lost_launch_is_tried_once_more_and_a_stage_that_fails_can_be_called_again(settings, monkeypatch, capsys):
    failures = [JobFailed("rank 0 was killed", is_lost=True), JobFailed("no memory")]

    def failing(*given, **further):
        if failures:
            raise failures.pop(0)
        fake_launch.ranks(*given, **further)

    monkeypatch.setattr(run_module, "launch", failing)
    stages = hir.Stages(with_changes(settings, {}))
    with pytest.raises(JobFailed, match="no memory"):
        stages.initial_model()
    assert "warning: launch lost (rank 0 was killed): trying once more" in capsys.readouterr().out
    assert str(stages.initial_model()) in named("runs/sums")


# --- configs and messages --------------------------------------------------------------------------------------------


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sums.yaml").write_text(json.dumps(write_sums()))


def test_changes_are_those_of_the_command_line(config_file):
    changes = {"iterations": 5, "training.epochs": 2, "prompts.0.test_share": 0.5, "sampling": {"k": 4}}
    from_python = hir.load_config("sums.yaml", changes)
    assert from_python == hir.load_config(Path("sums.yaml").resolve(), changes)
    assert (from_python.iterations, from_python.training.epochs, from_python.sampling.k) == (5, 2, 4)
    assert from_python.prompts[0].test_share == 0.5
    assert hir.load_config("quickstart").run == "quickstart"


def test_changes_below_a_change_leave_the_callers_values_alone(config_file):
    sampling = {"k": 4}
    config = hir.load_config("sums.yaml", {"sampling": sampling, "sampling.k": 5})
    assert (config.sampling.k, sampling) == (5, {"k": 4})


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        ("sums.yaml", {"iteratons": 3}),
        ("sums.yaml", {"training.epochs": "many", "iterations": True}),
        ("sums.yaml", {"prompts.7.test_share": 1}),
        ("sumz.yaml", {}),
        ("sums.yaml", {"prompts.0.path": "nowhere.jsonl"}),
        ("sums.yaml", {"launch.launcher": "external"}),
    ],
)
def test_errors_have_the_messages_of_the_commands(config_file, config, changes):
    words = [f"{key}={str(value).lower()}" for key, value in changes.items()]
    command = "schedule" if "launch.launcher" in changes else "run"
    said = CliRunner().invoke(app, [command, config, *words]).stderr
    with pytest.raises(HirError) as raised:
        hir.run(hir.load_config(config, changes))
    assert said == f"error: {raised.value}\n".replace("prompts.7.test_share=1", words[-1] if words else "")
    assert "\n".join(raised.value._render_traceback_()) == said.rstrip()
    assert not Path("runs").exists()


# --- a run is read ---------------------------------------------------------------------------------------------------


def test_a_run_is_read_by_names_and_references(small_run):
    run = hir.open_run()
    assert list(map(str, run.versions("samples"))) == list(map(str, small_run.versions("samples")))
    assert str(run.latest("models")) == str(small_run.resolve("models@2"))
    assert run.path(run.latest("models")).samefile(small_run.resolve("models@2").path)
    rows = run.read("samples@1")
    assert rows["sample_id"].to_list() == ["s1p10", "s1p11", "s1p20", "s1p21", "s1p30", "s1p31"]
    assert run.scan("samples@1").select("sample_id").collect().height == 6
    every = run.scan("samples").group_by("iteration", "version").len().sort("iteration").collect()
    assert every.rows() == [(ref.iteration, str(ref), 6) for ref in run.versions("samples")]
    assert [ref.stage for ref in run.parents("triples@2")] == ["prompts", "samples", "rewards"]
    assert run.manifest("evaluations@2").metrics["overall"]["accuracy"] == 1.0
    assert run.trace("s1p10")["prompt"]["prompt_id"] == "p1"
    assert repr(run) == f"<run runs/small: {len(small_run.versions())} versions>"
    for name in ("small", "runs/small", Path("runs/small")):
        assert hir.open_run(name).versions() == run.versions()


def test_what_is_not_there_is_said_with_what_is(small_run):
    with pytest.raises(VersionNotFound, match="no run `smal` in runs; runs holds small"):
        hir.open_run("smal")
    with pytest.raises(VersionNotFound, match="no run `small` in elsewhere; elsewhere holds no run"):
        hir.open_run("small", runs_dir="elsewhere")
    with pytest.raises(VersionNotFound, match=r"no stage `sample`; did you mean `samples`\?"):
        hir.open_run().versions("sample")
    with pytest.raises(VersionNotFound, match="holds no table: a model is opened by its folder"):
        hir.open_run().read("models@1")
    with pytest.raises(VersionNotFound, match="it has no instructions yet, only 1 of prompts"):
        hir.open_run().scan("instructions")


def test_the_import_is_light_and_its_names_are_all_there():
    program = "import sys, flows; print({'prefect', 'torch', 'polars', 'pydantic'} & set(sys.modules)); "
    program += "print(*dir(flows)); print(all(getattr(flows, name) for name in dir(flows)), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names = "HirError RunConfig Stages StoredRun VersionRef load_config open_run run"
    assert done.stdout.splitlines() == ["set()", names, "True False"]


def test_the_names_in_the_pages_exist():
    """Those that follow `hir.`, `run.`, `stages.` and `others.` in the code of flows/README.md and of the notebook."""
    examples = Path(hir.__file__).parent
    pages = [(examples / "README.md").read_text(), (examples / "examples/notebook/stages.ipynb").read_text()]
    owners = {"hir": hir, "run": hir.StoredRun, "stages": hir.Stages, "others": hir.Stages}
    code = [*re.findall(r"```python\n(.*?)```", pages[0], re.DOTALL), json.dumps(json.loads(pages[1])["cells"])]
    used = {pair for text in code for pair in re.findall(r"\b(hir|run|stages|others)\.([a-z_A-Z]+)\(", text)}
    assert {owner for owner, _ in used} == set(owners)
    assert [name for owner, name in sorted(used) if not hasattr(owners[owner], name)] == []
