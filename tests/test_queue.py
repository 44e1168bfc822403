"""FairQueue: clients are served in turn, each within its limits, and nothing but a waiting job is given out."""

from itertools import islice

import pytest
from redis import Redis
from rq.suspension import resume, suspend

from jobs.job import EtlJob
from jobs.queue import FairQueue, Line, take
from jobs.settle import Outcome, settle


def put(connection: Redis, client: str, count: int = 1) -> list[EtlJob]:
    queue = FairQueue(f"etl-{client}", connection=connection)
    return [queue.enqueue("tasks.nothing", description=f"{client} {i}") for i in range(count)]  # type: ignore[misc]


def line(connection: Redis, *names: str) -> Line:
    found = Line(connection, names)
    found.refresh()
    return found


def drain(connection: Redis, names: list[str]) -> list[str]:
    taken = []
    while found := take(connection, names, "w"):
        job, queue = found
        taken.append(queue.name.removeprefix("etl-"))
        settle(connection, job, queue, Outcome("done"))
    return taken


def test_a_client_with_ten_times_the_work_does_not_delay_the_others(connection: Redis) -> None:
    put(connection, "big", 30)
    for client in ("ant", "bee", "cat"):
        put(connection, client, 3)
    order = drain(connection, line(connection).names)
    assert order[:12].count("big") == 3
    assert len(order) == 39


def test_workers_share_one_turn(connection: Redis) -> None:
    for client in ("ant", "bee", "cat"):
        put(connection, client, 2)
    names = line(connection).names
    order = [found[1].name for worker in ("v", "w") * 3 if (found := take(connection, names, worker))]
    assert order == ["etl-ant", "etl-bee", "etl-cat"] * 2


def test_a_job_taken_is_started_and_leased_to_its_worker(connection: Redis) -> None:
    [put_job] = put(connection, "acme")
    found = take(connection, ["etl-acme"], "w")
    assert found is not None
    job, queue = found
    assert (job.id, queue.name, job.description) == (put_job.id, "etl-acme", "acme 0")
    assert job.execution is not None
    assert queue.started_job_registry.get_job_ids(cleanup=False) == [job.id]
    fresh = EtlJob.fetch(job.id, connection=connection)
    assert (fresh.get_status(), fresh.worker_name) == ("started", "w")
    assert [execution.id for execution in fresh.get_executions()] == [job.execution.id]
    assert connection.hget("rq:worker:w", "current_job") == job.id.encode()


def test_max_active_caps_a_client_and_no_other(connection: Redis) -> None:
    put(connection, "acme", 3)
    put(connection, "zeta", 3)
    connection.hset("etl:client:acme", "max_active", 1)
    names = line(connection).names
    held = [found for found in (take(connection, names, "w") for _ in range(6)) if found]
    assert sorted(queue.name for _, queue in held) == ["etl-acme", "etl-zeta", "etl-zeta", "etl-zeta"]
    job, queue = next(found for found in held if found[1].name == "etl-acme")
    settle(connection, job, queue, Outcome("done"))
    again = take(connection, names, "w")
    assert again is not None
    assert again[1].name == "etl-acme"


@pytest.mark.parametrize(("paused", "served"), [("1", False), ("0", True), ("", True)])
def test_a_paused_client_waits(connection: Redis, paused: str, served: bool) -> None:
    put(connection, "acme")
    connection.hset("etl:client:acme", "paused", paused)
    assert bool(take(connection, ["etl-acme"], "w")) == served


def test_suspended_workers_take_nothing(connection: Redis) -> None:
    put(connection, "acme")
    suspend(connection)
    assert take(connection, ["etl-acme"], "w") is None
    resume(connection)
    assert take(connection, ["etl-acme"], "w") is not None


def test_ids_without_a_waiting_job_are_passed_over(connection: Redis) -> None:
    gone, twice, canceled, last = put(connection, "acme", 4)
    connection.delete(gone.key)
    connection.lpush("rq:queue:etl-acme", twice.id)
    connection.hset(canceled.key, "status", "canceled")
    names = ["etl-acme"]
    taken = [found[0].id for found in iter(lambda: take(connection, names, "w"), None) if found]
    assert taken == [twice.id, last.id]


def test_a_job_that_cannot_be_read_is_given_out_to_fail(connection: Redis) -> None:
    [job] = put(connection, "acme")
    connection.hset(job.key, mapping={"data": b"\x80\x05pickle", "retry_intervals": "not json"})
    found = take(connection, ["etl-acme"], "w")
    assert found is not None
    with pytest.raises(Exception, match=r"^$"):
        found[0].perform()


def test_a_new_clients_queue_is_noticed_at_the_next_look(connection: Redis) -> None:
    served = line(connection, "default")
    assert served.names == ["default"]
    assert not served.stirs()
    put(connection, "newcomer")
    connection.sadd("rq:queues", "rq:queue:somebody-elses")
    assert served.stirs()
    assert served.names == ["default", "etl-newcomer"]
    drain(connection, served.names)
    assert not served.stirs()


def test_a_few_thousand_queues_are_looked_at_together(connection: Redis) -> None:
    connection.sadd("rq:queues", *[f"rq:queue:etl-c{i:04}" for i in range(2500)])
    served = line(connection)
    put(connection, "c2400")
    assert served.stirs()
    assert drain(connection, served.names) == ["c2400"]


def test_an_idle_look_is_two_commands(real_redis: Redis) -> None:
    real_redis.sadd("rq:queues", *[f"rq:queue:etl-c{i}" for i in range(300)])
    served = line(real_redis)
    before = real_redis.info("stats")["total_commands_processed"]
    served.stirs()
    assert real_redis.info("stats")["total_commands_processed"] - before == 2 + 1  # and the question before


def test_jobs_are_json_whatever_is_asked_for(connection: Redis) -> None:
    queue = FairQueue("etl-acme", connection=connection, serializer="pickle", job_class="rq.job.Job")
    job = queue.enqueue("tasks.nothing", 1, two=2)
    assert isinstance(job, EtlJob)
    assert job.data == b'["tasks.nothing", null, [1], {"two": 2}]'


def test_turns_go_on_where_a_queue_has_gone(connection: Redis) -> None:
    connection.hset("etl:turn", mapping={"name": "etl-gone", "left": 1})
    put(connection, "ant")
    put(connection, "bee")
    assert list(islice(drain(connection, line(connection).names), 2)) == ["ant", "bee"]
