# ruff: noqa: F401 - fixtures are asked for by name
"""What is seen of a stage while it runs, and of a worker that was lost with one."""

import json
import time
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis
from redis.exceptions import ConnectionError

from jobs.process.complete import Outcome, complete
from jobs.process.maintenance import rescue
from jobs.queue import dequeue
from jobs.run.cancel import cancel_run
from jobs.run.retry import retry_run
from jobs.store import keys, live, runs
from jobs.store.run_json import seconds_of
from jobs.store.scripts import SHIFT, clock
from jobs.views import console, details
from tests.helpers.queued_project import GOOD, QueuedProject


def begun(house: QueuedProject, worker: str = "w1") -> tuple[Any, live.Running]:
    """Begin the next stage as a worker does."""
    found = dequeue(house.connection, worker=worker)
    assert found is not None
    job, queue = found
    assert job.execution is not None
    run, number, stage, attempt = job.id.split("-")
    lease = (queue.name, job.execution.composite_key)
    _, running = live.begin(house.connection, run, attempt, int(number), stage, worker=worker, lease=lease)
    return found, running


def registered(connection: Redis, name: str = "w1") -> None:
    connection.hset(f"rq:worker:{name}", mapping={"hostname": "box", "pid": "123"})


def expire(connection: Redis, ago: float = 1.0) -> None:
    """Have all leases end some seconds ago."""
    for entry in cast(list[bytes], connection.zrange("rq:wip:etl-acme", 0, -1)):
        connection.zadd("rq:wip:etl-acme", {entry: clock(connection) - ago + SHIFT})


@pytest.fixture
def run(house: QueuedProject) -> str:
    house.files("acme", GOOD)
    return house.submit()


def test_a_stage_is_listed_while_it_runs_with_its_rows_so_far(
    house: QueuedProject, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "EVERY", 0.0)
    (job, queue), running = begun(house)
    running.count({"read": 7, "out": 6, "rejected": 1})
    [stage] = details.stages(house.connection, run)
    assert (stage["stage"], stage["state"], stage["worker"], stage["attempt"]) == ("extract", "running", "w1", 1)
    assert (stage["counts"]["read"], stage["seconds"] >= 0, "by" in stage) == (7, True, False)
    assert house.record(run)["rows"]["read"] == 7
    running.end("done", {"read": 9, "out": 8, "rejected": 1}, None, 0)
    complete(house.connection, job, queue, Outcome("done"))
    [stage] = details.stages(house.connection, run)
    assert (stage["state"], stage["worker"], stage["counts"]["read"]) == ("done", "w1", 9)
    assert stage["began"] <= stage["ended"]
    assert house.record(run)["rows"]["read"] == 9  # not 16


def test_rows_are_written_about_once_a_second_whatever_the_chunks_are(house: QueuedProject, run: str) -> None:
    _, running = begun(house)
    for read in range(1, 1000):
        running.count({"read": read})
    assert runs.stage_records(house.connection, run)[1, "extract"].counts == {}
    running.since -= 1.5
    for read in range(1, 1000):
        running.count({"read": read})
    assert runs.stage_records(house.connection, run)[1, "extract"].counts == {"read": 1}


def test_a_redis_that_is_away_fails_no_stage_and_is_not_asked_again_for_a_while(
    house: QueuedProject, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "EVERY", 0.0)
    _, running = begun(house)
    asked = []

    def away(*_: Any, **__: Any) -> None:
        asked.append(1)
        raise ConnectionError("away")

    monkeypatch.setattr(runs, "record_stage", away)
    for _ in range(100):
        running.count({"read": 1})
    assert len(asked) == 1


def test_a_redis_that_does_not_answer_holds_a_stage_up_for_half_a_second(real_redis: Redis) -> None:
    """The connection that counts are sent by waits no longer, however patient the stage's own is."""
    quick = live.impatient(real_redis)
    assert quick.ping()
    kwargs = quick.connection_pool.connection_kwargs
    assert (kwargs["socket_timeout"], kwargs["socket_connect_timeout"]) == (live.PATIENCE, live.PATIENCE)
    assert kwargs["retry"].get_retries() == 0


def test_what_has_lost_its_lease_says_nothing_any_more(house: QueuedProject, run: str) -> None:
    """Its worker was asleep: another does the stage by now, or has done it."""
    _, asleep = begun(house, "w1")
    registered(house.connection)
    expire(house.connection)
    rescue(house.connection, ["etl-acme"])
    (job, queue), second = begun(house, "w2")
    asleep.since -= 10
    asleep.count({"read": 1_000_000})
    asleep.end("failed", {}, "a late failure", 1)
    record = runs.stage_records(house.connection, run)[1, "extract"]
    assert (record.state, record.worker, record.attempt, record.counts) == ("running", "w2", 2, {})
    second.end("done", {"read": 2}, None, 0)
    complete(house.connection, job, queue, Outcome("done"))
    asleep.end("failed", {}, "a late failure", 1)
    live.begin(house.connection, run, "1", 1, "extract", worker="w1", lease=asleep.lease)
    assert runs.stage_records(house.connection, run)[1, "extract"].state == "done"


