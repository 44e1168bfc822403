"""FairQueue: clients are served in turn, each within its limits, and nothing but a waiting job is given out."""

from itertools import islice

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError
from rq import Queue
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

from jobs.job import EtlJob
from jobs.process.complete import Outcome, complete
from jobs.process.maintenance import rescue
from jobs.queue import FairQueue, ServedQueues, dequeue
from jobs.store.limits import pause
from jobs.store.limits import resume as resume_clients


def put(connection: Redis, client: str, count: int = 1) -> list[EtlJob]:
    queue = FairQueue(f"etl-{client}", connection=connection)
    return [queue.enqueue("tasks.nothing", description=f"{client} {i}") for i in range(count)]  # type: ignore[misc]


def drain(connection: Redis, *names: str) -> list[str]:
    dequeued = []
    while found := dequeue(connection, names, "w"):
        job, queue = found
        dequeued.append(queue.name.removeprefix("etl-"))
        complete(connection, job, queue, Outcome("done"))
    return dequeued


def test_a_client_with_ten_times_the_work_does_not_delay_the_others(connection: Redis) -> None:
    put(connection, "big", 30)
    for client in ("ant", "bee", "cat"):
        put(connection, client, 3)
    order = drain(connection)
    assert order[:12].count("big") == 3
    assert len(order) == 39


def test_workers_share_one_turn(connection: Redis) -> None:
    for client in ("ant", "bee", "cat"):
        put(connection, client, 2)
    order = [found[1].name for worker in ("v", "w") * 3 if (found := dequeue(connection, worker=worker))]
    assert order == ["etl-ant", "etl-bee", "etl-cat"] * 2


def test_a_dequeued_job_is_started_and_leased_to_its_worker(connection: Redis) -> None:
    [put_job] = put(connection, "acme")
    found = dequeue(connection, worker="w")
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
    held = [found for found in (dequeue(connection, worker="w") for _ in range(6)) if found]
    assert sorted(queue.name for _, queue in held) == ["etl-acme", "etl-zeta", "etl-zeta", "etl-zeta"]
    job, queue = next(found for found in held if found[1].name == "etl-acme")
    complete(connection, job, queue, Outcome("done"))
    again = dequeue(connection, worker="w")
    assert again is not None
    assert again[1].name == "etl-acme"


@pytest.mark.parametrize(("paused", "served"), [("1", False), ("0", True), ("", True)])
def test_a_paused_client_waits(connection: Redis, paused: str, served: bool) -> None:
    put(connection, "acme")
    connection.hset("etl:client:acme", "paused", paused)
    assert bool(dequeue(connection, worker="w")) == served


def test_suspended_workers_dequeue_nothing(connection: Redis) -> None:
    put(connection, "acme")
    suspend(connection)
    assert dequeue(connection, worker="w") is None
    resume(connection)
    assert dequeue(connection, worker="w") is not None


def test_ids_without_a_waiting_job_are_passed_over(connection: Redis) -> None:
    gone, twice, canceled, last = put(connection, "acme", 4)
    connection.delete(gone.key)
    connection.lpush("rq:queue:etl-acme", twice.id)
    connection.hset(canceled.key, "status", "canceled")
    dequeued = [found[0].id for found in iter(lambda: dequeue(connection), None) if found]
    assert dequeued == [twice.id, last.id]


def test_a_job_that_cannot_be_read_is_dequeued_to_fail(connection: Redis) -> None:
    [job] = put(connection, "acme")
    connection.hset(job.key, mapping={"data": b"\x80\x05pickle", "retry_intervals": "not json"})
    found = dequeue(connection, worker="w")
    assert found is not None
    with pytest.raises(Exception, match=r"^$"):
        found[0].perform()


def test_a_new_clients_queue_is_served_at_the_next_look(connection: Redis) -> None:
    assert dequeue(connection, ["default"]) is None
    put(connection, "newcomer")
    connection.sadd("rq:queues", "rq:queue:somebody-elses")
    assert drain(connection, "default") == ["newcomer"]
    assert dequeue(connection, ["default"]) is None


def test_queues_that_are_no_clients_are_served_in_turn_by_workers_that_name_them(connection: Redis) -> None:
    put(connection, "ant", 2)
    put(connection, "zoo", 2)
    Queue("mail", connection=connection, serializer=JSONSerializer).enqueue("tasks.nothing")
    assert drain(connection) == ["ant", "zoo", "ant", "zoo"]
    put(connection, "ant", 2)
    put(connection, "zoo")
    assert drain(connection, "mail") == ["mail", "ant", "zoo", "ant"]  # the last was zoo


