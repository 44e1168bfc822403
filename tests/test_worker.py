"""The worker as stock `rq worker` processes on a real Redis: whatever dies, every job ends, and ends once."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError
from rq.command import send_shutdown_command, send_stop_job_command
from rq.job import Dependency, Retry

from jobs.job import EtlJob, JobFailed
from jobs.queue import FairQueue
from jobs.settings import WORKER_CLASSES
from tests.conftest import ROOT, StartWorkers, die_with_parent, kill_session, wait_until

Start = Callable[[int], list[subprocess.Popen[bytes]]]
PATIENCE = 20.0
LEASE = "1.2"  # seconds, so that lost leases are found soon

TASKS = """
import os, pathlib, random, subprocess, sys, time

def add(a, b):
    return a + b

def note(name):
    with open(f"{name}.notes", "a") as file:
        file.write(f"{os.getpid()}\\n")

def hold(name):
    note(name)
    while not pathlib.Path(f"{name}.go").exists():
        time.sleep(0.01)
    return "held"

def hold_with_child(name):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pathlib.Path(f"{name}.child").write_text(str(child.pid))
    return hold(name)

def deaf(name):
    while True:
        try:
            hold(name)
        except Exception:
            pass

def die(name, code=0):
    note(name)
    os._exit(code)

def leave():
    sys.exit(3)

def secret():
    raise ValueError("could not convert 'Jane Roe'")

def pid():
    return os.getpid()

def dice():
    return random.random()

def rows():
    return object()

def grow():
    global kept
    kept = bytearray(600 << 20)
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    (tmp_path / "tasks.py").write_text(TASKS)
    return tmp_path


@pytest.fixture
def start(workers: StartWorkers, tasks: Path) -> Start:
    """`start(n)` starts workers that may call tasks.py, with short leases."""

    def started(n: int) -> list[subprocess.Popen[bytes]]:
        return workers(n, env={"ETL_MODULES": "tasks", "ETL_LEASE": LEASE})

    return started


@pytest.fixture
def queue(real_redis: Redis) -> FairQueue:
    return FairQueue("etl-acme", connection=real_redis)


def put(queue: FairQueue, name: str, *args: Any, **options: Any) -> EtlJob:
    return queue.enqueue(f"tasks.{name}", args=args, **options)  # type: ignore[return-value]


def until(what: Callable[[], Any]) -> Any:
    """Wait until something is true, and return it."""
    give_up = time.monotonic() + PATIENCE
    while not (answer := what()):
        assert time.monotonic() < give_up, "waited too long"
        time.sleep(0.01)
    return answer


def notes(folder: Path, name: str) -> list[int]:
    """Return the process ids that a job's body was run by."""
    with contextlib.suppress(OSError):
        return [int(line) for line in (folder / f"{name}.notes").read_text().split()]
    return []


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def worker_of(job: EtlJob, processes: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Return the process of the worker that runs a job."""
    name = EtlJob.fetch(job.id, connection=job.connection).worker_name
    pid = int(job.connection.hget(f"rq:worker:{name}", "pid") or 0)
    return next(process for process in processes if process.pid == pid)


def after(job: EtlJob) -> Dependency:
    """Depend on a job's end, whatever it is."""
    return Dependency([job], allow_failure=True, enqueue_at_front=True)


def children(pid: int) -> list[int]:
    """Return the process ids of a process's children: a worker's horse and keeper."""
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(OSError):
        return [int(child) for child in tasks.read_text().split()]
    return []


def run(folder: Path, queue: FairQueue, *command: str) -> subprocess.Popen[bytes]:
    """Start a command of rq with our classes; what it says is in rq.log."""
    url = f"unix://{queue.connection.connection_pool.connection_kwargs['path']}"
    environment = {**os.environ, **WORKER_CLASSES, "RQ_REDIS_URL": url, "ETL_MODULES": "tasks", "PYTHONPATH": str(ROOT)}
    with (folder / "rq.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "rq.cli", *command], cwd=folder, env=environment, stdout=log, stderr=log
        )


def serve(folder: Path) -> subprocess.Popen[bytes]:
    """Start a redis-server that keeps what it knows in a folder, and return it when it answers."""
    program = shutil.which("redis-server") or shutil.which("valkey-server") or ""
    options = ["--port", "0", "--unixsocket", "r.sock", "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    log = folder / "log"
    with log.open("ab") as out:
        server = subprocess.Popen([program, *options], cwd=folder, stdout=out, stderr=out, preexec_fn=die_with_parent)
    client = Redis(unix_socket_path=str(folder / "r.sock"))

    def answers() -> bool:
        with contextlib.suppress(RedisError):
            return bool(client.ping())
        return False

    wait_until(answers, server, log)
    return server


# --- jobs ---


def test_jobs_of_all_clients_are_run_by_one_horse(start: Start, real_redis: Redis) -> None:
    [worker] = start(1)
    clients = [FairQueue(f"etl-{client}", connection=real_redis) for client in ("ant", "bee", "cat")]
    put_jobs = [put(queue, "pid") for queue in clients for _ in range(3)]
    pids = {job.wait(PATIENCE) for job in put_jobs}
    assert len(pids) == 1
    assert pids.pop() != worker.pid


def test_jobs_waiting_under_a_name_of_the_command_line_are_run_too(start: Start, real_redis: Redis) -> None:
    start(1)
    assert put(FairQueue("default", connection=real_redis), "add", 2, 3).wait(PATIENCE) == 5


def test_random_numbers_differ_between_horses(start: Start, queue: FairQueue) -> None:
    start(3)
    values = [job.wait(PATIENCE) for job in [put(queue, "dice") for _ in range(30)]]
    assert len(set(values)) == 30


def test_what_is_raised_is_told_by_type_and_place_only(start: Start, queue: FairQueue, tasks: Path) -> None:
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


@pytest.mark.slow
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


def test_a_worker_waits_for_redis_to_come_back_and_keeps_its_result(tasks: Path, server_folder: Path) -> None:
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
