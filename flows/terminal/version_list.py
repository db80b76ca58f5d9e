"""The tables of `hir ls`: all runs, or the versions of a run. Reads manifests and file sizes, never the data."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from flows.terminal.formatting import NOTHING, accuracy, age, columns, number, printable, size
from hir_core.errors import StoreError
from hir_core.store.manifest import STAGES, Manifest
from hir_core.store.references import find_runs
from hir_core.store.store import Store
from hir_core.store.version import is_optimizer_state

Metric = dict[str, Any]
"""The measurement of a version that matters most, by name; an accuracy has its interval beside it."""
METRIC_NAMES = {
    "samples": "tokens_per_s",
    "rewards": "correct_share",
    "instructions": "verified_share",
    "models": "loss",
}
"""The metric to show, by stage; triples and evaluations have more than one number."""
INSTRUCTIONS_SHOWN = 3
RELEASED_TEXT = "weights deleted"


class RunSummary(TypedDict):
    """A run in the list of runs; `evaluation` is that of its last model, empty where there is none."""

    run: str
    iterations: int | None
    evaluation: Metric
    bytes: int
    changed: str


class VersionSummary(TypedDict):
    """A version in the list of versions; a damaged one has a `problem` instead of what its manifest says."""

    run: str
    stage: str
    id: str
    iteration: int
    problem: NotRequired[str]
    rows: NotRequired[int | None]
    rejected: NotRequired[int]
    bytes: NotRequired[int]
    created: NotRequired[str]
    metric: NotRequired[Metric]
    has_all_files: NotRequired[bool]
    """False for a model without its weights; the state of its optimizer is not counted."""


# --- runs ------------------------------------------------------------------------------------------------------------


def describe_runs(runs_dir: Path) -> list[RunSummary]:
    """Each run's iterations, the accuracy of its last model, size on disk and time of the last change."""
    summaries: list[RunSummary] = []
    for path in find_runs(runs_dir):
        store = Store(path)
        models = store.versions("models")
        try:
            is_evaluated = bool(store.versions("evaluations"))
            evaluation = metric(store.manifest(store.resolve("evaluations@latest"))) if is_evaluated else {}
        except StoreError:  # damaged: `hir ls RUN` says how, and the other runs must still be listed
            evaluation = {}
        bytes_on_disk, changed = _disk_usage(path)
        summaries.append(
            {
                "run": path.name,
                "iterations": models[-1].iteration if models else None,
                "evaluation": evaluation,
                "bytes": bytes_on_disk,
                "changed": datetime.fromtimestamp(changed, UTC).isoformat(),
            }
        )
    return summaries


def runs_text(runs: list[RunSummary]) -> list[str]:
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


def _disk_usage(folder: Path) -> tuple[int, float]:
    """The bytes below a folder and the time of its last change; files may vanish meanwhile, as a run writes to it."""
    total, changed = 0, folder.stat().st_mtime
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                stat = (Path(place) / name).lstat()
            except FileNotFoundError:
                continue
            total, changed = total + stat.st_size, max(changed, stat.st_mtime)
    return total, changed


# --- versions --------------------------------------------------------------------------------------------------------


def describe_versions(run_dir: Path) -> list[VersionSummary]:
    """Each version's rows, size, age and metric, in the order of the loop; of a damaged one its problem."""
    store = Store(run_dir)
    summaries: list[VersionSummary] = []
    for ref in sorted(store.versions(), key=lambda ref: (ref.iteration, STAGES.index(ref.stage), ref.id)):
        summary: VersionSummary = {
            "run": run_dir.name,
            "stage": ref.stage,
            "id": ref.id,
            "iteration": ref.iteration,
        }
        try:
            manifest = store.manifest(ref)
            released = store.released(ref) if ref.stage == "models" else {}
        except StoreError as error:
            summaries.append({**summary, "problem": str(error)})
            continue
        summaries.append(
            {
                **summary,
                "rows": manifest.rows,
                "rejected": sum(manifest.rejected.values()),
                "bytes": sum(part.bytes for part in manifest.parts if part.name not in released),
                "created": manifest.created,
                "metric": metric(manifest),
                "has_all_files": all(map(is_optimizer_state, released)),
            }
        )
    return summaries


