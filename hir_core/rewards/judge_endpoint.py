"""Requests of the reward `judge` to a chat-completions endpoint: many at once, repeated where that may help.

A problem of one request (refused, timed out, malformed reply) leaves that request without a reply. A problem of all
requests (key, address, no connection) is raised as one RewardError. Redirects are not followed, so that the key is sent
to one host only. No compressed reply is asked for, and none is unpacked: a kilobyte of it can hold gigabytes. Reads the
environment variable of the key; writes nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event
from typing import Any

import httpx

from hir_core.config import JudgeReward
from hir_core.errors import ConfigError, RewardError
from hir_core.progress import OnRows, counted, ignore
from hir_core.rewards.reward import shortened

FAILURES_IN_A_ROW = 20
"""After so many requests in a row without a reply no more are sent: they would most likely fail as well."""
LONGEST_PAUSE_S, LONGEST_RETRY_AFTER_S = 60.0, 300.0
LARGEST_REPLY_BYTES = 10_000_000
_STATUS_TO_RETRY = {408, 425, 429, *range(500, 600)}


@dataclass(frozen=True)
class Reply:
    """What the judge wrote, or the problem that left a request without a reply."""

    text: str = ""
    problem: str = ""


class _RetryableError(Exception):
    """An attempt that brought no reply, where another attempt may bring one."""

    def __init__(self, reason: str, *, after_s: float | None = None, concerns_all: bool = False) -> None:
        super().__init__(reason)
        self.after_s, self.concerns_all = after_s, concerns_all


def read_key(config: JudgeReward) -> str | None:
    """The key in the environment variable that the config names; None where it names no variable.

    Raises:
        ConfigError: the variable is not set, or holds what cannot be sent in a header.
    """
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise ConfigError(f"reward.api_key_env names {config.api_key_env}, which is not set: export it with the key")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(
            f"{config.api_key_env}, which reward.api_key_env names, holds no key: found spaces or control characters"
        )
    return key


class Endpoint:
    """A connection to the judge, to be closed after use."""

    def __init__(self, config: JudgeReward) -> None:
        self.config = config
        self.address = f"{config.url.rstrip('/').removesuffix('/chat/completions')}/chat/completions"
        self._key = read_key(config)
        self._stopped = Event()
        headers = {"Accept-Encoding": "identity"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        limits = httpx.Limits(max_connections=config.max_concurrency)
        self._client = httpx.Client(headers=headers, timeout=config.timeout_s, limits=limits, follow_redirects=False)

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(
        self,
        requests: Mapping[str, dict[str, Any]],
        on_reply: Callable[[str, str], object],
        on_rows: OnRows = ignore,
    ) -> dict[str, Reply]:
        """The reply to each request, by the same key.

        Args:
            requests: request bodies by key.
            on_reply: called with the key and the text of a reply as soon as it arrives, from several threads.
            on_rows: called with how many requests are done, and of how many.

        Raises:
            RewardError: the judge refuses the key, cannot be reached, or gives no reply many times in a row.
        """

        def ask_one(key: str) -> Reply:
            reply = self._ask_with_retries(requests[key])
            if not reply.problem:
                on_reply(key, reply.text)
            return reply

        replies: dict[str, Reply] = {}
        with ThreadPoolExecutor(self.config.max_concurrency) as pool:
            futures = {pool.submit(ask_one, key): key for key in requests}
            failures = 0
            try:
                for future in counted(as_completed(futures), len(futures), on_rows):
                    reply = replies[futures[future]] = future.result()
                    failures = failures + 1 if reply.problem else 0
                    if failures >= FAILURES_IN_A_ROW:
                        raise self._error(f"gave no reply {failures} times in a row, the last: {reply.problem}")
            finally:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
        return replies

    def _ask_with_retries(self, request: dict[str, Any]) -> Reply:
        for attempt in range(self.config.retries + 1):
            try:
                return self._attempt(request)
            except _RetryableError as error:
                is_last = attempt == self.config.retries or self._stopped.is_set()
                if is_last and error.concerns_all:
                    raise self._error(f"gave no reply after {attempt + 1} attempts: {error}") from None
                if is_last:
                    return Reply(problem=str(error))
                backoff_s = min(self.config.backoff_s * 2**attempt, LONGEST_PAUSE_S)
                if self._stopped.wait(backoff_s if error.after_s is None else error.after_s):
                    return Reply(problem=str(error))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _attempt(self, request: dict[str, Any]) -> Reply:
        deadline = time.monotonic() + self.config.timeout_s
        try:
            with self._client.stream("POST", self.address, json=request) as response:
                encoding = response.headers.get("content-encoding", "identity")
                if encoding.strip().lower() != "identity":
                    return self._reply(response, f"(compressed as {encoding}, which was not asked for)".encode())
                body = bytearray()
                for chunk in response.iter_raw():  # as it arrives, so that the limit holds before anything is decoded
                    body += chunk
                    if time.monotonic() > deadline:  # httpx limits each read, not all of them together
                        return Reply(problem="timed out")
                    if len(body) > LARGEST_REPLY_BYTES:
                        return Reply(problem="malformed reply: larger than 10 MB")
        except (httpx.ReadTimeout, httpx.WriteTimeout):  # not sent again: it may have been charged already
            return Reply(problem="timed out")
        except httpx.TransportError as error:
            raise _RetryableError(f"{type(error).__name__} {error}".strip(), concerns_all=True) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Reply(problem=f"malformed reply: {self._safe(str(error))}")
        return self._reply(response, bytes(body))

    def _reply(self, response: httpx.Response, body: bytes) -> Reply:
        status = response.status_code
        if status in _STATUS_TO_RETRY:
            after_s = parse_retry_after(response.headers.get("retry-after", ""))
            if after_s is not None and after_s > LONGEST_RETRY_AFTER_S:
                raise self._error(f"answered {status} and asks to wait {after_s:.0f} s: run again later")
            raise _RetryableError(f"answered {status}", after_s=after_s, concerns_all=status == 429)
        if status in (401, 403):
            variable = self.config.api_key_env
            raise self._error(
                f"answered {status}: it requires a key: set reward.api_key_env to the name of an environment variable "
                "that holds it"
                if variable is None
                else f"answered {status}: it does not accept the key in {variable}: set that variable to a valid key"
            )
        if 300 <= status < 400:
            target = self._safe(response.headers.get("location", "nowhere"))
            raise self._error(f"answered {status}, a redirect to {target}: set reward.url to the right address")
        if status in (404, 405, 410):
            raise self._error(f"answered {status}: {self._safe(body)}: correct reward.url or reward.model")
        if status >= 400:
            return Reply(problem=f"refused with {status}: {self._safe(body)}")
        try:
            text = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return Reply(problem=f"malformed reply: {self._safe(body)}")
        if not isinstance(text, str) or not text.strip():
            return Reply(problem="empty reply")
        return Reply(text)

    def _safe(self, text: str | bytes) -> str:
        """The beginning of what the judge wrote, without the key: the judge may repeat it, a message must not."""
        plain = text if isinstance(text, str) else text[:4096].decode(errors="replace")
        return shortened(plain.replace(self._key, "***") if self._key else plain, 200)

    def _error(self, what: str) -> RewardError:
        return RewardError(
            f"reward judge: {self.address} {what}. The replies so far are kept in {self.config.cache}: the same "
            "command requests only the missing ones"
        )


def parse_retry_after(value: str) -> float | None:
    """The seconds to wait by a Retry-After header, which holds seconds or a date; None where it holds neither."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None
