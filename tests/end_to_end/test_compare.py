"""Comparisons with arms side by side, with real launches: ended in any way they leave no process, and they continue."""

import re
import signal
import subprocess
import time

import pytest
import yaml
from cli_run import (
    PATIENCE_S,
    assert_same_content,
    command,
    environment,
    hir,
    left_alive,
    processes_with,
    wait_until,
    write_config,
)

from hir_core.inspect.comparison import read_results
from hir_core.inspect.verify import check_run
from hir_core.store.store import Store

pytestmark = pytest.mark.slow

SETTINGS = {
    "compare": "both",
    "base": "tiny.yaml",
    "seeds": [0, 1],
    "tasks": {"counting": {}},
    "methods": {
        "hindsight": {"relabel": {"type": "hindsight"}, "training": {"steps": 3}},
        "keep_correct": {"relabel": {"type": "keep_correct"}, "training": {"steps": 3}},
        "broken": {"model": {"context": 16}},  # found by the ranks
    },
    "reference": "keep_correct",
}


def test_arms_side_by_side_end_with_the_comparison_and_make_what_they_make_one_by_one(tmp_path):
    write_config(tmp_path)
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False))
    home, folder = tmp_path / "prefect", tmp_path / "runs/both"
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        assert stopped(tmp_path, home, number) == code
        assert left_alive(str(home)) == []
        assert [check_run(Store(folder / f"counting-{seed}"))["problems"] for seed in (0, 1)] == [[], []]

    output = hir(tmp_path, home, "compare", "both.yaml", "--jobs", "2", code=1)
    lines = re.findall(
        r"^ +(\d) of 6 · counting · (\w+) · seed (\d) · (accuracy 0|error: every prompt)", output, re.MULTILINE
    )
    assert [int(number) for number, *_ in lines] == [1, 2, 3, 4, 5, 6]
    assert sorted(told for _, *told in lines) == [
        [method, seed, "error: every prompt" if method == "broken" else "accuracy 0"]
        for method in sorted(SETTINGS["methods"]) for seed in "01"
    ]  # fmt: skip
    arms = read_results(folder / "results.json").arms
    assert arms is not None
    assert [(arm.seed, arm.method) for arm in arms] == [
        (seed, method) for seed in (0, 1) for method in ("hindsight", "keep_correct")
    ]
    for seed in (0, 1):
        stages = [ref.stage for ref in Store(folder / f"counting-{seed}").versions()]
        assert (stages.count("samples"), stages.count("triples"), stages.count("models")) == (1, 3, 3)
        assert "accuracy" in (folder / f"arms/counting-{seed}/hindsight.log").read_text()
    again = hir(tmp_path, home, "compare", "both.yaml", "methods.broken.only=[]", "--jobs", "2")
    assert again.count("nothing to do") == 4

    hir(tmp_path, home, "compare", "both.yaml", "compare=alone", "seeds=[0]", "methods.broken.only=[]")
    assert_same_content(tmp_path / "runs/alone/counting-0", folder / "counting-0")


def stopped(folder, home, number):
    """Starts the comparison, sends its process group a signal once two arms train, and returns its status."""
    process = subprocess.Popen(
        command("compare", "both.yaml", "--jobs", "2"),
        cwd=folder,
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: running(home, "hir_core.worker") == 2 or process.poll() is not None, "two ranks")
        assert running(home, "private_server_process") == 1
        time.sleep(1)  # somewhere in their first job
        process.send_signal(number)
        return process.wait(PATIENCE_S)
    finally:
        process.kill()


def running(home, name):
    """How many processes of this name there are, their supervisors not counted."""
    return len([line for line in processes_with(str(home)) if name in line and "supervisor" not in line])
