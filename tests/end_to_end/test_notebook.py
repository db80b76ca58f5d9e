"""The example notebook in a real Jupyter kernel: in a running event loop, without a terminal, with Prefect."""

import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from cli_run import PATIENCE_S, environment

from hir_core.inspect.verify import check_run
from hir_core.store.store import Store

NOTEBOOK = Path(__file__).resolve().parents[2] / "flows" / "examples" / "notebook" / "stages.ipynb"
VERSION = re.compile(r"id='\d{4}-[0-9a-f]{8}'")
FAILING = """
import flows as hir
config = hir.load_config("quickstart", {"iterations": "many"})
"""


def outputs(notebook: Path) -> list[list[dict[str, Any]]]:
    """What each code cell has put out, but for what it has printed."""
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    return [[output for output in cell["outputs"] if output["output_type"] != "stream"] for cell in cells]


def text(cells: list[list[dict[str, Any]]]) -> str:
    return "\n".join("".join(output["data"]["text/plain"]) for cell in cells for output in cell)


def execute(notebook: Path, prefect_home: Path) -> subprocess.CompletedProcess[str]:
    """Executes a notebook in its folder, in place."""
    call = [str(Path(sysconfig.get_path("scripts")) / "jupyter-execute"), "--inplace", "--kernel_name=python3",
            f"--startup_timeout={PATIENCE_S}", notebook.name]  # fmt: skip
    quiet = {"IPYTHONDIR": str(notebook.parent / "ipython"), "PYTHONPATH": ":".join(filter(None, sys.path))}
    settings = environment(prefect_home) | quiet
    return subprocess.run(
        call, cwd=notebook.parent, env=settings, timeout=PATIENCE_S, text=True, capture_output=True, check=False
    )


def test_the_committed_outputs_are_of_one_execution_and_name_no_folder_of_a_machine():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    content = NOTEBOOK.read_text()
    assert not any(word in content for word in ("/home/", "/tmp/", "/root/", "Traceback"))
    assert {output["output_type"] for cell in outputs(NOTEBOOK) for output in cell} == {"execute_result"}


@pytest.mark.slow
def test_the_notebook_runs_and_makes_the_versions_that_its_outputs_name(tmp_path, prefect_home):
    copied = Path(copy(NOTEBOOK, tmp_path))
    done = execute(copied, prefect_home)
    assert done.returncode == 0, done.stderr
    committed, executed = outputs(NOTEBOOK), outputs(copied)
    assert [[*map(kinds, cell)] for cell in executed] == [[*map(kinds, cell)] for cell in committed]
    assert VERSION.findall(text(executed)) == VERSION.findall(text(committed)) != []
    store = Store(tmp_path / "runs" / "notebook")
    stages = [ref.stage for ref in store.versions()]
    assert (stages.count("models"), stages.count("triples"), stages.count("samples")) == (5, 5, 3)
    assert check_run(store)["problems"] == []
    assert "Prefect" not in copied.read_text()  # no warning that it was lost


def kinds(output: dict[str, Any]) -> tuple[str, ...]:
    return output["output_type"], *output.get("data", {})


@pytest.mark.slow
def test_a_notebook_shows_an_error_as_its_message_without_a_traceback(tmp_path, prefect_home):
    cell = {"cell_type": "code", "id": "a", "execution_count": None, "metadata": {}, "outputs": [], "source": FAILING}
    notebook = tmp_path / "failing.ipynb"
    notebook.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    done = execute(notebook, prefect_home)
    assert done.returncode != 0
    assert "iterations: expected a whole number (found 'many')" in done.stderr
    assert "load_config(" not in done.stderr.partition("error:")[2]
