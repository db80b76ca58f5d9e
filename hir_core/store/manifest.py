"""Manifests: what decides a version (`Identity`) and what is known about it once it is committed (`Manifest`).

An identity holds the stage, iteration, table schema, result-changing config and parent versions, and nothing about
where or when the work was done; so an id is known before the work starts. Reads and writes no files; the store does.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from polars.datatypes import DataTypeClass
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hir_core.store.files import finite

INSTRUCTIONS_KEPT = 20
OTHER = "other"


def value_counts(values: pl.Series, kept: int = INSTRUCTIONS_KEPT) -> dict[str, int]:
    """How often each value stands there, the most frequent first; those beyond `kept` count together as `other`."""
    named = (
        values.cast(pl.String)
        .drop_nulls()
        .value_counts(name="count")
        .sort("count", values.name, descending=[True, False])
    )
    rest = sum(named["count"][kept:])
    return dict(named.head(kept).iter_rows()) | ({OTHER: rest} if rest else {})


STAGES = ("prompts", "samples", "rewards", "instructions", "triples", "models", "evaluations")
VERSION_ID = re.compile(r"\d{4,}-[0-9a-f]{8}")
_PARENT = re.compile(rf"({'|'.join(STAGES)})/{VERSION_ID.pattern}")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Identity(_Frozen):
    """What decides the content of a version: equal identities, equal id, on every machine."""

    stage: str
    iteration: int = Field(ge=0)
    config: dict[str, Any]
    parents: tuple[str, ...]
    """Parent versions as `stage/id`, in the order in which the stage takes them."""
    table_schema: str

    @field_validator("stage")
    @classmethod
    def _stage_is_known(cls, stage: str) -> str:
        if stage not in STAGES:
            raise ValueError(f"no stage `{stage}`: expected one of {', '.join(STAGES)}")
        return stage

    @field_validator("config")
    @classmethod
    def _config_is_plain(cls, config: dict[str, Any]) -> dict[str, Any]:
        # Through JSON once, so that the id of a manifest read back is the id it was written with.
        plain: dict[str, Any] = json.loads(canonical_json(config))
        return plain

    @field_validator("parents")
    @classmethod
    def _parents_are_versions(cls, parents: tuple[str, ...]) -> tuple[str, ...]:
        for parent in parents:
            if not _PARENT.fullmatch(parent):
                raise ValueError(f"`{parent}` names no version: expected stage/id, as in models/0002-ab12cd34")
        return parents

    def parents_of(self, stage: str) -> list[str]:
        """The parents that are versions of this stage, as `stage/id`."""
        return [parent for parent in self.parents if parent.startswith(f"{stage}/")]

    @property
    def id(self) -> str:
        """The version's name: the iteration, and 8 hexadecimal digits of a digest of everything above."""
        digest = hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()
        return f"{self.iteration:04d}-{digest[:8]}"


class Part(_Frozen):
    """One file of a version."""

    name: str
    rows: int | None
    """Null where the file is not a table's."""
    bytes: int
    sha256: str


class Manifest(_Frozen):
    """All that is known about a committed version, as its `manifest.json` says it."""

    stage: str
    id: str
    iteration: int
    parents: tuple[str, ...]
    config: dict[str, Any]
    table_schema: str
    """Columns and types that every table of the stage has; empty for models."""
    code_version: str
    created: str
    """When it was committed: UTC, ISO 8601."""
    parts: tuple[Part, ...]
    rows: int | None
    """Rows of all parts together; null for models."""
    rows_in: int | None = None
    """Rows that the stage was given; null where it has no such count."""
    rejected: dict[str, int] = Field(default_factory=dict)
    """Rows that were given but not kept, counted by reason."""
    metrics: dict[str, Any] = Field(default_factory=dict)
    """Timings, tokens, device, losses: whatever the stage measured."""
    sha256: str | None = None
    """Digest of all the above, by which a manifest that was changed is found; null in those of early releases."""

    def parents_of(self, stage: str) -> list[str]:
        """The parents that are versions of this stage, as `stage/id`."""
        return [parent for parent in self.parents if parent.startswith(f"{stage}/")]

    @property
    def identity(self) -> Identity:
        """What decided this version."""
        return Identity(
            stage=self.stage,
            iteration=self.iteration,
            config=self.config,
            parents=self.parents,
            table_schema=self.table_schema,
        )

    @model_validator(mode="after")
    def _id_follows_from_identity(self) -> Manifest:
        if self.id != self.identity.id:
            raise ValueError(f"it is named {self.id}, but its config and parents make {self.identity.id}")
        return self

    # Before the fields are looked at: what stands in the file is digested, not what this release makes of it.
    @model_validator(mode="before")
    @classmethod
    def _is_what_was_written(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and raw.get("sha256") is not None and raw["sha256"] != _content_digest(raw):
            raise ValueError("it was changed after the commit: its sha256 is that of another content")
        return raw

    def sealed(self) -> dict[str, Any]:
        """The content of the manifest's file, as plain JSON values with their digest."""
        plain = self.model_dump(exclude={"sha256"})
        return {**plain, "sha256": _content_digest(plain)}

    @model_validator(mode="after")
    def _every_row_is_accounted_for(self) -> Manifest:
        if self.rows_in is None:
            return self
        if self.rows is None:
            raise ValueError(f"{self.rows_in} rows went in, but {self.stage} have no rows: leave rows_in out")
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(self.rejected.items())) or "none"
        missing = self.rows_in - self.rows - sum(self.rejected.values())
        if missing or any(count < 0 for count in self.rejected.values()):
            raise ValueError(
                f"{self.rows_in} rows in, {self.rows} rows out, rejected {reasons}: {missing} rows are unaccounted for"
            )
        return self


