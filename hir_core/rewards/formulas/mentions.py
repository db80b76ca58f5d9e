"""Formulas in a text: those between delimiters, and runs of numbers, letters and signs that only a formula has."""

from __future__ import annotations

import re
from typing import NamedTuple

from hir_core.prompts.number_search import SUFFIXES
from hir_core.prompts.numbers import SCALES
from hir_core.rewards.formulas.notation import CONSTANTS, FUNCTIONS
from hir_core.rewards.formulas.numerals import CURRENCY

LONGEST = 2000
"""Characters of a text that may be one formula; longer ones are not looked for, which would take endless time."""
FACTORIAL = "\ue002"
"""A character of no language that stands for the sign of a factorial, which ends no sentence."""
_SHORT_WORDS = """a an as at be by do go he if in is it me my no of oh ok on or so to up us we am and are but can did
for get got had has her him his how its let may new not now off one our out own per set she six sum ten the too two use
via was way who why yes you all any each"""
_NOT_NAMES = frozenset(re.findall(r"\w+", _SHORT_WORDS))
_KNOWN = "|".join(sorted([*FUNCTIONS, *CONSTANTS, "sqrt"], key=len, reverse=True))
DELIMITED = re.compile(
    r"(?<!\\)\$\$(?:[^$]|\\\$){1,2000}\$\$|(?<![\\\d])\$(?:\\.|[^$\\\n]){1,2000}\$"
    r"|\\\((?:(?!\\[()]).){1,2000}\\\)|\\\[(?:(?!\\[\[\]]).){1,2000}\\\]"
    r"|\\begin\{(?P<name>[a-z]*matrix|cases|aligned|align\*?|array|equation\*?)\}.{0,2000}?\\end\{(?P=name)\}",
    re.DOTALL,
)
_TOKEN = re.compile(
    rf"""
    (?P<number>(?:{CURRENCY}[ ]?)?
      (?:\d*\.\d*(?=\\(?:overline|bar|dot)\W)|\d+(?:,\d{{3}}(?!\d))*(?:\.\d+)?(?:[eE][+-]?\d+(?!\w))?|\.\d+))
      (?P<letter>(?<=\d)(?:{"|".join(SUFFIXES)}|B)(?!\w))?
      (?P<scale>[ ]?-?(?:{"|".join(SCALES)})s?(?!\w))?
      (?P<mark>[ ]?(?:\\?%|percent(?!\w)|per[ ]cent(?!\w)|degrees?(?!\w)))?
    | (?P<text>\\(?:text|mathrm|mathbf|mbox|operatorname|begin|end)\w*\*?\s*\{{[^{{}}]*\}}(?:\^\{{?\d\}}?)?)
    | (?P<command>\\[a-zA-Z]+|\\[^\w\s$])
    | (?P<function>(?<![a-zA-Z])(?:{_KNOWN})(?![a-z\u00df-\u00ff]))
    | (?P<letters>(?<![a-zA-Z\u00c0-\u00ff'])[a-zA-Z]{{1,3}}(?![a-zA-Z\u00c0-\u00ff]|'[a-z]))
    | (?P<operator>\*\*|[-+*/^=<>|{FACTORIAL}_&]|'(?!\w)|(?<=\d)%|(?<=\d):(?=\d)|(?<=\d[ ]):(?=[ ]\d))
    | (?P<bracket>[()\[\]{{}}])
    | (?P<separator>[,;:])
    """,
    re.VERBOSE,
)
_GAP = re.compile(r"[ \t]*(?:\n(?=[ \t]*[&\\]))?[ \t]*")


class Span(NamedTuple):
    """Where a formula stands in a text."""

    start: int
    end: int


def formulas_in(text: str) -> list[Span]:
    """The formulas of a text, in order, each as long as it can be."""
    found, position = list[Span](), 0
    while position < len(text):
        delimited = DELIMITED.match(text, position)
        if delimited and not _is_money(delimited[0]):
            found.append(Span(*delimited.span()))
            position = delimited.end()
            continue
        run, end = _run(text, position)
        if run:
            found.append(run)
        position = end if end > position else _next_word(text, position)
    return found


_WORD_REST = re.compile(r"[a-zA-Z']+|.", re.DOTALL)
_PROSE = re.compile(r"(?<![\\a-zA-Z])(?!(?:and|or)\b)[a-zA-Z]{4,}")


def _next_word(text: str, position: int) -> int:
    match = _WORD_REST.match(text, position)
    return match.end() if match else position + 1


