"""The structure of an answer in the one notation: its kind, and its parts as text that computer algebra reads.

Only the outer structure is read here; an expression stays text.
"""

from __future__ import annotations

import re
from math import gcd

from hir_core.rewards.formulas.kinds import (
    ALL_NUMBERS,
    EMPTY,
    NO_SOLUTION,
    SET,
    Answer,
    Combined,
    Doubt,
    Either,
    Equation,
    Expression,
    Inequality,
    Matrix,
    Members,
    Words,
    is_name,
)
from hir_core.rewards.formulas.mentions import LONGEST
from hir_core.rewards.formulas.notation import standard_form
from hir_core.rewards.formulas.numerals import spelled_number

MOST_PARTS = 60
"""Members of a list beyond which an answer is not compared."""

# --- splitting -------------------------------------------------------------------------------------------------------

_BRACKET = re.compile(r"\\begin\{[^}]*\}|\\end\{[^}]*\}|\\[{}]|\\[lr]angle|\\text\{[^{}]*\}|[()\[\]{}]")


def split(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """The parts of a text between the separators outside of all brackets, and the separators."""
    depth, position, start = 0, 0, 0
    parts, separators = list[str](), list[str]()
    while position < len(text):
        if depth == 0 and (match := separator.match(text, position)) and match.end() > position:
            parts.append(text[start:position].strip())
            separators.append(match[0].strip())
            position = start = match.end()
        elif bracket := _BRACKET.match(text, position):
            token = bracket[0]
            if not token.startswith(r"\text"):
                opens = token in ("(", "[", "{", r"\{", r"\langle") or token.startswith(r"\begin")
                depth = max(0, depth + (1 if opens else -1))
            position = bracket.end()
        else:
            position += 1
    return [*parts, text[start:].strip()], separators


_ARROW = re.compile(r"\\(?:Rightarrow|to(?![a-z])|therefore)|∴")
_OR = re.compile(r"\\lor(?![a-z])|\\text\{\s*,?\s*or\s*\}|(?<![a-zA-Z])or(?![a-zA-Z])")
_AND = re.compile(r"\\land(?![a-z])|\\text\{\s*,?\s*and\s*\}|(?<![a-zA-Z])and(?![a-zA-Z])|[,;]|\\\\")
_UNION = re.compile(r"\\cup(?![a-z])|(?<=[)\]])\s*U\s*(?=[(\[])")
_OTHER_SETS = re.compile(r"\\(?:cap|setminus)(?![a-z])")
_RELATION = re.compile(r"\\(?:le|ge|ne|approx|in|equiv)(?![a-z])|[<>=]")
_COLON = re.compile(r"(?<=[\w}])\s*:\s*(?=[\w\\])")
_PIECE = re.compile(r"\\(?:pm|mp)(?![a-z])")
_MATRIX = re.compile(
    r"\\begin\{(?:[pbBvV]?matrix|array)\*?\}(?:\{[lcr|]*\})?(?P<cells>.*)\\end\{(?:[pbBvV]?matrix|"
    r"array)\*?\}",
    re.DOTALL,
)
_LINES = re.compile(r"\\begin\{(?:cases|aligned|align|gathered|split|equation)\*?\}(.*)\\end\{\w+\*?\}", re.DOTALL)
_GOES_ON = re.compile(r"\\\\(?:\[[^\]]*\])?\s*&?\s*(?==)")
_DOMAIN = re.compile(r"(?:,|\s|\()\s*(?:\\text\{[^{}]*\}\s*)?[a-z]\s*\\in\s*(?:\\mathbb\{[A-Z]\}|[ZNRQ])[+*)]*\Z")
_MODULUS = re.compile(r"\\pmod\s*\{([^{}]*)\}|\(\s*\\?mod\s*(\w+)\s*\)|\\bmod\s*(\w+)|\\mod\s*(\w+)\s*\Z")
_CONDITION = re.compile(
    r"\\text\{\s*(?:for|where|if|with|when|as)\b.*|(?<![a-zA-Z])(?:for|where|if|with|"
    r"when)(?![a-zA-Z]).*"
)
_WORDS_ONLY = re.compile(r"(?:[a-zA-Z][a-zA-Z'-]+|a|I|\s|[.,])+")
_BUILDER = re.compile(
    r"\s*(?P<name>[a-z])(?:\s*\\in\s*\\mathbb\{[A-Z]\}|\s*\\in\s*R)?\s*(?:\\mid|\|"
    r"|:)\s*(?P<condition>.+)"
)

_NONE = re.compile(rf"{NO_SOLUTION}|none")
_ALL = re.compile(ALL_NUMBERS)


def read(text: str) -> Answer:
    """The structure of an answer as it was written.

    Raises:
        Doubt: it is too long.
    """
    if len(text) > LONGEST:
        raise Doubt("too long")
    return structure_of(standard_form(text))


def structure_of(text: str) -> Answer:
    """The structure of an answer in the one notation."""
    text = text.strip()
    if words := _words(text):
        return words
    text = _DOMAIN.sub("", split(text, _ARROW)[0][-1])
    if lines := _LINES.fullmatch(text):
        text = _GOES_ON.sub(" ", lines[1]).replace("&", " ").strip().removesuffix(r"\\")
    condition = _CONDITION.search(text)
    if condition and condition.start() > 0:
        text = text[: condition.start()].strip(" ,")
    return _joined(text)


def _words(text: str) -> Answer | None:
    plain = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    if not _WORDS_ONLY.fullmatch(plain) or len(plain.strip()) < 2 or not re.search("[a-zA-Z]{2}", plain):
        return None
    words = " ".join(plain.lower().replace(".", " ").replace(",", " ").split())
    if _NONE.fullmatch(words):
        return EMPTY
    if (number := spelled_number(words)) is not None:
        return Expression(rf"\frac{{{number.numerator}}}{{{number.denominator}}}")
    if _ALL.fullmatch(words):
        return Expression(r"\mathbb{R}")
    is_text = r"\text" in text or len(words) > 3 or " " in words
    return Words(words) if is_text else None


def _joined(text: str) -> Answer:
    """Alternatives, lists and systems, or what is left where nothing is joined."""
    alternatives = [part.strip(" ,") for part in split(text, _OR)[0]]
    alternatives = [part for part in alternatives if part]
    if len(alternatives) > 1:
        items = tuple(_joined(part) for part in alternatives)
        flat = [item for item in items for item in (item.items if _is_list(item) else [item])]  # type: ignore[union-attr]
        return Either(_with_names(flat))
    parts = [part for part in split(text, _AND)[0] if part]
    if len(parts) > MOST_PARTS:
        return Expression(text)
    if len(parts) > 1:
        return _listed(parts)
    return _related(parts[0] if parts else text)


def _is_list(answer: Answer) -> bool:
    return isinstance(answer, Members) and not answer.brackets


def _listed(parts: list[str]) -> Answer:
    items = [_related(part) for part in parts]
    first, *others = items
    if isinstance(first, Equation) and isinstance(items[-1], Equation) and not re.search("[a-zA-Z]", first.sides[0]):
        return items[-1]  # `4 + 5 = 9, 9 + 1 = 10`: a derivation
    if _solves(items, parts):
        return items[-1]
    if not isinstance(first, Inequality) and all(isinstance(item, Inequality) for item in others):
        return first  # `1/x, x \ne 0`: a condition
    return Members("", _with_names(items))


def _solves(items: list[Answer], parts: list[str]) -> bool:
    """Whether all parts are equations in one variable, of which only the last names it: `x + 1 = 4, 2x = 6, x = 3`."""
    names = [item.sides[0] for item in items if isinstance(item, Equation) and is_name(item.sides[0])]
    variables = {letter for part in parts for letter in re.findall(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", part)}
    last = items[-1]
    return len(names) == 1 and isinstance(last, Equation) and variables == {last.sides[0]}


def _with_names(items: list[Answer]) -> tuple[Answer, ...]:
    """The items, those without a name taken for further values of the one before, as in `x = 1, 2`."""
    named, name = list[Answer](), ""
    for item in items:
        if isinstance(item, Equation) and is_name(item.sides[0]):
            name = item.sides[0]
        elif isinstance(item, Expression) and name:
            item = Equation((name, item.text))
        named.append(item)
    return tuple(named)


def _related(text: str) -> Answer:
    """An equation or an inequality, or what is left where nothing is related."""
    if modulus := _MODULUS.search(text):
        rest = _related(text[: modulus.start()].strip())
        value = structure_of(rest.sides[-1]) if isinstance(rest, Equation) else rest
        return Members("mod", (value, Expression(next(filter(None, modulus.groups())))))
    sides, signs = split(text, _RELATION)
    if r"\approx" in signs:
        at = signs.index(r"\approx")
        if at > 0 or not is_name(sides[0]):
            sides, signs = sides[: at + 1], signs[:at]
        else:
            signs = ["=" if sign == r"\approx" else sign for sign in signs]
    if r"\in" in signs:
        return _related(sides[-1])
    sides = [side.strip(" &") for side in sides]
    if not signs or not all(sides[1:]):
        return _combined(sides[0] if signs else text)
    if set(signs) <= {"=", r"\equiv"}:
        return Equation(tuple(side for side in sides if side))
    if not sides[0]:
        return Expression(text)
    if "=" in signs:
        at = len(signs) - signs[::-1].index("=")
        return _related(
            " ".join([sides[at], *(f"{sign} {side}" for sign, side in zip(signs[at:], sides[at + 1 :], strict=True))])
        )
    return Inequality(tuple(sides), tuple(signs))


def _ratio(text: str) -> Answer | None:
    """`3:4`, which is a fraction of two numbers and a list of more."""
    parts = split(text, _COLON)[0]
    if len(parts) == 1 or not all(parts):
        return None
    if len(parts) == 2:
        return Expression(rf"\frac{{{parts[0]}}}{{{parts[1]}}}")
    if all(part.isdecimal() for part in parts) and (divisor := gcd(*map(int, parts))):
        parts = [str(int(part) // divisor) for part in parts]
    return Members("()", tuple(map(Expression, parts)))


def _combined(text: str) -> Answer:
    if ratio := _ratio(text):
        return ratio
    for separator in (_UNION, _OTHER_SETS):
        parts, signs = split(text, separator)
        if signs:
            sign = r"\cup" if separator is _UNION else signs[0]
            return Combined(sign, tuple(_combined(part) for part in parts))
    return _bracketed(text)


_PAIRS = {"(": ")]", "[": "])", r"\{": r"\}", "{": "}", r"\langle": r"\rangle"}


def _bracketed(text: str) -> Answer:
    """Members in brackets, a matrix, or an expression."""
    if matrix := _MATRIX.fullmatch(text):
        return _matrix(matrix["cells"]) or Expression(text)
    opening = next((bracket for bracket in (r"\{", r"\langle", "(", "[", "{") if text.startswith(bracket)), "")
    if not opening or not _is_one_bracket(text):
        return _expanded(text)
    closes = r"\}" if opening == r"\{" else r"\rangle" if opening == r"\langle" else text[-1]
    inside = text[len(opening) : -len(closes)].strip()
    is_set = opening in (r"\{", "{")
    if is_set and (builder := _BUILDER.fullmatch(inside)):
        return structure_of(builder["condition"])
    parts = [part for part in split(inside, re.compile(r"[,;]"))[0] if part]
    if len(parts) > MOST_PARTS:
        return Expression(text)
    if is_set:
        return Members(SET, tuple(_related(part) for part in parts))
    if len(parts) > 1:
        return Members("()" if opening == r"\langle" else opening + closes, tuple(_joined(part) for part in parts))
    if opening == "(" and closes == ")":
        return _joined(inside)
    if opening == "[" and closes == "]":
        return Members("[]", (_joined(inside),))
    return Expression(text)


def _is_one_bracket(text: str) -> bool:
    """Whether the bracket with which a text begins closes at its end."""
    depth = 0
    for bracket in _BRACKET.finditer(text):
        token = bracket[0]
        if token.startswith(r"\text"):
            continue
        opens = token in ("(", "[", "{", r"\{", r"\langle") or token.startswith(r"\begin")
        depth += 1 if opens else -1
        if depth == 0:
            return bracket.end() == len(text)
    return False


def _matrix(cells: str) -> Matrix | None:
    rows = [row.strip() for row in re.split(r"\\\\(?:\[[^\]]*\])?", cells.replace(r"\hline", "")) if row.strip()]
    table = tuple(tuple(_related(cell.strip()) for cell in row.split("&")) for row in rows)
    is_table = bool(table) and len({len(row) for row in table}) == 1 and r"\begin" not in cells
    return Matrix(table) if is_table and len(table) * len(table[0]) <= MOST_PARTS else None


def _expanded(text: str) -> Answer:
    r"""An expression; with a \pm the set of the two that it stands for."""
    if not _PIECE.search(text):
        return Expression(text)
    upper = _PIECE.sub(lambda sign: "+" if sign[0] == r"\pm" else "-", text)
    lower = _PIECE.sub(lambda sign: "-" if sign[0] == r"\pm" else "+", text)
    return Members(SET, tuple(Expression(side.strip().removeprefix("+").strip()) for side in (upper, lower)))
