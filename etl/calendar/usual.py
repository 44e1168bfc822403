"""How many rows are usual on a day: those of the same weekday, unless the day's place in its month explains others.

A month end five times as large is no surprise where an earlier one was too, whether it is counted in calendar or in
business days, and whatever weekday it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from statistics import median

from etl.calendar.days import Days

MOST = 8  # earlier deliveries that are compared with
LEAST = 5  # of them; below that nothing is usual yet
RARE = 14  # days between two deliveries from which on all earlier ones are compared, of whatever weekday

_DAY = timedelta(days=1)
_SWING = 0.8  # share of earlier deliveries that differ less from what was usual than the *swing*
_PLAUSIBLE, _CERTAIN = 4.0, 2.75  # swings that a whole delivery may be above the usual, and never is below it
_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def unusual(day: date, rows: int, earlier: Mapping[date, int], change: float, days: Days) -> str | None:
    """Return the sentence that a delivery has unusually few or many rows, or None.

    Few means that more than a share is missing, of what is usual or, as far as that swings anyway, of what a whole
    delivery may be. Few rows are explained by two earlier deliveries with the same place in the month, many by one.

    Args:
        earlier: Rows of other deliveries, by their days.
        change: The share, up to 1.
        days: On which days there are deliveries.
    """
    before = {other: count for other, count in earlier.items() if other < day}
    gap = (day - (days.before(day) or day - _DAY)).days
    groups: dict[int, list[int]] = {}
    for other in sorted(before):
        groups.setdefault(0 if gap >= RARE else other.weekday(), []).append(before[other])
    mine = 0 if gap >= RARE else day.weekday()
    recent = {group: counts[-MOST:] for group, counts in groups.items()}
    delivered = "1 row was delivered" if rows == 1 else f"{rows:,} rows were delivered"
    if len(recent.get(mine, ())) < LEAST:
        # Nothing at all is less than any share, however short the history.
        return f"{delivered}, as never before" if not rows and all(before.values()) else None
    usual = median(recent[mine])
    least, most = _bounds(change, _swing(recent))
    if least * usual < rows <= most * usual or rows == usual:
        return None
    medians = {group: median(counts) for group, counts in recent.items() if len(counts) > 2}
    is_many, needed = rows > usual, 1 if rows > usual else 2
    for other in _alike(day, before, days):
        then, now = medians.get(0 if gap >= RARE else other.weekday()), before[other]
        if then is None or not (now > most * then if is_many else now <= least * then):
            continue  # it was as usual, so it explains nothing that isn't
        is_near = rows == now or least * now < rows <= most * now
        is_near |= bool(then and usual) and least * now / then < rows / usual <= most * now / then
        needed -= is_near
        if not needed:
            return None
    when = "usual" if gap >= RARE else f"usual on a {_NAMES[mine]}"
    return f"{delivered}, {round(usual):,} are {when} (the median of {len(recent[mine])})"


def _bounds(change: float, swing: float) -> tuple[float, float]:
    """Return from and up to which part of the usual rows a delivery is none of few and none of many."""
    least = min((1 - change) * (1 + _PLAUSIBLE * swing), 1 - _CERTAIN * swing)
    return max(1 - change, least), 1 + change


def _swing(recent: Mapping[int, Sequence[int]]) -> float:
    """Return by which share of what was usual rows differ anyway."""
    found = [
        abs(count / usual - 1)
        for counts in recent.values()
        if len(counts) >= LEAST and (usual := median(counts))
        for count in counts
    ]
    return sorted(found)[int(_SWING * (len(found) - 1))] if found else 0.0


def _alike(day: date, earlier: Mapping[date, int], days: Days) -> Iterator[date]:
    """Yield the earlier deliveries that share a place in the month with a day, the latest first."""
    mine = set(_places(day, days))
    for other in sorted(earlier, reverse=True):
        if not mine.isdisjoint(_places(other, days)):
            yield other


def _places(day: date, days: Days) -> Iterator[tuple[str, int]]:
    """Yield where the days are in their month that a delivery is the first since: from its start and from its end."""
    each = max(days.before(day) or day - _DAY, day - 31 * _DAY) + _DAY
    while each <= day:
        first = each.replace(day=1)
        last = (first + 31 * _DAY).replace(day=1) - _DAY
        yield "start", each.day
        yield "end", (last - each).days
        if days.is_business(each):
            yield "business start", sum(days.is_business(first + number * _DAY) for number in range(each.day))
            yield "business end", sum(days.is_business(last - number * _DAY) for number in range((last - each).days))
        each += _DAY
