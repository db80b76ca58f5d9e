"""The job of a reward model: scores of texts, with the weights partitioned and the texts divided over the ranks.

Reads `job.json` and a table of texts; writes Scores parts as they are finished. The driver keeps the scores and gives
them their meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor

from hir_core.config import HubModel
from hir_core.errors import ConfigError
from hir_core.launch import end_requests
from hir_core.launch.job_spec import JobSpec, RowsResult, ScoreStep
from hir_core.launch.rank import Rank
from hir_core.modeling import models, weight_checks, zero
from hir_core.modeling.data_parallel import Meter, PartWriter, batches, finished_keys, pad_to_longest_rank, share_of
from hir_core.modeling.rendering import PairRenderer
from hir_core.progress import Progress
from hir_core.schemas import Scores


class Text(NamedTuple):
    """A text to score, as token ids."""

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
        if (weight := weight_checks.unusable_weight(self.model, device)) is not None:
            raise ConfigError(
                f"reward.source: {weight} of `{source}` {weight_checks.UNUSABLE}, so its scores mean nothing: the file "
                "is damaged, or what trained it went wrong: choose another model"
            )
        self.own_pad_id = self.model.config.get_text_config().pad_token_id
        self.engine = zero.engine_for_inference(self.model, spec.deepspeed, device)

    def do(self, step: ScoreStep) -> RowsResult:
        """Scores every text that is in no finished part yet; a text that cannot be judged gets a reason instead."""
        finished = finished_keys(self.rank, step.output, "key")
        pair = PairRenderer(self.tokenizer, step.template)
        pad_id = self._set_padding(pair)
        requests = pl.read_parquet(step.requests).select("key", "query", "completion").iter_rows()
        texts = [Text(key, pair.ids(query, completion)) for key, query, completion in requests if key not in finished]
        own = share_of(self.rank, texts, lambda text: (len(text.ids), text.key))
        writer = PartWriter(self.rank, step.output, Scores.create_empty().schema, step.write_every_s)
        meter = Meter(self.rank, step.type, "texts", len(texts), len(own))
        limit = models.context_length(self.model, self.tokenizer)
        problems = {text.key: problem for text in own if (problem := _problem(text, limit))}
        writer.add([{"key": key, "score": None, "reason": problem} for key, problem in problems.items()])
        meter.add(len(problems), 0)
        readable = [text for text in own if text.key not in problems]
        work = batches(readable, lambda text: len(text.ids), 1 if pad_id is None else step.batch_tokens)
        idle = [Text("", [0])]
        with end_requests.answered_with(writer.flush):
            for batch in pad_to_longest_rank(work, idle, self.device) if zero.is_partitioned(self.model) else work:
                scores = activated(self._logits([text.ids for text in batch], pad_id or 0), step).tolist()
                if batch is not idle:
                    rows = zip(batch, scores, strict=True)
                    writer.add([{"key": text.key, "score": score, "reason": ""} for text, score in rows])
                    meter.add(len(batch), sum(len(text.ids) for text in batch))
        writer.close(len(own))
        return meter.result(self.device)

    def _set_padding(self, pair: PairRenderer) -> int | None:
        """Sets the token that pads short rows in the model's config and returns it; None: rows are scored one by one.

        A decoder's head reads the last token that is not the padding token. Where the model's config names a padding
        token, that rule is the model's own. Where it names none, a text's last token counts whatever it is: the padding
        token must then be one that occurs in no text.
        """
        config = self.model.config.get_text_config()
        if self.own_pad_id is None:
            config.pad_token_id = next((token for token in pair.unused_control_ids if token < config.vocab_size), None)
        pad_id: int | None = config.pad_token_id
        return pad_id

    @torch.no_grad()
    def _logits(self, rows: Sequence[Sequence[int]], pad_id: int) -> Tensor:
        """The classifier's outputs [B, L] for B texts and L labels; texts are padded on the right."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.device)
        return self.model(input_ids=ids, attention_mask=mask).logits  # type: ignore[no-any-return]


def _problem(text: Text, limit: int | None) -> str:
    """The reason why a text cannot be judged, empty where it can. No text is cut: an answer is judged by its end."""
    if not text.ids:
        return "nothing to read"
    is_too_long = limit is not None and len(text.ids) > limit
    return f"too long for the reward model: {len(text.ids)} tokens, at most {limit}" if is_too_long else ""


def activated(logits: Tensor, step: ScoreStep) -> Tensor:
    """The scores [B] of logits [B, L], in double precision: the label's logit, its sigmoid, or its softmax share."""
    logits = logits.double()
    if step.activation == "softmax":
        return logits.softmax(-1)[:, step.label]
    label_logits = logits[:, step.label]
    return label_logits.sigmoid() if step.activation == "sigmoid" else label_logits
