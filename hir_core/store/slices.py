"""`SampleSlices`, a table of samples in slices that hold whole prompts, and frames that are put aside on disk.

Serves the stages that work through a large table with limited memory. Reads the parts of samples, and writes
intermediate files to a working folder, which `Draft.working_folder` gives and removes. Raises StoreError.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl
from pyarrow import parquet

from hir_core.store.files import ROW_GROUP_ROWS, writing

SLICE_BYTES = 64 << 20
"""What a slice's texts, token ids and keys take. Scoring and relabeling it takes about six times as much, beside the
prompts and the scores of all samples."""
KEY_BYTES = 100
"""What a sample's keys and numbers take."""
TOKEN_BYTES = 4
BATCH_ROWS = 16 * ROW_GROUP_ROWS
"""How many rows are read at once to be distributed over slices."""
ONE_IN = 16
"""Of how many samples one is looked at to choose where slices begin."""


class SampleSlices:
    """The samples of one or several versions, a slice at a time; all samples of a prompt are in one slice.

    Samples that fit one slice are that slice, in the order of their parts. Otherwise slices are consecutive ranges of
    `prompt_id` with about as many samples each; they are the same wherever and however often they are made. To be gone
    through once.

    Args:
        paths: the parts of the samples.
        columns: columns, or expressions of columns; `prompt_id` is one of them.
        folder: a working folder for samples of more than one slice.
        slice_bytes: the size of a slice; None: all samples are one slice.

    Attributes:
        rows: how many samples there are.
        count: how many slices there are.
    """

    def __init__(
        self, paths: Sequence[Path], columns: Iterable[str | pl.Expr], folder: Path, slice_bytes: int | None = None
    ) -> None:
        self._paths, self._columns, self._folder = paths, list(columns), folder
        metadata = {path: parquet.read_metadata(path) for path in paths}
        self._rows_of = {path: found.num_rows for path, found in metadata.items()}
        self.rows = sum(self._rows_of.values())
        self.count = 1 if slice_bytes is None else max(1, -(-sum(map(_bytes_of, metadata.values())) // slice_bytes))

    def __iter__(self) -> Iterator[pl.DataFrame]:
        if self.count == 1:
            parts = [pl.scan_parquet(path).select(self._columns).collect() for path in self._paths]
            yield pl.concat(parts, rechunk=True)
            return
        files = self._distributed(self._first_prompts())
        for number in range(self.count):
            if files[number]:
                yield pl.concat([pl.read_ipc(path) for path in files[number]], rechunk=True)
            for path in files[number]:
                path.unlink()

    def part_name(self, number: int) -> str:
        """The name of the part that is made from a slice, by its number."""
        return f"{number:05d}" if self.count > 1 else "0"

    def _first_prompts(self) -> pl.Series:
        """The `prompt_id` with which each slice but the first begins, sorted."""
        ids = (pl.read_parquet(path, columns=["prompt_id"])["prompt_id"].gather_every(ONE_IN) for path in self._paths)
        looked_at = pl.concat(ids).sort()
        return looked_at.gather([len(looked_at) * number // self.count for number in range(1, self.count)])

    def _distributed(self, first_prompts: pl.Series) -> list[list[Path]]:
        """Writes every sample to a file of its slice; returns the files of each slice, in the order of the parts."""
        files: list[list[Path]] = [[] for _ in range(self.count)]
        for path, rows in self._rows_of.items():
            for start in range(0, rows, BATCH_ROWS):
                batch = pl.scan_parquet(path).slice(start, BATCH_ROWS).select(self._columns).collect()
                slices = first_prompts.search_sorted(batch["prompt_id"], side="right")
                by_slice = batch.with_columns(slices.alias("slice")).partition_by(
                    "slice", as_dict=True, include_key=False
                )
                for (number,), frame in by_slice.items():
                    files[number].append(self._folder / f"slice-{number}-{len(files[number])}.arrow")
                    _write(frame, files[number][-1])
        return files


def _bytes_of(metadata: parquet.FileMetaData) -> int:
    """About what the samples of a part take in memory, by the part's metadata."""
    size: int = metadata.num_rows * KEY_BYTES
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema == "completion":
                size += column.total_uncompressed_size
            elif column.path_in_schema.startswith("completion_ids."):
                size += column.num_values * TOKEN_BYTES
    return size


def on_disk(frames: Iterable[pl.DataFrame], folder: Path) -> Iterator[pl.DataFrame]:
    """Writes all frames to a working folder, and returns them again one by one, in order.

    Raises:
        StoreError: a file cannot be written.
    """
    paths = []
    for number, frame in enumerate(frames):
        paths.append(folder / f"frame-{number}.arrow")
        _write(frame, paths[-1])
    return (pl.read_ipc(path) for path in paths)


def _write(frame: pl.DataFrame, path: Path) -> None:
    with writing(path):
        frame.write_ipc(path)
