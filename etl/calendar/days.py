"""The days on which a delivery is expected: the words of `days`, holidays, closed days and where those move to."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
FURTHEST = 31  # days that a closed day's delivery moves at most: where nothing is open for so long, there is none

_RANGE = re.compile(rf"({'|'.join(WEEKDAYS)})(?:-({'|'.join(WEEKDAYS)}))?")
_OF_MONTH = re.compile(r"(\d{1,2}(?:st|nd|rd|th)|last)( business)?")
_ENDINGS = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd", 31: "st"}


@dataclass(frozen=True)
class Days:
    """The days of a delivery.

    Args:
        days: `daily`; `business`: Monday to Friday, but for holidays and closed days; weekdays such as `mon-fri` or
            `sat`; a day of each month such as `1st`, `15th`, `last`, `1st business`, `last business`; or dates.
        calendar: Whose public holidays are closed, such as `US-TX` or `DE`; "" for none's.
        closed: Further closed days.
        if_closed: What becomes of a delivery whose day is closed: there is none, or it moves to the open day after or
            before.
    """

    days: str | tuple[date, ...] = "daily"
    calendar: str = ""
    closed: tuple[date, ...] = ()
    if_closed: str = "skip"

    def is_open(self, day: date) -> bool:
        """Whether a day is neither a public holiday nor closed."""
        return day not in self.closed and not (self.calendar and day in holidays_of(self.calendar))

    def is_business(self, day: date) -> bool:
        """Whether a day is an open one from Monday to Friday."""
        return day.weekday() < 5 and self.is_open(day)

    def between(self, first: date, last: date) -> list[date]:
        """Return the days of deliveries from one day to another, both included, ascending, each once."""
        margin = timedelta(days=0 if self.if_closed == "skip" else FURTHEST)
        found = {self._moved(day) for day in self._named(first - margin, last + margin)}
        return sorted(day for day in found if day is not None and first <= day <= last)

    def _named(self, first: date, last: date) -> Iterator[date]:
        """Yield the days that the words name, closed ones too where they may move."""
        if not isinstance(self.days, str):
            yield from (day for day in self.days if first <= day <= last)
            return
        for day in _each(first, last):
            if self._is_named(day, self.days):
                yield day

    def _is_named(self, day: date, words: str) -> bool:
        if words == "daily":
            return True
        if words == "business":
            return self.is_business(day)
        if match := _RANGE.fullmatch(words):
            begin, end = WEEKDAYS.index(match[1]), WEEKDAYS.index(match[2] or match[1])
            return (day.weekday() - begin) % 7 <= (end - begin) % 7
        match = _OF_MONTH.fullmatch(words)
        assert match is not None
        month = [other for other in _month(day) if not match[2] or self.is_business(other)]
        place = -1 if match[1] == "last" else int(match[1][:-2]) - 1
        return (place < len(month)) and bool(month) and month[place] == day

    def _moved(self, day: date) -> date | None:
        if self.is_open(day):
            return day
        if self.if_closed == "skip":
            return None
        step = timedelta(days=1 if self.if_closed == "next" else -1)
        business = self.days == "mon-fri"
        for count in range(1, FURTHEST + 1):
            other = day + count * step
            if self.is_business(other) if business else self.is_open(other):
                return other
        return None


def check_days(words: str) -> str:
    """Return the words of `days`, or raise ValueError."""
    plain = " ".join(words.lower().split())
    if plain in ("daily", "business") or _RANGE.fullmatch(plain):
        return plain
    if (match := _OF_MONTH.fullmatch(plain)) and (match[1] == "last" or _is_ordinal(match[1])):
        return plain
    raise ValueError(
        'must be "daily", "business", weekdays such as "mon-fri", "1st", "last business" or a list of dates'
    )


def check_calendar(name: str) -> str:
    """Return the name of a calendar, such as `US-TX`, or raise ValueError."""
    try:
        holidays_of(name)
    except (NotImplementedError, KeyError, ValueError):
        raise ValueError('is no calendar; write a country and a part of it, such as "US", "US-TX" or "DE-BY"') from None
    return name


@lru_cache
def holidays_of(name: str) -> "dict[date, str]":
    """Return the public holidays of a country or of a part of it; each year is worked out when it is asked for."""
    import holidays

    country, _, part = name.partition("-")
    return holidays.country_holidays(country, subdiv=part or None)


def _is_ordinal(text: str) -> bool:
    number = int(text[:-2])
    return 1 <= number <= 31 and text[-2:] == _ENDINGS.get(number, "th")


def _month(day: date) -> list[date]:
    first = day.replace(day=1)
    return list(_each(first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)))


def _each(first: date, last: date) -> Iterator[date]:
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)
