"""Sources of Hugging Face's `datasets`: a dataset of the hub, one saved to disk, or a folder of data files.

The library, an extra, is asked for rows only. It has run no code of a dataset's since its release 4, and nothing here
would allow it. What the columns mean once they are mapped is in `rows`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from hir_core.config import DatasetsPrompts
from hir_core.dynamic_imports import import_extra
from hir_core.errors import ConfigError, did_you_mean
from hir_core.prompts.items import Item
from hir_core.prompts.rows import Row, item_from_row

SAVED = ("state.json", "dataset_dict.json")  # what save_to_disk leaves in the folder of one split, and of several
PLAIN = (str, int, float, bool, datetime.date, datetime.time, type(None))


def read_datasets(source: DatasetsPrompts, taken: AbstractSet[str]) -> list[Item]:  # noqa: ARG001 - the readers' signature
    """Reads a dataset's rows as items, in order.

    Raises:
        ConfigError: the extra is missing, the dataset cannot be loaded, or a row is malformed; names the row.
    """
    library = import_extra("datasets", "datasets", "prompts: a source of type datasets")
    library.disable_progress_bars()
    try:
        dataset = _load(library, source)
    except Exception as error:  # files, caches and the network: anything may come
        raise ConfigError(
            f"prompts: the dataset {source.source} ({source.split}) cannot be loaded: {type(error).__name__}: {error}; "
            f"expected a dataset of the hub, a folder saved by `datasets`, or a folder of data files"
        ) from error
    if source.limit is not None:
        dataset = dataset.select(range(min(source.limit, len(dataset))))
    task = source.task or "_".join(filter(None, [Path(source.source).name, source.name]))
    return [item_from_row(row, place, task, source.seed) for place, row in _rows(dataset, source)]


def _load(library: Any, source: DatasetsPrompts) -> Any:
    folder = Path(source.source)
    if not any((folder / name).is_file() for name in SAVED):
        return library.load_dataset(source.source, source.name, split=source.split, revision=source.revision)
    saved = library.load_from_disk(source.source)
    if not isinstance(saved, dict):
        return saved
    if source.split not in saved:
        raise ValueError(f"it has no split `{source.split}`, only {', '.join(saved)}")
    return saved[source.split]


def _rows(dataset: Any, source: DatasetsPrompts) -> Iterator[tuple[str, Row]]:
    labels = {name: feature for name, feature in dataset.features.items() if hasattr(feature, "int2str")}
    for number, row in enumerate(dataset, start=1):
        place = f"{source.source} ({source.split}) row {number}"
        named = {name: feature.int2str(row[name]) for name, feature in labels.items() if row[name] is not None}
        yield place, _mapped(row | named, source.columns, place)


def _mapped(row: Row, columns: Mapping[Any, str], place: str) -> Row:
    """The row under hir's names, what is not mapped in its metadata; as it is where nothing is mapped."""
    if not columns:
        return {name: value for name, value in row.items() if _is_plain(value)}
    used = {column if column in row else column.partition(".")[0] for column in columns.values()}
    rest = {name: value for name, value in row.items() if name not in used and _is_plain(value)}
    return {"metadata": rest} | {name: _value(row, column, place) for name, column in columns.items()}


def _value(row: Row, column: str, place: str) -> Any:
    """A column's value; `choices.text` is the field `text` of the column `choices`."""
    if column in row:
        return row[column]
    outer, _, field = column.partition(".")
    fields = row.get(outer)
    if field and isinstance(fields, dict) and field in fields:
        return fields[field]
    hint = did_you_mean(column, row) or f"; there are {', '.join(row)}"
    raise ConfigError(f"prompts: {place}: no column `{column}`{hint}")


def _is_plain(value: Any) -> bool:
    """Whether metadata can hold a value: pictures and sounds are left out."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, list) else isinstance(value, PLAIN)
