"""Every reader of what others wrote, with the inputs that it is fuzzed with and what counts as valid there.

A `Reader` is prepared once in a folder of its own, which is the current one and holds the run of `finished_run` as
`runs/small`. It is then given one input after the other; the function that it gets back reads that input, changes
nothing, and checks that the value passes its schema.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from fuzz_inputs import (
    HOSTILE_TEXTS,
    changed_texts,
    damaged,
    documents,
    encoded,
    json_values,
    texts,
    yaml_values,
)
from hypothesis import strategies as st
from judge_server import Server

from hir_core.config import BigBenchHardPrompts, BigBenchPrompts, FilePrompts, HubModel, JudgeReward
from hir_core.config.comparison import load_comparison
from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS, read_deepspeed
from hir_core.config.load import load_config, parse_config
from hir_core.config.model_files import check_files, classifier_labels
from hir_core.inspect.rows import head
from hir_core.launch.devices import read_hostfile
from hir_core.prompts.load import load_prompts
from hir_core.rewards.judge_endpoint import Endpoint
from hir_core.schemas import Prompts
from hir_core.store.branches import BRANCHES, read_branches
from hir_core.store.manifest import Manifest, _content_digest, canonical_json, utc_now
from hir_core.store.references import find_key, find_version
from hir_core.store.store import Store
from hir_core.store.version import MANIFEST, RELEASED, VersionRef

Give = Callable[[Any], Callable[[], object]]
RECIPES = Path(__file__).resolve().parents[2] / "flows" / "configs"


@dataclass(frozen=True)
class Reader:
    """A reader under test."""

    inputs: st.SearchStrategy[Any]
    prepare: Callable[[], Give]
    """Makes what the reader needs in the current folder, and returns what gives it an input."""
    every_time: int = 120
    """How many inputs it is given by default."""


def _given_file(path: Path, read: Callable[[], object], content: bytes) -> Callable[[], object]:
    path.write_bytes(content)
    return read


# --- prompts ---------------------------------------------------------------------------------------------------------

ROWS: list[dict[str, Any]] = [
    {"query": "How many plums?", "references": ["8", "eight"], "task": "sums", "group": "g1", "split": "train"},
    {"query": "How many figs?", "answer": 3.5, "metadata": {"source": "a book", "page": 3, "tags": ["x", None]}},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}], "reference": 4},
    {"query": "Which?", "options": ["red", "blue"], "reference": "B", "history": [{"role": "user", "content": "Hm"}]},
    {"query": "Which?\nOptions:\n(A) red\n(B) blue", "references": ["(B)"], "metadata": '{"a": 1}', "extra": [1, {}]},
]
BIGBENCH = [
    {
        "canary": "a canary",
        "task_prefix": "Answer.",
        "example_input_prefix": "\nQ: ",
        "examples": [
            {"input": "Which? It is.", "target_scores": {"red": 1, "blue": 0}, "comment": "a"},
            {"input": "How many?", "target": ["4", "four"]},
            {"input": "Say it.", "target": 4.5, "target_scores": {"a": 0.5, "b": 0.25}, "more": {"x": [1]}},
        ],
    }
]
BBH = [
    {
        "canary": "a canary",
        "examples": [
            {"input": "Is it?\nOptions:\n(A) yes\n(B) no", "target": "(A)"},
            {"input": "Which?\nOptions:\n- red\n- blue", "target": "red"},
            {"input": "How many? Count.", "target": "4"},
        ],
    }
]


def prompts_from(source: Any) -> Callable[[], Give]:
    """Reads the file of a source of prompts into a table, which must follow its schema and hold JSON as metadata."""

    def prepare() -> Give:
        def read() -> None:
            table, rejected = load_prompts([source])
            assert all(count > 0 for count in rejected.values())
            Prompts.validate(table)
            for metadata in table["metadata"].drop_nulls():
                assert isinstance(json.loads(metadata, parse_constant=_refused), dict)

        def give(content: bytes) -> Callable[[], object]:
            source.path.write_bytes(content)
            return read

        return give

    return prepare


def _refused(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def lines_of_rows() -> st.SearchStrategy[str]:
    return st.lists(documents(ROWS, json_values), min_size=1, max_size=3).map("\n".join)


@st.composite
def tables_of_text(draw: st.DrawFn, delimiter: str) -> str:
    header = ["query", "references", "options", "history", "task", "metadata"]
    cells = ["How many?", '["8", "A"]', '["8", "9"]', '[{"role": "user", "content": "a"}]', "sums", '{"a": 1}']
    rows = [list(header), list(cells), [f"{cells[0]} {cells[4]}", "8", "", "", "", ""]]
    for _ in range(draw(st.integers(0, 3))):
        row = rows[draw(st.integers(0, 2))]
        row[draw(st.integers(0, len(row) - 1))] = draw(st.one_of(texts, documents([ROWS[2]["messages"]], json_values)))
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows(rows)
    return file.getvalue()


COLUMNS = [
    pl.Series("references", [["8", "eight"], [None]]),
    pl.Series("references", [[1, 2], [3]]),
    pl.Series("answer", [1.5, float("nan")]),
    pl.Series("answer", [Decimal("1.50"), None]),
    pl.Series("answer", ["a", "b"], dtype=pl.Categorical),
    pl.Series("query", [b"a\xff", b"b"]),
    pl.Series("query", ["", None]),
    pl.Series(
        "messages", [[{"role": "user", "content": "a", "name": None}], [{"role": "x", "content": "", "name": "b"}]]
    ),
    pl.Series("messages", ["a", "b"]),
    pl.Series("options", [["red", "blue"], []]),
    pl.Series("options", [["a", "b"], ["c", "d"]], dtype=pl.Array(pl.String, 2)),
    pl.Series("task", [2**62, -1]),
    pl.Series("split", ["train", "validation"]),
    pl.Series("metadata", [{"a": 1, "b": [0.5]}, {"a": None, "b": None}]),
    pl.Series("metadata", ["{}", "[1]"]),
    pl.Series("when", [2**62, -(2**62)]).cast(pl.Datetime("us")),
    pl.Series("when", [2**30, -(2**31)], dtype=pl.Int32).cast(pl.Date),
    pl.Series("when", [2**62, -(2**62)]).cast(pl.Datetime("ns", "Europe/Berlin")),
    pl.Series("long", [2**62, -(2**62)]).cast(pl.Duration("ms")),
    pl.Series("large", [10**30, 1], dtype=pl.Int128),
    pl.Series("infinite", [float("inf"), float("-inf")]),
    pl.Series("bytes", [[b"\x00"], None]),
    pl.Series("times", [timedelta(days=1), None]),
    pl.Series("zoned", [datetime(2024, 1, 1, tzinfo=UTC), None]),
    pl.Series("nothing", [None, None]),
    pl.Series("", ["a", "b"]),
    pl.Series("x" * 300, [True, False]),
]


@st.composite
def parquet_files(draw: st.DrawFn) -> bytes:
    frame = pl.DataFrame({"query": ["How many?", "Which?"], "references": [["8"], ["red", "blue"]]})
    for column in draw(st.lists(st.sampled_from(COLUMNS), max_size=3)):
        frame = frame.with_columns(column)
    if draw(st.booleans()):
        frame = frame.drop(draw(st.sampled_from(frame.columns)))
    file = io.BytesIO()
    compression = draw(st.sampled_from(["uncompressed", "zstd", "snappy"]))
    frame.write_parquet(file, compression=compression, statistics=draw(st.booleans()))
    return file.getvalue()


# --- the store -------------------------------------------------------------------------------------------------------


def _manifests() -> Give:
    store = Store(Path("runs/small"))
    refs = store.versions()
    valid = {ref.stage: json.loads((ref.path / MANIFEST).read_bytes()) for ref in refs}
    by_stage = {ref.stage: ref for ref in refs}

    def give(case: tuple[str, bytes, bool]) -> Callable[[], object]:
        stage, content, is_sealed = case
        ref, plain = by_stage[stage], valid[stage]
        changes = _json_object(content)
        if changes is not None:
            content = json.dumps(_sealed(plain | changes) if is_sealed else plain | changes).encode()
        (ref.path / MANIFEST).write_bytes(content)
        return partial(read, ref)

    def read(ref: VersionRef) -> None:
        manifest = store.manifest(ref)
        assert utc_now(after=manifest.created) > "2"
        fields = json.loads(json.dumps(manifest.model_dump(exclude={"sha256"}), allow_nan=False))
        assert Manifest.model_validate(_sealed(fields)).identity == manifest.identity

    return give


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(content)
        json.dumps(value)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _sealed(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a manifest with their digest, as one who forges it would write it."""
    try:
        return fields | {"sha256": _content_digest(fields)}
    except (ValueError, TypeError, RecursionError):
        return fields


