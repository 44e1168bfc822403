"""Workers as processes: becoming one, listing them, and all of a project's processes under one supervisor."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from etl.errors import ConfigError
from jobs import broker, project, settings
from jobs.crew import Crew, worker_command
from jobs.session import Session
from jobs.spawn import spawn

LOOK = 0.2  # seconds between looks for processes that have died


def workers(session: Session) -> list[dict[str, Any]]:
    """Return the workers that are alive, as RQ knows them."""
    from jobs.worker import Worker

    lines = []
    for worker in Worker.all(connection=session.connection):
        beat = worker.last_heartbeat
        lines.append(
            {
                "name": worker.name,
                "host": worker.hostname,
                "pid": worker.pid,
                "state": worker.get_state(),
                "job": worker.get_current_job_id(),
                "jobs_done": worker.successful_job_count,
                "jobs_failed": worker.failed_job_count,
                "heartbeat_age": round((datetime.now(UTC) - beat.astimezone(UTC)).total_seconds(), 1) if beat else None,
            }
        )
    return lines


def worker(config: str | None, redis: str | None, count: int, *, burst: bool) -> None:
    """Become `rq worker`, or `rq worker-pool` for several, with our classes."""
    found = _server(config, redis)
    options = ["--burst"] if burst else []
    if found.owned:
        sys.exit(_work_beside(found, count, *options))
    command = _pool(count, *options) if count > 1 else worker_command(*options)
    os.execve(command[0], command, settings.worker_environment(found.url, project.path()))


def _work_beside(server: broker.Broker, count: int, *options: str) -> int:
    """Run workers for the Redis that ends with this process; returns the exit code."""
    crew = Crew(server.url, None, *options)
    crew.start(count)
    with _until_told(server, crew):
        while not options:  # all but `--burst`
            server.keep()
            crew.replace_dead()
            time.sleep(LOOK)
        return crew.wait()


# `rq worker-pool` reads no classes from the environment but the worker's.
POOL_CLASSES = (
    "--worker-class",
    "jobs.worker.Worker",
    "--job-class",
    "jobs.job.EtlJob",
    "--queue-class",
    "jobs.queue.FairQueue",
)


def _pool(count: int, *options: str) -> list[str]:
    """Return the command line of `rq worker-pool`, which starts a worker again that has died."""
    return [*worker_command()[:-1], "worker-pool", *options, "-n", str(count), *POOL_CLASSES]


def up(config: str | None, redis: str | None, count: int, port: int) -> int:
    """Run workers and the dashboard until interrupted, or until the dashboard ends.

    Returns:
        The exit code.
    """
    found = _server(config, redis)
    crew = Crew(found.url)
    command = [sys.executable, "-P", "-m", "cli", "dashboard", "--port", str(port)]
    environment = settings.worker_environment(found.url, project.path())
    dashboard = spawn(command, signal.SIGTERM, env=environment)
    crew.start(count)
    with _until_told(found, crew, dashboard):
        while dashboard.poll() is None:
            found.keep()
            crew.replace_dead()
            time.sleep(LOOK)
        return dashboard.returncode


@contextlib.contextmanager
def _until_told(server: broker.Broker, crew: Crew, *others: subprocess.Popen[bytes]) -> Iterator[None]:
    """Have signals end the block, and then all processes, workers before their Redis."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, leave)
    try:
        yield
    finally:
        crew.end(*others)
        server.close()


def _server(config: str | None, redis: str | None) -> broker.Broker:
    project.use(config)
    settings.modules()  # mistakes in etl.toml are told now, not by each job
    found = broker.connect(redis or settings.redis_url(), project.path().parent)
    if found.kind == "in-process":
        raise ConfigError("workers need a Redis server", "set REDIS_URL or install redis-server")
    return found
