"""Schedules: each due moment starts its run once, whatever happens to those who look after them."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time
from redis import Redis
from rq_scheduler import Scheduler

from etl.calendar import cron
from etl.config.pipeline import Config, resolve
from jobs import stages
from jobs.job import EtlJob
from jobs.process.inprocess import InProcessWorker
from jobs.queue import FairQueue
from jobs.run import schedules
from jobs.run.retry import retry_run
from jobs.run.submit import submit_run
from jobs.store import keys, runs
from tests.helpers.examples import examples
from tests.helpers.project import Folder, etl_toml

assert stages  # imported before the clock is frozen: pandas does not survive a frozen one

HEAD = etl_toml(
    {"claims": {"extract": {"path": "{client}.csv", "missing": "ok"}, "columns": {"id": {"required": True}}}}, []
)
ACME = """
[clients.acme]
timezone = "Europe/Berlin"
schedule = { claims = { cron = "30 2 * * *", catchup = "CATCHUP" } }
"""


@pytest.fixture
def project_of(tmp_path: Path) -> Callable[[str], Config]:
    folder = Folder(tmp_path)

    def write(clients: str) -> Config:
        folder.config(HEAD + clients)
        return folder.loaded()

    return write


def scheduler(connection: Redis) -> Scheduler:
    return Scheduler(connection=connection, interval=5, job_class=EtlJob, queue_class=FairQueue)


def work(connection: Redis) -> None:
    InProcessWorker(connection, inline=True).work()


def acme(catchup: str = "last") -> str:
    return ACME.replace("CATCHUP", catchup)


def test_sync_adds_changes_and_removes_until_redis_equals_the_config(connection: Redis, project_of: Any) -> None:
    def actions(config: Config) -> list[str]:
        return [line["action"] for line in schedules.sync(config, connection)]

    assert actions(project_of(acme())) == ["added"]
    assert actions(project_of(acme())) == ["kept"]
    assert actions(project_of(acme().replace("30 2", "45 2"))) == ["changed"]
    assert actions(project_of("[clients.acme]\n")) == ["removed"]
    assert actions(project_of("[clients.acme]\n")) == []
    assert connection.zcard(keys.ENTRIES) == 0


def test_sync_rewrites_an_entry_of_an_older_version_which_fails_with_a_sentence_until_then(
    fake_redis: Redis, project_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project_of(acme())
    with freeze_time("2026-06-01 12:00:00") as clock:
        with monkeypatch.context() as older:
            older.setattr(schedules, "FUNCTION", "jobs.schedules.start")
            schedules.sync(config, fake_redis)
        assert schedules.listing(config, fake_redis)[0]["synced"] is False
        clock.move_to("2026-06-02 00:30:02")
        scheduler(fake_redis).enqueue_jobs()
        work(fake_redis)
        result = EtlJob(keys.entry_id("acme", "claims"), connection=fake_redis).latest_result()
        assert result is not None
        assert "jobs.schedules.start is a function of an older rq-etl" in str(result.exc_string)
        assert runs.recent(fake_redis) == []
        assert [line["action"] for line in schedules.sync(config, fake_redis)] == ["changed"]
        assert schedules.listing(config, fake_redis)[0]["synced"] is True
        # The moment that the older entry has missed is started now.
        assert len(schedules.start_due(config, fake_redis, "acme", "claims", datetime.now(UTC))) == 1


def test_the_list_shows_the_next_three_times_in_the_clients_zone(connection: Redis, project_of: Any) -> None:
    config = project_of(acme())
    with freeze_time("2026-03-27 12:00:00"):
        assert schedules.listing(config, connection)[0]["synced"] is False
        schedules.sync(config, connection)
        line = schedules.listing(config, connection)[0]
    assert line["synced"] is True
    assert line["next"] == ["2026-03-28T02:30:00+01:00", "2026-03-29T03:30:00+02:00", "2026-03-30T02:30:00+02:00"]


def test_a_due_moment_starts_its_run_through_rq_scheduler(fake_redis: Redis, project_of: Any) -> None:
    config = project_of(acme())
    with freeze_time("2026-06-01 12:00:00") as clock:
        schedules.sync(config, fake_redis)
        clock.move_to("2026-06-02 00:29:59")
        scheduler(fake_redis).enqueue_jobs()
        list(scheduler(fake_redis).enqueue_jobs())
        work(fake_redis)
        assert runs.recent(fake_redis) == []
        clock.move_to("2026-06-02 00:30:02")
        scheduler(fake_redis).enqueue_jobs()
        work(fake_redis)
        (run,) = runs.recent(fake_redis)
        assert (run["client"], run["state"]) == ("acme", "succeeded")
        due = datetime(2026, 6, 3, 0, 30, tzinfo=UTC).timestamp()
        assert fake_redis.zscore(keys.ENTRIES, keys.entry_id("acme", "claims")) == due


@pytest.mark.parametrize(("catchup", "expected"), [("none", []), ("last", [4]), ("all", [2, 3, 4])])
def test_what_was_missed_while_down_is_caught_up_as_the_schedule_says(
    connection: Redis, project_of: Any, catchup: str, expected: list[int]
) -> None:
    config = project_of(acme(catchup))
    schedules.see(connection, "acme", "claims", datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp())
    now = datetime(2026, 6, 4, 12, tzinfo=UTC)
    started = schedules.start_due(config, connection, "acme", "claims", now)
    moments = [datetime(2026, 6, day, 0, 30, tzinfo=UTC) for day in expected]
    assert started == [schedules.run_id("acme", "claims", moment) for moment in moments]
    assert schedules.start_due(config, connection, "acme", "claims", now) == []


def test_a_retry_looks_for_the_file_of_the_day_that_was_due(connection: Redis, tmp_path: Path) -> None:
    """And gives functions the lookup of that day, whenever it is retried."""
    (tmp_path / "steps.py").write_text(
        "def named(df, names):\n    return df.merge(names, on='id').set_index(df.index)\n"
    )
    text = (
        (HEAD + acme()).replace('"{client}.csv"', '"{client}-{date}.csv"').replace('missing = "ok"', 'missing = "fail"')
    )
    text = text.replace("[pipelines.claims.columns]", 'transform = ["steps:named"]\n[pipelines.claims.columns]')
    text += '[pipelines.claims.lookups]\nnames = { type = "csv", path = "names-{date}.csv", settle = 0 }\n'
    config = Folder(tmp_path, text).loaded()
    due = datetime(2026, 6, 2, 0, 30, tzinfo=UTC)
    schedules.see(connection, "acme", "claims", due.timestamp() - 60)
    [run] = schedules.start_due(config, connection, "acme", "claims", due)
    assert "no file matches acme-2026-06-02.csv" in runs.snapshot(connection, [run])[0]["error"]
    (tmp_path / "acme-2026-06-02.csv").write_text("id\n1\n")
    (tmp_path / "names-2026-06-02.csv").write_text("id,name\n1,one\n")
    retry_run(config, connection, run)
    work(connection)
    [told] = runs.snapshot(connection, [run])
    assert (told["state"], told["rows"]["loaded"]) == ("succeeded", 1), told


def test_a_start_that_is_repeated_or_dies_half_way_starts_nothing_twice(connection: Redis, project_of: Any) -> None:
    config = project_of(acme("all"))
    before = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
    schedules.see(connection, "acme", "claims", before)
    now = datetime(2026, 6, 3, 12, tzinfo=UTC)
    first = schedules.start_due(config, connection, "acme", "claims", now)
    schedules.see(connection, "acme", "claims", before)  # as after a death between the last submit and this note
    assert schedules.start_due(config, connection, "acme", "claims", now) == []
    work(connection)
    assert sorted(run["run"] for run in runs.recent(connection)) == sorted(first)


BROKEN = {
    "broken": {"created_at": "never", "data": b"\x80garbage", "origin": "x"},
    "worse": {"data": b"[1]", "meta": b"\xff"},
    "no_data": {"foo": "bar"},
    "no_timeout": {"data": b"[1]", "timeout": "soon"},
    "no_parents": {"data": b"[1]", "dependency_ids": "5"},
    "a_list": {"data": b"[1]", "meta": b"[1]"},
    "a_number": {"data": b"[1]", "meta": b"5"},
    "no_interval": {"data": b"[1]", "meta": b'{"interval": "soon"}'},
    "no_repeat": {"data": b"[1]", "meta": b'{"repeat": "often"}'},
    "no_cron": {"data": b"[1]", "meta": b'{"cron_string": "at dawn"}'},
    "imports": {"data": b"[1]", "meta": b'{"queue_class_name": "os.system"}'},
}


def test_an_entry_that_cant_be_read_stops_no_other(fake_redis: Redis, project_of: Any) -> None:
    config = project_of(acme())
    with freeze_time("2026-06-01 12:00:00") as clock:
        schedules.sync(config, fake_redis)
        for id, content in BROKEN.items():
            fake_redis.hset(f"rq:job:{id}", mapping=content)  # type: ignore[arg-type]
        fake_redis.zadd(keys.ENTRIES, {**dict.fromkeys(BROKEN, 0), "gone": 2})
        clock.move_to("2026-06-02 00:31:00")
        scheduler(fake_redis).enqueue_jobs()
        work(fake_redis)
        assert len(runs.recent(fake_redis)) == 1


def test_sync_does_away_with_entries_that_cant_be_read(connection: Redis, project_of: Any) -> None:
    config = project_of(acme())
    ours = [keys.entry_id("acme", "claims"), keys.entry_id("other", "claims")]
    for id, content in zip(ours, BROKEN.values(), strict=False):
        connection.hset(f"rq:job:{id}", mapping=content)  # type: ignore[arg-type]
        connection.zadd(keys.ENTRIES, {id: 0})
    connection.zadd(keys.ENTRIES, {b"\xff\xfe": 1})
    assert [line["synced"] for line in schedules.listing(config, connection)] == [False]
    done = [(line["client"], line["action"]) for line in schedules.sync(config, connection)]
    assert done == [("acme", "added"), ("other", "removed")]
    assert [line["synced"] for line in schedules.listing(config, connection)] == [True]
    assert connection.zrange(keys.ENTRIES, 0, -1) == [ours[0].encode()]


def test_a_lost_start_is_woken_again(fake_redis: Redis, project_of: Any) -> None:
    config = project_of(acme())
    with freeze_time("2026-06-01 12:00:00") as clock:
        schedules.sync(config, fake_redis)
        clock.move_to("2026-06-02 00:30:02")
        scheduler(fake_redis).enqueue_jobs()
        fake_redis.delete("rq:queue:etl-acme")
        clock.move_to("2026-06-02 00:31:05")
        scheduler(fake_redis).enqueue_jobs()
        work(fake_redis)
        assert len(runs.recent(fake_redis)) == 1


ZONES = (
    "America/Chicago", "America/New_York", "America/Los_Angeles", "America/Sao_Paulo", "Europe/Berlin", "Europe/London",
    "Asia/Kolkata", "Asia/Tokyo", "Asia/Kathmandu", "Australia/Sydney", "Pacific/Auckland", "UTC",
)  # fmt: skip


@pytest.mark.parametrize("most", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_a_week_of_clients_in_12_zones_over_a_clock_change_starts_every_moment_once(
    fake_redis: Redis, project_of: Any, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    luck, clients = random.Random(7), max(24, min(most, examples(200)))
    lines = [
        f'[clients.c{i:03}]\ntimezone = "{ZONES[i % len(ZONES)]}"\n'
        f'schedule.claims = {{ cron = "{luck.randrange(60)} {luck.choice((0, 1, 2, 3, 13))} * * *", catchup = "all" }}'
        for i in range(clients)
    ]
    config = project_of("\n".join(lines))
    submitted: Counter[str] = Counter()

    def submit(connection: Redis, pipeline: Any, *, run: str, **_: Any) -> str:
        submitted[run] += 1
        connection.hset(keys.run_key(run), "state", "queued")
        return run

    monkeypatch.setattr("jobs.run.schedules.submit_run", submit)
    start, end = datetime(2026, 3, 26, tzinfo=UTC), datetime(2026, 4, 2, tzinfo=UTC)  # Europe's change is on the 29th
    with freeze_time(start) as clock:
        schedules.sync(config, fake_redis)
        now = start
        while now < end:
            clock.move_to(now)
            crowd = [scheduler(fake_redis), scheduler(fake_redis)]
            luck.shuffle(crowd)
            for one in crowd:
                one.enqueue_jobs()
            if luck.random() < 0.8:  # else no worker is up at this time
                work(fake_redis)
            now += timedelta(minutes=luck.choice((7, 20, 45, 300)))
        clock.move_to(end)
        scheduler(fake_redis).enqueue_jobs()
        work(fake_redis)
    expected = {
        schedules.run_id(client.name, "claims", moment)
        for client in config.clients.values()
        for moment in cron.due(client.schedule["claims"].cron, client.timezone, start, end)
    }
    assert set(submitted) == expected
    assert set(submitted.values()) == {1}


NEEDS = """
[pipelines.admitted]
needs = ["visits"]
extract = { type = "csv", path = "{client}.csv", settle = 0, missing = "ok" }
load = { target = "warehouse", table = "admitted" }
columns = { id = { required = true } }
[pipelines.visits]
extract = { type = "csv", path = "{client}.csv", settle = 0, missing = "ok" }
load = { target = "warehouse", table = "visits" }
columns = { id = { required = true } }
[clients.acme]
schedule = { admitted = "0 2 * * *", visits = "0 2 * * *" }
"""


@pytest.mark.parametrize("first", ["admitted", "visits"])
def test_of_two_that_are_due_together_the_one_that_needs_the_other_waits_for_it(
    connection: Redis, project_of: Any, first: str
) -> None:
    """Whichever of them rq-scheduler wakes first, and although the night before was fine."""
    config = project_of(NEEDS)
    nights = [datetime(2026, 6, day, 2, tzinfo=UTC) for day in (2, 3)]
    for name in ("admitted", "visits"):
        schedules.see(connection, "acme", name, nights[0].timestamp() - 60)
    for night in nights:
        for name in sorted(("admitted", "visits"), key=lambda name: name != first):
            schedules.start_due(config, connection, "acme", name, night + timedelta(seconds=3))
        assert [runs.read(connection, run)["pipeline"] for run in runs.held(connection)] == ["admitted"]  # type: ignore[index]
        work(connection)
    assert Counter((run["pipeline"], run["state"]) for run in runs.recent(connection)) == {
        ("admitted", "succeeded"): 2,
        ("visits", "succeeded"): 2,
    }


def test_a_moment_that_two_workers_start_at_once_is_one_run(connection: Redis, project_of: Any) -> None:
    """The second finds the run of the first, also where that came between its look and its submission."""
    config = project_of(acme())
    moment = datetime(2026, 6, 2, 0, 30, tzinfo=UTC)
    run = schedules.run_id("acme", "claims", moment)
    resolved = resolve(config, "claims", "acme")
    assert [submit_run(connection, resolved, queue=True, run=run, due=moment) for _ in range(2)] == [run, run]
    assert submit_run(connection, resolved, run=run, due=moment) == run
    work(connection)
    assert [each["state"] for each in runs.recent(connection)] == ["succeeded"]


@pytest.mark.parametrize("catchup", ["none", "last", "all"])
@pytest.mark.parametrize("wrong", ["worker", "Redis"])
def test_a_clock_that_is_an_hour_ahead_starts_no_moment_early_leaves_none_out_and_starts_none_twice(
    connection: Redis, project_of: Any, monkeypatch: pytest.MonkeyPatch, wrong: str, catchup: str
) -> None:
    config = project_of(acme(catchup))
    due = datetime(2026, 6, 2, 0, 30, tzinfo=UTC)

    def start(minutes: float, ahead: float) -> list[str]:
        """Look for due moments so many minutes after one, with a clock that is so many hours ahead."""
        true, shown = (due + timedelta(minutes=minutes, hours=hours) for hours in (0, ahead))
        here, there = (shown if whose == wrong else true for whose in ("worker", "Redis"))
        monkeypatch.setattr("jobs.store.scripts.clock", lambda connection: there.timestamp())
        with freeze_time(here):
            return schedules.start_due(config, connection, "acme", "claims", schedules.clock(connection))

    schedules.see(connection, "acme", "claims", due.timestamp() - 7200)
    assert start(-30, ahead=1) == []
    assert start(0.1, ahead=-1) == []
    assert start(1, ahead=1) == [schedules.run_id("acme", "claims", due)]
    assert [start(minutes, ahead=hours) for minutes, hours in ((2, -1), (3, 0), (4, 1), (90, -1), (90, 1))] == [[]] * 5