MANIFEST_FIELDS = [
    {
        "created": "2026-01-02T03:04:05.000006+00:00",
        "code_version": "0.1.0",
        "metrics": {"loss": 0.5, "seconds": [1, 2.5], "device": "cpu"},
        "parts": [{"name": "part-0.parquet", "rows": 3, "bytes": 100, "sha256": "0" * 64}],
        "rows_in": 6,
        "rows": 3,
        "rejected": {"not judged": 3},
    },
    {"parents": ["prompts/0000-00000000", "models/0001-0123abcd"], "config": {"type": "exact_match"}, "iteration": 1},
    {"stage": "samples", "id": "0001-0123abcd", "table_schema": "", "rejected": {}, "extra": 1},
]


def _branches() -> Give:
    def read() -> None:
        branches = read_branches(Path("runs/small"))
        json.dumps({name: branch.model_dump(mode="json") for name, branch in branches.items()}, allow_nan=False)

    return partial(_given_file, Path("runs/small") / BRANCHES, read)


BRANCH_FILES = [
    {
        "main": {"versions": ["prompts/0000-0123abcd", "models/0001-0123abcd"], "underway": [], "retention": None},
        "other": {"versions": [], "underway": ["samples/0001-0123abcd"], "retention": {"last": 1, "best": 2}},
    }
]


