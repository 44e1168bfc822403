# ruff: noqa: F401, F811 - fixtures are asked for by name
"""Workers that are killed, put to sleep, asked to stop, or lose sight of Redis."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from redis import Redis
from rq.command import send_shutdown_command
from rq.job import Retry

from jobs.job import EtlJob, JobFailed
from jobs.queue import FairQueue
from tests.helpers.processes import children, is_alive, kill_session, until
from tests.helpers.redis_server import RedisServer
from tests.helpers.worker_tasks import PATIENCE, Start, after, notes, put, queue, run, serve, start, tasks, worker_of
from tests.helpers.workers import StartWorkers

pytestmark = pytest.mark.slow

# --- deaths ---


def test_a_job_whose_horse_is_killed_runs_again_at_once(start: Start, queue: FairQueue, tasks: Path) -> None:
    start(1)
    job = put(queue, "hold", "a", retry=Retry(max=1))
    [pid] = until(lambda: notes(tasks, "a"))
    os.kill(pid, signal.SIGKILL)
    until(lambda: len(notes(tasks, "a")) == 2)
    (tasks / "a.go").touch()
    assert job.wait(PATIENCE) == "held"
    assert EtlJob.fetch(job.id, connection=queue.connection).retries_left == 1


@pytest.mark.parametrize("code", [0, 1])
def test_a_poison_job_is_failed_and_delays_nobody(start: Start, queue: FairQueue, tasks: Path, code: int) -> None:
    start(1)
    poison, other = put(queue, "die", "poison", code), put(queue, "add", 2, 3)
    child = put(queue, "add", 1, 1, depends_on=after(poison))
    with pytest.raises(JobFailed, match="lost its worker three times"):
        poison.wait(PATIENCE)
    assert len(notes(tasks, "poison")) == 3
    assert (other.wait(PATIENCE), child.wait(PATIENCE)) == (5, 2)


@pytest.mark.parametrize("victims", ["worker", "both"])
def test_a_job_whose_worker_is_killed_runs_again_elsewhere(
    start: Start, queue: FairQueue, tasks: Path, victims: str
) -> None:
    processes = start(3)
    job = put(queue, "hold_with_child", "a")
    [pid] = until(lambda: notes(tasks, "a"))
    child = int((tasks / "a.child").read_text())
    worker = worker_of(job, processes)
    os.kill(worker.pid, signal.SIGKILL)
    if victims == "both":
        os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid) and not is_alive(child))
    until(lambda: len(notes(tasks, "a")) == 2)
    (tasks / "a.go").touch()
    assert job.wait(PATIENCE) == "held"
    assert len(notes(tasks, "a")) == 2


def test_a_worker_that_slept_past_its_lease_drops_its_result(start: Start, queue: FairQueue, tasks: Path) -> None:
    processes = start(3)
    job = put(queue, "hold", "a")
    [pid] = until(lambda: notes(tasks, "a"))
    sleeper = worker_of(job, processes)
    os.kill(sleeper.pid, signal.SIGSTOP)
    until(lambda: len(notes(tasks, "a")) == 2)
    os.kill(sleeper.pid, signal.SIGCONT)
    until(lambda: not is_alive(pid))
    (tasks / "a.go").touch()
    assert job.wait(PATIENCE) == "held"
    assert len(job.results()) == 1
    assert len(notes(tasks, "a")) == 2


def test_a_storm_of_kills_leaves_every_job_done(start: Start, real_redis: Redis, tasks: Path) -> None:
    queues = [FairQueue(f"etl-c{i}", connection=real_redis) for i in range(6)]
    chains = []
    for i in range(60):
        queue = queues[i % 6]
        first = put(queue, "note", f"j{i}a")
        second = put(queue, "note", f"j{i}b", depends_on=after(first))
        chains += [first, second]
    processes = start(3)
    for round in range(8):
        victim = processes[round % len(processes)]
        busy = [pid for pid in children(victim.pid) if round % 2]
        for pid in [*busy, *([] if round % 4 == 1 else [victim.pid])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if victim.poll() is not None or round % 4 != 1:
            processes[round % len(processes)] = start(1)[0]
        assert run(tasks, queues[0], "info").wait(PATIENCE) == 0  # it cleans registries without asking anyone
    for job in chains:
        job.wait(PATIENCE)
    ran = [len(notes(tasks, f"j{i}{half}")) for i in range(60) for half in "ab"]
    assert min(ran) == 1
    for queue in queues:
        assert queue.count == 0
        assert real_redis.zcard(f"rq:wip:{queue.name}") == 0


# --- stopping ---


def test_the_first_signal_lets_the_job_end(start: Start, queue: FairQueue, tasks: Path) -> None:
    [worker] = start(1)
    job, next_job = put(queue, "hold", "a"), put(queue, "add", 2, 3)
    until(lambda: notes(tasks, "a"))
    worker.send_signal(signal.SIGTERM)
    until(lambda: b"warm shut down" in (tasks / "worker-1.log").read_bytes())
    assert worker.poll() is None
    (tasks / "a.go").touch()
    assert worker.wait(PATIENCE) == 0
    assert (job.get_status(), next_job.get_status()) == ("finished", "queued")


def test_the_second_signal_puts_the_job_back(start: Start, queue: FairQueue, tasks: Path) -> None:
    [worker] = start(1)
    job = put(queue, "hold", "a", retry=Retry(max=1))
    [pid] = until(lambda: notes(tasks, "a"))
    worker.send_signal(signal.SIGTERM)
    while worker.poll() is None:  # RQ takes two within a second for one
        time.sleep(0.1)
        with contextlib.suppress(ProcessLookupError):
            worker.send_signal(signal.SIGTERM)
    assert not is_alive(pid)
    again = EtlJob.fetch(job.id, connection=queue.connection)
    assert (again.get_status(), queue.job_ids, again.retries_left) == ("queued", [job.id], 1)
    assert queue.connection.hget(job.key, "etl_losses") is None


def test_an_idle_worker_stops_at_once_and_by_command(start: Start, queue: FairQueue) -> None:
    one, two = start(2)
    keys = queue.connection.smembers("rq:workers")
    until(lambda: all(queue.connection.hget(key, "state") == b"idle" for key in keys))
    one.send_signal(signal.SIGINT)
    assert one.wait(PATIENCE) == 0
    [name] = [key.decode().removeprefix("rq:worker:") for key in queue.connection.smembers("rq:workers")]  # type: ignore[union-attr]
    send_shutdown_command(queue.connection, name)
    assert two.wait(PATIENCE) == 0
    assert queue.connection.smembers("rq:workers") == set()


def test_a_burst_worker_ends_with_the_last_job(queue: FairQueue, tasks: Path) -> None:
    put_jobs = [put(queue, "add", 2, i) for i in range(5)]
    assert run(tasks, queue, "worker", "--burst").wait(PATIENCE) == 0
    assert [job.return_value() for job in put_jobs] == [2, 3, 4, 5, 6]


def test_a_pool_of_workers_is_ours(queue: FairQueue, tasks: Path) -> None:
    put_jobs = [put(queue, "pid") for _ in range(5)]
    assert run(tasks, queue, "worker-pool", "--burst", "-n", "2").wait(PATIENCE) == 0
    assert all(job.return_value() for job in put_jobs)


# --- Redis ---


def test_a_worker_survives_a_flush(start: Start, queue: FairQueue) -> None:
    [worker] = start(1)
    assert put(queue, "add", 2, 3).wait(PATIENCE) == 5
    queue.connection.flushall()
    assert put(queue, "add", 2, 4).wait(PATIENCE) == 6
    until(lambda: queue.connection.smembers("rq:workers"))
    until(lambda: queue.connection.smembers("rq:workers:etl-acme"))
    assert worker.poll() is None


def test_a_worker_waits_for_redis_to_come_back_and_keeps_its_result(
    tasks: Path, server_folder: Path, redis_server: RedisServer
) -> None:
    folder = server_folder / "own"
    folder.mkdir()
    url = f"unix://{folder}/r.sock"
    server = serve(folder)
    client = Redis.from_url(url)
    queue = FairQueue("etl-acme", connection=client)
    start = StartWorkers(url, tasks)
    try:
        [worker] = start(env={"ETL_MODULES": "tasks"})
        job = put(queue, "hold", "a")
        until(lambda: notes(tasks, "a"))
        server.terminate()
        server.wait()
        (tasks / "a.go").touch()
        until(lambda: b"Redis is away" in (tasks / "worker-1.log").read_bytes())
        server = serve(folder)
        assert job.wait(PATIENCE) == "held"
        assert put(queue, "add", 2, 3).wait(PATIENCE) == 5
        assert worker.poll() is None
        assert notes(tasks, "a") == [notes(tasks, "a")[0]]
    finally:
        for process in [*start.processes, server]:
            kill_session(process)


def test_an_idle_worker_is_known_with_its_queues(start: Start, queue: FairQueue) -> None:
    start(1)
    put(queue, "add", 2, 3).wait(PATIENCE)
    until(lambda: queue.connection.smembers("rq:workers:etl-acme"))
    name = next(iter(queue.connection.smembers("rq:workers")))
    until(lambda: queue.connection.hget(name, "state") == b"idle")
    assert queue.connection.hget(name, "queues") == b"default,etl-acme"
    assert queue.connection.hget(name, "current_job") is None
