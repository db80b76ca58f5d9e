"""The language of `--where`: one SQL condition over the columns of a table, in which no query can stand.

polars opens every file that a query inside a condition names, as in `k in (select … from read_csv('/etc/passwd'))`, and
does so while it parses the condition. So the text is checked before. It may consist of names, numbers, texts and
operators; the words with which a query begins are refused, and so is every way of writing by which polars could see a
text where this check sees none, or none where it sees one: comments, texts with a prefix, dollar quotes, a backslash
before a quote.
"""

from __future__ import annotations

import re

import polars as pl

from hir_core.errors import ConfigError

EXAMPLE = """as in "finish_reason = 'length' and k > 0\""""
BEGIN_A_QUERY = {"select", "from", "with", "values", "table", "insert", "update", "delete", "merge", "pivot", "unpivot"}
_TOKEN = re.compile(
    r"""
      '(?:[^'\\]|''|\\(?!'))*'                       # a text; a quote in it is doubled
    | "[^"]*"                                        # a name in quotes
    | [A-Za-z_]\w*(?!\w*['"])                        # a word, which is no prefix of a text
    | (?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w'"])
    | \s+
    | -(?!-) | /(?!\*)                               # -- and /* begin comments
    | [+*%=<>!~^|&(),.:]
    """,
    re.VERBOSE | re.ASCII,
)


def condition(text: str) -> pl.Expr:
    """The expression of a condition.

    Raises:
        ConfigError: it is not one condition, or contains what could be a query.
    """
    previous, place = "", 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            raise invalid(text, f"`{text[place : place + 10].partition(' ')[0]}` is not allowed in it")
        word = token[0].lower()
        # `is distinct from` is a comparison; a query begins with `from` only at its start or after a bracket.
        if word in BEGIN_A_QUERY and (word, previous) != ("from", "distinct"):
            raise invalid(text, f"it may contain no query, and so not the word `{token[0]}`")
        if not word.isspace():
            previous = word
        place = token.end()
    try:
        return pl.sql_expr(text)
    except pl.exceptions.PolarsError as error:
        raise invalid(text, str(error)) from None


def invalid(text: str, problem: str) -> ConfigError:
    """The error for a condition, on one line, with the first line of what is wrong with it."""
    shown, first = " ".join(text.split()), problem.partition("\n")[0]
    return ConfigError(f"--where: `{shown}` is not a valid filter: {first}; expected one SQL condition, {EXAMPLE}")