def _released() -> Give:
    store = Store(Path("runs/small"))
    ref = store.resolve("models@latest")

    return partial(_given_file, ref.path / RELEASED, lambda: json.dumps(store.released(ref)))


def _references() -> Give:
    store = Store(Path("runs/small"))

    def read(text: str) -> None:
        for found in (find_version(text, Path("runs"))[0], *find_key(text, Path("runs"))[0]):
            assert found.run_dir.resolve() == store.run_dir.resolve()

    return lambda text: partial(read, text)


REFERENCES = ["samples@1", "small/samples@latest", "runs/small/models/0001-0123abcd", "small/0123456789abcdef", "a/b@c"]
REFERENCE_PIECES = [
    *HOSTILE_TEXTS,
    "@",
    "/",
    "/samples@",
    "@latest",
    "9" * 5_000,
    "-0123abcd",
    "٣",
    "x" * 300 + "/",
    "\ud800",
]


def _filters() -> Give:
    store = Store(Path("runs/small"))
    ref = store.resolve("samples@1")
    return lambda where: partial(head, store, ref, 3, where)


FILTERS = [
    "k = 0",
    "finish_reason = 'length' and k > 0",
    "array_length(completion_ids) > 1 or k in (1, 2)",
    "not (k < 2)",
]
FILTER_PIECES = [
    *(
        "(",
        ")" * 3,
        "(" * 200,
        "not " * 300,
        "- " * 300,
        "'",
        '"',
        ";",
        "--",
        "/*",
        "*",
        " and ",
        " or ",
        " is null",
        "case when",
    ),
    *(
        "k",
        "nothing",
        "completion like '%a%'",
        "cast(k as int)",
        "9" * 400,
        "1/0",
        "k::date",
        "date '2024-13-45'",
        "[1]",
    ),
    *("(select 1)", "sum(k)", "count(*)", "regexp_like(completion, '(')", "interval '1 day'", "x" * 3_000, "{", "\0"),
]


# --- settings --------------------------------------------------------------------------------------------------------

