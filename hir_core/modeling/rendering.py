"""How texts become the tokens that a model reads: instruction and query (`Renderer`), or query and completion (`Pair`).

Reads a tokenizer and changes nothing. What is said to the model is data: text inside a turn, a query, an instruction or
a completion never becomes a control token, only the template's own text may. One function serves sampling and training
alike. Leaves padding and batching to `batches`, the samplers and the classifier.
"""

from __future__ import annotations

import re
from typing import Any

import jinja2

from hir_core.errors import ConfigError
from hir_core.schemas import History, as_lines

PLAIN_TEMPLATE = "{history}{instruction}\n{query}\n"
_OF_TEMPLATES = (TypeError, ValueError, LookupError, ArithmeticError, RecursionError)
"""What else a template can raise, which is a program of its author's."""
_FIELD = re.compile(r"\{(instruction|query|history)\}")
_PLACE = re.compile("\ue000([0-9]+)\ue001")
_Frame = tuple[list[int], list[tuple[int, list[int]]]]
"""A chat template's own tokens: those that open the prompt, and the number of each turn with those that follow it."""
PLAIN_PAIR_TEMPLATE = "{query}\n{completion}"
_QUERY, _COMPLETION = "\ue000query\ue001", "\ue000completion\ue001"


class Spelling:
    """A tokenizer that knows what is said (`data`) from what commands (`control`)."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        self.controls = {*tokenizer.all_special_ids, *(n for n, token in added if token.special)}
        self.controls.discard(tokenizer.unk_token_id)

    def data(self, text: str) -> list[int]:
        """Token ids of a text, none of which is a control token, whatever the text holds."""
        ids = list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
        if self.controls.isdisjoint(ids):
            return ids
        # A Unigram model, as T5's, has its control tokens among its pieces and finds them in plain text: spell them.
        return [part for token in ids for part in (self._spelled(token) if token in self.controls else [token])]

    def control(self, text: str) -> list[int]:
        """Token ids of a template's own text."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _spelled(self, control: int) -> list[int]:
        letters = self.tokenizer.convert_ids_to_tokens(control)
        return [part for letter in letters for part in self.tokenizer.encode(letter, add_special_tokens=False)]


