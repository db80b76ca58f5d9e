"""Words and phrases that several synthetic tasks share."""

from __future__ import annotations

from collections.abc import Sequence

ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh"),
    *("eighth", "ninth", "tenth", "eleventh", "twelfth", "thirteenth", "fourteenth"),
)

PEOPLE = (
    *("Nadia", "Tomas", "Ines", "Karim", "Olga", "Pedro", "Ruth", "Sven"),
    *("Yuki", "Marta", "Felix", "Greta", "Hugo", "Jonas", "Leila", "Zoe"),
)


def things(words: str, noun: str = "") -> tuple[str, ...]:
    """Names of things, one for each word: `red blue` and `card` give `the red card` and `the blue card`."""
    return tuple(f"the {word} {noun}".rstrip() for word in words.split())


def with_article(noun: str) -> str:
    """The noun after `a` or `an`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def listed(phrases: Sequence[str]) -> str:
    """The phrases with commas between them, and `and` before the last."""
    *first, last = phrases
    return f"{', '.join(first)} and {last}" if first else last
