"""Every reader of what others wrote, against valid inputs that were changed at random.

Each input must give a value that passes its schema, or one message; soon, in little memory, and without changing a file
(`fuzz_limits`). By default each reader gets the same few inputs every time. `--fuzz-minutes 60` shares an hour among
the readers, with inputs that are new each time, and writes what it did to `results.json`. What was found once stays as
a case in test_found.py.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fuzz_limits import BrokenLimit, judged
from fuzz_readers import READERS, Give
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

BATCH = 200
"""Inputs that begin with one seed, of which Hypothesis keeps in mind what it has tried."""
RESULTS = Path(__file__).with_name("results.json")
RELEASES = ("hypothesis", "polars", "pydantic", "pyyaml", "httpx")
EVERY_TIME = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
    report_multiple_bugs=False,
)


@pytest.fixture
def give(request: pytest.FixtureRequest, made_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Give:
    """Gives the reader an input, in a folder of its own, and returns what reads it."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")
    shutil.copytree(made_run, "runs/small")
    return READERS[request.param].prepare()


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What each reader went through, written to `results.json` where inputs are new each time."""
    found: dict[str, Any] = {}
    told = circumstances(request.config)  # of the code as it is loaded
    yield found
    if found:
        RESULTS.write_text(json.dumps(told | {"readers": found}, indent=2) + "\n")


def circumstances(config: pytest.Config) -> dict[str, Any]:
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], text=True, capture_output=True).stdout.strip()
    others = [":/", f":(exclude){RESULTS.name}"]
    changed = subprocess.run([*git, "status", "--porcelain", "--", *others], text=True, capture_output=True).stdout
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"pytest tests/fuzz --fuzz-minutes {config.getoption('--fuzz-minutes'):g}",
        "git_commit": commit + (" and changes" if changed else ""),
        "machine": {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()},
        "releases": {name: importlib.metadata.version(name) for name in RELEASES},
    }


@pytest.mark.parametrize(("name", "give"), [(name, name) for name in READERS], indirect=["give"], ids=list(READERS))
def test_a_reader_gives_a_valid_value_or_one_message(
    name: str, give: Give, results: dict[str, Any], pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (minutes := pytestconfig.getoption("--fuzz-minutes")):
        fuzz(give, READERS[name].inputs, settings(EVERY_TIME, max_examples=READERS[name].every_time), Counter())
        return
    results[name] = told = campaign(give, READERS[name].inputs, minutes * 60 / len(READERS))
    with capsys.disabled():
        print(f"\n{name}: {told['inputs']:,} inputs in {told['seconds']} s, {len(told['findings'])} findings")
    assert told["findings"] == {}


def fuzz(
    give: Give, inputs: st.SearchStrategy[Any], rules: settings, outcomes: Counter[str], first_seed: int | None = None
) -> None:
    """Gives the reader as many inputs as the rules say, and counts how it judged them."""

    def read(case: Any) -> None:
        outcomes[judged(give(case))] += 1

    test = rules(given(inputs)(read))
    (test if first_seed is None else seed(first_seed)(test))()


def campaign(give: Give, inputs: st.SearchStrategy[Any], share_s: float) -> dict[str, Any]:
    """New inputs for so many seconds, in batches that each begin with another seed; a finding ends its batch."""
    outcomes: Counter[str] = Counter()
    findings: dict[str, str] = {}
    first_seed, started = int.from_bytes(os.urandom(4)), time.monotonic()

    rules = settings(EVERY_TIME, max_examples=BATCH, derandomize=False, phases=(Phase.generate, Phase.shrink))
    for number in count(first_seed):
        if time.monotonic() - started >= share_s:
            break
        try:
            fuzz(give, inputs, rules, outcomes, number)
        except (Exception, BrokenLimit, pl.exceptions.PanicException) as error:  # noqa: BLE001 - all of them are findings
            findings.setdefault(f"{type(error).__name__} {_place(error)}", _example(error))
    return {
        "inputs": outcomes.total(),
        "seconds": round(time.monotonic() - started),
        "first_seed": first_seed,
        "outcomes": dict(outcomes.most_common()),
        "findings": findings,
    }


def _place(error: BaseException) -> str:
    """The function of the package that an error came from or through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "hir_core" in f.filename]
    return f"in {Path(frames[-1].filename).name}, {frames[-1].name}" if frames else ""


def _example(error: BaseException) -> str:
    return "\n".join([str(error)[:1000], *(note[:2000] for note in getattr(error, "__notes__", []))])
