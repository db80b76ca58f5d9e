"""`TripleLoss`, the module that the DeepSpeed engine trains: a model, and the statistics of its logits at targets.

One forward pass per micro-batch, whose logits exist at target positions only. The terms of the loss are in `losses`,
whose shapes are used here. A fused kernel, such as Liger's linear cross-entropy, is not used: it has one target for
each position and computes its gradient in the forward pass, for a sum of losses with fixed weights. The entropy bonus
and soft targets need more of the distribution, and the contrastive term weighs an output by the log-probabilities of
others. Holds no data and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutput

from hir_core.errors import ConfigError
from hir_core.modeling.attention import implementation
from hir_core.training.batches import Batch
from hir_core.training.examples import Totals
from hir_core.training.losses import Coefficients, TokenStats, loss_terms
from hir_core.training.masks import attention_mask

Statistics = Callable[[Tensor, Tensor], tuple[Any, ...]]
"""Makes statistics of logits [Q, V] and targets [Q, W]: each is a tensor [Q, ...], or None."""


class PositionStats(torch.autograd.Function):
    """Log-probabilities [Q, W] of targets [Q, W], mean log-probabilities [Q] and entropies [Q] of logits [Q, V].

    In fp32 or better. The gradients, of a logit v, are those of the log-softmax: 1(v = target) - p(v) of log p(target),
    1 / V - p(v) of the mean, and -p(v) (log p(v) + entropy) of the entropy.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, with_mean: bool) -> tuple[Tensor, Tensor | None, Tensor]:
        """The statistics; the mean is None unless it is asked for."""
        logprobs = torch.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        entropies = -torch.linalg.vecdot(logprobs.exp(), logprobs)
        ctx.save_for_backward(logprobs, targets, entropies)
        ctx.set_materialize_grads(False)
        ctx.dtype = logits.dtype
        return logprobs.gather(-1, targets), logprobs.mean(-1) if with_mean else None, entropies

    @staticmethod
    def backward(
        ctx: Any, of_targets: Tensor | None, of_means: Tensor | None, of_entropies: Tensor | None
    ) -> tuple[Tensor, None, None]:
        """The gradient of the logits, from those of the statistics; None for one that the loss does not use."""
        logprobs, targets, entropies = ctx.saved_tensors
        gradient = logprobs.exp()
        factors = torch.zeros_like(entropies)
        factors = factors if of_targets is None else factors - of_targets.sum(-1)
        factors = factors if of_means is None else factors - of_means
        if of_entropies is None:
            gradient *= factors[:, None]
        else:
            gradient *= (factors - of_entropies * entropies)[:, None] - of_entropies[:, None] * logprobs
        if of_means is not None:
            gradient += of_means[:, None] / gradient.shape[-1]
        if of_targets is not None:
            gradient.scatter_add_(-1, targets, of_targets)
        return gradient.to(ctx.dtype), None, None


