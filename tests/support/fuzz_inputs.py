"""Inputs for the fuzzing of readers: valid documents and files, changed in a few places.

A document is changed by its structure, so that most of it stays readable: any value may become one of any other type,
be repeated, lost, wrapped or exchanged, and any key renamed. Files are changed byte by byte. Everything is drawn by
Hypothesis, which shrinks what it finds.
"""

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st


class Raw(str):
    """A token that is written into a document as it is."""


class Pairs(list[list[Any]]):
    """An object, as [key, value] pairs, so that a key can occur twice."""


def nested(opening: str, closing: str, depth: int) -> Raw:
    return Raw(opening * depth + closing * depth)


DEPTHS = (90, 99, 100, 101, 300, 480, 960, 985, 5_000, 100_000)
HOSTILE_TEXTS = [
    *("", " ", "\0", "\ufeff", "\u202e", "\u2028", "\x1c", "\x85", "\x1b[31mred\x07", "two\nlines", "a\r\nb", "é😀"),
    *(
        "x" * 300,
        "x" * 20_000,
        "{query}{0}{",
        "%s%(x)s",
        "(A)",
        "[",
        "]",
        "-",
        "=",
        "nan",
        "inf",
        "1e999",
        "0x",
        "None",
    ),
    *("../../outside", "/dev/zero", "/etc/passwd", "~", ".", "..", "a/b", "a\0b", "http://[", "file:///etc/passwd"),
    *("2024-13-45", "0000-00-00T00:00:00Z", "9999-12-31T23:59:59.999999+00:00", "0001-01-01T00:00:00+23:59"),
    *("(a+)+$", "(?P<a", "a{99999999999}", "[[a]", "\\", "(?i", "٣", "task", "query", "A", "B"),
]
HOSTILE_KEYS = [
    "",
    " ",
    "\0",
    "x" * 5_000,
    "\ud800",
    "a.b",
    "type",
    "query",
    "metadata",
    "messages",
    "a\nb",
    "\x1b[31m",
]
HOSTILE_JSON = [
    *(
        Raw(token)
        for token in ("null", "true", "false", "0", "1", "-1", "2", "0.5", "1e999", "-1e999", "1e-999", "-0.0")
    ),
    *(
        Raw(token)
        for token in ("NaN", "Infinity", "-Infinity", "9223372036854775808", "1" * 400, "1" * 5_000, "1.5e308")
    ),
    *(Raw(token) for token in ('"\\ud800"', '"a\\udfffb"', '{"\\ud800": 1}', "[]", "{}", "[[]]", "[null]", '{"": {}}')),
    *(
        Raw(token)
        for token in ("[1, 2]", '["a", "a"]', '{"a": 1, "a": 2}', "", "undefined", "'a'", "01", "+1", "//", '"')
    ),
    *(nested("[", "]", depth) for depth in DEPTHS),
    *(nested('{"a":', "}", depth) for depth in DEPTHS[:7]),  # without a value: what reads it meets the depth first
    *(Raw('{"a":' * depth + "1" + "}" * depth) for depth in DEPTHS[:8]),
]
BOMB = "[" + ", ".join(f"&a{n} [" + ", ".join([f"*a{n - 1}" if n else "x"] * 9) + "]" for n in range(12)) + "]"
MERGED = "[&b0 {x: 1}" + "".join(
    f", &b{n} {{<<: [*b{n - 1}, *b{n - 1}], y{n}: {{<<: *b{n - 1}}}}}" for n in range(1, 30)
)
HOSTILE_YAML = [
    *(Raw(token) for token in ("~", "yes", "0x", "0x_", "0b", "_", "1__0", "0o7", "08", "1_000", "190:20:30", "1:99")),
    *(
        Raw(token)
        for token in (".inf", "-.inf", ".nan", "1.0e+400", "1e5", "0x" + "f" * 3_000, "1" + ":1" * 3_000, "=", "<<")
    ),
    *(Raw(token) for token in ("2024-13-45", "2024-01-01", "2001-12-14t21:59:43.10-05:00", "2024-02-30 1:1:1")),
    *(Raw(token) for token in ('!!int "x"', "!!int ''", "!!bool maybe", "!!float x", "!!timestamp x", "!!binary '%'")),
    *(Raw(token) for token in ("!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!str [a]", "!!map x", "!!null 1")),
    *(
        Raw(token)
        for token in ("!!python/object/apply:os.getcwd []", "!here x", "! x", "!<tag:x> y", "!!merge x", "!!value x")
    ),
    *(
        Raw(token)
        for token in ("&a [*a]", "&a {b: *a}", "*nowhere", "{? [a] : b}", "{? {a: b} : c}", "{1: 2}", "{~: 1}")
    ),
    *(Raw(token) for token in ("{true: 1, 1: 2}", "{1.5: a}", "{.nan: a}", "{2024-01-01: a}", "{<<: x}", "{<<: [x]}")),
    *(
        Raw(token)
        for token in ('"\\uD800"', '"\\U0010FFFF"', '"\\x00"', '"\\q"', "'", "|", ">", "@a", "`", "%TAG", "\t", "#")
    ),
    *(
        Raw(token)
        for token in ("\n---\n", "\n...\n", "[a", "{a", "a: b: c", "- a", "? a", "!", "&", "*", ",", "\ufeff", "\x85")
    ),
    *(nested("[", "]", depth) for depth in DEPTHS),
    *(Raw("{a: " * depth + "1" + "}" * depth) for depth in DEPTHS[:7]),
    Raw(BOMB),
    Raw(MERGED + "]"),
    Raw('[&a "' + "x" * 2_000 + '", ' + "*a, " * 2_000 + "]"),
    Raw(
        "[&d0 "
        + "[" * 80
        + "]" * 80
        + "".join(f", &d{n} " + "[" * 80 + f"*d{n - 1}" + "]" * 80 for n in range(1, 15))
        + "]"
    ),
]
texts = st.one_of(st.sampled_from(HOSTILE_TEXTS), st.text(max_size=20), st.text("01.-+eE_:/\\{}[]\"'", max_size=12))
plain_values = st.one_of(st.none(), st.booleans(), st.integers(-3, 70), st.integers(), st.floats(), texts)
json_values = st.one_of(st.sampled_from(HOSTILE_JSON), plain_values, st.lists(plain_values, max_size=3))
yaml_values = st.one_of(st.sampled_from(HOSTILE_YAML), json_values)
keys = st.one_of(st.sampled_from(HOSTILE_KEYS), st.text(max_size=8))


