"""What a GPU does with hir: speed, memory, the tests of `-m gpu`, and a run. `python tests/gpu/measure.py FOLDER`.

Writes into the folder: `results.json`, a `Results` that is written anew after each part, and the output of each part
as `PART.log`. A part is a process of its own with a time limit, so that one that fails or hangs costs no other; what it
had measured until then is kept. All parts together take at most `--limit` seconds. `--tiny` makes every shape so small
that a CPU can do it, which tests this file; its numbers mean nothing.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
PEAK_FLOPS = 989e12
"""Dense bf16 operations per second of an H100 and of an H200, by their datasheets."""

# --- what is written -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    part: str
    what: str
    value: float
    unit: str


@dataclass(frozen=True)
class PartEnd:
    """How a part ended."""

    part: str
    seconds: float
    ended: str
    """`ok`, `failed`, `out of time`, or `left out` where no time was left."""


@dataclass
class Results:
    """Everything that was measured, and where."""

    device: str
    """Name, memory and driver of the GPU, as nvidia-smi gives them."""
    software: dict[str, str]
    commit: str
    """The environment variable GIT_COMMIT."""
    is_tiny: bool
    parts: list[PartEnd] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Writes `results.json`."""
        (folder / "results.json").write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")


class Recorder:
    """Appends figures of one part to a file as soon as they are known."""

    def __init__(self, folder: Path, part: str) -> None:
        self.path, self.part = folder / "figures.jsonl", part
        self.parameters = 0
        """Of the model that is trained."""

    def add(self, what: str, value: float, unit: str) -> None:
        """Records one number, and prints it."""
        print(f"{self.part}: {what}: {value:,.4g} {unit}", flush=True)
        with self.path.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(Figure(self.part, what, value, unit))) + "\n")

    def add_case(self, folder: Path) -> None:
        """Records seconds, memory and speed of everything that `measured_ranks` did in one case."""
        for number, action in enumerate(json.loads((folder / "measured.json").read_text())):
            name, speed = f"{folder.name}, {number} {action['name']}", action["tokens_per_s"]
            self.add(f"{name}: time", action["seconds"], "s")
            for key in ("bytes_before", "bytes_after", "peak_bytes"):
                self.add(f"{name}: {key.replace('_', ' ')}", action[key] / 1e9, "GB")
            if speed:
                self.add(f"{name}: speed", speed, "tokens/s")
            if action["name"] == "train":
                # 6 operations per parameter and token, forward and backward; attention is not counted.
                self.add(f"{name}: utilisation", 6 * self.parameters * speed / PEAK_FLOPS, "of the peak FLOP/s")


# --- sizes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """Shapes of models and amounts of work."""

    small: dict[str, int]
    """The model of speed and training; about 0.6 billion parameters."""
    large: dict[str, int]
    """The model that is loaded, gathered and saved; about 7 billion parameters."""
    batch_tokens: tuple[int, ...]
    row_tokens: int
    """At least the tokens of a prompt and its output."""
    new_tokens: int
    batch_size: int
    micro_batch_tokens: int
    steps: dict[str, int]
    """Optimizer steps under each DeepSpeed file."""
    optimizer_tensors: int
    """Of a million numbers each."""
    context: int
    """Tokens of the longest output that `attention` trains on; the shortest has an eighth of them."""
    outputs: int
    """That `attention` trains on, a quarter of them in each step."""
    head: tuple[int, int, int, int]
    """Of `head`: vocabulary, hidden size, rows, and targets of each."""


LLAMA_0_6B = {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8}
LLAMA_0_6B |= {"intermediate_size": 3072, "vocab_size": 151936, "head_dim": 128, "max_position_embeddings": 1024}
LLAMA_7B = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32}
LLAMA_7B |= {"intermediate_size": 11008, "vocab_size": 32000, "max_position_embeddings": 1024}
LLAMA_TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
LLAMA_TINY |= {"intermediate_size": 64, "vocab_size": 600, "max_position_embeddings": 128}
FULL = Sizes(
    small=LLAMA_0_6B,
    large=LLAMA_7B,
    batch_tokens=(16384, 65536, 262144),
    row_tokens=144,
    new_tokens=128,
    batch_size=128,
    micro_batch_tokens=9216,
    steps={"zero2": 10, "zero3": 10, "zero3_offload": 4},
    optimizer_tensors=256,
    context=8192,
    outputs=64,
    head=(151936, 1024, 8, 1024),
)
TINY = Sizes(
    small=LLAMA_TINY,
    large=LLAMA_TINY,
    batch_tokens=(512, 1024),
    row_tokens=32,
    new_tokens=8,
    batch_size=4,
    micro_batch_tokens=128,
    steps={"zero2": 2, "zero3_offload": 2},
    optimizer_tensors=1,
    context=64,
    outputs=8,
    head=(500, 32, 2, 16),
)

