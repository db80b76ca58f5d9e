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
from collections.abc import Iterator

FINAL_MARKS = ".!?…。！？｡．؟۔।॥։።፧။។‼⁇⁈⁉‽"
_QUOTES = "\"'”’»›)）】」』》"
CLOSING = f"{_QUOTES}*_~`"
"""Characters that may stand between the final mark of a sentence and the blank after it."""
_OPENING = "\"'“”‘’«‹„¿¡([{（【「『《*_~`>#|-"
_WITHOUT_BLANK = "。！？｡"  # ideographic marks: none needs to follow
_LONGEST = 12  # letters of an abbreviation or of the word after it

_MARK = f"[{FINAL_MARKS}]"
_CANDIDATE = re.compile(
    rf"(?P<marks>{_MARK}(?<!{_MARK}{{2}})(?<!{_MARK} .){_MARK}*+(?: {_MARK}++)*+)"
    rf"(?P<closing>(?:[{re.escape(CLOSING)}\]}}]|\[\d{{1,3}}\])*+)(?=\s|\Z)"
    rf"|[{_WITHOUT_BLANK}]{_MARK}*+[{re.escape(CLOSING)}]*+"
    r"|(?P<gap>\n[^\S\n]*+\n)"
)
_FOLLOWING = re.compile(rf"[\s{re.escape(_OPENING)}]*+(?P<word>[^\W_]{{0,{_LONGEST}}}+)(?P<dot>\.?)")
_NUMBER_OF_ITEM = re.compile(r"(?:\A|[:;]\s)\s*+[(\[*_]*+(\d{1,2})\Z")
_INITIALS = re.compile(r"[^\W\d_](?:\.-?[^\W\d_])*+")
_ROMAN = re.compile(r"[IVXLC]{2,}")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NEVER_LAST = _set(
    "dr drs mr mrs ms mx prof messrs mme mlle sra srta dra e.g i.e cf viz vs approx p.s p.p.s bzw ca डॉ д-р проф ул"
)
_TITLES = _set("Adm Capt Cmdr Col Cpl Gen Gov Hon Lt Maj Msgr Mt Ft Pres Rep Rev Sen Sgt Supt")  # small, some are words
_BEFORE_NUMBERS = _set("no nos nr fig figs eq eqs vol vols ch chap art p pp op ex ver v para")
_BEFORE_CAPITALS = _set("al assn ave b.sc blvd co corp dept govt inc jr llc ltd m.sc ph.d rd sr st")
_BEFORE_SMALL = _set(
    "etc usw est ext incl min max avg misc jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur "
    "thurs fri hr hrs sec secs mins yr yrs ft mi oz lb lbs yd yds"
)
_CLOCK = _set("a.m p.m")
_AFTER_CLOCK = _set(
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


def split_sentences(text: str) -> list[str]:
    """The sentences of a plain text that have a letter or digit, with their final marks."""
    return [piece for piece in _pieces(text) if _LETTER_OR_DIGIT.search(piece)]


def _pieces(text: str) -> Iterator[str]:
    start, item = 0, 0
    has_list = " 1. " in text and " 2. " in text
    for candidate in _CANDIDATE.finditer(text):
        before = text[max(start, candidate.start() - _LONGEST) : candidate.start()]
        number = _NUMBER_OF_ITEM.search(before) if has_list and candidate["marks"] == "." else None
        if number and int(number[1]) in (1, item + 1):
            item = int(number[1])
        elif _ends_sentence(before, candidate):
            yield text[start : candidate.end()]
            start = candidate.end()
    yield text[start:]


def _ends_sentence(before: str, candidate: re.Match[str]) -> bool:
    """Whether a sentence ends with a final mark or blank line; `before` is the end of the text before it."""
    following = _FOLLOWING.match(candidate.string, candidate.end())
    assert following, "an empty text matches"
    is_small = following["word"][:1].islower()
    marks, closing = candidate["marks"], candidate["closing"]
    if candidate["gap"]:
        return not is_small
    if not marks:
        return True
    if is_small and ("…" in marks or ".." in marks or ". ." in marks or not set(_QUOTES).isdisjoint(closing)):
        return False
    return marks != "." or not _goes_on(before.split(), following)


def _goes_on(before: list[str], following: re.Match[str]) -> bool:
    """Whether the full stop after the words before belongs to an abbreviation within a sentence."""
    shortened = _with_letters_before([part.lstrip(_OPENING) for part in before[-3:]])
    folded, word = shortened.casefold(), following["word"]
    is_small, is_number = word[:1].islower(), word[:1].isdigit()
    is_first_word = not is_small and word.casefold() in _FIRST_WORDS
    if folded in _NEVER_LAST or shortened in _TITLES:
        return True
    if folded in _BEFORE_NUMBERS and (is_number or _ROMAN.fullmatch(word)):
        return True
    if folded in _BEFORE_CAPITALS:
        return not is_first_word
    if folded in _BEFORE_SMALL:
        return is_small or is_number
    if folded in _CLOCK:
        return is_small or is_number or word.casefold() in _AFTER_CLOCK
    if not _INITIALS.fullmatch(shortened):
        return False
    if following["dot"] and len(word) == 1:  # the next initial
        return True
    if len(shortened) == 1 and shortened.islower():  # such as `x`, or the `b` of `b. 1564`
        return is_number
    if shortened == "I":
        return len(before) == 1
    return not is_first_word


def _with_letters_before(words: list[str]) -> str:
    """The last word, with the single letters that stand before it, as in `z. B` and `5 p. m`."""
    joined = ""
    for word in reversed(words):
        if joined and not (len(word) == 2 and word[1] == "." and _INITIALS.fullmatch(joined)):
            break
        joined = word + joined
    return joined
