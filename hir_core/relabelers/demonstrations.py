"""Demonstrations: reference answers as triples, for the warm start of a seed model.

Nobody sampled them, so they have no sample and no token ids; the launch tokenises their text.
"""

from __future__ import annotations

import polars as pl

from hir_core.errors import ConfigError
from hir_core.relabelers.relabeler import with_keys
from hir_core.schemas import content_key
from hir_core.sections import Instructions


def demonstrations(prompts: pl.DataFrame, instructions: Instructions, count: int, seed: int) -> pl.DataFrame:
    """Triples that show the first reference of `count` train prompts, chosen by a hash of seed and prompt_id.

    Raises:
        ConfigError: there are too few train prompts, or one of the chosen has no reference.
    """
    chosen = _chosen(prompts.filter(pl.col("split") == "train"), count, seed)
    unknown = chosen.filter(pl.col("references").list.len() == 0)
    if not unknown.is_empty():
        raise ConfigError(
            f"warm_start.demonstrations: {unknown.height} of {count} chosen prompts have no reference to show, first "
            f"{unknown['prompt_id'][0]}: add `references`, or leave warm_start out"
        )
    triples = chosen.with_columns(
        sample_id=pl.lit(None, dtype=pl.String),
        relabeler=pl.lit("demonstrations"),
        instruction=pl.lit(instructions.correct),
        contrast=pl.lit([], dtype=pl.List(pl.String)),
        output=pl.col("references").list.first(),
        prefix_ids=pl.lit([], dtype=pl.List(pl.Int32)),
        target_ids=pl.lit(None, dtype=pl.List(pl.Int32)),
        ends=pl.lit(True),
        weight=pl.lit(1.0),
    )
    return with_keys(triples, "prompt_id")


def _chosen(train: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    if train.height < count:
        raise ConfigError(
            f"warm_start.demonstrations is {count}, but there are only {train.height} train prompts: "
            f"lower it, or add prompts"
        )
    order = pl.Series("order", [content_key(seed, key) for key in train["prompt_id"]], dtype=pl.String)
    return train.with_columns(order).sort("order").head(count)
