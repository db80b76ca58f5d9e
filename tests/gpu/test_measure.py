"""The parts of `measure.py`, on tiny shapes and the CPU: they end, and record what they are for."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("measure.py")


def test_parts_for_which_no_time_is_left_are_left_out(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path, "--tiny", "--only", "optimizer,speed", "--limit", "5"])
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(part["part"], part["ended"]) for part in results["parts"]] == [
        ("optimizer", "left out"),
        ("speed", "left out"),
    ]
    assert done.returncode == 1


def test_a_part_that_takes_too_long_is_interrupted_and_leaves_nothing_running(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("measure", SCRIPT)
    measure = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "measure", measure)  # dataclasses look their module up
    spec.loader.exec_module(measure)
    end = measure.run_in_process("speed", tmp_path, is_tiny=True, limit_s=1.0)
    assert (end.part, end.ended) == ("speed", "out of time")
    assert end.seconds < 25
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not any(str(tmp_path).encode() in command for command in commands)


@pytest.mark.slow
def test_the_parts_record_speed_memory_and_time(tmp_path):
    only = ["speed", "optimizer", "seven_billion", "head", "attention"]
    call = [sys.executable, SCRIPT, tmp_path, "--tiny", "--only", ",".join(only), "--limit", "900"]
    done = subprocess.run(call, text=True, capture_output=True)
    logs = "".join((tmp_path / f"{name}.log").read_text() for name in only)
    assert done.returncode == 0, done.stdout + done.stderr + logs
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(part["part"], part["ended"]) for part in results["parts"]] == [(name, "ok") for name in only]
    values = {figure["what"]: figure["value"] for figure in results["figures"]}
    speeds = ["sampling-1-512, 1 sample: speed", "generate-1-512: speed", "zero2, 2 train: utilisation"]
    seconds = ["zero2, 1 release: time", "zero3, 0 load: time", "zero3, 1 gather: time", "zero3, 3 save: time"]
    attention = ["sdpa, 2 train: speed", "sdpa, 2 train: utilisation"]
    speeds += [f"{case}: speed" for case in ("zero2 accumulating in bf16, 2 train", "zero2 with LoRA, 2 train")]
    for what in (
        *speeds,
        "sampling-auto, 1 sample: speed",
        *seconds,
        *attention,
        "AdamW on cpu, fused=True",
        "transformers: time",
    ):
        assert values[what] > 0, what
    heads = [
        values[f"{name}: loss"] for name in (*(f"hir, {n} targets at a time" for n in (4, 16, 32)), "transformers")
    ]
    assert heads == pytest.approx([heads[0]] * 4, rel=0.02), "in bf16"
    left_out = (tmp_path / "attention.log").read_text()
    assert "flash_attention_2 is left out: model.attention: flash_attention_2 trains on GPUs only" in left_out
