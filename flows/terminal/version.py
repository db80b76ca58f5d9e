"""The lines of `hir show`: a version's manifest, files and columns, and rows of a table as `hir head` shows them too.

Reads the manifest and, its digests checked, the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flows.terminal.formatting import NOTHING, age, folded, number, printable, size
from hir_core.inspect.rows import head
from hir_core.schemas import SCHEMAS
from hir_core.store.manifest import Manifest
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

LABEL = 12
FILES_SHOWN = 8
ITEMS_SHOWN = 12
DIGEST_DIGITS = 10


def describe(store: Store, ref: VersionRef) -> dict[str, Any]:
    """The manifest of a version as plain values, with its run and folder, and its released files."""
    manifest = store.manifest(ref)
    return {
        "run": store.run_dir.name,
        "path": str(ref.path),
        **manifest.model_dump(),
        "released": store.released(ref),
    }


def first_rows(store: Store, ref: VersionRef, count: int) -> list[dict[str, Any]]:
    """The first rows of a version's table; none of a model, which holds no table.

    Raises:
        VersionCorrupt: a file is not what the manifest says.
    """
    return head(store, ref, count).to_dicts() if ref.stage in SCHEMAS and count else []


def version_text(store: Store, ref: VersionRef, width: int) -> Iterator[str]:
    """The lines about a version but for its rows: manifest, config, metrics, files and columns."""
    manifest = store.manifest(ref)
    yield f"{ref} of {store.run_dir.name} · iteration {ref.iteration}"
    yield from _labelled("folder", str(ref.path), width)
    yield from _labelled("committed", f"{manifest.created} ({age(manifest.created)} ago)", width)
    yield from _labelled("code", f"hir {manifest.code_version}", width)
    yield from _labelled("parents", " · ".join(manifest.parents) or "none", width)
    yield from _labelled("rows", _row_counts(manifest), width)
    yield from _block("config", flat(manifest.config), width)
    yield from _block("metrics", flat(manifest.metrics), width)
    yield from _files(manifest, store.released(ref))
    yield from _block("columns", _columns(manifest), width)


def rows_text(rows: list[dict[str, Any]], width: int) -> Iterator[str]:
    """The rows of a table one below another, each value beside the name of its column."""
    for number_of_row, row in enumerate(rows, 1):
        yield ""
        yield f"row {number_of_row}"
        yield from _pairs([(name, _value(value)) for name, value in row.items()], width)


def _row_counts(manifest: Manifest) -> str:
    """How many rows came in, were kept and were rejected, and why."""
    if manifest.rows is None:
        return NOTHING
    if manifest.rows_in is None:
        return number(manifest.rows)
    reasons = ", ".join(f"{reason} {number(count)}" for reason, count in manifest.rejected.items())
    rejected = number(sum(manifest.rejected.values()))
    text = f"{number(manifest.rows_in)} in = {number(manifest.rows)} rows + {rejected} rejected"
    return f"{text} ({reasons})" if reasons else text


def _columns(manifest: Manifest) -> list[tuple[str, str]]:
    """Name and type of each column that the manifest lists."""
    pairs = (column.split(" ", 1) for column in manifest.table_schema.split(", ") if column)
    return [(name, dtype) for name, dtype in pairs]


def _files(manifest: Manifest, released: Mapping[str, str]) -> Iterator[str]:
    """The files of a version; a released file has the reason for which `hir gc` deleted it."""
    existing = [part for part in manifest.parts if part.name not in released]
    yield f"{'files':<{LABEL}}{len(existing)} · {size(sum(part.bytes for part in existing))}"
    for part in manifest.parts[:FILES_SHOWN]:
        rows = "" if part.rows is None else f" · {number(part.rows)} rows"
        why = f" · deleted: {printable(released[part.name])}" if part.name in released else ""
        yield f"  {part.name} · {size(part.bytes)}{rows} · sha256 {part.sha256[:DIGEST_DIGITS]}…{why}"
    if len(manifest.parts) > FILES_SHOWN:
        yield f"  … and {len(manifest.parts) - FILES_SHOWN} more"


def _labelled(label: str, text: str, width: int) -> Iterator[str]:
    for place, line in enumerate(folded(text, width - LABEL)):
        yield f"{'' if place else label:<{LABEL}}{line}"


def _block(label: str, pairs: list[tuple[str, str]], width: int) -> Iterator[str]:
    if pairs:
        yield label
        yield from _pairs(pairs, width)


def _pairs(pairs: list[tuple[str, str]], width: int) -> Iterator[str]:
    """Names in one column, long values folded in another."""
    indent = max((len(name) for name, _ in pairs), default=0) + 4
    for name, value in pairs:
        for place, line in enumerate(folded(value, max(20, width - indent))):
            yield f"  {'' if place else printable(name):<{indent - 2}}{line}"


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as pairs of a dotted name, `a.b`, and its value as text."""
    if isinstance(value, dict) and value:
        return [pair for key, item in value.items() for pair in flat(item, f"{name}.{key}" if name else key)]
    return [(name, _value(value))] if name else []


def _value(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        items = ", ".join(_value(item) for item in value[:ITEMS_SHOWN])
        more = f", … ({len(value)} in all)" if len(value) > ITEMS_SHOWN else ""
        return f"[{items}{more}]"
    return str(value)
