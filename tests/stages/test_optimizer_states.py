"""The state of the optimizer between iterations: which model holds one, which training reads it, and when it goes."""

from pathlib import Path
from typing import Any

import pytest
from fake_launch import loop, with_changes

from hir_core.errors import StoreError
from hir_core.inspect.verify import check_run
from hir_core.launch.job_spec import JobSpec, TrainStep
from hir_core.stages.run import Run
from hir_core.store import optimizer_states
from hir_core.store.gc import leftovers
from hir_core.store.store import Store

STATE = "optimizer-00001-of-00001.safetensors"


@pytest.fixture
def bf16(settings) -> dict[str, Any]:
    """A run of three iterations whose models are in bf16."""
    Path("bf16.json").write_text('{"zero_optimization": {"stage": 1}, "bf16": {"enabled": true}}')
    return settings | {"deepspeed": "bf16.json", "iterations": 3}


def states(store: Store) -> list[str]:
    """What the states that are there hold, as `models@i: masters`, in order."""
    paths = {ref: ref.path / STATE for ref in store.versions("models")}
    return [f"models@{ref.iteration}: {path.read_text()}" for ref, path in paths.items() if path.exists()]


def state_read_by(run: Run, iteration: int) -> str | None:
    """The model from whose state the training of an iteration started."""
    spec = JobSpec.read(run.store.run_dir / "launches" / f"{iteration:04d}")
    (step,) = (step for step in spec.steps if isinstance(step, TrainStep))
    return None if step.optimizer_state is None else step.optimizer_state.name


def test_each_training_starts_from_the_state_of_the_model_before(bf16):
    run = loop(with_changes(bf16, {}))
    models = run.store.versions("models")
    assert [state_read_by(run, i) for i in range(4)] == [None, *(model.id for model in models[:3])]
    assert [run.store.manifest(model).config["optimizer_state"] for model in models] == ["masters"] * 4


def test_the_states_of_the_first_and_of_the_newest_model_are_kept(bf16):
    run = loop(with_changes(bf16, {}))
    assert states(run.store) == ["models@0: masters", "models@3: masters"]
    assert check_run(run.store)["problems"] == []
    newest = str(run.store.resolve("models@2"))
    assert run.store.released(run.store.resolve("models@1"))[STATE].startswith(f"{newest} was trained from it")
    del run  # it would count as a reader
    run = loop(with_changes(bf16, {"iterations": 4}))
    assert states(run.store) == ["models@0: masters", "models@4: masters"]


def test_other_settings_start_from_the_state_of_the_warm_start(bf16):
    run = loop(with_changes(bf16, {}))
    loop(with_changes(bf16, {"training.learning_rate": 1e-3, "iterations": 1}))
    assert state_read_by(run, 1) == run.store.resolve("models@0").id
    assert states(run.store) == ["models@0: masters", "models@1: masters", "models@3: masters"]


def test_a_model_that_was_not_trained_has_no_state(bf16):
    run = loop(with_changes(bf16, {"warm_start": None, "iterations": 2}))
    assert states(run.store) == ["models@2: masters"]
    assert (state_read_by(run, 1), state_read_by(run, 2)) == (None, run.store.resolve("models@1").id)
    assert "optimizer_state" not in run.store.manifest(run.store.resolve("models@0")).config


@pytest.mark.parametrize(
    ("deepspeed", "state", "kept"),
    [
        ("bf16.json", "none", []),
        ("bf16.json", "all", ["models@3: all"]),
        ("ds_configs/laptop.json", "none", []),
        ("ds_configs/laptop.json", "masters", []),
        ("ds_configs/laptop.json", "all", ["models@3: all"]),
    ],
)
def test_the_setting_says_what_is_kept(deepspeed, state, kept, bf16):
    changes = {"deepspeed": deepspeed, "training.optimizer_state": state, "warm_start.optimizer_state": "none"}
    assert states(loop(with_changes(bf16, changes)).store) == kept


def test_a_state_that_was_deleted_is_missed_and_not_replaced(bf16):
    """Two models of one run that were made from one: the second one needs a state that is gone."""
    run = loop(with_changes(bf16, {}))
    last = run.store.resolve("models@3")
    last.path.rename(last.path.with_name(".away"))
    with pytest.raises(StoreError, match=r"models/0002-.* cannot be trained further: the state of its optimizer was "):
        loop(with_changes(bf16, {}))


def test_while_another_process_reads_the_run_no_state_is_deleted_but_with_the_next_model(bf16):
    run = loop(with_changes(bf16, {"iterations": 1}))
    reader = Store(run.store.run_dir)
    reader.verify(run.store.resolve("models@0"))
    loop(with_changes(bf16, {}))
    assert states(run.store) == [f"models@{n}: masters" for n in range(4)]
    del reader, run
    run = loop(with_changes(bf16, {"iterations": 4}))
    assert states(run.store) == ["models@0: masters", "models@4: masters"]


def test_a_run_that_is_killed_while_it_deletes_a_state_is_sound_and_the_next_one_completes_it(bf16, monkeypatch):
    def die(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optimizer_states, "sweep", die)
        for _ in range(3):  # killed at each commit of a model
            with pytest.raises(KeyboardInterrupt):
                loop(with_changes(bf16, {}))
    store = Store(Path("runs/sums"))
    assert len(leftovers(store.run_dir)) == 1
    assert check_run(store)["problems"] == []
    del store
    store = loop(with_changes(bf16, {})).store
    assert states(store) == ["models@0: masters", "models@3: masters"]
    assert leftovers(store.run_dir) == []
