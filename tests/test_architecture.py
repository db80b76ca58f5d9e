"""The structure of the code: imports point one way, functions stay small, lint and types are clean.

Imports are read from the syntax trees, those inside functions and of types included, so that nothing hides.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from hir_core.config import RunConfig, Section
from hir_core.relabelers.registry import RELABELERS
from hir_core.rewards.registry import REWARDS

CHECKOUT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for package in ("hir_core", "flows") for path in (CHECKOUT / package).rglob("*.py"))
TESTS = sorted((CHECKOUT / "tests").rglob("*.py"))
MODULE_LINES, FUNCTION_LINES = 350, 50

# Each package of hir_core, and `flows`, with the packages that it may import.
ARROWS = {
    "errors": "",
    "json_values": "",
    "light_imports": "",
    "schemas": "light_imports",
    "thinking": "",
    "progress": "",
    "supervisor": "",
    "vllm_worker": "",
    "dynamic_imports": "errors",
    "parquet_trial": "",
    "time_limit": "errors progress",
    "time_limit_worker": "supervisor",
    "tracker_process": "",
    "config": "errors json_values thinking",
    "store": "errors json_values schemas config",
    "prompts": "errors json_values schemas config dynamic_imports parquet_trial",
    "rewards": "errors json_values schemas thinking progress dynamic_imports time_limit config store prompts",
    "relabelers": "errors json_values schemas progress dynamic_imports config prompts",
    "launch": "errors progress supervisor vllm_worker config store",
    "modeling": "errors schemas progress time_limit config store launch",
    "training": "errors schemas progress config store launch modeling",
    "sampling": "errors schemas progress vllm_worker config store launch modeling",
    "worker": "errors light_imports schemas progress config store launch modeling training sampling",
    "stages": "errors schemas progress dynamic_imports time_limit config store prompts rewards relabelers launch",
    "inspect": "errors schemas dynamic_imports parquet_trial time_limit config store launch",
    "flows": "errors light_imports schemas progress supervisor dynamic_imports config store prompts rewards relabelers "
    "launch stages inspect tracker_process",
}
WITH_TORCH = {"modeling", "training", "sampling", "worker", "tracker_process"}
TORCH_SIDE = ("torch", "transformers", "deepspeed", "accelerate", "safetensors", "tokenizers", "peft")


def package_of(module: str) -> str:
    """`hir_core.rewards.exact_match` belongs to `rewards`, every module of the application to `flows`."""
    return module.split(".")[1] if module.startswith("hir_core.") else module.split(".")[0]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or anywhere below; `from a import b` counts as a, or a.b."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written out in full"
            module = str(node.module)
            yield from {f"{module}.{a.name}" if is_package(module, a.name) else module for a in node.names}


def is_package(module: str, name: str) -> bool:
    place = CHECKOUT.joinpath(*module.split("."))
    return (place / f"{name}.py").is_file() or (place / name).is_dir()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def users_of(*libraries: str) -> set[str]:
    """The packages of which a file imports one of these libraries."""
    return {
        package_of(name_of(path))
        for path in SOURCES
        for module in imports_of(path)
        if module.split(".")[0] in libraries
    }


# --- imports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ARROWS)
def test_a_package_imports_only_what_it_may(package):
    files = [path for path in SOURCES if package_of(name_of(path)) == package]
    ours = {module for path in files for module in imports_of(path) if module.split(".")[0] in ("hir_core", "flows")}
    assert files
    assert {package_of(module) for module in ours} - {package, "hir_core"} <= set(ARROWS[package].split())


def test_every_package_has_its_arrows_and_no_two_import_each_other():
    assert {package_of(name_of(path)) for path in SOURCES} - {"hir_core"} == set(ARROWS)
    known = set()
    for package, imported in ARROWS.items():  # in an order in which each one stands on what comes before it
        assert set(imported.split()) <= known, package
        known.add(package)


def test_torch_stands_in_the_packages_that_ranks_run_and_prefect_in_flows():
    assert users_of(*TORCH_SIDE) == WITH_TORCH
    assert users_of("prefect", "typer", "rich") == {"flows"}
    assert {name_of(path) for path in SOURCES if "deepspeed" in {m.split(".")[0] for m in imports_of(path)}} == {
        "hir_core.modeling.zero"
    }


def test_only_the_config_package_and_what_python_programs_import_hand_names_on():
    handing_on = (CHECKOUT / "hir_core" / "config", CHECKOUT / "flows")
    for path in SOURCES:
        if path.name == "__init__.py" and path.parent not in handing_on:
            assert [type(node) for node in tree_of(path).body] == [ast.Expr], path


def test_a_section_of_the_config_stands_in_the_file_of_its_key_and_a_type_in_the_file_of_its_name():
    for key, field in RunConfig.model_fields.items():
        for section in sections_of(field.annotation):
            assert section.__module__ == f"hir_core.config.{key}", section
    for package, types in (("rewards", REWARDS), ("relabelers", RELABELERS)):
        for name, plugin in types.items():
            assert plugin.__module__ == f"hir_core.{package}.{name}"


def sections_of(annotation: object) -> Iterator[type[Section]]:
    """The sections in the type of a field."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from sections_of(part)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("hir_core.stages.run", "torch transformers deepspeed prefect"),
        ("flows.cli.app", "torch transformers deepspeed prefect polars hir_core.config"),
        ("flows.terminal.version_list", "torch transformers deepspeed prefect dataframely hir_core.config"),
        ("hir_core.worker.__main__", "torch polars prefect"),
        ("flows.trackers", "torch accelerate"),
        ("hir_core.supervisor", "hir_core.launch.launcher pydantic polars"),
        ("hir_core.time_limit_worker", "hir_core.rewards.registry polars pydantic"),
        ("hir_core.rewards.patterns", "hir_core.rewards.registry polars"),
    ],
)
def test_what_must_start_fast_imports_nothing_heavy(module, absent):
    code = f"import sys, {module}; print(*set('{absent}'.split()) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, text=True, capture_output=True)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("", "", 0)


