"""The relabeler `demonstrations`, and the demonstrations of the warm start: reference answers as triples.

Nobody sampled the references, so their triples have no sample and no token ids; the launch tokenises their text.
"""

from __future__ import annotations

import polars as pl

from hir_core.config import DemonstrationsRelabel, Instructions
from hir_core.errors import ConfigError
from hir_core.progress import OnRows, ignore
from hir_core.relabelers.relabeler import Relabeler
from hir_core.schemas import content_key

NO_REFERENCE = "prompt has no reference"
ONE_PER_PROMPT = "another sample of the prompt: one demonstration per prompt"
_REFERENCE = {
    "sample_id": pl.lit(None, dtype=pl.String),
    "completion": pl.col("references").list.first(),
    "completion_ids": pl.lit(None, dtype=pl.List(pl.Int32)),
    "finish_reason": pl.lit("eos"),
    "probability": pl.lit(None, dtype=pl.Float64),
}


class Demonstrations(Relabeler):
    """Supervised training on the sampled prompts: what the same training reaches with known answers.

    p* = correct, o* = the first reference, once per sampled prompt.
    """

    name = "demonstrations"
    parent = "prompt_id"

    def rejection(self) -> pl.Expr:
        is_first = pl.col("prompt_id").is_first_distinct()
        return (
            pl.when(pl.col("references").list.len() == 0)
            .then(pl.lit(NO_REFERENCE))
            .when(~is_first)
            .then(pl.lit(ONE_PER_PROMPT))
        )

    def triples(self, kept: pl.DataFrame, *, on_rows: OnRows = ignore) -> pl.DataFrame:
        return super().triples(kept.with_columns(**_REFERENCE), on_rows=on_rows)


def demonstrations(prompts: pl.DataFrame, instructions: Instructions, count: int, seed: int) -> pl.DataFrame:
    """Triples that show the first reference of `count` train prompts, chosen by a hash of seed and prompt_id.

    Raises:
        ConfigError: there are too few train prompts, or one of the chosen has no reference.
    """
    chosen = chosen_to_show(prompts, count, seed, "warm_start.demonstrations")
    relabeler = Demonstrations(DemonstrationsRelabel(type="demonstrations"), instructions)
    labeled = chosen.with_columns(
        instruction=relabeler.instruction(), contrast=relabeler.contrast(), weight=relabeler.weight(),
        removed=relabeler.removed(), prefix_length=pl.lit(0),
    )  # fmt: skip
    return relabeler.triples(labeled)


def chosen_to_show(prompts: pl.DataFrame, count: int, seed: int, setting: str) -> pl.DataFrame:
    """`count` train prompts that have a reference, chosen by a hash of seed and prompt_id.

    Args:
        setting: the setting that holds the count, for messages.

    Raises:
        ConfigError: there are too few train prompts, or one of the chosen has no reference.
    """
    train = prompts.filter(pl.col("split") == "train")
    if train.height < count:
        raise ConfigError(
            f"{setting} is {count}, but there are only {train.height} train prompts: lower it, or add prompts"
        )
    order = pl.Series("order", [content_key(seed, prompt_id) for prompt_id in train["prompt_id"]], dtype=pl.String)
    chosen = train.with_columns(order).sort("order").head(count)
    without_reference = chosen.filter(pl.col("references").list.len() == 0)
    if not without_reference.is_empty():
        raise ConfigError(
            f"{setting}: {without_reference.height} of {count} chosen prompts have no reference to show, first "
            f"{without_reference['prompt_id'][0]}: add `references`, or leave {setting.partition('.')[0]} out"
        )
    return chosen
