"""The cost of scoring and relabeling samples: against another checkout, and against `datasets.map(batched=True)`.

    python -m tests.benchmarks.scoring rewards --against CHECKOUT [--rows N] [--prompts N] [--rounds N]
    python -m tests.benchmarks.scoring pipeline [--rows N] [--prompts N] [--rounds N]

`rewards` scores tables in memory with each reward. `pipeline` goes from the samples' Parquet files to files of scores,
instructions and keys: the stages `score` and `relabel` with their checks, digests and manifests, and the same scores,
reasons, instructions and keys by a function for `datasets.map`, written to Parquet. Every measurement is a process of
its own, the sides take turns, and CPU seconds are compared, those of all threads and children included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

CHECKOUT = Path(__file__).resolve().parents[2]
REWARDS = ("exact_match", "option_choice", "numeric", "answer")
FORMS = (
    "{answer}",
    "{answer}",
    "{answer}.",
    "The answer is {answer}.",
    "I count them: {x} and {y}, so there are {answer} fruits.",
    "{answer} fruits",
    "Let's think step by step. First {x}, then {y} more.\nSo the final answer is {answer}",
    "**{answer}**",
    "I do not know.",
    "Answer: {answer} – naïve",
)
"""Outputs of several kinds: bare, in sentences, after some steps, in bold, none at all, and beyond ASCII."""
CORRECT, WRONG = "Generate a correct answer to this problem.", "Generate a wrong answer to this problem."


@dataclass(frozen=True)
class Measured:
    """What one process used for the measured part, and its peak memory from its start."""

    cpu_s: float
    peak_mb: int
    scored: int
    """Rows that have a score; equal work gives equal numbers."""


@dataclass(frozen=True)
class Comparison:
    """The rounds of two sides that did the same work in turn."""

    name: str
    rows: int
    ours: tuple[Measured, ...]
    theirs: tuple[Measured, ...]

    @property
    def ratios(self) -> list[float]:
        """Their CPU seconds by ours, of each round: above 1, ours is faster."""
        return [theirs.cpu_s / ours.cpu_s for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def __str__(self) -> str:
        sides = []
        for side, runs in (("ours", self.ours), ("theirs", self.theirs)):
            fastest, peak = min(one.cpu_s for one in runs), max(one.peak_mb for one in runs)
            sides.append(f"{side} {fastest:6.2f} s, {self.rows / fastest:9,.0f} rows/s, {peak:5} MB")
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}"
        return f"{self.name:14} {' | '.join(sides)} | ratio {statistics.median(self.ratios):.2f} ({spread})"


# --- inputs ----------------------------------------------------------------------------------------------------------


def write_tables(folder: Path, prompts: int, rows: int, *, with_options: bool) -> None:
    """Writes `prompts.parquet` and `samples.parquet`, with as many samples of every prompt."""
    from hir_core.schemas import Prompts, Samples

    rng, prompt_rows, sample_rows = random.Random(0), [], []
    for number in range(prompts):
        x, y = rng.randrange(1, 400), rng.randrange(1, 400)
        options = [f"{x + y + more} fruits" for more in (0, 1, 7, -1)] if with_options else None
        if options:
            rng.shuffle(options)
        prompt_id = f"{rng.getrandbits(64):016x}"
        query = f"I have {x} figs and {y} plums. How many fruits do I have?"
        references = [f"{x + y} fruits"] if options else [str(x + y)]
        prompt_rows.append((prompt_id, "sums", f"g{number}", "train", query, None, options, references, None))
        for k in range(rows // prompts):
            number_named = x + y + rng.choice((0, 0, 0, 1, -1, 7))
            letter = rng.choice("ABCD")
            answer = rng.choice((f"({letter})", letter, f"{number_named} fruits")) if options else number_named
            text = rng.choice(FORMS).format(answer=answer, x=x, y=y)
            ids = [rng.randrange(8000) for _ in range(len(text) // 4 + 1)]
            sample_rows.append((
                f"{rng.getrandbits(64):016x}", prompt_id, "models/0000-00000000", CORRECT, k, ids[:1] * 32, text, ids,
                [-0.5] * len(ids), "eos", rng.getrandbits(63),
            ))  # fmt: skip
    for name, found, schema in (("prompts", prompt_rows, Prompts), ("samples", sample_rows, Samples)):
        frame = pl.DataFrame(found, schema=schema.create_empty().schema, orient="row")
        frame.sort(frame.columns[0]).write_parquet(folder / f"{name}.parquet")


def make_run(folder: Path, reward: str) -> Any:
    """A run in a folder, whose settings of sampling and training are never used."""
    from hir_core.config.load import parse_config
    from hir_core.stages.run import Run

    model = {"type": "scratch", "hidden_size": 16, "layers": 1, "heads": 1, "intermediate_size": 16, "context": 64}
    return Run(parse_config({
        "run": "scored", "runs_dir": str(folder), "iterations": 1, "model": model,
        "prompts": [{"type": "synthetic", "task": "object_counting", "size": 20}], "reward": {"type": reward},
    }))  # fmt: skip


def write_run(folder: Path) -> None:
    """Commits the tables of a folder as versions of a run in it; samples in parts, as ranks write them."""
    run = make_run(folder, "exact_match")
    prompts, samples = (pl.read_parquet(folder / f"{name}.parquet") for name in ("prompts", "samples"))
    identities = _identities()
    draft = run.store.draft(identities[0])
    draft.write("0", prompts)
    draft.commit()
    draft = run.store.draft(identities[1])
    for number, part in enumerate(samples.iter_slices(50_000)):
        draft.write(f"r0-{number:05d}", part)
    draft.commit()


def _identities() -> tuple[Any, Any]:
    from hir_core.store.manifest import identity

    prompts = identity("prompts", 0, {}, ())
    return prompts, identity("samples", 1, {}, [f"prompts/{prompts.id}"])


# --- sides: each does its work once, and returns the CPU seconds of it, and how many rows have a score ---------------


def score_in_memory(folder: Path, reward: str) -> tuple[float, int]:
    """Scores the samples of a folder, with the tables in memory before and after."""
    from pydantic import TypeAdapter

    from hir_core.config import RewardConfig
    from hir_core.rewards.registry import build_reward

    prompts, samples = (pl.read_parquet(folder / f"{name}.parquet") for name in ("prompts", "samples"))
    config: Any = TypeAdapter(RewardConfig).validate_python({"type": reward})
    started = _cpu_s()
    rewards = build_reward(config).score(samples, prompts)
    return _cpu_s() - started, int(rewards["score"].count())


def score_and_relabel(folder: Path, reward: str) -> tuple[float, int]:
    """Makes the rewards and the triples of a run's samples."""
    from hir_core.stages.identity import Scored
    from hir_core.stages.relabel import relabel_samples
    from hir_core.stages.score import score_samples

    run = make_run(folder, reward)
    prompts, samples = (run.store.find(identity) for identity in _identities())
    started = _cpu_s()
    rewards = score_samples(run, prompts, samples)
    triples = relabel_samples(run, prompts, [Scored(samples, rewards)])
    used = _cpu_s() - started
    scored = int(run.store.table(rewards).select(pl.col("score").count()).collect().item())
    for version in (rewards, triples):
        shutil.rmtree(version.path)
    return used, scored


