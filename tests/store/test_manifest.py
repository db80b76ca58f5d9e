"""Manifests: what an id depends on and what it does not, and which manifests are refused."""

import re

import pytest
from pydantic import ValidationError

from hir_core.schemas import SCHEMAS
from hir_core.store.manifest import STAGES, Identity, Manifest, Part, code_version, identity, table_schema, utc_now

PARENT = "models/0002-ab12cd34"


def manifest(identity: Identity, **changes) -> Manifest:
    facts = {
        **identity.model_dump(),
        "id": identity.id,
        "code_version": code_version(),
        "created": utc_now(),
        "parts": (Part(name="part-a.parquet", rows=8, bytes=100, sha256="0" * 64),),
        "rows": 8,
    }
    return Manifest.sealed(**{**facts, **changes})


def test_an_id_is_the_iteration_and_eight_digits_of_a_digest():
    # Taken with sha256sum from the JSON text typed by hand: ids on disk must not change with a new polars or pydantic.
    assert Identity(stage="models", iteration=3, config={"a": 1}, parents=(PARENT,), table_schema="").id == (
        "0003-a07cd0e1"
    )
    assert re.fullmatch(r"12345-[0-9a-f]{8}", identity("models", 12345, {}, []).id)


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": "evaluations"},
        {"iteration": 4},
        {"config": {"k": 5}},
        {"parents": ["models/0002-ab12cd35"]},
        {"parents": []},
        {"table_schema": "sample_id string"},
    ],
    ids=str,
)
def test_an_id_changes_with_everything_that_decides_the_result(changes):
    first = identity("samples", 3, {"k": 4}, [PARENT])
    other = Identity.model_validate({**first.model_dump(), **changes})
    assert other.id != first.id


def test_an_id_does_not_change_with_the_order_of_keys_or_a_round_trip():
    first = identity("samples", 3, {"k": 4, "deep": {"x": [1, 2.5], "y": None}}, [PARENT])
    other = identity("samples", 3, {"deep": {"y": None, "x": (1, 2.5)}, "k": 4}, (PARENT,))
    assert first == other
    assert first.id == other.id == Identity.model_validate_json(first.model_dump_json()).id


def test_an_id_does_not_depend_on_when_where_and_how_well_the_work_was_done():
    first = identity("samples", 3, {"k": 4}, [PARENT])
    other = manifest(first, metrics={"host": "b", "time_s": 7.0}, rows_in=9, rejected={"empty": 1}, code_version="9")
    assert other.identity.id == first.id


def test_every_stage_except_models_has_a_schema_text():
    assert {stage for stage in STAGES if table_schema(stage)} == set(SCHEMAS)
    assert table_schema("rewards") == (
        "sample_id string, reward string, outcome enum[scored|no_answer|not_judged], score float64, reason string, "
        "parts list[struct[name string|score float64]]"
    )
    assert "finish_reason enum[eos|length]" in table_schema("samples")
    assert "logprobs list[float32]" in table_schema("samples")


@pytest.mark.parametrize(
    "arguments",
    [("sample", 3, {}, []), ("samples", -1, {}, []), ("samples", 3, {}, ["../models/0002-ab12cd34"])],
    ids=["stage", "iteration", "parent"],
)
def test_an_identity_refuses_malformed_values(arguments):
    with pytest.raises(ValidationError):
        identity(*arguments)


def test_rows_in_are_rows_out_and_rejected():
    first = identity("rewards", 3, {}, [])
    assert manifest(first, rows_in=10, rejected={"blank": 1, "twice": 1}).rows == 8
    with pytest.raises(ValidationError, match="10 rows in, 8 rows out, rejected blank: 1: 1 rows are unaccounted for"):
        manifest(first, rows_in=10, rejected={"blank": 1})


def test_a_manifest_with_a_wrong_id_is_refused():
    with pytest.raises(ValidationError, match=r"it is named 0003-00000000, but"):
        manifest(identity("rewards", 3, {}, []), id="0003-00000000")