# --- the parts -------------------------------------------------------------------------------------------------------


def make_model(folder: Path, shape: dict[str, int], *, is_tied: bool) -> int:
    """Writes a random bf16 Llama with a tokenizer of 400 tokens; returns the number of its parameters."""
    import torch
    import transformers

    from hir_core.modeling import models

    folder.mkdir(parents=True)
    tokenizer = models.fit_tokenizer(["two figs and three plums Add up. Do not add up."] * 4, 400)
    tokenizer.save_pretrained(folder)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = transformers.LlamaConfig(tie_word_embeddings=is_tied, **ends, **shape)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def launched(cases: Any, recorder: Recorder) -> None:
    """Does all cases in one launch of one rank, and records what it did, also where a case failed."""
    from zero_tables import launch_cases

    try:
        launch_cases(cases.root, 1, module="measured_ranks")
    finally:
        for done in sorted((cases.root / "cases").glob("*/measured.json")):
            recorder.add_case(done.parent)


def speed(sizes: Sizes, recorder: Recorder, work: Path) -> None:
    """New tokens per second for each `batch_tokens`; training under each file; `transformers`' own generate."""
    from zero_tables import LaunchCases

    from hir_core.errors import HirError

    recorder.parameters = make_model(work / "data" / "small", sizes.small, is_tied=True)
    recorder.add("parameters", recorder.parameters, "")
    cases, has_failed = LaunchCases(work / "sampling", 1, work / "data"), False
    for measurement in (sample, train, generate):
        try:
            measurement(sizes, recorder, cases)
        except (HirError, RuntimeError):  # of a launch, or the GPU's memory
            traceback.print_exc()
            has_failed = True
    sys.exit(has_failed)


IN_BF16 = "accumulating in bf16"
"""End of the name of a case whose gradients are."""


def sampled_with(number: int, batch_tokens: int) -> str:
    """The name of a case of sampling."""
    return f"sampling-{number}-{batch_tokens}"


