"""`Identity`, which decides a version's id, and `Manifest`, the record of a committed version.

An identity consists of the stage, the iteration, the table schema, the settings that decide the result and the parent
versions. It says nothing about where or when the work is done, so an id is known before the work starts. Reads and
writes no files; `store.draft` writes manifests and `store.store` reads them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.datatypes import DataTypeClass
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hir_core.json_values import finite

if TYPE_CHECKING:
    import dataframely as dy

INSTRUCTIONS_KEPT = 20
"""Number of different values that a manifest counts one by one."""
OTHER = "other"
"""Name under which a manifest counts all further values."""


def value_counts(values: pl.Series, kept: int = INSTRUCTIONS_KEPT) -> dict[str, int]:
    """The number of occurrences of each value, the most frequent first; those beyond `kept` together as `other`."""
    counts = values.cast(pl.String).drop_nulls().value_counts(name="count")
    return largest_counts(dict(counts.iter_rows()), kept)


def largest_counts(counts: Mapping[str, int], kept: int = INSTRUCTIONS_KEPT) -> dict[str, int]:
    """The largest counts, the largest first, and the sum of those beyond `kept` as `other`."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[kept:])
    return dict(ordered[:kept]) | ({OTHER: rest} if rest else {})


STAGES = ("prompts", "samples", "rewards", "instructions", "triples", "models", "evaluations")
"""The stages of the loop, in its order; each has a folder of this name in a run."""
VERSION_ID = re.compile(r"[0-9]{4,9}-[0-9a-f]{8}")
"""The form of a version's id: iteration and hash."""
_PARENT = re.compile(rf"({'|'.join(STAGES)})/{VERSION_ID.pattern}")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Identity(_Frozen):
    """What decides the content of a version. Equal identities have equal ids, on every machine."""

    stage: str
    """One of `STAGES`."""
    iteration: int = Field(ge=0)
    """The iteration of the outer loop; 0 is what comes before the first one."""
    config: dict[str, Any]
    """The settings that decide the result, as plain JSON values."""
    parents: tuple[str, ...]
    """The versions that it is made from, as `stage/id`, in the order in which the stage takes them."""
    table_schema: str
    """Names and types of the table's columns; empty for models."""

    @field_validator("stage")
    @classmethod
    def _stage_is_known(cls, stage: str) -> str:
        if stage not in STAGES:
            raise ValueError(f"no stage `{stage}`: expected one of {', '.join(STAGES)}")
        return stage

    @field_validator("config")
    @classmethod
    def _config_is_plain(cls, config: dict[str, Any]) -> dict[str, Any]:
        # Through JSON, so that a manifest that is read back has the id with which it was written.
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
        """The id of the version: the iteration, and 8 hexadecimal digits of a digest of all fields."""
        digest = hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()
        return f"{self.iteration:04d}-{digest[:8]}"


class Part(_Frozen):
    """One file of a version."""

    name: str = Field(pattern=r"^[^/\x00]+$")
    rows: int | None = Field(ge=0)
    """Number of rows; None for a model's files."""
    bytes: int = Field(ge=0)
    """Size of the file in bytes."""
    sha256: str
    """Digest of the file, in hexadecimal."""