class Renderer:
    """Turns (instruction, query) into prompt ids, and an output's text into target ids.

    The instruction stands in the last user turn, before the query; the turns before that one stay as they are.

    Args:
        tokenizer: a `transformers` tokenizer.
        template: a format string with `{instruction}` and `{query}`, and `{history}` for the turns before the query as
            lines like `User: …`; `chat`; or None for `chat` where the tokenizer has a chat template and plain lines
            where it has none.
        ends_prompt: whether a prompt closes with the end-of-sequence token, as encoders are trained to expect.

    Raises:
        ConfigError: the template lacks a field, or asks for a chat template that the tokenizer does not have.
    """

    def __init__(self, tokenizer: Any, template: str | None, *, ends_prompt: bool = False) -> None:
        self.tokenizer, self._spelling = tokenizer, Spelling(tokenizer)
        self.template = template or ("chat" if tokenizer.chat_template else PLAIN_TEMPLATE)
        if tokenizer.eos_token_id is None:
            raise ConfigError("the model's tokenizer has no end-of-sequence token: no output could ever end")
        if self.template == "chat" and not tokenizer.chat_template:
            raise ConfigError("model.template is `chat`, but the tokenizer has no chat template: give a format string")
        if self.template != "chat" and not all(field in self.template for field in ("{instruction}", "{query}")):
            raise ConfigError(f"model.template {self.template!r} needs both {{instruction}} and {{query}}")
        first = list(tokenizer.encode("", add_special_tokens=True))[:1]  # as the tokenizer itself opens a text
        self._opening = first if first == [tokenizer.bos_token_id] else []
        self._closing = [tokenizer.eos_token_id] if ends_prompt else []
        self._frames: dict[tuple[str, ...], _Frame] = {}

    def prompt_ids(
        self, instruction: str, query: str, history: History | None = None, *, of: str = "a prompt"
    ) -> list[int]:
        """Token ids of the rendered prompt, ready for the model to continue (or, for an encoder, to read).

        Args:
            history: the turns before the query, where there are any.
            of: whose prompt it is, for messages.

        Raises:
            ConfigError: the template refuses turns of these roles, shows not all of them, or has no place for them.
        """
        history = history or ()
        if self.template == "chat":
            said = [*(turn["content"] for turn in history), f"{instruction}\n\n{query}"]
            opening, places = self._frame((*(turn["role"] for turn in history), "user"), of)
            return [*opening, *(token for n, after in places for token in (*self._spelling.data(said[n]), *after))]
        if history and "{history}" not in self.template:
            raise ConfigError(
                f"{of} has {len(history)} turn(s) before its query, for which model.template {self.template!r} has no "
                f"place: add {{history}}, or use `chat` with a tokenizer that has a chat template"
            )
        values = {"instruction": instruction, "query": query, "history": as_lines(history)}
        # In one pass: a query that is about `{query}` stays as it is.
        filled = _FIELD.sub(lambda field: values[field[1]], self.template)
        return [*self._opening, *self._spelling.data(filled), *self._closing]

    def target_ids(self, output: str) -> list[int]:
        """Token ids of an output that was written, not sampled, with its end-of-sequence token."""
        return [*self._spelling.data(output), int(self.tokenizer.eos_token_id)]

    def text(self, ids: list[int]) -> str:
        """The text of generated tokens, control tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _frame(self, roles: tuple[str, ...], of: str) -> _Frame:
        """What the chat template puts around turns of these roles; it never sees what they say."""
        if roles not in self._frames:
            own, places = self._taken_apart(roles, of)
            opening, *following = map(self._spelling.control, own)
            self._frames[roles] = opening, list(zip(places, following, strict=True))
        return self._frames[roles]

    def _taken_apart(self, roles: tuple[str, ...], of: str) -> tuple[list[str], list[int]]:
        """The template's text before, between and after the turns, and the turns' numbers in the order they come in."""
        turns = [{"role": role, "content": f"\ue000{n}\ue001"} for n, role in enumerate(roles)]
        instead = "change the turns, or give model.template a format string with {history}"
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except (jinja2.TemplateError, *_OF_TEMPLATES) as error:  # how templates refuse roles, or their order
            named = ", ".join(roles)
            raise ConfigError(
                f"{of}: the tokenizer's chat template refuses turns of {named}: {error}: {instead}"
            ) from None
        places = [int(n) for n in _PLACE.findall(text)]
        if wrong := [f"{n + 1} ({role})" for n, role in enumerate(roles) if places.count(n) != 1]:
            raise ConfigError(
                f"{of}: the tokenizer's chat template leaves out, or repeats, turn {' and '.join(wrong)}: {instead}"
            )
        return _PLACE.split(text)[::2], places


class Pair:
    """Turns a query and its completion into the tokens of one text, for a classifier.

    Args:
        template: a format string with `{completion}`, and `{query}` where it helps, `chat` for a turn of the user and
            one of the assistant, or None for `chat` where the tokenizer has a chat template and else plain lines.

    Raises:
        ConfigError: the template is `chat`, and the tokenizer has none, or one that does not show both turns.
    """

    def __init__(self, tokenizer: Any, template: str | None) -> None:
        self.tokenizer, self._spelling = tokenizer, Spelling(tokenizer)
        self.template = template or ("chat" if tokenizer.chat_template else PLAIN_PAIR_TEMPLATE)
        self._before, self._between, self._after = self._frame()

    @property
    def free_controls(self) -> list[int]:
        """Control tokens that stand in no text, from the smallest: any of them can fill up a row."""
        return sorted(self._spelling.controls - {*self._before, *self._between, *self._after})

    def ids(self, query: str, completion: str) -> list[int]:
        """Token ids of the rendered text."""
        values, data = {"query": query, "completion": completion}, self._spelling.data
        if self.template == "chat":
            return [*self._before, *data(query), *self._between, *data(completion), *self._after]
        filled = re.sub(r"\{(query|completion)\}", lambda field: values[field[1]], self.template)
        return [*self._before, *data(filled), *self._after]

    def _frame(self) -> tuple[list[int], list[int], list[int]]:
        """What stands before, between and after the user's texts, as the chat template or the tokenizer has it."""
        if self.template != "chat":
            bare, framed = (self.tokenizer.encode("a", add_special_tokens=is_framed) for is_framed in (False, True))
            start = next(n for n in range(len(framed)) if framed[n : n + len(bare)] == bare)
            return list(framed[:start]), [], list(framed[start + len(bare) :])
        if not self.tokenizer.chat_template:
            raise ConfigError("reward.template is `chat`, but the tokenizer has no chat template: give a format string")
        turns = [{"role": "user", "content": _QUERY}, {"role": "assistant", "content": _COMPLETION}]
        framed = self.tokenizer.apply_chat_template(turns, tokenize=False)
        if [framed.count(text) for text in (_QUERY, _COMPLETION)] != [1, 1]:
            raise ConfigError(
                "reward.template is `chat`, but the tokenizer's chat template does not show both turns once: "
                "give a format string with {query} and {completion}"
            )
        before, _, rest = framed.partition(_QUERY)
        between, _, after = rest.partition(_COMPLETION)
        before_ids, between_ids, after_ids = map(self._spelling.control, (before, between, after))
        return before_ids, between_ids, after_ids
