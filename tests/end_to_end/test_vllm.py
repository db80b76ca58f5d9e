"""The real vLLM, where `HIR_VLLM_PYTHON` names a Python in whose environment it is installed.

A run whose samples vLLM draws, killed and continued; rows in another order and batch; stop texts; and log-probabilities
beside those of the engine on `transformers`.
"""

import os
import signal
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from cli_run import TINY, command, environment, hir, wait_until, write_config
from zero_tables import plain_logprobs

from hir_core.config import VllmEngine
from hir_core.launch.vllm_environment import describe
from hir_core.modeling import models
from hir_core.sampling import transformers_engine
from hir_core.sampling.completions import Completion, Request, row_seed
from hir_core.sampling.draw import Limits
from hir_core.sampling.stop_texts import StopTexts
from hir_core.sampling.vllm_engine import VllmProcess
from hir_core.store.files import list_parts, read_parts
from hir_core.store.store import Store

PYTHON = os.environ.get("HIR_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="HIR_VLLM_PYTHON names no Python with vLLM"),
]
SHAPE = {"hidden_size": 64, "heads": 2}  # vLLM knows no smaller heads on a CPU
END = 1


def vllm_settings(**changes: Any) -> dict[str, Any]:
    settings = {"type": "vllm", "release": "0.0", "python": PYTHON, "kv_cache_memory_bytes": 2**28}
    release = describe(VllmEngine.model_validate(settings))["vllm"].partition("+")[0]
    return settings | {"release": release} | changes


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(build_model, tokenizer, tmp_path_factory) -> Path:
    """A random model that is far from flat."""
    path = tmp_path_factory.mktemp("model")
    build_model("llama", sharpness=3.0, context=256, **SHAPE).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def drawn(
    folder: Path, requests: list[Request], limits: Limits, stop: tuple[str, ...] = (), **settings: Any
) -> dict[tuple[str, int], Completion]:
    engine = VllmEngine.model_validate(vllm_settings(**settings))
    with closing(VllmProcess(engine, folder, "float32", 96, reads_text=bool(stop))) as process:
        return {(c.key, c.k): c for c in process.complete(requests, limits, stop)}


def make_requests(count: int, k: int) -> list[Request]:
    rng = np.random.default_rng(5)
    prompts = [tuple(rng.integers(40, 300, size=rng.integers(1, 60)).tolist()) for _ in range(count)]
    return [Request(f"p{n:03}", ids, tuple(row_seed(1, n, j) for j in range(k))) for n, ids in enumerate(prompts)]


@torch.no_grad()
def test_rows_draw_the_same_in_another_order_and_batch_and_their_log_probabilities_are_the_models(folder):
    requests, limits = make_requests(250, 4), Limits(1.0, 24, (END, 2, 3, 4, 5, 6), 0)
    one, other = drawn(folder, requests, limits), drawn(folder, requests[::-1], limits, max_num_seqs=7)
    assert one.keys() == other.keys()
    equal = sum(one[row].token_ids == other[row].token_ids for row in one)
    model = models.load_model(str(folder), torch.float32).eval()
    by_key = {request.key: request for request in requests}
    gaps = np.concatenate([
        np.abs(np.array(c.logprobs) - plain_logprobs(model, by_key[c.key].prompt_ids, c.token_ids).numpy())
        for c in list(one.values())[:200]
    ])  # fmt: skip
    print(f"{equal} of {len(one)} rows equal; log-probabilities {gaps.mean():.2g} off, at most {gaps.max():.2g}")
    assert equal >= 0.999 * len(one)
    assert gaps.max() < 1e-3
    assert {c.finish_reason for c in one.values()} == {"eos", "length"}


