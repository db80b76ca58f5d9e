"""Figures of cases, on measurements and files written by hand."""

import json
import os

import polars as pl
import pytest

from hir_core.schemas import Triples
from tests.benchmarks import accuracy, growth, iteration, kept_results, peak_memory, report
from tests.benchmarks.measure import Measurement, Result

KEPT_LAUNCHES = json.loads(peak_memory.KEPT.read_text())


def result(*sides: tuple[str, int, float, float, dict]) -> Result:
    """A result of measurements: side, round, amount of work, CPU seconds, facts."""
    measurements = [
        Measurement(
            side=side, round=number, order=order, amount=amount, cpu_s=cpu_s, wall_s=9.0, peak_bytes=1, facts=facts,
            commit="", time="",
        )
        for order, (side, number, amount, cpu_s, facts) in enumerate(sides)
    ]  # fmt: skip
    settings = {side: {} for side, *_ in sides}
    return Result(
        case="c", question="q", unit="u", starts_inside=False, threads=1, machine={}, releases={},
        settings=settings, measurements=measurements, left_out={}, figures=[],
    )  # fmt: skip


def reached(cpu_s: float, model_s: float, samples: float, target: str = "0.7") -> dict[str, float]:
    return {f"cpu_s to {target}": cpu_s, f"model_s to {target}": model_s, f"samples to {target}": samples}


def test_the_exponent_of_cost_in_work_is_that_of_a_power_law():
    sides = [(f"{size}", number, size, (3 + number) * size**1.5, {}) for number in (0, 1) for size in (1, 10, 100)]
    whole, last = growth.exponents(result(*sides))
    assert (whole.value, whole.low, whole.high) == pytest.approx((1.5, 1.5, 1.5))
    assert last.name == "exponent from 10 to 100"
    assert last.value == pytest.approx(1.5)
    with_a_start = [(f"{size}", 0, size, 50 + size, {}) for size in (1, 10, 100)]
    whole, last = growth.exponents(result(*with_a_start))
    assert whole.value < last.value < 1


def test_an_accuracy_costs_what_the_best_rate_of_each_method_takes():
    measured = result(
        ("hir, 0.0002", 0, 1, 99.0, reached(80, 40, 6144)),
        ("hir, 0.0008", 0, 1, 99.0, reached(20, 8, 3072)),
        ("hir, 0.0008", 1, 1, 99.0, reached(30, 9, 4608)),
        ("TRL GRPO, 0.0004", 0, 1, 99.0, reached(100, 90, 9216)),
        ("TRL GRPO, 0.0004", 1, 1, 99.0, reached(90, 80, 7680)),
        ("TRL GRPO, 0.0016", 0, 1, 99.0, reached(10, 9, 1536)),  # reached it with one seed only
        ("TRL GRPO, 0.0016", 1, 1, 99.0, {}),
    )
    figures = {(figure.name, figure.unit): figure for figure in accuracy.costs_at_the_best_rates(measured)}
    ours = figures["accuracy 0.70, hir, 0.0008", "CPU s"]
    assert (ours.low, ours.high) == (20, 30)
    ratio = figures["accuracy 0.70, CPU s, TRL GRPO / hir", "x"]
    assert (ratio.low, ratio.high) == (3, 5)  # 90 / 30 and 100 / 20
    assert figures["accuracy 0.70, samples, TRL GRPO / hir", "x"].high == 3
    assert not any(name.startswith("accuracy 0.80") for name, _ in figures)


def test_accuracies_are_compared_after_equally_many_samples():
    curve = {"accuracies": " ".join(f"{i / 100:.3f}" for i in range(11))}
    longer = {"accuracies": " ".join(f"{i / 200:.3f}" for i in range(31))}
    stopped = {"accuracies": "0.900"}
    measured = result(
        ("hir, 0.0002", 0, 1, 9.0, {"accuracies": " ".join(["0.050"] * 11)}),
        ("hir, 0.0004", 0, 1, 9.0, curve),
        ("TRL GRPO, 0.0004", 0, 1, 9.0, longer),
        ("TRL GRPO, 0.0008", 0, 1, 9.0, stopped),
    )
    figures = {figure.name: figure.value for figure in accuracy.accuracies_at_the_best_rates(measured)}
    assert figures == {
        "accuracy after 10,240 samples, hir, 0.0004": pytest.approx(10),
        "accuracy after 10,240 samples, TRL GRPO, 0.0004": pytest.approx(5),
        "accuracy after 30,720 samples, TRL GRPO, 0.0004": pytest.approx(15),
    }


