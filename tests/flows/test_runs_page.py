"""The page of several runs: their curves in the same plots, what differs between them, and what cannot be compared."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from finished_run import hir, identity, trained
from report_page import Page
from report_runs import STEPS, evaluated, make_run
from training_logs import optimizer_step

from flows.report.runs_page import runs_page
from hir_core.errors import ConfigError
from hir_core.inspect.report import Report, build_report
from hir_core.store.store import Store


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory) -> Path:
    """`small`, and `longer`: the same run with a third model, which was trained for ten more steps."""
    folder = tmp_path_factory.mktemp("runs")
    small = make_run(folder)
    longer = Store(Path(shutil.copytree(small.run_dir, folder / "longer")))
    steps = [optimizer_step(n, loss=4.0) for n in range(1, 11)]
    model = trained(longer, 3, [longer.resolve("models@2")], steps, loss=4.0, steps=10)
    evaluated(longer, 3, longer.resolve("prompts@0"), model)
    return folder


@pytest.fixture(scope="module")
def reports(runs_dir) -> list[Report]:
    return [build_report(Store(runs_dir / name)) for name in ("small", "longer")]


def test_each_run_has_its_final_numbers_and_its_line_in_every_plot(reports):
    html = runs_page(reports)
    shown = Page(html)
    assert shown.is_complete
    assert "<script" not in html
    finals = shown.tables["Where each run ended"]
    assert [(row["run"], row["iterations"], row["loss"]) for row in finals] == [
        ("small", "2", "0.000"), ("longer", "3", "4.000"),
    ]  # fmt: skip
    assert [row["optimizer steps"] for row in finals] == ["150", "160"]
    accuracies = shown.tables["Accuracy on unseen prompts"]
    assert [(row["run"], row["iteration"]) for row in accuracies] == [
        *(("small", str(n)) for n in range(3)), *(("longer", str(n)) for n in range(4)),
    ]  # fmt: skip
    losses = shown.tables["Loss by optimizer step"]
    assert (losses[0]["small"], losses[0]["longer"]) == ("1.5", "1.5")  # of steps 1 and 2
    assert (losses[-1]["small"], losses[-1]["longer"]) == ("–", "4")
    assert sum(STEPS.values()) == 150
    assert not [text for text in shown.texts["p"] if "not comparable" in text]


def test_runs_that_were_tested_otherwise_are_not_called_comparable(reports):
    changed = [
        replace(version, config={"threshold": 0.5}) if version.stage == "evaluations" else version
        for version in reports[1].versions
    ]
    shown = Page(runs_page([reports[0], replace(reports[1], versions=tuple(changed))]))
    assert [text for text in shown.texts["p"] if "not comparable" in text]
    (row,) = shown.tables["Settings that differ"]
    assert row["setting"] == "evaluations: threshold"
    assert (row["small"], row["longer"]) == ("1", "0.5")


def test_names_from_folders_are_text_and_equal_ones_are_told_apart(reports):
    attack = replace(reports[0], run="<script>alert(1)</script>")
    shown = Page(runs_page([attack, attack, reports[1]]))
    names = [row["run"] for row in shown.tables["Where each run ended"]]
    assert names[0] == "<script>alert(1)</script> (1)"
    assert len(set(names)) == 3
    assert "script" not in {tag for tag, _, _ in shown.attributes}


def test_a_run_without_a_model_is_there_without_curves(reports, tmp_path):
    store = Store(tmp_path / "new")
    store.draft(identity("prompts", 0, {}, []))
    shown = Page(runs_page([reports[0], build_report(store)]))
    names = [row["run"] for row in shown.tables["Where each run ended"]]
    assert names == ["small", "new"]
    assert shown.tables["Loss by optimizer step"][0]["new"] == "–"


def test_more_runs_than_colours_are_refused(reports):
    with pytest.raises(ConfigError, match="7 runs are more than one page shows: name at most 6"):
        runs_page(reports[:1] * 7)


def test_the_command_writes_one_page_for_several_runs(runs_dir, monkeypatch):
    monkeypatch.chdir(runs_dir.parent)
    runs = ("--runs-dir", str(runs_dir))
    assert hir("report", "small", "longer", *runs) == f"{runs_dir}/report.html\n"
    assert "2 runs, each up to its newest model." in (runs_dir / "report.html").read_text()
    assert "for one run: name one" in hir("report", "small", "longer", "--json", *runs, code=2)
    assert hir("report", "small", "small", *runs).endswith("small/report.html\n")
