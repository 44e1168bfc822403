"""The deliveries that are expected: when each is due, until when it may come, and which span is its own."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from etl.calendar.days import Days

LONGEST = 400  # days between two deliveries, at most, for which the one before or after is looked for


@dataclass(frozen=True)
class Due:
    """One delivery that is expected.

    Args:
        day: Its day in the client's zone.
        before: The day of the delivery before it.
        at: When it is due, in UTC.
        until: When its grace ends, in UTC: what has not come by then is missing.
        since: When the grace of the delivery before it ended: what is first seen later, until `until`, is its own.
    """

    day: date
    before: date
    at: datetime
    until: datetime
    since: datetime


@dataclass(frozen=True)
class Timetable:
    """When deliveries are due.

    Args:
        days: On which days.
        clock: At which time of them.
        zone: Name of the time zone of both.
        grace: How much later they may come, in seconds.
    """

    days: Days
    clock: time
    zone: str
    grace: float

    def between(self, after: datetime, until: datetime) -> list[Due]:
        """Return the deliveries whose spans end after one moment, and not later than the span that holds another."""
        margin = timedelta(seconds=self.grace) + timedelta(days=2)
        first, last = (
            (after - margin).date() - timedelta(days=LONGEST),
            (until + margin).date() + timedelta(days=LONGEST),
        )
        found = [
            Due(day, before, self._at(day), self._until(day), self._until(before))
            for before, day in pairwise(self.days.between(first, last))
        ]
        return [due for due in found if due.until > after and due.since < until]

    def at(self, moment: datetime) -> Due | None:
        """Return the delivery in whose span a moment is, or None where none follows within a year."""
        return next(
            (due for due in self.between(moment - timedelta(seconds=1), moment) if due.since < moment <= due.until),
            None,
        )

    def of_day(self, day: date) -> Due | None:
        """Return the delivery of a date in a file's name: that of the day, else the next one after it."""
        begin = datetime.combine(day, time(), ZoneInfo(self.zone)).astimezone(UTC) - timedelta(days=1)
        found = self.between(begin, begin + timedelta(days=LONGEST))
        return next((due for due in found if due.day >= day), None)

    def _at(self, day: date) -> datetime:
        return datetime.combine(day, self.clock, ZoneInfo(self.zone)).astimezone(UTC)

    def _until(self, day: date) -> datetime:
        return self._at(day) + timedelta(seconds=self.grace)
