"""Comparisons: which arms there are, that they share what they can, what their numbers say, and shipped results."""

import dataclasses
import re
import subprocess
from xml.etree import ElementTree

import polars as pl
import pytest
import yaml

from flows import arms as arms_module
from flows import compare
from flows.cli.run import CONFIGS, check_arms
from flows.report.comparison_plot import comparison_plot
from flows.report.comparison_tables import COMPARISONS, README, curve_table, filled, summary_table
from hir_core.config.comparison import load_comparison, merged
from hir_core.errors import ConfigError, HirError, RewardError, StoreError
from hir_core.inspect.comparison import (
    ArmResult,
    CurvePoint,
    Estimate,
    difference,
    estimate,
    read_results,
    statement,
    summarize,
    t975,
    write_results,
)

SVG = "{http://www.w3.org/2000/svg}"
BASE = {
    "run": "base",
    "iterations": 1,
    "model": {"type": "scratch"},
    "prompts": [{"type": "synthetic", "task": "object_counting", "size": 40}],
    "deepspeed": "laptop.json",
}
TRACKING = {"type": "synthetic", "task": "tracking_shuffled_objects", "size": 9}
SETTINGS = {
    "compare": "both",
    "base": "base.yaml",
    "seeds": [0, 1],
    "tasks": {"counting": {}, "tracking": {"prompts": [TRACKING]}},
    "methods": {
        "hindsight": {},
        "filter": {"relabel": {"type": "keep_correct"}},
        "plain": {"training": {"contrastive": 0}, "only": ["counting"]},
    },
    "reference": "filter",
}  # fmt: skip


def loaded(tmp_path, **changes):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE, sort_keys=False))
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(SETTINGS | changes, sort_keys=False))
    return load_comparison(tmp_path / "both.yaml", tmp_path)


def results_of(**ends):
    """Arms of two iterations: `method=[[final accuracy on task a, on task b, ...] per seed]`, from 0.1."""
    return [
        ArmResult("abc"[place], method, seed, (
            CurvePoint(0, 0.1, majority_baseline=0.2, samples=0, triples=0),
            CurvePoint(1, end, majority_baseline=0.2, samples=40, triples=10),
        ))
        for method, seeds in ends.items() for seed, tasks in enumerate(seeds) for place, end in enumerate(tasks)
    ]  # fmt: skip


def sentence(**ends):
    """What is said of the method `new` against `old`."""
    gap = difference(results_of(**ends), "new", "old")
    assert gap is not None
    return statement(gap)


# --- arms ------------------------------------------------------------------------------------------------------------


def test_every_method_runs_on_every_task_of_its_own_with_every_seed(tmp_path):
    _, arms = loaded(tmp_path)
    assert [(arm.task, arm.seed, arm.method) for arm in arms] == [
        *[("counting", seed, method) for seed in (0, 1) for method in ("hindsight", "filter", "plain")],
        *[("tracking", seed, method) for seed in (0, 1) for method in ("hindsight", "filter")],
    ]


def test_the_methods_of_a_task_and_seed_share_a_run_and_so_its_seed_model_and_first_samples(tmp_path):
    _, arms = loaded(tmp_path)
    assert {(arm.task, arm.seed): arm.config.run_dir.as_posix() for arm in arms} == {
        ("counting", 0): "runs/both/counting-0",
        ("counting", 1): "runs/both/counting-1",
        ("tracking", 0): "runs/both/tracking-0",
        ("tracking", 1): "runs/both/tracking-1",
    }
    assert {arm.config.seed == arm.seed for arm in arms} == {True}
    assert [arm.config.relabel.type for arm in arms[:3]] == ["exclude_wrong", "keep_correct", "exclude_wrong"]
    assert [arm.config.training.contrastive for arm in arms[:3]] == [1, 1, 0]