def test_queues_that_are_named_to_rq_are_looked_at_and_no_others(connection: Redis) -> None:
    put(connection, "ant")
    put(connection, "bee")
    queues = [FairQueue("etl-bee", connection=connection)]
    found = FairQueue.dequeue_any(queues, None, connection)
    assert found is not None
    assert found[1].name == "etl-bee"
    assert FairQueue.dequeue_any(queues, None, connection) is None


def test_every_way_of_enqueueing_gives_a_queue_its_turn(connection: Redis) -> None:
    queue = FairQueue("etl-acme", connection=connection)
    queue.enqueue_call("tasks.nothing")
    queue.enqueue("tasks.nothing", job_id="once", unique=True)
    queue.enqueue_many([FairQueue.prepare_data("tasks.nothing")])
    with connection.pipeline() as pipe:
        queue.enqueue_job(queue.create_job("tasks.nothing"), pipeline=pipe)
        pipe.execute()
    assert drain(connection) == ["acme"] * 4


def test_a_queue_filled_past_us_gets_its_turn_from_maintenance(connection: Redis) -> None:
    Queue("etl-acme", connection=connection, serializer=JSONSerializer).enqueue("tasks.nothing")
    assert dequeue(connection) is None
    rescue(connection, ["etl-acme"])
    assert drain(connection) == ["acme"]


def test_the_ring_of_turns_holds_queues_that_have_jobs_to_give_and_no_others(connection: Redis) -> None:
    for client in ("ant", "bee", "cat"):
        put(connection, client)
    pause(connection, ["bee"])
    assert drain(connection) == ["ant", "cat"]
    assert connection.zrange("etl:ready", 0, -1) == []
    resume_clients(connection, ["bee"])
    assert drain(connection) == ["bee"]
    assert connection.zrange("etl:ready", 0, -1) == []


def test_an_idle_look_sees_what_there_is_to_do(connection: Redis) -> None:
    served = ServedQueues(connection, ["mail"])
    assert not served.has_jobs()
    put(connection, "newcomer")
    assert served.has_jobs()
    drain(connection)
    assert not served.has_jobs()
    Queue("mail", connection=connection, serializer=JSONSerializer).enqueue("tasks.nothing")
    assert served.has_jobs()


def test_what_a_dequeue_costs_does_not_grow_with_the_number_of_clients(real_redis: Redis) -> None:
    def commands(clients: int) -> tuple[int, int]:
        real_redis.flushall()
        real_redis.sadd("rq:queues", *[f"rq:queue:etl-c{i:04}" for i in range(clients)])
        put(real_redis, f"c{clients - 1:04}", 2)
        dequeue(real_redis)  # it may have to send its script
        real_redis.config_resetstat()
        assert dequeue(real_redis) is not None
        found = sum(stat["calls"] for stat in real_redis.info("commandstats").values())
        dequeue(real_redis)
        real_redis.config_resetstat()
        assert dequeue(real_redis) is None
        return found, sum(stat["calls"] for stat in real_redis.info("commandstats").values())

    assert commands(1) == commands(2000)
    assert commands(1)[1] <= 3  # with the one that asks


def test_a_redis_without_memory_gives_no_job_and_loses_none(real_redis: Redis) -> None:
    put(real_redis, "acme")
    real_redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            dequeue(real_redis)
    finally:
        real_redis.config_set("maxmemory", 0)
    assert drain(real_redis) == ["acme"]


def test_jobs_are_json_whatever_is_asked_for(connection: Redis) -> None:
    queue = FairQueue("etl-acme", connection=connection, serializer="pickle", job_class="rq.job.Job")
    job = queue.enqueue("tasks.nothing", 1, two=2)
    assert isinstance(job, EtlJob)
    assert job.data == b'["tasks.nothing", null, [1], {"two": 2}]'


def test_turns_go_on_where_a_queue_has_gone(connection: Redis) -> None:
    connection.hset("etl:served", mapping={"name": "etl-gone", "left": 1})
    put(connection, "ant")
    put(connection, "bee")
    assert list(islice(drain(connection), 2)) == ["ant", "bee"]
