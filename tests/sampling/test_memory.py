"""Batches that fit: rows by the free memory, weights whole or streamed, and smaller batches where memory runs out."""

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from zero_tables import INSTRUCTIONS

from hir_core.config.model_shape import shape_of_config
from hir_core.errors import ConfigError
from hir_core.launch.job_spec import SampleStep
from hir_core.modeling import zero
from hir_core.sampling import memory
from hir_core.sampling.completions import Request, row_seed
from hir_core.sampling.draw import Limits
from hir_core.sampling.memory import BatchLimit, RowEstimate
from hir_core.sampling.smaller_batches import complete_in_memory
from hir_core.sampling.transformers_engine import complete

CPU, GPU = torch.device("cpu"), torch.device("cuda")
GB = 10**9
LIMITS = Limits(1.0, 12, tuple(range(1, 40)), 0)
LLAMA_7B = shape_of_config(
    {"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
     "num_hidden_layers": 32, "num_attention_heads": 32}
)  # fmt: skip


@pytest.fixture(scope="module", params=["llama", "t5"])
def model(request, build_model):
    return build_model(request.param)


def make_step(**changes) -> SampleStep:
    values = {"requests": Path("r"), "output": Path("o"), "version": "samples@1", "model": "m"}
    values |= {"k": 4, "temperature": 1.0, "max_new_tokens": 12, "batch_tokens": "auto"}
    values |= {"zero3_weights": "auto", "write_every_s": 5, "iteration": 1, "instruction": INSTRUCTIONS[0]}
    return SampleStep(name="sample", **(values | changes))


def make_requests(count: int, k: int = 4) -> list[Request]:
    return [
        Request(f"p{n:02}", tuple(range(50 + n, 52 + n + n % 9)), tuple(row_seed(n, sample) for sample in range(k)))
        for n in range(count)
    ]


@pytest.fixture
def one_rank(monkeypatch):
    """Makes this process the only rank, with so many bytes free."""
    monkeypatch.setattr(zero, "min_over_ranks", lambda value, _: value)
    monkeypatch.setattr(zero, "release_reserve", lambda: None)

    def set_free(free: float) -> None:
        monkeypatch.setattr(zero, "free_bytes", lambda _: int(free))

    return set_free


# --- how many rows ---------------------------------------------------------------------------------------------------


def test_auto_takes_what_fits_into_the_free_memory_of_a_gpu(one_rank):
    estimate = RowEstimate(LLAMA_7B, 2, make_step(max_new_tokens=512))
    one_rank(60 * GB)
    limit = BatchLimit(estimate, GPU)
    limit.measure()
    rows = limit.rows(128)
    assert 100 < rows < 200  # 0.5 MB of cache a token, 640 tokens
    assert rows * estimate.row_bytes(128) <= 0.9 * 60 * GB < (rows + 1) * estimate.row_bytes(128)
    assert limit.rows(1024) < rows < limit.rows(16)
    streamed = BatchLimit(estimate, GPU, kept_free=30 * GB)
    streamed.measure()
    assert streamed.rows(128) == pytest.approx(rows / 2, abs=1)
    one_rank(0.1 * GB)
    limit.measure()
    assert limit.rows(128) == 1  # memory decides by running out


def test_auto_on_a_cpu_takes_no_more_tokens_than_before(one_rank):
    one_rank(60 * GB)
    limit = BatchLimit(RowEstimate(LLAMA_7B, 4, make_step(max_new_tokens=32)), CPU)
    limit.measure()
    assert limit.rows(96) == 16384 // 128
    one_rank(2 * GB)
    limit.measure()
    assert limit.rows(96) < 20


def test_a_number_is_kept_to_whatever_is_free(one_rank):
    one_rank(0)
    limit = BatchLimit(RowEstimate(LLAMA_7B, 2, make_step(batch_tokens=2800)), GPU)
    limit.measure()
    assert limit.rows(128) == 20
    limit.halve(20)
    assert limit.rows(128) == 10
    unknown = BatchLimit(RowEstimate(None, 2, make_step()), GPU)
    unknown.measure()
    assert unknown.rows(52) == 256


