"""Maintenance: a job whose worker is gone, whose retry is due or whose parents are over is queued again, once."""

import time
from collections.abc import Sequence
from typing import Any

import pytest
from redis import Redis
from rq.job import Dependency, JobStatus, Retry
from rq.registry import clean_registries

from jobs import settings
from jobs.job import EtlJob
from jobs.process.complete import Outcome, complete
from jobs.process.maintenance import is_time, maintain
from jobs.queue import FairQueue, dequeue
from jobs.store import keys, runs, scripts

NAMES = ["etl-acme"]
RESCUED = "etl:rescued"


@pytest.fixture
def queue(connection: Redis) -> FairQueue:
    return FairQueue("etl-acme", connection=connection)


def expire(connection: Redis, job: EtlJob) -> None:
    """Let the lease of a job run out."""
    assert job.execution is not None
    connection.zadd(f"rq:wip:{job.origin}", {job.execution.composite_key: time.time() + scripts.SHIFT - 1})


def dequeued(connection: Redis, worker: str = "w") -> EtlJob:
    found = dequeue(connection, worker=worker)
    assert found is not None
    return found[0]


def put(queue: FairQueue, *parents: str, retry: Retry | None = None, tolerant: bool = True) -> EtlJob:
    depends_on = Dependency(list(parents), allow_failure=tolerant, enqueue_at_front=True) if parents else None
    return queue.enqueue("tasks.nothing", retry=retry, depends_on=depends_on)  # type: ignore[return-value]


def activate(connection: Redis, jobs: Sequence[EtlJob]) -> None:
    """Make the jobs those of an active run."""
    connection.sadd(keys.ACTIVE, "r1")
    connection.sadd(keys.jobs_key("r1"), *[job.id for job in jobs])


# --- rescue ---


def test_an_expired_job_goes_back_to_the_front_at_once(connection: Redis, queue: FairQueue) -> None:
    first, second = put(queue), put(queue)
    expire(connection, dequeued(connection))
    assert maintain(connection, NAMES).lost == (first.id,)
    assert queue.job_ids == [first.id, second.id]
    assert first.get_status() == "queued"
    assert first.get_executions() == []
    assert connection.zcard("rq:wip:etl-acme") == 0


def test_a_lease_that_stands_is_left_alone(connection: Redis, queue: FairQueue) -> None:
    put(queue)
    job = dequeued(connection)
    assert maintain(connection, NAMES).lost == ()
    assert job.get_status() == "started"


def test_after_redis_was_away_leases_get_time_to_be_renewed_once(connection: Redis, queue: FairQueue) -> None:
    """Nobody could renew them meanwhile; but a cluster too slow to make passes must not keep the dead alive."""
    job = put(queue)
    maintain(connection, NAMES)
    expire(connection, dequeued(connection))
    long_ago = time.time() - settings.lease()
    connection.set(RESCUED, long_ago)
    assert maintain(connection, NAMES).lost == ()
    assert maintain(connection, NAMES).lost == ()
    connection.pexpire(keys.once_key("grace"), int(settings.lease() * 2000))
    connection.set(RESCUED, long_ago)
    assert maintain(connection, NAMES).lost == (job.id,)


def test_jobs_lost_together_keep_their_order(connection: Redis, queue: FairQueue) -> None:
    put_jobs = [put(queue) for _ in range(3)]
    for moment, job in enumerate([dequeued(connection) for _ in range(3)]):
        assert job.execution is not None
        connection.zadd("rq:wip:etl-acme", {job.execution.composite_key: time.time() + scripts.SHIFT - 10 + moment})
    maintain(connection, NAMES)
    assert queue.job_ids == [job.id for job in put_jobs]


def test_being_lost_uses_up_no_retry(connection: Redis, queue: FairQueue) -> None:
    put(queue, retry=Retry(max=2, interval=60))
    expire(connection, dequeued(connection))
    maintain(connection, NAMES)
    assert dequeued(connection).retries_left == 2


def test_a_job_that_loses_its_worker_three_times_fails_and_releases_its_children(
    connection: Redis, queue: FairQueue
) -> None:
    job = put(queue)
    child = put(queue, job.id)
    for _ in range(settings.MAX_LOSSES):
        assert job.get_status() != "failed"
        expire(connection, dequeued(connection))
        maintain(connection, NAMES)
    assert job.get_status() == "failed"
    assert queue.failed_job_registry.get_job_ids() == [job.id]
    result = job.latest_result()
    assert result is not None
    assert result.exc_string == "lost its worker three times"
    assert queue.job_ids == [child.id]
    assert connection.ttl(job.key) > 0


def test_a_failed_job_that_is_requeued_by_hand_may_be_lost_again(connection: Redis, queue: FairQueue) -> None:
    job = put(queue)
    for _ in range(settings.MAX_LOSSES):
        expire(connection, dequeued(connection))
        maintain(connection, NAMES)
    EtlJob.fetch(job.id, connection=connection).requeue()
    expire(connection, dequeued(connection))
    maintain(connection, NAMES)
    assert job.get_status() == "queued"


