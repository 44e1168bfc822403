"""`[pipelines.x.delivery]`: when a delivery is due, when it is complete, and whether its coming starts a run."""

import re
from collections.abc import Iterable
from datetime import date, datetime, time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from etl.calendar.days import WEEKDAYS, Days, calendars, check_calendar, check_days, country_codes
from etl.calendar.dues import Timetable
from etl.config.base import Model, Problem
from etl.config.values import Positive, Seconds, suggest

WORDS = ("daily", "business", "mon-fri", "1st", "last", "1st business", "last business", *WEEKDAYS)
_DAY = "must be a date such as 2026-12-05"


def _clock(value: object) -> object:
    if isinstance(value, time) and value.tzinfo is None:
        value = value.isoformat(timespec="seconds")
    if isinstance(value, str) and re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d)?", value.strip()):
        return value.strip().zfill(5 if value.count(":") == 1 else 8)
    raise ValueError('must be a time of day in the client\'s time zone, such as "06:30"')


def _day(value: object) -> str:
    try:
        if isinstance(value, datetime) or not isinstance(value, str | date):
            raise ValueError(_DAY)
        day = date.fromisoformat(str(value).strip())
    except ValueError:
        raise ValueError(_DAY) from None
    if not 1970 <= day.year < 3000:
        raise ValueError(_DAY)
    return day.isoformat()


def _list_of_days(value: object) -> object:
    if not isinstance(value, list | tuple):
        value = [value]
    return tuple(sorted({_day(each) for each in value}))


def _days(value: object) -> object:
    if isinstance(value, date) or (isinstance(value, str) and re.fullmatch(r"\s*\d{4}-\d\d-\d\d\s*", value)):
        value = [value]
    if isinstance(value, str):
        try:
            return check_days(value)
        except ValueError as error:
            raise ValueError(f"{error}{suggest(value, WORDS)}") from None
    if isinstance(value, list | tuple) and value:
        return _list_of_days(value)
    raise ValueError('must be words such as "daily" or "mon-fri", or a list of dates')


def _calendar(value: str) -> str:
    try:
        return check_calendar(value)
    except ValueError:
        code = country_codes().get(re.sub("[-_ ]", "", value.lower()), "")
        near = f"; did you mean {code}?" if code else suggest(value, sorted(calendars()))
        write = '; write a country or a part of one, such as "US", "US-TX" or "DE-BY"'
        raise ValueError(f"is no calendar{near or write}") from None


class Delivery(Model):
    """What is expected of a client's pipeline: when it comes, of how many files it is, and what its coming starts."""

    due: Annotated[str, BeforeValidator(_clock)]
    days: Annotated[Any, BeforeValidator(_days)] = "daily"
    calendar: Annotated[str, AfterValidator(_calendar)] | None = None
    closed: Annotated[tuple[str, ...], BeforeValidator(_list_of_days)] = ()
    if_closed: Literal["skip", "next", "previous"] = "skip"
    grace: Seconds = 0.0
    files: Positive | None = None
    complete: str | None = None
    run: Literal["on arrival", "when due", "no"] = "no"
    poll: Annotated[Seconds, Field(ge=1)] = 60.0

    def problems(self) -> Iterable[Problem]:
        if self.files is not None and self.complete is not None:
            yield ("complete",), "goes without files: one of the two says when a delivery is complete; drop one"
        if self.complete is not None and (not self.complete.strip() or "/" in self.complete):
            yield ("complete",), 'is the name of a file beside the others, such as "*.done", without a folder'

    def timetable(self, zone: str) -> Timetable:
        """Return when deliveries are due, in a client's time zone."""
        dates = self.days if isinstance(self.days, str) else tuple(map(date.fromisoformat, self.days))
        closed = tuple(map(date.fromisoformat, self.closed))
        days = Days(dates, self.calendar or "", closed, self.if_closed)
        return Timetable(days, time.fromisoformat(self.due), zone, self.grace)
