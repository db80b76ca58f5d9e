"""Words that several synthetic tasks share."""

from __future__ import annotations

ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh"),
    *("eighth", "ninth", "tenth", "eleventh", "twelfth", "thirteenth", "fourteenth"),
)

PEOPLE = (
    *("Nadia", "Tomas", "Ines", "Karim", "Olga", "Pedro", "Ruth", "Sven"),
    *("Yuki", "Marta", "Felix", "Greta", "Hugo", "Jonas", "Leila", "Zoe"),
)