def identity(stage: str, iteration: int, config: Mapping[str, Any], parents: Iterable[str]) -> Identity:
    """The identity of a version of this stage, its table schema filled in from `SCHEMAS`.

    Args:
        stage: one of `STAGES`.
        iteration: which round of the loop it belongs to.
        config: the settings that decide its result (`fingerprint()` of the parts concerned), as plain JSON values.
        parents: the versions it is made from, each as `stage/id`; a `VersionRef` written with `str()` is one.

    Raises:
        pydantic.ValidationError: the stage, iteration or a parent is not one.
    """
    return Identity(
        stage=stage,
        iteration=iteration,
        config=dict(config),
        parents=tuple(str(parent) for parent in parents),
        table_schema=table_schema(stage),
    )


def table_schema(stage: str) -> str:
    """Names and types of the columns that every table of a stage has, in one line; empty for models."""
    from hir_core.schemas import SCHEMAS, optional_columns

    if stage not in SCHEMAS:
        return ""
    schema = SCHEMAS[stage]
    always = {name: column for name, column in schema.columns().items() if name not in optional_columns(schema)}
    return ", ".join(f"{name} {type_name(column.dtype)}" for name, column in always.items())


def code_version() -> str:
    """The installed version of hir, or `unknown` when it runs from a checkout."""
    try:
        return importlib.metadata.version("hir")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def utc_now(after: str | None = None) -> str:
    """This moment, as manifests write it; where a clock was set back to before `after`, the moment next to that one."""
    now = datetime.now(UTC)
    if after is not None:
        now = max(now, datetime.fromisoformat(after) + timedelta(microseconds=1))
    return now.isoformat(timespec="microseconds")


def canonical_json(value: Any) -> str:
    """The one JSON text of a value, whatever the order of its keys.

    Raises:
        TypeError: the value is not made of plain JSON types.
        ValueError: it holds NaN or an infinity.
    """
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"), sort_keys=True)


def evaluation_key(evaluation: Manifest) -> str:
    """What an evaluation asks and how it scores; accuracies are comparable where this is the same."""
    return canonical_json([evaluation.config, evaluation.parents_of("prompts")])


def _content_digest(manifest: Mapping[str, Any]) -> str:
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    # Through JSON once: a number as a key is a text when it is read back, and sorts as one.
    return hashlib.sha256(canonical_json(json.loads(json.dumps(finite(content)))).encode()).hexdigest()


def type_name(dtype: pl.DataType | DataTypeClass) -> str:
    """A column's type as manifests write it."""
    # Spelled out here because polars may print a type otherwise in its next release, and ids must not change with it.
    if isinstance(dtype, pl.List):
        return f"list[{type_name(dtype.inner)}]"
    if isinstance(dtype, pl.Struct):
        return f"struct[{'|'.join(f'{field.name} {type_name(field.dtype)}' for field in dtype.fields)}]"
    if isinstance(dtype, pl.Enum):
        return f"enum[{'|'.join(dtype.categories)}]"
    return str(dtype.base_type().__name__).lower()
