"""The job of a classifier: scores texts, its weights sharded like the policy's and the texts split over the ranks.

Reads `job.json` and a table of texts; writes Scores parts as they are finished. Leaves what a score means, and keeping
it, to the driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor

from hir_core.config import HubModel
from hir_core.launch.job_spec import JobSpec, ScoreStep
from hir_core.launch.rank import Rank
from hir_core.modeling import models, zero
from hir_core.modeling.data_parallel import Meter, PartWriter, as_many_as_any_rank, batches, finished_keys
from hir_core.modeling.rendering import Pair
from hir_core.progress import Progress
from hir_core.schemas import Scores

UNLIMITED = 10**6
"""A tokenizer that knows no limit says a number far above this."""


class Text(NamedTuple):
    """A text to score, as the classifier reads it."""

    key: str
    ids: list[int]


class Classifier:
    """One rank's share of a sequence classifier, and the step that scores texts with it."""

    def __init__(self, rank: Rank, spec: JobSpec, device: torch.device) -> None:
        assert isinstance(spec.model, HubModel)
        source, revision = spec.model.source, spec.model.revision
        self.rank, self.device = rank, device
        rank.progress(Progress("load"))
        self.tokenizer = models.load_tokenizer(source, revision, setting="reward")
        with zero.loading(spec.deepspeed):
            self.model = models.load_classifier(source, zero.dtype(spec.deepspeed), revision)
        self.own_pad_id = self.model.config.get_text_config().pad_token_id
        self.engine = zero.engine_for_inference(self.model, spec.deepspeed, device)

    def do(self, step: ScoreStep) -> dict[str, Any]:
        """Scores every text that no finished part holds yet."""
        done = finished_keys(self.rank, step.output, "key")
        pair = Pair(self.tokenizer, step.template)
        pad_id = self._choose_padding(pair)
        texts = pl.read_parquet(step.requests).select("key", "query", "completion").iter_rows()
        asked = [Text(key, pair.ids(query, text)) for key, query, text in texts if key not in done]
        asked.sort(key=lambda text: (len(text.ids), text.key))
        mine = asked[self.rank.rank :: self.rank.world_size]
        writer = PartWriter(self.rank, step.output, Scores.create_empty().schema, step.write_every_s)
        meter = Meter(self.rank, step.type, "texts", len(asked), len(mine))
        room = context_length(self.model, self.tokenizer)
        problems = {text.key: problem for text in mine if (problem := _problem(text, room))}
        writer.add([_row(text, None, problems[text.key]) for text in mine if text.key in problems])
        meter.add(len(problems), 0)
        for batch, scores in self._scored([text for text in mine if text.key not in problems], step, pad_id):
            writer.add([_row(text, score, "") for text, score in zip(batch, scores, strict=True)])
            meter.add(len(batch), sum(len(text.ids) for text in batch))
        writer.close(len(mine))
        return meter.facts(self.device)

    def _scored(
        self, texts: Sequence[Text], step: ScoreStep, pad_id: int | None
    ) -> Iterator[tuple[list[Text], list[float]]]:
        """Batches with their scores; under ZeRO-3 all ranks make as many forward passes."""
        work = batches(texts, lambda text: len(text.ids), step.batch_tokens if pad_id is not None else 1)
        idle = [Text("", [0])]
        for batch in as_many_as_any_rank(work, idle, self.device) if zero.is_partitioned(self.model) else work:
            with torch.no_grad():
                logits = self._logits([text.ids for text in batch], pad_id or 0)
            if batch is not idle:
                yield batch, activated(logits, step).tolist()

    def _logits(self, rows: Sequence[Sequence[int]], pad_id: int) -> Tensor:
        """The classifier's outputs [B, L] for B texts, padded on the right, where causal attention never looks."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.device)
        return self.model(input_ids=ids, attention_mask=mask).logits  # type: ignore[no-any-return]

    def _choose_padding(self, pair: Pair) -> int | None:
        """The token that fills up short rows; None: there is none, and rows come one by one.

        A decoder's head reads the last token that is not padding, told by its id. Where the model's config names one,
        that is the model's own rule. Where it names none, the text's last token counts whatever it is: padding must
        then be a token that no text can hold.
        """
        config = self.model.config.get_text_config()
        if self.own_pad_id is None:
            config.pad_token_id = next((token for token in pair.free_controls if token < config.vocab_size), None)
        pad_id: int | None = config.pad_token_id
        return pad_id


def activated(logits: Tensor, step: ScoreStep) -> Tensor:
    """The scores [B] of logits [B, L], in double precision: the label's logit, its sigmoid, or its softmax share."""
    logits = logits.double()
    if step.activation == "softmax":
        return logits.softmax(-1)[:, step.label]
    found = logits[:, step.label]
    return found.sigmoid() if step.activation == "sigmoid" else found


def context_length(model: Any, tokenizer: Any) -> int | None:
    """Tokens that a text may have, as the tokenizer or the architecture says; None where neither does."""
    limits = (models.context_length(model), getattr(tokenizer, "model_max_length", None))
    return min((int(limit) for limit in limits if limit is not None and limit < UNLIMITED), default=None)


def _problem(text: Text, room: int | None) -> str:
    """Why a text cannot be judged; empty where it can. Nothing is cut: the end is what an answer is judged by."""
    if not text.ids:
        return "nothing to read"
    too_long = room is not None and len(text.ids) > room
    return f"too long for the reward model: {len(text.ids)} tokens, it reads {room}" if too_long else ""


def _row(text: Text, score: float | None, reason: str) -> dict[str, Any]:
    return {"key": text.key, "score": score, "reason": reason}
