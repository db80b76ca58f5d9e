"""Texts that end an output: where one is complete in a row's tokens, and the output's text without it.

Looks at decoded text, so a stop text is found however the tokens divide it. Used by the engine while it draws, and by
`worker.samples` for the text of a finished output.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

MARGIN = 4
"""Tokens before the longest stop text that are decoded with it: the first ones may be parts of a character, or lose
the space before them."""


class StopTexts:
    """The stop texts of a sample step.

    Args:
        texts: none of them empty.
        decode: the text of token ids, control tokens left out.
        control_ids: the control tokens, which have no text.
    """

    def __init__(
        self, texts: Sequence[str], decode: Callable[[list[int]], str], control_ids: Collection[int] = ()
    ) -> None:
        self.texts, self._decode, self._control_ids = tuple(texts), decode, control_ids
        # Every other token is a byte of text or more.
        self._most_tokens = max(len(text.encode()) for text in texts) + MARGIN

    def has_stopped(self, token_ids: Sequence[int]) -> bool:
        """Whether a stop text is complete in the text of these tokens; to be asked after each token.

        Takes the same time however many tokens there are.
        """
        last: list[int] = []
        for token_id in reversed(token_ids):
            if len(last) == self._most_tokens:
                break
            if token_id not in self._control_ids:
                last.append(token_id)
        text = self._decode(last[::-1])
        return any(stop in text for stop in self.texts)

    def without_stop(self, text: str) -> str:
        """The part of an output's text before the first stop text."""
        return text[: min((text.find(stop) for stop in self.texts if stop in text), default=len(text))]
