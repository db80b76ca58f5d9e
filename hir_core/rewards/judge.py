"""The reward `judge`: a score from 0 to 1 that another model gives, requested from an OpenAI-compatible endpoint.

Builds the requests and reads the scores out of the replies; `judge_endpoint` sends the requests. Reads and writes the
cache folder, in which every reply is kept by its request. The key is read from the environment when it is needed, and
stored nowhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hir_core.config import JudgeReward
from hir_core.errors import ConfigError, StoreError
from hir_core.progress import OnRows, ignore
from hir_core.rewards.judge_endpoint import Endpoint, Reply, read_key
from hir_core.rewards.patterns import find
from hir_core.rewards.reward import PromptRow, Reward, Verdict, shortened
from hir_core.schemas import as_text
from hir_core.store.files import read_json, write_json
from hir_core.time_limit import RowResult

_FIELDS = re.compile(r"\{(query|completion|references)\}")
_SCORE_SEARCH_LIMIT_S = 1.0


class Judge(Reward):
    """Asks a model how good each completion is: R = last score in its reply / best score.

    LLM-as-a-judge, as in Zheng et al. 2023 (arXiv 2306.05685). Every request is sent once, whatever run it belongs to:
    replies are kept in the cache folder. A completion whose reply holds no score, or none at all, cannot be judged.

    Raises:
        ConfigError: the environment variable of the key is not set, or the cache is a file.
    """

    name = "judge"
    config: JudgeReward

    def __init__(self, config: JudgeReward) -> None:
        super().__init__(config)
        read_key(config)
        if config.cache.exists() and not config.cache.is_dir():
            raise ConfigError(f"reward.cache {config.cache} is a file: name a folder, or one that is not there yet")

    def verdicts(
        self, completions: Sequence[str], prompts: Sequence[PromptRow], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        """As for every reward, but `on_rows` counts the requests: equal ones are sent once, known ones not at all."""
        requests = [self._request(text, prompt) for text, prompt in zip(completions, prompts, strict=True)]
        replies = self._replies(requests, on_rows)
        texts = [reply.text for reply in replies if not reply.problem]
        scores = iter(find(self.config.score_pattern, texts, group=1, how="last", limit_s=_SCORE_SEARCH_LIMIT_S))
        return [
            Verdict(None, reply.problem) if reply.problem else self._verdict(reply.text, next(scores))
            for reply in replies
        ]

    def _request(self, completion: str, prompt: PromptRow) -> dict[str, Any]:
        values = {
            "query": as_text(prompt["history"], prompt["query"]),
            "completion": completion,
            "references": " or ".join(prompt["references"]) or "none given",
        }
        # All fields are filled in one pass: braces inside a completion are text, not fields.
        text = _FIELDS.sub(lambda field: values[field[1]], self.config.template)
        return {**self.config.options, "model": self.config.model, "messages": [{"role": "user", "content": text}]}

    def _replies(self, requests: Sequence[dict[str, Any]], on_rows: OnRows) -> list[Reply]:
        """The reply to each request, from the cache where it is known."""
        cache = _Cache(self.config.cache)
        keys = [request_key(self.config.url, request) for request in requests]
        replies = {key: Reply(text) for key in set(keys) if (text := cache.find(key)) is not None}
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in replies}
        if missing:
            cache.prepare(next(iter(missing)))
            with Endpoint(self.config) as endpoint:
                replies |= endpoint.ask(missing, lambda key, text: cache.keep(key, missing[key], text), on_rows)
        return [replies[key] for key in keys]

    def _verdict(self, reply: str, match: RowResult) -> Verdict:
        if match.problem:
            return Verdict(None, f"reward.score_pattern took too long on the reply: {shortened(reply)}")
        try:
            score = float(match.value[0]) / self.config.best
        except (IndexError, TypeError, ValueError):
            return Verdict(None, f"no score in the reply: {shortened(reply)}")
        if not 0 <= score <= 1:
            return Verdict(None, f"score out of range: {shortened(match.value[0])}, expected 0 to {self.config.best:g}")
        return Verdict(score, shortened(reply))


def request_key(url: str, request: dict[str, Any]) -> str:
    """A digest of an address and a request to it: the name of the reply in the cache."""
    return hashlib.sha256(json.dumps([url, request], sort_keys=True).encode()).hexdigest()


class _Cache:
    """Replies by the key of their request, one file each, written atomically: `<folder>/<2 digits>/<key>.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def find(self, key: str) -> str | None:
        """The reply; None where there is none, or its file is damaged."""
        try:
            return str(read_json(self._file(key))["reply"])
        except (OSError, StoreError, KeyError, TypeError):
            return None

    def prepare(self, key: str) -> Path:
        """The file for a reply, in a folder that exists; called before the first request, which may cost money."""
        path = self._file(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write to reward.cache {self.folder}: {error.strerror}") from None
        return path

    def keep(self, key: str, request: dict[str, Any], reply: str) -> None:
        write_json(self.prepare(key), {"request": request, "reply": reply})
