"""What Prefect is told of a run: a task run per stage, a table per iteration, an asset per version, the report's place.

Reads manifests; writes to Prefect's API. Only the process that completes an iteration reports it. When the server does
not answer, reporting stops and the run goes on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from prefect import task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.assets import Asset, AssetProperties, add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from flows.loop import Observer
from flows.orchestration import server
from flows.terminal.formatting import NOTHING, accuracy, number
from flows.terminal.version_list import metric, metric_text
from hir_core.inspect.report import page_path
from hir_core.stages.run import Run
from hir_core.stages.train import Outputs
from hir_core.store.manifest import Manifest
from hir_core.store.version import VersionRef

T = TypeVar("T")


class PrefectObserver(Observer):
    """Tells Prefect of one run, from inside its flow.

    Args:
        say: prints a line.
    """

    def __init__(self, run: Run, say: Callable[[str], None]) -> None:
        self.run, self.say = run, say
        self._there = set(run.store.versions())
        self._is_linked = False

    def stage(self, name: str, subject: str, work: Callable[[], T]) -> T:
        """Does the work in a task run, which is called and never submitted: signals must reach the waiting thread."""

        def in_prefect(work: Callable[[], T]) -> None:
            @task(name=name, task_run_name=lambda: subject, cache_policy=NO_CACHE, persist_result=False)
            def stage() -> T:
                return work()

            stage()

        return server.shown_in_prefect(in_prefect, work, self.say)

    def iteration(self, outputs: Outputs, *inputs: VersionRef | None) -> None:
        """Reports one iteration: the versions that its model is made from, the model, and its evaluation."""
        refs = [ref for ref in (*inputs, outputs.model, outputs.evaluation) if ref is not None]
        if self._there.issuperset(refs):
            return
        overall = self.run.metrics(outputs.evaluation)["overall"]
        get_run_logger().info("model %d: accuracy %s", outputs.model.iteration, accuracy(overall))
        for ref in refs:
            self._tell(record, run=self.run, ref=ref)
        self._tell(
            create_table_artifact,
            key=artifact_key(self.run, "iteration"),
            table=iteration_table(self.run, refs),
            description=f"Iteration {outputs.model.iteration} of {self.run.config.run}: accuracy {accuracy(overall)}",
        )
        self._link()

    def end(self) -> None:
        """Links the report, where a run of no new iteration has drawn it."""
        self._link()

    def _link(self) -> None:
        report = page_path(self.run.store).resolve()
        if report.is_file() and not self._is_linked:
            self._is_linked = True
            link = {"link": report.as_uri(), "link_text": f"report of {self.run.config.run}"}
            self._tell(create_link_artifact, key=artifact_key(self.run, "report"), **link)

    def _tell(self, tell: Callable[..., Any], **content: Any) -> None:
        if server.is_lost():
            return
        try:
            tell(**content)
        except Exception as error:  # noqa: BLE001 - the store is the record: whatever Prefect raises, the run goes on
            server.lose(error, self.say)


def artifact_key(run: Run, name: str) -> str:
    """The key of one of a run's artifacts: Prefect takes small letters, digits and dashes only."""
    slug = re.sub(r"[^a-z0-9]+", "-", run.config.run.lower()).strip("-")
    if slug != run.config.run:  # two names may become one
        slug += f"-{hashlib.sha256(run.config.run.encode()).hexdigest()[:6]}"
    return f"hir-{slug}-{name}"


def asset_key(run: Run, version: str) -> str:
    """The key of a version's asset; `version` is `stage/id`, so the key does not depend on the run's folder."""
    return f"hir://{run.config.run}/{version}"


def record(run: Run, ref: VersionRef) -> None:
    """Reports a version to Prefect as an asset made from its parents, by a task run of the version's name."""
    manifest = run.store.manifest(ref)
    about = AssetProperties(
        name=f"{ref.stage}@{ref.iteration} of {run.config.run}",
        url=ref.path.resolve().as_uri(),
        description=f"{number(manifest.rows)} rows" if manifest.rows is not None else "weights and tokenizer",
    )
    asset = Asset(key=asset_key(run, str(ref)), properties=about)
    add_metadata = materialize(
        asset,
        by="hir",
        asset_deps=[asset_key(run, parent) for parent in manifest.parents],
        name="record",
        task_run_name=str(ref),
        cache_policy=NO_CACHE,
        persist_result=False,
    )(add_asset_metadata)
    add_metadata(asset.key, _asset_metadata(manifest))


def iteration_table(run: Run, refs: Sequence[VersionRef]) -> list[dict[str, Any]]:
    """A row for each version of one iteration: rows in, rows, rows rejected, and the main metric of its stage."""
    return [
        {
            "version": str(ref),
            "rows in": number(manifest.rows_in),
            "rows": number(manifest.rows),
            "rejected": number(sum(manifest.rejected.values()) or None),
            "measured": metric_text(manifest.stage, metric(manifest)) or NOTHING,
        }
        for ref in refs
        for manifest in [run.store.manifest(ref)]
    ]


def _asset_metadata(manifest: Manifest) -> dict[str, Any]:
    return {
        "rows": manifest.rows,
        "rows_in": manifest.rows_in,
        "rejected": manifest.rejected,
        "code_version": manifest.code_version,
        "created": manifest.created,
        "bytes": sum(part.bytes for part in manifest.parts),
        "measured": metric(manifest),
    }
