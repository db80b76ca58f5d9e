"""A conversation with a model version, for `hir chat`: questions to the process that holds the model, and its answers.

Starts `worker.chat` in a process of `time_limit`, which ends with this one at the latest. Keeps the turns; what of them
the model reads, and when an answer ends, is up to that process. What is shown of an answer is up to the caller, who
escapes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from hir_core.errors import JobFailed
from hir_core.inspect.model_usage import ModelUsage
from hir_core.time_limit import LimitedProcess, Work

LOAD_LIMIT_S = 1800.0
"""Seconds that a model may take to be loaded."""
TOKEN_LIMIT_S = 600.0
"""Seconds that the prompt and the first token may take, and each further token."""


class Piece(NamedTuple):
    """What an answer gains."""

    text: str
    """What was drawn, which may hold anything."""
    end: str | None
    """Why the answer has ended, `eos`, `stop` or `length`; None while it has not."""
    left_out: int
    """Turns before the question that the model did not read, for lack of room."""


class Chat:
    """A model version in a process of its own, and the turns so far; `load` comes first.

    Args:
        usage: how the model is asked.
        temperature: 0 draws the likeliest token each time.
        max_new_tokens: of an answer.
        is_plain: whether questions are asked without the instruction.
        keeps_turns: whether a question is asked after those before it, where the prompt has a place for them.

    Raises:
        HirError: the process does not start.
    """

    def __init__(
        self,
        usage: ModelUsage,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        is_plain: bool = False,
        keeps_turns: bool = True,
        seed: int = 0,
    ) -> None:
        self.instruction = "" if is_plain else usage.instruction
        self.max_new_tokens, self.keeps_turns, self.device = max_new_tokens, keeps_turns, ""
        self._has_conversations, self._turns = usage.has_conversations, list[dict[str, str]]()
        settings = {
            "model": usage.model.model_dump(mode="json"),
            "adapter": usage.adapter and usage.adapter.model_dump(mode="json"),
            "bf16": usage.bf16,
            "instruction": self.instruction,
            "stop": usage.stop,
            "temperature": temperature,
            "max_new_tokens": max_new_tokens,
            "seed": seed,
        }
        self._process = LimitedProcess(Work("hir_core.worker.chat:make_chat", settings))

    def load(self) -> None:
        """Loads the model; then `device` and `keeps_turns` are known.

        Raises:
            HirError: the model cannot be loaded.
        """
        loaded = self._reply({"type": "load"}, LOAD_LIMIT_S)
        self.device = loaded["device"]
        # Plain lines have a place for earlier turns, too, but only a model that was trained on some can read them.
        can_read_turns = loaded["template"] == "chat" or self._has_conversations
        self.keeps_turns = self.keeps_turns and loaded["keeps_turns"] and can_read_turns

    def ask(self, query: str) -> Iterator[Piece]:
        """The answer to a question, piece by piece.

        Raises:
            ConfigError: the question is too long, or the chat template refuses it; the next one can be asked.
            HirError: the process can answer no more.
        """
        piece = self._reply({"type": "ask", "query": query, "history": self._turns}, TOKEN_LIMIT_S)
        yield _piece(piece)
        while piece["end"] is None:
            piece = self._reply({"type": "more"}, TOKEN_LIMIT_S)
            yield _piece(piece)
        if self.keeps_turns:
            self._turns += [{"role": "user", "content": query}, {"role": "assistant", "content": piece["answer"]}]

    def close(self) -> None:
        """Ends the process."""
        self._process.end(0)

    def _reply(self, message: dict[str, Any], limit_s: float) -> Any:
        result = self._process.process(message, limit_s)
        if result.problem:
            raise JobFailed(f"the process that holds the model {result.problem}: memory may have run out")
        return result.value


def _piece(reply: dict[str, Any]) -> Piece:
    return Piece(reply["text"], reply["end"], reply["left_out"])
