"""The sampling engine on `transformers`: completions of a causal or encoder-decoder model, under any ZeRO stage.

Prompts enter by falling length, as many as the caller allows; the k samples of a prompt share one prefill. Rows
that have ended leave the batch, and the next prompts take their places. Every row has a seed of its own, so neither its
batch nor the world size changes its tokens. Takes prompt ids and returns token ids with log-probabilities; tables are
left to `worker.samples`, forward passes to `decoders`, the draw of a token to `draw`.

Shapes: B rows of the batch, V vocabulary.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hir_core.errors import NumericalError
from hir_core.sampling.completions import Completion, Output, Request
from hir_core.sampling.decoders import CausalDecoder, EncoderDecoder
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
        present: the request of each row.
    """
    taken: list[Request] = []
    if not waiting:
        return taken
    longest = max(len(request.prompt_ids) for request in [*present, waiting[0]])
    free = math.inf if most_rows is None else most_rows(longest) - len(present)
    while waiting and (len(waiting[0].seeds) <= free or not (present or taken)):
        free -= len(waiting[0].seeds)
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


class _Batch:
    """The rows that are completed at once.

    `rows` [B] has what each row writes, `open_prompts` the outputs of each prompt that is not finished. Tensors of one
    value per row: the number of `drawn` tokens, whether it is `unfinished`, its `last` token; and its random numbers,
    `uniforms` [B, max_new_tokens]. `unread` has what was drawn since the last `read`: for each step tokens,
    log-probabilities, and the rows that drew them.
    """

    def __init__(self, model: Any, limits: Limits, device: torch.device) -> None:
        self.limits, self.device = limits, device
        decoder = EncoderDecoder if model.config.is_encoder_decoder else CausalDecoder
        self.decoder = decoder(model, limits.pad_id, device)
        self.ends = torch.tensor(limits.end_ids, device=device)
        self.rows: list[Output] = []
        self.open_prompts: list[list[Output]] = []
        self.steps_left = 0
        """Steps after which every row has ended, whatever it draws."""
        self.drawn = torch.zeros(0, dtype=torch.long, device=device)
        self.last, self.unfinished = self.drawn, self.drawn.bool()
        self.uniforms = torch.zeros(0, limits.max_new_tokens, dtype=torch.float64, device=device)
        self.unread: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def is_unfinished(self) -> bool:
        """Whether a row was unfinished when the drawn tokens were last read."""
        return bool(self.open_prompts)

    def refill(self, waiting: deque[Request], most_rows: MostRows | None) -> None:
        """Once enough rows have ended, drops them, and takes from `waiting` what fits, with its first tokens."""
        kept = [n for n, output in enumerate(self.rows) if output.finish_reason is None]
        if kept and len(kept) >= REFILL_BELOW * len(self.rows):
            return
        has_room = not kept or self.decoder.takes_more
        entering = take_batch(waiting, most_rows, [self.rows[n].request for n in kept]) if has_room else []
        if not entering and not kept:
            return  # all have ended: a rank that only waits for others goes on with the rows that it has
        rows = torch.tensor(kept, dtype=torch.long, device=self.device)
        self.rows = [self.rows[n] for n in kept]
        self.drawn, self.last, self.unfinished = self.drawn[rows], self.last[rows], self.unfinished[rows]
        self.uniforms = self.uniforms[rows]
        if entering:
            self._enter(entering, rows)
        else:
            self.decoder.keep(rows)

    def _enter(self, requests: Sequence[Request], kept: Tensor) -> None:
        """Adds a row for each sample of the requests, after the kept rows, and draws their first tokens."""
        prompts = [[Output(request, request.first + n) for n in range(len(request.seeds))] for request in requests]
        self.open_prompts += prompts
        self.rows += [output for outputs in prompts for output in outputs]
        repeats = torch.tensor([len(outputs) for outputs in prompts], device=self.device)
        logits = self.decoder.enter([request.prompt_ids for request in requests], repeats, kept)
        generators = [np.random.Generator(np.random.Philox(key=seed)) for r in requests for seed in r.seeds]
        uniforms = np.array([generator.random(self.limits.max_new_tokens) for generator in generators])
        new = torch.tensor(uniforms, device=self.device)
        tokens, logprobs = draw(logits, new[:, 0], self.limits)
        self.uniforms = torch.cat([self.uniforms, new])
        self.drawn = torch.cat([self.drawn, torch.zeros_like(tokens)])
        self.unfinished = torch.cat([self.unfinished, torch.ones_like(tokens, dtype=torch.bool)])
        drawing = torch.arange(len(self.rows), device=self.device) >= len(kept)
        self._record(torch.cat([self.last, tokens]), nn.functional.pad(logprobs, (len(kept), 0)), drawing)
        self.steps_left = self.limits.max_new_tokens - 1

    def step(self) -> None:
        """Draws one token for every row; those of ended rows are discarded."""
        logits = self.decoder.next(self.last, self.unfinished)
        places = self.drawn.clamp(max=self.limits.max_new_tokens - 1)
        tokens, logprobs = draw(logits, self.uniforms.gather(1, places[:, None])[:, 0], self.limits)
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
        still_open = []
        for outputs in self.open_prompts:
            if any(output.finish_reason is None for output in outputs):
                still_open.append(outputs)
            else:
                yield from (output.completion() for output in outputs)
        self.open_prompts = still_open

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
