"""The synthetic task `date_understanding`: derive today's date from a short text and say the date of another day.

For example: "Ruth planted a tree on March 3, 1998, exactly 12 days ago. Which date will it be tomorrow, as MM/DD/YYYY?"
Dates follow the Gregorian calendar. A month or a year away means the same day of that month or, where the month is too
short, its last day: one month before March 31 is the last day of February, and one year after February 29 is
February 28.

All options of an item are shifted from a date by the same kinds of steps, and the right one takes a random one of these
steps, so it is not always the middle date or the one most like the others. Where the text names a date other than
today's, half of the options start from that one.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable
from datetime import MAXYEAR, date, timedelta
from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from hir_core.config import Section
from hir_core.prompts.items import Item
from hir_core.prompts.options import option_references, with_options
from hir_core.prompts.rng import SeededRng
from hir_core.prompts.synthetic.dials import require_known
from hir_core.prompts.synthetic.vocabulary import ORDINALS, PEOPLE
from hir_core.schemas import content_key

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOLIDAYS = {
    "New Year's Day": (1, 1), "Epiphany": (1, 6), "Groundhog Day": (2, 2), "Valentine's Day": (2, 14),
    "Saint Patrick's Day": (3, 17), "April Fools' Day": (4, 1), "Earth Day": (4, 22), "Bastille Day": (7, 14),
    "Independence Day of the United States": (7, 4), "Halloween": (10, 31), "All Saints' Day": (11, 1),
    "Christmas Eve": (12, 24), "Christmas Day": (12, 25), "Boxing Day": (12, 26), "New Year's Eve": (12, 31),
}  # fmt: skip


class Shift(NamedTuple):
    """A step in the calendar: first by months, then by days."""

    days: int = 0
    months: int = 0

    def of(self, day: date) -> date:
        """The date that is this shift away from a day."""
        year, month = divmod(day.year * 12 + day.month - 1 + self.months, 12)
        last = calendar.monthrange(year, month + 1)[1]
        return date(year, month + 1, min(day.day, last)) + timedelta(days=self.days)

    def without(self, other: Shift) -> Shift:
        """The difference between this shift and another one."""
        return Shift(self.days - other.days, self.months - other.months)


OFFSETS = {
    "today": ("is it", Shift()),
    "tomorrow": ("will it be", Shift(1)),
    "yesterday": ("was it", Shift(-1)),
    "one week ago": ("was it", Shift(-7)),
    "one week from today": ("will it be", Shift(7)),
    "10 days from today": ("will it be", Shift(10)),
    "one month ago": ("was it", Shift(0, -1)),
    "one month from today": ("will it be", Shift(0, 1)),
    "one year ago": ("was it", Shift(0, -12)),
}
"""For each date that a question can ask for: the question's verb, and how far the date is from today."""
PATTERN = tuple(Shift(days, months) for days in (0, 1, -1, 7, -7) for months in (0, 1, -1, 12, -12))
"""The shifts between options."""


class Context(NamedTuple):
    """A text from which today's date follows."""

    text: str
    today: date
    distractor: date | None = None
    """Another date in the text, which a hasty reader takes for today's."""


# --- contexts: each function takes a random day, and may move it to one that its text can describe --------------------


def _written_out(rng: SeededRng, day: date) -> str:
    """The date with the name of its month, in the American or the British order."""
    month = MONTHS[day.month - 1]
    return rng.pick([f"{month} {day.day}, {day.year}", f"{day.day} {month} {day.year}"])


def _absolute(rng: SeededRng, today: date) -> Context:
    text = rng.pick(["Today is {}.", "It is {} today.", "The newspaper of this morning bears the date {}."])
    return Context(text.format(_written_out(rng, today)), today)


def _neighbour(rng: SeededRng, today: date) -> Context:
    name, days = rng.pick(
        [
            ("Yesterday was", -1),
            ("Tomorrow is", 1),
            ("The day before yesterday was", -2),
            ("The day after tomorrow is", 2),
        ]
    )
    named_date = Shift(days).of(today)
    return Context(f"{name} {_written_out(rng, named_date)}.", today, named_date)


def _elapsed(rng: SeededRng, today: date) -> Context:
    deed = rng.pick(["planted a tree", "sent a letter", "bought a bicycle", "moved to a new flat", "began a diary"])
    count, (unit, days) = rng.between(2, 20), rng.pick([("days", 1), ("weeks", 7)])
    start = Shift(-count * days).of(today)
    return Context(
        f"{rng.pick(PEOPLE)} {deed} on {_written_out(rng, start)}, exactly {count} {unit} ago.", today, start
    )


def _coming(rng: SeededRng, today: date) -> Context:
    event = rng.pick(["exam", "concert", "flight", "wedding", "visit to the dentist"])
    days = rng.between(2, 30)
    event_date = Shift(days).of(today)
    text = f"The {event} of {rng.pick(PEOPLE)} is on {_written_out(rng, event_date)}, in {days} days."
    return Context(text, today, event_date)


def _anniversary(rng: SeededRng, today: date) -> Context:
    today = today.replace(day=min(today.day, 28))  # a day that every year has
    event = rng.pick(["opened a bakery", "founded a choir", "were married", "started a school"])
    years = rng.between(2, 50)
    event_date = _written_out(rng, Shift(0, -12 * years).of(today))
    couple = " and ".join(rng.sample(PEOPLE, 2))
    return Context(f"{couple} {event} on {event_date}. Today it is exactly {years} years since.", today)


