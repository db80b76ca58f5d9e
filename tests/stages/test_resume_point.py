"""How far a config has come: its own iterations count, those of another config in the same run do not."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_launch import loop, ranks, with_changes

from flows.arms import completed_models
from hir_core.stages import run as run_module
from hir_core.stages.prompts import check
from hir_core.stages.resume import completed_iterations, last_completed_iteration
from hir_core.stages.run import Run


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run of 5 train and 3 test prompts, its launches played."""
    rows = [{"query": f"{n} + 1?", "references": [str(n + 1)], "split": "test" if n < 3 else "train"} for n in range(8)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_module, "launch", ranks)
    return {
        "run": "sums",
        "iterations": 0,
        "model": {"type": "scratch", "hidden_size": 16, "heads": 2},
        "prompts": [{"path": "sums.jsonl"}],
        "sampling": {"k": 3},
        "deepspeed": "ds_configs/laptop.json",
    }


def come(settings: dict[str, Any], **changes: Any) -> int | None:
    run = Run(with_changes(settings, changes))
    return last_completed_iteration(run, check(run).rows)


@pytest.mark.parametrize("more", [{}, {"warm_start": {"demonstrations": 2}}, {"select": {"replay": 1}}])
def test_a_config_has_come_as_far_as_its_loop_went(settings, more):
    settings |= more
    assert come(settings) is None
    for iterations in (0, 2):
        loop(with_changes(settings, {"iterations": iterations}))
        assert come(settings) == iterations


def test_what_a_config_has_made_is_told_with_what_was_drawn_from_it(settings):
    run = loop(with_changes(settings, {"iterations": 2}))
    made = completed_iterations(run, check(run).rows)
    assert [outputs.model.iteration for outputs in made] == [0, 1, 2]
    assert [str(outputs.samples) for outputs in made[:2]] == [str(run.store.resolve(f"samples@{n}")) for n in (1, 2)]
    assert made[2].samples is None


def test_an_arm_is_complete_with_its_last_model_and_one_cut_short_to_its_own_iterations(settings):
    loop(with_changes(settings, {"iterations": 2}))
    for iterations, models in ((1, 2), (2, 3), (3, 0)):
        assert len(completed_models(Run(with_changes(settings, {"iterations": iterations})))) == models


def test_iterations_of_a_fork_do_not_count(settings):
    loop(with_changes(settings, {"iterations": 2}))
    assert come(settings, **{"training.learning_rate": 1e-3}) == 0
    assert come(settings, **{"evaluation.max_new_tokens": 3}) is None
    assert come(settings, seed=1) is None


def test_an_iteration_that_is_not_complete_does_not_count(settings):
    store = loop(with_changes(settings, {"iterations": 2})).store
    for lost in ("evaluations@2", "models@2", "triples@2", "rewards@2", "samples@2"):
        shutil.rmtree(store.resolve(lost).path)
        assert come(settings) == 1
    shutil.rmtree(store.resolve("evaluations@0").path)
    assert come(settings) is None
