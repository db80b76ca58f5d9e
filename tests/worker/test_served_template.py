"""The chat template of an exported model makes any server ask the model as its run did, token for token."""

import os
from pathlib import Path

import pytest
from chat_tokenizers import CHAT, MAY_THINK, build_chat_tokenizer
from finished_run import hir

from hir_core.errors import ConfigError
from hir_core.inspect import serve
from hir_core.modeling.models import fit_tokenizer
from hir_core.modeling.rendering import Renderer
from hir_core.worker.served_template import served_template

BEFORE = [{"role": "user", "content": "How many figs?"}, {"role": "assistant", "content": '3 "figs".\n{{ 1 }}'}]
INSTRUCTION = "Say \"it\" {well}, 'é' {{ 1 }} {% if %}\\n."
FORMS = {
    "chat": (None, CHAT, {}),
    "chat with a value": (None, MAY_THINK, {"enable_thinking": False}),
    "chat with values of all kinds": (None, "{{ rules }}" + CHAT, {"rules": {"a": [1, None, True, "é'"]}}),
    "lines": ("{history}{instruction}\n{query}\n", None, {}),
    "one question": ("{{ Q: {query} }}\n{instruction} 'A':\\n", None, {}),
}


def rendered(form):
    """The tokenizer of a form, and the renderer of its run."""
    template, chat_template, kwargs = FORMS[form]
    tokenizer = build_chat_tokenizer(chat_template) if chat_template else fit_tokenizer([INSTRUCTION] * 4, 400)
    return tokenizer, Renderer(tokenizer, template, template_kwargs=kwargs)


def tokens(tokenizer, turns):
    return tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]


@pytest.mark.parametrize("instruction", [INSTRUCTION, ""])
@pytest.mark.parametrize("form", FORMS)
def test_a_server_gives_the_model_the_tokens_that_its_run_gave_it(form, instruction):
    tokenizer, renderer = rendered(form)
    conversations = [[], BEFORE] if form != "one question" else [[]]
    expected = [renderer.prompt_ids(instruction, "And 17?", before) for before in conversations]
    tokenizer.chat_template = served_template(tokenizer, renderer, instruction)
    asked = [[*before, {"role": "user", "content": "And 17?"}] for before in conversations]
    assert [tokens(tokenizer, turns) for turns in asked] == expected
    if form == "one question":
        with pytest.raises(Exception, match="one question at a time"):
            tokens(tokenizer, [*BEFORE, *asked[0]])


def test_a_text_may_come_as_parts_and_only_the_last_turn_of_a_user_gets_the_instruction():
    parts = [{"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "17?"}]}]
    tokenizer, renderer = rendered("lines")
    expected = renderer.prompt_ids("Say it.", "And 17?")
    tokenizer.chat_template = served_template(tokenizer, renderer, "Say it.")
    assert tokens(tokenizer, parts) == expected
    tokenizer, renderer = rendered("chat")
    tokenizer.chat_template = served_template(tokenizer, renderer, "Say it.")
    shown = tokenizer.apply_chat_template([*parts, *BEFORE[1:]], tokenize=False)
    assert "Say it." not in shown
    shown = tokenizer.apply_chat_template(parts, tokenize=False)
    assert "[{'type': 'text', 'text': 'Say it.\\n\\n'}, {'type': 'text', 'text': 'And '}" in shown


def test_a_template_that_changes_the_text_is_refused():
    tokenizer = build_chat_tokenizer(CHAT.replace("message['content'] }}", "message['content'] | upper }}"))
    with pytest.raises(ConfigError, match="put it before each question"):
        served_template(tokenizer, Renderer(tokenizer, None), "Say it.")


def test_serve_prints_what_it_would_do_and_needs_an_installed_server(small_run, monkeypatch):
    monkeypatch.setattr(serve, "is_installed", lambda engine: engine == "vllm")
    monkeypatch.setattr(serve.shutil, "which", lambda name, path: f"/env/{name}")
    export, command = hir("serve", "small/models@2", "--print", "--port", "99", "--", "--dtype", "half").splitlines()
    version = small_run.resolve("models@2")
    folder = f"served/small-{version.id}"
    assert export == f"hir export small/{version} {folder} --with-instruction"
    assert command == (
        f"/env/vllm serve {folder} --host localhost --port 99 --served-model-name small-{version.id} --dtype half"
    )
    plain = hir("serve", "--print", "--plain", "--engine", "transformers").splitlines()
    assert plain[1] == f"/env/transformers serve {folder}-plain --host localhost --port 8000"
    assert not plain[0].endswith("--with-instruction")
    assert "pip install" in hir("serve", "--engine", "transformers", code=2)
    started = []
    monkeypatch.setattr(os, "execvp", lambda program, command: started.append((program, command)))
    hir("serve", "--plain", "--", "--dtype", "half")
    assert (Path(f"{folder}-plain") / "config.json").read_text() == "{}"
    assert [(program, command[-1]) for program, command in started] == [("/env/vllm", "half")]
