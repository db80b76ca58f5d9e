"""One notation for formulas, a plain subset of LaTeX, from the many in which people and models write them.

`2√2`, `2*sqrt(2)` and `2\\sqrt2` all become `2 \\cdot \\sqrt{2}` or `2\\sqrt{2}`; `1,500`, `1.5e3`, `$1.5k` become
numbers without separators. What is not known stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from hir_core.rewards.formulas.numerals import with_plain_numbers

_GREEK_NAMES = """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi
psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"""
_GREEK = dict(zip("αβγδεζηθικλμνξρστυφχψωΓΔΘΛΞΠΣΦΨΩ", re.findall(r"\w+", _GREEK_NAMES), strict=True))
_SIGNS = {
    "×": r"\times", "·": r"\cdot", "⋅": r"\cdot", "∙": r"\cdot", "÷": "/", "⁄": "/", "∕": "/", "≤": r"\le", "⩽": r"\le",
    "≥": r"\ge", "⩾": r"\ge", "≠": r"\ne", "≈": r"\approx", "∞": r"\infty", "π": r"\pi", "∅": r"\emptyset",
    "∪": r"\cup", "∩": r"\cap", "∈": r"\in", "±": r"\pm", "∓": r"\mp", "⇒": r"\Rightarrow", "⟹": r"\Rightarrow",
    "→": r"\to", "⇔": r"\iff", "∨": r"\lor", "∧": r"\land", "∖": r"\setminus", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}", "ℂ": r"\mathbb{C}", "∫": r"\int", "∑": r"\sum", "⌊": r"\lfloor",
    "⌋": r"\rfloor", "⌈": r"\lceil", "⌉": r"\rceil", "⟨": r"\langle", "⟩": r"\rangle", "≡": r"\equiv",
} | {letter: rf"\{name}" for letter, name in _GREEK.items()}  # fmt: skip
_FRACTIONS = {"½": "12", "⅓": "13", "⅔": "23", "¼": "14", "¾": "34", "⅕": "15", "⅖": "25", "⅗": "35", "⅘": "45",
              "⅙": "16", "⅚": "56", "⅛": "18", "⅜": "38", "⅝": "58", "⅞": "78"}  # fmt: skip
_CHARACTERS = str.maketrans(
    {sign: f"{command} " for sign, command in _SIGNS.items()}
    | {
        sign: rf"\frac{{{above}}}{{{below}}}"
        for sign, (above, below) in ((sign, tuple(digits)) for sign, digits in _FRACTIONS.items())
    }
    | dict.fromkeys("\u00a0\u202f\u2009\t\r", " ")
    | dict.fromkeys("−–", "-")
    | {"°": r"^\circ ", "’": "'", "‘": "'", "′": "'", "“": '"', "”": '"', "：": ":", "，": ",", "（": "(", "）": ")"}
    | {"\u200b": None, "\ufeff": None, "—": " — ", "％": "%", "＝": "="}
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿˣ", "0123456789+-nx")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n")
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[a-zα-ω])?")
_ROOT_INDEX = {"√": "", "∛": "[3]", "∜": "[4]"}


_STARRED = re.compile(r"(\\(?:begin|end)\s*\{[a-z]+)\*\}")
_MATRIX_OPENS = re.compile(r"(?:\\left\s*)?[(\[]\s*(?=\\begin\{(?:small)?(?:matrix|array)\})")
_MATRIX_CLOSES = re.compile(r"(\\end\{(?:small)?(?:matrix|array)\})\s*(?:\\right\s*)?[)\]]")


def in_plain_characters(text: str) -> str:
    """The text with mathematical characters written as LaTeX commands, and matrices without brackets of their own."""
    if r"\begin" in text:
        text = _STARRED.sub(r"\1}", text)
        text = _MATRIX_CLOSES.sub(r"\1", _MATRIX_OPENS.sub("", text))
    if text.isascii():
        return text
    text = _ROOT.sub(lambda root: rf"\sqrt{_ROOT_INDEX[root[1]]}" + (f"{{{root[2]}}}" if root[2] else " "), text)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿˣ]+", lambda raised: f"^{{{raised[0].translate(_RAISED)}}}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉₊₋ₙ]+", lambda lowered: f"_{{{lowered[0].translate(_LOWERED)}}}", text)
    return text.translate(_CHARACTERS)


# --- commands --------------------------------------------------------------------------------------------------------

_FUNCTION_NAMES = """arcsin arccos arctan arccot sinh cosh tanh coth sin cos tan cot sec csc ln log lg exp min max gcd
lcm det mod asin acos atan"""
FUNCTIONS = re.findall(r"\w+", _FUNCTION_NAMES)
CONSTANTS = re.findall(
    r"\w+", "pi infinity inf oo alpha beta theta lambda phi omega sigma mu gamma delta epsilon rho tau"
)
_RENAMED = {"infinity": "infty", "inf": "infty", "oo": "infty", "asin": "arcsin", "acos": "arccos", "atan": "arctan"}
_SPACE = re.compile(r"(?<!\\)\\[,;:> ]|\\q?quad(?![a-zA-Z])|~|\\h?space\s*\{[^{}]*\}|\\hfill|\\notag|\\nonumber|\s+")
_NOTHING = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|mleft|mright|bigl|bigr|phantom\{[^{}]*\}|rm|bf)"
    r"(?![a-zA-Z])\.?|\\!|\\(?:boldsymbol|bm|mathbf|mathit|mathsf|mathcal)(?![a-zA-Z])|"
    r"\\label\{[^{}]*\}|\\tag\{[^{}]*\}"
)
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|mathrm|mbox|hbox|operatorname\*?|emph)\s*\{([^{}]*)\}")
_SYNONYMS = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge",
    "neq": "ne", "varnothing": "emptyset", "empty": "emptyset", "times": "cdot", "ast": "cdot", "implies": "Rightarrow",
    "Longrightarrow": "Rightarrow", "longrightarrow": "to", "rightarrow": "to", "iff": "Leftrightarrow",
    "dbinom": "binom", "tbinom": "binom",
    "reals": "mathbb{R}", "R": "mathbb{R}", "lbrace": "{", "rbrace": "}", "lvert": "|", "rvert": "|",
    "backslash": "setminus", "wedge": "land", "vee": "lor", "degree": "circ", "simeq": "approx",
    "lbrack": "[", "rbrack": "]", "arcctg": "arccot", "tg": "tan", "ctg": "cot",
}  # fmt: skip
_PLAIN = {"lt": "<", "gt": ">", "div": "/", "colon": ":", "lparen": "(", "rparen": ")", "ldots": r"\dots", "{": r"\{"}
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_LOG_OF_BASE = re.compile(r"(?<![a-zA-Z\\])log(2|10)(?=\s*\()")
_LOG_E = re.compile(r"\\log\s*_\s*(?:\{\s*e\s*\}|e)(?![a-zA-Z])")
_WORD = re.compile(
    rf"(?<![\\a-zA-Z])({'|'.join(sorted([*FUNCTIONS, *CONSTANTS, 'sqrt'], key=len, reverse=True))})(?![a-zA-Z])"
)


def _renamed(command: re.Match[str]) -> str:
    name = command[1]
    if name in _PLAIN:
        return _PLAIN[name]
    synonym = _SYNONYMS.get(name)
    if synonym in ("|", "[", "]"):
        return synonym
    return rf"\{synonym}" if synonym else command[0]


def _read_text(text: re.Match[str]) -> str:
    """A function name or a variable in text type as such, other words in text type."""
    words = text[1].strip()
    if words in FUNCTIONS:
        return rf"\{words} "
    if len(words) == 1 and text[0].startswith(r"\mathrm"):
        return f" {words}" if words not in "mgshLlNJWVACKF" else rf"\text{{ {words}}}"
    return rf"\text{{{text[1]}}}"


def _with_commands(text: str) -> str:
    text = _TEXT.sub(_read_text, _NOTHING.sub("", text))
    text = _SPACE.sub(" ", _COMMAND.sub(_renamed, text))
    text = text.replace("<=", r"\le ").replace(">=", r"\ge ").replace("!=", r"\ne ").replace("==", "=")
    text = text.replace("=>", r"\Rightarrow ").replace("->", r"\to ").replace("~=", r"\approx ")
    text = text.replace("**", "^").replace("*", r" \cdot ")
    text = _LOG_OF_BASE.sub(r"\\log_{\1}", text)
    text = _LOG_E.sub(r"\\ln ", text)
    outside = re.split(r"(\\text\{[^{}]*\}|\\(?:begin|end)\{[^{}]*\})", text)
    outside[::2] = [_WORD.sub(lambda word: rf"\{_RENAMED.get(word[1], word[1])} ", part) for part in outside[::2]]
    return "".join(outside)


# --- arguments -------------------------------------------------------------------------------------------------------


def closing(text: str, start: int, opening: str = "{", closes: str = "}") -> int:
    """Where the bracket that opens at a position closes; -1 where it does not."""
    depth = 0
    for position in range(start, len(text)):
        if position and text[position - 1] == "\\" and opening == "{":
            continue
        depth += (text[position] == opening) - (text[position] == closes)
        if depth == 0:
            return position
    return -1


def _with_arguments(text: str, command: re.Pattern[str], pair: str, wanted: str) -> str:
    """The text with the brackets after each command replaced by others: `sqrt(x)` becomes `\\sqrt{x}`."""
    position = 0
    while match := command.search(text, position):
        position = match.end()
        if (end := closing(text, position - 1, *pair)) > 0:
            text = f"{text[: position - 1]}{wanted[0]}{text[position:end]}{wanted[1]}{text[end + 1 :]}"
    return text


_ROOT_OF = re.compile(r"\\sqrt\s*(?:\[\w+\]\s*)?\(")
_POWER_OF = re.compile(r"\^\s*\(")
_CALL = re.compile(rf"\\(?:{'|'.join(FUNCTIONS)})\s*(?:\^\s*(?:\{{[^{{}}]*\}}|\d))?\s*\{{")
_EXPONENT = re.compile(r"\^\s*(-?\s?(?:\d+(?:\.\d+)?|[a-zA-Z](?![a-zA-Z])|\\[a-z]+))")
_SHORT_NUMERATOR = re.compile(r"\\frac\s*(\d|[a-z](?![a-z])|\\pi(?![a-z]))")
_SHORT_DENOMINATOR = re.compile(r"\s*(\d|[a-zA-Z](?![a-zA-Z])|\\pi(?![a-z]))")
_SHORT_ROOT = re.compile(r"\\sqrt\s*(\[\w+\])?\s*(\d+(?:\.\d+)?|[a-zA-Z]|\\pi(?![a-z]))")
_SHORT_ROOT_OF_DIGIT = re.compile(r"\\sqrt(\d)")
_MIXED = re.compile(r"(?<![\w.^_{}\\/)])(\d+)(?:\s*\\frac\{(\d+)\}\{(\d+)\}|\s(?:and\s)?(\d+)/(\d+)(?![\d.]))")
_CHOOSE = re.compile(r"(?<![a-zA-Z\\])C\s*\(\s*(\w+)\s*,\s*(\w+)\s*\)|\{\s*(\w+)\s*\\choose\s*(\w+)\s*\}")
_TIMES_BRACKET = re.compile(r"(?<![\w}_^.\\])(\d+(?:\.\d+)?)\s*(?=\((?!\s*\\mod))")
_TOWER = re.compile(r"\^\{([^{}]*)\}\s*\^\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}(?!\s*\^)")
_SUBSCRIPT = re.compile(r"_\s*(\d+|[a-zA-Z])")
_FRACTION = re.compile(r"\\frac\s*\{")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{(\d+)\}")


def _repeating(number: re.Match[str]) -> str:
    whole, fixed, repeated = number[1] or "0", number[2], number[3]
    value = Fraction(int(whole + fixed + repeated) - int(whole + fixed), 10 ** len(fixed) * (10 ** len(repeated) - 1))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _with_denominators(text: str) -> str:
    """The text with braces around every denominator, as the second 3 of `\\frac{3}3` lacks them."""
    position = 0
    while fraction := _FRACTION.search(text, position):
        position = fraction.end()
        end = closing(text, position - 1)
        if end > 0 and (denominator := _SHORT_DENOMINATOR.match(text, end + 1)):
            text = f"{text[: end + 1]}{{{denominator[1]}}}{text[denominator.end() :]}"
    return text


def _with_braces(text: str) -> str:
    if "\\" in text:
        text = _REPEATING.sub(_repeating, text)
        text = _with_arguments(text, _ROOT_OF, "()", "{}")
        text = _with_arguments(text, _CALL, "{}", "()")
        text = _SHORT_ROOT.sub(lambda root: rf"\sqrt{root[1] or ''}{{{root[2]}}}", text)
        text = _with_denominators(_SHORT_NUMERATOR.sub(r"\\frac{\1}", text))
    text = _with_arguments(text, _POWER_OF, "()", "{}")
    text = _EXPONENT.sub(r"^{\1}", text)
    while _TOWER.search(text):
        text = _TOWER.sub(r"^{\1^{\2}}", text)
    text = _CHOOSE.sub(lambda choose: rf"\binom{{{choose[1] or choose[3]}}}{{{choose[2] or choose[4]}}}", text)
    text = _MIXED.sub(lambda mixed: rf"({mixed[1]}+\frac{{{mixed[2] or mixed[4]}}}{{{mixed[3] or mixed[5]}}})", text)
    text = _SUBSCRIPT.sub(r"_{\1}", text)
    return _TIMES_BRACKET.sub(r"\1 \\cdot ", text)


# --- the whole -------------------------------------------------------------------------------------------------------

_WHOLE = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"\$\$((?:[^$]|\\\$)+)\$\$", r"\$((?:[^$\\]|\\.)+)\$", r"\\\((.+)\\\)", r"\\\[(.+)\\\]", r"\*\*(.+)\*\*",
        r"`+([^`]+)`+", r'"([^"]+)"', r"'([^']+)'", r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}", r"__(.+)__",
    )
]  # fmt: skip
_EDGE = re.compile(r"\A[\s,;:=]+|(?:[\s,;:]|(?<!\\)\\\\|(?<!\.)\.)+\Z")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")


def without_frame(text: str) -> str:
    """The text without delimiters, a box, marks of emphasis and punctuation around it."""
    previous: str | None = None
    while previous != text:
        previous, text = text, _EDGE.sub("", text)
        for frame in _WHOLE:
            if (match := frame.fullmatch(text)) and not re.search(r"\\\)|\\\]|\*\*|\$", match[1].replace(r"\$", "")):
                text = match[1]
        box = _BOX.match(text)
        if box and closing(text, box.end() - 1) == len(text) - 1:
            text = text[box.end() : -1]
    return text


def standard_form(text: str) -> str:
    """A formula in the one notation, without anything around it."""
    text = _MINUS.sub("-", without_frame(in_plain_characters(text)))
    steps: tuple[Callable[[str], str], ...] = (_without_inner_frames, with_plain_numbers, _with_commands, _with_braces)
    for step in steps:
        text = step(text)
    return " ".join(_EDGE.sub("", text).split())


_MINUS = re.compile(r"\A(?:minus|negative)\s+(?=[\d\\$])", re.IGNORECASE)


_TEXT_WITH_FORMULA = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:bf|rm))\s*\{(?=[^{}]*\\)")
_TEXT_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:bf|rm))(?![a-zA-Z])(?!\s*\{)")


def _without_inner_frames(text: str) -> str:
    """Without the delimiters of several formulas, as in `$x = 1$ and $y = 2$`."""
    text = re.sub(r"\\[()\[\]](?!\s*\d+(?:pt|em))", " ", text) if re.search(r"\\[()]|\\\[(?!\d)", text) else text
    text = re.sub(r"(?<!\\)\$([^$\n]*[^$\s\d][^$\n]*|\s*-?\d[\d.,]*\s*)(?<!\\)\$", r" \1 ", text)
    text = _with_arguments(text, _TEXT_WITH_FORMULA, "{}", "  ")
    text = _TEXT_COMMAND.sub(" ", text)
    return _with_arguments(text, _BOX, "{}", "  ").replace(r"\boxed", " ") if "boxed" in text else text
