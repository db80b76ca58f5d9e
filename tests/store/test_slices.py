"""Slices of samples: every sample once, whole prompts, and the same slices every time."""

from itertools import pairwise

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hir_core.schemas import Samples
from hir_core.store import slices as slices_module
from hir_core.store.files import list_parts, write_part
from hir_core.store.slices import SampleSlices, on_disk

COLUMNS = ("sample_id", "prompt_id", "completion", pl.col("completion_ids").list.len().alias("tokens"))


def write_samples(folder, prompt_numbers, part_rows):
    """Samples of these prompts, in parts of so many rows."""
    folder.mkdir()
    rows = [
        {"sample_id": f"s{n:04}", "prompt_id": f"p{number:02}", "model": "m", "instruction": "i", "k": 0,
         "prompt_ids": [1], "completion": "x" * (n % 5), "completion_ids": [7] * (n % 5), "logprobs": [0.0] * (n % 5),
         "finish_reason": "eos", "seed": n}
        for n, number in enumerate(prompt_numbers)
    ]  # fmt: skip
    frame = pl.DataFrame(rows, schema=Samples.create_empty().schema)
    for number, part in enumerate(frame.iter_slices(part_rows) if rows else [frame]):
        write_part(folder, f"{number:03}", part)
    return list_parts(folder), frame.select(COLUMNS)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 20), st.integers(100, 3000), st.integers(1, 9))
def test_every_sample_is_in_one_slice_with_its_whole_prompt(
    tmp_path_factory, prompt_numbers, part_rows, slice_bytes, batch_rows
):
    folder = tmp_path_factory.mktemp("slices")
    paths, whole = write_samples(folder / "samples", prompt_numbers, part_rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices_module, "BATCH_ROWS", batch_rows)
        patch.setattr(slices_module, "ONE_IN", 3)
        made = [SampleSlices(paths, COLUMNS, folder, slice_bytes) for _ in range(2)]
        first, second = (list(slices) for slices in made)
    assert made[0].rows == whole.height
    assert (made[0].count == 1) == (made[0].part_name(0) == "0")
    assert all(one.equals(other) for one, other in zip(first, second, strict=True))
    assert pl.concat(first).sort("sample_id").equals(whole)
    prompts = [set(frame["prompt_id"]) for frame in first]
    assert sum(map(len, prompts)) == len(set(whole["prompt_id"]))
    assert all(max(one) < min(other) for one, other in pairwise(prompts))
    assert all(frame["sample_id"].is_sorted() for frame in first), "in the order of the parts"
    assert not list(folder.glob("*.arrow"))


def test_slices_are_about_as_large_as_they_may_be(tmp_path, monkeypatch):
    monkeypatch.setattr(slices_module, "ONE_IN", 1)
    paths, whole = write_samples(tmp_path / "samples", [n % 50 for n in range(1000)], 100)
    slices = SampleSlices(paths, COLUMNS, tmp_path, 30_000)
    heights = [frame.height for frame in slices]
    assert slices.count == len(heights) == 4
    assert max(heights) <= 1.2 * whole.height / slices.count
    assert SampleSlices(paths, COLUMNS, tmp_path).count == 1


def test_frames_on_disk_come_back_in_order(tmp_path):
    frames = [pl.DataFrame({"n": [n], "list": [[n] * n], "kind": pl.Series(["a"], dtype=pl.Enum(["a"]))})
              for n in range(12)]  # fmt: skip
    again = list(on_disk(iter(frames), tmp_path))
    assert all(one.equals(other) for one, other in zip(frames, again, strict=True))
    assert [one.schema for one in frames] == [other.schema for other in again]
