"""The engine on vLLM, against a stand-in for its environment: what is asked of it, what is read, how it may fail."""

import json
import os
import random
import signal
import time
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import LlamaConfig
from vllm_stand_in import make_environment

from hir_core.config import HubModel, VllmEngine
from hir_core.config.load import parse_config
from hir_core.errors import ConfigError, NumericalError
from hir_core.inspect.doctor import check_needs
from hir_core.launch.devices import Devices, Place
from hir_core.launch.job_spec import JobSpec, SampleStep
from hir_core.launch.rank import Rank
from hir_core.launch.vllm_environment import check_vllm, import_problem
from hir_core.modeling.data_parallel import PartWriter
from hir_core.sampling.completions import Output, Request, row_seed
from hir_core.sampling.draw import Limits
from hir_core.sampling.vllm_engine import SEED_BITS, VllmEnded, VllmProcess, read_output, sampling_settings, worker_env
from hir_core.store.files import read_parts
from hir_core.worker.vllm_job import VllmJob

LIMITS = Limits(0.7, 8, (1, 2), 0, top_k=5)
ONE_RANK = Place(1, Devices((), 1))


def engine(python: Path, **settings: object) -> VllmEngine:
    return VllmEngine.model_validate({"type": "vllm", "release": "0.32.0", "python": python, **settings})


@pytest.fixture
def python(tmp_path: Path) -> Path:
    return make_environment(tmp_path / "environment")


def package(python: Path) -> Path:
    return python.parent / "packages" / "vllm"


def started(python: Path, **settings: object) -> VllmProcess:
    return VllmProcess(engine(python, **settings), Path("a model"), "float32", 96, reads_text=False)


def stand_in_tokens(seed: int, limits: Limits) -> tuple[int, ...]:
    """What the stand-in draws for a seed."""
    rng, ids = random.Random(seed), list[int]()
    while len(ids) < limits.max_new_tokens and (not ids or ids[-1] not in limits.end_ids):
        ids.append(rng.choice([1, *range(40, 60)]))
    return tuple(ids)


def test_prompts_are_completed_with_the_tokens_of_their_seeds_whatever_is_finished_first(python):
    requests = [Request(f"p{n}", (n, n + 1), tuple(row_seed(n, k) for k in range(3)), first=n % 2) for n in range(7)]
    with closing(started(python, max_num_seqs=2)) as process:
        twice = [[*process.complete(given, LIMITS)] for given in (requests, requests[::-1])]
    for completions in twice:
        assert [c.k for c in completions] == [r.first + k for c in completions[::3] for r in requests if r.key == c.key
                                              for k in range(3)]  # fmt: skip
        by_row = {(c.key, c.k): c for c in completions}
        assert len(by_row) == 21
        for request in requests:
            for k, seed in enumerate(request.seeds):
                completion = by_row[request.key, request.first + k]
                assert completion.token_ids == stand_in_tokens(seed % 2**SEED_BITS, LIMITS)
                assert completion.finish_reason == ("eos" if completion.token_ids[-1] == 1 else "length")
    assert twice[0] != twice[1]
    assert sorted(twice[0], key=str) == sorted(twice[1], key=str)


def test_vllm_is_asked_for_raw_log_probabilities_and_for_nothing_but_what_was_set(python):
    process = VllmProcess(engine(python, max_num_seqs=2), Path("a model"), "bfloat16", 5000, reads_text=True)
    with closing(process):
        list(process.complete([Request("p", (7, 8), (2**63 + 5,))], LIMITS, ["\n"]))
    arguments = json.loads((package(python) / "arguments.json").read_text())
    env = arguments.pop("env")
    assert arguments == {
        "model": "a model", "dtype": "bfloat16", "max_model_len": 5000, "tensor_parallel_size": 1, "max_num_seqs": 2,
        "skip_tokenizer_init": False, "logprobs_mode": "raw_logprobs", "generation_config": "vllm",
        "load_format": "safetensors",
        # of a CPU:
        "enforce_eager": True, "kv_cache_memory_bytes": 2**30, "enable_chunked_prefill": False,
        "max_num_batched_tokens": 5000,
    }  # fmt: skip
    assert env["HF_HUB_OFFLINE"] == "1"
    (asked,) = map(json.loads, (package(python) / "requests.jsonl").read_text().splitlines())
    assert asked == {
        "prompt": [7, 8], "seed": 5, "logprobs": 0, "output_kind": 2, "temperature": 0.7, "max_tokens": 8,
        "stop_token_ids": [1, 2], "ignore_eos": True, "detokenize": True, "stop": ["\n"], "top_k": 5,
    }  # fmt: skip


