"""Comparisons: methods by tasks by seeds, what each arm runs, and what the arms' accuracies say together.

All methods of one task and seed share a run directory, so the warm start, its evaluation and the first samples are
made once and are the same for all of them; from the first difference on, a method's versions fork. Reads YAML; leaves
running the arms and drawing to `flows`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import polars as pl
from pydantic import Field, field_validator, model_validator

from hir_core.config import RunConfig, checked, find_config, parse_config, read_settings
from hir_core.errors import ConfigError
from hir_core.sections import Part, folder_name

Changes = dict[str, Any]

# Student's t at 97.5 % for 1, 2, ... degrees of freedom; beyond these the normal quantile is near enough.
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_NORMAL975 = 1.96


class CompareConfig(Part):
    """Which arms are compared: every method on every task that it is meant for, with every seed."""

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
    return comparison, [_arm(comparison, base, *names) for names in _names(comparison)]


def _names(comparison: CompareConfig) -> Iterator[tuple[str, int, str]]:
    for task in comparison.tasks:
        for seed in comparison.seeds:
            for method, changes in comparison.methods.items():
                if task in changes.get("only", comparison.tasks):
                    yield task, seed, method


def _arm(comparison: CompareConfig, base: Changes, task: str, seed: int, method: str) -> Arm:
    changes = {name: value for name, value in comparison.methods[method].items() if name != "only"}
    place = {"run": f"{task}-{seed}", "runs_dir": str(comparison.folder), "seed": seed, "line": method}
    settings = merged(merged(merged(base, comparison.tasks[task]), changes), place)
    return Arm(task, method, seed, parse_config(settings, f"{comparison.compare}: {task}, {method}"))


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> Changes:
    """Settings with changes on top: sections are merged, one of another `type` and anything else is replaced."""
    result = dict(settings)
    for name, value in changes.items():
        old = result.get(name)
        result[name] = merged(old, value) if _are_one_section(old, value) else value
    return result


def _are_one_section(old: Any, new: Any) -> TypeGuard[Changes]:
    return isinstance(old, dict) and isinstance(new, dict) and new.get("type", old.get("type")) == old.get("type")


# --- results ---------------------------------------------------------------------------------------------------------


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and its 95 % interval by Student's t; one value says nothing of its spread, so its interval is infinite.

    mean ± t(n - 1) * s / sqrt(n), with s the sample standard deviation.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, -math.inf, math.inf
    freedom = len(values) - 1
    t = _T975[freedom - 1] if freedom <= len(_T975) else _NORMAL975
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def last_points(curves: pl.DataFrame) -> pl.DataFrame:
    """The last iteration of each arm.

    Args:
        curves: one row per arm and iteration, with `task`, `method`, `seed`, `iteration` and `accuracy`.
    """
    return curves.filter(pl.col("iteration") == pl.col("iteration").max().over("task", "method", "seed"))


def paired(curves: pl.DataFrame, method: str, reference: str) -> pl.DataFrame:
    """How far a method ends ahead of the reference: a row with the `gap` for every `task` and `seed` that both ran."""
    last = last_points(curves).select("task", "seed", "method", "accuracy")
    of = {name: last.filter(pl.col("method") == name) for name in (method, reference)}
    both = of[method].join(of[reference], on=["task", "seed"], suffix="_reference")
    return both.select("task", "seed", gap=pl.col("accuracy") - pl.col("accuracy_reference"))


def differences(pairs: pl.DataFrame) -> list[float]:
    """The mean gap over the tasks, seed by seed."""
    return pairs.group_by("seed").agg(pl.col("gap").mean()).sort("seed")["gap"].to_list()


def verdict(curves: pl.DataFrame, method: str, reference: str) -> str:
    """One sentence on whether a method is ahead of the reference, and whether the seeds show it."""
    pairs = paired(curves, method, reference)
    gaps = differences(pairs)
    mean, low, high = t_interval(gaps)
    where = f"{_counted(pairs['task'].n_unique(), 'task')}, {_counted(len(gaps), 'seed')}"
    if len(gaps) < 2:
        return f"{method} ends {_points(mean)} {reference} ({where}): one seed shows nothing"
    shown = "" if low > 0 or high < 0 else ": not shown"
    return f"{method} ends {_points(mean)} {reference} [{100 * low:+.1f}, {100 * high:+.1f}] ({where}){shown}"


def _points(gap: float) -> str:
    return f"{abs(100 * gap):.1f} points {'ahead of' if gap >= 0 else 'behind'}"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