def versions_text(versions: list[VersionSummary], width: int | None = None) -> list[str]:
    """The lines of `hir ls RUN`; of several runs, each version has its run in front.

    Args:
        width: of the terminal. Where the lines do not fit, rejected rows, sizes and intervals are left out.
    """
    lines = _version_lines(versions, is_narrow=False)
    fits = width is None or max(map(len, lines)) <= width
    return lines if fits else _version_lines(versions, is_narrow=True)


def _version_lines(versions: list[VersionSummary], *, is_narrow: bool) -> list[str]:
    header = ("iteration", "version", "rows", "rejected", "size", "age", "")
    has_several_runs = len({version["run"] for version in versions}) > 1
    rows = []
    for version in versions:
        run = f"{version['run']}/" if has_several_runs else ""
        name = (str(version["iteration"]), f"{run}{version['stage']}/{version['id']}")
        if "problem" in version:
            rows.append((*name, NOTHING, NOTHING, NOTHING, NOTHING, f"damaged: {version['problem']}"))
            continue
        measured = metric_text(version["stage"], version["metric"])
        if is_narrow and version["stage"] == "evaluations":
            measured = measured.partition(" [")[0]
        notes = [measured, "" if version["has_all_files"] else RELEASED_TEXT]
        rows.append(
            (
                *name,
                number(version["rows"]),
                number(version["rejected"] or None),
                size(version["bytes"]),
                age(version["created"]),
                " · ".join(filter(None, notes)),
            )
        )
    shown = (0, 1, 2, 5, 6) if is_narrow else range(len(header))
    cells = [[row[n] for n in shown] for row in [header, *rows]]
    return columns(cells[0], cells[1:], right=(0, 2, 3) if is_narrow else (0, 2, 3, 4, 5))


def metric(manifest: Manifest) -> Metric:
    """The measurement of a version that matters most, by name; empty where its stage has none."""
    if manifest.stage == "evaluations":
        overall = manifest.metrics.get("overall", {})
        return {name: overall[name] for name in ("accuracy", "low", "high", "majority_baseline") if name in overall}
    if manifest.stage == "triples":
        counts = dict(sorted(manifest.metrics.get("instructions", {}).items()))  # the same order for every version
        names = {text: name for name, text in manifest.config.get("relabel", {}).get("instructions", {}).items()}
        total = sum(counts.values())
        shares = {"instructions": {names.get(text, text): n / total for text, n in counts.items()}} if total else {}
        ruled_out = manifest.metrics.get("ruled_out", 0)
        return {**shares, **({"ruled_out": ruled_out} if ruled_out else {})}
    name = METRIC_NAMES.get(manifest.stage)
    return {name: manifest.metrics[name]} if name is not None and name in manifest.metrics else {}


def metric_text(stage: str, measured: Metric) -> str:
    """The metric of a version as text; of triples the most frequent instructions, and how much is ruled out."""
    if not measured:
        return ""
    if stage == "evaluations":
        return f"accuracy {accuracy(measured)}"
    if stage == "triples":
        shares: dict[str, float] = measured.get("instructions", {})
        most = sorted(shares, key=lambda name: -shares[name])[:INSTRUCTIONS_SHOWN]
        texts = [f"{share:.0%} {printable(name)}" for name, share in shares.items() if name in most]
        more = [f"{len(shares) - len(most)} more"] if len(shares) > len(most) else []
        ruled_out = [f"{number(measured['ruled_out'])} ruled out"] if "ruled_out" in measured else []
        return " · ".join([*texts, *more, *ruled_out])
    ((name, value),) = measured.items()
    return f"{name.replace('_', ' ')} {number(value, '.3f' if value is not None and value < 100 else ',.0f')}"
