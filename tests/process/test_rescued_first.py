"""What a dead worker had in hand is served before all turns; Redis's clock may be set, and nothing stands still."""

from pathlib import Path
from typing import cast

import pytest
from redis import Redis

from jobs import settings
from jobs.process.complete import Outcome, complete
from jobs.process.maintenance import maintain, once_every, rescue
from jobs.queue import FairQueue, dequeue
from jobs.store import keys, limits, scripts
from jobs.store.scripts import SHIFT, clock

NAMES = [f"etl-c{number:03d}" for number in range(60)]
HOUR = 3600.0


@pytest.fixture
def queues(connection: Redis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[FairQueue]:
    """Queues of sixty clients with two jobs each."""
    monkeypatch.chdir(tmp_path)
    found = [FairQueue(name, connection=connection) for name in NAMES]
    for queue in found:
        for number in range(2):
            queue.enqueue("tasks.nothing", job_id=f"{queue.name[4:]}j{number}")
    return found


def expire(connection: Redis, name: str, ago: float = 1.0) -> None:
    for entry in cast(list[bytes], connection.zrange(f"rq:wip:{name}", 0, -1)):
        connection.zadd(f"rq:wip:{name}", {entry: clock(connection) - ago + SHIFT})


def next_id(connection: Redis) -> str:
    found = dequeue(connection)
    assert found is not None
    return str(found[0].id)


@pytest.mark.parametrize("kind", ["lost", "returned", "expired"])
def test_a_rescued_job_is_the_next_whatever_turn_it_is(connection: Redis, queues: list[FairQueue], kind: str) -> None:
    job, queue = dequeue(connection)  # type: ignore[misc]
    others = [dequeue(connection) for _ in range(3)]
    if kind == "expired":
        expire(connection, queue.name)
        assert rescue(connection, NAMES)[0] == (job.id,)
    else:
        complete(connection, job, queue, Outcome(kind))  # type: ignore[arg-type]
    assert next_id(connection) == job.id
    assert connection.lpos(queue.key, job.id) is None
    assert others[-1] is not None
    assert next_id(connection) == "c004j0"  # turns go on where they were
    assert connection.zcard("etl:rescued:jobs") == 0


def test_rescued_jobs_come_in_the_order_of_their_loss_and_before_new_ones_at_the_front(
    connection: Redis, queues: list[FairQueue]
) -> None:
    taken = [dequeue(connection) for _ in range(3)]
    for found in reversed(taken):
        assert found is not None
        complete(connection, *found, Outcome("lost"))
    queues[1].enqueue("tasks.nothing", job_id="c001child", at_front=True)
    assert [next_id(connection) for _ in range(4)] == ["c002j0", "c001j0", "c000j0", "c003j0"]


def test_pauses_and_caps_hold_for_rescued_jobs(connection: Redis, queues: list[FairQueue]) -> None:
    first, second = (dequeue(connection) for _ in range(2))
    assert first is not None
    assert second is not None
    for found in (first, second):
        complete(connection, *found, Outcome("lost"))
    limits.pause(connection, ["c000"])
    limits.limit(connection, "c001", 0)
    assert next_id(connection) == "c002j0"
    limits.limit(connection, "c001", 1)
    assert next_id(connection) == "c001j0"
    limits.resume(connection, ["c000"])
    assert next_id(connection) == "c000j0"


def test_a_rescued_job_that_is_deleted_or_canceled_leaves_nothing(connection: Redis, queues: list[FairQueue]) -> None:
    for how in ("delete", "cancel"):
        found = dequeue(connection)
        assert found is not None
        complete(connection, *found, Outcome("lost"))
        getattr(found[0], how)()
        assert next_id(connection) != found[0].id
    assert connection.zcard("etl:rescued:jobs") == 0


# --- Redis's clock ---


def test_a_lease_of_a_clock_that_was_ahead_ends_as_any_other(connection: Redis, queues: list[FairQueue]) -> None:
    job, queue = dequeue(connection)  # type: ignore[misc]
    expire(connection, queue.name, -HOUR)
    rescue(connection, NAMES)
    [(_, score)] = cast(list[tuple[bytes, float]], connection.zrange(f"rq:wip:{queue.name}", 0, -1, withscores=True))
    assert score - SHIFT - clock(connection) == pytest.approx(settings.lease(), abs=1)
    expire(connection, queue.name)
    assert rescue(connection, NAMES)[0] == (job.id,)


def test_maintenance_is_done_again_after_its_interval_whatever_redis_clock_did(connection: Redis) -> None:
    assert once_every(connection, "task", 0.05)
    connection.pexpire(keys.once_key("task"), int(HOUR * 1000))  # as the clock going back leaves it
    assert not once_every(connection, "task", 0.05)
    assert connection.pttl(keys.once_key("task")) <= 50
    while connection.exists(keys.once_key("task")):
        pass
    assert once_every(connection, "task", 0.05)


def test_a_clock_that_is_set_back_delays_no_retry_and_no_rescue(connection: Redis, queues: list[FairQueue]) -> None:
    job, queue = dequeue(connection)  # type: ignore[misc]
    connection.set("etl:rescued", clock(connection) + HOUR)
    connection.set("etl:once:grace", 1, px=int(HOUR * 1000))
    connection.zadd(f"rq:scheduled:{queue.name}", {"later": clock(connection) + HOUR + 30})
    rescue(connection, NAMES)
    due = connection.zscore(f"rq:scheduled:{queue.name}", "later")
    assert due is not None
    assert due - clock(connection) == pytest.approx(30, abs=2)
    assert connection.pttl("etl:once:grace") <= settings.lease() * 3000
    connection.delete("etl:once:grace")
    expire(connection, queue.name)
    assert rescue(connection, NAMES)[0] == (job.id,)


def test_a_retry_is_due_by_redis_clock_not_by_the_workers(
    connection: Redis, queues: list[FairQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, queue = dequeue(connection)  # type: ignore[misc]
    monkeypatch.setattr(scripts, "clock", lambda _: 1_000_000.0)  # not this process's
    complete(connection, job, queue, Outcome("snoozed", delay=5))
    assert connection.zscore(f"rq:scheduled:{queue.name}", job.id) == 1_000_005.0


def test_a_rate_limit_of_a_clock_that_was_ahead_is_none(connection: Redis) -> None:
    connection.set("etl:rate:acme:claims", clock(connection) + HOUR)
    granted, wait = scripts.rate_limit(connection, "etl:rate:acme:claims", 0.1, 1.0)
    assert (granted, float(wait)) == (1, 0.0)


def test_maintain_goes_on_with_rescued_jobs_there(connection: Redis, queues: list[FairQueue]) -> None:
    found = dequeue(connection)
    assert found is not None
    complete(connection, *found, Outcome("lost"))
    maintain(connection, NAMES, all_tasks=True)
    assert next_id(connection) == found[0].id