def test_a_job_deleted_or_canceled_while_it_runs_does_not_come_back(connection: Redis, queue: FairQueue) -> None:
    deleted, canceled = put(queue), put(queue)
    for _ in range(2):
        expire(connection, dequeued(connection))
    EtlJob.fetch(deleted.id, connection=connection).delete()
    EtlJob.fetch(canceled.id, connection=connection).cancel()
    assert maintain(connection, NAMES).lost == ()
    assert queue.job_ids == []
    assert connection.zcard("rq:wip:etl-acme") == 0


def test_rqs_own_cleaning_never_touches_an_expired_lease(connection: Redis, queue: FairQueue) -> None:
    job = put(queue)
    expire(connection, dequeued(connection))
    for _ in range(2):
        clean_registries(queue)
        assert queue.started_job_registry.count == 1
    assert job.get_status() == "started"
    assert maintain(connection, NAMES).lost == (job.id,)
    assert queue.failed_job_registry.count == 0


def test_a_stock_workers_lease_is_its_own_affair(connection: Redis, queue: FairQueue) -> None:
    job = put(queue)
    connection.lpop("rq:queue:etl-acme")
    connection.hset(job.key, "status", "started")
    connection.zadd("rq:wip:etl-acme", {f"{job.id}:stock": time.time() - 5})
    assert maintain(connection, NAMES).lost == ()


# --- a lease that is gone ---


@pytest.mark.parametrize("kind", ["done", "failed", "stopped", "lost", "returned"])
def test_a_worker_that_has_slept_too_long_changes_nothing(connection: Redis, queue: FairQueue, kind: str) -> None:
    job = put(queue, retry=Retry(max=2))
    slept = dequeued(connection, "sleeper")
    expire(connection, slept)
    maintain(connection, NAMES)
    current = dequeued(connection, "other")
    before = connection.hgetall(job.key)
    assert complete(connection, slept, queue, Outcome(kind, value='"stale"', error="stale")) is None  # type: ignore[arg-type]
    assert connection.hgetall(job.key) == before
    assert queue.job_ids == []
    assert complete(connection, current, queue, Outcome("done", value='"fresh"')) == JobStatus.FINISHED
    assert job.return_value() == "fresh"


def test_a_lease_that_is_gone_is_not_renewed(connection: Redis, queue: FairQueue) -> None:
    put(queue)
    job = dequeued(connection)
    assert job.execution is not None
    arguments = ("etl-acme", job.execution.composite_key, 12, "w", "2026-01-01T00:00:00.000000Z", 0.0, "1.0")
    expire(connection, job)
    assert scripts.renew(connection, *arguments) == 1
    assert maintain(connection, NAMES).lost == ()
    connection.zrem("rq:wip:etl-acme", job.execution.composite_key)
    assert scripts.renew(connection, *arguments) == 0
    assert connection.zcard("rq:wip:etl-acme") == 0


# --- promote ---


def test_a_due_retry_is_queued_and_a_later_one_waits(connection: Redis, queue: FairQueue) -> None:
    due, later = put(queue, retry=Retry(1, 60)), put(queue, retry=Retry(1, 60))
    for _ in range(2):
        complete(connection, dequeued(connection), queue, Outcome("failed", error="ValueError"))
    assert (due.get_status(), later.get_status()) == ("scheduled", "scheduled")
    assert maintain(connection, NAMES).due == 0
    connection.zadd("rq:scheduled:etl-acme", {due.id: time.time() - 1})
    assert maintain(connection, NAMES).due == 1
    assert queue.job_ids == [due.id]
    assert due.get_status() == "queued"
    assert queue.scheduled_job_registry.get_job_ids() == [later.id]


def test_a_retry_that_is_canceled_meanwhile_does_not_come_back(connection: Redis, queue: FairQueue) -> None:
    job = put(queue, retry=Retry(1, 60))
    complete(connection, dequeued(connection), queue, Outcome("failed"))
    connection.zadd("rq:scheduled:etl-acme", {job.id: time.time() - 1})
    connection.hset(job.key, "status", "canceled")
    assert maintain(connection, NAMES).due == 0
    assert queue.job_ids == []


@pytest.mark.parametrize("how", ["stopped", "canceled", "deleted", "failed", "finished"])
def test_a_child_is_released_whatever_became_of_its_parent(connection: Redis, queue: FairQueue, how: str) -> None:
    parent = put(queue)
    child = put(queue, parent.id)
    activate(connection, [parent, child])
    connection.lpop("rq:queue:etl-acme")
    if how == "deleted":
        parent.delete()
    else:
        connection.hset(parent.key, "status", how)
    assert maintain(connection, NAMES).released == 1
    assert queue.job_ids == [child.id]
    assert child.get_status() == "queued"
    assert queue.deferred_job_registry.get_job_ids() == []
    assert not connection.smembers(f"{parent.key}:dependents")


