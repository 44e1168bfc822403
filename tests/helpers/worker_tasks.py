"""For tests: stock `rq worker` processes on a real Redis, and functions that die, sleep or will not listen."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError
from rq.job import Dependency

from jobs.job import EtlJob
from jobs.queue import FairQueue
from jobs.settings import WORKER_CLASSES
from tests.helpers.processes import ROOT, die_with_parent, wait_until
from tests.helpers.workers import StartWorkers

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


def notes(folder: Path, name: str) -> list[int]:
    """Return the process ids that a job's body was run by."""
    with contextlib.suppress(OSError):
        return [int(line) for line in (folder / f"{name}.notes").read_text().split()]
    return []


def worker_of(job: EtlJob, processes: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Return the process of the worker that runs a job."""
    name = EtlJob.fetch(job.id, connection=job.connection).worker_name
    pid = int(job.connection.hget(f"rq:worker:{name}", "pid") or 0)
    return next(process for process in processes if process.pid == pid)


def after(job: EtlJob) -> Dependency:
    """Depend on a job's end, whatever it is."""
    return Dependency([job], allow_failure=True, enqueue_at_front=True)


def run(folder: Path, queue: FairQueue, *command: str) -> subprocess.Popen[bytes]:
    """Start a command of rq with our classes; what it says is in rq.log."""
    url = f"unix://{queue.connection.connection_pool.connection_kwargs['path']}"
    environment = {**os.environ, **WORKER_CLASSES, "RQ_REDIS_URL": url, "ETL_MODULES": "tasks", "PYTHONPATH": str(ROOT)}
    with (folder / "rq.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "rq.cli", *command], cwd=folder, env=environment, stdout=log, stderr=log
        )


def serve(folder: Path, fsync: str = "always") -> subprocess.Popen[bytes]:
    """Start a redis-server that keeps what it knows in a folder, and return it when it answers."""
    program = shutil.which("redis-server") or shutil.which("valkey-server") or ""
    options = ["--port", "0", "--unixsocket", "r.sock", "--appendonly", "yes", "--appendfsync", fsync, "--save", ""]
    log = folder / "log"
    with log.open("ab") as out:
        server = subprocess.Popen(
            [program, *options], cwd=folder, stdout=out, stderr=out, preexec_fn=die_with_parent,
            restore_signals=False,  # SIGXFSZ stays ignored: a file that may not grow is an error, not a death
        )  # fmt: skip
    client = Redis(unix_socket_path=str(folder / "r.sock"))

    def answers() -> bool:
        with contextlib.suppress(RedisError):
            return bool(client.ping())
        return False

    wait_until(answers, server, log)
    return server