def test_each_method_has_a_branch_of_its_own_so_that_no_other_one_releases_what_it_uses(tmp_path):
    _, arms = loaded(tmp_path)
    assert [arm.config.branch for arm in arms] == [arm.method for arm in arms]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("comparisons/*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_comparison_loads(path):
    comparison, arms = load_comparison(path, CONFIGS)
    assert len(arms) >= len(comparison.methods) * len(comparison.seeds)


def test_sections_are_merged_and_one_of_another_type_is_replaced():
    base = {"relabel": {"type": "quantiles", "levels": 3}, "training": {"epochs": 2, "batch_size": 8}, "prompts": [1]}
    changes = {"relabel": {"type": "chain"}, "training": {"epochs": 4}, "prompts": [2]}
    assert merged(base, changes) == {
        "relabel": {"type": "chain"},
        "training": {"epochs": 4, "batch_size": 8},
        "prompts": [2],
    }
    assert merged(base, {"relabel": {"levels": 5}})["relabel"] == {"type": "quantiles", "levels": 5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "other"}, "reference `other` is none of the methods: hindsight, filter, plain"),
        ({"base": "nowhere"}, "base: no such config: nowhere"),
        ({"seed": [1]}, "seed: unknown key; did you mean `seeds`?"),
        ({"compare": "../up"}, "compare: expected a folder's name"),
        ({"methods": {"filter": {"trainin": {}}}}, "both: counting, filter: 1 problem\n  trainin: unknown key"),
    ],
)  # fmt: skip
def test_a_wrong_comparison_is_refused_before_anything_runs(tmp_path, changes, message):
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, **changes)
    assert message in str(caught.value)


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_students_t_goes_on_beyond_its_table():
    """The values of a printed table of the 97.5 % quantiles."""
    printed = {1: 12.706, 15: 2.131, 16: 2.120, 20: 2.086, 30: 2.042, 60: 2.000, 120: 1.980}
    assert {freedom: round(t975(freedom), 3) for freedom in printed} == pytest.approx(printed, abs=6e-4)


def test_the_interval_is_students():
    """0.5, 0.6, 0.7: mean 0.6, s = 0.1, t(2) = 4.303: 0.6 ± 4.303 * 0.1 / sqrt(3) = 0.6 ± 0.24843."""
    accuracy = estimate([0.5, 0.6, 0.7])
    assert (accuracy.mean, accuracy.half_width) == pytest.approx((0.6, 0.24843), abs=1e-5)
    assert estimate([0.4]) == Estimate(0.4, None)


def test_a_method_is_compared_seed_by_seed_on_the_tasks_that_both_ran():
    """Seed 0: (0.1 + 0.3) / 2 ahead; seed 1: (0.2 + 0.0) / 2; task c was run by one of them only.

    Mean 0.15, s = 0.0707, t(1) = 12.706: half-width 12.706 * 0.0707 / sqrt(2) = 0.6353.
    """
    arms = results_of(new=[[0.6, 0.8, 0.9], [0.6, 0.5, 0.9]], old=[[0.5, 0.5], [0.4, 0.5]])
    gap = difference(arms, "new", "old")
    assert gap is not None
    assert (gap.mean, gap.low, gap.high) == pytest.approx((0.15, -0.4853, 0.7853), abs=1e-4)
    assert (gap.tasks, gap.seeds) == (2, 2)
    assert difference(arms, "new", "nobody") is None


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ([[0.7], [0.71], [0.72]], "new ends 21.0 points ahead of old [+18.5, +23.5] (1 task, 3 seeds)"),
        (
            [[0.4], [0.6], [0.56]],
            "new ends 2.0 points ahead of old [-24.3, +28.3] (1 task, 3 seeds): not shown, the interval contains 0",
        ),
        ([[0.2], [0.21], [0.22]], "new ends 29.0 points behind old [-31.5, -26.5] (1 task, 3 seeds)"),
    ],
)
def test_the_sentence_says_who_is_ahead_and_whether_it_is_shown(new, expected):
    assert sentence(new=new, old=[[0.5]] * 3) == expected


def test_the_sentence_counts_the_tasks_that_both_ran():
    assert "(2 tasks, 1 seed)" in sentence(new=[[0.6, 0.8, 0.9]], old=[[0.5, 0.5]])


def test_one_seed_shows_nothing():
    assert sentence(new=[[0.9]], old=[[0.5]]).endswith("(1 task, 1 seed): one seed shows nothing")


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    """A comparison of three methods, two of which ran on both tasks, and the folder of its results."""
    comparison, _ = loaded(tmp_path, runs_dir=str(tmp_path / "runs"), tasks={"a": {}, "b": {}})
    arms = results_of(hindsight=[[0.6, 0.4], [0.8, 0.4]], filter=[[0.5, 0.3], [0.5, 0.3]], plain=[[0.5], [0.5]])
    compare.write(comparison, arms, 12)
    return arms, comparison.folder


def test_the_table_holds_means_with_intervals_and_a_sentence_per_method(written):
    table = (written[1] / "table.md").read_text().splitlines()
    assert table[0] == "| method | a | b | mean | samples trained on |"
    assert table[2] == "| hindsight | 70.0 ± 127.1 | 40.0 ± 0.0 | 55.0 ± 63.5 | 25 % |"
    assert table[4] == "| plain | 50.0 ± 0.0 | – | – | 25 % |"
    assert table[6] == "10 of 12 arms"
    assert table[7].startswith("hindsight ends 15.0 points ahead of filter [")


def test_the_points_behind_the_table_are_a_parquet_file(written):
    arms, folder = written
    curves = pl.read_parquet(folder / "curves.parquet")
    assert curves.columns == ["task", "method", "seed", "iteration", "accuracy", "low", "high", "majority_baseline",
                              "samples", "triples", "steps", "seconds"]  # fmt: skip
    assert curves.height == 2 * len(arms)
    assert curves.filter(task="a", method="hindsight", seed=1)["accuracy"].to_list() == [0.1, 0.8]


