"""Configuration of a comparison (`hir compare`): methods x tasks x seeds, merged into one `RunConfig` for each arm.

Reads the comparison's YAML file and that of its base. Raises ConfigError with every problem at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from hir_core.config.load import find_config, parse_config, parse_section, read_settings
from hir_core.config.run import RunConfig
from hir_core.config.section import Section, folder_name
from hir_core.errors import ConfigError

Changes = dict[str, Any]
"""Settings that replace those of the base, nested as in a config file."""


class CompareConfig(Section):
    """A comparison of methods. Every method is run on every task (or on those in its `only`) with every seed."""

    compare: str
    """Name of the comparison, and of its folder in `runs_dir`."""
    runs_dir: Path = Path("runs")
    """Folder that contains the folders of comparisons and runs."""
    base: str
    """The configuration that all arms share: a path relative to this file, or the name of a shipped recipe."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """Seeds with which every method is run on every task."""
    tasks: dict[str, Changes] = Field(min_length=1)
    """Changes to the base by name of the task."""
    methods: dict[str, Changes] = Field(min_length=1)
    """Changes to the base and the task by name of the method. `only: [task, ...]` restricts a method to some tasks."""
    reference: str
    """Name of the method that the others are compared with."""

    _compare_is_a_folder_name = field_validator("compare")(folder_name)

    @model_validator(mode="after")
    def _reference_is_a_method(self) -> CompareConfig:
        if self.reference not in self.methods:
            raise ValueError(f"reference `{self.reference}` is none of the methods: {', '.join(self.methods)}")
        return self

    @model_validator(mode="after")
    def _only_is_a_list(self) -> CompareConfig:
        for name, changes in self.methods.items():
            only = changes.get("only", [])
            if not isinstance(only, list):
                raise ValueError(f"methods.{name}.only: expected a list of tasks, found {only!r}")
        return self

    @property
    def folder(self) -> Path:
        """The folder that contains the runs of all arms and the results."""
        return self.runs_dir / self.compare


@dataclass(frozen=True)
class Arm:
    """One run of the comparison: a method on a task with a seed."""

    task: str
    method: str
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """The arm in words."""
        return f"{self.task} · {self.method} · seed {self.seed}"


def load_comparison(path: Path, recipes: Path, changes: Sequence[str] = ()) -> tuple[CompareConfig, list[Arm]]:
    """A comparison and all of its arms, each checked before the first one runs.

    Args:
        path: the comparison's YAML file.
        recipes: the folder of the shipped recipes, for a `base` that is a name.
        changes: `key.sub=value` changes to the comparison.

    Raises:
        ConfigError: lists every problem of the comparison, or of its first arm that is wrong.
    """
    settings = read_settings(path, changes)
    if "run" in settings and "compare" not in settings:
        raise ConfigError(f"{path} is a single run and no comparison: start it with `hir run`")
    comparison = parse_section(CompareConfig, settings, str(path))
    base = read_settings(find_config(comparison.base, recipes, path.parent, "base: "))
    arms = [
        _arm(comparison, base, task, method, seed)
        for task in comparison.tasks
        for seed in comparison.seeds
        for method, method_changes in comparison.methods.items()
        if task in method_changes.get("only", comparison.tasks)
    ]
    return comparison, arms


def _arm(comparison: CompareConfig, base: Changes, task: str, method: str, seed: int) -> Arm:
    method_changes = {key: value for key, value in comparison.methods[method].items() if key != "only"}
    names = {"run": f"{task}-{seed}", "runs_dir": str(comparison.folder), "seed": seed, "branch": method}
    settings = merged(merged(merged(base, comparison.tasks[task]), method_changes), names)
    return Arm(task, method, seed, parse_config(settings, f"{comparison.compare}: {task}, {method}"))


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> Changes:
    """Settings with changes on top: sections of the same `type` are merged, everything else is replaced."""
    result = dict(settings)
    for key, new in changes.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(new, dict) and new.get("type", old.get("type")) == old.get("type"):
            result[key] = merged(old, new)
        else:
            result[key] = new
    return result
