"""Comparisons: which arms there are, that they share what they can, and what their numbers are allowed to say."""

import math
import re
from xml.etree import ElementTree

import polars as pl
import pytest
import yaml

from flows import compare
from flows.cli.run import CONFIGS
from flows.report.comparison_plot import comparison_plot
from hir_core.config.comparison import load_comparison, merged
from hir_core.errors import ConfigError
from hir_core.inspect.comparison import differences, paired, t_interval, verdict

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


def curves(**ends):
    """Two iterations per arm: `method=[[accuracy of task a, of task b, ...] per seed]`, from 0.1."""
    rows = [
        {"task": "abc"[place], "method": method, "seed": seed, "iteration": iteration, "accuracy": accuracy,
         "majority_baseline": 0.2, "samples": 40 * iteration, "triples": 10 * iteration}
        for method, seeds in ends.items() for seed, tasks in enumerate(seeds) for place, end in enumerate(tasks)
        for iteration, accuracy in enumerate((0.1, end))
    ]  # fmt: skip
    return pl.DataFrame(rows)


# --- arms ------------------------------------------------------------------------------------------------------------


def test_every_method_meets_every_task_that_it_is_meant_for_with_every_seed(tmp_path):
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
    assert [arm.config.relabel.type for arm in arms[:3]] == ["hindsight", "keep_correct", "hindsight"]
    assert [arm.config.training.contrastive for arm in arms[:3]] == [1, 1, 0]


def test_each_method_is_a_line_of_its_own_so_that_no_other_one_forgets_what_it_uses(tmp_path):
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
def test_what_is_wrong_is_said_before_anything_runs(tmp_path, changes, message):
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, **changes)
    assert message in str(caught.value)


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_the_interval_is_students():
    """0.5, 0.6, 0.7: mean 0.6, s = 0.1, t(2) = 4.303: 0.6 ± 4.303 * 0.1 / sqrt(3) = 0.6 ± 0.24843."""
    assert t_interval([0.5, 0.6, 0.7]) == pytest.approx((0.6, 0.35157, 0.84843), abs=1e-5)
    assert t_interval([0.4]) == (0.4, -math.inf, math.inf)


def test_a_method_is_compared_seed_by_seed_on_the_tasks_that_both_ran():
    """Seed 0: (0.1 + 0.3) / 2 ahead; seed 1: (0.2 + 0.0) / 2; task c was run by one of them only."""
    found = curves(new=[[0.6, 0.8, 0.9], [0.6, 0.5, 0.9]], old=[[0.5, 0.5], [0.4, 0.5]])
    assert differences(paired(found, "new", "old")) == pytest.approx([0.2, 0.1])


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ([[0.7], [0.71], [0.72]], "new ends 21.0 points ahead of old [+18.5, +23.5] (1 task, 3 seeds)"),
        ([[0.4], [0.6], [0.56]], "new ends 2.0 points ahead of old [-24.3, +28.3] (1 task, 3 seeds): not shown"),
        ([[0.2], [0.21], [0.22]], "new ends 29.0 points behind old [-31.5, -26.5] (1 task, 3 seeds)"),
    ],
)  # fmt: skip
def test_the_sentence_says_who_is_ahead_and_whether_it_is_shown(new, said):
    assert verdict(curves(new=new, old=[[0.5]] * 3), "new", "old") == said


def test_the_sentence_counts_the_tasks_that_both_ran():
    assert "(2 tasks, 1 seed)" in verdict(curves(new=[[0.6, 0.8, 0.9]], old=[[0.5, 0.5]]), "new", "old")


def test_one_seed_shows_nothing():
    assert verdict(curves(new=[[0.9]], old=[[0.5]]), "new", "old").endswith("(1 task, 1 seed): one seed shows nothing")


def test_the_results_are_a_table_a_picture_and_the_points_behind_them(tmp_path):
    comparison, _ = loaded(tmp_path, runs_dir=str(tmp_path / "runs"), tasks={"a": {}, "b": {}})
    found = curves(hindsight=[[0.6, 0.4], [0.8, 0.4]], filter=[[0.5, 0.3], [0.5, 0.3]], plain=[[0.5], [0.5]])
    compare.write(comparison, found, "2 of 4 arms")
    table = (comparison.folder / "table.md").read_text().splitlines()
    assert table[0] == "| method | a | b | mean | samples that train |"
    assert table[2] == "| hindsight | 70.0 ± 127.1 | 40.0 ± 0.0 | 55.0 ± 63.5 | 25 % |"
    assert table[4] == "| plain | 50.0 ± 0.0 | – | – | 25 % |"
    assert table[6] == "2 of 4 arms"
    assert table[7].startswith("hindsight ends 15.0 points ahead of filter [")
    assert pl.read_parquet(comparison.folder / "curves.parquet").equals(found)
    picture = (comparison.folder / "plot.svg").read_text()
    texts = [element.text for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]
    assert {"a", "b", "hindsight", "filter", "plain", "majority answer"} <= set(texts)


def test_the_plot_draws_the_mean_of_the_seeds_and_their_range():
    """Ends of 0.6 and 0.8: the last dot stands at 0.7, its whisker reaches from 0.6 to 0.8."""
    root = ElementTree.fromstring(comparison_plot(curves(new=[[0.6], [0.8]], old=[[0.5], [0.5]]), ["new", "old"]))
    titles = [element.text for element in root.iter(f"{SVG}title")]
    assert "new, iteration 1: 70% [60%, 80%]" in titles
    assert "old, iteration 1: 50% [50%, 50%]" in titles
    assert titles.count("majority answer, iteration 1: 20%") == 1


def test_names_in_the_plot_are_escaped_and_further_methods_have_colours_of_their_own():
    many = {f"<m{number}>": [[0.5]] for number in range(8)}
    picture = comparison_plot(curves(**many), list(many))
    assert "<m0>" not in picture
    styles = re.findall(r'class="(k\d+)"', picture)
    assert sorted(set(styles)) == [f"k{number}" for number in range(8)]
    assert all(f".{name} {{ --c:" in picture for name in styles)


def test_a_call_that_continues_leaves_the_results_alone_until_it_has_something_new(tmp_path, monkeypatch):
    """Of six arms in two runs the third finds something to make; the others are there."""
    where = {"runs_dir": str(tmp_path / "runs"), "tasks": {"counting": {}}, "seeds": [0, 1]}
    comparison, arms = loaded(tmp_path, **where)
    assert len(arms) == 6
    written, ran = [], []

    def run_arm(config):
        ran.append(config)
        if len(ran) == 3:
            (config.run_dir / "models" / "0000-0123abcd").mkdir(parents=True)

    def write(comparison, curves, progress):
        written.append((curves.height, progress))
        comparison.folder.mkdir(parents=True, exist_ok=True)
        (comparison.folder / "table.md").write_text("")

    monkeypatch.setattr(compare, "hindsight", run_arm)
    monkeypatch.setattr(compare, "points", lambda arm, run, models: [{"method": arm.method}])
    monkeypatch.setattr(compare, "write", write)
    compare.compare.fn(comparison, arms)
    assert ran == [arm.config for arm in arms]
    assert written == [(3, "3 of 6 arms"), (6, "6 of 6 arms")]
