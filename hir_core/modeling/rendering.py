"""Rendering of texts as tokens: instruction and query for a policy (`Renderer`), query and completion for a classifier.

Reads a tokenizer and changes nothing. Turns, queries, instructions and completions are data: no text in them becomes a
control token; only the template's own text may. Sampling and training render prompts with the same function. Running a
chat template is left to `chat_templates`, padding and batching to `training.batches`, the sampling engines and
`worker.reward_model`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from hir_core.config.model import ModelConfig, Thinking, rendering
from hir_core.errors import ConfigError
from hir_core.modeling import chat_templates
from hir_core.schemas import History, as_lines

PLAIN_TEMPLATE = "{history}{instruction}\n{query}\n"
PLAIN_PAIR_TEMPLATE = "{query}\n{completion}"
MOST_AFTER_MARK = 8
"""Tokens of white space that a prompt may have after the mark that starts thinking."""
_FIELD = re.compile(r"\{(instruction|query|history)\}")
_INSTRUCTION = re.compile(r"\{instruction\}\s*")
_TURN = re.compile("\ue000([0-9]{1,6})\ue001")
"""What a chat template is given instead of the text of turn n, to see where it puts that text."""
_QUERY, _COMPLETION = "\ue000query\ue001", "\ue000completion\ue001"
_Frame = tuple[list[int], list[tuple[int, list[int]]]]
"""A chat template's own tokens: those before the first turn, and for each turn its number and the tokens after it."""


class SafeTokenizer:
    """A tokenizer that encodes data without control tokens, and templates with them."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        self.control_ids = {*tokenizer.all_special_ids, *(n for n, token in added if token.special)}
        self.control_ids.discard(tokenizer.unk_token_id)

    def encode_data(self, text: str) -> list[int]:
        """Token ids of a text, none of which is a control token, whatever the text is."""
        ids = list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
        if self.control_ids.isdisjoint(ids):
            return ids
        # A Unigram model such as T5's has its control tokens among its pieces and finds them in plain text: their
        # names are encoded letter by letter.
        data_ids: list[int] = []
        for token_id in ids:
            if token_id in self.control_ids:
                for letter in self.tokenizer.convert_ids_to_tokens(token_id):
                    data_ids += self.tokenizer.encode(letter, add_special_tokens=False)
            else:
                data_ids.append(token_id)
        return data_ids

    def encode_template(self, text: str) -> list[int]:
        """Token ids of a template's own text."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))


