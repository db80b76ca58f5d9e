"""`hir chat`: a model answers as it did in its run, piece by piece, and what it writes cannot act on the terminal."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from finished_run import commit
from typer.testing import CliRunner

from flows.cli import use
from flows.cli.app import app
from hir_core.config import ScratchModel
from hir_core.errors import ConfigError, VersionNotFound
from hir_core.inspect import chat as chat_module
from hir_core.inspect.chat import Chat, Piece
from hir_core.inspect.model_usage import model_usage
from hir_core.modeling import models
from hir_core.sampling.stop_texts import StopTexts
from hir_core.store.manifest import identity
from hir_core.store.references import find_model
from hir_core.store.store import Store
from hir_core.worker.chat import AnswerText, make_chat

TEXTS = ["how many plums do I have? 3 and nine, say it well\n" * 4]
CHAT_TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """A run with a random model, and an evaluation that says how it is asked."""
    store = Store(tmp_path_factory.mktemp("chat") / "runs" / "random")
    draft = store.draft(identity("models", 0, {"bf16": False}, []))
    tokenizer = models.fit_tokenizer(TEXTS, 400)
    tokenizer.chat_template = CHAT_TEMPLATE
    sizes = {"hidden_size": 32, "layers": 1, "heads": 2, "intermediate_size": 64, "context": 96}
    model = models.build_scratch(ScratchModel(type="scratch", **sizes), tokenizer, seed=3)
    model.save_pretrained(draft.path)
    tokenizer.save_pretrained(draft.path)
    version = draft.commit()
    asked = {"instruction": "Say it well.", "template": None, "max_new_tokens": 8, "stop": ["nine"]}
    prompts = commit(store, "prompts", 0, [], [])
    commit(store, "evaluations", 0, [prompts, version], [], asked)
    return store


def settings_of(store: Store, monkeypatch, **changes: Any) -> dict[str, Any]:
    """What the process of a chat is started with."""
    started = []
    monkeypatch.setattr(chat_module, "LimitedProcess", started.append)
    usage = model_usage(*find_model("random", store.run_dir.parent))
    Chat(usage, **{"max_new_tokens": usage.max_new_tokens} | changes)
    return json.loads(json.dumps(started[0].settings))


def answered(reply, query: str, history=()) -> list[dict[str, Any]]:
    pieces = [reply({"type": "ask", "query": query, "history": list(history)})]
    while pieces[-1]["end"] is None:
        pieces.append(reply({"type": "more"}))
    return pieces


def test_it_is_asked_as_in_its_run_and_the_oldest_turns_leave_a_full_context(store, monkeypatch):
    reply = make_chat(settings_of(store, monkeypatch))
    assert reply({"type": "load"}) == {"device": "cpu", "template": "chat", "keeps_turns": True}
    seen: list[list[int]] = []
    monkeypatch.setattr("hir_core.worker.chat.CausalDecoder.read", lambda self, ids: seen.extend(ids) or 1 / 0)
    turns = [{"role": role, "content": f"{n} plums"} for n in range(9) for role in ("user", "assistant")]
    for history in ([], turns):
        with pytest.raises(ZeroDivisionError):
            answered(reply, "how many?", history)
    tokenizer = models.load_tokenizer(settings_of(store, monkeypatch)["model"]["source"])
    texts = [tokenizer.decode(ids) for ids in seen]
    assert texts[0] == "<user>Say it well.\n\nhow many?\n<assistant>"
    assert texts[1].endswith("<user>8 plums\n<assistant>8 plums\n<user>Say it well.\n\nhow many?\n<assistant>")
    pair = len(tokenizer.encode("<user>8 plums\n<assistant>8 plums\n"))
    assert 96 - 8 - pair < len(seen[1]) <= 96 - 8
    with pytest.raises(ConfigError, match="which with 8 new tokens is more than the model's context of 96"):
        answered(reply, "how many? " * 50)


def test_the_pieces_make_the_whole_answer_and_a_plain_question_has_no_instruction(store, monkeypatch):
    reply = make_chat(settings_of(store, monkeypatch, is_plain=True, max_new_tokens=20, temperature=1.0))
    reply({"type": "load"})
    for n in range(5):
        pieces = answered(reply, f"how many plums? {n}")
        text = "".join(piece["text"] for piece in pieces)
        assert (text, "nine" in text) == (pieces[-1]["answer"], False)
        assert len(pieces) == 20 or pieces[-1]["end"] in ("eos", "stop")
    assert settings_of(store, monkeypatch, is_plain=True)["instruction"] == ""


def test_an_exported_model_asks_with_the_instruction(store, tmp_path):
    call = ["export", "random/models@0", str(tmp_path / "out"), "--runs-dir", str(store.run_dir.parent)]
    done = CliRunner().invoke(app, [*call, "--with-instruction"])
    assert done.stdout.endswith('its chat template puts "Say it well." before a question\n'), done.output
    exported = models.load_tokenizer(str(tmp_path / "out"))
    asked = [{"role": "user", "content": "how many?"}]
    shown = exported.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert shown == "<user>Say it well.\n\nhow many?\n<assistant>"
    done = CliRunner().invoke(app, ["export", "random/prompts@0", *call[2:], "--with-instruction"])
    assert "--with-instruction is for models only" in done.stderr


class Letters:
    """A renderer whose tokens are the bytes of a text."""

    thinking = None

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")


def test_half_a_character_and_what_may_become_a_stop_text_wait_for_the_next_token():
    stop = StopTexts(["END"], Letters().decode)
    text = AnswerText(Letters(), stop, "")  # type: ignore[arg-type]
    written = " é EN, é  \n z END".encode()
    pieces = [text.added(written[: n + 1], is_last=n + 1 == len(written)) for n in range(len(written))]
    assert "".join(pieces) == "é EN, é  \n z"
    assert pieces[:3] == ["", "", ""]
    assert not any("\ufffd" in piece for piece in pieces)


class Scripted:
    """A chat whose answers are given."""

    instruction, device, keeps_turns, max_new_tokens = "Be good.", "cpu", True, 5

    def __init__(self, *_: object, **__: object) -> None: ...

    def load(self) -> None: ...

    def close(self) -> None: ...

    def ask(self, query: str) -> Iterator[Piece]:
        if query == "too long":
            raise ConfigError("the question has 99 tokens")
        yield Piece("red \x1b[31m", None, 2)
        yield Piece(f"\n{query}\u202e", "length", 2)


@pytest.fixture
def scripted(store, monkeypatch) -> Path:
    monkeypatch.setattr(chat_module, "Chat", Scripted)
    return store.run_dir.parent


def test_in_a_pipe_every_line_is_answered_and_nothing_acts_on_the_terminal(scripted):
    call = ["chat", "--runs-dir", str(scripted)]
    done = CliRunner().invoke(app, call, input="a\n\n b\n")
    assert (done.exit_code, done.stdout) == (0, "red \\x1b[31m\na\\u202e\nred \\x1b[31m\nb\\u202e\n")
    done = CliRunner().invoke(app, call, input="too long\na\n")
    assert (done.exit_code, done.stdout) == (2, "\nred \\x1b[31m\na\\u202e\n")
    assert done.stderr == "error: the question has 99 tokens\n"
    done = CliRunner().invoke(app, [*call, "--json"], input="a\n")
    assert json.loads(done.stdout) == {
        "query": "a", "completion": "red \x1b[31m\na\u202e", "finish_reason": "length"
    }  # fmt: skip
    assert "\x1b" not in done.stdout


def test_in_a_terminal_a_question_that_is_too_long_ends_nothing_and_ctrl_c_ends_it(scripted, monkeypatch, capsys):
    typed = iter(["too long", "", "a"])

    def read(_: str) -> str:
        if (line := next(typed, None)) is None:
            raise KeyboardInterrupt
        return line

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", screen)
    with pytest.raises(use.typer.Exit) as end:
        use.chat(runs_dir=scripted)
    assert end.value.exit_code == 130
    assert capsys.readouterr().err == "error: the question has 99 tokens\n"
    shown = screen.getvalue()
    assert "models/0000-" in shown
    assert 'under "Be good."' in shown
    assert shown.endswith(
        "(2 earlier turns left out: the context has no room for more)\n"
        "red \\x1b[31m\na\\u202e … (cut off after 5 tokens: see --max-new-tokens)\n\n"
    )


def test_what_is_no_model_or_was_not_evaluated_is_said(store):
    runs = store.run_dir.parent
    with pytest.raises(VersionNotFound, match="is no model: expected models@iteration"):
        find_model("random/evaluations@0", runs)
    draft = store.draft(identity("models", 1, {"bf16": False}, []))
    (draft.path / "config.json").write_text("{}")
    version = draft.commit()
    assert find_model(None, runs)[1] == version
    with pytest.raises(VersionNotFound, match="has no evaluation yet"):
        model_usage(store, version)
