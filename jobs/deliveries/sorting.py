"""Which delivery a file belongs to, when a delivery is complete and when it is missing, of what is given alone.

A file belongs to the delivery of the date in its name; without one, to the delivery in whose span it was first seen.
When it was modified says nothing: a file may be made long before it is sent, or get its time from elsewhere.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache

from etl.calendar.dues import Due, Timetable
from etl.sources.arrivals import Arrival
from jobs.deliveries.record import Delivery, Item, Record

SAME = 0.01  # seconds; not every database keeps all digits of a time
GAP = 300.0  # seconds without a look, or three times `poll`, after which nobody knows when a file came
Loaded = Mapping[str, Collection[float | None]]  # files that have been loaded, and when they were modified, if known
_now: dict[Timetable, Due] = {}


@dataclass(frozen=True)
class Rule:
    """What sorting goes by.

    Args:
        files, complete: Of `etl.config.delivery.Delivery`.
        settle, poll: In seconds.
        is_whole: Whether a run replaces what earlier ones have loaded, so that all files must be there for it.
        has_files: Whether the source is files; else a delivery is a run with rows.
    """

    timetable: Timetable
    settle: float
    poll: float
    is_whole: bool = False
    files: int | None = None
    complete: str | None = None
    has_files: bool = True


def current(timetable: Timetable, moment: float) -> Due | None:
    """Return the delivery in whose span a moment is; asked for every second, it is worked out once a delivery."""
    when = _moment(moment)
    due = _now.get(timetable)
    if due is None or not due.since < when <= due.until:
        due = timetable.at(when)
        if due is not None:
            _now[timetable] = due
    return due


@lru_cache(4096)
def of_day(timetable: Timetable, day: date) -> Due | None:
    """Return the delivery of a date in a name."""
    return timetable.of_day(day)


def begin(rule: Rule, now: float, found: Sequence[Arrival], loaded: Loaded) -> Record:
    """Return the record of a pipeline whose deliveries are looked at for the first time.

    What lies there may be years old. What has been loaded, and what is dated before the last delivery that was due, is
    known and starts nothing; the rest has come just now.
    """
    record = Record(began=now, looked=now)
    due = current(rule.timetable, now)
    before = current(rule.timetable, due.since.timestamp()) if due else None
    # Of files without dates that are there, or were, nobody can say whether they were that delivery.
    is_sure = not rule.has_files or any(each.day for each in found) or not (found or loaded)
    if before is not None and is_sure:
        _expect(record, before)
    for arrival in _files_first(found):
        is_loaded = _is_loaded(arrival, loaded)
        day = _day_of(record, rule, arrival, now) if arrival.day or not is_loaded else None
        is_old = arrival.day is not None and before is not None and (day is None or day.day < before.day)
        item = _item(arrival, now, None if is_old else day)
        item.is_known = is_loaded or is_old
        record.items.append(item)
        if day is not None and not is_old:
            _expect(record, day)
    return record


def see(record: Record, rule: Rule, now: float, found: Iterable[Arrival]) -> None:
    """Bring a record up to date with the files that are there now."""
    latest = record.latest()
    there = set()
    for arrival in _files_first(found):
        there.add(arrival.name)
        item = latest.get(arrival.name)
        is_same = item is not None and (item.size, item.modified) == (arrival.size, arrival.modified)
        if item is not None and not is_same and item.settled is None and item.is_here:  # it still grows
            item.size, item.modified, item.since = arrival.size, arrival.modified, now
        elif item is None or not is_same:
            due = _day_of(record, rule, arrival, now)
            item = _item(arrival, now, due)
            record.items.append(item)
            if due is not None:
                _expect(record, due)
        item.is_here = True
        if item.settled is None and (arrival.is_settled or (is_same and now - item.since >= rule.settle)):
            item.settled = now
    for item in latest.values():
        item.is_here = item.name in there
    # What has gone before it had stopped to grow was a name for the time of its transfer.
    record.items = [item for item in record.items if item.is_here or item.settled is not None or item.is_covered]


def expect(record: Record, rule: Rule, now: float) -> None:
    """Have all deliveries in a record whose spans have begun since the last look."""
    due = current(rule.timetable, now)
    if due is None:
        return
    until, known = due.until.timestamp(), record.deliveries.get(due.day.isoformat())
    if known is not None and known.until == until and record.looked > due.since.timestamp():
        return
    for day in [each.day for each in record.deliveries.values() if _is_void(record, each, now)]:
        del record.deliveries[day]  # it was expected before the configuration changed
    for each in rule.timetable.between(_moment(max(record.looked, record.began)), _moment(now)):
        _expect(record, each)
    delivery = record.deliveries[due.day.isoformat()]
    delivery.due, delivery.until, delivery.missing = due.at.timestamp(), until, None


def judge(record: Record, rule: Rule, now: float) -> None:
    """Say which deliveries of files have come, and which are missing."""
    for delivery in record.deliveries.values():
        if delivery.came is None and rule.has_files and is_complete(record, rule, delivery.day):
            delivery.came = now
        if delivery.came is None and delivery.missing is None and now > delivery.until:
            delivery.missing = now


def is_complete(record: Record, rule: Rule, day: str, *, here: bool = False) -> bool:
    """Whether all that makes a delivery complete has come.

    Args:
        here: Whether all of it must still be there, and none of it growing: a run is to read it.
    """
    latest = [item for item in record.latest().values() if item.day == day]
    files = [item for item in latest if not item.is_marker and (item.is_here or (item.is_covered and not here))]
    if not files or any(item.settled is None for item in files):
        return False
    if rule.complete is not None:
        markers = [item for item in latest if item.is_marker and (item.is_here or not here)]
        return bool(markers)
    return len(files) >= (rule.files or 1)


def _files_first(found: Iterable[Arrival]) -> list[Arrival]:
    """Return markers behind the files that they may be named after."""
    return sorted(found, key=lambda arrival: arrival.is_marker)


def _is_loaded(arrival: Arrival, loaded: Loaded) -> bool:
    times = loaded.get(arrival.name, ())
    return any(modified is None or abs(modified - arrival.modified) < SAME for modified in times)


def _day_of(record: Record, rule: Rule, arrival: Arrival, now: float) -> Due | None:
    if arrival.day is not None and (due := of_day(rule.timetable, arrival.day)):
        return due
    if arrival.is_marker and (item := _named_like(record, arrival.name)) and item.day:
        delivery = record.deliveries.get(item.day)
        if delivery is not None and delivery.came is None:  # else it comes before the next version of the file
            return of_day(rule.timetable, date.fromisoformat(item.day))
    due = current(rule.timetable, now)
    return _unwatched(record, rule, due, now) if due is not None else None


def _named_like(record: Record, marker: str) -> Item | None:
    """Return the file that a marker is named after: `claims.csv.done` or `claims.done` after `claims.csv`."""
    stem = os.path.splitext(marker)[0]
    found = [item for item in record.items if not item.is_marker]
    return next((item for item in reversed(found) if stem in (item.name, os.path.splitext(item.name)[0])), None)


def _unwatched(record: Record, rule: Rule, due: Due, now: float) -> Due:
    """Return the delivery of a file that came while nobody looked: the first of that time that hasn't come yet.

    The span in which it came isn't known where the cron process was away when a delivery's grace ended.
    """
    gap = max(GAP, 3 * rule.poll)
    for each in record.in_order():
        if record.looked < each.until - gap and each.until < now and not is_complete(record, rule, each.day):
            return of_day(rule.timetable, date.fromisoformat(each.day)) or due
    return due


def _item(arrival: Arrival, now: float, due: Due | None) -> Item:
    return Item(
        name=arrival.name,
        size=arrival.size,
        modified=arrival.modified,
        seen=now,
        since=now,
        day=due.day.isoformat() if due else None,
        named=arrival.day.isoformat() if arrival.day else None,
        settled=now if arrival.is_settled else None,
        is_marker=arrival.is_marker,
    )


def _expect(record: Record, due: Due) -> None:
    """Have a delivery in the record."""
    day, until = due.day.isoformat(), due.until.timestamp()
    if day not in record.deliveries:
        record.deliveries[day] = Delivery(day, due.at.timestamp(), until, watched=until > record.began)


def _is_void(record: Record, delivery: Delivery, now: float) -> bool:
    """Whether a delivery is expected in the future, and nothing of it has come."""
    return delivery.until > now and not record.of(delivery.day) and not delivery.runs


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
