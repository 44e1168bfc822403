"""`[pipelines.x.delivery]`: when a delivery is due, when it is complete, and whether its coming starts a run."""

import re
from collections.abc import Iterable
from datetime import date, datetime, time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from etl.calendar.days import Days, check_calendar, check_days
from etl.calendar.dues import Timetable
from etl.config.base import Model, Problem
from etl.config.values import Positive, Seconds


def _clock(value: object) -> object:
    if isinstance(value, time) and value.tzinfo is None:
        value = value.isoformat()
    if isinstance(value, str) and re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d)?", value.strip()):
        return value.strip()
    raise ValueError('must be a time of day in the client\'s time zone, such as "06:30"')


def _day(value: object) -> object:
    if isinstance(value, datetime):
        raise ValueError("must be a date such as 2026-12-05")
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError:
        raise ValueError("must be a date such as 2026-12-05") from None


def _days(value: object) -> object:
    if isinstance(value, str):
        return check_days(value)
    if isinstance(value, list | tuple) and value:
        return tuple(sorted({str(_day(each)) for each in value}))
    raise ValueError('must be words such as "daily" or "mon-fri", or a list of dates')


Day = Annotated[str, BeforeValidator(_day)]


class Delivery(Model):
    """What is expected of a client's pipeline: when it comes, of how many files it is, and what its coming starts."""

    due: Annotated[str, BeforeValidator(_clock)]
    days: Annotated[Any, BeforeValidator(_days)] = "daily"
    calendar: Annotated[str, AfterValidator(check_calendar)] | None = None
    closed: tuple[Day, ...] = ()
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
        return Timetable(days, time.fromisoformat(self.due.zfill(5)), zone, self.grace)