def test_greedy_outputs_and_stop_texts_are_those_of_the_engine_on_transformers(folder, tokenizer):
    texts = ("e", "th")
    stop = StopTexts(texts, lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)), {0, END})
    limits = Limits(0.0, 24, (END,), 0, has_stopped=stop.has_stopped)
    words = tokenizer.decode(list(range(270, 300))).split()
    prompts = [tuple(tokenizer.encode(f"{n} {words[n % len(words)]} and {n * n}")) for n in range(100)]
    requests = [Request(f"p{n:03}", ids, (n,)) for n, ids in enumerate(prompts)]
    model = models.load_model(str(folder), torch.float32).eval()
    ours = {c.key: c for c in transformers_engine.complete(model, requests, limits, torch.device("cpu"))}
    theirs = {c.key: c for c in drawn(folder, requests, limits, texts).values()}
    ends = [{key: (c.token_ids, c.finish_reason) for key, c in found.items()} for found in (ours, theirs)]
    assert sum(ends[0][key] == ends[1][key] for key in ours) >= 99
    assert {c.finish_reason for c in theirs.values()} >= {"stop", "length"}


# --- a run -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory, prefect_home) -> Path:
    """One run with each engine; that of vLLM's is killed while it samples, and continued."""
    folder = tmp_path_factory.mktemp("runs")
    changes = {"model": TINY["model"] | SHAPE, "sampling": TINY["sampling"] | {"write_every_s": 0}}
    write_config(folder, "ours", **changes)
    changes["sampling"] |= {"engine": vllm_settings(max_num_seqs=2)}
    write_config(folder, "theirs", **changes)
    hir(folder, prefect_home, "run", "ours.yaml")
    driver = subprocess.Popen(command("run", "theirs.yaml"), cwd=folder, env=environment(prefect_home))
    samples = folder / "runs/theirs/samples"
    wait_until(
        lambda: driver.poll() is not None or any(list_parts(draft) for draft in samples.glob(".draft-*")), "a part"
    )
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_until(lambda: not processes_of(folder), "the end of all processes")
    kept = {path.name: path.read_bytes() for draft in samples.glob(".draft-*") for path in list_parts(draft)}
    assert kept
    (folder / "kept").write_text("\n".join(kept))
    hir(folder, prefect_home, "run", "theirs.yaml")
    return folder


def processes_of(folder: Path) -> list[int]:
    """Ids of vLLM's processes, and of those that were started in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
            if b"vllm_worker.py" in line or str(folder).encode() in line:
                found.append(int(process.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def test_a_killed_run_with_vllm_goes_on_and_its_trainer_agrees_with_what_vllm_drew(runs):
    ours, theirs = Store(runs / "runs/ours"), Store(runs / "runs/theirs")
    assert str(ours.resolve("models@0")) == str(theirs.resolve("models@0"))
    for stage in ("samples@1", "evaluations@0"):
        assert str(ours.resolve(stage)) != str(theirs.resolve(stage))
    samples = read_parts(theirs.folder(theirs.resolve("samples@1")))
    asked = read_parts(ours.folder(ours.resolve("samples@1")))
    key = ["prompt_id", "k"]
    assert (
        samples.select(*key, "seed", "prompt_ids").sort(key).equals(asked.select(*key, "seed", "prompt_ids").sort(key))
    )
    kept = set((runs / "kept").read_text().split("\n"))
    assert kept <= {path.name for path in list_parts(theirs.folder(theirs.resolve("samples@1")))}
    gaps = {store: store.manifest(store.resolve("models@1")).metrics["logprob_gap"] for store in (ours, theirs)}
    print("log-probability gap to the trainer:", *gaps.values())
    assert gaps[theirs] < 1e-3


def test_both_engines_answer_the_test_prompts_alike(runs):
    tables = [Store(runs / "runs" / name) for name in ("ours", "theirs")]
    answers = [read_parts(s.folder(s.resolve("evaluations@0"))).select("prompt_id", "completion") for s in tables]
    both = answers[0].join(answers[1], on="prompt_id", validate="1:1")
    assert both.height == answers[0].height
    assert both.filter(pl.col("completion") == pl.col("completion_right")).height >= both.height - 1