def test_the_results_hold_every_arm_the_summary_and_where_they_come_from(written):
    arms, folder = written
    results = read_results(folder / "results.json")
    assert results.arms == tuple(arms)
    assert (results.name, results.source, results.arms_planned) == ("both", "hir compare", 12)
    assert results.summary[0].tasks["a"].mean == pytest.approx(0.7)
    assert [gap.method for gap in results.differences] == ["hindsight", "plain"]
    assert results.config is not None
    assert results.config["methods"] == SETTINGS["methods"]
    assert "runs_dir" not in results.config
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", results.date)
    assert results.machine is not None
    assert re.search(r"^\d+ CPU cores? \(.+\), torch \d+\.\d+", results.machine)


def test_the_machine_is_described_with_the_devices_of_the_ranks():
    made_with = {"torch": "2.13.0", "device": "NVIDIA H100 80GB HBM3", "ranks": 2}
    arms = [ArmResult("a", "m", seed, (CurvePoint(0, 0.1),), made_with=made_with) for seed in (0, 1)]
    assert compare.machine(arms).endswith("), 2 ranks on NVIDIA H100 80GB HBM3, torch 2.13.0")


def test_the_commit_is_recorded_from_a_checkout_only(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "CHECKOUT", tmp_path)
    assert compare.git_commit() is None
    for command in ("init -q", "-c user.name=a -c user.email=a@b commit -q --allow-empty -m first"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True).stdout.strip()
    assert compare.git_commit() == head


def test_a_file_that_holds_no_results_is_named(tmp_path):
    (tmp_path / "x.json").write_text('{"name": "x"}')
    with pytest.raises(StoreError, match=r"x\.json does not hold results of a comparison"):
        read_results(tmp_path / "x.json")


def test_the_plot_names_every_task_and_method(written):
    picture = (written[1] / "plot.svg").read_text()
    texts = [element.text for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]
    assert {"a", "b", "hindsight", "filter", "plain", "majority answer"} <= set(texts)


def test_the_plot_draws_the_mean_of_the_seeds_and_their_range():
    """Ends of 0.6 and 0.8: the last dot stands at 0.7, its whisker reaches from 0.6 to 0.8."""
    arms = results_of(new=[[0.6], [0.8]], old=[[0.5], [0.5]])
    root = ElementTree.fromstring(comparison_plot(arms, ["new", "old"]))
    titles = [element.text for element in root.iter(f"{SVG}title")]
    assert "new, iteration 1: 70% [60%, 80%]" in titles
    assert "old, iteration 1: 50% [50%, 50%]" in titles
    assert titles.count("majority answer, iteration 1: 20%") == 1


def test_names_in_the_plot_are_escaped_and_further_methods_have_colours_of_their_own():
    many = {f"<m{number}>": [[0.5]] for number in range(8)}
    picture = comparison_plot(results_of(**many), list(many))
    assert "<m0>" not in picture
    styles = set(re.findall(r'class="(k\d+)"', picture))
    assert styles == {f"k{number}" for number in range(8)}
    assert all(f".{name} {{ --c:" in picture for name in styles)


# --- shipped measurements --------------------------------------------------------------------------------------------


def test_the_readme_of_the_comparisons_says_what_their_results_say():
    """Where this fails: `python -m flows.report.comparison_tables`."""
    assert README.read_text() == filled(README.read_text(), COMPARISONS / "results")


def test_every_result_that_is_shipped_stands_in_the_readme_once():
    named = re.findall(r"<!-- results (\w+) -->", README.read_text())
    files = sorted((COMPARISONS / "results").glob("*.json"))
    assert sorted(named) == [path.stem for path in files]
    assert [read_results(path).name for path in files] == [path.stem for path in files]


def test_the_comparison_that_the_readme_shows_loads(tmp_path):
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.yaml").write_text(shown)
    comparison, arms = load_comparison(tmp_path / "mine.yaml", CONFIGS)
    assert (len(arms), comparison.reference) == (6, "keep_correct")


def test_a_changed_result_changes_the_readme(tmp_path):
    results = read_results(COMPARISONS / "results" / "four_tasks.json")
    mean = dataclasses.replace(results.summary[0], mean=Estimate(0.123, 0.045))
    write_results(tmp_path / "four_tasks.json", dataclasses.replace(results, summary=(mean, *results.summary[1:])))
    text = "before\n<!-- results four_tasks -->\nold\n<!-- end of results -->\nafter\n"
    refilled = filled(text, tmp_path)
    assert "12.3 ± 4.5" in refilled
    assert "old" not in refilled
    assert refilled.startswith("before\n")
    assert refilled.endswith("\nafter\n")
    assert filled(refilled, tmp_path) == refilled


