"""The sampling engine on `transformers`: completions of a causal or encoder-decoder model, under any ZeRO stage.

Prompts enter by falling length, as many as the caller allows; the k samples of a prompt share one prefill. Rows
that have ended leave the batch, and the next prompts take their places. Every row has a seed of its own, so neither its
batch nor the world size changes its tokens. Samples that must be distinct are drawn one after another. Takes prompt ids
and returns token ids with log-probabilities; tables are left to `worker.samples`, forward passes to `decoders`, the
draw of a token to `draw`, what may be drawn to `distinct`.

Shapes: B rows of the batch, V vocabulary.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress, groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hir_core.errors import NumericalError
from hir_core.sampling.completions import Completion, Output, Request
from hir_core.sampling.decoders import CausalDecoder, EncoderDecoder, ReadPrompts
from hir_core.sampling.distinct import DrawnBefore
from hir_core.sampling.draw import Limits, draw

MostRows = Callable[[int], int]
"""How many rows a batch may have whose longest prompt has so many tokens."""
REFILL_BELOW = 0.8
"""Ended rows leave the batch, and waiting prompts enter, once fewer than this share of its rows is unfinished."""
STEPS_BETWEEN_READS = {"cuda": 4}
"""By the kind of device, tokens that every row draws before the drawn ones are read back, which waits for a GPU; on
any other device 1."""


def longest_first(requests: Iterable[Request]) -> deque[Request]:
    """The requests by falling length, so that a batch that is too large for the memory is the first one."""
    return deque(sorted(requests, key=lambda request: (-len(request.prompt_ids), request.key, request.first)))


def take_batch(waiting: deque[Request], most_rows: MostRows | None, present: Sequence[Request] = ()) -> list[Request]:
    """Takes the next prompts for which there is room beside the present rows; at least one where there are none.

    Args:
        waiting: by falling length; loses what is taken.
        present: the request of each row, and of each prompt that is kept for more rows.
    """
    taken: list[Request] = []
    if not waiting:
        return taken
    longest = max(len(request.prompt_ids) for request in [*present, waiting[0]])
    free = math.inf if most_rows is None else most_rows(longest) - len(present)
    while waiting and (waiting[0].rows <= free or not (present or taken)):
        free -= waiting[0].rows
        taken.append(waiting.popleft())
    return taken


@torch.no_grad()
def complete(
    model: Any,
    requests: Sequence[Request],
    limits: Limits,
    device: torch.device,
    most_rows: MostRows | None = None,
    any_rank_is_unfinished: Callable[[bool], bool] | None = None,
) -> Iterator[Completion]:
    """Completes prompts; yields completions as prompts are finished, those of one prompt together and in order.

    Args:
        most_rows: how many rows are completed at once; one prompt may have more. None: all prompts at once.
        any_rank_is_unfinished: only for streamed weights, where all ranks call `complete` together, without
            `most_rows`, and must make the same number of forward passes: whether any rank has unfinished rows,
            called with whether this one has.

    Raises:
        NumericalError: the model's logits for an output are not finite; names its prompt.
    """
    waiting = longest_first(requests)
    batch = _Batch(model, limits, device)
    continues = any_rank_is_unfinished or bool
    most_steps = STEPS_BETWEEN_READS.get(device.type, 1)
    while continues(bool(waiting) or batch.is_unfinished):
        batch.refill(waiting, most_rows)
        steps = 1 if any_rank_is_unfinished else min(most_steps, batch.steps_left)
        for _ in range(steps):
            batch.step()
        yield from batch.read()


@dataclass
class _OpenPrompt:
    """A prompt that is not finished, and its outputs so far."""

    request: Request
    read: ReadPrompts | None
    """None once its last output is begun."""
    read_with: Sequence[Request]
    """All prompts that were read together."""
    place: int
    """Its own among them."""
    outputs: list[Output] = field(default_factory=list)

    @property
    def is_drawing(self) -> bool:
        return any(output.finish_reason is None for output in self.outputs)

    @property
    def has_more(self) -> bool:
        """Whether outputs are left to be begun."""
        return len(self.outputs) < len(self.request.seeds)

    def begin(self) -> list[Output]:
        """The outputs that can be drawn next: all of them, or the next one where they must be distinct."""
        begun, most = len(self.outputs), len(self.request.seeds)
        numbers = range(begun, begun + 1) if self.request.distinct else range(begun, most)
        new = [Output(self.request, self.request.first + n) for n in numbers]
        self.outputs += new
        return new


class _Batch:
    """The rows that are completed at once.

    `rows` [B] has what each row writes, `open_prompts` the prompts that are not finished. Tensors of one value per row:
    the number of `drawn` tokens, whether it is `unfinished`, its `last` token; its random numbers, `uniforms`
    [B, max_new_tokens]; and where outputs must be distinct, the ones `before` it. `unread` has what was drawn since the
    last `read`: for each step tokens, log-probabilities, and the rows that drew them.
    """

    def __init__(self, model: Any, limits: Limits, device: torch.device) -> None:
        self.limits, self.device = limits, device
        decoder = EncoderDecoder if model.config.is_encoder_decoder else CausalDecoder
        self.decoder = decoder(model, limits.pad_id, device)
        self.ends = torch.tensor(limits.end_ids, device=device)
        self.rows: list[Output] = []
        self.open_prompts: list[_OpenPrompt] = []
        self.steps_left = 0
        """Steps after which every row has ended, whatever it draws."""
        self.drawn = torch.zeros(0, dtype=torch.long, device=device)
        self.last, self.unfinished = self.drawn, self.drawn.bool()
        self.uniforms = torch.zeros(0, limits.max_new_tokens, dtype=torch.float64, device=device)
        self.before: DrawnBefore | None = None
        self.unread: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def is_unfinished(self) -> bool:
        """Whether a row was unfinished when the drawn tokens were last read."""
        return bool(self.open_prompts)

    def refill(self, waiting: deque[Request], most_rows: MostRows | None) -> None:
        """Once enough rows have ended, drops them; begins the next outputs of the prompts that are open, and takes from
        `waiting` what fits beside them."""
        kept = [n for n, output in enumerate(self.rows) if output.finish_reason is None]
        if kept and len(kept) >= REFILL_BELOW * len(self.rows):
            return
        kept.sort(key=lambda n: -self.rows[n].length)  # neighbours of similar length, see `row_attention`
        entering: list[_OpenPrompt] = []
        if not kept or self.decoder.takes_more:
            entering = [prompt for prompt in self.open_prompts if prompt.has_more and not prompt.is_drawing]
            if not entering or self.decoder.takes_more:
                entering += self._open(take_batch(waiting, most_rows, self._present(kept, entering)))
        if not entering and not kept:  # a rank that only waits for others goes on with the rows that it has
            if self.decoder.columns > self.limits.max_new_tokens:
                self.decoder.forget()
            return
        rows = torch.tensor(kept, dtype=torch.long, device=self.device)
        self.rows = [self.rows[n] for n in kept]
        self.drawn, self.last, self.unfinished = self.drawn[rows], self.last[rows], self.unfinished[rows]
        self.uniforms = self.uniforms[rows]
        self.before = None if self.before is None else self.before.keep(rows)
        if entering:
            self._enter(entering, rows)
        else:
            self.decoder.keep(rows)

    def _present(self, kept: Sequence[int], entering: Sequence[_OpenPrompt]) -> list[Request]:
        """The request of each row, and of each prompt that is held for rows of those read with it."""
        held = {id(prompt.read): prompt.read_with for prompt in self.open_prompts if prompt.read is not None}
        rows = [self.rows[n].request for n in kept] + [prompt.request for prompt in entering]
        return [*rows, *chain.from_iterable(held.values())]

    def _open(self, requests: Sequence[Request]) -> list[_OpenPrompt]:
        """Opens new prompts."""
        if not requests:
            return []
        read = self.decoder.read([request.prompt_ids for request in requests])
        opened = [_OpenPrompt(request, read, requests, place) for place, request in enumerate(requests)]
        self.open_prompts += opened
        return opened

    def _enter(self, prompts: Sequence[_OpenPrompt], kept: Tensor) -> None:
        """Adds a row for each output that the prompts begin, after the kept rows, and draws their first tokens."""
        begun = [(prompt, output) for prompt in prompts for output in prompt.begin()]
        groups = [list(group) for _, group in groupby(begun, key=lambda pair: id(pair[0].read))]
        beginnings = [
            (read, torch.tensor([prompt.place for prompt, _ in group], device=self.device))
            for group in groups
            if (read := group[0][0].read) is not None
        ]
        for prompt in prompts:
            prompt.read = prompt.read if prompt.has_more else None
        is_last_use = all(prompt.read is None for prompt in self.open_prompts)
        logits = self.decoder.enter(beginnings, kept, is_last_use=is_last_use)
        self.rows += [output for _, output in begun]
        seeds = [output.request.seeds[output.k - output.request.first] for _, output in begun]
        generators = [np.random.Generator(np.random.Philox(key=seed)) for seed in seeds]
        uniforms = np.array([generator.random(self.limits.max_new_tokens) for generator in generators])
        new = torch.tensor(uniforms, device=self.device)
        tokens, logprobs = self._draw_first(logits, new[:, 0], begun)
        self.uniforms = torch.cat([self.uniforms, new])
        self.drawn = torch.cat([self.drawn, torch.zeros_like(tokens)])
        self.unfinished = torch.cat([self.unfinished, torch.ones_like(tokens, dtype=torch.bool)])
        drawing = torch.arange(len(self.rows), device=self.device) >= len(kept)
        self._record(torch.cat([self.last, tokens]), nn.functional.pad(logprobs, (len(kept), 0)), drawing)
        self.steps_left = self.limits.max_new_tokens - 1

    def _draw_first(
        self, logits: Tensor, uniforms: Tensor, begun: Sequence[tuple[_OpenPrompt, Output]]
    ) -> tuple[Tensor, Tensor]:
        """Draws the first tokens of rows that begin; of distinct ones none that lead to an earlier output alone."""
        if not begun[0][0].request.distinct:
            return draw(logits, uniforms, self.limits)
        earlier = [prompt.outputs[: output.k - output.request.first] for prompt, output in begun]
        before = DrawnBefore.of(earlier, self.limits.max_new_tokens, self.device)
        first = torch.zeros(len(begun), dtype=torch.long, device=self.device)
        tokens, logprobs = draw(logits, uniforms, self.limits, before.left(first, logits.shape[-1]))
        before.follow(first, tokens)
        self.before = before if self.before is None else self.before.join(before)
        return tokens, logprobs

    def step(self) -> None:
        """Draws one token for every row; those of ended rows are discarded."""
        logits = self.decoder.next(self.last, self.unfinished)
        places = self.drawn.clamp(max=self.limits.max_new_tokens - 1)
        left = None if self.before is None else self.before.left(places, logits.shape[-1])
        tokens, logprobs = draw(logits, self.uniforms.gather(1, places[:, None])[:, 0], self.limits, left)
        if self.before is not None:
            self.before.follow(places, tokens)
        self._record(tokens, logprobs, self.unfinished)

    def _record(self, tokens: Tensor, logprobs: Tensor, drawing: Tensor) -> None:
        self.unread.append((tokens, logprobs, drawing))
        self.last = tokens
        self.drawn = self.drawn + drawing
        ends = torch.isin(tokens, self.ends) | (self.drawn >= self.limits.max_new_tokens)
        self.unfinished = self.unfinished & ~(drawing & ends)

    def read(self) -> Iterator[Completion]:
        """Adds the drawn tokens to the outputs; yields those of the prompts that are finished."""
        if not self.unread:
            return
        tokens, logprobs, drawing = (torch.stack(values, 1).cpu() for values in zip(*self.unread, strict=True))
        self.unread = []
        if not logprobs[drawing].isfinite().all():
            raise self._no_probabilities(~logprobs.isfinite() & drawing, drawing)
        values = zip(self.rows, tokens.tolist(), logprobs.tolist(), drawing.tolist(), strict=True)
        for output, row_tokens, row_logprobs, was_drawn in values:
            if output.finish_reason is None:
                output.add(compress(row_tokens, was_drawn), compress(row_logprobs, was_drawn), self.limits)
        is_open = [output.finish_reason is None for output in self.rows]
        if self.limits.has_stopped is not None:  # the device has seen every other end
            self.unfinished = torch.tensor(is_open, device=self.device)
        lengths = [len(output.token_ids) for output in compress(self.rows, is_open)]
        self.steps_left = self.limits.max_new_tokens - min(lengths) if lengths else 0
        finished = [prompt for prompt in self.open_prompts if not (prompt.has_more or prompt.is_drawing)]
        self.open_prompts = [prompt for prompt in self.open_prompts if prompt.has_more or prompt.is_drawing]
        yield from (output.completion() for prompt in finished for output in prompt.outputs)

    def _no_probabilities(self, wrong: Tensor, drawing: Tensor) -> NumericalError:
        """The error that names the first token that could not be drawn; both arguments are [B, steps]."""
        step, row = divmod(int(wrong.T.flatten().long().argmax()), len(self.rows))
        output = self.rows[row]
        token = len(output.token_ids) + int(drawing[row, : step + 1].sum())
        return NumericalError(
            f"prompt {output.request.key}: the model gives no probabilities for token {token} of output {output.k}: "
            "its logits hold NaN or infinity, so its training went wrong or its numbers are too large for their type: "
            "lower training.learning_rate or warm_start.learning_rate, or choose another model"
        )
