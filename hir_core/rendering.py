"""How texts become the tokens that a model reads: instruction and query (`Renderer`), or query and completion (`Pair`).

Reads a tokenizer; keeps no state. What is said to the model is data: text inside a query, an instruction or a
completion never becomes a control token, only the template's own text may. One function serves sampling and training
alike. Leaves padding and batching to `batches`, the samplers and the classifier.
"""

from __future__ import annotations

import re
from typing import Any

from hir_core.errors import ConfigError

PLAIN_TEMPLATE = "{instruction}\n{query}\n"
PLAIN_PAIR_TEMPLATE = "{query}\n{completion}"
_PLACEHOLDER = "\ue000instruction and query\ue001"
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

    Args:
        tokenizer: a `transformers` tokenizer.
        template: a format string with `{instruction}` and `{query}`, `chat`, or None for `chat` where the tokenizer has
            a chat template and plain lines where it has none.
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
        self._before, self._after = self._frame(ends_prompt)

    def prompt_ids(self, instruction: str, query: str) -> list[int]:
        """Token ids of the rendered prompt, ready for the model to continue (or, for an encoder, to read)."""
        values = {"instruction": instruction, "query": query}
        text = "{instruction}\n\n{query}" if self.template == "chat" else self.template
        # In one pass: a query that is about `{query}` stays as it is.
        filled = re.sub(r"\{(instruction|query)\}", lambda field: values[field[1]], text)
        return [*self._before, *self._spelling.data(filled), *self._after]

    def target_ids(self, output: str) -> list[int]:
        """Token ids of an output that was written, not sampled, with its end-of-sequence token."""
        return [*self._spelling.data(output), int(self.tokenizer.eos_token_id)]

    def text(self, ids: list[int]) -> str:
        """The text of generated tokens, control tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _frame(self, ends_prompt: bool) -> tuple[list[int], list[int]]:
        """What stands before and after the user's text: the chat template's own text, or the start and end tokens."""
        if self.template == "chat":
            turns = [{"role": "user", "content": _PLACEHOLDER}]
            framed = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            before, _, after = framed.partition(_PLACEHOLDER)
            return self._spelling.control(before), self._spelling.control(after)
        first = list(self.tokenizer.encode("", add_special_tokens=True))[:1]  # as the tokenizer itself opens a text
        opens = first if first == [self.tokenizer.bos_token_id] else []
        return opens, [self.tokenizer.eos_token_id] if ends_prompt else []


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
