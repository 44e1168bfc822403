"""A member of a sorted set, whatever it is called and scored, stops none of those behind it."""

from itertools import cycle
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis

from jobs.process import maintenance
from jobs.process.inprocess import InProcessWorker
from jobs.queue import FairQueue, dequeue
from jobs.store import malformed
from jobs.store.limits import limit
from tests.helpers.processes import until
from tests.helpers.queued_project import GOOD, QueuedProject
from tests.helpers.worker_project import LEASE
from tests.helpers.workers import StartWorkers

SETS = (
    *("etl:ready", "etl:rescued:jobs", "etl:held", "etl:held:acme:claims", "etl:runs", "rq:scheduler:scheduled_jobs"),
    *(f"rq:{kind}:etl-acme" for kind in ("wip", "scheduled", "deferred", "finished", "failed", "canceled")),
)
MEMBERS = ("", "{}", "junk", "etl-zz", "default", "a:b", "etl-acme x", "etl-acme:", " ", b"\xff", "z" * 400)
SCORES = (float("-inf"), -1.0, 0.0, 1.0, float("inf"))
FRONT = pytest.mark.parametrize("score", SCORES, ids=str)


def step_until_idle(connection: Redis) -> None:
    worker = InProcessWorker(connection)
    assert any(not worker.step() for _ in range(50)), "a job comes back for ever"


@pytest.mark.parametrize("key", SETS)
def test_members_at_an_end_of_a_set_stop_no_run(connection: Redis, tmp_path: Path, key: str) -> None:
    project = QueuedProject(tmp_path, connection)
    project.files("acme", GOOD)
    limit(connection, "acme", 1)
    ids = [project.submit("acme"), project.submit("acme", queue=True)]
    connection.zadd(key, dict(zip(cast(Any, MEMBERS), cycle(SCORES), strict=False)))
    for _ in range(3):  # the first lets the held run go
        step_until_idle(connection)
        maintenance.maintain(connection, ["etl-acme"], all_tasks=True)
    assert [project.state(run) for run in ids] == ["succeeded", "succeeded"]


@FRONT
def test_a_turn_with_a_score_is_set_aside_and_reported_and_a_clients_comes_again(
    connection: Redis, score: float
) -> None:
    for name in ("etl-a", "etl-b"):
        FairQueue(name, connection=connection).enqueue("tasks.nothing")
    connection.zadd("etl:ready", {"junk": score, "etl-b": score})
    names = ["etl-a", "etl-b"]
    found = [malformed.passing(connection, lambda: dequeue(connection)) for _ in range(2 if score == 0 else 1)]
    maintenance.rescue(connection, names)
    found += [dequeue(connection) for _ in range(3 - len(found))]
    assert [each[1].name for each in found if each] == names
    aside = cast(list[bytes], connection.zrange("etl:aside", 0, -1))
    assert aside == ([] if score == 0 else [b"etl:ready etl-b (wrong score)", b"etl:ready junk (wrong score)"])
    assert connection.exists("etl:ready") == 0


@pytest.mark.parametrize("score", [-1.0, 5.0, 2e9, 4e9])
@pytest.mark.parametrize("member", ["junk", "a:b", ":"])
def test_what_is_no_lease_counts_for_no_cap(connection: Redis, member: str, score: float) -> None:
    limit(connection, "acme", 1)
    FairQueue("etl-acme", connection=connection).enqueue("tasks.nothing")
    connection.zadd("rq:wip:etl-acme", {member: score})
    maintenance.rescue(connection, ["etl-acme"])
    assert dequeue(connection) is not None
    maintenance.rescue(connection, ["etl-acme"])
    assert connection.zcard("rq:wip:etl-acme") == 1


def test_a_client_that_was_given_a_billion_turns_has_its_weight_of_them(connection: Redis) -> None:
    for name in ("etl-a", "etl-b"):
        for _ in range(4):
            FairQueue(name, connection=connection).enqueue("tasks.nothing")
    connection.hset("etl:served", mapping={"name": "etl-b", "left": 999999999999})
    found = [dequeue(connection) for _ in range(4)]
    assert [each[1].name for each in found if each] == ["etl-b", "etl-a", "etl-b", "etl-a"]


def test_workers_go_on_with_junk_in_front_of_the_turns(
    tmp_path: Path, real_redis: Redis, workers: StartWorkers
) -> None:
    project = QueuedProject(tmp_path, real_redis)
    project.files("acme", GOOD)
    workers(2, env={"ETL_LEASE": LEASE})
    real_redis.zadd("etl:ready", {"junk": -1, "{}": float("-inf")})
    run = project.submit("acme")
    until(lambda: project.state(run) == "succeeded")
    log = "".join(path.read_text() for path in tmp_path.glob("worker-*.log"))
    assert "malformed data in Redis was set aside: etl:ready junk (wrong score)" in log
