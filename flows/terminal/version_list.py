"""`hir ls`: what runs there are, and what versions a run holds. Reads manifests and file sizes, never the data."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.terminal.formatting import NOTHING, accuracy, age, columns, number, printable, size
from hir_core.errors import StoreError
from hir_core.store.manifest import STAGES, Manifest
from hir_core.store.references import find_runs
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

Facts = dict[str, Any]
INSTRUCTIONS_SHOWN = 3
RELEASED_TEXT = "weights released"


def describe_runs(runs_dir: Path) -> list[Facts]:
    """What is known of each run: iterations, the last model's accuracy, bytes on disk, last change."""
    return [_describe_run(path) for path in find_runs(runs_dir)]


def describe_versions(run_dir: Path) -> list[Facts]:
    """What is known of each version of a run, in the order of the loop; one that is damaged says so."""
    store = Store(run_dir)
    refs = sorted(store.versions(), key=lambda ref: (ref.iteration, STAGES.index(ref.stage), ref.id))
    return [_describe_version(store, ref) for ref in refs]


def runs_text(runs: list[Facts]) -> list[str]:
    """The lines of `hir ls`."""
    header = ("run", "iterations", "accuracy [95 %]", "size", "changed")
    rows = [
        (
            run["run"],
            number(run["iterations"]),
            accuracy(run["evaluation"]),
            size(run["bytes"]),
            f"{age(run['changed'])} ago",
        )
        for run in runs
    ]
    return columns(header, rows, right=(1, 3, 4))


def versions_text(versions: list[Facts]) -> list[str]:
    """The lines of `hir ls RUN`."""
    header = ("iteration", "version", "rows", "rejected", "size", "age", "")
    several = len({facts["run"] for facts in versions}) > 1
    return columns(header, [_version_cells(facts, several) for facts in versions], right=(0, 2, 3, 4, 5))


def metric(manifest: Manifest) -> Facts:
    """The one measurement of a version that matters most, by name; empty where its stage has none."""
    return METRICS[manifest.stage](manifest)


def metric_text(stage: str, facts: Facts) -> str:
    """The same for a person."""
    if not facts:
        return ""
    if stage == "evaluations":
        return f"accuracy {accuracy(facts)}"
    if stage == "triples":
        return _shares(facts["instructions"])
    (name, value), *_ = facts.items()
    return f"{name.replace('_', ' ')} {number(value, '.3f' if value is not None and value < 100 else ',.0f')}"


def _shares(shares: dict[str, float]) -> str:
    """The most frequent instructions, in the order given, and how many more there are."""
    most = sorted(shares, key=lambda name: -shares[name])[:INSTRUCTIONS_SHOWN]
    told = [f"{share:.0%} {printable(name)}" for name, share in shares.items() if name in most]
    return " · ".join(told) + (f" · {len(shares) - len(most)} more" if len(shares) > len(most) else "")


def _evaluation_metric(manifest: Manifest) -> Facts:
    overall = manifest.metrics.get("overall", {})
    return {name: overall[name] for name in ("accuracy", "low", "high", "majority_baseline") if name in overall}


def _mix(manifest: Manifest) -> Facts:
    """Each instruction's share, under the name that the config has for it."""
    counts = dict(sorted(manifest.metrics.get("instructions", {}).items()))  # one order in every row
    named = manifest.config.get("relabel", {}).get("instructions", {})
    names = {text: name for name, text in named.items()}
    total = sum(counts.values())
    return {"instructions": {names.get(text, text): count / total for text, count in counts.items()}} if total else {}


def _one(name: str) -> Callable[[Manifest], Facts]:
    return lambda manifest: {name: manifest.metrics[name]} if name in manifest.metrics else {}


METRICS: dict[str, Callable[[Manifest], Facts]] = {
    "prompts": lambda _: {},
    "samples": _one("tokens_per_s"),
    "rewards": _one("correct_share"),
    "instructions": _one("verified_share"),
    "triples": _mix,
    "models": _one("loss"),
    "evaluations": _evaluation_metric,
}


def _describe_run(path: Path) -> Facts:
    store = Store(path)
    models, evaluations = store.versions("models"), store.versions("evaluations")
    found, changed = _disk(path)
    return {
        "run": path.name,
        "iterations": models[-1].iteration if models else None,
        "evaluation": _last_evaluation(store) if evaluations else {},
        "bytes": found,
        "changed": datetime.fromtimestamp(changed, UTC).isoformat(),
    }


def _last_evaluation(store: Store) -> Facts:
    try:
        return metric(store.manifest(store.resolve("evaluations@latest")))
    except StoreError:  # damaged: `hir ls RUN` says how, and the other runs must still be listed
        return {}


def _disk(folder: Path) -> tuple[int, float]:
    """Bytes below a folder and the time of its last change; a writer may be at work in it."""
    total, changed = 0, folder.stat().st_mtime
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                stat = (Path(place) / name).lstat()
            except FileNotFoundError:
                continue
            total, changed = total + stat.st_size, max(changed, stat.st_mtime)
    return total, changed


def _describe_version(store: Store, ref: VersionRef) -> Facts:
    facts: Facts = {"run": store.run_dir.name, "stage": ref.stage, "id": ref.id, "iteration": ref.iteration}
    try:
        manifest = store.manifest(ref)
        gone = store.released(ref) if ref.stage == "models" else {}
    except StoreError as error:
        return {**facts, "problem": str(error)}
    return {
        **facts,
        "rows": manifest.rows,
        "rejected": sum(manifest.rejected.values()),
        "bytes": sum(part.bytes for part in manifest.parts if part.name not in gone),
        "created": manifest.created,
        "metric": metric(manifest),
        "has_all_files": not gone,
    }


def _version_cells(facts: Facts, with_run: bool) -> tuple[str, ...]:
    run = f"{facts['run']}/" if with_run else ""
    name = (str(facts["iteration"]), f"{run}{facts['stage']}/{facts['id']}")
    if "problem" in facts:
        return (*name, NOTHING, NOTHING, NOTHING, NOTHING, f"damaged: {facts['problem']}")
    return (
        *name,
        number(facts["rows"]),
        number(facts["rejected"] or None),
        size(facts["bytes"]),
        age(facts["created"]),
        " · ".join(
            filter(
                None, [metric_text(facts["stage"], facts["metric"]), "" if facts["has_all_files"] else RELEASED_TEXT]
            )
        ),
    )
