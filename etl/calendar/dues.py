"""The deliveries that are expected: when each is due, until when it may come, and which span is its own."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from etl.calendar.days import Days

FIRST = timedelta(days=366)  # how long before its due the span of a first delivery begins


@dataclass(frozen=True)
class Due:
    """One delivery that is expected.

    Args:
        day: Its day in the client's zone.
        before: The day of the delivery before it; its own where it is the first.
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

    The spans of deliveries follow one another without a gap: a moment is in the span of exactly one. That is so for a
    grace that is longer than the time between two, as well.

    Args:
        days: On which days.
        clock: At which time of them. On the day that skips it, it is as much later as the clock jumps; on the day that
            has it twice, it is the first (as in `etl.calendar.cron`).
        zone: Name of the time zone of both.
        grace: How much later they may come, in seconds.
    """

    days: Days
    clock: time
    zone: str
    grace: float

    def between(self, after: datetime, until: datetime) -> list[Due]:
        """Return the deliveries whose spans end after one moment, and not later than the span that holds another."""
        found = list[Due]()
        # A day early: no zone's clock is set by more.
        day = self.days.after(self._day(after - timedelta(seconds=self.grace)) - timedelta(days=2))
        while day is not None and (due := self._due(day)).since < until:
            if due.until > after:
                found.append(due)
            day = self.days.after(day)
        return found

    def at(self, moment: datetime) -> Due | None:
        """Return the delivery in whose span a moment is, or None where none follows within a year."""
        return next(iter(self.between(moment - timedelta.resolution, moment)), None)

    def last(self, moment: datetime) -> Due | None:
        """Return the delivery that was due last at a moment, or None where none was within a year."""
        day = self.days.before(self._day(moment) + timedelta(days=2))
        while day is not None and self._at(day) > moment:
            day = self.days.before(day)
        return self._due(day) if day is not None else None

    def of_day(self, day: date) -> Due | None:
        """Return the delivery of a date in a file's name: that of the day, also where it moved; else the next one."""
        moved = self.days.moved(day) if self.days.names(day) else None
        found = moved or self.days.after(day - timedelta(days=1))
        return self._due(found) if found else None

    def _due(self, day: date) -> Due:
        """Return the delivery of a day that has one."""
        before, until = self.days.before(day), self._until(day)
        since = self._until(before) if before else until - FIRST
        return Due(day, before or day, self._at(day), until, since)

    def _day(self, moment: datetime) -> date:
        return moment.astimezone(ZoneInfo(self.zone)).date()

    def _at(self, day: date) -> datetime:
        return datetime.combine(day, self.clock, ZoneInfo(self.zone)).astimezone(UTC)

    def _until(self, day: date) -> datetime:
        return self._at(day) + timedelta(seconds=self.grace)