@pytest.mark.parametrize(
    ("outcome", "state", "error"),
    [
        (Outcome("failed", error="timed out after 60 s", curable=False), "failed", "timed out after 60 s"),
        (Outcome("failed", error="timed out after 60 s"), "waiting", "timed out after 60 s"),
        (Outcome("stopped", error="stopped by a command"), "failed", "stopped by a command"),
        (Outcome("lost"), "waiting", "lost its worker"),
        (Outcome("returned"), "waiting", None),
    ],
)
def test_a_stage_that_could_not_say_how_it_ended_is_not_shown_as_running(
    house: QueuedProject, run: str, outcome: Outcome, state: str, error: str | None
) -> None:
    found, _ = begun(house)
    complete(house.connection, found[0], found[1], outcome)
    record = runs.stage_records(house.connection, run)[1, "extract"]
    assert (record.state, record.error) == (state, error)


def test_tries_and_lost_workers_count_as_attempts_and_what_was_snoozed_does_not(house: QueuedProject, run: str) -> None:
    def attempt() -> int:
        return runs.stage_records(house.connection, run)[1, "extract"].attempt

    found, running = begun(house)
    running.end("waiting", {}, None, 0)  # its time had not come
    complete(house.connection, found[0], found[1], Outcome("snoozed", delay=0.0))
    rescue(house.connection, ["etl-acme"])
    found, _ = begun(house)
    assert attempt() == 1
    complete(house.connection, found[0], found[1], Outcome("lost"))
    found, running = begun(house)
    assert attempt() == 2
    running.end("waiting", {}, "the disk is full", 1)
    complete(house.connection, found[0], found[1], Outcome("failed", error="the disk is full"))
    begun(house)
    assert attempt() == 3


@pytest.mark.parametrize("what", ["worker", "process"])
def test_a_lost_worker_leaves_a_line_that_says_when_its_stage_began_again(
    house: QueuedProject, run: str, what: str
) -> None:
    registered(house.connection)
    found, _ = begun(house)
    before = clock(house.connection)
    if what == "worker":
        expire(house.connection, ago=3.0)
        rescue(house.connection, ["etl-acme"])
    else:
        complete(house.connection, found[0], found[1], Outcome("lost"))
    [loss] = live.losses(house.connection, run)
    assert (loss["worker"], loss["host"], loss["pid"], loss["what"]) == ("w1", "box", 123, what)
    assert (loss["partition"], loss["stage"], loss["resumed"], loss["seconds"]) == (1, "extract", None, None)
    assert console.lost(loss, has_ended=False).endswith("lost in extract of partition 1; not begun again yet")
    begun(house, "w2")
    [loss] = live.losses(house.connection, run)
    heard = before - 13 if what == "worker" else before  # the lease of ten seconds has ended three seconds ago
    assert seconds_of(loss["at"]) == pytest.approx(heard, abs=1)
    assert loss["seconds"] == pytest.approx(seconds_of(loss["resumed"]) - seconds_of(loss["at"]), abs=0.1)
    whose = "worker w1@box (pid 123)" if what == "worker" else "the process of worker w1@box (pid 123)"
    text = console.lost(loss, has_ended=False)
    assert f"{whose} was lost in extract of partition 1; begun again after {console.took(loss['seconds'])}" in text


def test_losses_are_kept_as_long_as_the_runs_stages(house: QueuedProject, run: str) -> None:
    found, _ = begun(house)
    complete(house.connection, found[0], found[1], Outcome("lost"))
    cancel_run(house.connection, run)
    for key in (keys.lost_key(run), keys.stages_key(run)):
        assert 0 < int(house.connection.ttl(key)) <= runs.STAGES_KEPT
    retry_run(house.loaded(), house.connection, run)
    assert house.connection.ttl(keys.lost_key(run)) == -1
    house.connection.delete(keys.lost_key(run), keys.run_key(run))
    found, _ = begun(house)
    complete(house.connection, found[0], found[1], Outcome("lost"))
    assert not house.connection.exists(keys.lost_key(run))


def test_show_lists_who_was_lost(house: QueuedProject, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    registered(house.connection)
    found, _ = begun(house)
    complete(house.connection, found[0], found[1], Outcome("lost"))
    house.work()
    shown = house.record(run)
    assert shown["state"] == "succeeded"
    shown |= {"stages": details.stages(house.connection, run), "lost": live.losses(house.connection, run)}
    console.show(shown)
    assert "worker w1@box (pid 123) was lost in extract of partition 1; begun again after 0." in capsys.readouterr().out
