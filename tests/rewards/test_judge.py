"""The reward `judge` against a real server of the protocol on this machine: replies, refusals, retries, the cache."""

import gzip
import json
import logging
import resource
import threading
import time
import tracemalloc
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from judge_server import KEY, Handler, reply
from reward_tables import verdicts

from hir_core.config import JudgeReward
from hir_core.config.load import parse_config
from hir_core.errors import ConfigError, HirError, RewardError, StoreError
from hir_core.rewards.judge_endpoint import FAILURES_IN_A_ROW, parse_retry_after
from hir_core.rewards.registry import build_reward

TINY = {"run": "tiny", "iterations": 1, "model": {"source": "m"}, "prompts": [{"path": "p.jsonl"}]}
ROW = {"query": "How many?", "references": ["8", "eight"]}


@pytest.fixture
def judge(tmp_path):
    """Builds the config of a judge with a fresh cache folder and no pauses between attempts."""

    def configure(server, **settings):
        usual = {"backoff_s": 0.0, "retries": 2, "timeout_s": 20.0, "cache": tmp_path / "cache", "model": "m-1"}
        return JudgeReward(type="judge", url=server.url, **(usual | settings))

    return configure


def texts_below(folder):
    return [path.read_text() for path in folder.rglob("*") if path.is_file()]


# --- what is asked, and what is read out of the reply ---


def test_a_judge_is_asked_with_the_filled_template_and_its_score_is_read(serve, judge):
    server = serve("It is close.\nScore: 0.75")
    config = judge(server, template="Q {query} R {references} C {completion} J {json}", options={"max_tokens": 9})
    assert verdicts(config, ["{query}"], ROW) == [(0.75, "'It is close. Score: 0.75'")]
    assert server.requests == [
        {
            "path": "/v1/chat/completions",
            "model": "m-1",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "Q How many? R 8 or eight C {query} J {json}"}],
        }
    ]
    assert "Authorization" not in server.headers[0]


def test_a_judge_is_shown_all_turns_of_a_conversation(serve, judge):
    server = serve("Score: 1")
    before = [{"role": "system", "content": "Be brief. {completion}"}, {"role": "assistant", "content": "What?"}]
    verdicts(judge(server, template="Q {query} C {completion}"), ["8"], {**ROW, "history": before})
    (message,) = server.requests[0]["messages"]
    assert message["content"] == "Q System: Be brief. {completion}\nAssistant: What?\nUser: How many? C 8"


@pytest.mark.parametrize(
    ("settings", "text", "score", "reason"),
    [
        ({"best": 10}, "score: 7", 0.7, "'score: 7'"),
        ({"best": 10}, "score: 11", None, "score out of range: '11', expected 0 to 10"),
        ({"score_pattern": r"(-?\d+)/5", "best": 5}, "4/5", 0.8, "'4/5'"),
        ({"score_pattern": r"(-?\d+)/5", "best": 5}, "-1/5", None, "score out of range: '-1'"),
        ({"score_pattern": r"(yes|no)"}, "yes", None, "no score in the reply: 'yes'"),
        ({"score_pattern": r"(\w+)$"}, "nan", None, "score out of range: 'nan'"),
    ],
)
def test_scores_are_read_by_the_pattern_and_brought_to_0_and_1(serve, judge, settings, text, score, reason):
    ((judged_score, judged_reason),) = verdicts(judge(serve(text), **settings), ["8"], ROW)
    assert judged_score == score
    assert judged_reason.startswith(reason)


def test_the_last_score_of_a_reply_counts_whatever_else_it_says(serve, judge):
    expected = {
        "Score: 1": 1.0,
        "I gave score 0.2 before. **Score:** 0.5": 0.5,
        "\0 \u202e שלום score: 1": 1.0,
        "It is right.": "no score in the reply: 'It is right.'",
        "Score: 1.2.3": "no score in the reply: 'Score: 1.2.3'",
        "Score: .": "no score in the reply: 'Score: .'",
        " ": "empty reply",
    }
    echo = serve(lambda number, request: request["messages"][0]["content"])
    judged = verdicts(judge(echo, template="{completion}"), list(expected), ROW)
    assert [reason if score is None else score for score, reason in judged] == list(expected.values())


def test_a_pattern_without_end_does_not_hang_on_a_reply(serve, judge):
    ((score, reason),) = verdicts(judge(serve("a" * 50 + "!"), score_pattern="(a+)+$"), ["8"], ROW)
    assert score is None
    assert reason.startswith("reward.score_pattern took too long on the reply: ")


def test_any_completion_reaches_the_judge_unchanged(serve, judge):
    server = serve("Score: 1")
    completions = ["", "\0", "x" * 10**6, "שלום\u202e", '{"a": "{completion}"}']
    judged = verdicts(judge(server, template="{completion}"), completions, ROW)
    assert [score for score, _ in judged] == [1.0] * 5
    assert sorted(request["messages"][0]["content"] for request in server.requests) == sorted(completions)


