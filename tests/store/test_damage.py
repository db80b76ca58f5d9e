"""Damage and drift: any change in a version is found by file name when it is opened, and a table that deviates from its
schema is never committed.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from store_tables import THIS, rewards

from hir_core.errors import SchemaError, StoreError, VersionCorrupt
from hir_core.parquet_trial import unreadable
from hir_core.schemas import SCHEMAS
from hir_core.store.files import write_json
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

FLIPS = 300


def content(store: Store) -> list[Path]:
    """Every file of every version, manifests included."""
    return sorted(path for ref in store.versions() for path in ref.path.iterdir())


def version_of(store: Store, path: Path) -> VersionRef:
    return store.resolve(f"{path.parent.parent.name}/{path.parent.name}")


def find(store: Store, path: Path) -> str:
    """The error message when the version of a damaged file is opened."""
    ref = version_of(store, path)
    with pytest.raises(VersionCorrupt) as caught:
        store.folder(ref)
    assert str(ref) in str(caught.value)
    return str(caught.value)


# --- damage ----------------------------------------------------------------------------------------------------------


def test_every_one_of_300_flipped_bits_is_found_in_its_file(small_run):
    draw, files = random.Random(3), content(small_run)
    for _ in range(FLIPS):
        path = draw.choice(files)
        whole = path.read_bytes()
        place = draw.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
        assert path.name in find(small_run, path)
        path.write_bytes(whole)
    for ref in small_run.versions():
        small_run.verify(ref)


def test_a_file_cut_anywhere_or_grown_is_found(small_run):
    draw = random.Random(4)
    for path in content(small_run):
        whole = path.read_bytes()
        cuts = [whole[:length] for length in (0, draw.randrange(1, len(whole)), len(whole) - 2)]
        for changed in (*cuts, whole + b"x", bytes(len(whole))):
            path.write_bytes(changed)
            assert path.name in find(small_run, path)
        path.write_bytes(whole)


def test_parts_that_were_swapped_are_both_named(small_run):
    first, second = small_run.parts(small_run.resolve("samples@1"))
    first.rename(first.with_suffix(".moved"))
    second.rename(first)
    first.with_suffix(".moved").rename(second)
    message = find(small_run, first)
    assert all(f"{path.name} has " in message for path in (first, second))


def test_a_part_moved_to_another_version_is_different_here_and_missing_there(small_run):
    mine, theirs = (small_run.parts(small_run.resolve(f"samples@{n}")) for n in (1, 2))
    theirs[0].replace(mine[0])
    assert f"{mine[0].name} has " in find(small_run, mine[0])
    assert f"{theirs[0].name} is missing" in find(small_run, theirs[0])


def test_a_version_under_the_name_of_another_is_found(small_run):
    first, second = (small_run.resolve(f"rewards@{n}") for n in (1, 2))
    shutil.rmtree(second.path)
    first.path.rename(second.path)
    assert f"is that of {first}" in find(small_run, second.path / "manifest.json")


@pytest.mark.parametrize("field", ["created", "code_version", "rows", "rows_in", "rejected", "metrics", "parents",
                                   "config", "parts", "sha256", "iteration"])  # fmt: skip
def test_an_edited_manifest_is_found_whatever_was_edited(small_run, field):
    path = small_run.resolve("triples@1").path / "manifest.json"
    facts = json.loads(path.read_text())
    edits: dict[type, Callable[[Any], Any]] = {
        str: lambda text: text[:-1] + ("0" if text[-1] != "0" else "1"),
        int: lambda number: number + 1,
        dict: lambda values: values | {"lost": 0},
        list: lambda values: values[:-1],
    }
    write_json(path, facts | {field: edits[type(facts[field])](facts[field])})
    assert "manifest.json is damaged" in find(small_run, path)


def test_a_manifest_that_was_only_reformatted_does_not_count_as_changed(small_run):
    path = small_run.resolve("triples@1").path / "manifest.json"
    facts = json.loads(path.read_text())
    for text in (json.dumps(facts, sort_keys=True), json.dumps(facts, indent=8)):
        path.write_text(text)
        small_run.verify(version_of(small_run, path))


@pytest.mark.parametrize(
    ("digest", "problem"),
    [({}, "sha256: Field required"), ({"sha256": None}, "sha256: Input should be a valid string")],
)
def test_a_manifest_without_its_digest_is_found(small_run, digest, problem):
    path = small_run.resolve("triples@1").path / "manifest.json"
    facts = json.loads(path.read_text())
    del facts["sha256"]
    write_json(path, facts | digest)
    message = find(small_run, path)
    assert "manifest.json is damaged" in message
    assert problem in message


def test_values_and_keys_that_json_converts_do_not_count_as_a_change(tmp_path):
    from store_tables import THIS, rewards

    store = Store(tmp_path)
    draft = store.draft(THIS)
    draft.write("a", rewards(1))
    steps = dict.fromkeys((2, 10, 1), 1.0)
    ref = draft.commit(metrics={"loss": float("nan"), "steps": steps, "text": "é \ud800", "small": 1e-300})
    store.verify(ref)
    assert store.manifest(ref).metrics["steps"] == {"2": 1.0, "10": 1.0, "1": 1.0}


# --- drift -----------------------------------------------------------------------------------------------------------

OTHER = {pl.String: pl.Binary, pl.Float64: pl.Float32, pl.Int32: pl.Int64, pl.UInt64: pl.Int64, pl.Enum: pl.String}
COLUMNS = [(stage, name) for stage, schema in SCHEMAS.items() if stage != "instructions"
           for name in schema.column_names()]  # fmt: skip


def other_type(column: pl.Series) -> pl.Series:
    """The same values with another type that a careless writer might choose."""
    if isinstance(column.dtype, pl.List):
        return column.cast(pl.List(pl.String)) if column.dtype.inner == pl.Int32 else column.list.len()
    if column.dtype == pl.Boolean:
        return column.cast(pl.Int8)
    return column.cast(OTHER[column.dtype.base_type()])


def refused(store: Store, stage: str, table: pl.DataFrame) -> str:
    """The error message when a table that ranks have written is committed as a new version; the draft must be kept."""
    ref = store.resolve(f"{stage}@latest")
    draft = store.draft(store.manifest(ref).identity.model_copy(update={"config": {"drift": True}}))
    table.write_parquet(draft.path / "part-7.parquet")
    with pytest.raises(SchemaError) as caught:
        draft.commit()
    assert str(caught.value).startswith(f"{draft.ref} part-7.parquet ")
    assert [path.name for path in draft.parts()] == ["part-7.parquet"]
    draft.discard()
    return str(caught.value)


@pytest.mark.parametrize(("stage", "name"), COLUMNS, ids=lambda value: value)
def test_a_column_that_drifted_is_refused_by_file_and_name(small_run, stage, name):
    table = small_run.table(small_run.resolve(f"{stage}@latest")).collect()
    column, schema = table[name], SCHEMAS[stage]
    assert f"column `{name}` is missing" in refused(small_run, stage, table.drop(name))
    renamed = refused(small_run, stage, table.rename({name: name.upper()}))
    assert f"column `{name}` is missing; column `{name.upper()}` is unknown" in renamed
    drifted = table.with_columns(other_type(column))
    assert f"column `{name}` is {drifted[name].dtype}, expected " in refused(small_run, stage, drifted)
    untyped = table.with_columns(pl.lit(None).alias(name))
    assert f"column `{name}` is Null, expected {column.dtype}" in refused(small_run, stage, untyped)
    if not schema.columns()[name].nullable:
        first = pl.int_range(pl.len()) == 0
        holed = table.with_columns(pl.when(~first).then(pl.col(name)).cast(column.dtype))
        assert f"`{name} nullability` in 1" in refused(small_run, stage, holed)


@pytest.mark.parametrize("stage", [stage for stage in SCHEMAS if stage != "instructions"])
def test_a_column_too_many_and_columns_in_another_order_are_refused(small_run, stage):
    table = small_run.table(small_run.resolve(f"{stage}@latest")).collect()
    assert "column `extra` is unknown" in refused(small_run, stage, table.with_columns(extra=1))
    turned = table.select(reversed(table.columns))
    assert f"another order, expected {', '.join(table.columns)}" in refused(small_run, stage, turned)


def test_nulls_inside_lists_are_refused(small_run):
    table = small_run.table(small_run.resolve("prompts@0")).collect()
    holed = table.with_columns(references=pl.lit(["4", None]))
    assert "`references inner_nullability` in 4" in refused(small_run, "prompts", holed)


def test_files_that_are_not_parquet_are_named(small_run):
    draft = small_run.draft(small_run.manifest(small_run.resolve("rewards@1")).identity.model_copy(
        update={"config": {"drift": True}}))  # fmt: skip
    for data in (b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"{}"):
        (draft.path / "part-7.parquet").write_bytes(data)
        with pytest.raises(StoreError, match=r"part-7\.parquet cannot be read"):
            draft.commit()


def test_a_part_at_which_polars_panics_is_named(tmp_path):
    """A changed byte in a page makes some readers panic, which is no Exception; which byte does, is found first."""
    draft = Store(tmp_path / "run").draft(THIS)
    sound = tmp_path / "sound.parquet"
    rewards(3).write_parquet(sound, compression="uncompressed", statistics=False)
    data = sound.read_bytes()
    changed = {tmp_path / f"{place}": data[:place] + b"\x07" + data[place + 1 :] for place in range(4, len(data), 3)}
    for path, changed_data in changed.items():
        path.write_bytes(changed_data)
    panicking = [path for path, problem in unreadable(changed).items() if "panic" in problem]
    assert panicking
    for path in panicking[:5]:
        path.replace(draft.path / "part-7.parquet")
        with pytest.raises(StoreError, match=r"part-7\.parquet cannot be read") as caught:
            draft.commit()
        assert "\n" not in str(caught.value)