def test_the_task_with_headroom_is_that_of_the_comparison():
    settings = accuracy.TASKS["headroom"].settings
    assert (settings["relabel"], settings["warm_start"]["demonstrations"]) == ({"type": "keep_correct"}, 16)
    assert (settings["sampling"]["distinct"], settings["sampling"]["max_new_tokens"]) == (True, 6)
    assert (settings["training"]["batch_size"], settings["select"]["replay"]) == (320, 2)


def test_the_first_evaluation_that_reaches_an_accuracy_counts():
    trace = accuracy.Trace(accuracy.TASKS["quickstart"].accuracies)
    for samples, value in ((0, 0.4), (1536, 0.75), (3072, 0.6), (4608, 0.81)):
        assert not trace.is_over
        trace.add(value, {"samples": samples})
    assert trace.is_over
    work = trace.work()
    assert (work.facts["samples to 0.7"], work.facts["samples to 0.8"]) == (1536, 4608)
    assert (work.amount, work.facts["accuracies"]) == (4, "0.400 0.750 0.600 0.810")


def test_the_parts_of_an_iteration_add_up_to_the_time_between_two_jobs(tmp_path):
    job, following = tmp_path / "0001", tmp_path / "0002"
    steps = {"train": (19.0, 4.0), "save": (20.0, 1.0), "evaluate": (22.0, 1.5), "sample": (24.0, 2.0)}
    for folder, at in ((job, 1000.0), (following, 1030.0)):
        listed = [{"type": name} for name in ("train", "save")] + [
            {"type": "sample", "name": name} for name in ("evaluate", "sample")
        ]
        write(folder / "job.json", {"steps": listed}, at)
    for number, (name, (end, seconds)) in enumerate(steps.items()):
        trained = {"seconds": 3.0} if name == "train" else {}
        write(job / f"done-{number}.json", {"step_seconds": seconds, **trained}, 1000.0 + end)
    write(job / "rank-0.started.json", {"time": 1002.0}, 1002.0)
    parts = iteration.parts_of(job, following, load_began=1014.0)
    assert parts == {
        "launcher": 2.0, "imports": 12.0, "load": 1.0, "engine": 1.0, "training": 3.0, "save": 1.0, "evaluate": 1.5,
        "sample": 2.0, "between launches": 6.5,
    }  # fmt: skip
    assert sum(parts.values()) == 30.0
    assert parts.keys() == iteration.PARTS.keys()


def write(path, content, modified_at):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    os.utime(path, (modified_at, modified_at))


def test_the_readme_shows_the_results_that_are_kept():
    readme = kept_results.README.read_text()
    assert "| sampling/llama-10m | CPU seconds, generate / hir |" in readme
    assert readme == kept_results.filled(readme, kept_results.lines(list(report.read(kept_results.KEPT).values())))
    readme = kept_results.DS_CONFIGS_README.read_text()
    assert "| 95M | all | `zero2.json` | 1 |" in readme
    assert readme == kept_results.filled(readme, kept_results.memory_lines(KEPT_LAUNCHES))


@pytest.mark.parametrize("launch", KEPT_LAUNCHES)
def test_the_plan_is_within_15_percent_of_the_peaks_that_were_measured_on_cpus(launch):
    figures = KEPT_LAUNCHES[launch]
    plan, peak = peak_memory.planned(figures), figures["peak_bytes"]
    assert plan["total"] == pytest.approx(peak["training"], rel=0.15)
    assert plan["sampling"] == pytest.approx(peak["all"], rel=0.15)


def test_the_triples_whose_training_grows_are_triples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    step = growth.train_step(3, 2)
    Triples.validate(pl.read_parquet(step.triples / "*.parquet"))