def test_vllm_gets_its_gpus_and_nothing_of_this_process_and_its_launch():
    env = {
        "PYTHONPATH": "here",
        "RANK": "3",
        "MASTER_PORT": "1",
        "PYTORCH_ALLOC_CONF": "x",
        "HOME": "/",
        "OMP_NUM_THREADS": "2",
    }
    assert worker_env(env, ("2", "3")).items() >= {"CUDA_VISIBLE_DEVICES": "2,3", "HOME": "/"}.items()
    assert not {"PYTHONPATH", "RANK", "MASTER_PORT", "PYTORCH_ALLOC_CONF", "OMP_NUM_THREADS"} & set(
        worker_env(env, ("2",))
    )
    assert worker_env(env, ())["OMP_NUM_THREADS"] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in worker_env(env, ())


def test_an_output_ends_at_its_first_end_whatever_vllm_adds():
    request = Request("p", (3,), (0,))
    limits = Limits(1.0, 4, (1,), 0, has_stopped=lambda ids: ids[-1] == 9)

    def read(tokens: list[int], ended: str = "stop") -> tuple[list[int], str | None]:
        output = read_output(
            Output(request, 0), {"tokens": tokens, "logprobs": [-1.0] * len(tokens), "ended": ended}, limits
        )
        return output.token_ids, output.finish_reason

    assert read([5, 9, 6]) == ([5, 9], "stop")
    assert read([5, 1]) == ([5, 1], "eos")
    assert read([5, 6, 7, 8], "length") == ([5, 6, 7, 8], "length")
    assert read([5, 6]) == ([5, 6], "length")  # a stop text that only vLLM has seen
    with pytest.raises(VllmEnded, match=r"ended output 0 of prompt p for no reason that was asked for"):
        read([5, 6], "abort")
    assert "stop" not in sampling_settings(limits, ())


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("no_memory", VllmEnded, r"^vLLM failed: ValueError: No available memory for the cache blocks$"),
        ("nan", NumericalError, r"^prompt p: vLLM gives a log-probability of output 0 that is not finite"),
    ],
)
def test_what_vllm_fails_of_is_told(python, fault, error, message):
    (package(python) / fault).touch()
    with pytest.raises(error, match=message), closing(started(python)) as process:
        list(process.complete([Request("p", (3,), (5,))], LIMITS))


def test_a_program_that_is_no_vllm_is_told():
    with pytest.raises(VllmEnded, match=r"^vLLM ended with exit code 0$"):
        started(Path("/bin/true"))


def test_another_release_than_the_one_that_rows_are_named_after_draws_none(python):
    with pytest.raises(ConfigError, match=r"^sampling\.engine\.release is 0\.31\.0, and .* has loaded vLLM 0\.32\.0"):
        started(python, release="0.31.0")


