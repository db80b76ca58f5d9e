"""What manifests say of outputs: counts by hand, and pass@k against a look at every choice of k samples."""

from itertools import combinations

import polars as pl
import pytest

from hir_core.stages.output_metrics import output_metrics, pass_at


def test_outputs_are_counted(tmp_path):
    rows = [
        ("p", "a", [-1.0, -2.0], "eos"),
        ("p", "a", [-3.0], "length"),
        ("p", " \n", [], "eos"),
        ("q", "a", [-2.0], "length"),
        ("q", "", [-2.0], "eos"),
    ]
    schema = {
        "prompt_id": pl.String,
        "completion": pl.String,
        "logprobs": pl.List(pl.Float32),
        "finish_reason": pl.String,
    }
    table = pl.DataFrame(rows, schema=schema, orient="row")
    parts = [tmp_path / "part-0.parquet", tmp_path / "part-1.parquet"]
    table[:1].write_parquet(parts[0])
    table[1:].write_parquet(parts[1])
    assert output_metrics(parts) == {"cut_off": 2, "empty": 2, "repeated": 1, "mean_logprob": -2.0}
    table[2:3].write_parquet(parts[0])
    assert output_metrics(parts[:1])["mean_logprob"] is None


def test_pass_at_k_is_the_share_of_choices_of_k_samples_with_a_correct_one():
    scores = {"a": [1, 0, 0, 0, None], "b": [0.5, 0.4, 1, 1, 0], "c": [0, 0, 0, None, 0], "d": [1, 1]}
    rows = [{"prompt_id": prompt, "score": score} for prompt, given in scores.items() for score in given]
    found = pass_at(pl.DataFrame(rows, schema={"prompt_id": pl.String, "score": pl.Float64}), 0.5)
    assert list(found) == ["1", "2", "4", "5"]
    for k, share in found.items():
        expected = []
        for given in scores.values():
            choices = list(combinations([(score or 0) >= 0.5 for score in given], int(k)))
            expected += [sum(map(any, choices)) / len(choices)] if choices else []
        assert share == pytest.approx(sum(expected) / len(expected))
    assert pass_at(pl.DataFrame(rows[:0], schema={"prompt_id": pl.String, "score": pl.Float64}), 0.5) == {}