# --- documents -------------------------------------------------------------------------------------------------------


def tree_of(value: Any) -> Any:
    """A plain value in the form that is changed, every list and object anew."""
    if isinstance(value, dict):
        return Pairs([key, tree_of(item)] for key, item in value.items())
    return [tree_of(item) for item in value] if isinstance(value, list | tuple) else value


def written(tree: Any) -> str:
    """The document as text: JSON, as far as its tokens are, which is YAML as well."""
    if isinstance(tree, Raw):
        return str(tree)
    if isinstance(tree, Pairs):
        return "{" + ", ".join(f"{json.dumps(key)}: {written(value)}" for key, value in tree) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(written, tree)) + "]"
    return json.dumps(tree, default=str)


def _places(tree: Any) -> Iterator[tuple[list[Any], int]]:
    """Where every value below this one stands: a list and an index; in an object, the pair and 1."""
    for index, item in enumerate(tree):
        place = (item, 1) if isinstance(tree, Pairs) else (tree, index)
        yield place
        value = place[0][place[1]]
        if isinstance(value, list):
            yield from _places(value)


@st.composite
def documents(draw: st.DrawFn, templates: Sequence[Any], values: st.SearchStrategy[Any], most: int = 3) -> str:
    """One of these plain values as text, after at most so many changes."""
    root = [tree_of(draw(st.sampled_from(templates)))]
    for _ in range(draw(st.integers(0, most))):
        _change(draw, root, values)
    return written(root[0])