def test_vllm_ends_with_the_process_that_has_started_it(python):
    reading, writing = os.pipe()
    starter = os.fork()
    if starter == 0:
        process = started(python)
        os.write(writing, f"{process._process.pid}".encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(starter, 0)
    pid = int(os.read(reading, 100))
    os.close(reading)
    os.close(writing)
    deadline = time.monotonic() + 60
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(pid)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- the environment -------------------------------------------------------------------------------------------------


def test_an_environment_of_the_named_release_is_accepted(python):
    check_vllm(engine(python), ONE_RANK)
    check_vllm(engine(python, tensor_parallel=2), Place(4, Devices(("0", "1", "2", "3"), 1)))
    assert import_problem(engine(python)) == ""
    (package(python) / "v1/engine/llm_engine.py").write_text("raise ImportError('libcudart.so.13: cannot open')")
    assert import_problem(engine(python)) == "ImportError: libcudart.so.13: cannot open"


def test_an_environment_that_cannot_serve_is_told_with_what_to_do(tmp_path, python):
    def problem(settings: VllmEngine, place: Place = ONE_RANK) -> str:
        with pytest.raises(ConfigError) as raised:
            check_vllm(settings, place)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert problem(engine(tmp_path / "none")).startswith(
        f"sampling.engine.python: cannot run {tmp_path / 'none'}: No such"
    )
    assert "is no Python 3.10 or later: it ended with status 1" in problem(engine(Path("/bin/false")))
    bare = problem(engine(make_environment(tmp_path / "bare", release=None)))
    assert "vLLM is not installed for" in bare
    assert bare.endswith("vllm-env/bin/pip install vllm==0.32.0`")
    assert "release is 0.31.1, and" in problem(engine(python, release="0.31.1"))
    assert "is 2, and a launch has 1 rank(s)" in problem(engine(python, tensor_parallel=2))


def test_the_doctor_finds_what_is_wrong_with_the_environment_of_a_config(python):
    def findings(**engine_changes: object) -> list[tuple[str, str, str]]:
        settings = engine(python).model_dump(mode="json") | engine_changes
        raw = {"run": "r", "iterations": 1, "model": {"type": "scratch"}, "prompts": [{"path": "p.jsonl"}]}
        config = parse_config(raw | {"sampling": {"engine": settings}, "launch": {"processes": 1}})
        return [(found.what, found.where, found.do) for found in check_needs(config)]

    assert findings() == []
    [(what, where, do)] = findings(release="0.31.0")
    assert (what.startswith("sampling.engine.release is 0.31.0, and"), where) == (True, str(python))
    assert do.endswith("vllm-env/bin/pip install vllm==0.31.0`")
    (package(python) / "v1/engine/llm_engine.py").write_text("raise ImportError('libcudart.so.13')")
    [(what, _, do)] = findings()
    assert (what, do[:21]) == ("vLLM cannot be imported: ImportError: libcudart.so.13", "install vLLM 0.32.0 a")


# --- the job ---------------------------------------------------------------------------------------------------------


def job(folder: Path, python: Path, tokenizer, **changes: object) -> JobSpec:
    """Completes twelve prompts, three times each, from a model of which vLLM would read the weights."""
    model, output = folder / "model", folder / "drawn"
    if not model.exists():
        tokenizer.save_pretrained(model)
        LlamaConfig(vocab_size=300, max_position_embeddings=64).save_pretrained(model)
        (model / "generation_config.json").write_text('{"top_p": 0.9, "min_p": 0.1}')
        output.mkdir()
        rows = [{"prompt_id": f"p{n:02}", "query": f"{n} figs", "history": None} for n in range(12)]
        pl.DataFrame(rows, schema_overrides={"history": pl.Null}).write_parquet(folder / "requests.parquet")
    step = SampleStep(
        name="sample", requests=folder / "requests.parquet", output=output, version="samples@1", model="m",
        instruction="Count.", k=3, temperature=1.0, max_new_tokens=8, batch_tokens="auto", zero3_weights="auto",
        write_every_s=0, iteration=1,
    ).model_copy(update=changes)  # fmt: skip
    return JobSpec(model=HubModel(source=str(model)), engine=engine(python), seed=4, deepspeed={}, steps=(step,))


@pytest.mark.usefixtures("alone")
def test_a_rank_writes_what_vllm_draws_and_after_a_kill_only_the_rest(tmp_path, python, tokenizer, monkeypatch):
    spec, rank = job(tmp_path, python, tokenizer), Rank(tmp_path, 0, 1, 0)
    written = list[int]()
    flush = PartWriter.flush

    def stop_after_four(writer: PartWriter) -> None:
        flush(writer)
        written.append(1)
        if len(written) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(PartWriter, "flush", stop_after_four)
    first = VllmJob(rank, spec)
    with pytest.raises(KeyboardInterrupt):
        first.do(spec.steps[0])
    first.close()
    monkeypatch.undo()
    kept = read_parts(tmp_path / "drawn")
    assert 3 <= kept.height < 36
    asked_before = (package(python) / "requests.jsonl").read_text().count("\n")
    second = VllmJob(rank, spec)
    result = second.do(spec.steps[0])
    second.close()
    drawn = read_parts(tmp_path / "drawn")
    asked = (package(python) / "requests.jsonl").read_text().splitlines()[asked_before:]
    assert len(asked) == result["rows"] == 36 - kept.height
    assert drawn.height == drawn["sample_id"].n_unique() == 36
    for row in drawn.iter_rows(named=True):
        assert row["seed"] == row_seed(4, 1, row["prompt_id"], row["k"])
        assert tuple(row["completion_ids"]) == stand_in_tokens(row["seed"] % 2**SEED_BITS, Limits(1.0, 8, (1,), 0))
        assert row["prompt_ids"] == second.renderer.prompt_ids("Count.", f"{int(row['prompt_id'][1:])} figs", None)
    assert drawn.join(kept, on=kept.columns, how="inner", nulls_equal=True).height == kept.height


@pytest.mark.usefixtures("alone")
def test_a_preset_with_what_vllm_does_otherwise_is_refused(tmp_path, python, tokenizer):
    with pytest.raises(ConfigError, match=r"^sampling\.preset: .* top_p and min_p together"):
        VllmJob(Rank(tmp_path, 0, 1, 0), job(tmp_path, python, tokenizer, preset="model"))


def test_torch_takes_a_seed_of_63_bits():
    assert torch.Generator().manual_seed(2**SEED_BITS - 1).initial_seed() == 2**SEED_BITS - 1
