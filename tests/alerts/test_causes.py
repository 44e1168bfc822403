"""What is wrong now is worked out of what Redis and the targets know: every kind of cause, and that it ends."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from jobs.alerts import causes, memory, state
from jobs.alerts.cause import Cause, Conditions
from jobs.run.backfill import window
from jobs.run.cancel import cancel_run
from jobs.run.retry import retry_run
from jobs.store import keys, limits, runs
from tests.helpers.project import etl_toml
from tests.helpers.queued_project import BAD, CONFIG, GOOD, QueuedProject

CLEAN = "claim_id,amount\nA1,1\n"


class Watched(QueuedProject):
    """A project whose causes are asked for."""

    later = timedelta()

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) + self.later

    def look(self, **later: float) -> Conditions:
        """Look every 45 seconds until so much later, and return what is wrong then."""
        config, left = self.loaded(), timedelta(**later)
        while left > timedelta():
            step = min(left, timedelta(seconds=45))
            self.later, left = self.later + step, left - step
            state.look(config, self.connection, self.now)
        state.look(config, self.connection, self.now)
        return causes.current(config, self.connection, self.now)

    def causes(self, **later: float) -> list[Cause]:
        return sorted(self.look(**later).causes.values(), key=lambda cause: cause.key)


@pytest.fixture
def house(tmp_path: Path, connection: Redis) -> Watched:
    return Watched(tmp_path, connection)


def test_a_run_that_failed_is_a_cause_by_the_class_of_its_error_until_one_succeeds(house: Watched) -> None:
    house.files("acme", BAD)
    run = house.run()
    [cause] = house.causes()
    assert (cause.kind, cause.who, cause.error, cause.stage, cause.run) == (
        "failed", "acme/claims", "MissingColumn", "transform", run,
    )  # fmt: skip
    assert "no column claim_id" in cause.detail
    house.write("inbox/acme/claims-1.csv", CLEAN)
    retry_run(house.loaded(), house.connection, run)
    assert [each.key for each in house.causes()] == [cause.key], "until the retry has ended"
    house.work()
    found = house.look()
    assert found.causes == {}
    assert cause.subject in found.fine


def test_the_class_of_an_error_is_in_a_runs_failures_and_its_stages_records(house: Watched) -> None:
    house.files("acme", BAD)
    run = house.run()
    [failure] = house.record(run)["failures"]
    assert failure["kind"] == "MissingColumn"
    assert runs.stage_records(house.connection, run)[1, "transform"].kind == "MissingColumn"


def test_a_source_without_files_fails_at_its_plan(house: Watched) -> None:
    house.submit()
    [cause] = house.causes()
    assert (cause.error, cause.stage, cause.place) == ("SourceMissing", "plan", "")


def test_clients_whose_target_can_not_be_reached_have_it_in_common(house: Watched) -> None:
    house.config(CONFIG.replace("sqlite:///warehouse.db", "postgresql://127.0.0.1:1/away"))
    for client in ("acme", "globex"):
        house.files(client, CLEAN)
        house.run(client)
    found = house.causes()
    assert {cause.place for cause in found} == {"warehouse"}
    assert len({cause.group for cause in found}) == 1


def test_a_host_that_can_not_be_reached_is_named_without_its_password(house: Watched, monkeypatch: Any) -> None:
    monkeypatch.setenv("DB_PASSWORD", "geheim")
    extract = {"type": "sql", "url": "postgresql://etl:${DB_PASSWORD}@127.0.0.1:1/{client}", "table": "claims"}
    house.config(etl_toml({"claims": {"extract": extract, "retries": 0}}, defaults={"pipelines": ["claims"]}))
    house.run()
    [cause] = house.causes()
    assert (cause.error, cause.place) == ("SourceUnreachable", "127.0.0.1")
    assert "geheim" not in repr(cause)


def test_a_canceled_run_is_no_cause_and_takes_none_away(house: Watched) -> None:
    house.files("acme", CLEAN)
    cancel_run(house.connection, house.submit())
    found = house.look()
    assert found.causes == {}
    assert found.is_unsure(Cause("failed", "acme", "claims"))


def test_rejected_rows_are_a_cause_until_a_run_has_none(house: Watched) -> None:
    house.files("acme", GOOD)
    house.run()
    [cause] = house.causes()
    assert (cause.kind, cause.count) == ("rejects", 1)
    house.write("inbox/acme/claims-1.csv", CLEAN)
    house.run()
    assert house.causes() == []


def test_what_was_odd_of_the_last_run_is_a_cause_of_that_run(house: Watched) -> None:
    house.files("acme", CLEAN)
    run = house.run()
    house.connection.hset(keys.run_key(run), "odd", json.dumps(["it has half the rows of others"]))
    [cause] = house.causes()
    assert (cause.kind, cause.of, cause.detail) == ("odd", run, "it has half the rows of others")


def test_each_window_that_failed_is_a_cause_until_it_is_loaded(house: Watched) -> None:
    house.config(CONFIG.replace("claims-*.csv", "claims-{start}*.csv"))
    days = [f"2026-01-0{day}" for day in (1, 2)]
    for day in days:
        house.write(f"inbox/acme/claims-{day}.csv", BAD)
        start, end = window(day, f"{day}T23:00", "UTC")
        house.run(start=start, end=end)
    found = house.causes()
    assert [(cause.kind, cause.of[:10]) for cause in found] == [("failed", day) for day in days]
    assert len({cause.group for cause in found}) == 1
    house.write(f"inbox/acme/claims-{days[0]}.csv", CLEAN)
    start, end = window(days[0], f"{days[0]}T23:00", "UTC")
    house.run(start=start, end=end)
    assert [cause.of[:10] for cause in house.causes()] == days[1:]


def test_a_schedule_without_a_success_is_late_unless_its_failure_says_so_or_it_runs(house: Watched) -> None:
    moment = datetime.now(UTC) - timedelta(hours=2)
    cron = f'schedule = {{ claims = "{moment.minute} {moment.hour} * * *" }}'
    house.config(CONFIG.replace("[clients.acme]", f"[clients.acme]\n{cron}"))
    house.files("acme", CLEAN)
    house.connection.hset(keys.LAST, "acme/claims", "old succeeded")
    house.connection.hset(keys.SUCCEEDED, "acme/claims", repr(time.time() - 86400 * 1.5))
    [cause] = [cause for cause in house.causes() if cause.kind == "late"]
    assert abs(cause.since - moment.replace(second=0, microsecond=0).timestamp()) < 1
    house.write("inbox/acme/claims-1.csv", BAD)
    house.run()
    assert {cause.kind for cause in house.causes() if cause.client} == {"failed"}
    house.write("inbox/acme/claims-1.csv", CLEAN)
    house.run()
    assert [cause for cause in house.causes() if cause.client] == []


def test_a_new_client_whose_schedule_was_never_synced_is_not_late(house: Watched) -> None:
    house.config(CONFIG.replace("[clients.acme]", '[clients.acme]\nschedule = { claims = "0 2 * * *" }'))
    assert [cause for cause in house.causes() if cause.client] == []


def test_no_worker_is_a_cause_a_minute_after_the_last_one_was_alive(house: Watched) -> None:
    house.files("acme", CLEAN)
    house.submit()
    assert house.causes() == []
    assert house.causes(seconds=45) == []
    [cause] = house.causes(seconds=30)
    assert (cause.kind, cause.count) == ("no worker", 1)
    house.work()
    assert house.causes(seconds=20) == []


def test_no_scheduler_is_a_cause_where_schedules_are_configured(house: Watched) -> None:
    assert house.causes() == []
    house.config(CONFIG.replace("[clients.acme]", '[clients.acme]\nschedule = { claims = "0 2 * * *" }'))
    assert house.causes(seconds=20) == []
    assert [(cause.kind, cause.of) for cause in house.causes(minutes=3)] == [
        ("no scheduler", "alive"), ("no scheduler", "synced"),
    ]  # fmt: skip
    house.connection.hset("rq:scheduler_instance:one", "birth", "1")
    assert [(cause.kind, cause.of) for cause in house.causes(seconds=20)] == [("no scheduler", "synced")]


def alive(house: Watched) -> None:
    """Have a worker that is alive at the moment of the next look."""
    house.connection.sadd("rq:workers", "rq:worker:one")
    beat = (house.now + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    house.connection.hset("rq:worker:one", "last_heartbeat", beat)


def test_a_run_to_which_nothing_happens_is_stuck_and_one_that_waits_for_its_turn_is_not(house: Watched) -> None:
    house.files("acme", CLEAN)
    house.files("globex", CLEAN)
    stuck, moving = house.submit(), house.submit("globex")
    alive(house)
    assert house.causes() == []
    for number in range(3):  # it waits for a worker while another run moves
        runs.record_stage(house.connection, moving, 1, "extract", "running", {"read": number})
        assert house.causes(minutes=10) == []
    [first, second] = house.causes(minutes=16)
    assert {first.kind, second.kind} == {"stuck"}
    assert {first.run, second.run} == {stuck, moving}
    limits.pause(house.connection, ["globex"])
    assert [cause.client for cause in house.causes(seconds=20)] == ["acme"]
    house.work()
    assert house.causes(seconds=20) == []


def test_a_stage_that_counts_rows_is_not_stuck_and_one_that_stands_still_is_whatever_others_do(house: Watched) -> None:
    house.files("acme", CLEAN)
    house.files("globex", CLEAN)
    run, other = house.submit(), house.submit("globex")
    alive(house)
    house.connection.zadd("rq:wip:etl-acme", {f"{run}-1-extract-1:x": time.time() + 1e6})
    for number in range(3):
        runs.record_stage(house.connection, run, 1, "extract", "running", {"read": number})
        assert house.causes(minutes=14) == []
    for number in range(2):
        runs.record_stage(house.connection, other, 1, "extract", "running", {"read": number})
        found = house.causes(minutes=10)
    assert [cause.run for cause in found] == [run]


def test_after_a_flush_the_targets_say_how_it_was(house: Watched) -> None:
    house.files("acme", BAD)
    house.files("globex", CLEAN)
    failed = house.run("acme")
    house.run("globex")
    before = house.look()
    house.connection.flushall()
    after = house.look()
    [cause] = after.causes.values()
    assert (cause.kind, cause.who, cause.run) == ("failed", "acme/claims", failed)
    assert ("failed", "globex", "claims", "") in after.fine
    assert len(before.causes) == 1
    assert float(house.connection.hget(keys.SUCCEEDED, "globex/claims") or 0) > 0
    house.files("acme", BAD)
    house.run("acme")  # now its class is known again: it is the same cause
    house.look()
    [entry] = state.entries(house.connection).values()
    assert entry.cause.error == "MissingColumn"


def test_while_a_target_is_silent_after_a_flush_nothing_is_said_to_be_over(house: Watched) -> None:
    house.config(CONFIG.replace("sqlite:///warehouse.db", "postgresql://127.0.0.1:1/away"))
    found = house.look()
    assert found.causes == {}
    assert found.is_unsure(Cause("failed", "acme", "claims"))
    assert found.is_unsure(Cause("late", "acme", "claims"))


def test_a_window_whose_run_is_forgotten_is_forgotten_too(house: Watched) -> None:
    house.connection.hset(keys.WINDOWS, "acme/claims/2026-01-01T00:00:00+00:00", "gone")
    assert house.causes() == []
    assert house.connection.hlen(keys.WINDOWS) == 0


def test_after_a_pause_of_the_cron_process_everybody_has_a_minute_again(house: Watched) -> None:
    house.files("acme", CLEAN)
    house.submit()
    house.causes()
    house.later += timedelta(hours=3)
    assert house.causes() == []
    assert house.causes(seconds=45) == []
    assert [cause.kind for cause in house.causes(seconds=30)] == ["no worker"]


def test_what_a_look_keeps_of_runs_goes_with_them(house: Watched) -> None:
    house.files("acme", CLEAN)
    run = house.submit()
    house.look()
    assert run in memory.recalled(house.connection).runs
    house.work()
    house.look(seconds=20)
    assert memory.recalled(house.connection).runs == {}
