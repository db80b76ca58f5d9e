"""Only hosts that know the key of a launch speak with its head, and nobody else can make it wait or fail."""

import os
import select
import socket
import stat
import threading
import time
from collections.abc import Iterator

import pytest
from launched_work import wait_until

from hir_core.errors import ConfigError
from hir_core.launch import head as head_module
from hir_core.launch.channel import NONCE_DIGITS, Channel
from hir_core.launch.head import Head
from hir_core.launch.head_file import HeadFile, head_file, read_head_file, write_head_file
from hir_core.launch.host import join
from hir_core.launch.messages import Alive, Ended, Goodbye, Hello, Message, Start, decoded, encoded

KEY = b"k" * 32
OPEN: list[socket.socket | Channel] = []
"""Connections of the test that runs, which are closed at its end."""
START = Start("/runs/a/job", "hir_core.worker", [8, 8], "10.0.0.1", 29500, 1800.0, 30.0)


@pytest.fixture(autouse=True)
def closed_at_the_end() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture
def head(monkeypatch) -> Iterator[Head]:
    monkeypatch.setattr(head_module, "JOIN_S", 1.0)
    monkeypatch.setattr(head_module, "MOST_STRANGERS", 8)
    head = Head(nodes=2)
    yield head
    head.close(is_done=False)


def file_of(head: Head, key: bytes | None = None) -> HeadFile:
    return HeadFile(addresses=("127.0.0.1",), port=head.port, key=(key or head.key).hex(), env={})


def stranger(head: Head) -> socket.socket:
    OPEN.append(connection := socket.create_connection(("127.0.0.1", head.port), 5))
    return connection


def joined(head: Head, hello: Hello) -> Channel:
    OPEN.append(channel := join(file_of(head), hello))
    return channel


def is_cut(connection: socket.socket, seconds: float) -> bool:
    """Whether the other end closes the connection in time, whatever it sends before."""
    deadline = time.monotonic() + seconds
    while select.select([connection], [], [], max(0.0, deadline - time.monotonic()))[0]:
        try:
            if not connection.recv(4096):
                return True
        except OSError:
            return True
    return False


def ends() -> dict[str, Channel]:
    """Both ends of a connection."""
    near, far = tcp_pair()
    made: dict[str, Channel] = {}
    thread = threading.Thread(target=lambda: made.update(host=Channel(far, KEY, "host", 5)))
    thread.start()
    made["head"] = Channel(near, KEY, "head", 5)
    thread.join()
    return made


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near = listener.accept()[0]
    OPEN.extend((near, far))
    return near, far


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [START, Alive(1.5), Hello(1, "a\nb", 8, "no GPU"), Ended(-9), Goodbye()])
def test_a_message_is_one_line_and_read_as_it_was_sent(message: Message):
    assert b"\n" not in encoded(message)
    assert decoded(encoded(message)) == message


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"type": "Start"}', b'{"type": "os.system"}', b"\xff"])
def test_what_is_no_message_is_refused(content):
    with pytest.raises(ConnectionError):
        decoded(content)


def test_messages_arrive_in_order_and_a_silent_peer_is_not_waited_for():
    both = ends()
    for number in range(100):
        both["head"].send(Ended(number))
    assert [both["host"].receive(5) for _ in range(100)] == [Ended(number) for number in range(100)]
    assert both["host"].receive(0.01) is None
    both["head"].close()
    with pytest.raises(ConnectionError):
        both["host"].receive(5)


@pytest.mark.parametrize("change", ["one bit", "repeated", "reflected", "left out"])
def test_a_message_that_was_changed_on_its_way_is_refused(change):
    """Between the ends somebody reads and writes, who has seen all of it but not the key."""
    near, near_middle = tcp_pair()
    far_middle, far = tcp_pair()
    made: dict[str, Channel] = {}
    threads = [
        threading.Thread(target=lambda: made.update(head=Channel(near, KEY, "head", 5))),
        threading.Thread(target=lambda: made.update(host=Channel(far, KEY, "host", 5))),
    ]
    for thread in threads:
        thread.start()
    for reader, writer in ((near_middle, far_middle), (far_middle, near_middle)):
        writer.sendall(reader.recv(4096))
    for thread in threads:
        thread.join()
    made["head"].send(START)
    made["head"].send(Goodbye())
    lines = near_middle.recv(65536).splitlines(keepends=True)
    sent = {
        "one bit": [lines[0].replace(b"hir_core.worker", b"hir_core.worked")],
        "repeated": [lines[0], lines[0]],
        "left out": [lines[1]],
    }
    if change == "reflected":
        near_middle.sendall(lines[0])
        victim = made["head"]
    else:
        far_middle.sendall(b"".join(sent[change]))
        victim = made["host"]
    if change == "repeated":
        assert victim.receive(5) == START
    with pytest.raises(ConnectionError, match="does not know the key"):
        victim.receive(5)


