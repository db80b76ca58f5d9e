"""Words around an answer that deny it (`not 42`), leave it open (`maybe 42`) or take it back (`wait`)."""

from __future__ import annotations

import re

from hir_core.prompts.phrases import FirstWords, Phrases

_FILLER = (
    r"(?:[\s\"'(*:\[`_$]|\b(?:the|a|an|be|to|equal|option|choice|answer|number|letter|simply|just|exactly|"
    r"both|either|necessarily|because|of|correct|right|it's|it|is)\b)*"
)
_DENIED_BEFORE = Phrases(
    r"(?:\bnot\b(?! only)|n't(?: be| think| believe)?\b|\bcannot(?: be)?\b|\bnever\b|\bneither\b|\bnor\b|"
    r"\brather than\b|"
    r"\binstead of\b|\bother than\b|\bexcept(?: for)?\b|\bexclud(?:e|es|ed|ing)\b|\beliminat(?:e|es|ed|ing)\b|"
    r"\brul(?:e|es|ed|ing) out\b|\bunlike\b|\bno longer\b|\breject(?:s|ed|ing)?\b|\bas opposed to\b|"
    r"\b(?:first|initially|originally|previously|earlier) (?:i )?(?:thought|said|guessed|assumed|calculated|got|"
    r"had)\b(?: that)?(?: it was)?|"
    r"\b(?:you|one|some|many|people) (?:might|may|could|would) (?:first )?(?:think|guess|expect|say|assume)\b"
    r"(?: that)?)"
    + _FILLER + r"\Z",
    "not t cannot never neither nor rather instead other except exclude excludes excluded excluding eliminate "
    "eliminates eliminated eliminating rule rules ruled ruling unlike longer reject rejects rejected rejecting opposed "
    "first initially originally previously earlier might may could would",
)  # fmt: skip
_ADVERBS = r"(?:(?:also|clearly|therefore|thus|definitely|simply|just|obviously|then|both|all|likely|probably)\s+)*"
_WRONG = (
    r"(?:wrong|incorrect|false|impossible|ruled\ out|eliminated|excluded|invalid|untrue|inaccurate|"
    r"unlikely|out|too\ \w+)\b"
)
_DENIED_AFTER = re.compile(
    rf"""[\s)*"'\]_$`.,]*(?:(?:which|that|it|this|option|choice|answer|one)\s+)*
    (?:
      (?:is|are|was|were|would\ be|seems|looks|must\ be|being)\s+{_ADVERBS}(?:not\b(?!\ only)|{_WRONG})
      | (?:is|are|was|were|does|do|did|can|could|would|will|has|have)n't\b
      | (?:does|do|did|can|could|would|will|has|have)\s+not\b | cannot\b
      | can\s+(?:also\s+)?be\s+(?:ruled\ out|eliminated|excluded|discarded|dismissed)
      | (?:[:(–—-]|->|→|=>)\s*[*_]*(?:{_WRONG}|no\b(?!\ doubt)
        |not\ (?:correct|right|possible|valid|consistent|true|supported|the)\b)
      | [:–—-]?\s*[*_]*[✗❌✘×](?!\s*\d)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_JOINED = re.compile(
    r"[\s)*\"'\]_$`]*,?\s*(?:or|nor|and)\b[\s(*\"'\[_$`]*(?:nor\s|option\s|the\s|choice\s)*\Z", re.IGNORECASE
)
_ALTERNATIVE = re.compile(
    r"\b(?:or|and|to|plus|minus|times|versus|vs|by|nor|both)\b|[/+×÷*&^]|\A[\s)*\"'\]_`$]*,?[\s(*\"'\[_`$]*\Z",
    re.IGNORECASE,
)
_RANGE = re.compile(r"[\s*%$€£°]*[CF]?\s*(?:to|through)[\s*$€£]*", re.IGNORECASE)
_OR = re.compile(r"\b(?:or|oder|ou)\b|\band (?:it is|it's|also)\b", re.IGNORECASE)
_HEDGED = Phrases(
    r"\b(?:might(?! (?:first )?(?:think|guess|expect|say|assume))|"
    r"maybe|perhaps|possibly|could(?: also| well)? be|may(?: also| well)? be|not (?:\w+ )?(?:sure|"
    r"certain|clear)|unsure|"
    r"uncertain|unclear|hard to (?:say|tell)|can(?:no|')t (?:decide|tell|choose)|(?:it )?depends on|either way|"
    r"wild guess)\b",
    "might maybe perhaps possibly could may sure certain clear unsure uncertain unclear hard cannot t depends either "
    "wild",
)  # fmt: skip
_TAKEN_BACK = Phrases(
    r"(?:(?:\A|[.!?;,\n(…:-])[\s*_]*|\b(?:but|no|oh|hmm)\b[, ]+)"
    r"(?P<cue>(?:wait|actually|correction|sorry|oops|scratch that|on second thoughts?|i mean|my mistake|apologies)\b"
    r"|(?:let me|i(?:'ll| will| should| need to)) (?:correct|re-?check|re-?consider|re-?calculate|re-?think|"
    r"double[- ]?check|re-?do)\b"
    r"|i(?:'ve| have)? ?(?:made|was|am) (?:a |an )?(?:mistaken?|error|wrong|incorrect)\b|no,)",
    "wait actually correction sorry oops scratch thought thoughts mean my apologies correct check recheck consider "
    "reconsider calculate recalculate think rethink double doublecheck do redo mistake mistaken error wrong incorrect "
    "no",
    first=FirstWords(
        "wait", "actually", "correction", "sorry", "oops", "scratch", "on", "i", "imade", "iwas", "iam", "my",
        "apologies", "let", "no", "but", "oh", "hmm",
    ),
)  # fmt: skip
_REFUSED = Phrases(
    r"\b(?:i(?:'m| am)? (?:cannot|can't|can not|unable|not able|don't know|do not know|don't have|do not have|won't|"
    r"have no idea|would need|need more)|unable to (?:determine|answer|provide|assist|help)|"
    r"(?:cannot|can't|can not|could not|couldn't) (?:be )?(?:determined?|answer|provide|assist|help)|"
    r"not (?:have )?enough (?:information|context|data)|insufficient (?:information|data|context)|as an ai\b|"
    r"no idea|i'm sorry|i am sorry|i apologi[sz]e|please (?:provide|clarify|specify)|"
    r"(?:could|can|would) you (?:please )?(?:clarify|provide|specify|tell|give))\b",
    "cannot t can unable not don do won have no would need determine determined provide assist help could enough "
    "insufficient ai sorry apologize apologise please",
)  # fmt: skip
_CUT_OFF = re.compile(
    r"(?:\b(?:is|are|the|a|an|of|and|or|by|to|with|so|equals|that|then|we|for|in|from|have|has|be|it|can|as|if|let|"
    r"step|therefore|because|since|which|first|next)|[=+\-−×·/:,(&])[\s*_]*\Z",
)
_BEFORE, _AFTER = 60, 60
"""Characters before and after an answer in which a denial may stand."""


def is_denied(text: str, start: int, end: int) -> bool:
    """Whether the words around an answer say that it is not the answer."""
    before, after = max(0, start - _BEFORE), min(len(text), end + _AFTER)
    return bool(_DENIED_BEFORE.search(text, before, start) or _DENIED_AFTER.match(text, end, after))


def is_joined(text: str, end: int, start: int) -> bool:
    """Whether only `or`, `nor` or `and` stands between two answers, so that what denies one denies both."""
    return start - end < _BEFORE and _JOINED.match(text, end, start) is not None


def are_alternatives(text: str, end: int, start: int) -> bool:
    """Whether what stands between two answers makes neither of them the answer: `or`, `and`, `times`, a comma."""
    return start < end or (start - end < _BEFORE and _ALTERNATIVE.search(text[end:start]) is not None)


def is_open(text: str, end: int, start: int) -> bool:
    """Whether a text leaves it open which of two answers it means."""
    return start - end < _BEFORE and (_OR.search(text, end, start) or _RANGE.fullmatch(text, end, start)) is not None


def is_hedged(text: str) -> bool:
    """Whether a sentence leaves open whether it means what it says."""
    return _HEDGED.search(text) is not None


def is_refusal(text: str) -> bool:
    """Whether a sentence declines to answer, or asks for what is missing."""
    return _REFUSED.search(text) is not None


def is_cut_off(text: str) -> bool:
    """Whether a text ends in the middle of a sentence."""
    return _CUT_OFF.search(text, max(0, len(text) - 40)) is not None


def after_correction(text: str) -> int | None:
    """Where the text after the last words that take something back begins; None where nothing is taken back."""
    beginning = len(text) - len(text.lstrip("\n *_"))
    ends = [cue.end() for cue in _TAKEN_BACK.finditer(text) if cue.start("cue") > beginning]
    return ends[-1] if ends else None
