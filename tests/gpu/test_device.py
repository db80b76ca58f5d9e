"""The shipped DeepSpeed files, every ZeRO stage and a GPU named by its UUID, on one GPU: `pytest -m gpu`.

Nearly all jobs run in one launch. `run_small` works on any device, so that it can be tried on a machine without a GPU.
Speed and memory are measured by `measure.py`.
"""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import zero_cases
from transformers import AutoModelForCausalLM
from zero_tables import PROMPTS, STAGES, LaunchCases, make_model, make_requests, make_triples, stage

from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS, read_deepspeed

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SHIPPED = {path.stem: read_deepspeed(path) for path in sorted(SHIPPED_DS_CONFIGS.glob("*.json"))}


@pytest.fixture(scope="module")
def environment():
    """Ranks that find `zero_cases`, and whatever else this process found by PYTHONPATH."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(zero_cases.__file__).parent), prepend=os.pathsep)
        yield


def run_small(root: Path) -> LaunchCases:
    """Samples, trains, saves and samples again under every shipped file and every ZeRO stage."""
    data = root / "data"
    (data / "llama").mkdir(parents=True)
    make_requests(data / "requests-many.parquet", PROMPTS)
    make_requests(data / "requests-few.parquet", 3)
    make_model(data / "llama", "llama")
    first = LaunchCases(root / "first", 1, data)
    first.add("drawn", "llama", stage(0), first.sampling("drawn"))
    first.launch()
    first.out("drawn", "samples").rename(data / "samples-llama")
    make_triples(data / "samples-llama", data / "requests-many.parquet", data / "triples-llama")
    cases = LaunchCases(root / "second", 1, data)
    for name, settings in {**STAGES, **{f"shipped-{name}": settings for name, settings in SHIPPED.items()}}.items():
        cases.train(name, "llama", settings)
    for how in ("gather", "stream"):
        step = cases.sampling(how, zero3_weights=how, temperature=0.0, k=1)
        cases.add(how, "llama", STAGES["zero3"], step)
    cases.launch()
    return cases


@pytest.fixture(scope="module")
def small(environment, tmp_path_factory) -> LaunchCases:
    return run_small(tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_trains_and_saves_what_it_trained(name, small):
    losses = small.losses(f"shipped-{name}")
    assert len(losses) == 6
    assert np.isfinite(losses).all()
    assert losses == pytest.approx(small.losses("zero0"), rel=0.05)
    loaded = AutoModelForCausalLM.from_pretrained(small.out(f"shipped-{name}", "model"), dtype="auto")
    assert loaded.dtype is (torch.bfloat16 if "bf16" in SHIPPED[name] else torch.float32)
    kept = small.logits(f"shipped-{name}")
    torch.testing.assert_close(zero_cases.logits(loaded), kept, rtol=0.05, atol=0.05 * kept.abs().max().item())


@pytest.mark.parametrize("name", [name for name in STAGES if name != "zero0"])
def test_every_stage_learns_the_same(name, small):
    assert small.losses(name) == pytest.approx(small.losses("zero0"), rel=1e-4)


def test_weights_gathered_once_and_layer_by_layer_answer_alike(small):
    gathered, streamed = small.samples("gather"), small.samples("stream")
    assert gathered.height == PROMPTS
    assert (gathered["completion_ids"] == streamed["completion_ids"]).mean() >= 0.996


def test_a_gpu_may_be_named_by_its_uuid(small, tmp_path, monkeypatch):
    """DeepSpeed asks how much memory is free when it trains under ZeRO 1 and 2, and we before sampling under ZeRO-3."""
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", re.findall(r"UUID: ([\w-]+)", listing)[0])
    cases = LaunchCases(tmp_path, 1, small.data)
    cases.train("zero2", "llama", STAGES["zero2"])
    cases.add("auto", "llama", STAGES["zero3"], cases.sampling("auto", "few", zero3_weights="auto"))
    cases.launch()
    assert cases.losses("zero2") == pytest.approx(small.losses("zero2"), rel=1e-4)
    assert "weights gathered once" in cases.facts("auto")["weights"]
