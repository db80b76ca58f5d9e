"""Messages of errors: whatever they quote, each line stays one printable line of bounded length."""

import copy

import pytest

from hir_core.errors import LONGEST_LINE, ConfigError, HirError, JobFailed


@pytest.mark.parametrize("quoted", ["a\nerror: b", "\x1b[31m", "\0", "\r", "\u202e", "\u2028", "\x85", "\ud800"])
def test_what_a_message_quotes_neither_acts_on_a_terminal_nor_begins_a_line(quoted):
    message = str(ConfigError(f"no such file {quoted}"))
    assert message.isprintable()
    assert message == "no such file " + quoted.encode("unicode_escape", "backslashreplace").decode()


def test_lines_that_list_what_a_message_is_about_stay_lines():
    assert str(ConfigError("2 problems", "  a", "  b\n")) == "2 problems\n  a\n  b\\n"


def test_of_an_endless_line_the_beginning_and_the_end_are_left():
    message = str(ConfigError(f"found {'x' * 30_000}: correct it"))
    assert message.startswith("found xxx")
    assert message.endswith("xxx: correct it")
    assert "characters) …" in message
    assert len(message) <= LONGEST_LINE


@pytest.mark.parametrize("error", [ConfigError("a", "  b\n"), JobFailed("a", tail=["b\n", "c"], command=["d"], rank=1)])
def test_a_copy_of_an_error_says_the_same(error: HirError):
    assert str(copy.copy(error)) == str(error)