EVERYTHING = {
    "run": "all",
    "runs_dir": "runs",
    "iterations": 2,
    "seed": 3,
    "model": {"source": "owner/name", "revision": "main", "template": "{instruction} {query}"},
    "prompts": [
        {"path": "rows.jsonl", "test_share": 0.2},
        {"type": "bbh", "path": "task.json"},
        {"type": "datasets", "source": "owner/name", "columns": {"query": "question"}, "limit": 5},
        {"type": "reasoning_gym", "task": "leg_counting", "size": 5, "dials": {"a": [1, 2.5], "b": {"c": None}}},
    ],
    "instructions": {"correct": "Be right.", "wrong": "Be wrong."},
    "sampling": {"prompts": 5, "mix": {"sums": 1.0}, "k": 2, "temperature": 1.0},
    "reward": {
        "type": "combined",
        "parts": [
            {"name": "a", "weight": 2.0, "reward": {"type": "regex", "pattern": "(a|b)+", "group": 1}},
            {
                "reward": {
                    "type": "judge",
                    "url": "http://localhost:8000/v1",
                    "model": "m",
                    "options": {"max_tokens": 5},
                }
            },
            {"reward": {"type": "reward_model", "source": "owner/name", "label": 0}},
            {"reward": {"type": "python", "function": "mine:score", "time_limit_s": 2}},
        ],
    },
    "relabel": {"type": "attributes", "levels": 3, "threshold": 0.5, "instruction": "With {attributes}."},
    "select": {"drop_prompts": ["all_wrong"], "deduplicate": True, "others_per_correct": 0.3, "replay": 1},
    "training": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-4, "schedule": "cosine"},
    "evaluation": {"also": [{"type": "bigbench", "path": "task.json"}]},
    "launch": {"processes": 2, "hostfile": "hosts", "timeout_s": 5.0, "port": 5000},
    "retention": {"last": 1, "best": 1},
    "branch": "main",
}
CONFIGS = [EVERYTHING, *(yaml.safe_load(path.read_text()) for path in sorted(RECIPES.glob("*.yaml")))]
CHANGES = ["iterations=3", "training.epochs=2", "prompts.0.size=5", "reward={type: regex, pattern: a+}", "a.b.c=[1, 2]"]
CHANGE_PIECES = [
    *HOSTILE_TEXTS,
    "=",
    ".",
    "prompts.",
    "1" * 5_000,
    "a." * 3_000,
    "reward.parts.0.",
    "run",
    "&a [*a]",
    "0x",
]


def settings_files(templates: list[Any]) -> st.SearchStrategy[bytes]:
    """Such settings on one line as JSON, or in YAML's own form."""
    blocks = st.sampled_from(templates).map(lambda plain: yaml.safe_dump(plain, sort_keys=False))
    pieces = st.one_of(
        yaml_values.map(str), st.sampled_from(["\n", "  ", "- ", ": ", "&a ", "*a", "!!int ", "<<: *a\n"])
    )
    return encoded(
        st.one_of(documents(templates, yaml_values), changed_texts([yaml.safe_dump(templates[0])], pieces), blocks)
    )


def changes_to_settings() -> st.SearchStrategy[list[str]]:
    return st.lists(changed_texts(CHANGES, st.sampled_from(CHANGE_PIECES)), max_size=2)


def _config() -> Give:
    def read(changes: list[str]) -> None:
        config = load_config(Path("mine.yaml"), changes)
        canonical_json(config.fingerprint())
        assert parse_config(json.loads(json.dumps(config.model_dump(mode="json"), allow_nan=False))) == config

    return lambda case: _given_file(Path("mine.yaml"), partial(read, case[1]), case[0])


COMPARISON = {
    "compare": "two",
    "base": "quickstart",
    "seeds": [0],
    "tasks": {"counting": {"iterations": 1, "sampling": {"prompts": 256}}, "other": {"prompts": [{"path": "p.jsonl"}]}},
    "methods": {
        "none": {"relabel": {"type": "keep_correct"}, "only": ["counting"]},
        "all": {"select": {"others_per_correct": None}},
    },
    "reference": "none",
}


