"""Constraints on texts as chat models write them: each verdict is that of a careful reader."""

import json

import pytest

from hir_core.prompts.constraints.constraint import Constraint
from hir_core.prompts.constraints.registry import check

# Kind, with its value, and the texts that satisfy it and that do not.
VERDICTS = {
    "json_object": (
        [
            '{"name": "Ann", "age": 3}',
            '```json\n{"name": "Ann"}\n```',
            '```\n{"name": "Ann"}\n```',
            '```JSON\n{\n  "a": [1, 2],\n  "b": null\n}\n```\n',
            '\n\n``` json\r\n{"a": 1}\r\n```\r\n',
            '~~~json\n{"a": 1}\n~~~',
            '```json\n\n{"a": "```"}\n\n```',
        ],
        [
            'Here is the JSON:\n```json\n{"a": 1}\n```',
            '```json\n{"a": 1}\n```\nHope this helps!',
            '```json\n{"a": 1}\n```\n```json\n{"b": 1}\n```',
            "```json\n{'a': 1}\n```",
            '```json\n{"a": 1,}\n```',
            "```json\n[1, 2]\n```",
            '```json\n{"a": 1}',
            '```python\n{"a": 1}\n```',
            '{"a": 1}\n```',
            '```json\n{"a": 1}\n~~~',
            "```json\n```",
            "```",
            "{name: Ann}",
        ],
    ),
    "json_list": (
        ["[1, 2, 3]", '```json\n["sun", "moon"]\n```', "```\n[]\n```", '[\n  {"a": 1}\n]\n'],
        ['```json\n{"a": []}\n```', '["sun", "moon"', "- sun\n- moon", "['sun']"],
    ),
    "bullets=3": (
        [
            "- Sun\n- Moon\n- Star",
            "* **Sun:** bright\n* **Moon:** pale\n* **Star:** far",
            "  - Sun\n  - Moon\n  - Star",
            "- Sun\n\n- Moon\n\n- Star\n",
            "• Sun\n• Moon\n• Star",
            "•\tSun\n•\tMoon\n•Star",
            "+ Sun\n+ Moon\n+ Star",
            "– Sun\n– Moon\n– Star",
            "- [ ] Wash\n- [x] Dry\n- [ ] Fold",
            "- *Sun* is hot\n- _Moon_ is cold\n- `Star`",
            "- Sun\n  It is bright.\n- Moon\n  It is pale.\n- Star\n\n  It is far.",
            "- Sun\n  - hot\n  - big",
            "\n\n- Sun.\r\n- Moon.\r\n- Star.\r\n",
            "◦ Sun\n◦ Moon\n◦ Star",
        ],
        [
            "Here are three:\n- Sun\n- Moon\n- Star",
            "- Sun\n- Moon\n- Star\n\nEnjoy!",
            "- Sun\n- Moon",
            "1. Sun\n2. Moon\n3. Star",
            "**Sun**\n**Moon**\n**Star**",
            "*Sun*\n*Moon*\n*Star*",
            "-Sun\n-Moon\n-Star",
            "- Sun\n- Moon\n---\n- Star",
            "- Sun\n- \n- Star",
            "# Things\n- Sun\n- Moon\n- Star",
            "- Sun, - Moon, - Star",
            "  Sun\n- Moon\n- Star\n- Rain",
        ],
    ),
    "numbered_list=3": (
        [
            "1. Sun\n2. Moon\n3. Star",
            "1) Sun\n2) Moon\n3) Star",
            "1. **Sun:** bright\n2. **Moon:** pale\n3. **Star:** far",
            "**1.** Sun\n**2.** Moon\n**3.** Star",
            "**1. Sun**\n**2. Moon**\n**3. Star**",
            "  1. Sun\n  2. Moon\n  3. Star",
            "1. Sun\n\n2. Moon\n\n3. Star\n",
            "1. Sun\n   - hot\n   - big\n2. Moon\n3. Star",
            "1. Sun\n   It is bright.\n\n2. Moon\n   It is pale.\n\n3. Star",
            "1. Sun\n   1. hot\n   2. big\n2. Moon\n3. Star",
            "1. Sun\r\n2. Moon\r\n3. Star",
            "1.\tSun\n2.\tMoon\n3.\tStar",
            "1. 7 suns\n2. 3 moons\n3. 1 star",
        ],
        [
            "Here are three:\n1. Sun\n2. Moon\n3. Star",
            "1. Sun\n2. Moon\n3. Star\n\nEnjoy!",
            "1. Sun\n2. Moon",
            "1. Sun\n2. Moon\n3. Star\n4. Rain",
            "1. Sun\n3. Moon\n2. Star",
            "1. Sun\n1. Moon\n1. Star",
            "0. Sun\n1. Moon\n2. Star",
            "2. Sun\n3. Moon\n4. Star",
            "- Sun\n- Moon\n- Star",
            "1.Sun\n2.Moon\n3.Star",
            "1. Sun 2. Moon 3. Star",
            "1. Sun\n2. \n3. Star",
            "a) Sun\nb) Moon\nc) Star",
            "1: Sun\n2: Moon\n3: Star",
            "One. Sun\nTwo. Moon\nThree. Star",
            "1. Sun\nbright\n2. Moon\n3. Star",
            "3.5 suns\n2. Moon\n3. Star",
            "",
        ],
    ),
    "comma_list=3": (
        [
            "sun, moon, star",
            "Sun, moon, and star.",
            "**sun**, *moon*, star",
            "sun,moon,star",
            "1,000 suns, 3 moons, one star",
            "太阳，月亮，星星",
            "شمس، قمر، نجم",
            "red apple, green pear, blue plum\n",
        ],
        [
            "sun, moon",
            "sun, moon, star, rain",
            "sun,\nmoon,\nstar",
            "sun, moon, ",
            "sun; moon; star",
            "Sure!\nsun, moon, star",
        ],
    ),
    "no_commas": (
        ["The sun rose and the birds sang.", "- sun\n- moon", "It's 3.5 km; not more.", "好。", "“Stop!” he said."],
        ["Sure, here it is.", "1,000 suns", "The sun, the moon", "太阳，月亮", "苹果、梨", "شمس، قمر", "", "..."],
    ),
    "ends_in_mark": (
        [
            "It fell.",
            "It fell!\n",
            "**It fell.**",
            "*Did it fall?*",
            'She said, "It fell."',
            "“It fell!”",
            "It fell (or did it?)",
            "(It fell.)",
            "I waited…",
            "I waited...",
            "他走了。",
            "他说：“好。”",
            "क्या? हाँ।",
            "_It fell._",
        ],
        [
            "It fell",
            "It fell:",
            "It fell,",
            "It fell. 😊",
            "**It fell**",
            "Yours,\nAnn",
            '["It fell."]',
            '{"line": "It fell."}',
            "It fell. Did it",
            "...",
            "***",
        ],
    ),
    'contains="it\'s"': (["It's late.", "It’s late.", "**It's** late", "IT’S LATE"], ["Its end", "It is late.", "it"]),
    'contains="well-known"': (
        ["A well-known fact", "A well‑known fact", "Well‐known!"],
        ["A well known fact", "known"],
    ),
    'contains="café"': (["the café", "the cafe\u0301", "CAFÉ!"], ["cafe", "cafés"]),
    'contains="moon"': (
        [
            "**Moon**",
            "- moon",
            "the moon.",
            "“Moon,” he said",
            "moon/sun",
            "(moon)",
            "*moon*light",
            "# Moon",
            "moon…",
            "the_moon moon",
        ],
        ["moonlight", "moons", "https://moon.example.com", "moon-lit", "[see](https://x.org/moon)", "m o o n"],
    ),
    'excludes="moon"': (
        ["the sun", "moonlight", "[see](https://x.org/moon)"],
        ["the Moon", "**MOON**", "moon.", "- moon", "sun—moon"],
    ),
    'starts_with="moon"': (
        [
            "Moon and sun",
            "**Moon** and sun",
            "# Moon",
            "- Moon",
            "1. Moon\n2. Sun",
            "“Moon,” he said",
            "...moon",
            "> moon",
            "- [ ] moon",
        ],
        ["The moon", "1 moon", "7. moon", "Moonlight", "Sure! Moon"],
    ),
    'ends_with="moon"': (
        [
            "the moon",
            "the moon.",
            "the **moon**.",
            "the moon!\n",
            "“the moon”",
            "see [the moon](https://x.org)",
            "the moon 🌙",
            "- sun\n- moon",
        ],
        ["the moons", "moon light", "the moon.\n\nEnjoy!", "moon 2"],
    ),
    "lower_case": (
        ["the sun rose.", "- sun\n- moon", "3 suns, e.g. red ones!", "**bold** sun", "l’été", "```\nsun\n```"],
        ["The sun", "the Sun", "THE SUN", "iPhone", "123", "see README", "..."],
    ),
    "upper_case": (
        ["THE SUN ROSE.", "- SUN\n- MOON", "3 SUNS!", "**BOLD** SUN", "ÉTÉ", "U.S. ONLY"],
        ["The Sun", "THE sun", "the sun", "3", "SUN https://x.org", "..."],
    ),
    "title_case": (
        [
            "The Sun Rose",
            "The Sun Rose Over The Hills.",
            "A Well-Known Fact",
            "A Well-known Fact",
            "It's Late",
            "O’Neill’s Farm",
            "**The Sun**",
            "1. The Sun\n2. The Moon",
            "The 3 Suns",
            "The U.S. Flag",
            "Élan Vital",
            "I Am",
        ],
        [
            "The sun rose",
            "THE SUN",
            "The Sun of Spain",
            "the Sun",
            "The NASA Probe",
            "My iPhone",
            "McDonald",
            "123",
            "The SUn",
        ],
    ),
    'initials="s"': (
        [
            "Sun shines",
            "**Sun** *shines* softly",
            "Seven silver ships sail.",
            "- sun\n- sea",
            "1. Sun\n2. Sea",
            "sun—sea",
            "(Sun) “sea”",
        ],
        ["The sun shines", "sun and sea", "3 suns", "sun 3", "Sure: the sun", "![](sun.png)", ""],
    ),
    "numbers_in_digits": (
        [
            "I have 3 cats.",
            "It costs $5.",
            "In 2024 it grew 50%.",
            "1. 3 suns\n2. 4 moons",
            "3.5 km",
            "the 1st day",
            "There are 12 months and 7 days.",
            "**42**",
            "Sure! The answer is 7.",
            "Someone bought 2 tents.",
            "No-one saw the 3 foxes.",
            "| day | sales |\n|---|---|\n| Mon | 12 |",
            "She was born on 5 May 1990.",
        ],
        [
            "I have three cats.",
            "3 cats and two dogs",
            "1. Sun\n2. Moon",
            "No number",
            "twenty-one days",
            "I have 1 cat; one is fine",
            "a million",
            "3 trillion",
            "Chapter Two has 10 pages",
            "- 3 suns\n- **four** moons",
            "",
        ],
    ),
    "numbers_in_words": (
        [
            "I have three cats.",
            "Twenty-one days",
            "Twenty‑one days",
            "1. One sun\n2. Two moons",
            "one hundred",
            "- three\n- four",
            "a million stars",
            "**Seven** days",
            "It took forty-two years.",
            "ZERO!",
            "1) ten\n2) twenty",
            "“Three,” she said.",
        ],
        [
            "I have 3 cats.",
            "three cats, 2 dogs",
            "1. Sun\n2. Moon",
            "No number",
            "someone often listened",
            "in 2024 three came",
            "twenty-1 days",
            "the tent weighs a ton",
            "fourteen of the 20",
            "At 5 p.m. two came",
            "",
        ],
    ),
    "lines_exactly=2": (
        ["Roses are red\nviolets are blue", "Sun\n\nMoon\n", "  Sun\n  Moon", "- Sun\n- Moon", "Sun\r\nMoon"],
        ["Sun", "Sun\nMoon\nStar", "Sun Moon", "Sun\\nMoon"],
    ),
}


def cases(satisfied):
    return [(kind, text) for kind, texts in VERDICTS.items() for text in texts[0 if satisfied else 1]]


def verdict(spelled, text):
    kind, _, value = spelled.partition("=")
    return check(Constraint(kind, json.loads(value) if value else None), text)


@pytest.mark.parametrize(("kind", "text"), cases(satisfied=True))
def test_a_reader_would_say_that_it_is_met(kind, text):
    assert verdict(kind, text)


@pytest.mark.parametrize(("kind", "text"), cases(satisfied=False))
def test_a_reader_would_say_that_it_is_not_met(kind, text):
    assert not verdict(kind, text)
