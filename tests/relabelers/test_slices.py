"""Relabeling a table in slices of whole prompts: the same triples and counts as of the whole table at once."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from relabel_tables import INSTRUCTIONS, tables

from hir_core.config import RelabelConfig, SelectConfig
from hir_core.relabelers.registry import RELABELERS, build_relabeler
from hir_core.relabelers.relabeler import SLICE_COLUMNS
from hir_core.schemas import WrittenInstructions

SETTINGS = {
    "quantiles": {"levels": 3},
    "exclude_wrong": {"relabel_weight": 0.3, "removed": 0.7},
    "learned": {"fallback": "reject"},
}
IN_SLICES = [name for name, relabeler in RELABELERS.items() if not relabeler.compares_prompts]
PROMPT_IDS = ("p", "p1", "p2", "p3")
ROW = st.tuples(
    st.sampled_from(PROMPT_IDS),
    st.sampled_from("abc"),
    st.sampled_from((0.0, 0.5, 1.0, None, "no_answer")),
    st.sampled_from(("eos", "eos", "length")),
)
SELECTIONS = st.fixed_dictionaries({
    "drop_prompts": st.sampled_from(((), ("all_wrong",), ("all_right",), ("all_wrong", "all_right"))),
    "deduplicate": st.booleans(),
    "others_per_correct": st.sampled_from((None, 0.0, 0.5, 1.0)),
    "balance": st.booleans(),
    "sub_outputs": st.sampled_from((0.0, 0.5)),
})  # fmt: skip


def relabeler_of(name):
    config = TypeAdapter(RelabelConfig).validate_python({"type": name, **SETTINGS.get(name, {})})
    return build_relabeler(config, INSTRUCTIONS)


def instructions_of(rewards):
    """What a model wrote about every third sample, which is verified, and about the others, which is not."""
    rows = [
        {"sample_id": key, "verdict": "correct", "written": "Be brief.", "check": "logprob", "logprob": -1.0,
         "instruction": None if n % 3 else "Be brief.", "asked_logprob": -2.0, "reason": "bad" if n % 3 else ""}
        for n, key in enumerate(rewards["sample_id"])
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=WrittenInstructions.create_empty().schema)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(IN_SLICES), st.lists(ROW, max_size=24), SELECTIONS, st.lists(st.integers(0, 3), min_size=4))
def test_slices_of_whole_prompts_become_what_the_whole_table_becomes(name, rows, selection, slice_of_prompt):
    prompt_ids, completions, scores, finish_reasons = ([row[n] for row in rows] for n in range(4))
    samples, rewards, prompts = tables(
        *scores, prompt_ids=prompt_ids, completions=completions, finish_reasons=finish_reasons
    )
    relabeler, selected = relabeler_of(name), SelectConfig(**selection)
    written = instructions_of(rewards) if name == "learned" else None
    drawn = samples.select(SLICE_COLUMNS)
    slice_of = dict(zip(PROMPT_IDS, slice_of_prompt, strict=False))
    in_slice = pl.col("prompt_id").replace_strict(slice_of, return_dtype=pl.Int64)
    slices = [drawn.filter(in_slice == number) for number in range(4)]
    given_tables = (rewards, prompts, selected, written)
    (whole,) = relabeler.relabel_slices([drawn], *given_tables, count=len(rows))
    parts = list(relabeler.relabel_slices(slices, *given_tables, count=len(rows)))
    assert pl.concat([part.triples for part in parts]).sort("triple_id").equals(whole.triples)
    assert all(part.triples["triple_id"].is_sorted() for part in parts)
    assert sum((part.rejected for part in parts[1:]), parts[0].rejected) == whole.rejected
    assert sum(part.judged_outputs for part in parts) == whole.judged_outputs
    assert sum(part.used_outputs for part in parts) == whole.used_outputs
    assert whole.triples.height + whole.rejected.total() == len(rows)
