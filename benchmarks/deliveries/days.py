"""The days on which a client delivers, written from the calendars of two countries and not from any library.

The simulation must not share the code of what it looks at, so the holidays are computed here by the law's own rules.
"""

from collections.abc import Collection, Iterator
from datetime import date, timedelta
from functools import cache

DAY = timedelta(days=1)


def easter(year: int) -> date:
    """Easter Sunday (the anonymous Gregorian algorithm)."""
    a, (b, c) = year % 19, divmod(year, 100)
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)


def nth(year: int, month: int, weekday: int, number: int) -> date:
    """The `number`-th `weekday` (Monday is 0) of a month; -1 is the last one."""
    if number < 0:
        last = month_ends(date(year, month, 1))
        return last - DAY * ((last.weekday() - weekday) % 7)
    first = date(year, month, 1)
    return first + DAY * ((weekday - first.weekday()) % 7 + 7 * (number - 1))


def month_ends(day: date) -> date:
    """The last calendar day of the day's month."""
    return (day.replace(day=28) + 4 * DAY).replace(day=1) - DAY


@cache
def public_holidays(country: str, year: int) -> frozenset[date]:
    """The federal holidays of the United States ("US"), or those of all of Germany ("DE")."""
    if country == "DE":
        sunday = easter(year)
        moving = {sunday + DAY * days for days in (-2, 1, 39, 50)}
        return frozenset(moving | {date(year, *it) for it in ((1, 1), (5, 1), (10, 3), (12, 25), (12, 26))})
    if country != "US":
        raise ValueError(f"no calendar of {country} here")
    found = {
        nth(year, 1, 0, 3),
        nth(year, 2, 0, 3),
        nth(year, 5, 0, -1),
        nth(year, 9, 0, 1),
        nth(year, 10, 0, 2),
        nth(year, 11, 3, 4),
    }
    fixed = [date(year, *it) for it in ((1, 1), (6, 19), (7, 4), (11, 11), (12, 25))] + [date(year + 1, 1, 1)]
    for day in fixed:
        observed = {5: day - DAY, 6: day + DAY}.get(day.weekday(), day)
        found |= {it for it in (day, observed) if it.year == year}
    return frozenset(found)


def is_holiday(country: str | None, day: date) -> bool:
    """Whether the calendar says that nothing comes on this day."""
    return country is not None and day in public_holidays(country, day.year)


def is_business(country: str | None, day: date, closed: Collection[date] = ()) -> bool:
    """Monday to Friday, no holiday, not closed."""
    return day.weekday() < 5 and day not in closed and not is_holiday(country, day)


def last_business(country: str | None, day: date, closed: Collection[date] = ()) -> date:
    """The last business day of the day's month."""
    found = month_ends(day)
    while not is_business(country, found, closed):
        found -= DAY
    return found


def due_days(
    habit: str, country: str | None, closed: Collection[date], if_closed: str, first: date, last: date
) -> Iterator[date]:
    """The days from first to last on which a delivery is due.

    `if_closed` moves the monthly one only; with a calendar, a Saturday or Sunday is a closed day for it. (No 1st falls
    on one in the simulation's usual 90 days, so nothing there hangs on that reading.)
    """
    found = set()
    day = first - 10 * DAY
    while day <= last + 10 * DAY:
        if habit == "daily":
            due = day not in closed
        elif habit == "mon-fri":
            due = day.weekday() < 5 and day not in closed
        elif habit == "business":
            due = is_business(country, day, closed)
        elif habit == "last business":
            due = day == last_business(country, day, closed)
        else:
            due = day.day == 1
            moved = _moved(day, country, closed, if_closed) if due else None
            if moved is not None:
                found.add(moved)
            due = False
        if due:
            found.add(day)
        day += DAY
    return (it for it in sorted(found) if first <= it <= last)


def _moved(day: date, country: str | None, closed: Collection[date], if_closed: str) -> date | None:
    """Where the delivery of a day goes if the day is closed: nowhere, or to the next or the previous open one."""

    def shut(it: date) -> bool:
        return it in closed or is_holiday(country, it) or (country is not None and it.weekday() > 4)

    if shut(day) and if_closed == "skip":
        return None
    step = -DAY if if_closed == "previous" else DAY
    while shut(day):
        day += step
    return day
