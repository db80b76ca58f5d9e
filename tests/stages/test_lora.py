"""Runs with LoRA, whose launches are played: what each launch loads, trains and saves, and what versions are named."""

import pytest
from fake_launch import loop, with_changes

from hir_core.config import LoraConfig
from hir_core.dynamic_imports import check_extra
from hir_core.errors import ConfigError
from hir_core.launch.job_spec import JobSpec, SaveStep
from hir_core.stages.resume import last_completed_iteration
from hir_core.stages.run import Run
from hir_core.store.adapters import base_of
from hir_core.store.optimizer_states import optimizer_state

LORA = {"lora": {"rank": 4}, "iterations": 3}


def job(run: Run, iteration: int) -> tuple[JobSpec, SaveStep]:
    spec = JobSpec.read(run.store.run_dir / "launches" / f"{iteration:04d}")
    (save,) = (step for step in spec.steps if isinstance(step, SaveStep))
    return spec, save


@pytest.mark.parametrize("warm_start", [{"demonstrations": 4}, None])
def test_each_launch_trains_the_adapter_of_the_one_before_beside_the_first_model(warm_start, settings):
    run = loop(with_changes(settings, LORA | {"warm_start": warm_start}))
    models = run.store.versions("models")
    assert [base_of(run.store, model) for model in models] == [models[0]] * 4
    first, save = job(run, 0)
    assert save.base is None  # the warm start's adapter is merged
    assert (first.adapter is not None) == (warm_start is not None)
    for iteration in (1, 2, 3):
        spec, save = job(run, iteration)
        assert spec.adapter is not None
        assert spec.adapter.lora == LoraConfig(rank=4)
        previous = models[iteration - 1].path.resolve()
        assert spec.adapter.folder == (None if iteration == 1 else previous)
        assert spec.model.source == str(models[0].path.resolve())
        assert save.base == f"../{models[0].id}"
    parents = [run.store.manifest(model).parents_of("models") for model in models]
    names = list(map(str, models))
    assert parents == [[], names[:1], [names[1], names[0]], [names[2], names[0]]]
    assert last_completed_iteration(run, run.table(run.store.resolve("prompts@0"))) == 3


def test_without_warm_start_runs_with_and_without_an_adapter_share_the_first_model(settings):
    ids = [
        [ref.id for ref in loop(with_changes(settings, changes | {"warm_start": None})).store.versions("models")]
        for changes in ({}, LORA, {"lora": {"rank": 8}, "iterations": 1})
    ]
    assert [len(found) for found in ids] == [2, 5, 6]  # in one folder
    assert len({name for name in ids[-1] if name.startswith("0000")}) == 1


def test_the_state_of_an_adapters_optimizer_is_kept_and_that_of_a_merged_one_is_not(settings, tmp_path):
    (tmp_path / "bf16.json").write_text('{"zero_optimization": {"stage": 2}, "bf16": {"enabled": true}}')
    run = loop(with_changes(settings, LORA | {"deepspeed": "bf16.json"}))
    first, *_, last = run.store.versions("models")
    assert optimizer_state(run.store, first) is None
    assert optimizer_state(run.store, last) == last.path
    assert job(run, 1)[0].steps[0].optimizer_state is None
    assert job(run, 2)[0].steps[0].optimizer_state is not None


def test_a_missing_package_is_one_message_with_the_command_that_installs_it():
    with pytest.raises(
        ConfigError, match=r"^lora needs the package `peft-x`, .* pip install peft-x \(hir's extra `lora`"
    ):
        check_extra("no_such_peft", "peft-x", "lora", "lora")
