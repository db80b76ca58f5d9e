"""Trackers get every optimizer step once, whatever happens, and never end or hold up a run."""

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from report_runs import LOSSES, STEPS, make_run

from flows import trackers
from flows.trackers import Trackers
from hir_core import tracker_process
from hir_core.stages.identity import Scored
from hir_core.stages.train import Outputs
from hir_core.store.store import Store
from hir_core.tracker_process import Recorder, record_path, recorded_models

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard, of the extra `tensorboard`"
)


class FakeTracker:
    """A tracker that keeps what it is given; it fails at a step."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at, self.points, self.is_finished = fails_at, [], False

    def log(self, values, step):
        if step == self.fails_at:
            raise ConnectionError("no answer\nfrom the server")
        self.points.append((step, values))

    def finish(self):
        self.is_finished = True


def entry(model: str, *steps: int) -> dict:
    return {"model": model, "settings": {}, "points": [[step, {"loss": 1 / step}] for step in steps]}


def recorder(folder: Path, tracker: FakeTracker, name: str = "wandb") -> Recorder:
    made = Recorder(name, folder, "project", "run-1")
    made._tracker = tracker
    return made


# --- the process -----------------------------------------------------------------------------------------------------


def test_a_model_is_handed_over_once_also_by_the_next_process(tmp_path):
    for expected in ([1, 2, 3], []):
        tracker = FakeTracker()
        process = recorder(tmp_path, tracker)
        process.add(entry("models/0001-a", 1, 2))
        process.add(entry("models/0002-b", 3))
        process.add(entry("models/0001-a", 1, 2))
        assert [step for step, _ in tracker.points] == expected
    assert recorded_models(record_path(tmp_path, "run-1", "wandb")) == {"models/0001-a", "models/0002-b"}


def test_a_tracker_that_fails_is_one_line_and_the_others_go_on(tmp_path, capfd, monkeypatch):
    broken, sound = FakeTracker(fails_at=2), FakeTracker()
    recorders = [recorder(tmp_path, broken), recorder(tmp_path, sound, "tensorboard")]
    with (tmp_path / "answers").open("w") as answers:
        for model in (entry("models/0001-a", 1, 2), entry("models/0002-b", 3)):
            for each in [*recorders]:
                with tracker_process._reported(each, recorders, answers):
                    each.add(model)
    (line,) = (tmp_path / "answers").read_text().splitlines()
    assert line == "tracker wandb gets no more of this run: ConnectionError: no answer from the server"
    assert [step for step, _ in sound.points] == [1, 2, 3]
    assert recorded_models(record_path(tmp_path, "run-1", "wandb")) == set()


def test_a_tracker_that_is_not_installed_is_named_with_what_to_install(tmp_path, monkeypatch):
    def start(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'wandb'")

    monkeypatch.setattr(Recorder, "_start", start)
    missing = Recorder("wandb", tmp_path, "project", "run-1")
    with (tmp_path / "answers").open("w") as answers, tracker_process._reported(missing, [missing], answers):
        missing.add(entry("models/0001-a", 1))
    said = (tmp_path / "answers").read_text()
    why = "ModuleNotFoundError: No module named 'wandb': pip install wandb"
    assert said == f"tracker wandb gets no more of this run: {why}\n"


def test_a_process_whose_tracker_hangs_ends_all_the_same(tmp_path):
    code = (
        "import sys, time; from hir_core import tracker_process as t; t.END_S = 0.5; "
        "t.Recorder.add = lambda *_: time.sleep(60); t.main(t.Path(sys.argv[1]), 'p', 'r', ['wandb'])"
    )
    began = time.monotonic()
    line = json.dumps(entry("models/0001-a", 1))
    done = subprocess.run([sys.executable, "-c", code, tmp_path], input=f"{line}\n", text=True, check=False)
    assert done.returncode == 1
    assert time.monotonic() - began < 30


# --- the run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Store:
    return make_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def store(finished, tmp_path, monkeypatch) -> Store:
    monkeypatch.setattr(trackers, "WAIT_S", 300.0)
    return Store(Path(shutil.copytree(finished.run_dir, tmp_path / "small")))


def fake_run(store: Store, *names: str) -> SimpleNamespace:
    part = SimpleNamespace(fingerprint=dict, model_dump=lambda mode: {"training": {"epochs": 2}})
    config = SimpleNamespace(run="small", run_dir=store.run_dir, trackers=names, **vars(part))
    return SimpleNamespace(
        config=config, store=store, metrics=lambda ref: store.manifest(ref).metrics, reward=part, relabeler=part
    )


def hand_over(store: Store, iterations: range, *names: str) -> list[str]:
    """Hands over the models of these iterations, as the loop does; returns what was said."""
    said: list[str] = []
    with Trackers(fake_run(store, *names), said.append) as running:
        for n in iterations:
            outputs = Outputs(store.resolve(f"models@{n}"), store.resolve(f"evaluations@{n}"), None)
            scored = Scored(store.resolve(f"samples@{n}"), store.resolve(f"rewards@{n}")) if n else None
            running.add(outputs, scored)
    return said


@needs_tensorboard
def test_tensorboard_has_each_step_once_after_a_kill_and_in_a_run_that_goes_on(store, monkeypatch):
    """A process that was killed has handed over steps without a record of them; the next one hands them over again."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert hand_over(store, range(2), "tensorboard") == []
    record = next((store.run_dir / "trackers").glob("*.tensorboard.json"))
    known = json.loads(record.read_text())
    assert known == {"models": [str(store.resolve(f"models@{n}")) for n in (0, 1)], "last_step": STEPS[1]}
    record.write_text(json.dumps({"models": known["models"][:1], "last_step": 0}))
    assert hand_over(store, range(3), "tensorboard") == []
    monkeypatch.setattr(subprocess, "Popen", None)
    assert hand_over(store, range(3), "tensorboard") == []  # nothing is left to hand over
    (folder,) = (store.run_dir / "trackers" / "tensorboard").iterdir()
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    losses = events.Scalars("train/loss")
    assert [point.step for point in losses] == [*range(1, STEPS[1] + STEPS[2] + 1)]
    expected = [LOSSES[n] / step for n in (1, 2) for step in range(1, STEPS[n] + 1)]
    assert [point.value for point in losses] == pytest.approx(expected)
    assert [point.value for point in events.Scalars("train/learning_rate")] == pytest.approx([0.1] * len(losses))
    ends = [0, STEPS[1], STEPS[1] + STEPS[2]]
    accuracies = [(point.step, point.value) for point in events.Scalars("evaluation/accuracy")]
    assert accuracies == [(end, pytest.approx(right / 12)) for end, right in zip(ends, (3, 5, 9), strict=True)]
    # A kill may leave a text twice at its step: TensorBoard keeps texts, and shows the last one.
    texts = {point.step: point.tensor_proto.string_val[0].decode() for point in events.Tensors("samples/text_summary")}
    assert {step: text.splitlines()[0] for step, text in texts.items()} == dict.fromkeys(
        ends[1:], "| score | query | output |"
    )
    assert "training.epochs | 2" in events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()


def test_whatever_goes_wrong_on_the_way_is_one_line(store, monkeypatch):
    (store.run_dir / "trackers").write_text("a file where a folder should be")
    (line,) = hand_over(store, range(3), "tensorboard", "tensorboard")
    assert line.startswith("warning: the trackers (tensorboard) get no more of this run: FileExistsError")


def test_without_trackers_nothing_is_started(store, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    assert hand_over(store, range(3)) == []
    assert not (store.run_dir / "trackers").exists()


def test_texts_from_data_are_no_markdown_and_no_html():
    text = "a | b\n<script>*x* `y` [z](http://u)"
    cell = trackers.as_cell(text)
    assert cell == r"a \| b\\n&lt;script&gt;\*x\* \`y\` \[z\](http://u)"