def test_a_malformed_reply_cannot_be_judged_and_is_not_kept(serve, judge):
    bodies = [
        b"",
        b"oops",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"text": "1"}]}',
        b"[" * 10**5,
        b"\xff\xfe",
    ]
    server = serve(lambda number, request: (200, {}, bodies[int(request["messages"][0]["content"])]))
    config = judge(server, template="{completion}")
    for _ in range(2):
        for score, reason in verdicts(config, list("01234567"), ROW):
            assert score is None
            assert reason.startswith("malformed reply: ")
    assert len(server.requests) == 16


@pytest.fixture(scope="module")
def bomb():
    """256 MiB as gzip in gzip, in a few kilobytes."""
    packed = gzip.compress(gzip.compress(bytes(2**28)))
    assert len(packed) < 5000
    return packed


@pytest.mark.parametrize("status", [200, 400, 404, 503])
@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip", "br", "identity, gzip", "Gzip"])
def test_a_compressed_reply_is_neither_asked_for_nor_unpacked(serve, judge, bomb, encoding, status):
    server = serve((status, {"Content-Encoding": encoding}, bomb))
    tracemalloc.start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        message = str(verdicts(judge(server, retries=0), ["8"], ROW))
    except RewardError as error:
        message = str(error)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # in kB
    assert server.headers[0]["Accept-Encoding"] == "identity"
    assert f"compressed as {encoding}, which was not asked for" in message or status == 503


def test_a_reply_that_says_that_it_is_not_compressed_is_read(serve, judge):
    server = serve((200, {"Content-Encoding": "identity"}, reply("Score: 1")))
    assert verdicts(judge(server), ["8"], ROW)[0][0] == 1.0


@pytest.mark.parametrize(
    "body",
    [b" " * 11_000_000, b"[" * 9_000_000, b"9" * 9_000_000, b'{"a":' * 500_000, b'{"choices": ' + b"[[]," * 10**6],
)
def test_a_reply_of_too_much_is_malformed_and_soon_given_up(serve, judge, body):
    started = time.monotonic()
    ((score, reason),) = verdicts(judge(serve((200, {}, body))), ["8"], ROW)
    assert score is None
    assert reason.startswith("malformed reply: ")
    assert len(reason) < 300
    assert time.monotonic() - started < 10


# --- when it does not answer ---


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_or_broken_judge_is_asked_again(serve, judge, status):
    server = serve(lambda number, request: (status, {}, b"wait") if number < 2 else "Score: 1")
    assert verdicts(judge(server), ["8"], ROW)[0][0] == 1.0
    assert len(server.requests) == 3


def test_the_pause_doubles_and_retry_after_goes_before_it(serve, judge):
    server = serve(lambda number, request: (503, {}, b"") if number < 2 else "Score: 1")
    verdicts(judge(server, backoff_s=0.2), ["8"], ROW)
    first, second = (later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False))
    assert first >= 0.2
    assert second >= 0.4
    server = serve(lambda number, request: (429, {"Retry-After": "1"}, b"") if number == 0 else "Score: 1")
    verdicts(judge(server, backoff_s=0.0), ["9"], ROW)
    assert server.times[1] - server.times[0] >= 1


def test_retry_after_is_seconds_or_a_date():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert [parse_retry_after(value) for value in ("3", "0.5", "-1", "", "soon", "nan")] == [
        3,
        0.5,
        0,
        None,
        None,
        None,
    ]
    assert 85 < parse_retry_after(later) <= 90


def test_a_judge_that_asks_for_an_hour_ends_the_run_at_once(serve, judge):
    server = serve((429, {"Retry-After": "3600"}, b""))
    with pytest.raises(RewardError, match="asks to wait 3600 s: run again later"):
        verdicts(judge(server), ["8"], ROW)
    assert len(server.requests) == 1


def test_a_judge_that_stays_busy_ends_the_run_with_what_was_answered_kept(serve, judge):
    server = serve(lambda number, request: "Score: 1" if number == 0 else (429, {}, b""))
    config = judge(server, max_concurrency=1)
    with pytest.raises(RewardError, match=r"no reply after 3 attempts: answered 429\. The replies so far are kept"):
        verdicts(config, ["8", "9"], ROW)
    assert len(texts_below(config.cache)) == 1


def test_a_judge_that_breaks_on_one_request_leaves_that_one_without_a_score(serve, judge):
    server = serve(lambda number, request: (500, {}, b"") if "nine" in str(request) else "Score: 1")
    assert verdicts(judge(server), ["8", "nine"], ROW) == [(1.0, "'Score: 1'"), (None, "answered 500")]
    assert len(server.requests) == 1 + 3


