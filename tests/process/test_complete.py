"""How an execution ended is written at once, as RQ would write it."""

import sys
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from redis import Redis
from rq.job import Dependency, JobStatus, Retry
from rq.results import Result

from etl.errors import EtlError
from jobs.job import EtlJob
from jobs.process.complete import DEEPEST, LARGEST, Outcome, complete, perform
from jobs.queue import FairQueue, dequeue


@pytest.fixture
def queue(connection: Redis) -> FairQueue:
    return FairQueue("etl-acme", connection=connection)


def ended(queue: FairQueue, outcome: Outcome, **options: object) -> EtlJob:
    """Enqueue a job, dequeue it, complete it and read it again."""
    queue.enqueue("tasks.nothing", job_id="j", **options)
    found = dequeue(queue.connection, worker="w")
    assert found is not None
    complete(queue.connection, found[0], queue, outcome)
    assert queue.connection.zcard(queue.started_job_registry.key) == 0
    assert queue.connection.keys("rq:execution*") == []
    assert queue.connection.hget("rq:worker:w", "current_job") is None
    return EtlJob.fetch("j", connection=queue.connection)


def test_a_finished_job_keeps_its_value_for_its_time(queue: FairQueue) -> None:
    job = ended(queue, Outcome("done", value='{"rows": 3}'), result_ttl=60)
    assert (job.get_status(), job.return_value()) == ("finished", {"rows": 3})
    assert queue.finished_job_registry.get_job_ids() == ["j"]
    assert 0 < queue.connection.ttl(job.key) <= 60
    assert 0 < queue.connection.ttl("rq:results:j") <= 60
    assert queue.connection.hget("rq:worker:w", "successful_job_count") == b"1"
    assert job.ended_at is not None


def test_a_job_without_result_ttl_is_gone_but_its_child_runs(queue: FairQueue) -> None:
    parent = queue.enqueue("tasks.nothing", result_ttl=0)
    child = queue.enqueue("tasks.nothing", depends_on=parent)
    found = dequeue(queue.connection, worker="w")
    assert found is not None
    complete(queue.connection, found[0], queue, Outcome("done"))
    assert not EtlJob.exists(parent.id, connection=queue.connection)
    assert queue.job_ids == [child.id]


def test_a_failure_is_kept_with_its_text_for_its_time(queue: FairQueue) -> None:
    job = ended(queue, Outcome("failed", error="ValueError at tasks:nothing:3"), failure_ttl=60)
    result = job.latest_result()
    assert result is not None
    assert (job.get_status(), result.type, result.exc_string) == (
        "failed", Result.Type.FAILED, "ValueError at tasks:nothing:3",
    )  # fmt: skip
    assert queue.failed_job_registry.get_job_ids() == ["j"]
    assert 0 < queue.connection.ttl(job.key) <= 60


def test_a_failure_with_retries_left_waits_for_its_interval(queue: FairQueue) -> None:
    job = ended(queue, Outcome("failed", error="ValueError"), retry=Retry(max=2, interval=[5, 30]))
    assert (job.get_status(), job.retries_left, job._exc_info) == ("scheduled", 1, "ValueError")
    assert queue.scheduled_job_registry.get_job_ids() == ["j"]
    assert job.latest_result() is None


def test_a_failure_without_interval_is_tried_again_at_once(queue: FairQueue) -> None:
    other = queue.enqueue("tasks.nothing", at_front=True, job_id="other")
    queue.remove(other)
    job = ended(queue, Outcome("failed"), retry=Retry(max=1))
    assert (job.get_status(), job.retries_left, queue.job_ids) == ("queued", 0, ["j"])


def test_what_no_retry_can_cure_fails_at_once(queue: FairQueue) -> None:
    job = ended(queue, Outcome("failed", curable=False), retry=Retry(max=2, interval=5))
    assert (job.get_status(), job.retries_left) == ("failed", 0)


def test_a_stopped_job_is_stopped_and_not_tried_again(queue: FairQueue) -> None:
    job = ended(queue, Outcome("stopped", error="stopped by a command"), retry=Retry(max=2, interval=5))
    assert (job.get_status(), queue.failed_job_registry.get_job_ids()) == ("stopped", ["j"])


def test_success_after_a_retry_leaves_no_trace_of_the_failure(queue: FairQueue) -> None:
    ended(queue, Outcome("failed", error="ValueError"), retry=Retry(max=1))
    found = dequeue(queue.connection, worker="w")
    assert found is not None
    complete(queue.connection, found[0], queue, Outcome("done", value="1"))
    job = EtlJob.fetch("j", connection=queue.connection)
    assert (job.return_value(), job._exc_info) == (1, None)