def test_a_child_waits_for_all_its_parents(connection: Redis, queue: FairQueue) -> None:
    one, two = put(queue), put(queue)
    child = put(queue, one.id, two.id)
    activate(connection, [one, two, child])
    complete(connection, dequeued(connection), queue, Outcome("done"))
    maintain(connection, NAMES)
    assert child.get_status() == "deferred"
    complete(connection, dequeued(connection), queue, Outcome("failed"))
    assert child.get_status() == "queued"
    assert maintain(connection, NAMES).released == 0
    assert queue.job_ids == [child.id]


def test_a_child_that_allows_no_failure_is_not_released_by_one(connection: Redis, queue: FairQueue) -> None:
    parent = put(queue)
    child = put(queue, parent.id, tolerant=False)
    activate(connection, [parent, child])
    complete(connection, dequeued(connection), queue, Outcome("failed"))
    maintain(connection, NAMES)
    assert child.get_status() == "deferred"


def test_jobs_of_ended_runs_are_not_looked_at(connection: Redis, queue: FairQueue) -> None:
    parent = put(queue)
    child = put(queue, parent.id)
    activate(connection, [parent, child])
    connection.srem(keys.ACTIVE, "r1")
    parent.delete()
    assert maintain(connection, NAMES).released == 0


@pytest.mark.parametrize("status", ["queued", "started", "scheduled"])
def test_an_active_runs_job_that_is_in_no_list_is_queued(connection: Redis, queue: FairQueue, status: str) -> None:
    job = put(queue)
    activate(connection, [job])
    connection.lpop("rq:queue:etl-acme")
    connection.hset(job.key, "status", status)
    assert maintain(connection, NAMES).released == 1
    assert queue.job_ids == [job.id]
    assert maintain(connection, NAMES, all_tasks=True).released == 0
    job = dequeued(connection)
    assert maintain(connection, NAMES, all_tasks=True).released == 0
    complete(connection, job, queue, Outcome("done"))
    assert maintain(connection, NAMES, all_tasks=True).released == 0


def test_registries_forget_what_redis_has_deleted(connection: Redis, queue: FairQueue) -> None:
    connection.zadd("rq:finished:etl-acme", {"old": 1, "new": time.time() + 60})
    connection.zadd("rq:failed:etl-acme", {"old": 1, "for-ever": -1})
    maintain(connection, NAMES)
    assert connection.zrange("rq:finished:etl-acme", 0, -1) == [b"new"]
    assert connection.zrange("rq:failed:etl-acme", 0, -1) == [b"for-ever"]


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (Outcome("failed", error="timed out after 600 s"), "finish: timed out after 600 s"),
        (Outcome("stopped", error="stopped by a command"), "finish: stopped by a command"),
    ],
)
def test_a_run_whose_finish_could_not_end_it_is_closed(
    connection: Redis, queue: FairQueue, outcome: Outcome, error: str
) -> None:
    with connection.pipeline() as pipe:
        options: dict[str, Any] = {"params": {}, "start": None, "end": None, "warnings": (), "max_active": 1}
        runs.create(pipe, "r1", client="acme", pipeline="claims", partitions=0, **options)
        pipe.execute()
    job = queue.enqueue("tasks.nothing", job_id="r1-0-finish-1")
    connection.sadd(keys.jobs_key("r1"), job.id)
    assert maintain(connection, NAMES).closed == ()
    complete(connection, dequeued(connection), queue, outcome)
    assert maintain(connection, NAMES, all_tasks=True).closed == ("r1",)
    record = runs.read(connection, "r1")
    assert record is not None
    assert (record["state"], record["error"]) == ("failed", error)
    assert runs.holder(connection, "acme", "claims") is None


def test_an_active_run_that_redis_has_forgotten_is_forgotten(connection: Redis) -> None:
    connection.sadd(keys.ACTIVE, "gone")
    assert maintain(connection, NAMES).closed == ()
    assert connection.smembers(keys.ACTIVE) == set()


def test_workers_that_are_dead_are_not_listed_for_ever(connection: Redis) -> None:
    connection.sadd("rq:workers", "rq:worker:dead", "rq:worker:alive")
    connection.sadd("rq:workers:etl-acme", "rq:worker:dead", "rq:worker:alive")
    connection.hset("rq:worker:alive", "state", "idle")
    maintain(connection, NAMES)
    assert connection.smembers("rq:workers") == {b"rq:worker:alive"}
    assert connection.smembers("rq:workers:etl-acme") == {b"rq:worker:alive"}


def test_one_worker_at_a_time_does_maintenance(connection: Redis) -> None:
    assert [is_time(connection) for _ in range(3)] == [True, False, False]
