"""Dates: the answer follows from the text by counting days by hand; no option looks more right than the others."""

import json
import re
from collections import Counter

import pytest
from generator_cases import before_options, evenly, right_text, rows_of

MONTH_NAMES = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
MONTH = {name: number for number, name in enumerate(MONTH_NAMES, start=1)}
NTH = ("first", "second", "third", "fourth", "fifth")
DAYS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
FIXED = {
    "New Year's Day": (1, 1),
    "Epiphany": (1, 6),
    "Groundhog Day": (2, 2),
    "Valentine's Day": (2, 14),
    "Saint Patrick's Day": (3, 17),
    "April Fools' Day": (4, 1),
    "Earth Day": (4, 22),
    "Independence Day of the United States": (7, 4),
    "Bastille Day": (7, 14),
    "Halloween": (10, 31),
    "All Saints' Day": (11, 1),
    "Christmas Eve": (12, 24),
    "Christmas Day": (12, 25),
    "Boxing Day": (12, 26),
    "New Year's Eve": (12, 31),
}


def length_of(year, month):
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 29 if month == 2 and leap else DAYS[month]


def days_on(day, days):
    """The day so many days later, one day at a time."""
    year, month, number = day
    for _ in range(abs(days)):
        number += 1 if days > 0 else -1
        if number > length_of(year, month):
            year, month, number = (year + 1, 1, 1) if month == 12 else (year, month + 1, 1)
        elif number == 0:
            year, month = (year - 1, 12) if month == 1 else (year, month - 1)
            number = length_of(year, month)
    return year, month, number


def months_on(day, months):
    year, month, number = day
    for _ in range(abs(months)):
        month += 1 if months > 0 else -1
        if month in (0, 13):
            year, month = (year - 1, 12) if month == 0 else (year + 1, 1)
    return year, month, min(number, length_of(year, month))