def test_a_refused_request_cannot_be_judged_and_is_not_asked_again(serve, judge):
    server = serve((400, {}, b'{"error": "too long"}'))
    assert verdicts(judge(server), ["8"], ROW) == [(None, 'refused with 400: \'{"error": "too long"}\'')]
    assert len(server.requests) == 1


def test_many_failures_in_a_row_end_the_run(serve, judge):
    server = serve((400, {}, b"no"))
    with pytest.raises(
        RewardError, match=f"no reply {FAILURES_IN_A_ROW} times in a row, the last: refused with 400: 'no'"
    ):
        verdicts(judge(server, max_concurrency=2), [str(number) for number in range(200)], ROW)
    assert len(server.requests) < 100


def test_an_answer_that_comes_too_late_cannot_be_judged_and_is_not_paid_for_again(serve, judge):
    server = serve(lambda number, request: time.sleep(3))
    assert verdicts(judge(server, timeout_s=0.3), ["8"], ROW) == [(None, "timed out")]
    assert len(server.requests) == 1


def test_an_answer_that_trickles_is_too_late_as_well(serve, judge):
    class Slow(Handler):
        def answer(self, *_):
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # nobody listens any more
                for _ in range(60):
                    self.wfile.write(b" ")
                    time.sleep(0.05)

    server = serve("Score: 1")
    server.RequestHandlerClass = Slow
    assert verdicts(judge(server, timeout_s=0.3), ["8"], ROW) == [(None, "timed out")]


def test_a_judge_that_cannot_be_reached_ends_the_run(serve, judge):
    server = serve("Score: 1")
    server.shutdown()
    server.server_close()
    with pytest.raises(RewardError, match=r"127\.0\.0\.1.* gave no reply after 3 attempts: ConnectError"):
        verdicts(judge(server), ["8"], ROW)


def test_a_connection_that_breaks_is_tried_again(serve, judge):
    server = serve(lambda number, request: None if number == 0 else "Score: 1")
    assert verdicts(judge(server), ["8"], ROW)[0][0] == 1.0
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {}, b"no model m-1"), "answered 404: 'no model m-1': correct reward.url or reward.model"),
        ((401, {}, b""), "answered 401: it requires a key: set reward.api_key_env"),
    ],
)
def test_what_concerns_every_request_ends_the_run_with_what_to_do(serve, judge, answer, message):
    with pytest.raises(RewardError) as caught:
        verdicts(judge(serve(answer)), ["8", "9"], ROW)
    assert message in str(caught.value)


# --- many at once, and never twice ---


def test_requests_run_beside_each_other_up_to_the_limit(serve, judge):
    four = threading.Barrier(4)

    def together(number, request):
        four.wait(60)
        return f"Score: 0.{request['messages'][0]['content']}"

    server = serve(together)
    config = judge(server, max_concurrency=4, timeout_s=60, template="{completion}")
    judged = verdicts(config, [str(number) for number in range(1, 9)], ROW)
    assert [score for score, _ in judged] == [number / 10 for number in range(1, 9)]
    assert server.busiest == 4


def test_no_request_is_made_twice_and_the_cache_needs_no_network(serve, judge, tmp_path):
    server = serve("Score: 1")
    config = judge(server)
    assert [score for score, _ in verdicts(config, ["8", "8", "9"], ROW)] == [1.0] * 3
    assert len(server.requests) == 2
    server.shutdown()
    server.server_close()
    assert [score for score, _ in verdicts(config, ["9", "8"], ROW)] == [1.0] * 2
    harder = config.model_copy(update={"best": 2.0, "timeout_s": 1.0})
    assert [score for score, _ in verdicts(harder, ["9"], ROW)] == [0.5]
    for change in ({"model": "m-2"}, {"template": "Other: {completion}"}, {"options": {"temperature": 1}}):
        with pytest.raises(RewardError, match="gave no reply after"):
            verdicts(config.model_copy(update=change), ["9"], ROW)


def test_a_damaged_or_half_written_reply_is_asked_for_again(serve, judge):
    server = serve("Score: 1")
    config = judge(server)
    verdicts(config, ["8"], ROW)
    (file,) = (path for path in config.cache.rglob("*") if path.is_file())
    for damage in ('{"reply": "Scor', "", "[]", "{}"):
        file.write_text(damage)
        file.with_name(f".{file.name}.abcd.tmp").write_text("half")
        assert verdicts(config, ["8"], ROW)[0][0] == 1.0
    assert len(server.requests) == 5


