"""What a schedule gives to Prefect, and what is told to Prefect of a run: without a server."""

import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from flows.cli.app import app
from flows.orchestration.observer import artifact_key
from flows.orchestration.server import SETTINGS
from flows.schedule import build_deployment, parameters
from flows.start import CONFIGS
from hir_core.config import RunConfig, load_config
from hir_core.config.load import parse_config
from hir_core.errors import ConfigError

RECIPES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def recipe(name: str) -> RunConfig:
    return load_config(CONFIGS / f"{name}.yaml")


# --- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_a_config_comes_out_of_a_deployments_parameters_as_it_went_in(name):
    config = recipe(name)
    given = json.loads(json.dumps(parameters(config, 2, "skip")))
    assert parse_config(given["config"]) == config
    assert (given["further"], given["when_busy"]) == (2, "skip")


def test_a_deployment_runs_this_flow_in_this_folder_and_quietly(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = build_deployment(recipe("quickstart"), 1, "skip", interval=timedelta(hours=6), pool="hir")
    assert (made.full_name, made.entrypoint) == ("hindsight/quickstart", "flows.hindsight.hindsight")
    assert [schedule.schedule.interval for schedule in made.schedules] == [timedelta(hours=6)]
    assert made.job_variables["working_dir"] == str(tmp_path)
    assert made.job_variables["env"] == SETTINGS
    assert made.job_variables["command"].endswith(" -P -m prefect.engine")


def test_a_cron_line_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"--cron 0 99 \* \* \*: .*; for example `0 2 \* \* \*`"):
        build_deployment(recipe("quickstart"), 1, "skip", cron="0 99 * * *")


@pytest.fixture
def scheduled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls `hir schedule quickstart` where no server is set, and returns what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str) -> str:
        with temporary_settings(restore_defaults={PREFECT_API_URL}):
            result = CliRunner().invoke(app, ["schedule", "quickstart", *arguments])
        assert (result.exit_code, result.stdout) == (2, "")
        assert list(tmp_path.iterdir()) == []
        return result.stderr

    return call


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected one of --cron and --interval"),
        (["--cron", "0 2 * * *", "--interval", "1h"], "expected one of --cron and --interval"),
        (["--interval", "0h"], "--interval 0h: expected a number and s, m, h or d"),
        (["--interval", "2 weeks"], "--interval 2 weeks: expected a number and s, m, h or d"),
        (["--interval", "1h"], "a schedule needs a Prefect server that keeps running"),
        (["--interval", "1h"], "start one with `prefect server start`"),
    ],
)
def test_a_schedule_that_cannot_be_says_what_to_do(scheduled, arguments, said):
    assert said in scheduled(*arguments)


# --- artifacts -------------------------------------------------------------------------------------------------------


def named(run: str) -> Any:
    return SimpleNamespace(config=SimpleNamespace(run=run))


def test_artifact_keys_are_what_prefect_takes_and_differ_where_runs_do():
    keys = [artifact_key(named(run), "iteration") for run in ("a-b", "a.b", "A-b", "a_b", "a--b")]
    assert keys[0] == "hir-a-b-iteration"
    assert len(set(keys)) == len(keys)
    assert all(set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for key in keys)