def weekday_of(year, month, number):
    """0 for Monday, by Zeller's congruence."""
    if month < 3:
        year, month = year - 1, month + 12
    return (number + 13 * (month + 1) // 5 + year + year // 4 - year // 100 + year // 400 + 5) % 7


def dates_named(text):
    found = re.findall(r"([A-Z][a-z]+) (\d+), (\d{4})|(\d+) ([A-Z][a-z]+) (\d{4})", text)
    return [(int(y or y2), MONTH[m or m2], int(d or d2)) for m, d, y, d2, m2, y2 in found]


def today_of(text):
    """Today's date, from the words of the context."""
    if match := re.search(r"today is (\d\d)/(\d\d)/(\d{4})", text):
        return int(match[3]), int(match[2]), int(match[1])
    if match := re.search(r"the (\w+) day of (\w+) (\d{4})", text):
        year, month = int(match[3]), MONTH[match[2]]
        return year, month, 1 if match[1] == "first" else length_of(year, month)
    if match := re.search(r"the (\w+) (\w+day) of (\w+) (\d{4})", text):
        return nth_weekday(NTH.index(match[1]), match[2], MONTH[match[3]], int(match[4]))
    if match := re.search(r"(?:Today is )?([A-Z].*) of the year (\d{4})(?: was (yesterday)| is (tomorrow))?\.", text):
        return days_on((int(match[2]), *FIXED[match[1]]), 1 if match[3] else -1 if match[4] else 0)
    (named_date,) = dates_named(text)
    if match := re.search(r"exactly (\d+) years", text):
        return months_on(named_date, 12 * int(match[1]))
    return days_on(named_date, days_since_named_date(text))


def nth_weekday(index, name, month, year):
    wanted = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday").index(name)
    days = range(1, length_of(year, month) + 1)
    return year, month, [day for day in days if weekday_of(year, month, day) == wanted][index]


def days_since_named_date(text):
    """How many days today lies after the date that the text names."""
    starts = {"Yesterday": 1, "Tomorrow": -1, "The day before yesterday": 2, "The day after tomorrow": -2}
    for start, days in starts.items():
        if re.match(rf"{start} (was|is) ", text):
            return days
    amount, unit = next(iter(re.findall(r"(\d+) (days?|weeks)\b", text)), ("0", "days"))
    later = re.search(r"ago\.|past\.|too early\.", text)
    earlier = re.search(r"in \d+ days|ahead\.|too late\.", text)
    sign = bool(later) - bool(earlier)
    assert sign or re.search(r"[Tt]oday|this morning", text), text
    return sign * int(amount) * (7 if unit == "weeks" else 1)


ASKED = {
    "is it today": (0, 0),
    "will it be tomorrow": (1, 0),
    "was it yesterday": (-1, 0),
    "was it one week ago": (-7, 0),
    "will it be one week from today": (7, 0),
    "will it be 10 days from today": (10, 0),
    "was it one month ago": (0, -1),
    "will it be one month from today": (0, 1),
    "was it one year ago": (0, -12),
}


def date_asked_for(text):
    context, question = re.fullmatch(r"(.*) Which date (.*), as MM/DD/YYYY\?", text).groups()
    days, months = ASKED[question]
    return days_on(months_on(today_of(context), months), days)


@pytest.mark.parametrize("dials", [{}, {"options": 0, "first_year": 1890, "last_year": 1910}])
def test_counting_days_by_hand_finds_the_same_date(dials):
    contexts, offsets = Counter(), Counter()
    for row in rows_of("date_understanding", dials):
        year, month, day = date_asked_for(before_options(row))
        assert right_text(row) == f"{month:02}/{day:02}/{year}", row["query"]
        facts = json.loads(row["metadata"])
        contexts[facts["context"]] += 1
        offsets[facts["offset"]] += 1
    assert len(contexts) == 10
    assert len(offsets) == 9
    assert min([*contexts.values(), *offsets.values()]) > 60


@pytest.mark.parametrize(
    ("context", "question", "expected"),
    [
        ("It is March 31, 2004 today.", "was it one month ago", (2004, 2, 29)),
        ("It is 31 January 1900 today.", "will it be one month from today", (1900, 2, 28)),
        ("Today is February 29, 2000.", "was it one year ago", (1999, 2, 28)),
    ],
)
def test_the_reader_of_these_tests_knows_the_convention_for_short_months(context, question, expected):
    assert date_asked_for(f"{context} Which date {question}, as MM/DD/YYYY?") == expected


def test_short_months_and_leap_days_come_up():
    rows = rows_of("date_understanding", {"contexts": ["absolute", "end of month"]}, size=1500)
    cut = 0
    for row in rows:
        context, question = before_options(row).split(" Which date ")
        cut += "month" in question and today_of(context)[2] != int(right_text(row)[3:5])
    assert cut > 10
    assert any(right_text(row).startswith("02/29/") for row in rows)


def test_the_right_date_lies_anywhere_among_the_others():
    rows = rows_of("date_understanding", size=2000)
    ranks = Counter(sorted(row["options"], key=sortable).index(right_text(row)) for row in rows)
    assert evenly(ranks, 6), "early, middle and late options must be right equally often"
    central = sum(most_like_the_others(row["options"]) == right_text(row) for row in rows)
    assert abs(central / len(rows) - 1 / 6) < 4 * (5 / 36 / len(rows)) ** 0.5


def sortable(written):
    month, day, year = written.split("/")
    return year, month, day


def most_like_the_others(options):
    """The option whose day, month and year are those of most others: right too often where only it was varied."""
    parts = [option.split("/") for option in options]
    alike = [sum(a == b for other in parts for a, b in zip(mine, other, strict=True)) for mine in parts]
    return options[alike.index(max(alike))]


def test_what_a_hasty_reader_takes_for_today_is_offered():
    rows = rows_of(
        "date_understanding", {"contexts": ["elapsed", "coming", "mistaken"], "offsets": ["today"]}, size=300
    )
    for row in rows:
        ((year, month, day),) = dates_named(before_options(row))
        assert f"{month:02}/{day:02}/{year}" in row["options"]


def test_a_context_is_one_group_whatever_is_asked():
    rows = rows_of("date_understanding", {"contexts": ["holiday"], "first_year": 1999, "last_year": 2000}, size=600)
    groups = {}
    for row in rows:
        groups.setdefault(before_options(row).split(" Which date")[0], []).append(row)
    assert len(groups) < 150, "contexts should stand here with several questions"
    assert all(
        len({row["group"] for row in found}) == len({row["split"] for row in found}) == 1 for found in groups.values()
    )
    assert len({row["group"] for row in rows}) == len(groups)


def test_dials_choose_contexts_and_offsets():
    rows = rows_of(
        "date_understanding", {"contexts": ["absolute"], "offsets": ["today", "yesterday"], "options": 2}, size=200
    )
    assert {json.loads(row["metadata"])["context"] for row in rows} == {"absolute"}
    assert {json.loads(row["metadata"])["offset"] for row in rows} == {"today", "yesterday"}
    assert {len(row["options"]) for row in rows} == {2}
