import json

import pytest

from tests.benchmarks import report
from tests.benchmarks.__main__ import find_cases, kept_measurements
from tests.benchmarks.measure import UNKNOWN, Case, Side, measure
from tests.support import benchmark_sides as sides

OURS = Side("ours", sides.compute, {"cpu_s": 0.1, "name": "ours", "setup_s": 0.5})
RIVAL = Side("rival", sides.compute, {"cpu_s": 0.3, "name": "rival"})
HERE = report.surroundings().model_copy(update={"commit": "abc"})
ABSENT = Side("absent", sides.compute, {"cpu_s": 0.1}, needs=("no_such_library",))
FAILING = Side("failing", sides.fail, {})


def case(*listed: Side, **changes) -> Case:
    return Case(name="trivial", question="two loops", unit="turns", sides=listed, **changes)


@pytest.fixture(scope="module")
def compared():
    return measure(case(OURS, RIVAL, ABSENT, FAILING, prepare=sides.prepare), rounds=2, surroundings=HERE)


def test_sides_take_turns_and_keep_their_own_numbers(compared):
    assert [(m.side, m.round, m.order) for m in compared.measurements] == [
        ("ours", 0, 0), ("rival", 0, 1), ("rival", 1, 2), ("ours", 1, 3),
    ]  # fmt: skip
    for measurement in compared.measurements:
        assert measurement.facts == {"name": measurement.side, "inputs": 1}
        cpu_s = {"ours": 0.1, "rival": 0.3}[measurement.side]
        assert cpu_s <= measurement.cpu_s < cpu_s + 0.1  # without the 0.5 s of the preparation
        assert measurement.peak_bytes > 10 << 20
        assert measurement.amount == 2.0


def test_a_ratio_is_the_cost_of_the_rival_over_ours_of_the_same_round(compared):
    [ours, rival] = (compared.per_unit(name, "cpu_s") for name in ("ours", "rival"))
    figure = compared.figures[0]
    assert figure.name == "CPU seconds, rival / ours"
    assert sorted([figure.low, figure.high]) == sorted(rival[n] / ours[n] for n in (0, 1))
    assert 1.4 < figure.low <= figure.value <= figure.high < 3.1
    assert ours[0] == compared.of("ours")[0].cpu_s / 2


def test_a_side_that_is_not_installed_or_fails_is_named_and_the_others_are_measured(compared):
    assert compared.left_out["absent"] == "no_such_library not installed: pip install -e '.[bench]'"
    assert compared.left_out["failing"].startswith("tests.support.benchmark_sides:fail: ended with exit code 1")
    assert compared.left_out["failing"].endswith("ValueError: not today")
    assert {figure.name.partition(", ")[2] for figure in compared.figures} == {"rival / ours"}


def test_the_file_holds_numbers_settings_commit_and_machine(compared, tmp_path):
    path = tmp_path / "runs" / "benchmarks.json"
    report.write(path, [compared])
    assert report.read(path) == {"trivial": compared}
    content = json.loads(path.read_text())
    stored = content["trivial"]
    assert stored["machine"]["cores"] >= 1
    assert stored["releases"].keys() >= {"torch", "transformers", "polars"}
    assert stored["settings"]["rival"] == {"cpu_s": 0.3, "name": "rival"}
    assert {measurement["commit"] for measurement in stored["measurements"]} == {"abc"}


def test_the_table_has_a_line_for_every_side(compared):
    lines = report.table(compared).splitlines()
    begins = {side: [line for line in lines if line.startswith(f"  {side} ")] for side in compared.settings}
    assert all(len(found) == 1 for found in begins.values()), begins
    assert "no_such_library not installed" in begins["absent"][0]
    assert any(line.startswith("  CPU seconds, rival / ours: ") for line in lines)


def test_what_was_measured_with_the_same_settings_is_not_measured_again(compared):
    changed = case(OURS, Side("rival", sides.compute, {"cpu_s": 0.2}))
    kept = kept_measurements(changed, compared, HERE, threads=1)
    assert [(m.side, m.round) for m in kept] == [("ours", 0), ("ours", 1)]
    assert kept_measurements(changed, compared, HERE, threads=2) == []
    assert kept_measurements(changed, compared, UNKNOWN, threads=1) == []
    continued = measure(changed, rounds=1, kept=kept)
    assert [(m.side, m.round, m.commit) for m in continued.measurements] == [
        ("ours", 0, "abc"),
        ("rival", 0, "unknown"),
    ]


@pytest.mark.parametrize("is_orphaned", [False, True])
def test_processes_below_a_side_count_with_their_time_and_memory(is_orphaned):
    side = Side("ours", sides.compute_below, {"cpu_s": 0.5, "is_orphaned": is_orphaned, "held_mib": 200})
    [measurement] = measure(case(side), rounds=1).measurements
    assert 0.5 <= measurement.cpu_s < 0.9
    assert measurement.wall_s >= 0.5
    assert measurement.peak_bytes > 200 << 20


def test_cases_are_found_by_module_and_by_name_and_an_unknown_one_is_refused():
    assert {case.name for case in find_cases(["commit"])} == {"commit/write", "commit/verify"}
    assert [case.name for case in find_cases(["commit/verify"])] == ["commit/verify"]
    with pytest.raises(SystemExit, match=r"no case `comit`: there is .*commit/write"):
        find_cases(["comit"])
