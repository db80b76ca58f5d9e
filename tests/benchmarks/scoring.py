"""The cost of scoring and relabeling samples: beside `datasets.map(batched=True)`, and of each reward alone.

`scoring/pipeline` goes from the samples' Parquet files to files of scores, instructions and keys: the stages `score`
and `relabel` with their checks, digests and manifests, and the same scores, reasons, instructions and keys by a
function for `datasets.map`, written to Parquet. `scoring/large` measures the stages on ten times as many samples, and
`scoring/rewards` each reward on tables in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from tests.benchmarks.measure import Case, Side, Work
from tests.benchmarks.side_process import Clock

ROWS, PROMPTS = 1_000_000, 250_000
ROWS_OF_A_REWARD, PROMPTS_OF_A_REWARD = 40_000, 10_000
ROWS_OF_LONG_OUTPUTS, PROMPTS_OF_LONG_OUTPUTS = 4_000, 1_000
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
WORDS_OF_REASONING = 240
STEPS = (
    "Let me read the question once more and write down what it gives.",
    "First, there are {x} figs, and then there are {y} plums as well.",
    "A fig is a fruit, and so is a plum, which means that both of them are counted.",
    "Nothing is said about fruits that were eaten or given away, so nothing is taken from the {x} figs.",
    "The tens and the ones can be added on their own, because this is easier than adding {x} and {y} at once.",
    "I have to be careful with the last digit, since a mistake there is easily made.",
    "If the plums came first, we would have {y} + {x}, which is the same sum.",
    "It may help to imagine two baskets that stand next to each other on the table.",
    "One of them holds {x} figs; the other one holds {y} plums.",
    "The question does not ask which kind of fruit there is more of, only how many there are altogether.",
    "After the first basket is emptied into the second, that one holds everything.",
    "Counting on from {x} in steps of ten gets us close quickly, and the rest is a matter of a few single steps.",
    "To check this, we can subtract {y} again and see whether {x} is left.",
    "This agrees with an estimate: both numbers are below four hundred, and their sum is below eight hundred.",
)
"""Sentences of the reasoning in long outputs."""
CORRECT, WRONG = "Generate a correct answer to this problem.", "Generate a wrong answer to this problem."


# --- inputs ----------------------------------------------------------------------------------------------------------


def write_tables(folder: Path, prompts: int, rows: int, *, with_options: bool, reasons: bool = False) -> None:
    """Writes `prompts.parquet` and `samples.parquet`, with as many samples of every prompt.

    Args:
        with_options: whether the prompts show options to choose from, with letters.
        reasons: whether the outputs reason for about 250 words before they answer.
    """
    from hir_core.schemas import Prompts, Samples

    rng, prompt_rows, sample_rows = random.Random(0), [], []
    for number in range(prompts):
        x, y = rng.randrange(1, 400), rng.randrange(1, 400)
        options = [f"{x + y + more} fruits" for more in (0, 1, 7, -1)] if with_options else None
        query = f"I have {x} figs and {y} plums. How many fruits do I have?"
        if options:
            rng.shuffle(options)
            shown = (f"({letter}) {text}" for letter, text in zip("ABCD", options, strict=True))
            query = "\n".join([query, "Options:", *shown])
        prompt_id = f"{rng.getrandbits(64):016x}"
        references = [f"{x + y} fruits"] if options else [str(x + y)]
        prompt_rows.append((prompt_id, "sums", f"g{number}", "train", query, None, options, references, None))
        for k in range(rows // prompts):
            number_named = x + y + rng.choice((0, 0, 0, 1, -1, 7))
            letter = rng.choice("ABCD")
            answer = rng.choice((f"({letter})", letter, f"{number_named} fruits")) if options else number_named
            text = rng.choice(FORMS).format(answer=answer, x=x, y=y)
            if reasons:
                text = f"{_reasoning(rng).format(x=x, y=y)}\n\n{text}"
            ids = [rng.randrange(8000) for _ in range(len(text) // 4 + 1)]
            sample_rows.append((
                f"{rng.getrandbits(64):016x}", prompt_id, "models/0000-00000000", CORRECT, k, ids[:1] * 32, text, ids,
                [-0.5] * len(ids), "eos", rng.getrandbits(63),
            ))  # fmt: skip
    for name, found, schema in (("prompts", prompt_rows, Prompts), ("samples", sample_rows, Samples)):
        frame = pl.DataFrame(found, schema=schema.create_empty().schema, orient="row")
        frame.sort(frame.columns[0]).write_parquet(folder / f"{name}.parquet")


def _reasoning(rng: random.Random) -> str:
    """Sentences in a random order, in paragraphs."""
    pieces, words = [], 0
    while words < WORDS_OF_REASONING:
        pieces += [rng.choice(STEPS), rng.choice((" ", " ", " ", "\n\n"))]
        words += pieces[-2].count(" ") + 1
    return "".join(pieces).strip()


def make_run(folder: Path, reward: str) -> Any:
    """A run in a folder, whose settings of sampling and training are never used."""
    from hir_core.config.load import parse_config
    from hir_core.stages.run import Run

    model = {"type": "scratch", "hidden_size": 16, "layers": 1, "heads": 1, "intermediate_size": 16, "context": 64}
    return Run(parse_config({
        "run": "scored", "runs_dir": str(folder), "iterations": 1, "model": model,
        "prompts": [{"type": "synthetic", "task": "object_counting", "size": 20}], "reward": {"type": reward},
    }))  # fmt: skip


def write_run(folder: Path, copies: int = 1) -> None:
    """Commits prompts and samples as versions of a run in the folder; samples in parts, as ranks write them.

    Args:
        copies: how many times every row is there, with ids of its own.
    """
    write_tables(folder, PROMPTS, ROWS, with_options=False)
    run = make_run(folder, "exact_match")
    prompts, samples = (pl.read_parquet(folder / f"{name}.parquet") for name in ("prompts", "samples"))
    identities = _identities()
    draft = run.store.draft(identities[0])
    draft.write("0", pl.concat([_copy(prompts, number) for number in range(copies)]).sort("prompt_id"))
    draft.commit()
    draft = run.store.draft(identities[1])
    for number, part in enumerate(samples.iter_slices(50_000)):
        for copy in range(copies):
            draft.write(f"r{copy}-{number:05d}", _copy(part, copy))
    draft.commit()


def write_large_run(folder: Path) -> None:
    """As `write_run`, ten times as large."""
    write_run(folder, copies=10)


def _copy(table: pl.DataFrame, number: int) -> pl.DataFrame:
    """The rows with ids of their own; those of copy 0 are as they were."""
    if number == 0:
        return table
    ids = [name for name in ("sample_id", "prompt_id") if name in table.columns]
    return table.with_columns(pl.format("{}-{}", name, pl.lit(number)).alias(name) for name in ids)


def write_tables_of_rewards(folder: Path) -> None:
    """Tables of prompts without options, and in the folder `options` those of prompts with options."""
    _write_both_tables(folder, PROMPTS_OF_A_REWARD, ROWS_OF_A_REWARD, reasons=False)


def write_tables_of_long_outputs(folder: Path) -> None:
    """The same with long outputs."""
    _write_both_tables(folder, PROMPTS_OF_LONG_OUTPUTS, ROWS_OF_LONG_OUTPUTS, reasons=True)


def _write_both_tables(folder: Path, prompts: int, rows: int, *, reasons: bool) -> None:
    write_tables(folder, prompts, rows, with_options=False, reasons=reasons)
    (folder / "options").mkdir()
    write_tables(folder / "options", prompts, rows, with_options=True, reasons=reasons)


def _identities() -> tuple[Any, Any]:
    from hir_core.store.manifest import identity

    prompts = identity("prompts", 0, {}, ())
    return prompts, identity("samples", 1, {}, [f"prompts/{prompts.id}"])


# --- sides -----------------------------------------------------------------------------------------------------------


def score_in_memory(clock: Clock, inputs: Path, reward: str) -> Work:
    """Scores samples, with the tables in memory before and after."""
    from pydantic import TypeAdapter

    from hir_core.config import RewardConfig
    from hir_core.rewards.registry import build_reward

    folder = inputs / "options" if reward == "option_choice" else inputs
    prompts, samples = (pl.read_parquet(folder / f"{name}.parquet") for name in ("prompts", "samples"))
    config: Any = TypeAdapter(RewardConfig).validate_python({"type": reward})
    with clock:
        rewards = build_reward(config).score(samples, prompts)
    return Work(rewards.height, {"scored": float(rewards["score"].count())})


def score_and_relabel(clock: Clock, inputs: Path) -> Work:
    """Makes the rewards and the triples of a run's samples."""
    from hir_core.stages.identity import Scored
    from hir_core.stages.relabel import relabel_samples
    from hir_core.stages.score import score_samples

    run = make_run(inputs, "exact_match")
    prompts, samples = (run.store.find(identity) for identity in _identities())
    with clock:
        rewards = score_samples(run, prompts, samples)
        triples = relabel_samples(run, prompts, [Scored(samples, rewards)])
    count, total = run.store.table(rewards).select(pl.len(), pl.col("score").sum()).collect().row(0)
    for version in (rewards, triples):
        shutil.rmtree(version.path)
    return Work(count, {"right": total})


