"""The reward `judge`: a score from 0 to 1 that another model gives, asked over an OpenAI-compatible endpoint.

Builds the requests, looks up and keeps the replies, and reads the scores out of them; `judge_endpoint` asks. The key is
read from the environment when it is needed and kept nowhere. A reply without a score cannot be judged.
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
from hir_core.rewards.reward import Reward, Verdict, shortened
from hir_core.rewards.time_limit import Answer
from hir_core.schemas import as_text
from hir_core.store.files import read_json, write_json

_PLACES = re.compile(r"\{(query|completion|references)\}")
_READ_LIMIT_S = 1.0


class Judge(Reward):
    """Asks each question once, whatever run it belongs to: replies are kept in the cache folder.

    Raises:
        ConfigError: the environment holds no key where one is named.
    """

    name = "judge"
    config: JudgeReward

    def __init__(self, config: JudgeReward) -> None:
        super().__init__(config)
        read_key(config)
        if config.cache.exists() and not config.cache.is_dir():
            raise ConfigError(f"reward.cache {config.cache} is a file: name a folder, or one that is not there yet")

    def verdicts(
        self, completions: Sequence[str], prompts: Sequence[dict[str, Any]], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        requests = [self._request(text, prompt) for text, prompt in zip(completions, prompts, strict=True)]
        replies = self._replies(requests, on_rows)
        texts = [reply.text for reply in replies if not reply.problem]
        scores = iter(find(self.config.score_pattern, texts, group=1, how="last", limit_s=_READ_LIMIT_S))
        return [
            Verdict(None, reply.problem) if reply.problem else self._read(reply.text, next(scores)) for reply in replies
        ]

    def _request(self, completion: str, prompt: dict[str, Any]) -> dict[str, Any]:
        values = {
            "query": as_text(prompt["history"], prompt["query"]),
            "completion": completion,
            "references": " or ".join(prompt["references"]) or "none given",
        }
        # In one pass: braces inside a completion are text, not places to fill.
        text = _PLACES.sub(lambda place: values[place[1]], self.config.template)
        return {**self.config.options, "model": self.config.model, "messages": [{"role": "user", "content": text}]}

    def _replies(self, requests: Sequence[dict[str, Any]], on_rows: OnRows) -> list[Reply]:
        cache = _Cache(self.config.cache)
        names = [request_name(self.config.url, request) for request in requests]
        known = {name: Reply(text) for name in set(names) if (text := cache.find(name)) is not None}
        wanted = {name: request for name, request in zip(names, requests, strict=True) if name not in known}
        if wanted:
            cache.prepare(next(iter(wanted)))
            with Endpoint(self.config) as endpoint:
                known |= endpoint.ask(wanted, lambda name, text: cache.keep(name, wanted[name], text), on_rows)
        return [known[name] for name in names]

    def _read(self, reply: str, found: Answer) -> Verdict:
        if found.problem:
            return Verdict(None, f"the score was not found in time: {shortened(reply)}")
        try:
            score = float(found.value[0]) / self.config.best
        except (IndexError, TypeError, ValueError):
            return Verdict(None, f"no score in the reply: {shortened(reply)}")
        if not 0 <= score <= 1:
            return Verdict(None, f"score out of range: {shortened(found.value[0])}, expected 0 to {self.config.best:g}")
        return Verdict(score, shortened(reply))


def request_name(url: str, request: dict[str, Any]) -> str:
    """A digest of where and what is asked: equal requests, equal name."""
    return hashlib.sha256(json.dumps([url, request], sort_keys=True).encode()).hexdigest()


class _Cache:
    """Replies by their request's name, one file each, which appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _file(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.json"

    def find(self, name: str) -> str | None:
        try:
            return str(read_json(self._file(name))["reply"])
        except (OSError, StoreError, KeyError, TypeError):  # not there, or damaged: it is asked for
            return None

    def prepare(self, name: str) -> Path:
        """The file for a reply, its folder made; called before anything is paid for."""
        path = self._file(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write to reward.cache {self.folder}: {error.strerror}") from None
        return path

    def keep(self, name: str, request: dict[str, Any], reply: str) -> None:
        write_json(self.prepare(name), {"request": request, "reply": reply})
