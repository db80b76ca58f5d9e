"""How an instruction and a query become the tokens that a model reads: one function for sampling and training alike.

Reads a tokenizer; keeps no state. What is said to the model is data: text inside a query or an instruction never
becomes a control token, only the template's own text may. Leaves padding and batching to `batches` and the samplers.
"""

from __future__ import annotations

import re
from typing import Any

from hir_core.errors import ConfigError

PLAIN_TEMPLATE = "{instruction}\n{query}\n"
_PLACEHOLDER = "\ue000instruction and query\ue001"


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
        self.tokenizer = tokenizer
        self.template = template or ("chat" if tokenizer.chat_template else PLAIN_TEMPLATE)
        if tokenizer.eos_token_id is None:
            raise ConfigError("the model's tokenizer has no end-of-sequence token: no output could ever end")
        if self.template == "chat" and not tokenizer.chat_template:
            raise ConfigError("model.template is `chat`, but the tokenizer has no chat template: give a format string")
        if self.template != "chat" and not all(field in self.template for field in ("{instruction}", "{query}")):
            raise ConfigError(f"model.template {self.template!r} needs both {{instruction}} and {{query}}")
        added = tokenizer.added_tokens_decoder.items()
        self._controls = {*tokenizer.all_special_ids, *(n for n, token in added if token.special)}
        self._controls.discard(tokenizer.unk_token_id)
        self._before, self._after = self._frame(ends_prompt)

    def prompt_ids(self, instruction: str, query: str) -> list[int]:
        """Token ids of the rendered prompt, ready for the model to continue (or, for an encoder, to read)."""
        values = {"instruction": instruction, "query": query}
        text = "{instruction}\n\n{query}" if self.template == "chat" else self.template
        # In one pass: a query that is about `{query}` stays as it is.
        filled = re.sub(r"\{(instruction|query)\}", lambda field: values[field[1]], text)
        return [*self._before, *self._data(filled), *self._after]

    def target_ids(self, output: str) -> list[int]:
        """Token ids of an output that was written, not sampled, with its end-of-sequence token."""
        return [*self._data(output), int(self.tokenizer.eos_token_id)]

    def text(self, ids: list[int]) -> str:
        """The text of generated tokens, control tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _data(self, text: str) -> list[int]:
        ids = list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
        if self._controls.isdisjoint(ids):
            return ids
        # A Unigram model, as T5's, has its control tokens among its pieces and finds them in plain text: spell them.
        return [part for token in ids for part in (self._spelled(token) if token in self._controls else [token])]

    def _spelled(self, control: int) -> list[int]:
        letters = self.tokenizer.convert_ids_to_tokens(control)
        return [part for letter in letters for part in self.tokenizer.encode(letter, add_special_tokens=False)]

    def _frame(self, ends_prompt: bool) -> tuple[list[int], list[int]]:
        """What stands before and after the user's text: the chat template's own text, or the start and end tokens."""
        if self.template == "chat":
            turns = [{"role": "user", "content": _PLACEHOLDER}]
            framed = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            before, _, after = framed.partition(_PLACEHOLDER)
            return self._control(before), self._control(after)
        first = list(self.tokenizer.encode("", add_special_tokens=True))[:1]  # as the tokenizer itself opens a text
        opens = first if first == [self.tokenizer.bos_token_id] else []
        return opens, [self.tokenizer.eos_token_id] if ends_prompt else []

    def _control(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))
