"""The visible part of a completion: what is left once reasoning, leftovers of chat templates and markup are dropped."""

from __future__ import annotations

import re
from typing import NamedTuple

from hir_core.thinking import Mark, outside_thinking

_REASONING = r"think(?:ing)?|thoughts?|reason(?:ing)?|scratchpad|reflection|analysis|inner_monologue"
_REASONING_MARK = re.compile(
    rf"<(?P<close>/)?(?:{_REASONING})>|<\|begin_of_thought\|>|(?P<end><\|end_of_thought\|>)|◁think▷|(?P<end2>◁/think▷)"
    r"|\[THINK\]|(?P<end3>\[/THINK\])",
    re.IGNORECASE,
)
_FINAL_CHANNEL = re.compile(r"<\|channel\|>final(?:<\|[a-z_]+\|>[^<]{0,40})?<\|message\|>|assistantfinal(?=\S)")
_CHANNEL = re.compile(r"<\|channel\|>(?:analysis|commentary)")
_TURN_END = re.compile(
    r"<\|(?:im_end|eot_id|eom_id|endoftext|end_of_text|end|return|user|im_start|start_header_id|assistant)\|>"
    r"|</?s>|<end_of_turn>|<start_of_turn>|<eos>|<pad>|<bos>|<｜end▁of▁sentence｜>|<\|end▁of▁sentence\|>|\[/?INST\]"
    r"|<\|(?:begin|end)_of_solution\|>"
)
_NEXT_QUESTION = re.compile(
    r"\n[ \t]*(?:\*\*)?(?:Q|Question(?: \d+)?|Human|User|Problem(?: \d+)?|Input)(?:\*\*)?[ \t]*:"
)
_SPEAKER = re.compile(r"\s*(?:assistant|model|ai|bot)(?:\s*\n|\s*:)\s*", re.IGNORECASE)
_ANSWER_TAG = re.compile(r"<(?:final_?)?answer>", re.IGNORECASE)


class Visible(NamedTuple):
    """The visible part of a completion."""

    text: str
    is_unfinished: bool
    """Whether the completion ends within its reasoning."""


def visible(completion: str) -> Visible:
    """The part of a completion that its reader is meant to see."""
    text, unfinished = completion, False
    if "<" in text or "[" in text or "◁" in text or "assistantfinal" in text:
        text, unfinished = _without_reasoning(text)
        text = _first_turn(text)
    if ":" in text and (asked := _NEXT_QUESTION.search(text)) and text[: asked.start()].strip():
        text = text[: asked.start()]
    if (speaker := _SPEAKER.match(text)) and speaker.end() < len(text):
        text = text[speaker.end() :]
    return Visible(text.strip(), unfinished)


def _without_reasoning(text: str) -> tuple[str, bool]:
    channels = list(_FINAL_CHANNEL.finditer(text))
    if channels:
        return text[channels[-1].end() :], False
    if _CHANNEL.search(text):
        return "", True
    marks = (Mark(*found.span(), any(found.groupdict().values())) for found in _REASONING_MARK.finditer(text))
    outside = outside_thinking(text, marks)
    if outside.unfinished_from is None:
        return "\n".join(outside.parts), False
    answers = list(_ANSWER_TAG.finditer(text, outside.unfinished_from))
    rest = "".join(outside.parts) + (text[answers[-1].start() :] if answers else "")
    return rest, not rest.strip()


def _first_turn(text: str) -> str:
    """The first turn that is not empty: what follows it was written for somebody else."""
    start = 0
    for end in _TURN_END.finditer(text):
        turn = text[start : end.start()]
        if turn.strip() and turn.strip().lower() not in ("assistant", "model"):
            return turn
        start = end.end()
    return text[start:]


# --- markup ----------------------------------------------------------------------------------------------------------

_TEXT_COMMAND = re.compile(
    r"\\(?:text(?:bf|it|rm|tt|sf|normal)?|math(?:rm|bf|it|sf|tt|bb|cal)|mbox|operatorname|emph|bm)\s*\{([^{}]*)\}"
)
_FRACTION = re.compile(r"(?:(\d) ?)?\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_SPACING = re.compile(r"\\[,;:! ]|\\quad|\\qquad|~")
_COMMANDS = {
    r"\%": "%", r"\$": "$", r"\#": "#", r"\&": "&", r"\_": "_", r"\times": "×", r"\cdot": "·", r"\div": "÷",
    r"\pm": "±",
    r"\approx": "≈", r"\neq": "≠", r"\ne": "≠", r"\leq": "≤", r"\le": "≤", r"\geq": "≥", r"\ge": "≥", r"\pi": "π",
    r"\sqrt": "√", r"\implies": "⇒", r"\Rightarrow": "⇒", r"\rightarrow": "→", r"\to": "→", r"\therefore": "∴",
    r"\circ": "°", r"\checkmark": "✓", r"\infty": "∞", r"\lt": "<", r"\gt": ">",
}  # fmt: skip
_COMMAND = re.compile(
    "|".join(
        re.escape(command) + (r"(?![A-Za-z])" if command[-1].isalpha() else "")
        for command in sorted(_COMMANDS, key=len, reverse=True)
    )
)
_LEFTOVER = re.compile(
    r"\\(?:left|right|boxed|fbox|displaystyle|begin\{[a-z*]{1,20}\}|end\{[a-z*]{1,20}\}|[()\[\]])|\$\$"
)
_HTML = re.compile(r"</?(?:b|i|em|strong|p|span|u|code|div|mark|sup|sub|h[1-6]|li|ul|ol)>", re.IGNORECASE)
_FENCE = re.compile(r"```(?:[a-z]{1,12}(?=\n))?")
_BREAK = re.compile(r"<br\s?/?>", re.IGNORECASE)
_ODD = str.maketrans(
    {
        "’": "'", "‘": "'", "“": '"', "”": '"', "：": ":", "（": "(", "）": ")", "，": ",",
        "\u200b": None, "\ufeff": None,
        "½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3", "⅕": " 1/5", "⅛": " 1/8", "⅜": " 3/8",
        "⅝": " 5/8", "⅞": " 7/8", "⁄": "/", "\r": "\n", "\t": " ",
    }
)  # fmt: skip


def plain(text: str) -> str:
    """The text without LaTeX and HTML around its words and numbers, and with plain quotes; bold type stays marked."""
    if not text.isascii() or "\r" in text or "\t" in text:
        text = text.translate(_ODD)
    text = without_tags(text)
    if "\\" in text or "{,}" in text:
        text = _without_latex(text)
    return text


def without_tags(text: str) -> str:
    """The text without the marks of code blocks and without HTML around its words."""
    if "```" in text:
        text = _FENCE.sub("", text)
    if "<" in text:
        text = _BREAK.sub("\n", _HTML.sub("", text))
    return text


def _without_latex(text: str) -> str:
    text = _SPACING.sub(" ", text.replace("{,}", ","))
    for _ in range(3):  # commands within commands
        text = _TEXT_COMMAND.sub(r"\1", text)
    text = _FRACTION.sub(_plain_fraction, text)
    text = _COMMAND.sub(lambda command: _COMMANDS[command[0]], text)
    return _LEFTOVER.sub(" ", text).replace("^°", "°").replace("^{°}", "°")


def _plain_fraction(fraction: re.Match[str]) -> str:
    units, above, below = fraction[1], fraction[2] or fraction[3] or "", fraction[4] or fraction[5] or ""
    if not (above.strip().isdecimal() and below.strip().isdecimal()):
        above, below = f"({above})", f"({below})"
    return f"{units} {above.strip()}/{below.strip()}" if units else f"{above.strip()}/{below.strip()}"
