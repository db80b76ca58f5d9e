"""The language of `--where`: conditions over columns work, and no query can stand in one, however it is written."""

from contextlib import suppress

import polars as pl
import pytest
from finished_run import hir
from hypothesis import given, settings
from hypothesis import strategies as st

from hir_core.errors import ConfigError
from hir_core.inspect.conditions import BEGIN_A_QUERY, condition

TABLE = pl.DataFrame(
    {"k": [0, 1], "select_": ["it's", "a--b"], "ids": [[1], [2, 3]], "score": [None, 1e-3], "text": ["from", "\\d"]}
)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("k = 0", [0]),
        ("k IS NOT NULL AND k >= 0.5", [1]),
        ("select_ = 'it''s'", [0]),
        ("\"select_\" like '%--%'", [1]),
        ("text = 'from' or text = 'select 1 from x; -- /* $$ E'", [0]),
        ("text like 'fr%' and not k in (1, 2)", [0]),
        (r"text ~ '\\d' or text = 'z'", [1]),
        ("array_length(ids) > 1", [1]),
        ("array_contains(ids, 1)", [0]),
        ("score is distinct from 1", [0, 1]),
        ("score between 1E-4 and .5", [1]),
        ("cast(k as text) || 'x' = '1x'", [1]),
        ("k::int = -1 + 2", [1]),
        ("case when k = 1 then true else false end", [1]),
        ("length(select_) = 4 and k*2 <> 1 and k%2 = 0 and 3/1 = 3 and k < 1", [0]),
        ("\n  k =\t1  ", [1]),
    ],
)
def test_a_condition_chooses_rows(where, expected):
    assert TABLE.filter(condition(where))["k"].to_list() == expected


TABLE_FUNCTIONS = ["read_csv", "read_parquet", "read_ipc", "read_json", "read_ndjson", "scan_csv", "read_delta"]
QUERIES = [
    *(f"k in (select a from {function}('{{secret}}'))" for function in TABLE_FUNCTIONS),
    *(f"exists (select nope from {function}('{{secret}}'))" for function in TABLE_FUNCTIONS),
    "(select count(*) from read_csv('{secret}')) > 0",
    "k = (SELECT nope FROM READ_CSV('{secret}'))",
    "k = (\nSeLeCt\tnope from read_csv('{secret}'))",
    "k = any(select nope from read_csv('{secret}'))",
    "k in (with t as (select nope from read_csv('{secret}')) select * from t)",
    "k in (select 1 union select nope from read_csv('{secret}'))",
    "k in (from read_csv('{secret}'))",
    "k in (values (1)) or k in (table self)",
    "k in (select 1 from '{secret}')",
    "k = 1; select nope from read_csv('{secret}')",
    "k = 1 -- '\n or k in (select nope from read_csv('{secret}')) -- '",
    "k = 1 /* ' */ or k in (select nope from read_csv('{secret}')) /* ' */",
    "text = 'a\\' or k in (select nope from read_csv({secret})) --'",
    "text = E'\\' or k in (select nope from read_csv($a${secret}$a$)) or text = E'",
    "text = $$ ' $$ or k in (select nope from read_csv('{secret}')) or text = $$ ' $$",
    "text = $a$ ' $a$ or k in (select nope from read_csv('{secret}')) or text = $a$ ' $a$",
    "`\"` = 1 or k in (select nope from read_csv('{secret}')) or `\"` = 1",
    "# '\n k in (select nope from read_csv('{secret}'))",
    "k = 1 or k in (select nope from read_csv('{secret}')",
]


@pytest.mark.parametrize("query", QUERIES)
def test_a_condition_holds_no_query_and_opens_no_file(small_run, tmp_path, query):
    secret = tmp_path / "secret.csv"
    secret.write_text("password:hunter2\nhidden\n")
    shown = hir("head", "samples@1", "--where", query.format(secret=secret), code=2)
    assert "may contain no query" in shown or "is not allowed in it" in shown
    assert "hunter2" not in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize("function", TABLE_FUNCTIONS)
def test_a_function_that_reads_a_table_is_none_of_a_condition(tmp_path, function):
    with pytest.raises(ConfigError, match=f"unsupported function '{function}'"):
        condition(f"{function}('{tmp_path}/secret.csv')")


WORDS = st.sampled_from(
    [
        *("k", "in", "(", ")", "'", '"', "select", "from", "distinct", "read_csv", "--", "/*", "*/", "\\", "$$", "E'"),
        *("''", "x'", "\n", " ", ";", ",", "=", "1", "with", "table", "values", "`"),
    ]
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(WORDS, max_size=12).map("".join) | st.lists(WORDS, max_size=12).map(" ".join))
def test_whatever_is_accepted_holds_no_query_for_polars_either(text):
    with suppress(ConfigError):
        assert "subplan" not in str(condition(text))


def test_the_words_that_begin_a_query_are_refused_in_any_case_and_place():
    for word in BEGIN_A_QUERY:
        for text in (word, word.upper(), f"k = 1 and {word.title()}", f"({word} 1)"):
            with pytest.raises(ConfigError, match=f"(?i)not the word `{word}`"):
                condition(text)