class Renderer:
    """Turns an instruction and a query into prompt ids, and an output's text into target ids.

    The instruction is put into the last user turn, before the query; earlier turns are rendered unchanged. Without an
    instruction the turn is the query alone; in a format string, the white space after `{instruction}` goes with it.

    Args:
        tokenizer: a `transformers` tokenizer.
        template: a format string with `{instruction}` and `{query}`, and `{history}` for the turns before the query as
            lines like `User: …`; or `chat`; or None: `chat` where the tokenizer has a chat template, else plain lines.
        ends_prompt: whether a prompt ends with the end-of-sequence token, as encoders are trained to expect.
        template_kwargs: values for the variables that the chat template reads beside the turns.
        thinking: the marks around the model's thinking; None: it has none.

    Raises:
        ConfigError: the template lacks a field, or asks for a chat template that the tokenizer does not have; or a
            value is given that the chat template does not read.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str | None,
        *,
        ends_prompt: bool = False,
        template_kwargs: Mapping[str, Any] = MappingProxyType({}),
        thinking: Thinking | None = None,
    ) -> None:
        self.tokenizer, self._safe = tokenizer, SafeTokenizer(tokenizer)
        self.template_kwargs, self.thinking = template_kwargs, thinking
        self.template = template or ("chat" if tokenizer.chat_template else PLAIN_TEMPLATE)
        if tokenizer.eos_token_id is None:
            raise ConfigError("the model's tokenizer has no end-of-sequence token: no output could ever end")
        if self.template == "chat" and not tokenizer.chat_template:
            raise ConfigError("model.template is `chat`, but the tokenizer has no chat template: give a format string")
        if self.template != "chat" and not all(field in self.template for field in ("{instruction}", "{query}")):
            raise ConfigError(f"model.template {self.template!r} needs both {{instruction}} and {{query}}")
        first = list(tokenizer.encode("", add_special_tokens=True))[:1]  # the tokenizer itself may start with BOS
        self._opening = first if first == [tokenizer.bos_token_id] else []
        self._closing = [tokenizer.eos_token_id] if ends_prompt else []
        self._frames: dict[tuple[str, ...], _Frame | str] = {}
        self._check_template_kwargs()
        marks = (thinking.start, thinking.end) if thinking else ()
        ids = {tokenizer.convert_tokens_to_ids(mark): mark for mark in marks}
        self._control_marks = {token_id: mark for token_id, mark in ids.items() if token_id in self._safe.control_ids}
        """Marks that are control tokens: the only ones of these that have a text."""

    def _check_template_kwargs(self) -> None:
        if self.template_kwargs and self.template != "chat":
            raise ConfigError(
                f"model.chat_template_kwargs: prompts are rendered with the format string {self.template!r}, which "
                "takes none: remove it, or set model.template to `chat`"
            )
        for name in self.template_kwargs:
            if not re.search(rf"\b{re.escape(name)}\b", str(self.tokenizer.chat_template)):
                raise ConfigError(
                    f"model.chat_template_kwargs: the tokenizer's chat template reads no variable `{name}`: correct "
                    "the name, or remove it"
                )

    def prompt_ids(
        self, instruction: str, query: str, history: History | None = None, *, of: str = "a prompt"
    ) -> list[int]:
        """Token ids of the rendered prompt, ready for the model to continue (or, for an encoder, to read).

        Args:
            instruction: empty where the query stands alone.
            history: the turns before the query, where there are any.
            of: the row whose prompt it is, for messages.

        Raises:
            ConfigError: the template refuses turns of these roles, leaves some out, or has no place for them.
        """
        history = history or ()
        if self.template == "chat":
            asked = f"{instruction}\n\n{query}" if instruction else query
            return self._chat_ids([*history, {"role": "user", "content": asked}], of)
        if history and "{history}" not in self.template:
            raise ConfigError(
                f"{of} has {len(history)} turn(s) before its query, for which model.template {self.template!r} has no "
                f"place: add {{history}}, or use `chat` with a tokenizer that has a chat template"
            )
        values = {"instruction": instruction, "query": query, "history": as_lines(history)}
        # In one pass, so that a query with the text `{query}` in it stays as it is.
        template = self.template if instruction else _INSTRUCTION.sub("", self.template)
        filled = _FIELD.sub(lambda field: values[field[1]], template)
        return [*self._opening, *self._safe.encode_data(filled), *self._closing]

    def target_ids(self, output: str) -> list[int]:
        """Token ids of an output that exists as text only, such as a demonstration, with the end-of-sequence token."""
        return [*self._safe.encode_data(output), int(self.tokenizer.eos_token_id)]

    @property
    def silent_ids(self) -> set[int]:
        """The tokens that have no text: control tokens, but the marks of thinking."""
        return self._safe.control_ids - self._control_marks.keys()

    def decode(self, ids: list[int]) -> str:
        """The text of sampled tokens, without control tokens; the marks of thinking stay."""
        pieces, start = [], 0
        for n, token_id in enumerate(ids):
            if token_id in self._control_marks:
                pieces += [self._without_control(ids[start:n]), self._control_marks[token_id]]
                start = n + 1
        return "".join([*pieces, self._without_control(ids[start:])])

    def _without_control(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def opened_thinking(self, prompt_ids: Sequence[int]) -> str:
        """The start mark of thinking, on a line, where the prompt ends with it; else an empty text.

        An output of such a prompt begins within thinking, which nothing in its own tokens says.
        """
        if self.thinking is None:
            return ""
        end = self.decode(list(prompt_ids[-(len(self.thinking.start.encode()) + MOST_AFTER_MARK) :])).rstrip()
        return f"{self.thinking.start}\n" if end.endswith(self.thinking.start) else ""

    def _chat_ids(self, turns: Sequence[Mapping[str, str]], of: str) -> list[int]:
        """Token ids of the turns in the chat template.

        Where it has no place for a system turn before one of the user, as that of Gemma 2, the system turn's text
        stands at the beginning of the user's, with a blank line between them.
        """
        frame = self._frame(tuple(turn["role"] for turn in turns))
        if isinstance(frame, str) and [turn["role"] for turn in turns[:2]] == ["system", "user"]:
            merged = f"{turns[0]['content']}\n\n{turns[1]['content']}"
            merged_turns = [{"role": "user", "content": merged}, *turns[2:]]
            other = self._frame(tuple(turn["role"] for turn in merged_turns))
            if not isinstance(other, str):
                frame, turns = other, merged_turns
        if isinstance(frame, str):
            raise ConfigError(
                f"{of}: {frame}: change the turns, or give model.template a format string with {{history}}"
            )
        opening, places = frame
        ids = list(opening)
        for n, following in places:
            ids += [*self._safe.encode_data(turns[n]["content"]), *following]
        return ids

    def _frame(self, roles: tuple[str, ...]) -> _Frame | str:
        """The chat template's tokens around turns of these roles, or why it has none.

        The template never sees the turns' texts, and is asked once for the same roles.
        """
        if roles not in self._frames:
            self._frames[roles] = self._made_frame(roles)
        return self._frames[roles]

    def _made_frame(self, roles: tuple[str, ...]) -> _Frame | str:
        turns = [{"role": role, "content": f"\ue000{n}\ue001"} for n, role in enumerate(roles)]
        try:
            text = chat_templates.render(self.tokenizer, turns, add_generation_prompt=True, kwargs=self.template_kwargs)
        except ConfigError as error:
            return f"the tokenizer's chat template refuses turns of {', '.join(roles)}: {error}"
        order = [int(n) for n in _TURN.findall(text)]
        wrong = [f"{n + 1} ({role})" for n, role in enumerate(roles) if order.count(n) != 1]
        wrong += [f"{n + 1} (which there is not)" for n in sorted({*order}) if n >= len(roles)]
        if wrong:
            return f"the tokenizer's chat template leaves out, or repeats, turn {' and '.join(wrong[:4])}"
        opening, *following = map(self._safe.encode_template, _TURN.split(text)[::2])
        return opening, list(zip(order, following, strict=True))


def renderer_of(model: ModelConfig, tokenizer: Any, *, ends_prompt: bool) -> Renderer:
    """The renderer of a run's model; arguments as for `Renderer`."""
    template, kwargs, thinking = rendering(model)
    return Renderer(tokenizer, template, ends_prompt=ends_prompt, template_kwargs=kwargs, thinking=thinking)