def test_a_cache_that_cannot_be_written_stops_before_anything_is_paid(serve, judge, tmp_path):
    (tmp_path / "file").write_text("")
    server = serve("Score: 1")
    with pytest.raises(ConfigError, match="is a file: name a folder"):
        build_reward(judge(server, cache=tmp_path / "file"))
    with pytest.raises(StoreError, match=r"cannot write to reward\.cache"):
        verdicts(judge(server, cache=tmp_path / "file" / "below"), ["8"], ROW)
    assert server.requests == []


# --- secrets ---


def test_the_key_is_sent_and_stands_nowhere_else(serve, judge, monkeypatch, caplog):
    monkeypatch.setenv("MY_JUDGE_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    server = serve("Score: 1")
    config = judge(server, api_key_env="MY_JUDGE_KEY")
    reward = build_reward(config)
    assert verdicts(config, ["8"], ROW)[0][0] == 1.0
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    places = [json.dumps(reward.fingerprint()), repr(reward), repr(vars(reward)), repr(config), caplog.text]
    assert all(KEY not in text for text in [*places, *texts_below(config.cache)])
    assert "MY_JUDGE_KEY" not in json.dumps(reward.fingerprint())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302, 200])
def test_a_judge_that_repeats_the_key_does_not_bring_it_into_a_message(serve, judge, monkeypatch, status):
    monkeypatch.setenv("MY_JUDGE_KEY", KEY)
    server = serve((status, {"Location": f"/{KEY}"}, f"your key {KEY} is odd".encode()))
    try:
        message = str(verdicts(judge(server, api_key_env="MY_JUDGE_KEY"), ["8"], ROW))
    except HirError as error:
        message = f"{error} {error.__cause__}"
    assert KEY not in message
    assert str(status) in message or "malformed" in message


def test_a_refused_key_is_named_by_its_variable(serve, judge, monkeypatch):
    monkeypatch.setenv("MY_JUDGE_KEY", KEY)
    with pytest.raises(RewardError, match="answered 401: it does not accept the key in MY_JUDGE_KEY: set"):
        verdicts(judge(serve((401, {}, b"")), api_key_env="MY_JUDGE_KEY"), ["8"], ROW)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_follows_no_redirect(serve, judge, monkeypatch, status):
    monkeypatch.setenv("MY_JUDGE_KEY", KEY)
    other = serve("Score: 1")
    server = serve((status, {"Location": f"{other.url}/chat/completions"}, b""))
    with pytest.raises(RewardError, match=rf"answered {status}, a redirect to 'http://127.*: set reward\.url to the"):
        verdicts(judge(server, api_key_env="MY_JUDGE_KEY"), ["8"], ROW)
    assert other.requests == []


@pytest.mark.parametrize(
    ("value", "message"),
    [(None, "MY_JUDGE_KEY, which is not set: export it"), (" ", "which is not set"), ("a b", "holds no key")],
)
def test_a_key_that_is_missing_or_none_is_told_before_anything_is_asked(judge, serve, monkeypatch, value, message):
    if value is not None:
        monkeypatch.setenv("MY_JUDGE_KEY", value)
    with pytest.raises(ConfigError, match=message):
        build_reward(judge(serve("Score: 1"), api_key_env="MY_JUDGE_KEY"))


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"api_key_env": KEY}, "api_key_env must be the name of a variable in capitals"),
        ({"api_key": KEY}, "reward.api_key: unknown key; did you mean `api_key_env`?"),
        ({"url": f"https://me:{KEY}@host/v1"}, "url must hold no key"),
        ({"url": f"https://host/v1?key={KEY}"}, "url must hold no key"),
        ({"url": "host:80/v1"}, "url must begin with http:// or https://"),
        ({"template": "How good?"}, "template must hold {completion}"),
        ({"score_pattern": r"\d"}, "has no group 1"),
        ({"options": {"model": "x"}}, "options must not set model, which hir decides"),
        ({"max_concurrency": 0}, "reward.max_concurrency: expected at least 1"),
        ({"best": 0}, "reward.best: expected more than 0"),
    ],
)
def test_wrong_settings_are_told_without_the_secrets_in_them(settings, message):
    with pytest.raises(ConfigError) as caught:
        parse_config({**TINY, "reward": {"type": "judge", "url": "https://host/v1", "model": "m", **settings}})
    assert message in str(caught.value)
    assert KEY not in str(caught.value)


def test_what_only_makes_it_faster_is_not_in_the_fingerprint():
    config = JudgeReward(type="judge", url="https://host/v1", model="m")
    faster = {"max_concurrency": 1, "timeout_s": 1.0, "retries": 0, "backoff_s": 0.0, "cache": Path("c")}
    assert config.model_copy(update=faster | {"api_key_env": "K"}).fingerprint() == config.fingerprint()
    assert set(config.fingerprint()) == {"type", "url", "model", "template", "score_pattern", "best", "options"}
    assert Counter(config.fingerprint()["template"].split())["{completion}"] == 1