def test_a_job_returned_unfinished_is_first_in_its_queue_and_not_counted_as_lost(queue: FairQueue) -> None:
    for _ in range(5):
        queue.connection.delete("rq:queue:etl-acme")
        job = ended(queue, Outcome("returned"))
        assert (job.get_status(), queue.job_ids) == ("queued", ["j"])


def test_children_are_queued_in_the_same_step_at_the_front(queue: FairQueue) -> None:
    parent = queue.enqueue("tasks.nothing")
    child = queue.enqueue("tasks.nothing", depends_on=Dependency([parent], enqueue_at_front=True))
    waiting = queue.enqueue("tasks.nothing")
    found = dequeue(queue.connection, worker="w")
    assert found is not None
    complete(queue.connection, found[0], queue, Outcome("done"))
    assert queue.job_ids == [child.id, waiting.id]
    assert queue.deferred_job_registry.get_job_ids() == []


def test_a_result_that_is_too_large_fails_the_job_and_is_not_tried_again(connection: Redis, queue: FairQueue) -> None:
    job = queue.enqueue("tasks.nothing", retry=Retry(max=3))
    found = dequeue(connection)
    assert found is not None
    for size, kind in ((LARGEST - 2, "done"), (LARGEST + 1, "failed")):
        found[0]._execute = lambda size=size: "x" * size  # type: ignore[method-assign,misc]
        found[0].check = lambda: None  # type: ignore[method-assign]
        outcome = perform(found[0])
        assert outcome.kind == kind
    assert "1,048,576 are kept" in outcome.error
    assert complete(connection, *found, outcome) == JobStatus.FAILED
    assert "at most 1,048,576" in EtlJob.fetch(job.id, connection=connection).failure


class Unspeakable(Exception):
    """An exception whose class does all it can."""

    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class Undecided(EtlError):
    """An error that does not say whether another try may help."""

    @property
    def retryable(self) -> NoReturn:  # type: ignore[override]
        raise KeyboardInterrupt


Forged = type("Forged", (Exception,), {"__module__": "\ud800\x1b[2J" + "x" * (2 << 20)})


class Explosive(dict[str, int]):
    """A result that raises when it is written as JSON."""

    def items(self) -> NoReturn:
        raise SystemExit(3)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("raised", [Unspeakable, Undecided, Forged, MemoryError, RecursionError, SystemExit])
def test_whatever_a_function_raises_is_a_failure_that_redis_can_keep(
    connection: Redis, queue: FairQueue, raised: type[BaseException]
) -> None:
    def fails() -> NoReturn:
        raise raised("Jane Roe")

    outcome, job = performed(connection, queue, fails)
    assert outcome.kind == "failed"
    assert "Jane" not in outcome.error
    assert len(outcome.error) <= LARGEST
    assert job.failure == outcome.error != ""


@pytest.mark.parametrize("limit", [1000, 1_000_000])
@pytest.mark.parametrize("depth", [DEEPEST + 1, 100_000])
def test_a_result_that_is_nested_too_deep_fails_the_job_and_says_so(
    connection: Redis, queue: FairQueue, depth: int, limit: int
) -> None:
    before = sys.getrecursionlimit()
    value = nested(depth)

    def returns() -> list[Any]:
        sys.setrecursionlimit(limit)
        return value

    try:
        outcome, job = performed(connection, queue, returns)
        assert sys.getrecursionlimit() == limit, "it is the function's own"
    finally:
        sys.setrecursionlimit(before)
    assert (outcome.kind, outcome.curable) == ("failed", False)
    assert "nested" in job.failure


def test_a_result_as_deep_as_may_be_is_kept_and_brackets_in_texts_do_not_count(
    connection: Redis, queue: FairQueue
) -> None:
    value = [nested(DEEPEST - 1), {"[" * 600: "{\\" * 600 + '"['}]
    _, job = performed(connection, queue, lambda: value)
    assert job.return_value() == value


def test_a_result_that_raises_when_it_is_written_fails_the_job(connection: Redis, queue: FairQueue) -> None:
    outcome, job = performed(connection, queue, lambda: Explosive(a=1))
    assert outcome.kind == "failed"
    assert "SystemExit" in job.failure


def performed(connection: Redis, queue: FairQueue, function: Callable[[], Any]) -> tuple[Outcome, EtlJob]:
    queue.enqueue("tasks.nothing", job_id="j")
    found = dequeue(connection)
    assert found is not None
    found[0]._execute = function  # type: ignore[method-assign]
    found[0].check = lambda: None  # type: ignore[method-assign]
    outcome = perform(found[0])
    complete(connection, *found, outcome)
    return outcome, EtlJob.fetch("j", connection=connection)
