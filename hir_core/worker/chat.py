"""The process of `hir chat`: a model version that answers questions, a piece of text for each token that it draws.

Runs in a process of `time_limit`, because it imports torch. Reads the weights and the tokenizer of a version, on one
GPU or the CPU, and writes nothing. The prompt is rendered as in the run, and drawn from by the decoders of the run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter
from transformers.utils import logging

from hir_core.config import HubModel
from hir_core.errors import ConfigError, NumericalError
from hir_core.launch.job_spec import Adapter
from hir_core.modeling import adapters, models
from hir_core.modeling.rendering import Renderer, renderer_of
from hir_core.sampling.decoders import CausalDecoder, EncoderDecoder
from hir_core.sampling.draw import Limits, draw
from hir_core.sampling.stop_texts import StopTexts

Turn = dict[str, str]
UNFINISHED = "\ufffd"
"""What the first bytes of a character are decoded to, until its last one is drawn."""


class Prompt(NamedTuple):
    """A question as the model reads it."""

    ids: list[int]
    left_out: int
    """Earlier turns for which the context has no room."""


def make_chat(settings: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """The function that replies to messages of the driver, each with a `type`.

    `load` loads the model, and returns `device`, `template` (of the prompt) and `keeps_turns`, whether it has a place
    for earlier turns. `ask` begins an answer to a `query` after the turns of `history`, and `more` goes on with it;
    both return a piece: `text`, to be shown after the pieces before; `end`, why the answer has ended (`eos`, `stop` or
    `length`; None while it has not); `left_out`, the earlier turns for which there was no room; and with the last
    piece `answer`, what of the answer is kept as a turn: all but the thinking.

    Args:
        settings: `model`, the whole model as a config's section; `adapter`, or None; `bf16`; `instruction`; `stop`;
            `temperature`, 0 for greedy; `max_new_tokens`; `seed`.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    loaded: list[LoadedModel] = []
    pieces: list[Iterator[dict[str, Any]]] = []

    def reply(message: dict[str, Any]) -> Any:
        if message["type"] == "load":
            loaded[:] = [LoadedModel(settings)]
            return loaded[0].description()
        if message["type"] == "ask":
            pieces[:] = [loaded[0].answer(message["query"], message["history"])]
        return next(pieces[0])

    return reply


