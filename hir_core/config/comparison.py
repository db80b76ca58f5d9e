"""The configuration of `hir compare`: methods by tasks by seeds, merged into one `RunConfig` per arm.

All methods of one task and seed share a run directory, so the warm start, its evaluation and the first samples are made
once and are the same for all of them; from the first setting that differs on, each method has versions of its own.
Reads the comparison's YAML file and the one of its base. Raises ConfigError, which lists every problem of a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from hir_core.config.load import checked, find_config, parse_config, read_settings
from hir_core.config.run import RunConfig
from hir_core.config.section import Section, folder_name
from hir_core.errors import ConfigError

Changes = dict[str, Any]


class CompareConfig(Section):
    """A comparison: every method on every task, or on those in its `only`, with every seed."""

    compare: str
    """Name of the comparison: its folder under `runs_dir`."""
    runs_dir: Path = Path("runs")
    base: str
    """What all arms share: a config file beside this one, or the name of a shipped recipe."""
    seeds: tuple[int, ...] = Field(min_length=1)
    tasks: dict[str, Changes] = Field(min_length=1)
    """What each task changes in the base."""
    methods: dict[str, Changes] = Field(min_length=1)
    """What each method changes in the base and the task; `only: [task, ...]` keeps it to some tasks."""
    reference: str
    """The method that the others are compared with."""

    _compare_names_a_folder = field_validator("compare")(folder_name)

    @model_validator(mode="after")
    def _reference_is_a_method(self) -> CompareConfig:
        if self.reference not in self.methods:
            raise ValueError(f"reference `{self.reference}` is none of the methods: {', '.join(self.methods)}")
        return self

    @property
    def folder(self) -> Path:
        """Where the arms' runs and the results lie."""
        return self.runs_dir / self.compare


@dataclass(frozen=True)
class Arm:
    """One run of the comparison."""

    task: str
    method: str
    seed: int
    config: RunConfig


def load_comparison(path: Path, recipes: Path, changes: Sequence[str] = ()) -> tuple[CompareConfig, list[Arm]]:
    """Reads a comparison and checks every arm of it before the first one runs.

    Args:
        recipes: the folder of the shipped recipes, for a `base` that is a name.

    Raises:
        ConfigError: listing what is wrong with the comparison, or with the first arm that cannot run.
    """
    settings = read_settings(path, changes)
    if "run" in settings and "compare" not in settings:
        raise ConfigError(f"{path} is a single run and no comparison: start it with `hir run`")
    comparison = checked(CompareConfig, settings, str(path))
    base = read_settings(find_config(comparison.base, recipes, path.parent, "base: "))
    arms = [
        _arm(comparison, base, task, seed, method)
        for task in comparison.tasks
        for seed in comparison.seeds
        for method, method_changes in comparison.methods.items()
        if task in method_changes.get("only", comparison.tasks)
    ]
    return comparison, arms


def _arm(comparison: CompareConfig, base: Changes, task: str, seed: int, method: str) -> Arm:
    """The config of one arm; the methods of a task and seed share a run directory and have a branch each."""
    changes = {name: value for name, value in comparison.methods[method].items() if name != "only"}
    place = {"run": f"{task}-{seed}", "runs_dir": str(comparison.folder), "seed": seed, "branch": method}
    settings = merged(merged(merged(base, comparison.tasks[task]), changes), place)
    return Arm(task, method, seed, parse_config(settings, f"{comparison.compare}: {task}, {method}"))


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> Changes:
    """Settings with changes on top: a section is merged if it keeps its `type`, and anything else is replaced."""
    result = dict(settings)
    for name, value in changes.items():
        old = result.get(name)
        if isinstance(old, dict) and isinstance(value, dict) and value.get("type", old.get("type")) == old.get("type"):
            value = merged(old, value)
        result[name] = value
    return result