def test_one_task_has_no_column_of_means_and_a_run_alone_has_its_curve():
    arms = results_of(new=[[0.6]], old=[[0.5]])
    assert summary_table(summarize(arms, ["new"], ["a"])) == [
        "| method | a | samples trained on |", "| --- | --- | --- |", "| new | 60.0 | 25 % |"
    ]  # fmt: skip
    alone = ArmResult(
        "a", "new", None, (CurvePoint(0, 0.1, 0.05, 0.2, 0.3, further={"time, min": 3}), CurvePoint(1, 0.6))
    )
    assert curve_table([alone]) == [
        "| iteration | accuracy | majority baseline | time, min |",
        "| --- | --- | --- | --- |",
        "| 0 | 0.100 [0.050, 0.200] | 0.300 | 3 |",
        "| 1 | 0.600 | – | – |",
    ]


# --- a call that continues -------------------------------------------------------------------------------------------


def test_a_call_that_continues_leaves_the_results_alone_until_it_has_something_new(tmp_path, monkeypatch):
    """Of six arms in two runs the third finds something to make; the others are there."""
    where = {"runs_dir": str(tmp_path / "runs"), "tasks": {"counting": {}}, "seeds": [0, 1]}
    comparison, arms = loaded(tmp_path, **where)
    assert len(arms) == 6
    written, ran = [], []

    def run_arm(flow, config):
        ran.append(config)
        if len(ran) == 3:
            (config.run_dir / "models" / "0000-0123abcd").mkdir(parents=True)

    def write(comparison, arms, planned):
        written.append((len(arms), planned))
        comparison.folder.mkdir(parents=True, exist_ok=True)
        (comparison.folder / "table.md").write_text("")

    monkeypatch.setattr(arms_module.server, "call", run_arm)
    monkeypatch.setattr(compare, "arm_result", lambda arm, run, models: arm.method)
    monkeypatch.setattr(compare, "write", write)
    compare.compare.fn(comparison, arms, {})
    assert ran == [arm.config for arm in arms]
    assert written == [(3, 6), (6, 6)]


# --- arms that fail --------------------------------------------------------------------------------------------------


def test_an_arm_that_cannot_start_is_left_out_and_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    (tmp_path / "broken.jsonl").write_text('{"query": "1 + 1?", "references"')
    broken = {"prompts": [{"path": str(tmp_path / "broken.jsonl")}]}
    _, arms = loaded(tmp_path, tasks={"broken": broken, "counting": {}}, runs_dir=str(tmp_path / "runs"))
    ready, left_out, is_done = check_arms(arms)
    assert {arm.task for arm in ready} == {"counting"}
    assert list(left_out) == [arm.name for arm in arms if arm.task == "broken"]
    assert all("broken.jsonl" in why for why in left_out.values())
    assert not is_done
    assert capsys.readouterr().out.count("warning: left out: broken · hindsight · seed 0: ") == 1


def test_where_no_arm_can_start_the_error_is_theirs(tmp_path, monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    broken = {"prompts": [{"path": str(tmp_path / "nowhere.jsonl")}]}
    _, arms = loaded(tmp_path, tasks={"counting": broken}, runs_dir=str(tmp_path / "runs"))
    with pytest.raises(ConfigError, match=r"no such file .*nowhere\.jsonl"):
        check_arms(arms)


def test_an_arm_that_fails_stops_no_other_and_the_comparison_says_so_at_its_end(tmp_path, monkeypatch, capsys):
    where = {"runs_dir": str(tmp_path / "runs"), "tasks": {"counting": {}}, "seeds": [0]}
    comparison, arms = loaded(tmp_path, **where)
    written = []

    def run_arm(flow, config):
        if config.branch == "filter":
            raise RewardError("the reward raised ValueError", "in its second line")

    monkeypatch.setattr(arms_module.server, "call", run_arm)
    monkeypatch.setattr(compare, "arm_result", lambda arm, run, models: arm.method)
    monkeypatch.setattr(compare, "write", lambda comparison, results, planned: written.append((results, planned)))
    monkeypatch.setattr(compare, "print_results", lambda folder: print("the table"))
    with pytest.raises(HirError) as caught:
        compare.compare.fn(comparison, arms, {"sums · plain · seed 3": "no such file"})
    assert str(caught.value).splitlines() == [
        "2 of 4 arms have no result:",
        "  sums · plain · seed 3: no such file",
        "  counting · filter · seed 0: the reward raised ValueError",
    ]
    assert written == [(["hindsight", "plain"], 4)]
    printed = capsys.readouterr()
    assert printed.out.endswith("the table\n")
    assert "error: the reward raised ValueError\nin its second line\nthe comparison goes on\n" in printed.err
