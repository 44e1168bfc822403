"""The operator's morning: what succeeded last, what is due, and the file that never came."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from etl.calendar import cron
from jobs.run import schedules
from jobs.session import Session
from jobs.store import keys, runs
from jobs.views import status
from tests.helpers.project import Folder, etl_toml

READS = {"extract": {"path": "{client}.csv", "settle": 120}, "load": {"table": "claims"}}
SCHEDULED = {"schedule": {"claims": "0 2 * * *"}}
TOML = etl_toml(
    {"claims": READS, "fresh": {**READS, "expect": {"fresh": "2h"}}},
    {"acme": SCHEDULED, "north": SCHEDULED},
    defaults={"timezone": "Europe/Berlin"},
)
NOW = datetime(2026, 6, 10, 9, tzinfo=UTC)


@pytest.fixture
def session(fake_redis: Redis, tmp_path: Path) -> Session:
    return Session(Folder(tmp_path, TOML).path, fake_redis)


def succeeded(connection: Redis, client: str, pipeline: str, at: datetime, start: str = "") -> None:
    run = runs.new_id()
    fields: dict[Any, Any] = {"client": client, "pipeline": pipeline, "state": "succeeded", "ended": at.timestamp()}
    fields["start"] = start
    connection.hset(keys.run_key(run), mapping={**fields, "started": at.timestamp(), "created": at.timestamp()})
    connection.zadd(keys.INDEX, {run: time.time()})


def lines(session: Session, now: datetime = NOW) -> dict[tuple[str, str], dict[str, Any]]:
    return {(line["client"], line["pipeline"]): line for line in status.status(session, now=now)}


def test_a_client_whose_scheduled_run_has_not_succeeded_is_late(session: Session) -> None:
    succeeded(session.connection, "acme", "claims", NOW - timedelta(hours=8))  # due was 00:00 UTC
    succeeded(session.connection, "north", "claims", NOW - timedelta(hours=32))
    found = lines(session)
    assert found["acme", "claims"]["late"] is None
    assert found["north", "claims"]["late"] == 9 * 3600
    assert found["north", "claims"]["due"] == "2026-06-11T02:00:00+02:00"
    assert status.status(session, now=NOW)[0]["client"] == "north"


def test_a_run_that_has_only_just_been_due_is_not_late_yet(session: Session) -> None:
    succeeded(session.connection, "acme", "claims", NOW - timedelta(hours=20))
    due = datetime(2026, 6, 11, 0, tzinfo=UTC)
    assert lines(session, due + timedelta(minutes=5))["acme", "claims"]["late"] is None
    assert lines(session, due + timedelta(minutes=11))["acme", "claims"]["late"] == 660


def test_a_success_older_than_the_pipeline_expects_is_late(session: Session) -> None:
    succeeded(session.connection, "acme", "fresh", NOW - timedelta(hours=5))
    assert lines(session)["acme", "fresh"]["late"] == 3 * 3600
    assert lines(session)["north", "fresh"]["late"] is None


def test_a_backfill_does_not_hide_that_the_night_has_failed(session: Session) -> None:
    """What was loaded is a window of the past; it is shown, and the schedule is late all the same."""
    succeeded(session.connection, "acme", "claims", NOW - timedelta(hours=32))
    succeeded(session.connection, "acme", "claims", NOW - timedelta(hours=1), start="2026-01-01T00:00:00+01:00")
    found = lines(session)["acme", "claims"]
    assert (found["age"], found["late"]) == (3600, 9 * 3600)


def test_a_new_schedule_is_not_late_before_its_first_moment(session: Session) -> None:
    """The moments that its line would have named before it was synced are not due."""
    synced = NOW - timedelta(hours=1)
    schedules.see(session.connection, "acme", "claims", synced.timestamp())
    fields: dict[Any, Any] = {"client": "acme", "pipeline": "claims", "state": "queued"}
    session.connection.hset(keys.run_key("byhand"), mapping=fields)
    session.connection.zadd(keys.INDEX, {"byhand": time.time()})
    assert lines(session)["acme", "claims"]["late"] is None
    assert lines(session)["north", "claims"]["late"] == 9 * 3600
    assert lines(session, NOW + timedelta(days=1))["acme", "claims"]["late"] == 9 * 3600


@pytest.mark.parametrize("day", ["2026-03-29", "2026-03-30", "2026-10-25", "2026-10-26", "2026-06-01"])
@pytest.mark.parametrize("line", ["30 2 * * *", "15 * * * *", "0 0 * * 1", "59 23 28 * *"])
def test_the_latest_moment_is_the_last_that_the_line_has_named(day: str, line: str) -> None:
    midnight = datetime.fromisoformat(f"{day}T00:00:00+00:00")
    for minutes in (0, 31, 61, 95, 155, 600, 1439):
        now = midnight + timedelta(minutes=minutes)
        moments = cron.due(line, "Europe/Berlin", now - timedelta(days=70), now)
        assert cron.latest(line, "Europe/Berlin", now) == moments[-1]