def _comparison() -> Give:
    def read(changes: list[str]) -> None:
        comparison, arms = load_comparison(Path("two.yaml"), RECIPES, changes)
        json.dumps(comparison.model_dump(mode="json"), allow_nan=False)
        for arm in arms:
            canonical_json(arm.config.fingerprint())

    return lambda case: _given_file(Path("two.yaml"), partial(read, case[1]), case[0])


DEEPSPEED_FILES = [json.loads(path.read_text()) for path in sorted(SHIPPED_DS_CONFIGS.glob("*.json"))]


def _deepspeed() -> Give:
    def read() -> None:
        json.dumps(read_deepspeed(Path("ds.json")), allow_nan=False).encode()

    return partial(_given_file, Path("ds.json"), read)


def _hostfile() -> Give:
    def read() -> None:
        hosts = read_hostfile(Path("hosts"))
        assert hosts
        assert all(host.isprintable() and slots > 0 for host, slots in hosts.items())

    return partial(_given_file, Path("hosts"), read)


HOSTFILES = [
    "worker-1 slots=4\nworker-2 slots=8\n",
    "# two hosts\n10.0.0.1 slots=1 # one\n\n",
    "a slots=2\r\nb slots=3",
]
HOST_PIECES = [
    *HOSTILE_TEXTS,
    "slots=",
    "slots=" + "9" * 5_000,
    "\x0b",
    "\x1d",
    "slots=0",
    "slots=-1",
    "=",
    "#",
    "worker-1 slots=4\n",
]


def _model_folder() -> Give:
    """A reward model in two files of weights, which an index names."""
    folder = Path("model")
    folder.mkdir()
    for number in (1, 2):
        (folder / f"model-0000{number}-of-00002.safetensors").write_bytes(b"")

    def give(case: tuple[bytes, bytes]) -> Callable[[], object]:
        for name, content in zip(("config.json", "model.safetensors.index.json"), case, strict=True):
            (folder / name).write_bytes(content)
        return read

    def read() -> None:
        model = HubModel(source="./model")
        check_files(model)
        assert all(isinstance(label, str) for label in classifier_labels(model))

    return give