class LoadedModel:
    """A loaded model, and how it is asked."""

    def __init__(self, settings: dict[str, Any]) -> None:
        spec = HubModel.model_validate(settings["model"])
        is_cpu = os.environ.get("DS_ACCELERATOR") == "cpu" or not torch.cuda.is_available()
        self.device = torch.device("cpu" if is_cpu else "cuda")
        self.tokenizer = models.load_tokenizer(spec.source)
        model = models.load_model(spec.source, torch.bfloat16 if settings["bf16"] else torch.float32)
        if settings["adapter"] is not None:
            adapters.add(model, TypeAdapter(Adapter).validate_python(settings["adapter"]), seed=0)
        try:
            self.model = model.to(self.device).eval()
        except torch.OutOfMemoryError:
            raise ConfigError("the model does not fit into the memory of one GPU: DS_ACCELERATOR=cpu takes the CPU, "
                              "and `hir serve` a server that divides it") from None  # fmt: skip
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        self.renderer = renderer_of(spec, self.tokenizer, ends_prompt=self.is_encoder_decoder)
        self.context = models.context_length(model)
        self.instruction = settings["instruction"]
        stop, renderer = settings["stop"], self.renderer
        self.stop = StopTexts(stop, renderer.decode, renderer.silent_ids) if stop else None
        self.limits = Limits(
            temperature=settings["temperature"],
            max_new_tokens=settings["max_new_tokens"],
            end_ids=tuple(models.end_ids(model.generation_config, self.tokenizer)),
            pad_id=int(self.tokenizer.pad_token_id),
            has_stopped=self.stop.has_stopped if self.stop else None,
        )
        self.random = np.random.default_rng(settings["seed"])

    def description(self) -> dict[str, Any]:
        """What the driver is told once the model is loaded."""
        template = self.renderer.template
        keeps_turns = template == "chat" or "{history}" in template
        return {"device": self.device.type, "template": template, "keeps_turns": keeps_turns}

    def answer(self, query: str, history: Sequence[Turn]) -> Iterator[dict[str, Any]]:
        """The pieces of an answer, as `make_chat` describes them.

        Raises:
            ConfigError: the question is too long for the model's context, or the template refuses the turns.
            NumericalError: the model's logits are not finite.
        """
        prompt = self._prompt(query, history)
        text = AnswerText(self.renderer, self.stop, self.renderer.opened_thinking(prompt.ids))
        drawn: list[int] = []
        for token in self._tokens(prompt.ids):
            drawn.append(token)
            end = self._end(drawn)
            piece = {"text": text.added(drawn, is_last=end is not None), "end": end, "left_out": prompt.left_out}
            yield piece if end is None else piece | {"answer": text.answer()}
            if end is not None:
                return

    def _prompt(self, query: str, history: Sequence[Turn]) -> Prompt:
        """The prompt of a question, with as many of the last turns before it as there is room for."""
        for left_out in range(0, len(history) + 1, 2):  # a question and its answer at a time
            ids = self.renderer.prompt_ids(self.instruction, query, history[left_out:], of="the question")
            if self.context is None or len(ids) + self.limits.max_new_tokens <= self.context:
                return Prompt(ids, left_out)
        raise ConfigError(
            f"the question has {len(ids)} tokens, which with {self.limits.max_new_tokens} new tokens is more than the "
            f"model's context of {self.context}: shorten it, or give a lower --max-new-tokens"
        )

    @torch.inference_mode()
    def _tokens(self, prompt_ids: list[int]) -> Iterator[int]:
        """Tokens drawn one after another, without end."""
        decoder: Any = (EncoderDecoder if self.is_encoder_decoder else CausalDecoder)(
            self.model, self.limits.pad_id, self.device
        )
        first, none = (torch.zeros(n, dtype=torch.long, device=self.device) for n in (1, 0))
        logits = decoder.enter([(decoder.read([prompt_ids]), first)], none)
        is_unfinished = torch.ones(1, dtype=torch.bool, device=self.device)
        while True:
            uniform = torch.tensor([self.random.random()], dtype=torch.float64, device=self.device)
            token, logprob = draw(logits, uniform, self.limits)
            if not logprob.isfinite().all():
                raise NumericalError("the model gives no probabilities for the next token: its logits hold NaN or "
                                     "infinity, so its training went wrong: choose an earlier model")  # fmt: skip
            yield int(token)
            logits = decoder.next(token, is_unfinished)

    def _end(self, drawn: Sequence[int]) -> str | None:
        """Why an output ends with its last token; None where it goes on."""
        if drawn[-1] in self.limits.end_ids:
            return "eos"
        if self.limits.has_stopped is not None and self.limits.has_stopped(drawn):
            return "stop"
        return "length" if len(drawn) == self.limits.max_new_tokens else None


class AnswerText:
    """The text of an answer that grows token by token.

    A piece ends before white space, before a character of which bytes are missing, and before what could be the
    beginning of a stop text: the next tokens decide what becomes of these.

    Args:
        opening: the mark of thinking with which the prompt ends, if it does.
    """

    def __init__(self, renderer: Renderer, stop: StopTexts | None, opening: str) -> None:
        self._renderer, self._stop, self._opening = renderer, stop, opening
        self._held = max(map(len, stop.texts)) - 1 if stop else 0
        self._whole = self._shown = ""

    def added(self, token_ids: Sequence[int], *, is_last: bool) -> str:
        """The text to show after what was shown before, now that the answer has these tokens."""
        text = self._renderer.decode(list(token_ids))
        self._whole = (self._opening + (self._stop.without_stop(text) if self._stop else text)).strip()
        ready = self._whole
        if not is_last:
            ready = ready[: len(ready) - self._held].rstrip().rstrip(UNFINISHED)
        if not ready.startswith(self._shown):
            return ""  # another decoding of what is shown: it is not shown twice
        piece, self._shown = ready[len(self._shown) :], ready
        return piece

    def answer(self) -> str:
        """The text without the model's thinking."""
        thinking = self._renderer.thinking
        return thinking.answer(self._whole) if thinking else self._whole
