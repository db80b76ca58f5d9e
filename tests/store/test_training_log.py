"""The log of a training: a row for each optimizer step, read without the weights and checked against the manifest."""

import dataclasses

import polars as pl
import pytest
from finished_run import damage, identity
from training_logs import optimizer_step

from hir_core.errors import VersionCorrupt
from hir_core.store.store import Store
from hir_core.store.training_log import STEPS, TIMES, TrainingStep, read_training_log, write_training_log


@pytest.fixture
def store(tmp_path) -> Store:
    """A run with a model that was trained for three steps, and one that was not trained."""
    store = Store(tmp_path / "run")
    for iteration, count in enumerate((3, 0)):
        draft = store.draft(identity("models", iteration, {}, []))
        (draft.path / "model.safetensors").write_bytes(b"weights")
        if count:
            write_training_log(draft.path, [optimizer_step(n, loss=1 / n) for n in range(1, count + 1)])
        draft.commit()
    return store


def test_every_step_has_a_row_with_all_that_was_measured(store):
    rows = read_training_log(store, store.resolve("models@0")).to_dicts()
    assert [TrainingStep(**row) for row in rows] == [optimizer_step(n, loss=1 / n) for n in (1, 2, 3)]


def test_what_is_equal_in_equal_trainings_and_what_is_not_are_in_two_files(store):
    folder = store.resolve("models@0").path
    steps, times = (pl.read_parquet(folder / name) for name in (STEPS, TIMES))
    names = {field.name for field in dataclasses.fields(TrainingStep)}
    assert {*steps.columns} | {*times.columns} == names
    assert times.columns == ["step", "seconds", "tokens_per_s", "peak_bytes"]
    assert {*steps.columns} & {*times.columns} == {"step"}


def test_a_model_that_was_not_trained_has_no_steps(store):
    assert read_training_log(store, store.resolve("models@1")).is_empty()


@pytest.mark.parametrize("name", [STEPS, TIMES])
def test_a_changed_file_is_found_and_weights_are_not_read(name, store):
    model = store.resolve("models@0")
    (model.path / "model.safetensors").unlink()
    assert read_training_log(store, model).height == 3
    damage(model.path / name)
    with pytest.raises(VersionCorrupt, match=f"models/0000-.* differs from its manifest: {name} has"):
        read_training_log(store, model)