CLASSIFIERS = [
    {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "bad", "1": "good"}, "num_labels": 2},
    {"architectures": None, "num_labels": 3, "auto_map": {"AutoModel": "mine.Model"}, "transformers_weights": None},
]
INDEXES = [
    {
        "metadata": {"total_size": 100},
        "weight_map": {"a.weight": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    }
]


# --- judges ----------------------------------------------------------------------------------------------------------

REPLIES = [
    {"choices": [{"message": {"role": "assistant", "content": "Good.\nScore: 0.5"}}], "usage": {"total_tokens": 5}},
    {"error": {"message": "no", "code": 3}},
]
HEADER_TEXTS = [text for text in HOSTILE_TEXTS if text.isascii() and text.isprintable() and len(text) < 1000]
HEADERS = {
    "Content-Type": ["application/json; charset=utf-16", "text/html; charset=nothing", "x"],
    "Content-Encoding": ["gzip", "deflate", "br", "zstd", "gzip, gzip", "identity", "nothing"],
    "Retry-After": [
        "0",
        "-1",
        "1e9",
        "nan",
        "inf",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 1 Jan 0001 0:0:0 +9999",
        "soon",
    ],
    "Location": ["http://[", "//", "http://other.invalid/?key=1", "\\x", "http://a:99999999/"],
    "Set-Cookie": ["a=b; expires=Thu, 99 Foo 2024", "=; ;", "a=b; domain=..; max-age=x"],
    "Content-Length": ["0", "5", "-1", "x", "99999999999999999999"],
    "Transfer-Encoding": ["chunked", "x"],
    "Connection": ["close", "upgrade"],
}
LARGE = gzip.compress(b'{"choices": [{"message": {"content": "' + b" " * 50_000_000 + b'"}}]}', 1, mtime=0)


@st.composite
def replies(draw: st.DrawFn) -> tuple[int, dict[str, str], bytes]:
    status = draw(
        st.sampled_from([*[200] * 8, 201, 204, 206, 301, 304, 308, 400, 401, 403, 404, 408, 418, 429, 500, 599])
    )
    names = draw(st.lists(st.sampled_from(sorted(HEADERS)), max_size=2, unique=True))
    values = {name: draw(st.one_of(st.sampled_from(HEADERS[name]), st.sampled_from(HEADER_TEXTS))) for name in names}
    body = draw(encoded(documents(REPLIES, json_values)))
    if draw(st.integers(0, 30)) == 0:
        values["Content-Encoding"], body = "gzip", LARGE
    elif draw(st.booleans()):
        values["Content-Encoding"], body = "gzip", draw(damaged(st.just(gzip.compress(body, mtime=0))))
    return status, values, body


def _judge() -> Give:
    answer: list[Any] = []
    server = Server(lambda number, request: answer[0])
    settings = {"url": server.url, "model": "m", "retries": 0, "backoff_s": 0.0, "timeout_s": 0.5}
    endpoint = Endpoint(JudgeReward.model_validate({"type": "judge", **settings}))

    def give(case: tuple[int, dict[str, str], bytes]) -> Callable[[], object]:
        answer[:] = [case]
        server.requests.clear()
        return read

    def read() -> None:
        kept: list[str] = []
        (reply,) = endpoint.ask({"key": {"messages": []}}, lambda _, text: kept.append(text)).values()
        assert kept == ([] if reply.problem else [reply.text])
        assert reply.text.strip() or reply.problem.isprintable()

    return give


READERS: dict[str, Reader] = {
    "prompts in JSONL": Reader(encoded(lines_of_rows()), prompts_from(FilePrompts(path=Path("rows.jsonl")))),
    "prompts in CSV": Reader(encoded(tables_of_text(",")), prompts_from(FilePrompts(path=Path("rows.csv")))),
    "prompts in TSV": Reader(encoded(tables_of_text("\t")), prompts_from(FilePrompts(path=Path("rows.tsv")))),
    "prompts in Parquet": Reader(  # each is read in a process of its own first, which takes about a second
        damaged(parquet_files()), prompts_from(FilePrompts(path=Path("rows.parquet"))), every_time=6
    ),
    "BIG-bench": Reader(
        encoded(documents(BIGBENCH, json_values)),
        prompts_from(BigBenchPrompts(type="bigbench", path=Path("task.json"))),
    ),
    "BIG-Bench-Hard": Reader(
        encoded(documents(BBH, json_values)), prompts_from(BigBenchHardPrompts(type="bbh", path=Path("task.json")))
    ),
    "manifests": Reader(
        st.tuples(
            st.sampled_from(["prompts", "samples", "models", "triples"]),
            encoded(documents([*MANIFEST_FIELDS[:1] * 3, *MANIFEST_FIELDS[1:]], json_values)),
            st.sampled_from([True, True, True, False]),
        ),
        _manifests,
    ),
    "branches.json": Reader(encoded(documents(BRANCH_FILES, json_values)), _branches),
    "released files": Reader(encoded(documents([{"model.safetensors": "retention of main"}], json_values)), _released),
    "references": Reader(changed_texts(REFERENCES, st.one_of(st.sampled_from(REFERENCE_PIECES), texts)), _references),
    "--where": Reader(changed_texts(FILTERS, st.one_of(st.sampled_from(FILTER_PIECES), texts)), _filters),
    "run configs": Reader(st.tuples(settings_files(CONFIGS), changes_to_settings()), _config),
    "comparisons": Reader(st.tuples(settings_files([COMPARISON]), changes_to_settings()), _comparison),
    "model folders": Reader(
        st.tuples(encoded(documents(CLASSIFIERS, json_values)), encoded(documents(INDEXES, json_values))), _model_folder
    ),
    "DeepSpeed files": Reader(encoded(documents(DEEPSPEED_FILES, json_values)), _deepspeed),
    "judges": Reader(replies(), _judge),
    "hostfiles": Reader(encoded(changed_texts(HOSTFILES, st.sampled_from(HOST_PIECES))), _hostfile),
}