@pytest.mark.parametrize(
    ("free", "choice", "is_streamed"),
    [(100, "auto", False), (18, "auto", False), (16, "auto", True), (100, "stream", True), (1, "gather", False)],
)
def test_weights_are_gathered_where_a_small_batch_fits_beside_them(free, choice, is_streamed, one_rank, monkeypatch):
    """13.5 GB of weights, and 16 rows of 140 tokens, which take 2.0 GB."""
    one_rank(free * GB)
    monkeypatch.setattr(zero, "is_partitioned", lambda _: True)
    monkeypatch.setattr(zero, "parameter_bytes", lambda _: 2 * LLAMA_7B.parameters)
    monkeypatch.setattr(zero, "gathered_copy", lambda model, _: model)
    estimate = RowEstimate(LLAMA_7B, 2, make_step())
    monkeypatch.setattr(RowEstimate, "of", lambda *_: estimate)
    assert memory.LEAST_ROWS * estimate.row_bytes(128) == pytest.approx(2 * GB, rel=0.02)
    requests = [Request("p", (5,) * 128, (1,))]
    chosen = memory.sampling_weights(torch.nn.Linear(1, 1), make_step(zero3_weights=choice), requests, GPU)
    assert chosen.is_streamed == is_streamed
    assert f"(13.48 of {free:.1f} GB free)" in chosen.reason


def test_the_row_of_a_loaded_model_is_known(model):
    estimate = RowEstimate.of(model, make_step())
    assert estimate.shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert estimate.weight_bytes == 4
    assert estimate.row_bytes(20) > estimate.row_bytes(10) > 0


# --- where memory runs out -------------------------------------------------------------------------------------------


def new_limit(model) -> BatchLimit:
    limit = BatchLimit(RowEstimate.of(model, make_step()), CPU)
    limit.measure()
    return limit


def limited(model, most_rows: int, monkeypatch, error: Exception) -> list[int]:
    """Lets forward passes of more rows raise the error; returns the list to which each adds its rows."""
    forward, rows = model.forward, []

    def checked(*given, **named):
        ids = named["decoder_input_ids"] if model.config.is_encoder_decoder else named["input_ids"]
        rows.append(len(ids))
        if len(ids) > most_rows:
            raise error
        return forward(*given, **named)

    monkeypatch.setattr(model, "forward", checked)
    return rows


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


@pytest.mark.parametrize("most_rows", [9, 1])
def test_distinct_samples_are_drawn_in_smaller_batches_too(model, most_rows, one_rank, monkeypatch):
    one_rank(GB)
    requests = [replace(request, distinct=True) for request in make_requests(12)]
    expected = list(complete(model, requests, LIMITS, CPU))
    limited(model, most_rows, monkeypatch, MemoryError())
    drawn = {(c.key, c.k): c.token_ids for c in complete_in_memory(model, requests, LIMITS, CPU, new_limit(model))}
    assert drawn == {(c.key, c.k): c.token_ids for c in expected}
    limited(model, 0, monkeypatch, MemoryError())
    with pytest.raises(ConfigError, match=r"there is too little memory for a single prompt"):
        list(complete_in_memory(model, requests, LIMITS, CPU, new_limit(model)))