def _holiday(rng: SeededRng, today: date) -> Context:
    name = rng.pick(tuple(HOLIDAYS))
    month, day = HOLIDAYS[name]
    today = date(today.year, month, day)
    if rng.chance(0.5):
        return Context(f"Today is {name} of the year {today.year}.", today)
    when, days = rng.pick([("was yesterday", 1), ("is tomorrow", -1)])
    return Context(f"{name} of the year {today.year} {when}.", Shift(days).of(today), today)


def _mistaken(rng: SeededRng, today: date) -> Context:
    name, days = rng.pick(PEOPLE), rng.between(1, 4)
    distance = f"{days} day{'s' if days > 1 else ''}"
    if rng.chance(0.5):
        believed = Shift(days).of(today)
        corrections = [f"but that date lies {distance} ahead", f"but that is {distance} too late"]
    else:
        believed = Shift(-days).of(today)
        corrections = [f"but that date is {distance} past", f"but that is {distance} too early"]
    text = f"{name} believes that today is {_written_out(rng, believed)}, {rng.pick(corrections)}."
    return Context(text, today, believed)


def _end_of_month(rng: SeededRng, today: date) -> Context:
    which, day = rng.pick([("first", 1), ("last", calendar.monthrange(today.year, today.month)[1])])
    return Context(f"Today is the {which} day of {MONTHS[today.month - 1]} {today.year}.", today.replace(day=day))


def _day_first(rng: SeededRng, today: date) -> Context:
    day, month = rng.sample(range(1, 13), 2)
    today, month_first = date(today.year, month, day), date(today.year, day, month)
    name = rng.pick(PEOPLE)
    text = (
        f"{name} always writes the day before the month. In the diary of {name}, today is "
        f"{day:02}/{month:02}/{today.year}."
    )
    return Context(text, today, month_first)


def _weekday(rng: SeededRng, today: date) -> Context:
    ordinal, weekday = ORDINALS[(today.day - 1) // 7], WEEKDAYS[today.weekday()]
    text = rng.pick(["Today is the {} {} of {} {}.", "It is the {} {} of {} {} today."])
    return Context(text.format(ordinal, weekday, MONTHS[today.month - 1], today.year), today)


CONTEXTS: dict[str, Callable[[SeededRng, date], Context]] = {
    "absolute": _absolute,
    "neighbour": _neighbour,
    "elapsed": _elapsed,
    "coming": _coming,
    "anniversary": _anniversary,
    "holiday": _holiday,
    "mistaken": _mistaken,
    "end of month": _end_of_month,
    "day first": _day_first,
    "weekday": _weekday,
}


class DateDials(Section):
    """Which contexts and offsets are drawn, and how many options."""

    contexts: tuple[str, ...] = Field(tuple(CONTEXTS), min_length=1)
    """The kinds of texts from which today's date follows."""
    offsets: tuple[str, ...] = Field(tuple(OFFSETS), min_length=1)
    """The dates that are asked for."""
    options: int = Field(6, ge=0, le=10)
    """Options offered; 0 for a free answer."""
    first_year: int = Field(1950, ge=1800)
    """Earliest year of today's date."""
    last_year: int = Field(2040, le=MAXYEAR - 20)
    """Latest year of today's date."""

    @model_validator(mode="after")
    def _settings_fit(self) -> DateDials:
        require_known("contexts", self.contexts, CONTEXTS)
        require_known("offsets", self.offsets, OFFSETS)
        if self.options == 1:
            raise ValueError("options must be 2 or more, or 0 for a free answer")
        if self.first_year > self.last_year:
            raise ValueError(f"last_year {self.last_year} must be at least first_year {self.first_year}")
        return self


class DateUnderstanding:
    """Draws a context and asks for a date near today's."""

    dials_model: ClassVar[type[Section]] = DateDials

    def __init__(self, dials: DateDials) -> None:
        self.dials = dials
        self._first = date(dials.first_year, 1, 1)
        self._days = date(dials.last_year + 1, 1, 1).toordinal() - self._first.toordinal()

    def draw(self, rng: SeededRng, origin: str) -> Item:
        """One context with its question and options."""
        kind, offset = rng.pick(self.dials.contexts), rng.pick(self.dials.offsets)
        context = CONTEXTS[kind](rng, self._first + timedelta(days=rng.below(self._days)))
        verb, shift = OFFSETS[offset]
        query = f"{context.text} Which date {verb} {offset}, as MM/DD/YYYY?"
        answer = _mm_dd_yyyy(shift.of(context.today))
        # The first shift of the shuffled pattern leads to the right date, and the others to wrong ones.
        pattern = rng.shuffled(PATTERN)
        readings = [context.today] if context.distractor is None else [context.today, context.distractor]
        days = [step.without(pattern[0]).of(shift.of(today)) for step in pattern for today in readings]
        offered = list(dict.fromkeys(days))[: self.dials.options]  # none for a free answer
        options = [_mm_dd_yyyy(day) for day in rng.shuffled(offered)]
        return Item(
            task="date_understanding",
            query=with_options(query, options) if options else query,
            references=option_references([options.index(answer)], options) if options else (answer,),
            origin=origin,
            options=tuple(options) or None,
            group=content_key("date_understanding", context.text),
            metadata={"context": kind, "offset": offset},
        )


def _mm_dd_yyyy(day: date) -> str:
    return f"{day.month:02}/{day.day:02}/{day.year}"
