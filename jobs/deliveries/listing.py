"""The deliveries as people and alerts see them: due, came, late, missing, odd."""

from datetime import UTC, datetime
from typing import Any

from redis import Redis

from etl.calendar import cron
from etl.calendar.dues import Due, Timetable
from etl.config.pipeline import Config, Pair
from jobs.deliveries import claims, record
from jobs.deliveries.claims import Looked
from jobs.deliveries.expected import delivering
from jobs.deliveries.record import Delivery, Record
from jobs.deliveries.sorting import current
from jobs.store import runs

_read: dict[tuple[str, Pair], tuple[str | None, Record | None]] = {}
LATELY = 7 * 86400.0  # seconds for which deliveries are listed where nobody says


def listing(
    config: Config,
    connection: Redis | None = None,
    *,
    client: str | None = None,
    since: datetime | None = None,
    now: datetime | None = None,
) -> list[dict[str, Any]]:
    """Return a line for each delivery whose grace has ended since a moment, and for what is awaited or came early.

    What came is known from the last look; what is missing follows from the clock too, whoever looks.

    Args:
        connection: To say how runs are now; None leaves it at what was known at the last look.
        since: None means seven days before `now`.
        now: None means now.

    Returns:
        The lines, by client and pipeline, the earliest first. Of a line, `watched` says whether its files were looked
        at before its grace ended: what is missing otherwise was so before rq-etl looked for the first time.

    Raises:
        StagingFailed: Staging can't be read.
    """
    now = now or datetime.now(UTC)
    first = since.timestamp() if since is not None else now.timestamp() - LATELY
    lines: list[dict[str, Any]] = []
    looks = {} if connection is None else claims.looked(connection)
    for pair, expected in delivering(config, client).items():
        timetable = expected.timetable(config.clients[pair[0]].timezone)
        known = _known(config.staging, pair, looks.get(pair))
        found = expected_of(known, timetable, first, now)
        lines += [_line(pair, delivery, known, timetable.zone, expected.files, now) for delivery in found]
    return lines if connection is None else _with_states(lines, connection)


def _known(staging: str, pair: Pair, look: Looked | None) -> Record | None:
    """Return the record of a pipeline, read again only where a look has changed it: alerts ask every few seconds."""
    version, found = _read.get((staging, pair), (None, None))
    if look is None or look.version is None or look.version != version:
        found = record.read(staging, *pair)
        _read[staging, pair] = record.version(found) if found else None, found
    return found


def expected_of(known: Record | None, timetable: Timetable, first: float, now: datetime) -> list[Delivery]:
    """Return the deliveries of a pipeline whose grace ends after a moment, known or not yet, the one awaited last."""
    found = {} if known is None else {day: each for day, each in known.deliveries.items() if each.until >= first}
    awaited = current(timetable, now.timestamp())
    if known is None:  # nobody has looked yet: of what was due before, the last alone is of interest
        before = current(timetable, awaited.since.timestamp()) if awaited else None
        fresh = [each for each in (before, awaited) if each is not None and each.until.timestamp() >= first]
    else:
        fresh = timetable.between(datetime.fromtimestamp(max(known.looked, first), UTC), now)
        fresh += [awaited] if awaited else []
    for due in fresh:
        found.setdefault(due.day.isoformat(), _expected(due, is_watched=known is not None))
    return [found[day] for day in sorted(found)]


def _expected(due: Due, *, is_watched: bool) -> Delivery:
    return Delivery(due.day.isoformat(), due.at.timestamp(), due.until.timestamp(), watched=is_watched)


def _line(
    pair: Pair, delivery: Delivery, known: Record | None, zone: str, files: int | None, now: datetime
) -> dict[str, Any]:
    moment = now.timestamp()
    came, mine = delivery.came, known.of(delivery.day) if known else []
    # Of files that came while nobody looked, nobody knows when.
    is_late = came is not None and came > delivery.until and (delivery.missing is not None or not mine)
    return {
        "client": pair[0],
        "pipeline": pair[1],
        "day": delivery.day,
        "due": _iso(delivery.due, zone),
        "until": _iso(delivery.until, zone),
        "came": _iso(came, zone),
        "late": round(came - delivery.due, 1) if came is not None and is_late else None,
        "missing": came is None and moment > delivery.until,
        "watched": delivery.watched,
        "files": list(dict.fromkeys(item.name for item in mine)),
        "expected": files,
        "odd": list(delivery.odd),
        "run": delivery.runs[-1] if delivery.runs else None,
        "state": delivery.state,
        "rows": delivery.rows,
    }


def _with_states(lines: list[dict[str, Any]], connection: Redis) -> list[dict[str, Any]]:
    """Return lines with how their runs are now, as Redis knows."""
    found = {run["run"]: run for run in runs.snapshot(connection, [line["run"] for line in lines if line["run"]])}
    for line in lines:
        if run := found.get(line["run"]):
            line |= {"state": run["state"], "odd": run.get("odd") or line["odd"]}
    return lines


def _iso(seconds: float | None, zone: str) -> str | None:
    moment = None if seconds is None else cron.local(datetime.fromtimestamp(seconds, UTC), zone)
    return moment.isoformat(timespec="seconds") if moment else None
