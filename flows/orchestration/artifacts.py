"""What Prefect shows of a run: a table per iteration, the learning curve, a link to the report, an asset per version.

Reads manifests. An iteration is told by the process that completes it, with all that went into it, and not again by one
that finds it there. A server that does not answer costs the run nothing: it is told no more, and the run goes on.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import httpx
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.assets import Asset, AssetProperties, add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from flows.terminal.formatting import NOTHING, accuracy, number
from flows.terminal.version_list import metric, metric_text
from hir_core.inspect.report import page_path
from hir_core.stages.run import Run
from hir_core.stages.train import Outputs
from hir_core.store.manifest import Manifest
from hir_core.store.version import VersionRef

logger = logging.getLogger(__name__)


class PrefectArtifacts:
    """What Prefect is told of one run, inside its flow; use it as a context manager, holding the run's lock."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._there = set(run.store.versions())
        self._is_linked = self._is_lost = False

    def __enter__(self) -> PrefectArtifacts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._link()

    def iteration(self, outputs: Outputs, *made_before: VersionRef | None) -> None:
        """Tells of one iteration: the versions that went into its model, the model, and what it scores."""
        refs = [ref for ref in (*made_before, outputs.model, outputs.evaluation) if ref is not None]
        if self._there.issuperset(refs):
            return
        facts = self.run.metrics(outputs.evaluation)["overall"]
        get_run_logger().info("model %d: accuracy %s", outputs.model.iteration, accuracy(facts))
        for ref in refs:
            record(self.run, ref)
        self._tell(
            create_table_artifact,
            key=artifact_key(self.run, "iteration"),
            table=iteration_table(self.run, refs),
            description=f"Iteration {outputs.model.iteration} of {self.run.config.run}: accuracy {accuracy(facts)}",
        )
        self._link()

    def _link(self) -> None:
        report = page_path(self.run.store).resolve()
        if report.is_file() and not self._is_linked:
            self._is_linked = True
            link = {"link": report.as_uri(), "link_text": f"report of {self.run.config.run}"}
            self._tell(create_link_artifact, key=artifact_key(self.run, "report"), **link)

    def _tell(self, create: Callable[..., Any], **facts: Any) -> None:
        if self._is_lost:
            return
        try:
            create(**facts)
        except (httpx.HTTPError, PrefectException) as error:  # the store is the record; each try would wait a minute
            self._is_lost = True
            logger.warning("Prefect's server takes no artifacts (%r); the run goes on without", error)


def artifact_key(run: Run, name: str) -> str:
    """The key of one of a run's artifacts: Prefect takes small letters, digits and dashes only."""
    slug = re.sub(r"[^a-z0-9]+", "-", run.config.run.lower()).strip("-")
    if slug != run.config.run:  # two names may become one
        slug += f"-{hashlib.sha256(run.config.run.encode()).hexdigest()[:6]}"
    return f"hir-{slug}-{name}"


def asset_key(run: Run, version: str) -> str:
    """The key of a version's asset; `version` is `stage/id`, which follows from the content and not from the place."""
    return f"hir://{run.config.run}/{version}"


def record(run: Run, ref: VersionRef) -> None:
    """Tells Prefect of a version as an asset that its parents went into, by a task run of the version's name."""
    manifest = run.store.manifest(ref)
    about = AssetProperties(
        name=f"{ref.stage}@{ref.iteration} of {run.config.run}",
        url=ref.path.resolve().as_uri(),
        description=f"{number(manifest.rows)} rows" if manifest.rows is not None else "weights and tokenizer",
    )
    asset = Asset(key=asset_key(run, str(ref)), properties=about)
    tell = materialize(
        asset,
        by="hir",
        asset_deps=[asset_key(run, parent) for parent in manifest.parents],
        name="record",
        task_run_name=str(ref),
        cache_policy=NO_CACHE,
        persist_result=False,
    )(add_asset_metadata)
    tell(asset.key, _asset_facts(manifest))


def iteration_table(run: Run, refs: Sequence[VersionRef]) -> list[dict[str, Any]]:
    """A row for each version of one iteration: rows in, rows, rows rejected, and what matters most of its stage."""
    return [_table_row(run.store.manifest(ref)) for ref in refs]


def _table_row(manifest: Manifest) -> dict[str, Any]:
    return {
        "version": f"{manifest.stage}/{manifest.id}",
        "rows in": number(manifest.rows_in),
        "rows": number(manifest.rows),
        "rejected": number(sum(manifest.rejected.values()) or None),
        "measured": metric_text(manifest.stage, metric(manifest)) or NOTHING,
    }


def _asset_facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "rows": manifest.rows,
        "rows_in": manifest.rows_in,
        "rejected": manifest.rejected,
        "code_version": manifest.code_version,
        "created": manifest.created,
        "bytes": sum(part.bytes for part in manifest.parts),
        "measured": metric(manifest),
    }
