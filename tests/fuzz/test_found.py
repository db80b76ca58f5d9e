"""Inputs that a reader once failed on, found by fuzzing: with a raw exception, without an end, or with raw characters.

They are read under the limits of the fuzzing (`fuzz_limits`): `read` means that the value passes its schema.
"""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fuzz_inputs import BOMB, MERGED
from fuzz_limits import judged
from fuzz_readers import BBH, BIGBENCH, COMPARISON, EVERYTHING, INDEXES, READERS

from flows.terminal.version import describe
from hir_core.store.store import Store

DEEP = 960
"""Deep enough for Python's JSON to be read, and too deep for what walks through it later."""


@pytest.fixture
def outcome_of(made_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """How a reader judges one input."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made_run, "runs/small")
    return lambda name, case: judged(READERS[name].prepare()(case))


def row(**columns: Any) -> bytes:
    return json.dumps({"query": "How many?"} | columns).encode()


def parquet(column: pl.Series) -> bytes:
    file = io.BytesIO()
    pl.DataFrame({"query": ["a", "b"]}).with_columns(column).write_parquet(file)
    return file.getvalue()


def deep(depth: int, inside: str = "1") -> str:
    return "[" * depth + inside + "]" * depth


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        pytest.param(row(metadata='{"a": "\\ud800"}'), "read", id="half of a character, escaped twice"),
        pytest.param(b'{"query": "a", "score": NaN, "x": [1e999]}', "read", id="not finite in the metadata"),
        pytest.param(json.dumps({"qu\x1b[31m": "a"}).encode(), "ConfigError", id="a key that colours the terminal"),
        pytest.param(json.dumps({"q": "a", "x\ny": 1}).encode(), "ConfigError", id="a key that begins a line"),
        pytest.param(row(options={"a": "x" * 30_000}), "ConfigError", id="a message of 30,000 characters"),
    ],
)
def test_prompts_in_jsonl(case: bytes, outcome: str, outcome_of: Any) -> None:
    assert outcome_of("prompts in JSONL", case) == outcome


@pytest.mark.parametrize(
    ("name", "case", "outcome"),
    [
        pytest.param("CSV", b'query,options\nWhich?,"[""\\ud800"", ""a""]"\n', "ConfigError", id="half of a character"),
        pytest.param(
            "CSV", b'query,metadata\na,"{""x"": ""\\udfff""}"\n', "read", id="half of a character in metadata"
        ),
        pytest.param("CSV", b'query,metadata\na,"{""x"": NaN}"\n', "read", id="not finite"),
        pytest.param("CSV", b"query,a\x1b[1m,a\x1b[1m\n", "ConfigError", id="a column that acts on the terminal"),
        pytest.param("TSV", b'query\t"a"b\n', "ConfigError", id="a tab in the message"),
    ],
)
def test_prompts_in_tables_of_text(name: str, case: bytes, outcome: str, outcome_of: Any) -> None:
    assert outcome_of(f"prompts in {name}", case) == outcome


@pytest.mark.parametrize(
    ("column", "outcome"),
    [
        (pl.Series("when", [2**30, -(2**31)], dtype=pl.Int32).cast(pl.Date), "ConfigError"),
        (pl.Series("when", [2**62, -(2**62)]).cast(pl.Datetime("us")), "ConfigError"),
        (pl.Series("long", [2**62, -(2**62)]).cast(pl.Duration("ms")), "ConfigError"),
        (pl.Series("score", [float("nan"), float("inf")]), "read"),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, pl.Series) else "",
)
def test_prompts_in_parquet(column: pl.Series, outcome: str, outcome_of: Any) -> None:
    assert outcome_of("prompts in Parquet", parquet(column)) == outcome


@pytest.mark.parametrize(
    ("name", "content", "outcome"),
    [
        pytest.param("BIG-bench", BIGBENCH[0] | {"canary": float("inf")}, "read", id="a canary that is not finite"),
        pytest.param("BIG-bench", BIGBENCH[0] | {"canary": "\ud800"}, "ConfigError", id="half of a character"),
        pytest.param(
            "BIG-bench", {"examples": [{"input": "a\ud800", "target": "b"}]}, "ConfigError", id="in a question"
        ),
        pytest.param("BIG-Bench-Hard", BBH[0] | {"canary": float("nan")}, "read", id="not finite"),
        pytest.param(
            "BIG-Bench-Hard", {"examples": [{"input": {"x" * 30_000: 1}}]}, "ConfigError", id="an endless key"
        ),
    ],
)
def test_task_files_of_benchmarks(name: str, content: Any, outcome: str, outcome_of: Any) -> None:
    assert outcome_of(name, json.dumps(content).encode()) == outcome


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"created": "cpu"}, id="a time that is none"),
        pytest.param({"created": "2024-01-01T00:00:00"}, id="a time without its distance from UTC"),
        pytest.param({"created": "9999-12-31T23:59:59.999999+00:00"}, id="a time after which there is none"),
        pytest.param({"parents": ["a\nb"]}, id="several lines about a parent"),
        pytest.param({"a\x1b[31m": 1}, id="a field that colours the terminal"),
        pytest.param({"parts": [{"name": "../out", "rows": -1, "bytes": 1, "sha256": ""}]}, id="a part elsewhere"),
    ],
)
def test_manifests(fields: dict[str, Any], outcome_of: Any) -> None:
    """Each is sealed anew: one who forges a manifest can compute its digest."""
    assert outcome_of("manifests", ("samples", json.dumps(fields).encode(), True)) == "VersionCorrupt"


@pytest.mark.parametrize("depth", [DEEP, 5_000])
def test_files_of_the_store_that_are_nested_too_deeply(depth: int, outcome_of: Any) -> None:
    content = deep(depth).encode()
    assert outcome_of("branches.json", content) == "StoreError"
    assert outcome_of("released files", content) == "StoreError"
    assert outcome_of("manifests", ("samples", b'{"metrics": {"a": ' + content + b"}}", False)) == "VersionCorrupt"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x" * 300 + "/samples@1", id="a run of 300 characters"),
        pytest.param("small/samples/" + "1" * 300 + "-0123abcd", id="an iteration of 300 digits"),
        pytest.param("a\x1b[31m\nerror: b", id="raw characters"),
        pytest.param("small\ud800/samples@1", id="half of a character"),
        pytest.param("x" * 30_000, id="a message of 30,000 characters"),
    ],
)
def test_references(text: str, outcome_of: Any) -> None:
    assert outcome_of("references", text) == "VersionNotFound"


@pytest.mark.parametrize("where", ["k = '\x1b[31m", "k = \x85", "\u2028", "k in (" + "1, " * 3_000])
def test_filters(where: str, outcome_of: Any) -> None:
    assert outcome_of("--where", where) == "ConfigError"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(BOMB, id="aliases that stand for billions"),
        pytest.param(MERGED + "]", id="merged mappings that stand for billions"),
        pytest.param('[&a "' + "x" * 2_000 + '", ' + "*a, " * 2_000 + "]", id="a long text many times"),
        pytest.param("&a [*a]", id="a list that contains itself"),
        pytest.param("&a {b: *a}", id="a mapping that contains itself"),
        pytest.param(deep(5_000), id="nested too deeply"),
        pytest.param(
            "[&d0 " + deep(80) + "".join(f", &d{n} {deep(80, f'*d{n - 1}')}" for n in range(1, 15)) + "]",
            id="nested too deeply by aliases",
        ),
        *("2024-13-45", "0x_", "!!int 'x'", "!!int ''", "!!bool maybe", "!!float x", "!!timestamp x", "!!binary aGk="),
        pytest.param("0x" + "f" * 5_000, id="a number too long to be printed"),
        pytest.param("1" * 5_000, id="a number too long to be read"),
        pytest.param("1" + ":1" * 3_000, id="a number to the base of sixty"),
    ],
)
def test_values_in_run_configs(value: str, outcome_of: Any) -> None:
    settings = f"run: a\niterations: 1\nprompts: [{{path: a.jsonl}}]\nmodel: {{source: a, revision: {value}}}\n"
    assert outcome_of("run configs", (settings.encode(), [])) == ("read" if value == "2024-13-45" else "ConfigError")


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"training": {"learning_rate": float("inf")}}, id="a number that is not finite"),
        pytest.param({"deepspeed": "x" * 300}, id="a file name that is too long"),
        pytest.param({"reward": {"type": "regex", "pattern": "[[a]"}}, id="a pattern that Python warns about"),
        pytest.param({"prompts": [{"type": "synthetic", "task": "a", "size": 1, "dials": {"\ud800": 1}}]}, id="a key"),
        pytest.param({"a\x1b[31m\nerror: b": 1}, id="a key that acts on the terminal"),
        pytest.param({"retention": "x" * 30_000}, id="a message of 30,000 characters"),
    ],
)
def test_settings_of_run_configs(settings: dict[str, Any], outcome_of: Any) -> None:
    case = json.dumps(EVERYTHING | settings).encode(), list[str]()
    assert outcome_of("run configs", case) == "ConfigError"


@pytest.mark.parametrize(("name", "outcome"), [("1", "ConfigError"), ("null", "ConfigError"), ("'1'", "read")])
def test_names_in_run_configs_are_texts(name: str, outcome: str, outcome_of: Any) -> None:
    dials = f"{{words: {{{name}: 2}}}}"
    prompts = f"prompts: [{{type: synthetic, task: constrained_writing, size: 9, dials: {dials}}}]"
    settings = f"run: a\niterations: 1\nmodel: {{source: a}}\n{prompts}\n"
    assert outcome_of("run configs", (settings.encode(), [])) == outcome


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("a." * 3_000 + "b=1", id="a key of 3,000 parts"),
        pytest.param("prompts." + "1" * 5_000 + ".size=1", id="an index of 5,000 digits"),
        pytest.param("seed=2024-13-45", id="a date that is none"),
        pytest.param(f"seed={BOMB}", id="aliases that stand for billions"),
        pytest.param("a\x1b[31m\nerror: b", id="raw characters"),
    ],
)
def test_changes_to_run_configs(change: str, outcome_of: Any) -> None:
    assert outcome_of("run configs", (json.dumps(EVERYTHING).encode(), [change])) == "ConfigError"


@pytest.mark.parametrize("only", [3, "counting", None, {"a": 1}])
def test_comparisons(only: Any, outcome_of: Any) -> None:
    methods = COMPARISON["methods"] | {"none": {"only": only}}  # type: ignore[operator]
    case = json.dumps(COMPARISON | {"methods": methods}).encode(), list[str]()
    assert outcome_of("comparisons", case) == "ConfigError"


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        pytest.param('{"a": Infinity, "b": [NaN, 1e999]}', "read", id="not finite"),
        pytest.param(f'{{"a": {deep(DEEP)}}}', "ConfigError", id="nested too deeply"),
        pytest.param(f'{{"a": {deep(5_000)}}}', "ConfigError", id="nested far too deeply"),
        pytest.param('{"a": ' + "1" * 5_000 + "}", "ConfigError", id="a number too long to be read"),
        pytest.param('{"a": "\\ud800"}', "ConfigError", id="half of a character"),
        pytest.param('{"bf16": "' + "x" * 30_000 + '"}', "ConfigError", id="a message of 30,000 characters"),
    ],
)
def test_deepspeed_files(content: str, outcome: str, outcome_of: Any) -> None:
    assert outcome_of("DeepSpeed files", content.encode()) == outcome


@pytest.mark.parametrize(
    "content", [b"a slots=\xff", b"a slots=" + b"9" * 5_000, b"\0=2", b"a\x1b[1m slots=2", b"-oProxyCommand=x slots=1"]
)
def test_hostfiles(content: bytes, outcome_of: Any) -> None:
    assert outcome_of("hostfiles", content) == "ConfigError"


@pytest.mark.parametrize(
    "config",
    [
        *(b"null", b"[1]", b'{"architectures": [{"a": 1}]}', b'{"id2label": "ab"}'),
        *(b'{"num_labels": []}', b'{"num_labels": Infinity}', b'{"num_labels": 1e12}', deep(5_000).encode()),
        *(b'{"architectures": ["\\u001b[31m"]}', b'{"id2label": [true]}'),
    ],
)
def test_model_folders(config: bytes, outcome_of: Any) -> None:
    assert outcome_of("model folders", (config, json.dumps(INDEXES[0]).encode())) == "ConfigError"


def test_a_manifest_whose_count_is_named_by_half_of_a_character(outcome_of: Any) -> None:
    content = b'{"rows_in": 6, "rows": 3, "rejected": {"\\ud800": 1}}'
    assert outcome_of("manifests", ("prompts", content, True)) == "VersionCorrupt"


def test_hir_show_of_a_manifest_with_half_of_a_character(outcome_of: Any) -> None:
    content = b'{"metrics": {"loss": {"\\ud800": 0.5}}}'
    assert outcome_of("manifests", ("samples", content, True)) == "read"
    store = Store(Path("runs/small"))
    shown = json.dumps(describe(store, store.resolve("samples@2")))
    assert json.loads(shown)["metrics"] == json.loads(content)["metrics"]