def map_with_datasets(folder: Path, reward: str) -> tuple[float, int]:
    """Does what `score_and_relabel` does with exact_match and hindsight, by `datasets.map(batched=True)`."""
    os.environ |= {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    import datasets

    assert reward == "exact_match", reward
    datasets.disable_progress_bars()
    run_dir = folder / "scored"
    started = _cpu_s()
    columns = ["sample_id", "prompt_id", "completion", "completion_ids", "finish_reason"]
    files = [str(path) for path in sorted(run_dir.glob("samples/0*/part-*.parquet"))]
    samples = datasets.Dataset.from_parquet(files, columns=columns, cache_dir=str(folder / "hf"))
    prompts = pl.read_parquet(next(run_dir.glob("prompts/0*/part-0.parquet")))
    by_id = {
        prompt_id: (query, references, [_normalised(reference) for reference in references])
        for prompt_id, query, references in prompts.select("prompt_id", "query", "references").iter_rows()
    }
    result = samples.map(lambda batch: _relabeled(batch, by_id), batched=True)
    result.to_parquet(str(folder / "hf" / "result.parquet"))
    used = _cpu_s() - started
    scored = result.num_rows
    shutil.rmtree(folder / "hf")
    return used, scored


def _relabeled(batch: Any, by_id: dict[str, Any]) -> dict[str, list[Any]]:
    """The columns of the rewards and the triples that the samples of a batch lack."""
    scores, reasons, instructions, contrasts, queries, keys = [], [], [], [], [], []
    for sample_id, prompt_id, text in zip(batch["sample_id"], batch["prompt_id"], batch["completion"], strict=True):
        query, references, accepted = by_id[prompt_id]
        answer = _normalised(text)
        is_right = bool(answer) and answer in accepted
        instruction, other = (CORRECT, WRONG) if is_right else (WRONG, CORRECT)
        scores.append(float(is_right))
        named = references[accepted.index(answer)] if is_right else " or ".join(references)
        reasons.append(f"{'equals' if is_right else 'expected'} {_shortened(named)}")
        instructions.append(instruction)
        contrasts.append([other])
        queries.append(query)
        origin = json.dumps((sample_id, "hindsight", instruction), separators=(",", ":"))
        keys.append(hashlib.sha256(origin.encode()).hexdigest()[:16])
    rows = len(scores)
    return {
        "triple_id": keys, "instruction": instructions, "contrast": contrasts, "query": queries, "score": scores,
        "reason": reasons, "reward": ["exact_match"] * rows, "outcome": ["scored"] * rows, "weight": [1.0] * rows,
        "relabeler": ["hindsight"] * rows, "ends": [reason == "eos" for reason in batch["finish_reason"]],
    }  # fmt: skip


def _normalised(text: str) -> str:
    return "".join(re.sub(r"\.(?!\d)", "", text).lower().split()).replace("。", "")


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else line[:59] + "…")


