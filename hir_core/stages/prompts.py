"""The stage `prompts`: every source read, checked and split; and the demonstrations of a warm start.

Reads the files and data sets that the config names. Writes the versions `prompts@0` and, for a warm start,
`triples@0`. Raises ConfigError for whatever can be found wrong before a launch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from hir_core.config import GgufModel, RunConfig
from hir_core.config.model_files import check_files
from hir_core.dynamic_imports import check_extra
from hir_core.errors import ConfigError
from hir_core.launch.attention import check_attention
from hir_core.launch.launcher import check_launch
from hir_core.launch.vllm_environment import check_vllm
from hir_core.prompts.load import load_prompts
from hir_core.prompts.mixture import check_mix
from hir_core.prompts.splits import check_leaks
from hir_core.relabelers.demonstrations import demonstrations
from hir_core.stages.run import Run
from hir_core.store.version import VersionRef


@dataclass(frozen=True)
class LoadedPrompts:
    """The prompts of all sources, checked."""

    rows: pl.DataFrame
    """A Prompts table."""
    rejected: dict[str, int]
    """Rows of the sources that were left out, counted by reason."""


def check(run: Run) -> LoadedPrompts:
    """Reads the prompts, and checks everything that can be checked before anything is written.

    Raises:
        ConfigError: launch settings, the environment of vLLM, the model's attention or files, prompts or references
            are wrong, or test prompts leak into the train split.
    """
    place, vllm = check_launch(run.config.launch), run.config.sampling.vllm
    if vllm is not None:
        check_vllm(vllm, place)
    check_attention(run.config.model, place)
    check_files(run.config.model)
    if isinstance(run.config.model, GgufModel):
        check_extra("gguf", "gguf", "model: the type gguf")
    if run.config.lora is not None:
        check_extra("peft", "peft", "lora", "lora")
    instruction_model = run.relabeler.instruction_model
    if instruction_model is not None and instruction_model.writer is not None:
        check_files(instruction_model.writer, "relabel.writer")
    loaded = load(run)
    _demonstrations(run, loaded.rows)
    return loaded


def load(run: Run) -> LoadedPrompts:
    """Reads the prompts of every source, and checks that they can be trained on, tested and judged.

    Raises:
        ConfigError: a source is wrong, a split is empty, a prompt cannot be judged, or test prompts leak.
    """
    config = run.config
    loaded = LoadedPrompts(*load_prompts(config.prompts, config.evaluation.also))
    check_leaks(loaded.rows)
    run.reward.check_prompts(loaded.rows)
    train = loaded.rows.filter(pl.col("split") == "train")
    test = loaded.rows.filter(pl.col("split") == "test")
    for split, rows, is_needed in (("train", train, config.iterations > 0), ("test", test, True)):
        if is_needed and rows.is_empty():
            raise ConfigError(
                f"prompts: no {split} prompts among {loaded.rows.height}: change test_share or add a source"
            )
    if config.sampling.mix is not None and config.sampling.prompts is not None and config.iterations:
        check_mix(train, config.sampling.prompts, config.sampling.mix)
    return loaded


def warnings(config: RunConfig, prompts: pl.DataFrame) -> Iterator[str]:
    """What a user may not have meant, and can set otherwise, before anything is computed."""
    limit = config.sampling.max_new_tokens
    # A word is a token or more, so this is certain, and there may be more.
    words = pl.col("references").list.eval(pl.element().str.count_matches(r"\S+")).list.min()
    longest = prompts.select(words=words).filter(pl.col("words") > limit)["words"]
    if not longest.is_empty():
        yield (
            f"of {longest.len()} of {prompts.height} prompts every reference has more words than an output may have "
            f"tokens, {limit}: raise sampling.max_new_tokens (the longest has {max(longest)} words)"
        )
    train = int((prompts["split"] == "train").sum())
    if config.sampling.prompts is not None and config.sampling.prompts > train and config.iterations:
        yield (
            f"sampling.prompts is {config.sampling.prompts}, and there are {train} train prompts: an iteration samples "
            "each of them once at most"
        )


def save_prompts(run: Run, loaded: LoadedPrompts) -> VersionRef:
    """The version of prompts that `load` has read."""
    identity = run.identities.prompts(loaded.rows)
    if version := run.find(identity):
        return version
    conversations = loaded.rows.height - loaded.rows["history"].null_count()
    metrics = {
        "sources": run.config.fingerprint()["prompts"],
        "also": run.config.evaluation.fingerprint()["also"],
        **({"conversations": conversations} if conversations else {}),
    }
    rows_in = loaded.rows.height + sum(loaded.rejected.values())
    return run.commit(identity, loaded.rows, rows_in=rows_in, rejected=loaded.rejected, metrics=metrics)


def make_demonstrations(run: Run, prompts: VersionRef) -> VersionRef | None:
    """The triples of the warm start, made of reference answers; None where the run has no warm start."""
    if run.config.warm_start is None:
        return None
    identity = run.identities.demonstrations(prompts, run.config.warm_start.demonstrations)
    return run.find(identity) or run.commit(identity, _demonstrations(run, run.table(prompts)))


def _demonstrations(run: Run, prompts: pl.DataFrame) -> pl.DataFrame:
    """Triples of reference answers, and of how to write instructions where a model writes them."""
    writing = run.relabeler.writing_demonstrations(prompts, run.config.seed)
    if run.config.warm_start is None:
        return writing
    count = run.config.warm_start.demonstrations
    return pl.concat([demonstrations(prompts, run.config.instructions, count, run.config.seed), writing])