def _change(draw: st.DrawFn, root: list[Any], values: st.SearchStrategy[Any]) -> None:
    places = list(_places(root))
    holder, index = places[draw(st.integers(0, len(places) - 1))]
    match draw(st.sampled_from(["replace", "replace", "replace", "lose", "repeat", "rename", "wrap", "exchange"])):
        case "replace":
            holder[index] = draw(values)
        case "lose" if isinstance(holder[index], list) and holder[index]:
            holder[index].pop(draw(st.integers(0, len(holder[index]) - 1)))
        case "repeat" if isinstance(holder[index], list) and holder[index]:
            holder[index].append(tree_of(holder[index][-1]) if isinstance(holder[index], Pairs) else holder[index][-1])
        case "rename" if isinstance(holder[index], Pairs) and holder[index]:
            holder[index][draw(st.integers(0, len(holder[index]) - 1))][0] = draw(keys)
        case "wrap":
            holder[index] = [holder[index]] if draw(st.booleans()) else Pairs([[draw(keys), holder[index]]])
        case "exchange":
            other, other_index = places[draw(st.integers(0, len(places) - 1))]
            if not _contains(holder[index], other) and not _contains(other[other_index], holder):
                holder[index], other[other_index] = other[other_index], holder[index]


def _contains(tree: Any, wanted: list[Any]) -> bool:
    return tree is wanted or (isinstance(tree, list) and any(_contains(item, wanted) for item in tree))


# --- texts and bytes -------------------------------------------------------------------------------------------------


@st.composite
def changed_texts(draw: st.DrawFn, templates: Sequence[str], pieces: st.SearchStrategy[str], most: int = 3) -> str:
    """One of these texts, after at most so many insertions, deletions and repetitions."""
    text = draw(st.sampled_from(templates))
    for _ in range(draw(st.integers(0, most))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + draw(st.one_of(pieces, st.just(text[start:end] * 2))) + text[end:]
    return text


@st.composite
def damaged(draw: st.DrawFn, contents: st.SearchStrategy[bytes], most: int = 3) -> bytes:
    """Such a file, after at most so many damages."""
    data = draw(contents)
    for _ in range(draw(st.integers(0, most))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 40))
        match draw(st.sampled_from(["flip", "flip", "set", "cut", "lose", "insert", "repeat"])):
            case "flip" if data:
                data = data[:place] + bytes([data[place] ^ 1 << draw(st.integers(0, 7))]) + data[place + 1 :]
            case "set":
                data = data[:place] + draw(st.binary(min_size=1, max_size=8)) + data[place + 8 :]
            case "cut":
                data = data[:place]
            case "lose":
                data = data[:place] + data[place + length :]
            case "insert":
                data = data[:place] + draw(st.sampled_from(ODD_BYTES)) + data[place:]
            case "repeat":
                data = data[: place + length] + data[place:]
    return data


ODD_BYTES = [
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\xc3",
    b"\r",
    b"\n",
    b'"',
    b"\\",
    b",",
    b"\t",
    b"\x1a",
    b"PAR1",
]
ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "utf-8": lambda text: text.encode("utf-8", "surrogatepass"),
    "with a mark": lambda text: codecs.BOM_UTF8 + text.encode("utf-8", "surrogatepass"),
    "utf-16": lambda text: text.encode("utf-16", "surrogatepass"),
    "utf-32": lambda text: text.encode("utf-32", "surrogatepass"),
    "latin-1": lambda text: text.encode("latin-1", "replace"),
    "gzip": lambda text: gzip.compress(text.encode("utf-8", "surrogatepass"), mtime=0),
    "zlib": lambda text: zlib.compress(text.encode("utf-8", "surrogatepass")),
}


def encoded(contents: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    """Such a text as a file: mostly undamaged UTF-8, else in another encoding or with damages."""
    plain = contents.map(ENCODINGS["utf-8"])
    other = st.builds(lambda text, name: ENCODINGS[name](text), contents, st.sampled_from(sorted(ENCODINGS)))
    return st.one_of(plain, plain, other, damaged(plain))
