# ruff: noqa: F401, F811 - fixtures are asked for by name
"""The worker as stock `rq worker` processes on a real Redis: whatever dies, every job ends, and ends once."""

import sys
from pathlib import Path

import pytest
from redis import Redis
from rq.command import send_stop_job_command
from rq.job import Retry

from jobs.job import EtlJob, JobFailed
from jobs.queue import FairQueue
from tests.helpers.processes import is_alive, until
from tests.helpers.worker_tasks import PATIENCE, Start, notes, put, queue, start, tasks

# --- jobs ---


def test_a_clients_jobs_are_run_by_one_horse(start: Start, real_redis: Redis) -> None:
    [worker] = start(1)
    queue = FairQueue("etl-ant", connection=real_redis)
    put_jobs = [put(queue, "pid") for _ in range(9)]
    pids = {job.wait(PATIENCE) for job in put_jobs}
    assert len(pids) == 1
    assert pids.pop() != worker.pid


@pytest.mark.slow
def test_jobs_waiting_under_a_name_of_the_command_line_are_run_too(start: Start, real_redis: Redis) -> None:
    start(1)
    assert put(FairQueue("default", connection=real_redis), "add", 2, 3).wait(PATIENCE) == 5


def test_random_numbers_differ_between_horses(start: Start, queue: FairQueue) -> None:
    start(3)
    values = [job.wait(PATIENCE) for job in [put(queue, "dice") for _ in range(30)]]
    assert len(set(values)) == 30


def test_what_is_raised_is_reported_by_type_and_place_only(start: Start, queue: FairQueue, tasks: Path) -> None:
    start(1)
    job = put(queue, "secret")
    with pytest.raises(JobFailed, match=r"ValueError at tasks:secret:\d+$"):
        job.wait(PATIENCE)
    everything = b"".join(queue.connection.dump(key) or b"" for key in queue.connection.scan_iter())
    assert b"Jane" not in everything + (tasks / "worker-1.log").read_bytes()
    raw = EtlJob.fetch(job.id, connection=queue.connection)
    assert "Jane" not in f"{raw.to_dict()} {raw._exc_info}"


def test_sys_exit_is_a_failure_and_a_value_that_is_not_json_is_not_kept(start: Start, queue: FairQueue) -> None:
    start(1)
    with pytest.raises(JobFailed, match=r"SystemExit at tasks:leave:\d+$"):
        put(queue, "leave").wait(PATIENCE)
    assert put(queue, "rows").wait(PATIENCE) == "Unserializable return value"


def test_a_failed_job_is_retried_without_rqs_scheduler(start: Start, queue: FairQueue) -> None:
    start(1)
    job = put(queue, "secret", retry=Retry(max=2, interval=[1, 0]))
    with pytest.raises(JobFailed, match="ValueError"):
        job.wait(PATIENCE)
    assert EtlJob.fetch(job.id, connection=queue.connection).retries_left == 0
    assert queue.connection.keys("rq:scheduler*") == []


def test_changed_code_is_run_from_the_next_job_on(start: Start, queue: FairQueue, tasks: Path) -> None:
    start(1)
    assert put(queue, "add", 2, 3).wait(PATIENCE) == 5
    (tasks / "tasks.py").write_text("def add(a, b):\n    return [a, b]\n")
    assert put(queue, "add", 2, 3).wait(PATIENCE) == [2, 3]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_horse_that_has_grown_is_replaced(start: Start, queue: FairQueue) -> None:
    start(1)
    before = put(queue, "pid").wait(PATIENCE)
    put(queue, "grow").wait(PATIENCE)
    assert put(queue, "pid").wait(PATIENCE) != before


# --- timeouts and commands ---


@pytest.mark.parametrize("name", ["hold", "deaf"])
def test_a_timeout_ends_whatever_the_job_does_about_it(start: Start, queue: FairQueue, tasks: Path, name: str) -> None:
    start(1)
    job = put(queue, name, "slow", job_timeout=1)
    with pytest.raises(JobFailed, match="timed out after 1 s"):
        job.wait(PATIENCE)
    until(lambda: not is_alive(notes(tasks, "slow")[0]))
    assert put(queue, "add", 2, 3).wait(PATIENCE) == 5


def test_a_timeout_uses_up_a_retry(start: Start, queue: FairQueue, tasks: Path) -> None:
    start(1)
    job = put(queue, "hold", "slow", job_timeout=1, retry=Retry(max=1))
    until(lambda: len(notes(tasks, "slow")) == 2)
    (tasks / "slow.go").touch()
    assert job.wait(PATIENCE) == "held"
    assert EtlJob.fetch(job.id, connection=queue.connection).retries_left == 0


def test_a_running_job_can_be_stopped(start: Start, queue: FairQueue, tasks: Path) -> None:
    start(1)
    job = put(queue, "hold_with_child", "a", retry=Retry(max=3))
    until(lambda: notes(tasks, "a"))
    send_stop_job_command(queue.connection, job.id)
    with pytest.raises(JobFailed, match="stopped by a command"):
        job.wait(PATIENCE)
    assert job.get_status() == "stopped"
    until(lambda: not is_alive(int((tasks / "a.child").read_text())))
    assert put(queue, "add", 2, 3).wait(PATIENCE) == 5


def test_a_job_that_is_canceled_while_it_runs_is_killed(start: Start, queue: FairQueue, tasks: Path) -> None:
    start(1)
    job = put(queue, "hold", "a")
    [pid] = until(lambda: notes(tasks, "a"))
    EtlJob.fetch(job.id, connection=queue.connection).cancel()
    until(lambda: not is_alive(pid))
    assert put(queue, "add", 2, 3).wait(PATIENCE) == 5
    assert job.get_status() == "canceled"


# --- what a function does to the process that it runs in ---

SPOILS = """
import os, sys

class Late:
    def __getattr__(self, name):
        raise ImportError(name)

def interrupts():
    raise KeyboardInterrupt

def closes():
    sys.stdout.close()
    sys.stderr = None
    return "closed"

def loads_late():
    sys.modules["late"] = Late()
    return "late"

def signals():
    for number in (1, 2, 15):
        os.kill(os.getppid(), number)
    return os.getppid()

def deep():
    sys.setrecursionlimit(10**6)
    value = []
    for _ in range(100_000):
        value = [value]
    return value
"""


def test_what_a_function_raises_returns_or_closes_fails_its_job_at_most_and_no_horse(
    start: Start, queue: FairQueue, tasks: Path
) -> None:
    (tasks / "tasks.py").write_text(SPOILS)
    [worker] = start(1)
    with pytest.raises(JobFailed, match="KeyboardInterrupt at tasks:interrupts"):
        put(queue, "interrupts").wait(PATIENCE)
    with pytest.raises(JobFailed, match="nested too deep"):
        put(queue, "deep").wait(PATIENCE)
    assert put(queue, "loads_late").wait(PATIENCE) == "late"
    parent = put(queue, "signals").wait(PATIENCE)
    assert put(queue, "signals").wait(PATIENCE) == parent != worker.pid
    assert put(queue, "closes").wait(PATIENCE) == "closed"