def sample(sizes: Sizes, recorder: Recorder, cases: Any) -> None:
    """Samples one batch of each size, and the last one's prompts with what `auto` chooses; case 0 only warms up."""
    from zero_tables import K, make_requests

    from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS, read_deepspeed

    zero2 = read_deepspeed(SHIPPED_DS_CONFIGS / "zero2.json")
    for number, batch_tokens in enumerate((sizes.batch_tokens[0], *sizes.batch_tokens)):
        name = sampled_with(number, batch_tokens)
        make_requests(cases.data / f"requests-{name}.parquet", batch_tokens // (sizes.row_tokens * K))
        step = cases.sampling(name, name, max_new_tokens=sizes.new_tokens, batch_tokens=batch_tokens)
        cases.add(name, "small", zero2, step)
    step = cases.sampling("sampling-auto", name, max_new_tokens=sizes.new_tokens, batch_tokens="auto")
    cases.add("sampling-auto", "small", zero2, step)
    launched(cases, recorder)


def train(sizes: Sizes, recorder: Recorder, sampled: Any) -> None:
    """Trains on the samples of the second batch size.

    Under each DeepSpeed file, which accumulate in fp32; under one that accumulates in bf16; and an adapter.
    """
    from zero_tables import LaunchCases, make_triples

    from hir_core.config import LoraConfig, TrainingConfig
    from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS, read_deepspeed
    from hir_core.launch.job_spec import Adapter, TrainStep

    name = sampled_with(2, sizes.batch_tokens[1])
    samples, prompts = sampled.out(name, "samples"), sampled.data / f"requests-{name}"
    triples = sampled.data / "triples"
    make_triples(samples, prompts.with_suffix(".parquet"), triples, every=1)
    cases = LaunchCases(sampled.root.parent / "training", 1, sampled.data)

    def add(name: str, file: str, adapter: Adapter | None = None) -> None:
        limits = {"micro_batch_tokens": sizes.micro_batch_tokens, "steps": sizes.steps[file]}
        training = TrainingConfig(batch_size=sizes.batch_size, **limits)
        step = TrainStep(triples=triples, samples=samples, prompts=prompts, training=training, iteration=1)
        settings = read_deepspeed(SHIPPED_DS_CONFIGS / f"{file}.json")
        if name.endswith(IN_BF16):
            del settings["data_types"]
        cases.add(name, "small", settings, step, adapter=adapter)

    for file in sizes.steps:
        add(file, file)
    add(f"zero2 {IN_BF16}", "zero2")
    add("zero2 with LoRA", "zero2", Adapter(lora=LoraConfig(rank=16)))
    launched(cases, recorder)


def generate(sizes: Sizes, recorder: Recorder, sampled: Any) -> None:
    """Samples with `transformers`' own generate, for the same prompts in one batch."""
    import torch
    from transformers import AutoModelForCausalLM
    from zero_tables import K

    from hir_core.store.files import read_parts

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForCausalLM.from_pretrained(sampled.data / "small", dtype=torch.bfloat16).to(device).eval()
    pad, end = model.config.pad_token_id, model.config.eos_token_id
    drawing = {"do_sample": True, "top_k": 0, "top_p": 1.0, "num_return_sequences": K}
    for number, batch_tokens in enumerate(sizes.batch_tokens, 1):
        samples = read_parts(sampled.out(sampled_with(number, batch_tokens), "samples"))
        prompts = samples.unique("prompt_id", maintain_order=True)["prompt_ids"].to_list()
        width = max(map(len, prompts))
        ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
        inputs = {"input_ids": ids, "attention_mask": (ids != pad).long(), "pad_token_id": pad, "eos_token_id": end}
        model.generate(**inputs, **drawing, max_new_tokens=4)  # warms up
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.monotonic()
        tokens = model.generate(**inputs, **drawing, max_new_tokens=sizes.new_tokens)[:, width:]
        drawn = int((tokens != pad).sum())  # waits for the GPU
        recorder.add(f"generate-{number}-{batch_tokens}: speed", drawn / (time.monotonic() - started), "tokens/s")


def seven_billion(sizes: Sizes, recorder: Recorder, work: Path) -> None:
    """A large model under ZeRO-3: loaded, gathered, sampled from and saved."""
    import torch
    from zero_tables import LaunchCases, make_requests

    from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS, read_deepspeed
    from hir_core.launch.job_spec import SaveStep

    data, started = work / "data", time.monotonic()
    recorder.add("parameters", make_model(data / "large", sizes.large, is_tied=False), "")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    recorder.add("making the model", time.monotonic() - started, "s")
    make_requests(data / "requests-many.parquet", 64)
    cases = LaunchCases(work / "zero3", 1, data)
    limits = {"max_new_tokens": min(32, sizes.new_tokens), "batch_tokens": 65536}
    steps = [cases.sampling("large", **limits), SaveStep(output=cases.out("large", "model"))]
    cases.add("zero3", "large", read_deepspeed(SHIPPED_DS_CONFIGS / "zero3.json"), *steps)
    launched(cases, recorder)


def optimizer(sizes: Sizes, recorder: Recorder, _: Path) -> None:
    """Nanoseconds per parameter of a step of torch's AdamW in fp32, in its three forms, on the GPU and the CPU."""
    import torch

    for device in ["cuda"] * torch.cuda.is_available() + ["cpu"]:
        steps = 10 if device == "cuda" else 2
        weights = [torch.zeros(1_000_000, device=device) for _ in range(sizes.optimizer_tensors)]
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        for form in ({"foreach": False}, {"foreach": True}, {"fused": True}):
            adam = torch.optim.AdamW(weights, lr=1e-5, **form)
            adam.step()  # makes the moments
            if device == "cuda":
                torch.cuda.synchronize()
            started = time.monotonic()
            for _ in range(steps):
                adam.step()
            if device == "cuda":
                torch.cuda.synchronize()
            nanoseconds = (time.monotonic() - started) / steps / len(weights) / 1_000_000 * 1e9
            name = ", ".join(f"{key}={value}" for key, value in form.items())
            recorder.add(f"AdamW on {device}, {name}", nanoseconds, "ns per parameter")
            del adam


def attention(sizes: Sizes, recorder: Recorder, work: Path) -> None:
    """Training on outputs of uneven length up to a long context, with each implementation of attention that is here.

    The log says why one is left out. `eager` is not measured: it holds the scores of all pairs of tokens.
    """
    import torch
    from zero_tables import LaunchCases

    from hir_core.config import TrainingConfig
    from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS, read_deepspeed
    from hir_core.errors import HirError
    from hir_core.launch.attention import attention_problem
    from hir_core.launch.job_spec import TrainStep

    data, has_failed = work / "data", False
    shape = sizes.small | {"max_position_embeddings": 2 * sizes.context}
    recorder.parameters = make_model(data / "small", shape, is_tied=True)
    recorder.add("parameters", recorder.parameters, "")
    make_long_triples(data / "triples", sizes)
    terms = {"label_smoothing": 0.0, "contrastive": 0.0, "entropy": 0.0, "exclusion": 0.0}
    limits = {"batch_size": sizes.outputs // 4, "micro_batch_tokens": 2 * sizes.context, "steps": 6}
    step = TrainStep(
        triples=data / "triples",
        samples=None,
        prompts=data / "triples",
        training=TrainingConfig(**limits, **terms),
        iteration=1,
    )
    for name in ("sdpa", "flex_attention", "flash_attention_2"):
        if problem := attention_problem(name, has_gpu=torch.cuda.is_available()):
            print(f"{name} is left out: {problem}", flush=True)
            continue
        cases = LaunchCases(work / name, 1, data)  # in a launch of its own, so that one that fails costs no other
        cases.add(name, "small", read_deepspeed(SHIPPED_DS_CONFIGS / "zero2.json"), step, attention=name)
        try:
            launched(cases, recorder)
        except (HirError, RuntimeError):
            traceback.print_exc()
            has_failed = True
    sys.exit(has_failed)


def make_long_triples(folder: Path, sizes: Sizes) -> None:
    """Writes outputs whose lengths are drawn so that each factor of two has as many."""
    import numpy as np
    import polars as pl

    from hir_core.store.files import write_part

    draw = np.random.default_rng(1)
    lengths = (sizes.context * 0.9 * 8.0 ** -draw.random(sizes.outputs)).astype(int)  # with room for the prompt
    row = {"sample_id": None, "instruction": "Add up.", "contrast": [], "query": "3 figs", "history": None}
    row |= {"output": "", "prefix_ids": [], "ends": False, "weight": 1.0, "excluded_from": None, "removed": 0.0}
    rows = [
        row | {"triple_id": f"t{n:03}", "target_ids": draw.integers(5, 300, length).tolist()}
        for n, length in enumerate(lengths)
    ]
    types = {"prefix_ids": pl.List(pl.Int32), "target_ids": pl.List(pl.Int32), "contrast": pl.List(pl.String)}
    folder.mkdir(parents=True)
    write_part(folder, "0", pl.DataFrame(rows, schema_overrides=types | {"excluded_from": pl.String}))


def head(sizes: Sizes, recorder: Recorder, _: Path) -> None:
    """Time and memory of the loss behind a large head: in chunks, whole, and in Liger's kernel where that is here."""
    import torch

    from tests.benchmarks.head import loss_of_hir, loss_of_transformers, make_batch, make_model

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vocabulary, hidden, rows, targets = sizes.head
    model = make_model(vocabulary, hidden).to(device, torch.bfloat16)
    batch = make_batch(vocabulary, rows, targets).to(device)
    losses: dict[str, Callable[[], Any]] = {
        f"hir, {rows * targets // parts} targets at a time": lambda n=rows * targets // parts: loss_of_hir(
            model, batch, n
        )
        for parts in (8, 2, 1)
    }
    losses["transformers"] = lambda: loss_of_transformers(model, batch)
    missing = [name for name in ("liger_kernel", "triton") if importlib.util.find_spec(name) is None]
    if missing or device.type != "cuda":
        print(f"Liger is left out: it needs a GPU and {', '.join(missing) or 'nothing else'}", flush=True)
    else:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        cross_entropy = LigerFusedLinearCrossEntropyLoss()

        def with_liger() -> Any:
            states = model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
            return cross_entropy(model.lm_head.weight, states.flatten(0, 1)[batch.target_positions], batch.target_ids)

        losses["Liger"] = with_liger
    for name, loss in losses.items():
        seconds, peak_bytes, value = timed_pass(model, loss, device)
        recorder.add(f"{name}: loss", value, "nats")
        recorder.add(f"{name}: time", seconds * 1e3, "ms")
        recorder.add(f"{name}: peak bytes", peak_bytes / 1e9, "GB")


def timed_pass(model: Any, loss: Callable[[], Any], device: Any) -> tuple[float, int, float]:
    """Seconds of a forward and backward pass, the most GPU memory that it adds (0 on a CPU), and the loss.

    The first pass only warms up.
    """
    import torch

    repeats, is_cuda = 5, device.type == "cuda"
    loss().backward()
    before = 0
    if is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    started = time.monotonic()
    for _ in range(repeats):
        value = loss()
        value.backward()
    last = float(value.detach())  # waits for the GPU
    if is_cuda:
        torch.cuda.synchronize()
    seconds = (time.monotonic() - started) / repeats
    peak = torch.cuda.max_memory_allocated() - before if is_cuda else 0
    model.zero_grad()
    return seconds, peak, last


def tests(sizes: Sizes, recorder: Recorder, work: Path) -> None:
    """The tests that need a GPU; the names of those that fail are in the log. A new release's warning fails none."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(HERE / "test_device.py"),
        "-m",
        "gpu",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run([*command, f"--basetemp={work / 'pytest'}"], cwd=CHECKOUT)
    recorder.add("exit status of pytest -m gpu", done.returncode, "")


def run(sizes: Sizes, recorder: Recorder, work: Path) -> None:
    """`hir run` of the recipe quickstart; its final table is in the log."""
    call = "from flows.cli.app import app; app()"
    changes = ["iterations=1"] if sizes is TINY else []
    started = time.monotonic()
    env = os.environ | {"PREFECT_HOME": str(work / "prefect"), "COLUMNS": "100"}
    done = subprocess.run([sys.executable, "-c", call, "run", "quickstart", *changes], cwd=work, env=env)
    recorder.add("hir run quickstart", time.monotonic() - started, "s")
    sys.exit(done.returncode)


PARTS: dict[str, tuple[Callable[[Sizes, Recorder, Path], None], float]] = {
    "speed": (speed, 240),
    "tests": (tests, 170),
    "optimizer": (optimizer, 45),
    "seven_billion": (seven_billion, 150),
    "run": (run, 150),
    "head": (head, 60),
    "attention": (attention, 300),
}
"""The parts, the most valuable first, with the seconds that each may take."""

# --- one part after the other ----------------------------------------------------------------------------------------


def run_part(name: str, folder: Path, is_tiny: bool) -> None:
    """Does one part in this process."""
    function, _ = PARTS[name]
    with tempfile.TemporaryDirectory(prefix="hir-measure-") as work:
        function(TINY if is_tiny else FULL, Recorder(folder, name), Path(work))


def run_in_process(name: str, folder: Path, is_tiny: bool, limit_s: float) -> PartEnd:
    """Does one part in a process of its own, which is ended after `limit_s` seconds."""
    started = time.monotonic()
    command = [sys.executable, str(Path(__file__)), str(folder), "--part", name, *["--tiny"] * is_tiny]
    path = os.pathsep.join([str(HERE), str(CHECKOUT / "tests" / "support"), str(CHECKOUT)])
    if inherited := os.environ.get("PYTHONPATH"):
        path += os.pathsep + inherited
    env = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            ended = "failed" if process.wait(limit_s) else "ok"
        except subprocess.TimeoutExpired:
            ended = "out of time"
            end(process)
    return PartEnd(name, time.monotonic() - started, ended)


def end(process: subprocess.Popen[bytes]) -> None:
    """Interrupts a part, which then records what it has, ends its launch and deletes its files; else kills it."""
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def describe_machine() -> tuple[str, dict[str, str]]:
    """The GPU as nvidia-smi describes it, and the releases of the software."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        device = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        device = "no GPU"
    names = ("torch", "transformers", "deepspeed", "polars")
    return device, {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def run_all(folder: Path, names: Iterable[str], is_tiny: bool, limit_s: float) -> Results:
    """Does the parts one after the other, as long as time is left."""
    deadline = time.monotonic() + limit_s
    results = Results(*describe_machine(), os.environ.get("GIT_COMMIT", ""), is_tiny)
    figures = folder / "figures.jsonl"
    figures.unlink(missing_ok=True)
    for name in names:
        left = deadline - time.monotonic()
        limit = left if is_tiny else min(left, PARTS[name][1])
        end = run_in_process(name, folder, is_tiny, limit) if left > 10 else PartEnd(name, 0.0, "left out")
        results.parts.append(end)
        lines = figures.read_text().splitlines() if figures.exists() else []
        results.figures = [Figure(**json.loads(line)) for line in lines]
        results.write(folder)
        print(f"{name}: {end.ended} after {end.seconds:.0f} s", flush=True)
    return results


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true", help="shapes for a test on the CPU")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas, in this order")
    parser.add_argument("--limit", type=float, default=480, help="seconds for all parts")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if options.part:
        run_part(options.part, folder, options.tiny)
        return
    results = run_all(folder, options.only.split(","), options.tiny, options.limit)
    sys.exit(any(end.ended != "ok" for end in results.parts))


if __name__ == "__main__":
    main()
