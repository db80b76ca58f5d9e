"""`hir push`: what goes to the hub is what was shown, with a card, private by default, and it names no machine."""

import json
from pathlib import Path

import polars as pl
import pytest
import yaml
from finished_run import commit, drawn, hir
from hub_server import hub  # noqa: F401 - a fixture
from kept_benchmark import result

from hir_core.errors import ConfigError
from hir_core.inspect.benchmarks import write_benchmark
from hir_core.inspect.card import column_meanings, public
from hir_core.inspect.push import prepare, upload
from hir_core.schemas import SCHEMAS
from hir_core.store.manifest import identity
from hir_core.store.store import Store


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


JUDGE = {"type": "judge", "endpoint": "http://10.0.0.7:8000/v1", "api_key_env": "JUDGE_KEY", "model": "a/judge"}


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """A run of two models, in whose files and manifests stand folders, an address and a variable of this machine."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "runs" / "odd")
    source = str(tmp_path / "home" / "secret-base")
    sources = [{"type": "file", "path": str(tmp_path / "home" / "mine.jsonl")}]
    prompts = commit(store, "prompts", 0, [], [], {"rows": "1"}, metrics={"sources": sources})
    parents = [prompts]
    for iteration in (0, 1):
        first = {"model": {"type": "hub", "source": source, "revision": None}} if iteration == 0 else {}
        draft = store.draft(identity("models", iteration, {"bf16": False, **first}, parents))
        (draft.path / "config.json").write_text(json.dumps({"_name_or_path": source, "hidden_size": 8}))
        (draft.path / "tokenizer_config.json").write_text(json.dumps({"name_or_path": source, "pad_token": "/root"}))
        model = draft.commit()
        tasks = {"sums": {"items": 9, "accuracy": 0.5, "low": 0.25, "high": 0.75, "majority_baseline": 0.125}}
        asked = {"instruction": "Be right.", "max_new_tokens": 3, "reward": JUDGE}
        commit(store, "evaluations", iteration, [prompts, model], [], asked, metrics={"tasks": tasks})
        samples = commit(store, "samples", iteration + 1, [prompts, model], drawn(1, model))
        rewards = commit(store, "rewards", iteration + 1, [prompts, samples], [], {"reward": JUDGE})
        relabel = {"relabel": {"type": "keep_correct"}}
        triples = commit(store, "triples", iteration + 1, [prompts, samples, rewards], [], relabel)
        parents = [model, triples]
    return store


def test_a_model_goes_up_as_it_was_shown_private_and_with_its_card(store, hub):  # noqa: F811
    model = store.resolve("models@1")
    write_benchmark(store, model, result(model))
    shown = json.loads(hir("push", "models@1", "me/small", "--plain", "--dry-run", "--json"))
    assert hub.requests == []
    text = hir("push", "models@1", "me/small", "--plain", "--dry-run")
    assert text.endswith(f"3 files, {sum(shown['files'].values()) / 1000:.1f} kB, for model me/small (private)\n"
                         "nothing was uploaded: leave --dry-run out\n")  # fmt: skip
    done = hir("push", "models@1", "me/small", "--plain")
    assert done == f"{model} is model me/small (private): {hub.url}/models/me/small/commit/{'1' * 40}\n"
    assert hub.private == {"models/me/small": True}
    sent = hub.files["models/me/small"]
    assert {name: len(content) for name, content in sent.items()} == shown["files"]
    card = sent["README.md"].decode()
    assert card == shown["card"]
    assert front_matter(card) == {"library_name": "transformers", "tags": ["hir", "hindsight-instruction-relabeling"]}
    for expected in (
        "> Be right.",
        "| 1 | 6 | judge |  | keep_correct | 0 |",
        "| sums | 9 | 0.500 | 0.250 to 0.750 | 0.125 |",
        '| t | acc (none) | 0.5000 | 0.2500 | 4 | 0 | under "Be [31m right." | 1 |'.replace(" [", " \x1b["),
        f"`{model}`",
        store.manifest(model).sha256[:16],
        "add it as `license`",
    ):
        assert expected in card
    hir("push", "models@1", "me/open", "--plain", "--public")
    assert not hub.private["models/me/open"]
    assert hir("push", "models@1", "me/small", "--plain") == done  # another commit of the same repository


def test_a_table_goes_up_with_its_columns(small_run, hub, tmp_path):  # noqa: F811
    hir("push", "prompts@0", "me/prompts")
    sent = hub.files["datasets/me/prompts"]
    assert sorted(sent) == ["README.md", "data/test.parquet", "data/train.parquet"]
    (tmp_path / "test.parquet").write_bytes(sent["data/test.parquet"])
    assert pl.read_parquet(tmp_path / "test.parquet")["query"].to_list() == ["2 + 2?"]
    assert "- 4 rows\n" in sent["README.md"].decode()
    assert "| `references` | All accepted answers; empty if none is known. |" in sent["README.md"].decode()
    for stage, schema in SCHEMAS.items():
        assert list(column_meanings(stage)) == schema.column_names()


def test_the_card_of_an_export_is_that_of_a_push(store):
    shown = json.loads(hir("push", "samples@1", "me/samples", "--dry-run", "--json"))
    hir("export", "samples@1", "out", "--to", "hf", "--card")
    assert Path("out/README.md").read_text() == shown["card"]
    shown = json.loads(hir("push", "models@1", "me/small", "--plain", "--dry-run", "--json"))
    hir("export", "models@1", "model", "--card")
    assert Path("model/README.md").read_text() == shown["card"]
    assert "--card is for models and for --to hf" in hir("export", "samples@1", "x", "--to", "csv", "--card", code=2)


def test_what_the_hub_refuses_is_one_message(small_run, hub, monkeypatch):  # noqa: F811
    call = ("push", "prompts@0", "me/prompts")
    hub.private["datasets/me/prompts"] = False
    assert "me/prompts is public already" in hir(*call, code=2)
    assert hub.files == {}
    for status, message in ((401, "does not know the token"), (403, "may not write there"), (422, "no (HTTP 422)")):
        hub.refusal = status
        assert message in hir(*call, code=2)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in hir(*call, code=2)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_STORED_TOKENS_PATH", "/nowhere")
    assert "the hub asks for a token" in hir(*call, code=2)
    assert "names no repository" in hir("push", "prompts@0", "prompts", code=2)


def test_nothing_that_goes_up_names_this_machine(store, tmp_path):
    for ref in store.versions():
        prepared = prepare(store, ref, tmp_path / f"out-{ref.stage}-{ref.id}", is_plain=True)
        content = b"".join(
            (tmp_path / f"out-{ref.stage}-{ref.id}" / name).read_bytes() for name in prepared.files
        ).decode(errors="replace")
        for secret in (str(tmp_path), "10.0.0.7", "JUDGE_KEY"):
            assert secret not in content, ref
    card = prepare(store, store.resolve("models@1"), tmp_path / "again", is_plain=True).card
    assert "It began with `secret-base`." in card
    assert "path: mine.jsonl" in card
    assert "base_model" not in front_matter(card)
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == {"hidden_size": 8}


def test_a_path_in_another_file_stops_the_upload(tmp_path):
    store = Store(tmp_path / "runs" / "odd")
    draft = store.draft(identity("models", 0, {}, []))
    (draft.path / "config.json").write_text(json.dumps({"quantization": {"file": f"{tmp_path}/runs/odd/x.json"}}))
    model = draft.commit()
    with pytest.raises(ConfigError, match=r"config.json would hold the path .*/runs/odd of this machine"):
        prepare(store, model, tmp_path / "out", is_plain=True)


def test_values_of_a_config_lose_paths_and_addresses():
    given = {"a": "/home/me/x.json", "b": ["~/y", "./z/w", "owner/name"], "url": "x", "c": "http://host/v1",
             "hub_token": "t", "d": {"headers": {}, "keep": 1.5}, "e": "What is 1/2?", "f": "/ is a slash"}  # fmt: skip
    assert public(given) == {
        "a": "x.json", "b": ["y", "w", "owner/name"], "c": "(an address)", "d": {"keep": 1.5}, "e": "What is 1/2?",
        "f": "/ is a slash",
    }  # fmt: skip


def test_an_upload_needs_no_more_than_a_folder(hub, tmp_path):  # noqa: F811
    (tmp_path / "README.md").write_text("---\ntags: [x]\n---\n")
    url = upload(tmp_path, "me/x", "dataset", is_public=False, message="first")
    assert url.startswith(hub.url)
    assert hub.private == {"datasets/me/x": True}