def _is_money(delimited: str) -> bool:
    """Whether what stands between two dollar signs is the prose between two prices."""
    inside = re.sub(r"\\(?:text|mathrm|mbox|operatorname)\w*\s*\{[^{}]*\}|\\[a-zA-Z]+", "", delimited.strip("$"))
    if not delimited.startswith("$") or delimited.startswith("$$"):
        return False
    if delimited[-2].isspace() and delimited[1].isdigit():
        return True
    return delimited[1].isdigit() and bool(re.search(rf"(?<![a-zA-Z])(?!(?:{_KNOWN}|and|or)\b)[a-zA-Z]{{2,}}", inside))


def _run(text: str, position: int) -> tuple[Span | None, int]:
    """The formula without delimiters that begins at a position, if one does, and where to look on."""
    tokens, at = list[re.Match[str]](), position
    while at - position < LONGEST and (token := _TOKEN.match(text, at)) and _continues(tokens, token, text):
        tokens.append(token)
        gap = _GAP.match(text, token.end())
        at = gap.end() if gap else token.end()
    rest = tokens[-1].end() if tokens else position
    tokens = _trimmed(tokens)
    if not tokens or not _is_formula(tokens):
        return None, rest
    return Span(tokens[0].start(), tokens[-1].end()), rest


_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")


def _continues(tokens: list[re.Match[str]], token: re.Match[str], text: str) -> bool:
    letters = token["letters"]
    if (token["separator"] == ":" and not _is_in_braces(tokens)) or (
        token["number"] and re.match(r"(?:st|nd|rd|th)\b", text[token.end() :])
    ):
        return False
    if not letters:
        return True
    if len(letters) == 1:
        return letters not in "aAI" or _is_beside_operator(token, text)
    return letters.lower() not in _NOT_NAMES and (_is_beside_operator(token, text) or _follows_digit(token, text))


def _is_in_braces(tokens: list[re.Match[str]]) -> bool:
    """Whether a brace is open, as in `{x : x > 4}`."""
    return sum(token[0] in ("{", r"\{") for token in tokens) > sum(token[0] in ("}", r"\}") for token in tokens)


def _is_beside_operator(token: re.Match[str], text: str) -> bool:
    if re.match(r"\s+-[\d.\\]", text[token.end() :]):
        return False  # `say -7`
    before, after = text[: token.start()].rstrip()[-1:], text[token.end() :].lstrip()[:1]
    return (bool(before) and before in "=+*/^<>_(-{") or (bool(after) and after in "=+*/^<>_)-}")


def _follows_digit(token: re.Match[str], text: str) -> bool:
    before = text[token.start() - 1 : token.start()]
    return before.isdigit() or before in tuple(")}")


_LEADS = ("=", "*", "/", "^", "<", ">", FACTORIAL, "&", "|", "'", "_", "**")


def _trimmed(tokens: list[re.Match[str]]) -> list[re.Match[str]]:
    """Without separators and operators at the ends, and without brackets that do not close."""
    changed = True
    while tokens and changed:
        last, first = tokens[-1], tokens[0]
        changed = True
        if last["separator"] or (last["operator"] and last[0] not in (FACTORIAL, "'", "|", "%")):
            tokens = tokens[:-1]
        elif (
            first["separator"]
            or (first["operator"] and first[0] in _LEADS and first[0] != "|")
            or (first["letters"] and first["letters"] in "aAI" and len(tokens) > 1 and not tokens[1]["operator"])
        ):
            tokens = tokens[1:]
        else:
            changed = False
    opened = sum(token[0] in ("(", "[") for token in tokens) - sum(token[0] in (")", "]") for token in tokens)
    if opened < 0 and tokens and tokens[-1][0] in (")", "]"):
        return _trimmed(tokens[:-1])
    if opened > 0 and tokens and tokens[0][0] in ("(", "["):
        return _trimmed(tokens[1:])
    if opened > 0 and tokens and tokens[-1][0] in ("(", "["):
        return _trimmed(tokens[:-1])
    return tokens


def _is_formula(tokens: list[re.Match[str]]) -> bool:
    """Whether tokens say something mathematical: a number, a command, or letters with an operator."""
    if any(token["number"] or (token["command"] and token[0] not in (r"\ ", r"\\", r"\_")) for token in tokens):
        return True
    letters = [token["letters"] for token in tokens if token["letters"]]
    operates = any(token["operator"] and token[0] not in ("-", "'", FACTORIAL, "&", "|", "/") for token in tokens)
    if letters:
        return (
            operates
            or any(token["function"] for token in tokens)
            or any(len(tokens) > 2 and t[0] in "-/" for t in tokens)
        )
    if any(token["function"] and token[0] in ("pi", "inf", "infinity") for token in tokens):
        return len(tokens) == 1 or operates
    return "".join(token[0] for token in tokens) in ("{}", "[]")