def map_with_datasets(clock: Clock, inputs: Path) -> Work:
    """Does what `score_and_relabel` does with exact_match and hindsight, by `datasets.map(batched=True)`."""
    os.environ |= {"HF_HOME": str(Path("hf").resolve()), "HF_HUB_OFFLINE": "1"}
    import datasets

    datasets.disable_progress_bars()
    run_dir = inputs / "scored"
    columns = ["sample_id", "prompt_id", "completion", "completion_ids", "finish_reason"]
    files = [str(path) for path in sorted(run_dir.glob("samples/0*/part-*.parquet"))]
    with clock:
        samples = datasets.Dataset.from_parquet(files, columns=columns, cache_dir="hf")
        prompts = pl.read_parquet(next(run_dir.glob("prompts/0*/part-0.parquet")))
        by_id = {
            prompt_id: (query, references, [_normalised(reference) for reference in references])
            for prompt_id, query, references in prompts.select("prompt_id", "query", "references").iter_rows()
        }
        result = samples.map(lambda batch: _relabeled(batch, by_id), batched=True)
        result.to_parquet("result.parquet")
    return Work(result.num_rows, {"right": float(sum(result["score"]))})


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


CASES = (
    Case(
        name="scoring/pipeline",
        question=f"exact_match and hindsight on {ROWS:,} samples of {PROMPTS:,} prompts, against datasets.map",
        unit="samples",
        sides=(
            Side("hir", score_and_relabel, {}),
            Side("datasets.map", map_with_datasets, {}, ("datasets",)),
        ),
        prepare=write_run,
        rounds=3,
    ),
    Case(
        name="scoring/large",
        question=f"exact_match and hindsight on {10 * ROWS:,} samples of {10 * PROMPTS:,} prompts: memory",
        unit="samples",
        sides=(Side("hir", score_and_relabel, {}),),
        prepare=write_large_run,
        rounds=1,
    ),
    Case(
        name="scoring/rewards",
        question=f"each reward on {ROWS_OF_A_REWARD:,} samples of {PROMPTS_OF_A_REWARD:,} prompts",
        unit="samples",
        sides=tuple(Side(reward, score_in_memory, {"reward": reward}) for reward in REWARDS),
        prepare=write_tables_of_rewards,
        rounds=3,
    ),
    Case(
        name="scoring/long_outputs",
        question=f"each reward on {ROWS_OF_LONG_OUTPUTS:,} samples of about 250 words",
        unit="samples",
        sides=tuple(Side(reward, score_in_memory, {"reward": reward}) for reward in REWARDS),
        prepare=write_tables_of_long_outputs,
        rounds=3,
    ),
)