# --- files -----------------------------------------------------------------------------------------------------------


def test_no_module_is_named_after_nothing():
    assert {path.stem for path in SOURCES} & {"utils", "util", "common", "helpers", "base", "misc", "core"} == set()


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_modules_and_functions_are_small_and_modules_say_what_they_are(path):
    tree = tree_of(path)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions if f.end_lineno - f.lineno >= FUNCTION_LINES}
    assert long == {}
    if path in SOURCES:
        assert ast.get_docstring(tree)
        assert len(path.read_text().splitlines()) <= MODULE_LINES


def calls_of(path: Path) -> Iterator[str]:
    """Every function that a file calls, as it is written there, and every keyword that it passes with its value."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)
            yield from (f"{keyword.arg}={ast.unparse(keyword.value)}" for keyword in node.keywords)


def test_sources_run_no_shell_no_foreign_code_and_no_pickles():
    called = {"eval", "exec", "os.system", "os.popen", "torch.load", "yaml.unsafe_load", "yaml.full_load"}
    passed = {"shell", "trust_remote_code", "allow_pickle", "weights_only"}
    imported = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    calls = {(name_of(path), call) for path in SOURCES for call in calls_of(path)}
    found = {f"{name}: {call}" for name, call in calls if call in called or call.partition("=")[0] in passed}
    found |= {f"{name_of(path)}: {module}" for path in SOURCES for module in imports_of(path) if module in imported}
    assert found == {"hir_core.modeling.models: trust_remote_code=False"}


def test_whatever_loads_a_model_says_that_code_beside_it_is_not_run():
    for path in SOURCES:
        loading = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call) and "from_pretrained" in
                   ast.unparse(node.func) and "save" not in ast.unparse(node.func)]  # fmt: skip
        told = [node for node in loading if "trust_remote_code" in {keyword.arg for keyword in node.keywords}]
        assert loading == told, path


def test_the_top_level_holds_only_what_was_agreed():
    agreed = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "flows", "hir_core", "ds_configs", "tests"}
    made = {"runs", "build", "dist", "hir.egg-info"}  # ignored by git
    there = {path.name for path in CHECKOUT.iterdir() if not path.name.startswith(".")}
    assert there - made <= agreed


def test_the_wheel_is_made_of_all_packages_with_their_data():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == ["flows", "hir_core", "ds_configs"]  # hatchling takes every file below that git does not ignore
    assert project["project"]["scripts"] == {"hir": "flows.cli.app:app"}
    data = [
        path
        for package in packages
        for path in (CHECKOUT / package).rglob("*")
        if path.suffix in (".yaml", ".json", ".html", ".css")
    ]
    assert {path.suffix for path in data} == {".yaml", ".json", ".html", ".css"}
    if (CHECKOUT / ".git").exists():
        ignored = subprocess.run(["git", "check-ignore", *map(str, data)], cwd=CHECKOUT, text=True, capture_output=True)
        assert ignored.stdout == ""


# --- checks by other programs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", ["ruff check .", "ruff format --check .", "mypy"])
def test_lint_and_types_are_clean(check):
    done = subprocess.run([sys.executable, "-m", *check.split()], cwd=CHECKOUT, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_the_line_that_the_readme_gives():
    line = subprocess.run([CHECKOUT / ".ci" / "run", "--print"], text=True, capture_output=True, check=True).stdout
    assert line == 'pip install -e ".[dev]" && pytest -n 3 --dist loadfile -m "slow or not slow"\n'
    text = (CHECKOUT / "README.md").read_text()
    assert re.search(r"^## Test.*\n+```\w*\n" + re.escape(line) + "```$", text, re.MULTILINE)
    assert os.access(CHECKOUT / ".ci" / "run", os.X_OK)