class PairRenderer:
    """Turns a query and its completion into the tokens of one text, for a classifier.

    Args:
        tokenizer: a `transformers` tokenizer.
        template: a format string with `{completion}`, and `{query}` where it helps; or `chat`: a turn of the user and
            one of the assistant; or None: `chat` where the tokenizer has a chat template, else plain lines.

    Raises:
        ConfigError: the template is `chat`, and the tokenizer has none, or one that does not show both turns.
    """

    def __init__(self, tokenizer: Any, template: str | None) -> None:
        self.tokenizer, self._safe = tokenizer, SafeTokenizer(tokenizer)
        self.template = template or ("chat" if tokenizer.chat_template else PLAIN_PAIR_TEMPLATE)
        self._before, self._between, self._after = self._frame()

    @property
    def unused_control_ids(self) -> list[int]:
        """Ids of control tokens that occur in no rendered text, in ascending order: any of them can pad a row."""
        return sorted(self._safe.control_ids - {*self._before, *self._between, *self._after})

    def ids(self, query: str, completion: str) -> list[int]:
        """Token ids of the rendered text."""
        values, encode = {"query": query, "completion": completion}, self._safe.encode_data
        if self.template == "chat":
            return [*self._before, *encode(query), *self._between, *encode(completion), *self._after]
        filled = re.sub(r"\{(query|completion)\}", lambda field: values[field[1]], self.template)
        return [*self._before, *encode(filled), *self._after]

    def _frame(self) -> tuple[list[int], list[int], list[int]]:
        """The tokens of the chat template, or of the tokenizer, before, between and after query and completion."""
        if self.template != "chat":
            bare, framed = (self.tokenizer.encode("a", add_special_tokens=is_framed) for is_framed in (False, True))
            start = next(n for n in range(len(framed)) if framed[n : n + len(bare)] == bare)
            return list(framed[:start]), [], list(framed[start + len(bare) :])
        if not self.tokenizer.chat_template:
            raise ConfigError("reward.template is `chat`, but the tokenizer has no chat template: give a format string")
        turns = [{"role": "user", "content": _QUERY}, {"role": "assistant", "content": _COMPLETION}]
        remedy = "give a format string with {query} and {completion}"
        try:
            framed = chat_templates.render(self.tokenizer, turns, add_generation_prompt=False)
        except ConfigError as error:
            raise ConfigError(
                "reward.template is `chat`, but the tokenizer's chat template refuses a turn of the user and one of "
                f"the assistant: {error}: {remedy}"
            ) from None
        if [framed.count(text) for text in (_QUERY, _COMPLETION)] != [1, 1]:
            raise ConfigError(
                f"reward.template is `chat`, but the tokenizer's chat template does not show both turns once: {remedy}"
            )
        before, _, rest = framed.partition(_QUERY)
        between, _, after = rest.partition(_COMPLETION)
        before_ids, between_ids, after_ids = map(self._safe.encode_template, (before, between, after))
        return before_ids, between_ids, after_ids