SIDES: dict[str, Callable[[Path, str], tuple[float, int]]] = {
    side.__name__: side for side in (score_in_memory, score_and_relabel, map_with_datasets)
}


def _cpu_s() -> float:
    return sum(os.times()[:4])


# --- measurements ----------------------------------------------------------------------------------------------------


def compare(name: str, rows: int, rounds: int, ours: Sequence[Any], theirs: Sequence[Any]) -> Comparison:
    """Measures two sides in turn, each as `(checkout, side, folder, reward)`, the first one changing every round."""
    results: tuple[list[Measured], list[Measured]] = ([], [])
    for round_number in range(rounds):
        for index in (0, 1) if round_number % 2 == 0 else (1, 0):
            results[index].append(_measure(*(ours, theirs)[index]))
    return Comparison(name, rows, tuple(results[0]), tuple(results[1]))


def _measure(checkout: Path, side: str, folder: Path, reward: str) -> Measured:
    # By its path and with -P: another checkout has no such module, and this one's packages are not to be found.
    command = [sys.executable, "-P", str(Path(__file__).resolve()), "measure", side, str(folder), reward]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(checkout)}, stdout=subprocess.PIPE, check=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def compare_rewards(against: Path, rows: int, prompts: int, rounds: int) -> list[Comparison]:
    """Each reward in this checkout and in another one; `answer` against `numeric`, if it has none."""
    results = []
    with tempfile.TemporaryDirectory() as name:
        for reward in REWARDS:
            folder = Path(name) / reward
            folder.mkdir()
            write_tables(folder, prompts, rows, with_options=reward == "option_choice")
            there = reward if (against / "hir_core" / "rewards" / f"{reward}.py").exists() else "numeric"
            ours, theirs = (CHECKOUT, "score_in_memory", folder, reward), (against, "score_in_memory", folder, there)
            results.append(compare(reward, rows, rounds, ours, theirs))
            print(results[-1], flush=True)
    return results


def compare_pipeline(rows: int, prompts: int, rounds: int) -> list[Comparison]:
    """The stages `score` and `relabel` against `datasets.map`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tables(folder, prompts, rows, with_options=False)
        write_run(folder)
        ours, theirs = ((CHECKOUT, side, folder, "exact_match") for side in ("score_and_relabel", "map_with_datasets"))
        result = compare("pipeline", rows, rounds, ours, theirs)
    print(result, flush=True)
    return [result]


def main(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["measure"]:
        used, scored = SIDES[arguments[1]](Path(arguments[2]), arguments[3])
        # Not ru_maxrss, which a process takes over from the one that started it.
        peak = int(re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[0]) >> 10
        print(json.dumps({"cpu_s": used, "peak_mb": peak, "scored": scored}))
        return
    parser = argparse.ArgumentParser(description="The cost of scoring and relabeling samples.")
    parser.add_argument("what", choices=["rewards", "pipeline"])
    parser.add_argument("--against", type=Path, help="the root of another checkout, for `rewards`")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--prompts", type=int, default=250_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    if options.what == "pipeline":
        compare_pipeline(options.rows, options.prompts, options.rounds)
    elif options.against is None:
        parser.error("`rewards` needs --against")
    else:
        compare_rewards(options.against.resolve(), options.rows, options.prompts, options.rounds)


if __name__ == "__main__":
    main(sys.argv[1:])