class Manifest(_Frozen):
    """The record of a committed version: the content of its `manifest.json`. A new one is made by `sealed`."""

    stage: str
    id: str
    iteration: int
    parents: tuple[str, ...]
    config: dict[str, Any]
    table_schema: str
    """Names and types of the table's columns; empty for models."""
    code_version: str
    """Version of hir that wrote it."""
    created: str
    """Time of the commit: ISO 8601, with its distance from UTC."""
    parts: tuple[Part, ...]
    """The files of the version."""
    rows: int | None
    """Number of rows in all parts; null for models."""
    rows_in: int | None = None
    """Number of rows that the stage was given; null if it has no such count."""
    rejected: dict[str, int] = Field(default_factory=dict)
    """Number of rows that were given and not kept, by reason."""
    metrics: dict[str, Any] = Field(default_factory=dict)
    """What the stage measured: timings, tokens, device, losses and the like."""
    sha256: str
    """Digest of all other fields, by which a change of the manifest is detected."""

    @classmethod
    def sealed(cls, **fields: Any) -> Manifest:
        """A new manifest of these fields, with their digest."""
        plain = cls.model_construct(**fields).model_dump(exclude={"sha256"})
        return cls.model_validate({**plain, "sha256": _content_digest(plain)})

    def parents_of(self, stage: str) -> list[str]:
        """The parents that are versions of this stage, as `stage/id`."""
        return [parent for parent in self.parents if parent.startswith(f"{stage}/")]

    @property
    def identity(self) -> Identity:
        """The identity that decided this version's id."""
        return Identity(
            stage=self.stage,
            iteration=self.iteration,
            config=self.config,
            parents=self.parents,
            table_schema=self.table_schema,
        )

    @field_validator("created")
    @classmethod
    def _created_is_a_time(cls, created: str) -> str:
        time = datetime.fromisoformat(created)
        if time.utcoffset() is None or not 1 < time.year < 9999:
            raise ValueError(f"expected a time with its distance from UTC, found `{created}`")
        return created

    @model_validator(mode="after")
    def _id_follows_from_identity(self) -> Manifest:
        try:
            identity_id = self.identity.id
        except ValidationError as error:
            raise ValueError("; ".join(problem["msg"] for problem in error.errors())) from None
        if self.id != identity_id:
            raise ValueError(f"it is named {self.id}, but its config and parents make {identity_id}")
        return self

    # Before the fields are validated: the digest is of the file's content, not of what pydantic makes of it.
    @model_validator(mode="before")
    @classmethod
    def _digest_is_that_of_the_content(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and raw.get("sha256") is not None and raw["sha256"] != _content_digest(raw):
            raise ValueError("it was changed after the commit: its sha256 does not match its content")
        return raw

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


def identity(
    stage: str, iteration: int, config: Mapping[str, Any], parents: Iterable[str], *, has_stop: bool = False
) -> Identity:
    """The identity of a version of a stage, with the table schema of that stage.

    Args:
        stage: one of `STAGES`.
        iteration: the iteration of the outer loop that it belongs to.
        config: the settings that decide its result (`fingerprint()` of the sections concerned), as plain JSON values.
        parents: the versions that it is made from, as `stage/id` or `VersionRef`.
        has_stop: whether a stop text can end its outputs.

    Raises:
        pydantic.ValidationError: the stage, the iteration or a parent is malformed.
    """
    return Identity(
        stage=stage,
        iteration=iteration,
        config=dict(config),
        parents=tuple(str(parent) for parent in parents),
        table_schema=table_schema(stage, has_stop=has_stop),
    )


def table_schema(stage: str, *, has_stop: bool = False) -> str:
    """Names and types of the columns of a stage's table, as one line of text; empty for models.

    Args:
        has_stop: whether a stop text can end the outputs in the table.
    """
    from hir_core.schemas import SCHEMAS, SCHEMAS_WITH_STOP

    schema = (SCHEMAS | SCHEMAS_WITH_STOP if has_stop else SCHEMAS).get(stage)
    if schema is None:
        return ""
    return ", ".join(f"{name} {type_name(column.dtype)}" for name, column in schema.columns().items())


def schema_of(version: Identity | Manifest) -> type[dy.Schema] | None:
    """The schema of a version's table; None for models."""
    from hir_core.schemas import SCHEMAS, SCHEMAS_WITH_STOP

    stage, columns = version.stage, version.table_schema
    if stage in SCHEMAS_WITH_STOP and columns == table_schema(stage, has_stop=True):
        return SCHEMAS_WITH_STOP[stage]
    return SCHEMAS.get(stage)


def code_version() -> str:
    """The installed version of hir, or `unknown` if it is not installed."""
    try:
        return importlib.metadata.version("hir")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def utc_now(after: str | None = None) -> str:
    """The current time, as in manifests; if the clock was set back to before `after`, one microsecond after that."""
    now = datetime.now(UTC)
    if after is not None:
        now = max(now, datetime.fromisoformat(after) + timedelta(microseconds=1))
    return now.isoformat(timespec="microseconds")


def canonical_json(value: Any) -> str:
    """The canonical JSON text of a value, which does not depend on the order of its keys.

    Raises:
        TypeError: the value does not consist of plain JSON types.
        ValueError: it contains NaN or an infinity.
    """
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"), sort_keys=True)


def evaluation_key(evaluation: Manifest) -> str:
    """A text that is equal for evaluations whose accuracies are comparable: same settings, same prompts."""
    return canonical_json([evaluation.config, evaluation.parents_of("prompts")])


def _content_digest(manifest: Mapping[str, Any]) -> str:
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    # Through JSON, as it is read back: a number as a key becomes a text there, and sorts as one.
    return hashlib.sha256(canonical_json(json.loads(json.dumps(finite(content)))).encode()).hexdigest()


def type_name(dtype: pl.DataType | DataTypeClass) -> str:
    """The name of a column's type in manifests."""
    # Spelled out here, because another version of polars may print types differently, and ids must not change with it.
    if isinstance(dtype, pl.List):
        return f"list[{type_name(dtype.inner)}]"
    if isinstance(dtype, pl.Struct):
        return f"struct[{'|'.join(f'{field.name} {type_name(field.dtype)}' for field in dtype.fields)}]"
    if isinstance(dtype, pl.Enum):
        return f"enum[{'|'.join(dtype.categories)}]"
    return str(dtype.base_type().__name__).lower()