@pytest.mark.parametrize("most_rows", [9, 1])
def test_a_batch_that_is_too_large_is_halved_and_draws_the_same(model, most_rows, one_rank, monkeypatch, caplog):
    """Down to parts of the samples of one prompt; prompts come whole and in the order of their samples."""
    one_rank(GB)
    requests = make_requests(6)
    expected = {(c.key, c.k): c.token_ids for c in complete(model, requests, LIMITS, CPU)}
    limit = new_limit(model)
    rows = limited(model, most_rows, monkeypatch, NO_MEMORY[most_rows % 4])
    with caplog.at_level(logging.WARNING):
        drawn = list(complete_in_memory(model, requests, LIMITS, CPU, limit))
    assert {(c.key, c.k): c.token_ids for c in drawn} == expected
    assert [c.k for c in drawn] == [*range(4)] * 6
    assert [c.key for c in drawn] == [key for key in dict.fromkeys(c.key for c in drawn) for _ in range(4)]
    assert max(most_rows // 2, 1) <= limit.most_rows <= most_rows
    assert len(caplog.messages) == len([count for count in rows if count > most_rows])
    assert caplog.messages[0].startswith("memory ran out with 24 rows at once, now at most 12: ")
    said = memory.smaller_batches(limit, requests, CPU)
    assert said.startswith(f"memory ran out, so batches were halved to {limit.most_rows} rows: set sampling.batch_tok")


def test_finished_prompts_are_not_drawn_again(build_model, one_rank, monkeypatch):
    one_rank(GB)
    model, requests = build_model("llama"), make_requests(24)
    limit = BatchLimit(RowEstimate.of(model, make_step(batch_tokens=400)), CPU)
    rows = limited(model, 99, monkeypatch, NO_MEMORY[0])
    drawn = complete_in_memory(model, requests, LIMITS, CPU, limit)
    first = next(drawn)
    limited(model, limit.rows(10) // 2, monkeypatch, NO_MEMORY[0])
    keys = [first.key, *(completion.key for completion in drawn)]
    assert sorted(keys) == sorted(key for request in requests for key in [request.key] * 4)
    assert len(rows) > 0


def test_memory_that_is_too_small_for_a_row_ends_with_what_to_set(model, one_rank, monkeypatch):
    one_rank(GB)
    limited(model, 0, monkeypatch, NO_MEMORY[0])
    limit = new_limit(model)
    with pytest.raises(ConfigError, match=r"too little memory for a single prompt of 3 tokens with 12 new ones: lower"):
        list(complete_in_memory(model, make_requests(2), LIMITS, CPU, limit))


def test_other_errors_are_not_taken_for_a_lack_of_memory(model, one_rank, monkeypatch):
    one_rank(GB)
    limited(model, 5, monkeypatch, RuntimeError("expected scalar type Float but found Half"))
    with pytest.raises(RuntimeError, match="expected scalar type"):
        list(complete_in_memory(model, make_requests(9), LIMITS, CPU, new_limit(model)))


def test_nothing_is_said_where_memory_sufficed(model, one_rank):
    one_rank(GB)
    requests, limit = make_requests(3), new_limit(model)
    assert len(list(complete_in_memory(model, requests, LIMITS, CPU, limit))) == 12
    assert list(complete_in_memory(model, [], LIMITS, CPU, limit)) == []
    assert memory.smaller_batches(limit, requests, CPU) is None


LITTLE_MEMORY = """
import resource, torch
from pathlib import Path
from test_memory import *
import transformers

zero.min_over_ranks = lambda value, _: value
torch.manual_seed(1)
shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=40000, **shape)).eval()
requests, limits = make_requests(16), Limits(1.0, 3, (0,), 0)
expected = {(c.key, c.k): c.token_ids for request in requests for c in complete(model, [request], limits, CPU)}
limit = BatchLimit(RowEstimate.of(model, make_step(batch_tokens=10**6)), CPU)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 16 * 2**20, resource.RLIM_INFINITY))  # for all at once 56 MB are needed
drawn = {(c.key, c.k): c.token_ids for c in complete_in_memory(model, requests, limits, CPU, limit)}
print(len(drawn), drawn == expected, limit.most_rows)
"""


def test_real_memory_that_runs_out_is_survived():
    """In a process whose address space is limited, where torch's own allocator fails."""
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support"), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY],
        text=True,
        capture_output=True,
        env={"PYTHONPATH": ":".join(folders), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    count, are_same, most_rows = done.stdout.split()[-3:]
    assert (count, are_same) == ("64", "True"), done.stderr
    assert 1 <= float(most_rows) <= 32
    assert "memory ran out with 64 rows at once, now at most 32: " in done.stderr
