"""Where the sentences of a plain text end: at final marks, except after abbreviations, and at blank lines.

These are rules for English that mostly hold in other languages too, because nothing says which language a text is in.
They are our own because the verdict on a text must not change with the release of a library. They do not understand the
text, so some ends are guessed:

- After an abbreviation that may end a sentence (`U.S.`, `Inc.`) or an initial (`plan B.`), a sentence begins only with
  a common first word such as `The` or `He`: `in the U.S. Mary left` is one sentence.
- After `...`, and after a mark with a closing quote or bracket, a small letter goes on with the sentence.
- A blank line or an item of a list begins a sentence, unless a small letter follows and no final mark stands before.
- Most abbreviations of other languages are unknown, and so are German ordinals (`am 3. Mai`) and scripts without final
  marks, such as Thai.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

FINAL_MARKS = ".!?…。！？｡．؟۔।॥։።፧။។‼⁇⁈⁉‽"
CLOSING = "\"'”’»›)）】」』》*_~`"
"""Characters that may stand between the final mark of a sentence and the blank after it."""
_QUOTES = frozenset(CLOSING) - frozenset("*_~`")
_OPENING = "\"'“”‘’«‹„¿¡([{（【「『《*_~`>#|-"
_WITHOUT_BLANK = "。！？｡"  # ideographic marks: none needs to follow
_LONGEST = 12  # letters of an abbreviation or of the word after it

_MARK = f"[{FINAL_MARKS}]"
# Begins with one set of characters, because `re` searches for these fast.
_CANDIDATE = re.compile(
    rf"[{FINAL_MARKS}\n](?:"
    rf"(?<={_MARK})(?<!{_MARK}{{2}})(?<!{_MARK} .){_MARK}*+(?: {_MARK}++)*+"
    rf"(?P<closing>(?:[{re.escape(CLOSING)}\]}}]|\[\d{{1,3}}\])*+)(?=\s|\Z)"
    rf"|(?<=[{_WITHOUT_BLANK}]){_MARK}*+[{re.escape(CLOSING)}]*+"
    r"|(?<=\n)(?P<gap>[^\S\n]*+\n\s*+))"
)
_FOLLOWING = re.compile(rf"[\s{re.escape(_OPENING)}]*+(?P<word>[^\W_]{{0,{_LONGEST}}}+)(?P<dot>\.?)")
_NUMBER_OF_ITEM = re.compile(r"(?:\A|[:;]\s)\s*+[(\[*_]*+(\d{1,2})\Z")
_INITIALS = re.compile(r"[^\W\d_](?:\.-?[^\W\d_])*+")
_ELLIPSIS = re.compile(r"…|\. ?\.")
_ONLY_A_TIME = re.compile(
    r"\W*+(?:at|by|around|about|before|after|until|till|since|from)(?: \w{1,10})? \d{1,2}(?:[:.]\d\d)? ?[ap]\.? ?m",
    re.IGNORECASE,
)
"""`At 5 p.m`: no sentence yet, whatever word follows."""
_ROMAN = re.compile(r"[IVXLC]{2,}")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


# --- which words go on with a sentence after a full stop -------------------------------------------------------------


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_CLOCK_GOES_ON_WITH = _set(
    "monday tuesday wednesday thursday friday saturday sunday eastern central mountain pacific "
    "est edt cst cdt mst mdt pst pdt et pt gmt utc bst cet cest"
)
_FIRST_WORDS = _set(
    "a after all although an and another any as at because before both but by despite during each even every few "
    "finally first for from had has have he her here his how however i if in instead is it its last later let many "
    "maybe meanwhile most my next no nobody not now of on once one only or other our perhaps she since so some "
    "sometimes soon still such that the their then there these they this those though thus to today together "
    "tomorrow under until was we were what when where which while who why with without yes yesterday yet you your"
)


def _any(_: str) -> bool:
    return True


def _small(word: str) -> bool:
    return word[:1].islower()


def _small_or_number(word: str) -> bool:
    return word[:1].islower() or word[:1].isdigit()


def _number(word: str) -> bool:
    return word[:1].isdigit() or _ROMAN.fullmatch(word) is not None


def _clock(word: str) -> bool:
    return _small_or_number(word) or word.casefold() in _CLOCK_GOES_ON_WITH


def _no_first_word(word: str) -> bool:
    return _small(word) or word.casefold() not in _FIRST_WORDS


_GOES_ON: dict[str, Callable[[str], bool]] = {
    abbreviation: rule
    for abbreviations, rule in {
        "dr drs mr mrs ms mx prof messrs mme mlle sra srta dra e.g i.e cf viz vs approx p.s p.p.s bzw ca": _any,
        "डॉ д-р проф ул": _any,
        # Titles only with a capital, because some are words without.
        "Adm Capt Cmdr Col Cpl Gen Gov Hon Lt Maj Msgr Mt Ft Pres Rep Rev Sen Sgt Supt": _any,
        "no nos nr fig figs eq eqs vol vols ch chap art pp op ex ver para": _number,
        "al assn ave b.sc blvd co corp dept govt inc jr llc ltd m.sc ph.d rd sr st": _no_first_word,
        "etc usw est ext incl min max avg misc hr hrs sec secs mins yr yrs ft mi oz lb lbs yd yds": _small_or_number,
        "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri": _small_or_number,
        "a.m p.m": _clock,
    }.items()
    for abbreviation in abbreviations.split()
}
"""Abbreviations without their last full stop, folded except for titles, and what goes on with the sentence after it."""


# --- the sentences ---------------------------------------------------------------------------------------------------


def split_sentences(text: str) -> list[str]:
    """The sentences of a plain text that have a letter or digit, with their final marks."""
    return [piece for piece in _pieces(text) if _LETTER_OR_DIGIT.search(piece)]


def _pieces(text: str) -> Iterator[str]:
    start, item = 0, 0
    has_list = " 1. " in text and " 2. " in text
    for candidate in _CANDIDATE.finditer(text):
        before = text[max(start, candidate.start() - _LONGEST) : candidate.start()]
        number = _NUMBER_OF_ITEM.search(before) if has_list and candidate[0] == "." else None
        if number and int(number[1]) in (1, item + 1):
            item = int(number[1])
        elif candidate.end() == len(text) or (
            _ends_sentence(before, candidate) and not _ONLY_A_TIME.fullmatch(text, start, candidate.start())
        ):
            yield text[start : candidate.end()]
            start = candidate.end()
    yield text[start:]


def _ends_sentence(before: str, candidate: re.Match[str]) -> bool:
    """Whether a sentence ends with a final mark or blank line; `before` is the end of the text before it."""
    closing = candidate["closing"] or ""
    marks = candidate[0].removesuffix(closing)
    is_open = candidate.lastgroup == "gap" or not _QUOTES.isdisjoint(closing) or _ELLIPSIS.search(marks)
    abbreviation = _abbreviation(before.split()) if marks == "." else ""
    if not is_open and not abbreviation:
        return True
    following = _FOLLOWING.match(candidate.string, candidate.end())
    assert following, "an empty text matches"
    if is_open and _small(following["word"]):
        return False
    return not abbreviation or not _goes_on(abbreviation, following)


def _abbreviation(before: list[str]) -> str:
    """The last of the words before a full stop, if it may be shortened: known, or letters as in `U.S` or `p. m`."""
    last = before[-1].lstrip(_OPENING) if before else ""
    for word in reversed(before[-3:-1]) if len(last) == 1 else ():
        if len(word.lstrip(_OPENING)) == 2 and word[-1] == ".":
            last = word.lstrip(_OPENING) + last
    if last == "I" and len(before) > 1:  # `So did I.`, but `I. Newton`
        return ""
    return last if last in _GOES_ON or last.casefold() in _GOES_ON or _INITIALS.fullmatch(last) else ""


def _goes_on(abbreviation: str, following: re.Match[str]) -> bool:
    """Whether the sentence goes on after an abbreviation and its full stop."""
    word = following["word"]
    rule = _GOES_ON.get(abbreviation) or _GOES_ON.get(abbreviation.casefold())
    if rule:
        return rule(word)
    if following["dot"] and len(word) == 1:  # the next initial
        return True
    if len(abbreviation) == 1 and abbreviation.islower():  # such as `x`, or the `b` of `b. 1564`
        return word[:1].isdigit()
    return _no_first_word(word)
