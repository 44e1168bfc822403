"""The moments that a cron line names, in a client's time zone.

On the day that skips an hour, what falls into the gap comes as much later as the clock jumps (02:30 becomes
03:30). On the day that has an hour twice, a line with a fixed hour comes once, the first time; one whose hours
are a wildcard comes in both.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

GRACE = 600  # seconds that a due run may take before it is called late


def moments(cron: str, zone: str, after: datetime) -> Iterator[datetime]:
    """Yield the moments of a cron line after a given one, in UTC, each once, ascending.

    Args:
        cron: Minute, hour, day, month, weekday.
        zone: Name of a time zone, such as "Europe/Berlin".
        after: With a zone.
    """
    from croniter import croniter

    there = ZoneInfo(zone)
    # Begun a day early: what falls into a gap or a repeated hour moves, but never so far.
    lines = croniter(cron, after.astimezone(there).replace(tzinfo=None) - timedelta(days=1), ret_type=datetime)
    hourly = cron.split()[1].startswith("*")
    waiting: list[datetime] = []
    while True:
        local = lines.get_next()
        found = [local.replace(tzinfo=there, fold=fold).astimezone(UTC) for fold in ((0, 1) if hourly else (0,))]
        # A moment may still move behind one that comes two local hours later; no zone shifts by more.
        passed = found[0] - timedelta(hours=3)
        ready = sorted({moment for moment in waiting if moment <= passed})
        waiting = [moment for moment in waiting if moment > passed]
        yield from (moment for moment in ready if moment > after)
        exists = {moment for moment in found if _exists(local, moment, there) or moment == found[0]}
        waiting += [moment for moment in exists if moment not in waiting]


def _exists(local: datetime, moment: datetime, zone: ZoneInfo) -> bool:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0) == local


def due(cron: str, zone: str, after: datetime, until: datetime, most: int | None = None) -> list[datetime]:
    """Return the moments after one moment and not after another, in UTC; of many the first, where `most` is given."""
    return list(islice(takewhile(lambda moment: moment <= until, moments(cron, zone, after)), most))


def following(cron: str, zone: str, after: datetime, count: int = 1) -> list[datetime]:
    """Return the next moments, in UTC."""
    return list(islice(moments(cron, zone, after), count))


def latest(cron: str, zone: str, now: datetime, after: datetime | None = None) -> datetime | None:
    """Return the last moment not after a given one, in UTC, or None where there has been none for long.

    Args:
        after: Only a moment after this one.
    """
    from croniter import croniter

    there = now.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    before = croniter(cron, there + timedelta(seconds=1), ret_type=datetime).get_prev()
    # Where the clock has changed since, the moment may be another: those around it are looked at.
    since = before.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) - timedelta(hours=26)
    found = due(cron, zone, max(since, after) if after else since, now)
    return found[-1] if found else None


def local(moment: datetime, zone: str) -> datetime:
    """Return a moment as the clocks of a zone show it."""
    return moment.astimezone(ZoneInfo(zone))


def lateness(
    before: datetime | None, finished: datetime | None, begun: float | None, fresh: float | None, now: datetime
) -> float:
    """Return for how many seconds something has been due, or is too old; 0 where it is neither.

    Args:
        before: The last moment that its schedule has named.
        finished: When it succeeded last.
        begun: When the schedule was synced, in seconds since the epoch, where nothing has ended yet.
        fresh: How old the last success may be, in seconds.
    """
    late = 0.0
    if before and (finished is None or finished < before) and before.timestamp() >= (begun or 0):
        late = (now - before).total_seconds()
    if finished and fresh:
        late = max(late, (now - finished).total_seconds() - fresh)
    return late


@lru_cache
def check_cron(line: str) -> None:
    """Raise ValueError unless `line` is a cron line of five fields that some moment fits."""
    from croniter import croniter

    try:
        if len(line.split()) != 5:
            raise ValueError
        croniter(line, datetime(2024, 1, 1, tzinfo=UTC)).get_next()
    except (ValueError, KeyError, AttributeError):
        raise ValueError('is no cron line; write minute, hour, day, month, weekday, such as "0 2 * * *"') from None
