"""The trial of a config for `hir check`: prompts counted and rendered, reward and relabeler tried on outputs known.

Reads the prompts and the model's tokenizer; starts no launch, draws nothing and writes nothing. What is wrong comes as
errors, which would stop a run, and warnings. Memory is left to `inspect.plan`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl

from hir_core.config import RunConfig, ScratchModel
from hir_core.errors import HirError
from hir_core.schemas import Samples
from hir_core.stages.plan import texts_of_tokenizer
from hir_core.stages.prompts import LoadedPrompts, warnings
from hir_core.stages.run import Run
from hir_core.time_limit import Work, process_rows

TRIED = 16
"""Prompts on whose references the reward is tried."""
SHOWN = 2
"""Rendered prompts that are shown."""
CHUNK = 500
"""Prompts that are rendered between two reports of progress."""
LOAD_LIMIT_S = 600.0
WRONG_TEXT = "I do not know."


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths in tokens."""

    median: int
    most: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Lengths | None:
        """That of some lengths; None where there are none."""
        ordered = sorted(lengths)
        return cls(ordered[len(ordered) // 2], ordered[-1]) if ordered else None


class Tried(NamedTuple):
    """An output whose verdict is known beforehand, with the verdict that the reward gave."""

    query: str
    output: str
    is_reference: bool
    score: float | None
    reason: str


@dataclass
class Check:
    """What a trial of a config has found."""

    train: int
    test: int
    tasks: dict[str, int]
    rejected: dict[str, int]
    rendered: list[list[tuple[str, bool]]] = field(default_factory=list)
    """Prompts as the model reads them: pieces of text, each with whether it is of control tokens."""
    context: int | None = None
    """Tokens of the model's context; None: no limit."""
    prompt_tokens: Lengths | None = None
    reference_tokens: Lengths | None = None
    """Of each prompt's longest reference, with the token that ends it."""
    new_tokens: int = 0
    tried: list[Tried] = field(default_factory=list)
    """Empty where the reward needs a launch."""
    threshold: float = 1.0
    triples: list[dict[str, Any]] = field(default_factory=list)
    """What the relabeler makes of two of these outputs: `instruction`, `output`, `weight` and `excluded_from`."""
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_config(run: Run, loaded: LoadedPrompts) -> Check:
    """Tries a config whose prompts are read; what fails is among the errors of the result."""
    rows = loaded.rows
    splits = rows["split"]
    found = Check(
        train=int((splits == "train").sum()),
        test=int((splits == "test").sum()),
        tasks=dict(rows.group_by("task").len().sort("task").iter_rows()),
        rejected=loaded.rejected,
        new_tokens=run.config.sampling.max_new_tokens,
        threshold=run.config.relabel.threshold,
    )
    found.warnings += warnings(run.config, rows)
    for attempt in (_try_rendering, _try_reward):
        try:
            attempt(run, rows, found)
        except HirError as error:
            found.errors.append(str(error))
    return found


# --- the model's view of the prompts ---------------------------------------------------------------------------------


def _try_rendering(run: Run, prompts: pl.DataFrame, found: Check) -> None:
    config, further = run.config, run.relabeler.tokenizer_texts()
    settings = {
        "model": config.model.model_dump(mode="json"),
        "texts": texts_of_tokenizer(config, prompts, further) if isinstance(config.model, ScratchModel) else [],
        "instruction": config.instructions.correct,
    }
    asked = prompts.select("prompt_id", "query", "history", "references").to_dicts()
    for number, prompt in enumerate(asked):
        prompt["is_shown"] = number < SHOWN
    chunks = [asked[start : start + CHUNK] for start in range(0, len(asked), CHUNK)]
    counter = run.row_counter("check", len(asked))
    results = process_rows(
        Work("hir_core.worker.prompt_tokens:make_counter", settings),
        [None, *chunks],
        LOAD_LIMIT_S,
        lambda done, _: counter(min(len(asked), max(0, done - 1) * CHUNK), len(asked)),
    )
    if problems := [result.problem for result in results if result.problem]:
        found.errors.append(f"the prompts could not be rendered: the process that does it {problems[0]}")
        return
    found.context = results[0].value
    counted = [of_prompt for result in results[1:] for of_prompt in result.value]
    found.rendered = [of_prompt["text"] for of_prompt in counted if of_prompt["text"]]
    lengths = [of_prompt["prompt_tokens"] for of_prompt in counted if of_prompt["prompt_tokens"] is not None]
    references = [of_prompt["reference_tokens"] for of_prompt in counted if of_prompt["reference_tokens"] is not None]
    found.prompt_tokens, found.reference_tokens = Lengths.of(lengths), Lengths.of(references)
    found.errors += _unrenderable(counted)
    _note_too_long(found, config, prompts, counted)
    found.warnings += _cut_references(config, references)


def _unrenderable(counted: Sequence[dict[str, Any]]) -> Iterator[str]:
    problems = [of_prompt["problem"] for of_prompt in counted if of_prompt["problem"]]
    if problems:
        yield f"{len(problems)} of {len(counted)} prompts cannot be rendered; the first: {problems[0]}"


def _note_too_long(found: Check, config: RunConfig, prompts: pl.DataFrame, counted: Sequence[dict[str, Any]]) -> None:
    """Adds to errors and warnings that prompts leave no room for an output; a run sets those aside."""
    if found.context is None:
        return
    new_tokens = {"train": config.sampling.max_new_tokens, "test": config.evaluation_tokens}
    tokens = pl.Series([of_prompt["prompt_tokens"] or 0 for of_prompt in counted], dtype=pl.Int64)
    rows = prompts.select("prompt_id", "split", tokens=tokens)
    for (split,), of_split in rows.group_by("split", maintain_order=True):
        limit = new_tokens[split]
        too_long = of_split.filter(pl.col("tokens") + limit > found.context).sort("tokens", "prompt_id")
        if too_long.is_empty():
            continue
        longest, length = too_long["prompt_id"][-1], too_long["tokens"][-1]
        text = (
            f"{too_long.height} of {of_split.height} {split} prompts are too long for the model's context of "
            f"{found.context} tokens: the longest, {longest}, has {length}, and {limit} are for the output"
        )
        remedy = "shorten them, or lower sampling.max_new_tokens"
        if too_long.height == of_split.height:
            found.errors.append(f"{text}: {remedy}")
        else:
            found.warnings.append(f"{text}: a run leaves them out; {remedy}")


def _cut_references(config: RunConfig, reference_tokens: Sequence[int]) -> Iterator[str]:
    """That references would be cut off, so that nobody could write them."""
    limit = config.sampling.max_new_tokens
    cut = sum(tokens > limit for tokens in reference_tokens)
    if cut:
        yield (
            f"the longest reference of {cut} of {len(reference_tokens)} prompts takes more than "
            f"sampling.max_new_tokens={limit}: raise it to {max(reference_tokens)} or more"
        )


# --- reward and relabeler --------------------------------------------------------------------------------------------


def _try_reward(run: Run, prompts: pl.DataFrame, found: Check) -> None:
    """Judges references, which should be right, and a text that should not; relabels what was judged."""
    if run.reward.launches:
        return
    samples = _samples(run, prompts.gather_every(max(1, prompts.height // TRIED)).head(TRIED))
    rewards = run.reward.score(samples, prompts)
    judged = (
        rewards.join(samples, on="sample_id")
        .join(prompts.select("prompt_id", "query"), on="prompt_id")
        .sort("k", "sample_id")
    )
    found.tried = [
        Tried(row["query"], row["completion"], row["k"] == 0, row["score"], row["reason"])
        for row in judged.iter_rows(named=True)
    ]
    found.warnings += _surprises(found.tried, found.threshold)
    if run.relabeler.instruction_model is None:
        pair = samples.filter(pl.col("prompt_id") == judged.item(0, "prompt_id"))
        triples, _ = run.relabeler.relabel(pair, rewards, prompts, run.config.select)
        found.triples = triples.select("instruction", "output", "weight", "excluded_from").to_dicts()


def _samples(run: Run, prompts: pl.DataFrame) -> pl.DataFrame:
    """Samples of each prompt as a model might have drawn them: its first reference, k = 0, and a text that is none."""
    rows = [
        {
            "sample_id": f"{prompt['prompt_id']}-{k}",
            "prompt_id": prompt["prompt_id"],
            "model": "models/0000-00000000",
            "instruction": run.config.instructions.correct,
            "k": k,
            "prompt_ids": [0],
            "completion": text,
            "completion_ids": [k],
            "logprobs": [-1.0],
            "finish_reason": "eos",
            "seed": 0,
        }
        for prompt in prompts.iter_rows(named=True)
        for k, text in ((0, next(iter(prompt["references"]), None)), (1, WRONG_TEXT))
        if text is not None
    ]
    return pl.DataFrame(rows, schema=Samples.create_empty().schema)


def _surprises(tried: Sequence[Tried], threshold: float) -> Iterator[str]:
    references = [output for output in tried if output.is_reference]
    refused = [output for output in references if output.score is None or output.score < threshold]
    if refused:
        first = refused[0]
        verdict = "cannot be judged" if first.score is None else f"scores {first.score:g}"
        yield (
            f"{len(refused)} of {len(references)} references, given as the output, are not correct by the reward: "
            f"{first.output!r} {verdict}{f' ({first.reason})' if first.reason else ''}, and relabel.threshold is "
            f"{threshold:g}"
        )
    accepted = [output for output in tried if not output.is_reference and (output.score or 0.0) >= threshold]
    if accepted:
        yield f"the reward calls {WRONG_TEXT!r} correct for {len(accepted)} of {len(tried) - len(references)} prompts"
