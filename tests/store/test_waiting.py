"""Held runs: the end of a run says who has waited for it, and nobody looks at the others."""

import json
from itertools import pairwise
from typing import Any

import pytest
from redis import Redis

from etl.errors import EtlError
from jobs.process.maintenance import maintain
from jobs.run import held
from jobs.store import keys, runs

NO_OPTIONS = json.dumps(dict.fromkeys(("start", "end", "due", "max_rejects")) | {"full_refresh": False})


def active(connection: Redis, run: str, pipeline: str = "claims") -> str:
    """Write a run as submit does."""
    options: dict[str, Any] = {"params": {}, "start": None, "end": None, "warnings": (), "max_active": 1}
    with connection.pipeline() as pipe:
        runs.create(pipe, run, client="acme", pipeline=pipeline, partitions=1, **options)
        pipe.execute()
    return run


def hold(connection: Redis, run: str, *after: str, needs: tuple[str, ...] = (), start: str | None = None) -> str:
    """Write a run that waits for others."""
    about = runs.about("acme", "claims", {}, start, None)
    fields = {**about, "options": NO_OPTIONS, **held.wait_fields(after, needs)}
    held.hold(connection, run, fields, was=None)
    return run


def starts(connection: Redis) -> list[str]:
    return sorted(raw.decode().partition("-")[0] for raw in connection.lrange("rq:queue:etl-acme", 0, -1))  # type: ignore[union-attr]


def test_the_end_of_a_run_lists_those_that_wait_for_it_and_no_others(connection: Redis) -> None:
    active(connection, "one", "patients")
    active(connection, "two", "visits")
    hold(connection, "h1", "one")
    hold(connection, "h2", "one", "two")
    hold(connection, "h3", "two")
    assert connection.smembers(keys.HELD_READY) == set()
    runs.close(connection, "one", "succeeded")
    assert connection.smembers(keys.HELD_READY) == {b"h1", b"h2"}
    assert not connection.exists(keys.waiters_key("one"))
    assert held.promote(connection) == 1
    assert starts(connection) == ["h1"]
    assert connection.smembers(keys.HELD_READY) == {b"h1"}  # until it has started: its start may fail
    runs.close(connection, "two", "succeeded")
    held.promote(connection)
    assert starts(connection) == ["h1", "h2", "h3"]


def test_what_waits_for_a_run_that_has_ended_already_is_started_where_it_is_looked_at(connection: Redis) -> None:
    """Submit looks at once, as the end may have come between its question and its writing."""
    runs.close(connection, active(connection, "one", "patients"), "succeeded")
    hold(connection, "h1", "one")
    assert int(connection.ttl(keys.waiters_key("one"))) > 0  # no end of that run will remove it
    assert held.promote(connection, ["h1"]) == 1


def test_runs_that_need_one_that_has_failed_fail_one_after_the_other_at_once(connection: Redis) -> None:
    active(connection, "one", "patients")
    chain = ["one", *(f"h{number}" for number in range(20))]
    for before, run in pairwise(chain):
        hold(connection, run, before, needs=(before,))
    runs.close(connection, "one", "failed")
    held.promote(connection)
    assert runs.held(connection) == []
    assert runs.snapshot(connection, chain[-1:])[0]["error"] == "needs run h18, which failed"


def test_a_held_run_of_which_redis_has_lost_what_it_waits_for_starts_within_a_minute(connection: Redis) -> None:
    active(connection, "one", "patients")
    hold(connection, "h1", "one")
    connection.delete(keys.waiters_key("one"))
    runs.close(connection, "one", "succeeded")
    assert held.promote(connection) == 0
    maintain(connection, ["etl-acme"])
    assert starts(connection) == ["h1"]
    assert 0 < int(connection.ttl(keys.once_key("promote_held"))) <= 60


def test_a_held_run_that_redis_has_lost_is_forgotten_and_is_in_nobodys_way(connection: Redis) -> None:
    active(connection, "one", "patients")
    hold(connection, "h1", "one")
    connection.delete(keys.run_key("h1"))
    held.promote_all(connection)
    assert runs.held(connection) == []
    assert runs.pending(connection, "acme", "claims") is None
    assert not connection.exists(keys.held_key("acme", "claims"))


def test_the_run_to_wait_for_is_the_newest_held_one_of_its_window_or_the_active_one(connection: Redis) -> None:
    active(connection, "one")
    assert runs.pending(connection, "acme", "claims") == "one"
    for run, start in (("h1", None), ("h2", None), ("w1", "2026-01-01T00:00:00+00:00")):
        hold(connection, run, "one", start=start)
    assert runs.pending(connection, "acme", "claims") == "h2"
    runs.close(connection, "h2", "canceled")
    assert runs.pending(connection, "acme", "claims") == "h1"
    runs.close(connection, "one", "succeeded")
    active(connection, "h1")
    assert runs.pending(connection, "acme", "claims") == "h1"
    assert connection.exists(keys.held_key("acme", "claims")) == 0


def test_a_held_run_with_an_id_that_no_job_can_have_fails_and_is_in_no_other_runs_way(connection: Redis) -> None:
    hold(connection, "../forged")
    hold(connection, "h1", start="2026-01-01T00:00:00+00:00")
    maintain(connection, ["etl-acme"])
    assert starts(connection) == ["h1"]
    assert runs.held(connection) == ["h1"]
    assert runs.snapshot(connection, ["../forged"])[0]["error"] == "'../forged' is not a run's id"


def test_a_run_that_has_begun_is_not_held(connection: Redis) -> None:
    active(connection, "one")
    with pytest.raises(EtlError, match="run one is queued already"):
        hold(connection, "one")


def test_an_end_costs_as_much_with_two_hundred_held_runs_as_with_two(real_redis: Redis) -> None:
    counts = []
    for many in (2, 200):
        real_redis.flushall()
        active(real_redis, "one", "patients")
        hold(real_redis, "h1", "one")
        for number in range(many):
            hold(real_redis, f"w{number}", "another", start=f"2026-01-01T00:00:{number}")
        real_redis.config_resetstat()
        runs.pending(real_redis, "acme", "claims")
        runs.close(real_redis, "one", "succeeded")
        held.promote(real_redis)
        stats = real_redis.info("commandstats")
        counts.append({name: stats[f"cmdstat_{name}"]["calls"] for name in ("hgetall", "evalsha", "zrevrange")})
    assert counts[0] == counts[1]
