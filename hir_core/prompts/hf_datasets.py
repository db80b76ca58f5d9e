"""Prompts from Hugging Face's `datasets`: of the hub, saved to disk, or in a folder of data files (type `datasets`).

The library, an optional dependency, only supplies rows. It runs no code that comes with a dataset since its release 4,
and nothing here would allow it to. `forms` lists which forms a row can have, and `rows` defines what its columns mean.
"""

from __future__ import annotations

import datetime
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from hir_core.config import DatasetsPrompts
from hir_core.dynamic_imports import import_extra
from hir_core.errors import ConfigError
from hir_core.prompts.forms import Row, renamed
from hir_core.prompts.items import Item
from hir_core.prompts.rows import item_from_row

SAVED = ("state.json", "dataset_dict.json")  # `save_to_disk` writes the first for one split, the second for several
PLAIN = (str, int, float, bool, datetime.date, datetime.time, type(None))


def read_datasets(source: DatasetsPrompts, taken: AbstractSet[str]) -> list[Item]:  # noqa: ARG001 - the readers' signature
    """Every row of a dataset as an item, in order.

    Raises:
        ConfigError: the extra is missing, the dataset cannot be loaded, or a row is malformed; names the row.
    """
    library = import_extra("datasets", "datasets", "prompts: a source of type datasets")
    library.disable_progress_bars()
    try:
        dataset = _load(library, source)
    except Exception as error:  # files, caches and the network can fail in any way
        raise ConfigError(
            f"prompts: the dataset {source.source} ({source.split}) cannot be loaded: {type(error).__name__}: {error}; "
            f"expected a dataset of the hub, a folder saved by `datasets`, or a folder of data files"
        ) from error
    if source.limit is not None:
        dataset = dataset.select(range(min(source.limit, len(dataset))))
    task = source.task or "_".join(filter(None, [Path(source.source).name, source.name]))
    labels = {name: feature for name, feature in dataset.features.items() if hasattr(feature, "int2str")}
    items = []
    for number, row in enumerate(dataset, start=1):
        origin = f"{source.source} ({source.split}) row {number}"
        label_names = {name: feature.int2str(row[name]) for name, feature in labels.items() if row[name] is not None}
        own = renamed(row | label_names, source.columns, origin)
        items.append(item_from_row(_without_media(own), origin, task, source.seed))
    return items


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


def _without_media(row: Row) -> Row:
    """The row without what neither a column nor metadata can hold, such as images and sounds."""
    kept = {name: value for name, value in row.items() if name == "metadata" or _is_plain(value)}
    if isinstance(metadata := kept.get("metadata"), dict):
        kept["metadata"] = {name: value for name, value in metadata.items() if _is_plain(value)}
    return kept


def _is_plain(value: Any) -> bool:
    """Whether metadata can hold a value; images and sounds, for example, are left out."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, list) else isinstance(value, PLAIN)
