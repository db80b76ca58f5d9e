"""Where the final formula of a completion stands: in a box, after an announcement, or in its last statement."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from hir_core.rewards.formulas.notation import (
    CONSTANTS,
    CURRENCY,
    FUNCTIONS,
    SCALES,
    closing,
    spelled_number,
    without_frame,
    in_plain_characters,
)

NO_FORMULA, HEDGED, SEVERAL = "no formula", "hedged", "several formulas"


class Found(NamedTuple):
    """The texts that a completion states as its answer, or why there is none."""

    texts: tuple[str, ...] = ()
    problem: str = ""
    names_none: bool = False
    """Whether the completion names no answer at all."""


NOTHING = Found((), NO_FORMULA, names_none=True)

# --- formulas in a text ----------------------------------------------------------------------------------------------

_NOT_NAMES = """a an as at be by do go he if in is it me my no of oh ok on or so to up us we am and are but can did for
get got had has her him his how its let may new not now off one our out own per set she six sum ten the too two use via
was way who why yes you all any each""".split()
_KNOWN = "|".join(sorted([*FUNCTIONS, *CONSTANTS, "sqrt"], key=len, reverse=True))
_DELIMITED = re.compile(
    r"(?<!\\)\$\$(?:[^$]|\\\$)+\$\$|(?<![\\\d])\$(?:\\.|[^$\\\n])+\$|\\\((?:(?!\\\)).)+\\\)|\\\[(?:(?!\\\]).)+\\\]"
    r"|\\begin\{(?P<name>[a-z]*matrix|cases|aligned|align\*?|array|equation\*?)\}.*?\\end\{(?P=name)\}",
    re.DOTALL,
)
_TOKEN = re.compile(
    rf"""
    (?P<number>(?:{CURRENCY}[ ]?)?\d*\.\d*(?=\\(?:overline|bar|dot)\W)|(?:{CURRENCY}[ ]?)?\d+(?:,\d{{3}}(?!\d))*(?:\.\d+)?(?:[eE][+-]?\d+(?!\w))?|(?:{CURRENCY}[ ]?)?\.\d+)
      (?P<letter>(?<=\d)(?:k|K|M|B|bn)(?!\w))?
      (?P<scale>[ ]?-?(?:{"|".join(SCALES)})s?(?!\w))?
      (?P<mark>[ ]?(?:\\?%|percent(?!\w)|per[ ]cent(?!\w)|degrees?(?!\w)))?
    | (?P<text>\\(?:text|mathrm|mathbf|mbox|operatorname|begin|end)\w*\*?\s*\{{[^{{}}]*\}}(?:\^\{{?\d\}}?)?)
    | (?P<command>\\[a-zA-Z]+|\\[^\w\s$])
    | (?P<function>(?<![a-zA-Z])(?:{_KNOWN})(?![a-z]))
    | (?P<letters>(?<![a-zA-Z'])[a-zA-Z]{{1,3}}(?![a-zA-Z]|'[a-z]))
    | (?P<operator>\*\*|[-+*/^=<>|!_&]|'(?!\w)|(?<=\d)%|(?<=\d):(?=\d)|(?<=\d[ ]):(?=[ ]\d))
    | (?P<bracket>[()\[\]{{}}])
    | (?P<separator>[,;:])
    """,
    re.VERBOSE,
)
_GAP = re.compile(r"[ \t]*(?:\n(?=[ \t]*[&\\]))?[ \t]*")


class Mention(NamedTuple):
    """A formula in a text, and where it stands."""

    start: int
    end: int


def mentions(text: str) -> list[Mention]:
    """The formulas of a text, in order, each as long as it can be."""
    found, position = list[Mention](), 0
    while position < len(text):
        delimited = _DELIMITED.match(text, position)
        if delimited and not _is_money(delimited[0]):
            found.append(Mention(*delimited.span()))
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


def _run(text: str, position: int) -> tuple[Mention | None, int]:
    """The formula without delimiters that begins at a position, if one does, and where to look on."""
    tokens, at = list[re.Match[str]](), position
    while (token := _TOKEN.match(text, at)) and _continues(tokens, token, text):
        tokens.append(token)
        gap = _GAP.match(text, token.end())
        at = gap.end() if gap else token.end()
    rest = tokens[-1].end() if tokens else position
    tokens = _trimmed(tokens)
    if not tokens or not _is_formula(tokens):
        return None, rest
    return Mention(tokens[0].start(), tokens[-1].end()), rest


def _continues(tokens: list[re.Match[str]], token: re.Match[str], text: str) -> bool:
    letters = token["letters"]
    if (token["separator"] == ":" and not _is_in_braces(tokens)) or (token["number"] and re.match(r"(?:st|nd|rd|th)\b", text[token.end() :])):
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
    before, after = text[: token.start()].rstrip()[-1:], text[token.end() :].lstrip()[:1]
    return (bool(before) and before in "=+*/^<>_(-") or (bool(after) and after in "=+*/^<>_)-")


def _follows_digit(token: re.Match[str], text: str) -> bool:
    before = text[token.start() - 1 : token.start()]
    return before.isdigit() or before in tuple(")}")


_LEADS = ("=", "*", "/", "^", "<", ">", "!", "&", "|", "'", "_", "**")


def _trimmed(tokens: list[re.Match[str]]) -> list[re.Match[str]]:
    """Without separators and operators at the ends, and without brackets that do not close."""
    changed = True
    while tokens and changed:
        last, first = tokens[-1], tokens[0]
        changed = True
        if last["separator"] or (last["operator"] and last[0] not in ("!", "'", "|", "%")):
            tokens = tokens[:-1]
        elif first["separator"] or (first["operator"] and first[0] in _LEADS and first[0] != "|"):
            tokens = tokens[1:]
        elif first["letters"] and first["letters"] in "aAI" and len(tokens) > 1 and not tokens[1]["operator"]:
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
    operates = any(token["operator"] and token[0] not in ("-", "'", "!", "&", "|", "/") for token in tokens)
    if letters:
        return operates or any(token["function"] for token in tokens) or any(len(tokens) > 2 and t[0] in "-/" for t in tokens)
    if any(token["function"] and token[0] in ("pi", "inf", "infinity") for token in tokens):
        return len(tokens) == 1 or operates
    return "".join(token[0] for token in tokens) in ("{}", "[]")


# --- statements ------------------------------------------------------------------------------------------------------

_THOUGHT = re.compile(r"<(think|thinking|reasoning|thought)>", re.IGNORECASE)
_THOUGHT_END = re.compile(r"</(?:think|thinking|reasoning|thought)>", re.IGNORECASE)
_LEFTOVER = re.compile(r"<\|[^|<>]{1,40}\|>|</?s>|<end_of_turn>")
_TAGGED = re.compile(r"<(?P<tag>answer|final_answer)>(.*?)(?:</(?P=tag)>|\Z)", re.IGNORECASE | re.DOTALL)
_BOLD = re.compile(r"(?<![\w)\]}*])\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*(?![\w(*])|(?<!\w)__(?=\S)([^_\n]+?)__(?!\w)")
_RESTATED = re.compile(r"(?<=[\d%}$])[ ]+\([^()]*[%=][^()]*\)")
_NEGATIVE = re.compile(r"\bnegative (?=[\d\\$])|(?:(?<=is )|\A\s*)minus (?=[\d\\$])", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?=\w))")
_JOINS_BOXES = re.compile(r"[\s$,.;)(\\]*(?:(?:and|or)[\s$,.;(\\]*(?:\w\s*=\s*)?)?")
_ANNOUNCED = re.compile(
    r"(?:\b(?:final |correct )?(?:answer|solution|result)s?\b(?: (?:to|for|of|in)\b[^\n.?!:=$]{0,80}?)?\s*"
    r"(?:\bis(?: that)?\b|\bare\b|\bwould be\b|\bmust be\b|\bshould be\b|=|:)+\s*(?:therefore|thus|simply|equal to)?[:\s]*"
    r"|^\W{0,6}(?:final )?answer\W{0,6}$\s*|^[ ]*####[ ]*)",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)[.!?]+(?=[\s\"')\]*$]|\Z)|\n\s*\n|\n(?=\s*(?:[-*#]|\d+\.)\s)|\n")
_TAKEN_BACK = re.compile(r"\b(?:wait|actually|correction|scratch that|i made (?:a|an) (?:mistake|error)|let me re-?\w+)\b", re.IGNORECASE)


def final_formula(completion: str) -> Found:
    """The texts that a completion, or the part of it after a marker, states as its answer."""
    text = visible(completion)
    if text is None or not text.strip():
        return NOTHING
    text = _BOLD.sub(lambda bold: bold[1] or bold[2], in_plain_characters(text))
    text = _NEGATIVE.sub("-", _RESTATED.sub("", text))
    if tagged := _TAGGED.findall(text):
        text = tagged[-1][1]
    if boxes := _boxes(text):
        return Found(boxes)
    announced = [match.end() for match in _ANNOUNCED.finditer(text)]
    for end in reversed(announced):
        line = _first_line(text[end:])
        found = in_sentence(line, follows_announcement=True)
        if found != NOTHING:
            return found
    return _concluded(text.strip())


def visible(completion: str) -> str | None:
    """The completion without reasoning and leftovers of chat templates; None where its reasoning does not end."""
    ends = [match.end() for match in _THOUGHT_END.finditer(completion)]
    text = completion[ends[-1] :] if ends else completion
    return None if _THOUGHT.search(text) else _LEFTOVER.sub(" ", text)


def _boxes(text: str) -> tuple[str, ...]:
    """The contents of the boxes; those that only `and` or a comma separates are one answer."""
    groups, previous = list[str](), -1
    for box in _BOX.finditer(text):
        if box.start() < previous:
            continue
        if box[0].endswith("{"):
            end = closing(text, box.end() - 1)
            if end < 0:
                continue
            content, end = text[box.end() : end], end + 1
        else:
            content, end = text[box.end() : box.end() + 1], box.end() + 1
        joins = groups and _JOINS_BOXES.fullmatch(text, previous, box.start())
        if joins and re.search(r"and|or|,", joins[0]):
            groups[-1] += f"{' or ' if 'or' in joins[0] else ', '}{content}"
        else:
            groups.append(content)
        previous = end
    if len(groups) > 1 and _TAKEN_BACK.search(text):
        groups = groups[-1:]
    return tuple(dict.fromkeys(" ".join(group.split()) for group in groups if group.strip()))


def _first_line(text: str) -> str:
    """The first sentence of a text."""
    text = text.lstrip()
    return next((text[slice(*span)] for span in _sentences(text) if text[slice(*span)].strip(" *_#")), "")


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    """Where the sentences of a text are; within formulas none ends."""
    inside, start = mentions(text), 0
    for end in _SENTENCE_END.finditer(text):
        if any(mention.start <= end.start() < mention.end for mention in inside):
            continue
        if text[start : end.end()].strip():
            yield start, end.end()
        start = end.end()
    if text[start:].strip():
        yield start, len(text)


# --- one sentence ----------------------------------------------------------------------------------------------------

_HEDGE = re.compile(
    r"\b(?:might|maybe|perhaps|possibly|not sure|unsure|uncertain|cannot (?:tell|decide)|can't (?:tell|decide)|either|"
    r"depending on|depends on|could be|may be|wild guess|don't know|do not know)\b",
    re.IGNORECASE,
)
_SUBORDINATE = re.compile(
    r",?\s+\(?(?:because|since|where|whereas|as|given that|due to|which|so that|for which|when|if|rather than|instead of|"
    r"not|with|while|after|assuming|but|and this|and it|for|from|between|among|each|every|by (?=\w+ing))\b",
    re.IGNORECASE,
)
_REASON = re.compile(r"\b(?:because|since|given that|due to)\b", re.IGNORECASE)
_CONCLUDES = re.compile(
    r"\b(?:so|therefore|thus|hence|then|that is|i\.e|to get|we get|get|gives|giving|yields?|which (?:is|gives|means)|conclude(?: that)?|"
    r"makes?|making|leaves|equals|totals?|have|(?:add|sum|come|amount)s?(?: up)? to)\b|\\(?:therefore|implies|Rightarrow)|∴",
    re.IGNORECASE,
)
_STATES = re.compile(
    r"[a-zA-Z]:\s|\b(?:is|are|was|were|be|equals?|gives?|giving|makes?|making|gets?|have|has|becomes?|yields?|total(?:s|ing)?|needs?|takes?|costs?|"
    r"'s|so|therefore|thus|hence|i would say|remains?|left|comes to|of|to)\b",
    re.IGNORECASE,
)
_RELATES = re.compile(r"[=<>]|\\(?:le|ge|ne|in)(?![a-z])")
_SUPPOSED = re.compile(
    r"\W*(?:since|because|as|if|when|given(?: that)?|suppose|let|for|with)\b(?:[^,()\[\]]|\([^()]*[)\]]|\[[^\[\]]*[)\]])*,\s*(?:then\s+)?",
    re.IGNORECASE,
)
_HINT = re.compile(
    r"\W*(?:(?:first|then|next|now|just|simply|please|you (?:can|should|need to|have to)|try to|let us|let's|we (?:can|should|need to)|"
    r"start by|begin by|to \w+[^,]{0,40},)[, ]+)*(?:add|subtract|multiply|divide|use|integrate|differentiate|apply|consider|try|cancel|factor|"
    r"complete|substitute|take|set|let|note|recall|remember|solve|simplify|draw|find|compute|calculate|count|look|think|"
    r"check|write|expand|square|adding|using|expanding|multiplying|start|begin|see|choose|pick|convert|rewrite|move)\b",
    re.IGNORECASE,
)
_BARE_REST = re.compile(r"[\s.,;:!*_`\"'()$#>-]*(?:(?:\d\w*)?\s*[a-zA-Z]+\s*){0,4}[\s.,;:!*_`\"')$]*")
_BETWEEN = re.compile(r"[\s]*(?:,?\s*(?:and|or)(?:\s+(?:also\s+)?(?:by|to))?|[,;])\s*(?:then\s+)?", re.IGNORECASE)
_OR = re.compile(r"\bor\b", re.IGNORECASE)
_CUT_OFF = re.compile(r"(?:\b(?:is|are|the|a|an|of|and|or|by|to|with|so|equals|that|then|we|for|in|from|have)|[=+*/(,-])\s*\Z")


def _system(text: str) -> Found:
    """Lines that are nothing but equations, taken for one answer."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    names = [line.partition("=")[0].strip() for line in lines]
    are_values = all(re.fullmatch(r"[a-zA-Z]\w?", name) and _is_covered(line) for name, line in zip(names, lines, strict=True))
    return Found((", ".join(lines),)) if len(lines) > 1 and are_values and len({*names}) == len(names) else NOTHING


def _concluded(text: str) -> Found:
    """What a text without a box or an announcement states: as a whole, or in its last sentence with a formula."""
    if (system := _system(text)) != NOTHING:
        return system
    whole = in_sentence(text) if "\n" not in text.strip() or _is_covered(text) else NOTHING
    parts = [text[slice(*span)].strip() for span in _sentences(text)]
    if len(parts) <= 1:
        return whole
    if lead := _lead(parts):
        return lead
    if _CUT_OFF.search(parts[-1]):
        return Found((), "ends before its answer", names_none=True)
    for part in reversed(parts):
        found = in_sentence(part)
        if found != NOTHING:
            return found
    return NOTHING


_CONCLUDING = re.compile(r"\W*(?:so|therefore|thus|hence|finally|in total|altogether|actually|wait|no)\b", re.IGNORECASE)


def _lead(parts: list[str]) -> Found | None:
    """The formula that a text gives first, with nothing else in its sentence, and then explains."""
    covered = _joined(parts[0], mentions(parts[0]))
    if len(covered) != 1 or covered[0].start > 3 or parts[0][covered[0].end :].strip(" .!*`)$") or _RELATES.search(parts[0]):
        return None
    first = in_sentence(parts[0])
    later = [in_sentence(part) for part in parts[1:] if _CONCLUDING.match(part)]
    return Found(first.texts + later[-1].texts if later else first.texts) if first.texts else None


def _is_covered(text: str) -> bool:
    return any(mention.start <= 2 and mention.end >= len(text) - 2 for mention in mentions(text))


def in_sentence(sentence: str, *, follows_announcement: bool = False) -> Found:
    """The formula that a sentence states."""
    sentence = sentence.strip()
    if (supposed := _SUPPOSED.match(sentence)) and mentions(sentence[supposed.end() :]):
        sentence = sentence[supposed.end() :]
    found = _joined(sentence, mentions(sentence))
    if not found:
        spelled = _SAYS_NUMBER.search(sentence)
        if spelled and spelled_number(spelled[1]) is not None:
            return Found((spelled[1],))
        return _words(sentence) if follows_announcement else _only_words(sentence)
    if sentence.endswith("?"):
        return NOTHING
    is_whole = len(found) == 1 and _is_bare(sentence, found[0])
    if not is_whole and _HINT.match(sentence) and not _CONCLUDES.search(sentence, 0, found[-1].start):
        return NOTHING
    if _HEDGE.search(sentence):
        return Found((), HEDGED)
    relates = any(_RELATES.search(sentence, *mention) for mention in found)
    if not (is_whole or follows_announcement or found[0].start <= 2 or relates or _STATES.search(sentence)):
        return _only_words(sentence)
    chosen = _narrowed(sentence, found)
    texts = dict.fromkeys(sentence[mention.start : mention.end].strip() for mention in chosen)
    if len(texts) > 1:
        return Found((), SEVERAL)
    text = next(iter(texts))
    return Found((text + _unit_after(sentence, chosen[-1].end),))


def _is_bare(sentence: str, mention: Mention) -> bool:
    return mention.start <= 3 and _BARE_REST.fullmatch(sentence, mention.end) is not None


_UNIT = re.compile(r"[ ]?(?:square |sq\.? |cubic )?(mm|cm|dm|m|km|kg|mg|g|lb|ml|l|L|inch(?:es)?|feet|foot|ft|yards?|miles?|meters?|metres?|"
                   r"centimet(?:er|re)s?|seconds?|minutes?|hours?|days?|weeks?|cents?|dollars?|radians?)\b(?:\s?\^\{?[23]\}?)?")  # fmt: skip


def _unit_after(sentence: str, end: int) -> str:
    """A unit of measure in words behind a formula."""
    unit = _UNIT.match(sentence, end)
    if unit is None or re.search(r"[a-zA-Z]", sentence[max(0, end - 1) : end]):
        return ""
    return rf" \text{{ {unit[0].strip()}}}" if "^" not in unit[0] else f" {unit[0].strip()}"


def _joined(sentence: str, found: list[Mention]) -> list[Mention]:
    """The mentions, those that only `and`, `or` or a comma separates taken for one."""
    joined = list[Mention]()
    for mention in found:
        if joined and _BETWEEN.fullmatch(sentence, joined[-1].end, mention.start):
            joined[-1] = Mention(joined[-1].start, mention.end)
        else:
            joined.append(mention)
    return joined


def _narrowed(sentence: str, found: list[Mention]) -> list[Mention]:
    """The mentions, and ever fewer of them until one is left."""
    for narrow in (_without_asides, _before_reason, _after_conclusion, _before_explanation, _after_verb, _relations):
        if len({sentence[mention.start : mention.end] for mention in found}) == 1:
            return found
        found = narrow(sentence, found) or found
    return found


def _without_asides(sentence: str, found: list[Mention]) -> list[Mention]:
    asides = [match.span() for match in re.finditer(r"\((?=[^()]*[a-zA-Z]{3})[^()]*\)", sentence)]
    return [m for m in found if not any(start < m.start and m.end < end for start, end in asides)]


def _after_conclusion(sentence: str, found: list[Mention]) -> list[Mention]:
    ends = [match.end() for match in _CONCLUDES.finditer(sentence, 0, found[-1].start)]
    return [mention for mention in found if ends and mention.start >= ends[-1]]


def _before_reason(sentence: str, found: list[Mention]) -> list[Mention]:
    reason = _REASON.search(sentence, found[0].end)
    return [mention for mention in found if reason and mention.end <= reason.start()]


def _before_explanation(sentence: str, found: list[Mention]) -> list[Mention]:
    explained = _SUBORDINATE.search(sentence, found[0].end)
    return [mention for mention in found if explained and mention.end <= explained.start() + 1]


def _after_verb(sentence: str, found: list[Mention]) -> list[Mention]:
    ends = [match.end() for match in re.finditer(r"\b(?:is|are|be|equals?|gives?|makes?|gets?|has|have|costs?|needs?)\b", sentence[: found[-1].start])]
    return [mention for mention in found if ends and mention.start >= ends[-1]]


def _relations(sentence: str, found: list[Mention]) -> list[Mention]:
    return [mention for mention in found if _RELATES.search(sentence, *mention)]


# --- words -----------------------------------------------------------------------------------------------------------

_LONGEST_WORDS = 5
_SAYS_NUMBER = re.compile(r"\b(?:is|are|equals|makes|gives|get)\s+([a-zA-Z][a-zA-Z -]{2,60}?)[\s.!*]*\Z")
_SOLUTIONS = re.compile(
    r"(?:there (?:is|are) )?no (?:real )?solutions?|(?:the )?empty set|(?:all|any) real numbers?|all reals|does not exist|undefined|"
    r"infinitely many(?: solutions)?|infinity",
    re.IGNORECASE,
)
_LETTER_ANSWER = re.compile(r"-?\s?[a-zA-Z]|\d+")


def _words(sentence: str) -> Found:
    """An answer in words after an announcement: a few words, or a letter."""
    words = sentence.strip(" .!*_`\"'")
    if not words or _HEDGE.search(words) or len(words.split()) > _LONGEST_WORDS:
        return NOTHING
    return Found((words,))


def _only_words(sentence: str) -> Found:
    """An answer in words that is a whole sentence: a variable, `no solution`, a number in words."""
    words = short_words(sentence)
    if words and (_LETTER_ANSWER.fullmatch(words) or _SOLUTIONS.fullmatch(words) or spelled_number(words) is not None):
        return Found((words,))
    return NOTHING


def short_words(text: str) -> str:
    """A text of a few words without anything around them; empty for any other text."""
    words = without_frame(text).strip(" .!*_`\"'()")
    return words if len(words.split()) <= _LONGEST_WORDS and "\n" not in words else ""
