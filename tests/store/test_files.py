"""Atomic writing of files: a file appears whole or not at all, and is read back as it was written."""

import json
import os
import resource

import polars as pl
import pytest

from hir_core.errors import StoreError
from hir_core.store.files import ROW_GROUP_ROWS, finished_parts, read_json, read_parts, write_json, write_part


def test_a_part_is_read_back_as_it_was_written(tmp_path):
    frame = pl.DataFrame(
        {"text": ["a\0b", "\ufeffאב", ""], "ids": [[1, 2], [], [3]], "kind": ["eos", "length", "eos"]},
        schema_overrides={"ids": pl.List(pl.Int32), "kind": pl.Enum(["eos", "length"])},
    )
    path = write_part(tmp_path, "r0-00001", frame)
    assert path == tmp_path / "part-r0-00001.parquet"
    assert read_parts(tmp_path).equals(frame)
    assert read_parts(tmp_path).schema == frame.schema


def test_parts_are_read_in_order_of_name_and_row(tmp_path):
    rows = ROW_GROUP_ROWS + 3
    for number in (2, 0, 1):
        values = range(number * rows, (number + 1) * rows)
        write_part(tmp_path, f"{number:05d}", pl.DataFrame({"value": values, "other": values}))
    assert read_parts(tmp_path, ["value"]).to_dict(as_series=False) == {"value": list(range(3 * rows))}


def test_lists_of_texts_take_no_more_room_in_many_row_groups_than_in_few(tmp_path):
    rows = 50 * ROW_GROUP_ROWS + 5
    text = pl.when(pl.int_range(rows) % 3 == 1).then(pl.lit("a long text " * 20)).otherwise(pl.lit("another " * 30))
    frame = pl.select(texts=pl.concat_list(text), numbers=pl.int_ranges(pl.int_range(rows) % 2))
    many = write_part(tmp_path, "many", frame)
    assert pl.read_parquet(many).equals(frame)
    few = write_part(tmp_path, "few", pl.DataFrame(frame.head(5 * ROW_GROUP_ROWS).to_dict(as_series=False)))
    assert many.stat().st_size < 11 * few.stat().st_size


def test_reading_an_empty_folder_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no part-\*\.parquet in "):
        read_parts(tmp_path)


def test_a_part_written_twice_holds_the_second_rows(tmp_path):
    write_part(tmp_path, "a", pl.DataFrame({"value": [1]}))
    write_part(tmp_path, "a", pl.DataFrame({"value": [2]}))
    assert read_parts(tmp_path)["value"].to_list() == [2]
    assert [path.name for path in tmp_path.iterdir()] == ["part-a.parquet"]


def test_a_part_is_replaced_whole_never_overwritten(tmp_path):
    part = write_part(tmp_path, "a", pl.DataFrame({"value": [1]}))
    (tmp_path / "reader").hardlink_to(part)  # sees what a reader sees that opened the part before
    write_part(tmp_path, "a", pl.DataFrame({"value": [2]}))
    assert pl.read_parquet(tmp_path / "reader")["value"].to_list() == [1]


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".a", "a b"])
def test_the_name_of_a_part_cannot_leave_its_folder(tmp_path, name):
    with pytest.raises(StoreError, match="cannot name a part"):
        write_part(tmp_path, name, pl.DataFrame({"value": [1]}))
    assert list(tmp_path.iterdir()) == []


def test_a_part_is_not_written_to_a_folder_that_is_gone(tmp_path):
    with pytest.raises(StoreError, match="cannot write"):
        write_part(tmp_path / "gone", "a", pl.DataFrame({"value": [1]}))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_grow_is_one_clean_error_and_leaves_nothing(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))  # what a full disk does to a writer, without one
    try:
        with pytest.raises(StoreError, match="cannot write"):
            write_part(tmp_path, "a", pl.DataFrame({"text": [os.urandom(500).hex() for _ in range(1000)]}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: bytes(len(data)), lambda data: data[:-9]])
def test_an_unreadable_part_is_deleted_to_be_written_again(tmp_path, damage):
    kept, lost = (write_part(tmp_path, name, pl.DataFrame({"value": [1]})) for name in "ab")
    lost.write_bytes(damage(lost.read_bytes()))
    assert finished_parts(tmp_path) == [kept]
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]


def test_temporary_files_are_not_parts_even_for_a_glob_of_polars(tmp_path):
    write_part(tmp_path, "a", pl.DataFrame({"value": [1]}))
    (tmp_path / ".part-b.parquet.0a1b2c3d.tmp").write_bytes(b"half")
    assert [path.name for path in finished_parts(tmp_path)] == ["part-a.parquet"]
    assert pl.scan_parquet(tmp_path / "*.parquet").collect().height == 1


def test_json_comes_back_with_nan_as_null_and_odd_text_whole(tmp_path):
    value = {"loss": [1.5, float("nan"), float("inf")], "text": "é😀 \ud800", "count": 3, "none": None}
    path = write_json(tmp_path / "value.json", value)
    assert read_json(path) == {**value, "loss": [1.5, None, None]}
    assert json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)["count"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


def test_a_file_that_is_not_json_is_named(tmp_path):
    (tmp_path / "value.json").write_text("{")
    with pytest.raises(StoreError, match=r"value\.json is not JSON"):
        read_json(tmp_path / "value.json")
