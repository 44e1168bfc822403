"""The days on which a delivery is expected: the words of `days`, holidays, closed days and where those move to.

A day is *closed* where it is a public holiday of `calendar` or one of `closed`. A weekend is not: what comes on the 1st
comes on a Sunday too, unless the words say otherwise (`1st business`). Only what is expected from Monday to Friday
alone, such as `mon-fri` or `fri`, never moves to a weekend.
"""

import calendar as months
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
FURTHEST = 28  # days that a closed day's delivery moves at most: into the month beside; else there is none
AHEAD = 14  # months in which the delivery before or after another is looked for

_DAY = timedelta(days=1)
_RANGE = re.compile(rf"({'|'.join(WEEKDAYS)})(?:-({'|'.join(WEEKDAYS)}))?")
_OF_MONTH = re.compile(r"(\d{1,2}(?:st|nd|rd|th)|last)( business)?")
_ENDINGS = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd", 31: "st"}


@dataclass(frozen=True)
class Days:
    """The days of a delivery.

    Args:
        days: `daily`; `business`: Monday to Friday, but for closed days; weekdays such as `mon-fri` or `sat`; a day of
            each month that has it such as `1st`, `31st`, `last`, `1st business`, `last business`; or dates.
        calendar: Whose public holidays are closed, such as `US-TX` or `DE`; "" for none's.
        closed: Further closed days.
        if_closed: What becomes of a delivery whose day is closed: there is none (`skip`), or it moves to the open day
            after or before (`next`, `previous`), where it falls together with the delivery of that day.
    """

    days: str | tuple[date, ...] = "daily"
    calendar: str = ""
    closed: tuple[date, ...] = ()
    if_closed: str = "skip"

    def is_open(self, day: date) -> bool:
        """Whether a day is neither a public holiday nor closed."""
        return day not in self.closed and not (self.calendar and day in holidays_of(self.calendar, day.year))

    def is_business(self, day: date) -> bool:
        """Whether a day is an open one from Monday to Friday."""
        return day.weekday() < 5 and self.is_open(day)

    def between(self, first: date, last: date) -> list[date]:
        """Return the days of deliveries from one day to another, both included, ascending, each once."""
        found, day = list[date](), self.after(first - _DAY)
        while day is not None and day <= last:
            found.append(day)
            day = self.after(day)
        return found

    def after(self, day: date) -> date | None:
        """Return the first day of a delivery after a day, or None where there is none within a year."""
        for some in self._around(day, 1):
            if some and some[-1] > day:
                return some[bisect_right(some, day)]
        return None

    def before(self, day: date) -> date | None:
        """Return the last day of a delivery before a day, or None where there is none within a year."""
        for some in self._around(day, -1):
            if some and some[0] < day:
                return some[bisect_left(some, day) - 1]
        return None

    def moved(self, day: date) -> date | None:
        """Return the day of the delivery that would be on a day: the same where it is open; None where there is none.

        Args:
            day: One that the words name.
        """
        if self.is_open(day) or self.if_closed == "skip":
            return day if self.is_open(day) else None
        step = _DAY if self.if_closed == "next" else -_DAY
        within = (day + count * step for count in range(1, FURTHEST + 1))
        to = self.is_business if isinstance(self.days, str) and _is_of_week(self.days) else self.is_open
        return next(filter(to, within), None)

    def names(self, day: date) -> bool:
        """Whether the words name a day, open or not."""
        return day in (self.days if isinstance(self.days, tuple) else _named(self, day.year, day.month))

    def _around(self, day: date, step: int) -> Iterator[tuple[date, ...]]:
        """Yield the days of deliveries, a month each, from the month of a day on; of dates all at once."""
        if isinstance(self.days, tuple):
            yield _dates(self)
            return
        for number in range(AHEAD):
            year, month = divmod(day.year * 12 + day.month - 1 + number * step, 12)
            yield _of_month(self, year, month + 1)


# Asked for each client's pipeline each minute; what a month has never changes.


@lru_cache(maxsize=1024)
def _dates(days: Days) -> tuple[date, ...]:
    return tuple(sorted({moved for day in days.days if isinstance(day, date) and (moved := days.moved(day))}))


@lru_cache(maxsize=16384)
def _of_month(days: Days, year: int, month: int) -> tuple[date, ...]:
    """Return the days of deliveries in a month, moved ones too."""
    beside = (0,) if days.if_closed == "skip" else (-1, 0, 1)
    near = [divmod(year * 12 + month - 1 + step, 12) for step in beside]
    found = {days.moved(day) for of_year, index in near for day in _named(days, of_year, index + 1)}
    return tuple(sorted(day for day in found if day is not None and (day.year, day.month) == (year, month)))


def _named(days: Days, year: int, month: int) -> list[date]:
    """Return the days of a month that the words name, closed ones too."""
    words = str(days.days)
    every = [date(year, month, day + 1) for day in range(months.monthrange(year, month)[1])]
    if words == "daily":
        return every
    if words == "business":
        return list(filter(days.is_business, every))
    if match := _RANGE.fullmatch(words):
        begin, end = WEEKDAYS.index(match[1]), WEEKDAYS.index(match[2] or match[1])
        return [day for day in every if (day.weekday() - begin) % 7 <= (end - begin) % 7]
    match = _OF_MONTH.fullmatch(words)
    assert match is not None
    some = list(filter(days.is_business, every)) if match[2] else every
    return some[-1:] if match[1] == "last" else some[int(match[1][:-2]) - 1 :][:1]


def _is_of_week(words: str) -> bool:
    """Whether words are weekdays, all of them from Monday to Friday."""
    match = _RANGE.fullmatch(words)
    return match is not None and WEEKDAYS.index(match[1]) <= WEEKDAYS.index(match[2] or match[1]) < 5


def check_days(words: str) -> str:
    """Return the words of `days`, or raise ValueError."""
    plain = " ".join(words.lower().split())
    if plain in ("daily", "business") or _RANGE.fullmatch(plain):
        return plain
    if (match := _OF_MONTH.fullmatch(plain)) and (match[1] == "last" or _is_ordinal(match[1], 23 if match[2] else 31)):
        return plain
    raise ValueError(
        'must be "daily", "business", weekdays such as "mon-fri", "1st", "last business" or a list of dates'
    )


def check_calendar(name: str) -> str:
    """Return the name of a calendar, such as `US-TX`, or raise ValueError."""
    if name not in calendars():
        raise ValueError("is no calendar")
    return name


@lru_cache
def calendars() -> frozenset[str]:
    """Return the names of all calendars there are: countries by their ISO codes, and their parts."""
    import holidays

    known = holidays.list_supported_countries()
    return frozenset(known) | {f"{country}-{part}" for country, parts in known.items() for part in parts}


@lru_cache
def country_codes() -> dict[str, str]:
    """Return the countries' codes by their names, small and without blanks."""
    from holidays.registry import COUNTRIES

    return {name.lower(): code for name, code, *_ in COUNTRIES.values()}


@lru_cache(maxsize=4096)
def holidays_of(name: str, year: int) -> frozenset[date]:
    """Return the public holidays of a country, or of a part of it, in a year."""
    import holidays

    country, _, part = name.partition("-")
    return frozenset(holidays.country_holidays(country, subdiv=part or None, years=year))


def _is_ordinal(text: str, most: int) -> bool:
    number = int(text[:-2])
    return 1 <= number <= most and text[-2:] == _ENDINGS.get(number, "th")
