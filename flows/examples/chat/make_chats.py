"""Writes chats.jsonl: conversations whose last turn asks for a short answer under two constraints on its form.

Run it in this folder: `python make_chats.py`. It draws with a fixed seed, so the file is always the same.
"""

import itertools
import json
import random
from pathlib import Path

SYSTEM = "You answer questions about {topic}. Follow every instruction about the form of your answer."
TALKS = {
    "cooking": [
        ("I have rice and two eggs.", "You could make fried rice with egg.", "How do I make it?"),
        ("My soup is too salty.", "Add a potato or more water.", "How long do I cook it then?"),
        ("I want to bake bread.", "You need flour, water, salt and yeast.", "Which flour is best?"),
        ("How do I cook an egg?", "Boil it for eight minutes.", "And how do I peel it?"),
    ],
    "gardening": [
        ("My tomato plant has yellow leaves.", "It may have too much water.", "How often do I water it?"),
        ("What grows well in shade?", "Ferns and mint grow well in shade.", "When do I plant mint?"),
        ("I have a very small balcony.", "Herbs in pots are a good choice.", "Which herbs are easy?"),
        ("Snails eat my salad.", "Collect them in the evening.", "What else can I do?"),
    ],
    "travel": [
        ("I am going to the sea for a week.", "Take light clothes and a hat.", "What else do I pack?"),
        ("Is the train faster than the bus?", "Usually the train is faster.", "Why do people take the bus?"),
        ("I am afraid of flying.", "Many people are. A train may suit you.", "How can I stay calm on a plane?"),
        ("I have one day in a new city.", "Begin with a walk in the old town.", "What do I do in the evening?"),
    ],
    "sports": [
        ("I want to start running.", "Begin with ten minutes, twice a week.", "What shoes do I need?"),
        ("My legs hurt after a long walk.", "Rest them for a day.", "How do I avoid this next time?"),
        ("Is swimming good for me?", "It is good for most people.", "How often is enough?"),
        ("I have no time for sports.", "Ten minutes a day are a good start.", "What can I do in ten minutes?"),
    ],
    "sleep": [
        ("I wake up at night.", "Keep your room dark and cool.", "What do I do when I am awake?"),
        ("How long do adults sleep?", "Most adults sleep for about eight hours.", "Is a short nap a good idea?"),
        ("I drink coffee in the evening.", "That can keep you awake.", "What can I drink instead?"),
        ("My phone keeps me awake.", "Leave it in another room.", "What do I do before bed then?"),
    ],
}
KINDS = {
    "Write at most {} words.": ("words_at_most", [8, 12, 16]),
    "Write at least {} words.": ("words_at_least", [10, 20]),
    "Write exactly {} sentences.": ("sentences_exactly", [2, 3]),
    "Write nothing but a bulleted list of {} items.": ("bullets", [2, 3]),
    "Write nothing but a numbered list of {} items.": ("numbered_list", [2, 3]),
    "Begin with the word {}.": ("starts_with", ["First", "Yes", "Try"]),
    "Use the word {}.": ("contains", ["you", "time", "good"]),
    "Write in small letters only.": ("lower_case", [None]),
    "Write in capital letters only.": ("upper_case", [None]),
    "Do not use any commas.": ("no_commas", [None]),
}
CONTRADICT = [
    {"words_at_most", "words_at_least"},
    {"lower_case", "upper_case"},
    {"bullets", "numbered_list"},
    {"bullets", "sentences_exactly"},
    {"numbered_list", "sentences_exactly"},
    {"bullets", "starts_with"},
    {"numbered_list", "starts_with"},
]
PER_QUESTION = 20


def main() -> None:
    every = [(sentence.format(value), kind, value) for sentence, (kind, values) in KINDS.items() for value in values]
    pairs = [
        pair
        for pair in itertools.combinations(every, 2)
        if pair[0][1] != pair[1][1] and {pair[0][1], pair[1][1]} not in CONTRADICT
    ]
    draw = random.Random(1)
    with Path("chats.jsonl").open("w") as file:
        for topic, talks in TALKS.items():
            for first, reply, question in talks:
                for pair in draw.sample(pairs, PER_QUESTION):
                    print(json.dumps(row(topic, first, reply, question, pair)), file=file)


def row(topic, first, reply, question, pair):
    return {
        "messages": [
            {"role": "system", "content": SYSTEM.format(topic=topic)},
            {"role": "user", "content": first},
            {"role": "assistant", "content": reply},
            {"role": "user", "content": " ".join([question, *(sentence for sentence, _, _ in pair)])},
        ],
        "constraints": [{"kind": kind} | ({} if value is None else {"value": value}) for _, kind, value in pair],
        "group": " ".join(sorted(sentence for sentence, _, _ in pair)),
        "task": topic,
    }


if __name__ == "__main__":
    main()
