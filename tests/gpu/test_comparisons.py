"""The script `comparisons.py`, on the CPU: what it writes of comparisons that end, and of one without enough time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("comparisons.py")
COMPARISON = """
compare: tiny
base: quickstart
seeds: [0]
tasks:
  counting:
    iterations: 2
    model: {hidden_size: 32, layers: 1, heads: 2, intermediate_size: 64, context: 96}
    prompts: [{type: synthetic, task: object_counting, size: 60, seed: 1, dials: {max_kinds: 2}}]
    warm_start: {demonstrations: 16, epochs: 1}
    sampling: {prompts: 8, k: 2}
    training: {steps: 1, batch_size: 8}
methods:
  references: {relabel: {type: demonstrations}}
  hindsight: {relabel: {type: hindsight}}
reference: references
"""


def call(folder: Path, limit_s: float, *commands: str) -> subprocess.CompletedProcess[str]:
    options = [str(folder / "results"), "--limit", str(limit_s), "--work", str(folder / "work"), *commands]
    return subprocess.run([sys.executable, SCRIPT, *options], text=True, capture_output=True, cwd=folder)


def results(folder: Path, iterations: int) -> dict:
    return json.loads((folder / "results" / f"{iterations}-iterations" / "tiny" / "results.json").read_text())


@pytest.mark.slow
def test_results_are_those_of_the_comparison_for_every_number_of_iterations_and_survive_a_lack_of_time(tmp_path):
    (tmp_path / "tiny.yaml").write_text(COMPARISON)
    done = call(tmp_path, 400, "--cpu", str(tmp_path / "tiny.yaml"), "1")
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "results" / "tiny.log").read_text()
    of_command = json.loads((tmp_path / "work" / "runs" / "tiny" / "results.json").read_text())
    first, second = results(tmp_path, 1), results(tmp_path, 2)
    for key in ("arms", "summary", "differences", "arms_planned", "config"):
        assert second[key] == of_command[key], key
    assert [arm["curve"] for arm in first["arms"]] == [arm["curve"][:2] for arm in second["arms"]]
    assert first["config"]["tasks"]["counting"]["iterations"] == 1

    more = call(tmp_path, 1, "--cpu", str(tmp_path / "tiny.yaml"), "1", "tasks.counting.iterations=9")
    assert more.returncode == 1
    assert "tiny: out of time" in more.stdout
    assert "tiny, 2 iterations: 2 of 2 arms" in more.stdout
    assert results(tmp_path, 2)["arms"] == second["arms"]
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not any(str(tmp_path).encode() in command for command in commands)