class TripleLoss(nn.Module):
    """Wraps a causal or encoder-decoder model so that its logits exist at target positions only, a chunk at a time.

    The hidden states that enter the model's output head are intercepted, cut to the target positions, and put through
    the head in chunks that are recomputed in the backward pass: memory does not grow with vocabulary times sequence
    length. The model's own forward pass still puts one position through the head. Its logits must equal those computed
    here: a model that changes its logits after the head in an unknown way is refused instead of trained wrongly.
    """

    def __init__(self, model: Any, coefficients: Coefficients, logits_chunk: int) -> None:
        super().__init__()
        self.model = model
        self.coefficients = coefficients
        self.logits_chunk = logits_chunk

    def forward(self, batch: Batch, totals: Totals, scale: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss times `scale`, for the backward pass, and the unscaled terms, detached."""
        terms = loss_terms(self.target_stats(batch), batch, totals, self.coefficients)
        return terms["loss"] * scale, {name: term.detach() for name, term in terms.items()}

    def target_stats(self, batch: Batch) -> TokenStats:
        """Statistics of every target token of the batch.

        Raises:
            ConfigError: the model changes its logits after the output head in a way that is not known here.
        """
        with_mean = self.coefficients.label_smoothing > 0

        def stats(logits: Tensor, targets: Tensor) -> tuple[Any, ...]:
            return PositionStats.apply(logits, targets, with_mean)  # type: ignore[no-any-return, no-untyped-call]

        logprobs, means, entropies = self._of_positions(batch, stats)
        return TokenStats(
            logprobs.flatten()[batch.target_places],
            None if means is None else means[batch.predicted_at],
            entropies[batch.predicted_at],
            logprobs.flatten()[batch.soft_places] if len(batch.soft_places) else None,
        )

    @torch.no_grad()
    def next_tokens(self, batch: Batch, top: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of each target token: its log-probability [M], and the likeliest tokens there [M, top] with theirs [M, top].

        Raises:
            ConfigError: as `target_stats`.
        """

        def likeliest(logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
            logprobs = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
            values, tokens = logprobs.topk(top)
            return logprobs.gather(-1, targets), tokens.int(), values

        logprobs, tokens, values = self._of_positions(batch, likeliest)
        return logprobs.flatten()[batch.target_places], tokens[batch.predicted_at], values[batch.predicted_at]

    @property
    def vocabulary(self) -> int:
        """The number of tokens that the model's head can choose from."""
        return int(self.model.get_output_embeddings().out_features)

    def _of_positions(self, batch: Batch, statistics: Statistics) -> tuple[Any, ...]:
        """The statistics of the logits at every position.

        Raises:
            ConfigError: the model changes its logits after the output head in a way that is not known here.
        """
        hidden, expected = self._hidden(batch)
        *found, first_logits = self._through_head(hidden, batch.position_targets, statistics)
        if not torch.allclose(first_logits.float(), expected.float(), rtol=1e-2, atol=1e-2, equal_nan=True):
            kind = type(self.model).__name__
            raise ConfigError(
                f"{kind} changes its logits after the output head, which hir does not support: use another model"
            )
        return tuple(found)

    def _hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Hidden states [Q, H] that enter the head at target positions, and the model's own logits [V] of the first."""
        hidden: list[Tensor] = []

        def keep_one_position(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden.append(args[0].flatten(0, 1)[batch.positions])
            return (hidden[0][:1].detach()[None],)

        inputs = self._inputs(batch)
        handle = self.model.get_output_embeddings().register_forward_pre_hook(keep_one_position, prepend=True)
        try:
            logits = self.model(**inputs, use_cache=False).logits
        finally:
            handle.remove()
        first_logits: Tensor = logits.detach()[0, 0]
        return hidden[0], first_logits

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        """What the model's forward pass is given; an encoder-decoder's encoder has then read every prompt once."""
        if batch.decoder_input_ids is not None:
            encode = self.model.get_encoder()
            states = encode(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
            return {
                "encoder_outputs": BaseModelOutput(last_hidden_state=states[batch.encoder_rows]),
                "attention_mask": batch.attention_mask[batch.encoder_rows],
                "decoder_input_ids": batch.decoder_input_ids,
            }
        if batch.attended_until is None:
            return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        return {
            "input_ids": batch.input_ids,
            "position_ids": batch.position_ids,
            "attention_mask": attention_mask(batch.attended_until, implementation(self.model), self.model.dtype),
        }

    def _through_head(self, hidden: Tensor, targets: Tensor, statistics: Statistics) -> tuple[Any, ...]:
        """Statistics of the logits of hidden states [Q, H], and the logits [V] of the first position.

        Calls the head once, however many chunks there are: ZeRO-3 gathers a module's weights with a collective per
        call, in the forward and the backward pass, and ranks with different numbers of targets would wait for each
        other for ever.

        Args:
            targets: [Q, W], of which `statistics` is given the rows of a chunk.
        """
        head = self.model.get_output_embeddings()
        multiply = head.forward

        def chunk_stats(hidden: Tensor, targets: Tensor) -> tuple[Any, ...]:
            return statistics(self._logits(multiply(hidden)), targets)

        def forward_in_chunks(hidden: Tensor) -> tuple[Any, ...]:
            spans = [slice(start, start + self.logits_chunk) for start in range(0, len(hidden), self.logits_chunk)]
            if len(spans) == 1:  # its logits may stay in memory for the backward pass
                chunks = [chunk_stats(hidden, targets)]
            else:
                chunks = [checkpoint(chunk_stats, hidden[span], targets[span], use_reentrant=False) for span in spans]
            with torch.no_grad():
                first_logits = self._logits(multiply(hidden[:1]))[0]
            columns = zip(*chunks, strict=True)
            return *(None if column[0] is None else torch.cat(column) for column in columns), first_logits

        head.forward = forward_in_chunks
        try:
            return head(hidden)  # type: ignore[no-any-return]
        finally:
            head.forward = multiply

    def _logits(self, logits: Tensor) -> Tensor:
        """Logits as the model returns them, from its head's output: scaled (Cohere) and capped (Gemma)."""
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        scale = getattr(self.model.config, "logit_scale", None)
        logits = logits if scale is None else logits * scale
        return logits if cap is None else torch.tanh(logits / cap) * cap
