"""Schedules whose moments or entries in Redis were set to what can't be: they cost no more, and go on."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time
from redis import Redis
from rq_scheduler import Scheduler

from etl.calendar import cron
from etl.config.pipeline import Config
from jobs import stages
from jobs.job import EtlJob
from jobs.process import cleanup
from jobs.process.inprocess import InProcessWorker
from jobs.queue import FairQueue
from jobs.run import schedules
from jobs.store import keys, malformed, runs
from tests.helpers.project import Folder, etl_toml

assert stages  # imported before the clock is frozen: pandas does not survive a frozen one

CLAIMS = {"extract": {"path": "{client}.csv", "missing": "ok"}, "columns": {"id": {"required": True}}}


@pytest.fixture
def project_of(tmp_path: Path) -> Callable[[str, str], Config]:
    """Return a configuration of one schedule."""

    def write(catchup: str, line: str = "30 2 * * *") -> Config:
        schedule = {"claims": {"cron": line, "catchup": catchup}}
        acme = {"timezone": "Europe/Berlin", "schedule": schedule}
        return Folder(tmp_path, etl_toml({"claims": CLAIMS}, {"acme": acme})).loaded()

    return write


@pytest.mark.parametrize("junk", ["1", "0", "-5", "nan", "1e9", "9e99", "junk", ""])
@pytest.mark.parametrize("catchup", ["none", "last", "all"])
def test_a_moment_that_cant_be_is_none_and_is_set_aside(
    connection: Redis, project_of: Any, junk: str, catchup: str
) -> None:
    config = project_of(catchup)
    now = datetime(2026, 6, 4, 0, 30, 5, tzinfo=UTC)
    connection.hset(keys.DUE, "acme/claims", junk)
    assert schedules.start_due(config, connection, "acme", "claims", now) == []
    assert schedules.seen(connection, "acme", "claims") == now.timestamp()
    connection.hset(keys.DUE, "acme/claims", junk)
    assert [each.text() for each in malformed.set_aside(connection)] == ["etl:due acme/claims (malformed)"]


@pytest.mark.parametrize("ago", [timedelta(days=1), timedelta(days=89), timedelta(days=2000)])
@pytest.mark.parametrize("catchup", ["none", "last", "all"])
def test_one_look_at_a_schedule_that_was_set_back_costs_no_more_than_another(
    connection: Redis, project_of: Any, monkeypatch: pytest.MonkeyPatch, catchup: str, ago: timedelta
) -> None:
    """Of a moment every minute it looks at those of a day and some hours, as after any clock change."""
    config = project_of(catchup, "* * * * *")
    now = datetime(2026, 6, 4, 12, 0, 5, tzinfo=UTC)
    schedules.see(connection, "acme", "claims", (now - ago).timestamp())
    monkeypatch.setattr(schedules, "submit_run", lambda *_, run, **__: run)
    looked, moments = [], cron.moments

    def counted(*arguments: Any) -> Iterator[datetime]:
        for moment in moments(*arguments):
            looked.append(moment)
            yield moment

    monkeypatch.setattr(cron, "moments", counted)
    schedules.start_due(config, connection, "acme", "claims", now)
    assert len(looked) <= 27 * 60


def test_all_that_was_missed_is_made_up_for_a_hundred_at_a_time_and_no_further_back_than_runs_are_known(
    connection: Redis, project_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project_of("all", "30 2,14 * * *")
    now = datetime(2026, 6, 4, 12, tzinfo=UTC)
    schedules.sync(config, connection)
    schedules.see(connection, "acme", "claims", (now - timedelta(days=1000)).timestamp())
    monkeypatch.setattr(schedules, "submit_run", lambda *_, run, **__: run)
    counts, comes = [], []
    for _ in range(4):
        counts.append(len(schedules.start_due(config, connection, "acme", "claims", now)))
        comes.append(connection.zscore(keys.ENTRIES, keys.entry_id("acme", "claims")))
    assert counts == [100, 80, 0, 0]
    assert comes == [now.timestamp()] + [datetime(2026, 6, 4, 12, 30, tzinfo=UTC).timestamp()] * 3


@pytest.mark.parametrize("score", [float("-inf"), -1.0, 4e9, float("inf")])
def test_an_entry_that_would_never_come_is_woken_by_the_cleanup(
    fake_redis: Redis, project_of: Any, score: float
) -> None:
    config, id = project_of("last"), keys.entry_id("acme", "claims")
    with freeze_time("2026-06-01 12:00:00") as clock:
        schedules.sync(config, fake_redis)
        synced = fake_redis.zscore(keys.ENTRIES, id)
        cleanup.clean(fake_redis, config)
        assert fake_redis.zscore(keys.ENTRIES, id) == synced
        fake_redis.zadd(keys.ENTRIES, {id: score})
        clock.move_to("2026-06-02 00:40:00")
        cleanup.clean(fake_redis, config)
        list(Scheduler(connection=fake_redis, job_class=EtlJob, queue_class=FairQueue).enqueue_jobs())
        InProcessWorker(fake_redis, inline=True).work()
        assert [run["state"] for run in runs.recent(fake_redis)] == ["succeeded"]