# --- the head --------------------------------------------------------------------------------------------------------


def test_a_host_joins_is_followed_and_is_lost_when_it_closes(head):
    assert head.missing() == [0, 1]
    channel = joined(head, Hello(1, "far", 4))
    assert wait_until(lambda: head.missing() == [0], 5)
    [host] = head.hosts()
    channel.send(Alive(time.time() + 100))
    channel.send(Ended(3))
    assert wait_until(lambda: host.code == 3, 5)
    assert host.clock_lead_s == pytest.approx(100, abs=5)
    channel.close()
    assert wait_until(lambda: host.loss is not None, 5)
    assert host.loss.reason == "host 1 (far, 127.0.0.1) is lost: the connection was closed"
    assert head.missing() == [0, 1]


def test_a_host_that_is_silent_is_lost_and_one_that_joins_anew_takes_its_place(head, monkeypatch):
    monkeypatch.setattr(head_module, "SILENCE_S", 1.5)
    joined(head, Hello(0, "a", 1))
    assert wait_until(lambda: head.hosts(), 5)
    [first] = head.hosts()
    assert wait_until(lambda: first.loss is not None, 6)
    assert "nothing was heard from it for 1.5 s" in first.loss.reason
    joined(head, Hello(0, "b", 1))
    assert wait_until(lambda: head.hosts(), 5)
    [second] = head.hosts()
    joined(head, Hello(0, "c", 1))
    assert wait_until(lambda: second.loss is not None, 5)
    assert "it has joined anew" in second.loss.reason
    assert [host.hello.name for host in head.hosts()] == ["c"]


def test_a_host_with_a_number_too_high_is_told_so(head):
    with pytest.raises(ConfigError, match="this is host 2, and the run has 2, counted from 0"):
        joined(head, Hello(2, "a", 1))


def test_a_wrong_key_opens_nothing_on_either_side(head):
    with pytest.raises(ConnectionError):
        join(file_of(head, b"x" * 32), Hello(0, "a", 1))
    assert head.missing() == [0, 1]
    with socket.create_server(("127.0.0.1", 0)) as impostor:  # a host obeys nobody else either

        def greet() -> None:
            connection, _ = impostor.accept()
            OPEN.append(connection)
            channel = Channel(connection, b"x" * 32, "head", 5)
            channel.send(START)

        threading.Thread(target=greet).start()
        with pytest.raises(ConnectionError, match="does not know the key"):
            join(
                HeadFile(addresses=("127.0.0.1",), port=impostor.getsockname()[1], key=KEY.hex(), env={}),
                Hello(0, "a", 1),
            )


@pytest.mark.parametrize(
    "sent",
    [
        b"",  # silence
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\xff" * 40000,
        b"0" * NONCE_DIGITS + b"\n" + b"{}\n",
        b"0" * NONCE_DIGITS + b"\n" + b"a" * 70000,
    ],
)
def test_a_stranger_is_cut_off_whatever_it_sends(head, sent):
    connection = stranger(head)
    try:
        connection.sendall(sent)
    except OSError:
        return
    assert is_cut(connection, 5)
    assert head.missing() == [0, 1]


def test_a_stranger_that_sends_a_byte_now_and_then_is_cut_off(head):
    connection = stranger(head)
    begun = time.monotonic()
    while time.monotonic() < begun + 5:
        try:
            connection.sendall(b"0")
        except OSError:
            break
        if is_cut(connection, 0.1):
            break
    assert time.monotonic() - begun < 4


def test_a_stranger_that_closes_its_sending_half_is_cut_off(head):
    connection = stranger(head)
    connection.shutdown(socket.SHUT_WR)
    assert is_cut(connection, 5)


def test_a_host_joins_while_many_strangers_hold_connections(head):
    strangers = [stranger(head) for _ in range(40)]
    joined(head, Hello(0, "a", 1))
    assert wait_until(lambda: head.missing() == [1], 5)
    assert is_cut(strangers[0], 5), "the oldest makes room"


# --- its file --------------------------------------------------------------------------------------------------------


def test_the_file_with_the_key_is_for_its_owner_only_and_a_link_is_not_followed(tmp_path):
    path = head_file(tmp_path)
    content = HeadFile(addresses=("10.0.0.1",), port=7, key=KEY.hex(), env={})
    previous = os.umask(0)
    try:
        write_head_file(path, content)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_head_file(path) == content
    (tmp_path / "precious").write_text("precious")
    path.unlink()
    path.symlink_to(tmp_path / "precious")
    write_head_file(path, content)
    assert (tmp_path / "precious").read_text() == "precious"
    path.write_text("{")
    assert read_head_file(path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_that_another_user_has_put_there_is_not_obeyed(tmp_path):
    path = head_file(tmp_path)
    write_head_file(path, HeadFile(addresses=("10.0.0.1",), port=7, key=KEY.hex(), env={}))
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigError, match="not of the owner of its folder"):
        read_head_file(path)
