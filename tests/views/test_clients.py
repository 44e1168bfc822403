"""Clients while they run: pause, limit, weight, and what an operator sees."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq.utils import now

from jobs.job import EtlJob
from jobs.process.complete import Outcome, complete
from jobs.queue import FairQueue, dequeue
from jobs.store import keys, limits
from jobs.views import clients

NAMES = ["acme", "north", "west"]
QUEUES = [f"etl-{name}" for name in NAMES]


def put(connection: Redis, client: str, count: int) -> None:
    for _ in range(count):
        FairQueue(f"etl-{client}", connection=connection).enqueue("tasks.nothing")


def taken(connection: Redis, count: int) -> list[str]:
    found = [dequeue(connection, worker="w") for _ in range(count)]
    return [job.origin.removeprefix("etl-") for job, _ in filter(None, found)]


def finish(connection: Redis, job: EtlJob, queue: FairQueue, *, waited: float, worked: float) -> None:
    job.ended_at = None
    job.started_at = now() - timedelta(seconds=worked)
    job.enqueued_at = job.started_at - timedelta(seconds=waited)
    complete(connection, job, queue, Outcome("done"))


def line(connection: Redis, client: str) -> dict[str, object]:
    return next(line for line in clients.overview(connection, NAMES) if line["client"] == client)


def test_what_waits_of_a_paused_client_is_held_and_what_runs_ends(connection: Redis) -> None:
    put(connection, "acme", 3)
    found = dequeue(connection, worker="w")
    assert found is not None
    limits.pause(connection, ["acme"])
    put(connection, "north", 1)
    assert taken(connection, 3) == ["north"]
    shown = line(connection, "acme")
    assert (shown["state"], shown["waiting"], shown["running"], shown["held"]) == ("paused", 0, 1, 2)
    assert complete(connection, *found, Outcome("done")) == "finished"
    limits.resume(connection, ["acme"])
    assert taken(connection, 3) == ["acme", "acme"]


def test_a_limit_takes_the_place_of_max_active_until_it_is_taken_back(connection: Redis) -> None:
    put(connection, "acme", 9)
    connection.hset("etl:client:acme", "max_active", 4)
    limits.limit(connection, "acme", 2)
    assert taken(connection, 9) == ["acme"] * 2
    assert line(connection, "acme")["limit"] == 2
    limits.limit(connection, "acme", None)
    assert taken(connection, 9) == ["acme"] * 2
    assert line(connection, "acme")["limit"] == 4


def test_a_client_of_weight_three_is_served_three_times_in_its_turn(connection: Redis) -> None:
    for name in NAMES:
        put(connection, name, 12)
    connection.hset("etl:client:north", "weight", 3)
    served = taken(connection, 20)
    assert Counter(served) == {"acme": 4, "north": 12, "west": 4}
    assert "".join(name[0] for name in served[:10]) in "annnwannnwannnwannnw"


def test_a_backlog_delays_anothers_first_job_by_one_job_at_most(connection: Redis) -> None:
    put(connection, "acme", 300)
    assert taken(connection, 5) == ["acme"] * 5
    put(connection, "west", 1)
    assert "west" in taken(connection, 2)


def test_the_last_hour_tells_waits_and_shares(connection: Redis) -> None:
    put(connection, "acme", 2)
    put(connection, "north", 1)
    for _ in range(3):
        found = dequeue(connection, worker="w")
        assert found is not None
        busy = found[0].origin == "etl-acme"
        finish(connection, *found, waited=4 if busy else 1, worked=1.5 if busy else 3)
    acme, north, west = (line(connection, name) for name in NAMES)
    assert (acme["jobs"], north["jobs"], west["jobs"]) == (2, 1, 0)
    assert acme["wait_seconds"] == pytest.approx(4, abs=0.2)
    assert acme["service_seconds"] == pytest.approx(1.5, abs=0.2)
    assert acme["share"] == pytest.approx(0.5, abs=0.05)
    assert clients.fairness([acme, north, west]) == pytest.approx(1, abs=0.01)
    assert 0 < connection.ttl(keys.use_key(now().timestamp())) <= limits.USE_KEPT


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=20))
def test_fairness_is_one_for_even_shares_and_never_below_one_of_n(shares: Sequence[float]) -> None:
    lines = [{"share": share, "weight": 1} for share in shares]
    found = clients.fairness(lines)
    assert found is not None
    assert 1 / len(shares) - 1e-3 <= found <= 1 + 1e-3
    assert (
        clients.fairness([{"share": 0.2, "weight": 1}, {"share": 0.6, "weight": 3}, {"share": None, "weight": 1}]) == 1
    )
    assert clients.fairness([]) is None
