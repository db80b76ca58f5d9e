"""The commands that use a trained model: `hir chat` talks with it, and `hir serve` starts a server for other programs.

Both ask it as its run did: in the same prompt format, and under the instruction for a correct answer. What a model
writes is escaped before it is printed. Nothing in the run is changed.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.options import INTERRUPTED, RUNS, AsJson, RunsDir, messages
from flows.terminal.formatting import clipped, printable, printable_lines, quantity
from hir_core.errors import ConfigError

if TYPE_CHECKING:
    from hir_core.inspect.chat import Chat

Model = Annotated[
    str | None, typer.Argument(help="A model, [RUN/]models@3 or [RUN/]models@latest, or a run; its newest if left out.")
]
QUESTION = "> "
CUT_OFF = " … (cut off after {}: see --max-new-tokens)"


def chat(
    model: Model = None,
    plain: Annotated[bool, typer.Option("--plain", help="Ask without the instruction of the run.")] = False,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 takes the likeliest token each time, as an evaluation does.")
    ] = 0.0,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer in tokens; that of an evaluation if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="For a temperature above 0.")] = 0,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Talk with a model in the terminal; in a pipe, every line is a question of its own."""
    from flows.terminal.progress_bar import StatusLine
    from hir_core.inspect.chat import Chat
    from hir_core.inspect.model_usage import model_usage
    from hir_core.store.references import find_model

    is_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    with messages(), _quiet_interrupt():
        store, ref = find_model(model, runs_dir)
        usage = model_usage(store, ref)
        talk = Chat(
            usage,
            temperature=temperature,
            max_new_tokens=max_new_tokens or usage.max_new_tokens,
            is_plain=plain,
            keeps_turns=is_terminal,
            seed=seed,
        )
        with closing(talk):
            if is_terminal:
                with StatusLine() as status_line:
                    status_line.update(f"loading {ref}")
                    talk.load()
                print(_description(str(ref), talk, temperature))
                _converse(talk)
            else:
                talk.load()
                _answer_lines(talk, as_json)


@contextmanager
def _quiet_interrupt() -> Iterator[None]:
    """Ends the command at Ctrl-C without a message: nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        print()
        raise typer.Exit(INTERRUPTED) from None


def _description(ref: str, talk: Chat, temperature: float) -> str:
    """How the model is asked, on two lines."""
    instruction = f'under "{clipped(talk.instruction, 60)}"' if talk.instruction else "without an instruction"
    drawing = f"temperature {temperature:g}" if temperature else "greedy"
    turns = "it reads the turns before" if talk.keeps_turns else "each question stands alone"
    return (
        f"{ref} · {talk.device} · {instruction}\n"
        f"{drawing} · at most {quantity(talk.max_new_tokens, 'token')} · {turns} · Ctrl-D ends"
    )


def _converse(talk: Chat) -> None:
    """Asks for questions and shows the answers until the input ends."""
    import readline  # noqa: F401 - lines can then be edited

    while True:
        try:
            question = input(QUESTION)
        except EOFError:
            print()
            return
        if question.strip():
            _show_answer(talk, question)


def _show_answer(talk: Chat, question: str) -> None:
    left_out, end = 0, None
    try:
        for piece in talk.ask(question):
            if piece.left_out != left_out:
                left_out = piece.left_out
                print(f"({quantity(left_out, 'earlier turn')} left out: the context has no room for more)")
            print(printable_lines(piece.text), end="", flush=True)
            end = piece.end
    except ConfigError as error:  # of this question: the next one may be answered
        print(f"error: {error}", file=sys.stderr)
        return
    print(CUT_OFF.format(quantity(talk.max_new_tokens, "token")) if end == "length" else "")


def _answer_lines(talk: Chat, as_json: bool) -> None:
    """Answers every line of standard input, each on its own."""
    is_answered = True
    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    for line in sys.stdin:
        if not (question := line.strip()):
            continue
        try:
            pieces = list(talk.ask(question))
        except ConfigError as error:  # of this question: its line of the output is empty
            is_answered = False
            print(f"error: {error}", file=sys.stderr)
            print(json.dumps({"query": question, "error": str(error)}) if as_json else "", flush=True)
            continue
        text = "".join(piece.text for piece in pieces)
        if as_json:
            row = {"query": question, "completion": text, "finish_reason": pieces[-1].end}
            print(json.dumps(row), flush=True)
        else:
            print(printable_lines(text), flush=True)
    if not is_answered:
        raise typer.Exit(ConfigError.exit_code)


def serve(
    model: Model = None,
    extra: Annotated[list[str] | None, typer.Argument(help="Arguments for the server itself, after --.")] = None,
    engine: Annotated[
        Literal["vllm", "transformers"] | None,
        typer.Option(help="The server; vllm if left out, where it is installed, else transformers."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address at which it listens; 0.0.0.0 for other machines.")
    ] = "localhost",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    plain: Annotated[bool, typer.Option("--plain", help="Ask without the instruction of the run.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Where the model is exported, once; served/RUN-ID if left out.")
    ] = None,
    is_only_printed: Annotated[bool, typer.Option("--print", help="Only print the commands.")] = False,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Start an OpenAI-compatible server, vLLM's or that of transformers, for a model."""
    from hir_core.inspect.model_export import export_model
    from hir_core.inspect.serve import check_installed, plan_server
    from hir_core.store.references import find_model

    with messages():
        if model is not None and model.startswith("-"):  # what stands after -- where no model is named
            extra, model = [model, *(extra or [])], None
        store, ref = find_model(model, runs_dir)
        served = plan_server(store, ref, engine=engine, host=host, port=port, is_plain=plain, folder=folder)
        if not is_only_printed:
            check_installed(served.engine)
        if not served.folder.exists():
            where = [] if runs_dir == RUNS else ["--runs-dir", str(runs_dir)]
            option = [] if plain else ["--with-instruction"]
            name = f"{store.run_dir.name}/{ref}"
            print(shown_command(["hir", "export", name, str(served.folder), *option, *where]))
            if not is_only_printed:
                served.folder.parent.mkdir(parents=True, exist_ok=True)
                export_model(store, ref, served.folder, with_instruction=not plain)
        command = [*served.command, *(extra or [])]
        print(shown_command(command), flush=True)
        if not is_only_printed:
            os.execvp(command[0], command)


def shown_command(command: list[str]) -> str:
    """A command as a line that a shell can run."""
    return printable(shlex.join(command))


COMMANDS = (chat, serve)
